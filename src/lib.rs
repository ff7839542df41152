//! Sheave: an L4 load balancer and TCP reverse proxy, one pinned worker per core.

pub mod balance;
pub mod config;
pub mod control;
pub mod resilience;
pub mod routing;
pub mod shutdown;
pub mod telemetry;
