//! How much of its share an endpoint gets that has not been there for long.
//!
//! Part of the table and pure: the next table knows from the one before who is new and who is well again.

use std::time::{Duration, Instant};

/// Since when an endpoint takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It was there when its upstream was first seen: everybody is as new then.
    Original,
    /// It is unhealthy. Whether it is to start slowly once it is well.
    Unhealthy { slowly: bool },
    /// It came, or became healthy, later.
    At(Instant),
}

/// A whole share.
pub(super) const WHOLE: u32 = 1000;
/// With what it starts.
const LEAST: u32 = WHOLE / 10;

impl Start {
    /// Of an endpoint in the next table. `before` is `None` if it is not in the table before; `is_first` is whether the upstream
    /// has its endpoints for the first time.
    pub fn next(before: Option<Self>, is_first: bool, is_healthy: bool, now: Instant) -> Self {
        match (before, is_healthy) {
            (None, false) => Self::Unhealthy { slowly: !is_first },
            (None, true) if is_first => Self::Original,
            (None, true) => Self::At(now),
            (Some(Self::Unhealthy { slowly: false }), true) => Self::Original,
            (Some(Self::Unhealthy { slowly: true }), true) => Self::At(now),
            (Some(Self::Original | Self::At(_)), false) => Self::Unhealthy { slowly: true },
            (Some(before), _) => before,
        }
    }

    /// In thousandths: from a tenth up to all at the end of the window, in a straight line.
    pub fn share(self, window: Duration, now: Instant) -> u32 {
        let Self::At(start) = self else { return WHOLE };
        let since = now.saturating_duration_since(start);
        if since >= window {
            return WHOLE;
        }
        // The window is longer than no time here, and the quotient less than 1.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
        let share = (since.div_duration_f64(window) * f64::from(WHOLE)) as u32;
        share.max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn who_was_there_from_the_first_has_its_share_and_who_comes_starts_slowly() {
        let now = Instant::now();
        assert_eq!(Start::next(None, true, true, now), Start::Original);
        assert_eq!(Start::next(None, false, true, now), Start::At(now));
        assert_eq!(Start::next(Some(Start::At(now)), false, true, now + MINUTE), Start::At(now), "once");
        assert_eq!(Start::next(Some(Start::Original), true, true, now), Start::Original);
    }

    #[test]
    fn who_is_well_again_starts_slowly() {
        let now = Instant::now();
        for before in [Start::Original, Start::At(now)] {
            let ill = Start::next(Some(before), false, false, now);
            assert_eq!(Start::next(Some(ill), false, false, now), ill);
            assert_eq!(Start::next(Some(ill), false, true, now + MINUTE), Start::At(now + MINUTE));
        }
        let new = Start::next(None, false, false, now);
        assert_eq!(Start::next(Some(new), false, true, now + MINUTE), Start::At(now + MINUTE));
    }

    #[test]
    fn the_first_verdict_on_the_first_endpoints_is_no_recovery() {
        let now = Instant::now();
        let unknown = Start::next(None, true, false, now);
        assert_eq!(Start::next(Some(unknown), false, true, now), Start::Original);
    }

    #[test]
    fn the_share_grows_in_a_straight_line_from_a_tenth() {
        let start = Instant::now();
        let share = |after| Start::At(start).share(MINUTE, start + Duration::from_secs(after));
        assert_eq!([0, 3, 6, 30, 59, 60, 600].map(share), [100, 100, 100, 500, 983, 1000, 1000]);
        assert_eq!(Start::Original.share(MINUTE, start), WHOLE);
        assert_eq!(Start::Unhealthy { slowly: true }.share(MINUTE, start), WHOLE, "in panic all are alike");
        assert_eq!(Start::At(start).share(Duration::ZERO, start), WHOLE);
    }

    proptest! {
        #[test]
        fn it_never_shrinks(window in 1_u64..1_000_000, times in prop::collection::vec(0_u64..2_000_000, 2..20)) {
            let start = Instant::now();
            let share = |millis| {
                Start::At(start).share(Duration::from_millis(window), start + Duration::from_millis(millis))
            };
            let mut times = times;
            times.sort_unstable();
            prop_assert!(times.windows(2).all(|pair| share(pair[0]) <= share(pair[1])));
            prop_assert!(times.iter().all(|time| (LEAST..=WHOLE).contains(&share(*time))));
        }
    }
}
