//! Whether a live connection would be let in by the table that is published now.

use std::sync::Arc;

use rustls::pki_types::UnixTime;

use crate::config::TlsMode;
use crate::connection::proxy;
use crate::routing::{Listener, RouteTable};
use crate::telemetry::Outcome;

use super::{Flag, Live};

impl Live {
    /// Whether the successor of its listener permits it. One without an upstream goes by its own listener yet: where it may go is
    /// looked at once it has one.
    pub(crate) fn is_permitted(&self, listener: &Listener) -> bool {
        let may_go_on = match self.upstream.get() {
            Some(upstream) => listener.permits(self.asked(), &upstream.name),
            // A proxy in front may be yet to say who its client is.
            None => !self.is(Flag::IsAdmitted) || listener.admits(self.client().ip()),
        };
        may_go_on && self.came_as_asked(listener) && self.is_trusted(listener)
    }

    /// Whether this newer table permits it; what left with its listener has its time to drain. What is wrong with its client's
    /// certificate, if that is why not, goes into its record.
    pub(in crate::connection) fn would_stay(&self, table: &RouteTable) -> bool {
        // By its state: a listener may have another address, and another one its name.
        let is_successor = |listener: &&Arc<Listener>| Arc::ptr_eq(&listener.state, &self.listener().state);
        let forbidding = table.listeners.iter().find(is_successor).filter(|now| !self.is_permitted(now));
        self.note_permission(forbidding.is_none());
        if let Some(why) = forbidding.and_then(|listener| self.distrust(listener)) {
            self.note_failure(why);
        }
        forbidding.is_none()
    }

    /// Whether it speaks what clients of `listener` have to speak, by way of a proxy that is trusted there.
    fn came_as_asked(&self, listener: &Listener) -> bool {
        self.listener().protocol == listener.protocol && {
            let proxy = listener.proxy.as_ref();
            proxy.is_none_or(|proxy| proxy::is_believed(proxy, self))
        }
    }

    /// Ends it, because a table does not permit it; `distrust` says why, as of [`Self::distrust`].
    pub(crate) fn forbid(&self, distrust: Option<Box<str>>) {
        if let Some(why) = distrust {
            self.note_failure(why);
        }
        self.end(Outcome::Policy);
    }

    /// What is wrong with its client's certificate by `listener`, if anything is.
    pub(crate) fn distrust(&self, listener: &Listener) -> Option<Box<str>> {
        self.tls.get()?;
        self.judge(listener).err().map(|error| crate::tls::reason(&error).into())
    }

    fn is_trusted(&self, listener: &Listener) -> bool {
        self.judge(listener).is_ok()
    }

    /// Whether its client would be let in with the certificate that it showed, had `listener` been there then: who has expired since
    /// is not put out for it, or each new list of revoked certificates would end all connections of clients with short-lived ones.
    fn judge(&self, listener: &Listener) -> Result<(), rustls::Error> {
        let Some(now) = &listener.tls else { return Ok(()) };
        let Some((chain, then)) = self.chain() else {
            // It showed none, because TLS ended at the endpoint or has not begun.
            return if self.would_end_here(listener) {
                now.admits_client(&[], UnixTime::now())
            } else {
                Ok(())
            };
        };
        let is_judged_alike = self.listener().tls.as_ref().is_some_and(|then| then.admits_as(now));
        if is_judged_alike { Ok(()) } else { now.admits_client(chain, then) }
    }

    /// Whether it is through its handshake, and that would be one with this process now.
    fn would_end_here(&self, listener: &Listener) -> bool {
        let route = listener.route_for(self.asked());
        self.upstream.get().is_some() && route.is_some_and(|route| route.tls_mode == Some(TlsMode::Terminate))
    }

    /// Whether it takes time to say if it is permitted.
    pub(crate) fn has_chain(&self) -> bool {
        self.chain().is_some_and(|(chain, _)| !chain.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::proxy_protocol::Addresses;
    use crate::routing::{Findings, compile};

    const PLAIN: &str = "protocol: TCP";
    const PASSED_THROUGH: &str = "protocol: TLS, tls: {mode: Passthrough}";
    const TERMINATED: &str = "protocol: TLS, tls: {certificateRefs: [{secret: edge/web}]}";

    /// A listener that ends TLS, and validates clients so.
    fn asking(mode: &str) -> String {
        format!(
            "protocol: TLS, tls: {{certificateRefs: [{{secret: edge/web}}], \
             clientValidation: {{mode: {mode}, caCertificateRefs: [{{configMap: edge/clients}}]}}}}"
        )
    }

    fn table(listener: &str, previous: &RouteTable) -> RouteTable {
        let text = format!(
            "listeners: [{{name: a, address: \"127.0.0.1:1\", {listener}}}]\n\
             routes: [{{name: a, listener: a, backendRefs: [{{upstream: a}}]}}]\n\
             upstreams: [{{name: a, endpoints: [{{address: \"127.0.0.1:2\"}}]}}]\n"
        );
        let config = Config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"));
        let mut table = compile(&config, &Findings::default(), previous, Instant::now());
        table.succeed(previous, Instant::now());
        table
    }

    /// Whether a connection of the first listener that got its upstream may stay when the second takes its place. Where it may
    /// not, connections have to be looked at.
    fn may_stay(then: &str, now: &str, prepare: impl FnOnce(&Live)) -> bool {
        let before = table(then, &RouteTable::empty());
        let live = Live::new(1, "127.0.0.1:3".parse().unwrap(), Arc::clone(&before.listeners[0]));
        prepare(&live);
        assert!(live.is_permitted(&before.listeners[0]));
        let after = table(now, &before);
        live.set_upstream(&before.upstreams["a"]);
        assert!(live.is_permitted(&before.listeners[0]));
        let may_stay = live.is_permitted(&after.listeners[0]);
        assert_eq!(live.would_stay(&after), may_stay);
        assert!(may_stay || after.restrictions > before.restrictions, "nobody would look");
        may_stay
    }

    #[test]
    fn who_is_on_the_way_in_is_judged_by_what_is_known_of_it() {
        let (deny, proxied) =
            ("deny: [127.0.0.3/32]", "proxyProtocol: {mode: Require, trusted: [127.0.0.0/8]}");
        let later = |then: &str, now: &str, is_admitted: bool, client: Option<&str>| {
            let before = table(then, &RouteTable::empty());
            let live = Live::new(1, "127.0.0.3:4".parse().unwrap(), Arc::clone(&before.listeners[0]));
            if let Some(client) = client.map(|client| client.parse().unwrap()) {
                live.introduce(Addresses { source: client, destination: client }, None);
            }
            live.set(Flag::IsAdmitted, is_admitted);
            live.would_stay(&table(now, &before))
        };
        assert!(later(PLAIN, PLAIN, true, None));
        assert!(!later(PLAIN, deny, true, None));
        let then_denied = format!("{proxied}, {deny}");
        assert!(later(proxied, &then_denied, false, None), "it is not known yet who that is");
        assert!(later(proxied, &then_denied, true, Some("192.0.2.1:4")));
        assert!(!later(proxied, &then_denied, true, Some("127.0.0.3:4")));
        assert!(!later(proxied, "proxyProtocol: {mode: Require, trusted: [10.0.0.0/8]}", false, None));
        // Where it may go depends on what it is yet to ask for.
        assert!(later(PASSED_THROUGH, &asking("Require"), true, None));
    }

    #[test]
    fn who_speaks_something_else_may_not_stay() {
        for (then, now, expected) in [
            (PLAIN, PLAIN, true),
            (PLAIN, TERMINATED, false),
            (PLAIN, PASSED_THROUGH, false),
            (PASSED_THROUGH, PLAIN, false),
            (PASSED_THROUGH, PASSED_THROUGH, true),
            // The endpoint went by what it saw itself.
            (PASSED_THROUGH, TERMINATED, true),
            (PASSED_THROUGH, &asking("Optional"), true),
            (PASSED_THROUGH, &asking("Require"), false),
        ] {
            assert_eq!(may_stay(then, now, |_| {}), expected, "{then} -> {now}");
        }
    }

    #[test]
    fn who_showed_no_certificate_may_not_stay_where_one_is_required() {
        let require = asking("Require");
        for (then, now, expected) in [
            (TERMINATED, TERMINATED, true),
            (TERMINATED, &asking("Optional"), true),
            (TERMINATED, PASSED_THROUGH, true),
        ] {
            assert_eq!(may_stay(then, now, |live| live.set_chain(&[])), expected, "{then} -> {now}");
        }
        let before = table(TERMINATED, &RouteTable::empty());
        let live = Live::new(1, "127.0.0.1:3".parse().unwrap(), Arc::clone(&before.listeners[0]));
        live.set_chain(&[]);
        let after = table(&require, &before);
        assert!(!live.is_permitted(&after.listeners[0]) && after.restrictions > before.restrictions);
    }

    #[test]
    fn who_came_by_a_proxy_that_is_not_trusted_any_more_may_not_stay() {
        let proxy =
            |mode: &str, trusted: &str| format!("proxyProtocol: {{mode: {mode}, trusted: [{trusted}]}}");
        let introduce = |live: &Live| {
            let client = "192.0.2.1:4".parse().unwrap();
            live.introduce(Addresses { source: client, destination: client }, None);
        };
        let (trusted, other) = (proxy("Require", "127.0.0.0/8"), proxy("Require", "10.0.0.0/8"));
        assert!(may_stay(&trusted, &proxy("Optional", "127.0.0.1/32"), introduce));
        assert!(!may_stay(&trusted, &other, introduce));
        assert!(!may_stay(&trusted, &proxy("Optional", "10.0.0.0/8"), introduce));
        assert!(!may_stay(PLAIN, &other, |_| {}), "only proxies may connect");
        assert!(may_stay(PLAIN, &proxy("Optional", "10.0.0.0/8"), |_| {}));
        assert!(may_stay(&trusted, PLAIN, introduce));
    }
}
