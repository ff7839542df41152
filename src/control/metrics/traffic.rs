//! Connections by listener, route, upstream and endpoint.

mod endpoints;
mod listeners;
mod upstreams;

pub(super) use endpoints::{ENDPOINTS, EndpointRow};
pub(super) use listeners::LISTENERS;
pub(super) use upstreams::UPSTREAMS;
