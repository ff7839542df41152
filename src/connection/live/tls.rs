//! What is known of the TLS of a live connection, and which listener its client wants.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::connection::secure::Secure;
use crate::routing::{Asked, Listener, Place};
use crate::telemetry::{Side, TlsRecord};

use super::Live;

/// So many of the protocols that a client offers are looked at: no honest one offers more.
const OFFERED_MAX: usize = 16;

/// The TLS of a live connection.
#[derive(Default)]
pub(super) struct LiveTls {
    pub(super) server_name: OnceCell<Box<str>>,
    /// What its client offers to speak.
    pub(super) alpn: OnceCell<Box<[Box<[u8]>]>>,
    /// The listener that it wants, where that is not the one that accepted it.
    pub(super) listener: OnceCell<Arc<Listener>>,
    /// Its place there.
    pub(super) place: Cell<Option<Place>>,
    pub(super) record: RefCell<TlsRecord>,
    /// What the client showed, if TLS ends here, and when; empty: no certificate.
    pub(super) chain: OnceCell<(Box<[CertificateDer<'static>]>, UnixTime)>,
    /// When TLS handshakes of attempts began, until those are over.
    pub(super) shaking: RefCell<Vec<(SocketAddr, Instant)>>,
    /// Of its sides that speak TLS.
    pub(super) sides: RefCell<Vec<(Side, Rc<Secure>)>>,
}

impl Live {
    /// Whose connection it is: that of who accepted it, until its client has said which of the listeners there it wants.
    pub(crate) fn listener(&self) -> &Arc<Listener> {
        self.tls.get().and_then(|tls| tls.listener.get()).unwrap_or(&self.accepted_by)
    }

    /// Its client wants this listener. `false`: that has no place for it.
    pub(in crate::connection) fn choose_listener(&self, listener: &Arc<Listener>) -> bool {
        if Arc::ptr_eq(&listener.state, &self.accepted_by.state) {
            return true;
        }
        let tls = self.tls.get_or_init(Box::default);
        let _set_once = tls.listener.set(Arc::clone(listener));
        let place = listener.take_place();
        let has_place = place.is_some();
        tls.place.set(place);
        has_place
    }

    /// The name that its client asks for, once that is known.
    pub(in crate::connection) fn server_name(&self) -> Option<&str> {
        self.tls.get()?.server_name.get().map(|name| &**name)
    }

    pub(in crate::connection) fn set_server_name(&self, name: Option<Box<str>>) {
        let _set_once = name.map(|name| self.tls.get_or_init(Box::default).server_name.set(name));
    }

    /// What its client offers to speak, the best first: as much of it as is routed by, because it is kept.
    pub(in crate::connection) fn set_alpn(&self, mut alpn: Vec<Box<[u8]>>) {
        alpn.truncate(OFFERED_MAX);
        if !alpn.is_empty() {
            let _set_once = self.tls.get_or_init(Box::default).alpn.set(alpn.into());
        }
    }

    /// What it is routed by, as far as that is known.
    pub(in crate::connection) fn asked(&self) -> Asked<'_> {
        let alpn = self.tls.get().and_then(|tls| tls.alpn.get());
        Asked {
            server_name: self.server_name(),
            alpn: alpn.map_or(&[], |alpn| alpn),
            client: self.client().ip(),
        }
    }

    /// A side's handshake is over: who ends the connection from outside is to say so in TLS.
    pub(in crate::connection) fn secure(&self, side: Side, secure: &Rc<Secure>) {
        self.tls.get_or_init(Box::default).sides.borrow_mut().push((side, Rc::clone(secure)));
    }

    /// Whether TLS with this side ends here, and is established.
    pub(in crate::connection) fn is_secure(&self, side: Side) -> bool {
        self.tls.get().is_some_and(|tls| tls.sides.borrow().iter().any(|(of, _)| *of == side))
    }

    /// Adds to what is known of its TLS.
    pub(in crate::connection) fn note_tls(&self, note: impl FnOnce(&mut TlsRecord)) {
        note(&mut self.tls.get_or_init(Box::default).record.borrow_mut());
    }

    /// Looks at what is known of its TLS.
    pub(in crate::connection) fn with_tls<T>(&self, look: impl FnOnce(Option<&TlsRecord>) -> T) -> T {
        let record = self.tls.get().map(|tls| tls.record.borrow());
        look(record.as_deref())
    }

    /// What is known of its TLS, for its record.
    pub(in crate::connection) fn take_tls(&self) -> Option<Box<TlsRecord>> {
        let record = self.tls.get()?.record.take();
        Some(Box::new(TlsRecord { server_name: self.server_name().map(Into::into), ..record }))
    }

    /// What its client and this process agreed to speak in TLS.
    pub(in crate::connection) fn downstream_alpn(&self) -> Option<Vec<u8>> {
        let record = self.tls.get()?.record.borrow();
        record.downstream.as_ref()?.alpn.as_ref().map(|alpn| alpn.as_bytes().to_vec())
    }

    /// The TLS handshake of an attempt at this endpoint begins.
    pub(in crate::connection) fn begin_handshake(&self, endpoint: SocketAddr) {
        self.tls.get_or_init(Box::default).shaking.borrow_mut().push((endpoint, Instant::now()));
    }

    /// When the TLS handshake of the attempt that ends at this endpoint began, if it came to that.
    pub(in crate::connection) fn take_handshake(&self, endpoint: SocketAddr) -> Option<Instant> {
        let mut shaking = self.tls.get()?.shaking.borrow_mut();
        let index = shaking.iter().position(|(of, _)| *of == endpoint)?;
        Some(shaking.swap_remove(index).1)
    }

    /// What was wrong with an attempt, until [`Self::take_failure`].
    pub(in crate::connection) fn note_failure(&self, failure: Box<str>) {
        self.note_tls(|tls| tls.failure = Some(failure));
    }

    pub(in crate::connection) fn take_failure(&self) -> Option<Box<str>> {
        self.tls.get()?.record.borrow_mut().failure.take()
    }

    /// Keeps what the client showed in a handshake that ends here.
    pub(in crate::connection) fn set_chain(&self, chain: &[CertificateDer<'static>]) {
        let _set_once = self.tls.get_or_init(Box::default).chain.set((chain.into(), UnixTime::now()));
    }

    /// What its client showed in a handshake that ended here, and when that was; `None`: there was none.
    pub(super) fn chain(&self) -> Option<(&[CertificateDer<'static>], UnixTime)> {
        self.tls.get()?.chain.get().map(|(chain, at)| (&**chain, *at))
    }
}
