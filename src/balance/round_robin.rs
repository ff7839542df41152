//! Weighted round robin, one order for the whole process.

use crate::routing::Endpoint;

use super::{Pick, Schedule, Tried};

/// The endpoint whose turn it is, or the next in order that was not tried.
pub(super) fn pick(endpoints: &[Endpoint], schedule: &Schedule, turn: usize, tried: &Tried) -> Option<Pick> {
    let index = (0..schedule.len())
        .filter_map(|ahead| schedule.at(turn.wrapping_add(ahead)))
        .find(|index| !tried.contains(*index))?;
    let reservation = endpoints.get(index)?.state.reserve();
    Some(Pick { index, reservation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::endpoints;

    #[test]
    fn visits_in_order_and_skips_the_tried() {
        let endpoints = endpoints(&[1, 1, 1]);
        let schedule = Schedule::new([1, 1, 1].into_iter());
        let mut tried = Tried::default();
        let picked = |turn, tried: &Tried| pick(&endpoints, &schedule, turn, tried).map(|pick| pick.index);
        assert_eq!(
            (0..4).map(|turn| picked(turn, &tried)).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2), Some(0)]
        );
        tried.insert(1);
        assert_eq!(picked(1, &tried), Some(2));
        tried.insert(0);
        tried.insert(2);
        assert_eq!(picked(1, &tried), None);
    }
}
