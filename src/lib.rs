//! Sheave: an L4 load balancer and TCP reverse proxy, one pinned worker per core.

pub mod balance;
pub mod config;
pub mod resilience;
pub mod routing;
pub mod shutdown;
pub mod telemetry;
mod connection;
#[cfg(feature = "faults")]
mod faults;
pub mod worker;
