//! Numbers as people read them. All of one column have the same form, so that they can be compared at a glance.

use std::time::Duration;

/// Between thousands: narrow, and no place to break a line.
const GAP: char = '\u{202f}';

/// `1 234 567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(GAP);
        }
        text.push(digit);
    }
    text
}

/// Of something that happens so often in a second.
pub(super) fn per_second(rate: f64) -> String {
    if rate == 0.0 {
        return "0".to_owned();
    }
    if rate < 10.0 { format!("{rate:.1}") } else { count(whole(rate)) }
}

/// `1.2 MiB`.
pub(super) fn bytes(number: f64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut number = number;
    for unit in UNITS {
        if number < 999.5 || unit == "EiB" {
            let digits = usize::from(unit != "B" && number < 99.95);
            return format!("{number:.digits$}{GAP}{unit}");
        }
        number /= 1024.0;
    }
    String::new()
}

/// A short time, with what matters of it: `850 µs`, `1.2 ms`, `3.4 s`.
pub(super) fn short(seconds: f64) -> String {
    if seconds < 1e-3 {
        return format!("{:.0}{GAP}µs", seconds * 1e6);
    }
    if seconds < 0.999_5 {
        let milliseconds = seconds * 1e3;
        let digits = if milliseconds < 10.0 { 1 } else { 0 };
        return format!("{milliseconds:.digits$}{GAP}ms");
    }
    if seconds < 60.0 { format!("{seconds:.1}{GAP}s") } else { long(Duration::from_secs(whole(seconds))) }
}

/// How long something is there already: `12 s`, `5 min 3 s`, `3 h 5 min`, `2 d 7 h`.
pub(super) fn long(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, unit: &str, small: u64, lesser: &str| {
        format!("{}{GAP}{unit} {small}{GAP}{lesser}", count(large))
    };
    match seconds {
        0..60 => format!("{seconds}{GAP}s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// `12 %`, `0.3 %`; what is not nothing does not look like nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return format!("0{GAP}%");
    }
    #[expect(clippy::cast_precision_loss, reason = "exact enough to look at")]
    let percent = part as f64 / whole as f64 * 100.0;
    match percent {
        0.0..0.1 => format!("<{GAP}0.1{GAP}%"),
        0.1..10.0 => format!("{percent:.1}{GAP}%"),
        _ => format!("{percent:.0}{GAP}%"),
    }
}

/// `1 endpoint`, `2 endpoints`.
pub(super) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{}{GAP}{what}{plural}", count(number as u64))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
pub(super) fn whole(number: f64) -> u64 {
    number.round().clamp(0.0, 1e18) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: String) -> String {
        text.replace(GAP, " ")
    }

    #[test]
    fn numbers_are_short_and_of_one_form() {
        let counts = [0, 999, 1_000, 1_234_567].map(count).map(plain);
        assert_eq!(counts, ["0", "999", "1 000", "1 234 567"]);
        let sizes = [0.0, 1_023.0, 1_536.0, 123_456.0, 5e9, 1e30].map(bytes).map(plain);
        assert_eq!(sizes, ["0 B", "1.0 KiB", "1.5 KiB", "121 KiB", "4.7 GiB", "867361737988 EiB"]);
        let rates = [0.0, 0.04, 9.94, 1_234.5].map(per_second).map(plain);
        assert_eq!(rates, ["0", "0.0", "9.9", "1 235"]);
        assert_eq!(
            [(0, 0), (1, 100_000), (1, 300), (1, 2)].map(|(a, b)| plain(percent(a, b))),
            ["0 %", "< 0.1 %", "0.3 %", "50 %"]
        );
    }

    #[test]
    fn times_have_the_units_that_matter() {
        let times = [0.000_85, 0.001_24, 0.025, 0.999_9, 3.42, 61.0].map(short).map(plain);
        assert_eq!(times, ["850 µs", "1.2 ms", "25 ms", "1.0 s", "3.4 s", "1 min 1 s"]);
        let ages = [0, 59, 60, 3_661, 90_000].map(|age| plain(long(Duration::from_secs(age))));
        assert_eq!(ages, ["0 s", "59 s", "1 min 0 s", "1 h 1 min", "1 d 1 h"]);
    }
}
