//! The end-to-end tests: Sheave by its chart on a real Kubernetes, in front of real pods, under load.
//!
//! A file per promise. They need KUBECONFIG, SHEAVE_IMAGE, WORKLOAD_IMAGE, and helm and kubectl on PATH; `make e2e`
//! makes a cluster and sets them. One at a time (`--test-threads 1`): each would disturb the others' numbers, which it
//! prints in a line that begins with `e2e:`. SHEAVE_E2E_FULL=1 takes the sizes and times of the promises. What a cluster
//! cannot show fails, unless SHEAVE_E2E_SKIP names it: `apiserver-outage`, `ipv6`, `jaeger`, `prometheus`, `seccomp`,
//! `silence`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends by panicking, and its helpers are test code too"
)]

mod apiserver_outage;
mod certificates;
mod crash;
mod discovery;
mod install;
mod permission;
mod rebalance;
mod restarts;
mod rollout;
mod scale;
mod seccomp;
mod silence;
mod support;
mod telemetry;
mod tracing;
