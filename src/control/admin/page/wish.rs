//! What a viewer wants to see of much: the parameters of the page. They are in the address, so that a view can be kept, sent to
//! somebody, and had without any script.

use crate::telemetry::{LiveOrder, LiveWish};

use super::super::connections::{take_filter, take_sort};
use super::super::query::{BadRequest, Parameters, bad_request};

/// Connections on one page, unless more are asked for: others are found by sorting and filtering.
const CONNECTIONS: usize = 25;
/// What the button under the first ones asks for.
pub(super) const CONNECTIONS_MAX: usize = 200;

#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) order: LiveOrder,
    pub(super) ascending: bool,
    /// Of connections, in lower case.
    pub(super) filter: String,
    /// How many connections to show.
    pub(super) connections: usize,
    /// Of upstreams: a part of the name, in lower case.
    pub(super) upstreams: String,
    /// The only upstream to show, with all of its endpoints; empty: all, with the first of them.
    pub(super) upstream: String,
    /// How many upstreams, or endpoints of the one, come before those that are shown.
    pub(super) from: usize,
}

impl Wish {
    pub(super) fn parse(mut parameters: Parameters) -> Result<Self, BadRequest> {
        let (order, ascending) = take_sort(&mut parameters)?;
        let filter = take_filter(&mut parameters, "filter")?;
        let connections = take_number(&mut parameters, "connections")?.unwrap_or(CONNECTIONS);
        let upstreams = take_filter(&mut parameters, "upstreams")?;
        let upstream = parameters.take("upstream").unwrap_or_default();
        let from = take_number(&mut parameters, "from")?.unwrap_or(0);
        parameters.finish("sort, filter, connections, upstreams, upstream and from")?;
        let connections = connections.clamp(1, CONNECTIONS_MAX);
        Ok(Self { order, ascending, filter, connections, upstreams, upstream, from })
    }

    pub(super) fn of_connections(&self) -> LiveWish {
        LiveWish {
            limit: self.connections,
            order: self.order,
            ascending: self.ascending,
            filter: self.filter.clone(),
        }
    }

    /// As the parameter has it.
    pub(super) fn sort(&self) -> String {
        format!("{}{}", if self.ascending { "-" } else { "" }, self.order.label())
    }
}

fn take_number(parameters: &mut Parameters, name: &str) -> Result<Option<usize>, BadRequest> {
    let Some(text) = parameters.take(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad_request(&format!("{name}: {text:?} is not a number")))
}
