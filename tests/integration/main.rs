//! Every integration test in one binary, so that linking is paid once; a file per behaviour.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends by panicking, and its helpers are test code too"
)]

mod relay_bytes;
mod support;
mod tidy;
