//! The pure model: what a listener, a route, an upstream and an endpoint are, and the table they form.
//!
//! A [`RouteTable`] is an immutable snapshot. What outlives a snapshot (counts, breakers, health) hangs
//! off it behind `Arc`s that [`compile`] carries over by identity. Nothing here does I/O, names a runtime,
//! or knows where an object came from beyond its name.

mod compile;
mod endpoint;
mod listener;
mod matcher;
mod places;
pub mod publish;
mod queue;
mod route;
mod shared;
mod table;
mod upstream;
mod verdicts;

pub use compile::{Findings, Found, Member, compile, refresh};
pub use endpoint::{Endpoint, EndpointState, Reservation, Topology};
pub use listener::{Listener, ListenerState};
pub use matcher::Asked;
pub use places::{Place, Places};
pub use queue::{Queue, Ticket};
pub use route::Route;
pub use table::RouteTable;
pub use upstream::{Problem, Rejection, Upstream, UpstreamPlace, UpstreamState};
pub use verdicts::Verdicts;
