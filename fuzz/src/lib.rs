//! The parsers that are fuzzed: symbolic links to those of Sheave, which are pure and need little else. Building all of Sheave
//! with instrumentation would take many minutes for it.

pub mod proxy_protocol;

pub mod tls {
    pub mod client_hello;
    pub mod postgres;
}

pub mod config {
    mod proxy;
    // The parsers need two names of it.
    #[allow(dead_code)]
    mod tls;

    pub use proxy::{ProxyIn, ProxyMode, ProxyOut, ProxyTlv, ProxyVersion};
    pub use tls::{POSTGRES_ALPN, SubjectAltName};

    type Name = std::sync::Arc<str>;
}

/// Where to split `length` bytes: everywhere at the beginning, and at some places behind it.
pub fn splits(length: usize) -> impl Iterator<Item = usize> {
    let behind = (64..length).step_by((length / 32).max(1));
    (0..length.min(64)).chain(behind)
}
