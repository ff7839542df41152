//! Sheave: an L4 load balancer and TCP reverse proxy, one pinned worker per core.

pub mod app;
pub mod balance;
pub mod cli;
pub mod config;
mod connection;
pub mod control;
#[cfg(feature = "faults")]
mod faults;
pub mod proxy_protocol;
pub mod resilience;
pub mod routing;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod top;
pub mod worker;
