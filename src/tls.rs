//! TLS: what clients say first, what listeners show and ask, how endpoints are spoken to, the certificates for that, and
//! the engines that encrypt. Nothing here touches a socket: bytes come in and go out as arguments.
//!
//! What handshakes go by is made of settings and certificates, and travels with the table; when certificates are read
//! is the control side's business. Private keys are in here alone: nothing prints, logs or hands them out.

mod client;
pub mod client_hello;
mod credentials;
mod engine;
pub mod postgres;
mod reason;
mod server;
mod verify;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::ClientSide;
#[cfg(test)]
pub(crate) use credentials::tests as examples;
pub use credentials::{Credentials, Facts, Fingerprint, Material, News, Problem, Report, Source, Taken};
pub(crate) use engine::{ALERT_RECORD_MAX, CIPHERTEXT_MAX, Engine, PLAINTEXT_MAX, is_alert, plain_alert};
pub use reason::reason;
pub use server::ServerSide;

/// The algorithms of both sides: those of aws-lc, X25519MLKEM768 preferred.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let provider = aws_lc_rs::default_provider();
        #[cfg(feature = "faults")]
        let provider = crate::faults::wear_out_keys(provider);
        Arc::new(provider)
    });
    &PROVIDER
}
