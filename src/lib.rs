//! Sheave: a Kubernetes-native L4 load balancer, one pinned io_uring worker per core.

pub mod config;
