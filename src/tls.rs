//! TLS: what clients say first.
//!
//! Nothing here touches a socket: bytes come in and go out as arguments.

pub mod client_hello;
