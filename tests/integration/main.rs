//! Every integration test in one binary, so that linking is paid once; a file per behaviour.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends by panicking, and its helpers are test code too"
)]

mod access_log;
mod addresses;
mod admission;
mod backpressure;
mod breaker;
mod cancel_safety;
mod certificates;
mod choice;
mod closing;
mod command_line;
mod connect_failures;
mod descriptors;
mod discovery;
mod drain;
mod faults;
mod faulty_endpoints;
mod garbage;
mod half_close;
mod hedging;
mod logging;
mod metrics_by_otlp;
mod near;
mod overload;
mod page;
mod passive;
mod postgres;
mod probes;
mod prometheus;
mod proxy_protocol;
mod rebalance;
mod relay_bytes;
mod reload;
mod resets;
mod sampling;
mod share;
mod sources;
mod spinning;
mod support;
mod tidy;
mod timeouts;
mod tls;
mod top;
mod tracing;
mod upstream_limits;
mod urgent_data;
