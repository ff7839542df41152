//! How a connection ended, and which side ended it.
//!
//! The labels are one set for the access log, the metrics and (later) the spans.

/// Whose doing an ending was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The client.
    Downstream,
    /// The endpoint, or the way to it.
    Upstream,
    /// This process, by its configuration or its drain.
    Sheave,
}

/// Every way a connection can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Both directions ended cleanly; the client's first. Also: it left before an endpoint was found.
    DownstreamClosed,
    /// Both directions ended cleanly; the endpoint's first.
    UpstreamClosed,
    DownstreamReset,
    /// The connection does not begin with the PROXY protocol header that it should begin with.
    ProxyHeaderInvalid,
    /// That header did not come in time.
    ProxyHeaderTimeout,
    /// It came, or should have come, from an address that is not believed.
    ProxyHeaderUntrusted,
    UpstreamReset,
    /// The client's stream ended without TLS saying so: whether that was all of it, nobody knows.
    DownstreamTruncated,
    /// The same of the endpoint's stream.
    UpstreamTruncated,
    /// What the client sent is not what TLS permits, or it sent an alert.
    DownstreamTlsError,
    /// What the endpoint sent is not what TLS permits, or it sent an alert.
    UpstreamTlsError,
    /// The client would speak PostgreSQL without TLS.
    PlaintextRefused,
    /// The client does not begin with a ClientHello.
    NotTls,
    ClientHelloTooLarge,
    /// The TLS handshake with the client failed.
    TlsHandshakeFailed,
    /// The client did not end the TLS handshake within `tlsHandshakeTimeout`.
    TlsHandshakeTimeout,
    ConnectRefused,
    ConnectTimeout,
    /// No way there: unreachable network or host, or an address that cannot be used from here.
    ConnectUnreachable,
    /// The endpoint reset the connection before it was established, or failed in another way.
    ConnectFailed,
    /// The TLS handshake with the endpoint failed.
    TlsUpstreamFailed,
    /// The endpoint did not end the TLS handshake in the time that there is to connect.
    TlsUpstreamTimeout,
    /// The upstream has no endpoint that may be tried.
    NoEndpoint,
    /// The breakers of all endpoints that may be tried are open.
    BreakerOpen,
    /// The upstream, or each of its endpoints, holds as many connections as it may.
    UpstreamLimit,
    /// The process is short of memory, or the worker of time (`limits.overload`).
    Overload,
    /// The worker has as many TLS handshakes under way as it may.
    HandshakeLimit,
    /// The certificates or authorities that TLS needs here could not be loaded.
    TlsUnavailable,
    /// The keys of a TLS 1.2 session have encrypted as much as they may, and there are no others.
    TlsKeysWornOut,
    /// No route of the listener matches the client.
    NoRoute,
    /// `allow` or `deny` of the listener says no.
    Denied,
    /// `connection.limit` of the listener is reached.
    Limit,
    /// `connection.limitPerSource` of the listener is reached by this client.
    SourceLimit,
    /// This client is above `connection.ratePerSource` of the listener.
    SourceRate,
    /// Of an attempt, never of a connection: another attempt of the same connection was faster.
    Outpaced,
    IdleTimeout,
    HalfCloseTimeout,
    MaxDuration,
    /// The process is stopping.
    Drain,
    /// The table no longer permits it: its client, or the way to its upstream.
    Policy,
    /// Its listener or its endpoint is no longer in the table, and its time to drain is over.
    TableRemoved,
    /// Its endpoint had more than its fair share of connections, and the upstream's `rebalance` asks to close some.
    Rebalance,
    /// Somebody closed it through the admin port.
    AdminClosed,
    /// A defect or an exhausted resource of this process.
    Internal,
}

impl Outcome {
    pub const ALL: [Self; 44] = [
        Self::DownstreamClosed,
        Self::UpstreamClosed,
        Self::DownstreamReset,
        Self::ProxyHeaderInvalid,
        Self::ProxyHeaderTimeout,
        Self::ProxyHeaderUntrusted,
        Self::UpstreamReset,
        Self::DownstreamTruncated,
        Self::UpstreamTruncated,
        Self::DownstreamTlsError,
        Self::UpstreamTlsError,
        Self::PlaintextRefused,
        Self::NotTls,
        Self::ClientHelloTooLarge,
        Self::TlsHandshakeFailed,
        Self::TlsHandshakeTimeout,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectUnreachable,
        Self::ConnectFailed,
        Self::TlsUpstreamFailed,
        Self::TlsUpstreamTimeout,
        Self::NoEndpoint,
        Self::BreakerOpen,
        Self::UpstreamLimit,
        Self::Overload,
        Self::HandshakeLimit,
        Self::TlsUnavailable,
        Self::TlsKeysWornOut,
        Self::NoRoute,
        Self::Denied,
        Self::Limit,
        Self::SourceLimit,
        Self::SourceRate,
        Self::Outpaced,
        Self::IdleTimeout,
        Self::HalfCloseTimeout,
        Self::MaxDuration,
        Self::Drain,
        Self::Policy,
        Self::TableRemoved,
        Self::Rebalance,
        Self::AdminClosed,
        Self::Internal,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::DownstreamClosed => "downstream_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::DownstreamReset => "downstream_reset",
            Self::ProxyHeaderInvalid => "proxy_header_invalid",
            Self::ProxyHeaderTimeout => "proxy_header_timeout",
            Self::ProxyHeaderUntrusted => "proxy_header_untrusted",
            Self::UpstreamReset => "upstream_reset",
            Self::DownstreamTruncated => "downstream_truncated",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::DownstreamTlsError => "downstream_tls_error",
            Self::UpstreamTlsError => "upstream_tls_error",
            Self::PlaintextRefused => "plaintext_refused",
            Self::NotTls => "not_tls",
            Self::ClientHelloTooLarge => "client_hello_too_large",
            Self::TlsHandshakeFailed => "tls_handshake_failed",
            Self::TlsHandshakeTimeout => "tls_handshake_timeout",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectUnreachable => "connect_unreachable",
            Self::ConnectFailed => "connect_failed",
            Self::TlsUpstreamFailed => "tls_upstream_failed",
            Self::TlsUpstreamTimeout => "tls_upstream_timeout",
            Self::NoEndpoint => "no_endpoint",
            Self::BreakerOpen => "breaker_open",
            Self::UpstreamLimit => "upstream_limit",
            Self::Overload => "overload",
            Self::HandshakeLimit => "handshake_limit",
            Self::TlsUnavailable => "tls_unavailable",
            Self::TlsKeysWornOut => "tls_keys_worn_out",
            Self::NoRoute => "no_route",
            Self::Denied => "denied",
            Self::Limit => "limit",
            Self::SourceLimit => "source_limit",
            Self::SourceRate => "source_rate",
            Self::Outpaced => "outpaced",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::MaxDuration => "max_duration",
            Self::Drain => "drain",
            Self::Policy => "policy",
            Self::TableRemoved => "table_removed",
            Self::Rebalance => "rebalance",
            Self::AdminClosed => "admin_closed",
            Self::Internal => "internal",
        }
    }

    pub fn side(self) -> Side {
        match self {
            Self::DownstreamClosed
            | Self::DownstreamReset
            | Self::ProxyHeaderInvalid
            | Self::ProxyHeaderTimeout
            | Self::ProxyHeaderUntrusted
            | Self::DownstreamTruncated
            | Self::DownstreamTlsError
            | Self::PlaintextRefused
            | Self::NotTls
            | Self::ClientHelloTooLarge
            | Self::TlsHandshakeFailed
            | Self::TlsHandshakeTimeout => Side::Downstream,
            Self::UpstreamClosed
            | Self::UpstreamReset
            | Self::UpstreamTruncated
            | Self::UpstreamTlsError
            | Self::TlsUpstreamFailed
            | Self::TlsUpstreamTimeout
            | Self::ConnectRefused
            | Self::ConnectTimeout
            | Self::ConnectUnreachable
            | Self::ConnectFailed
            | Self::NoEndpoint
            | Self::BreakerOpen => Side::Upstream,
            Self::UpstreamLimit
            | Self::Overload
            | Self::HandshakeLimit
            | Self::TlsUnavailable
            | Self::TlsKeysWornOut
            | Self::NoRoute
            | Self::Denied
            | Self::Limit
            | Self::SourceLimit
            | Self::SourceRate
            | Self::Outpaced
            | Self::IdleTimeout
            | Self::HalfCloseTimeout
            | Self::MaxDuration
            | Self::Drain
            | Self::Policy
            | Self::TableRemoved
            | Self::Rebalance
            | Self::AdminClosed
            | Self::Internal => Side::Sheave,
        }
    }

    /// Whether somebody should look at it; such connections are in the access log whatever the sample.
    /// A clean end, a timeout that the configuration asks for and a planned drain are ordinary, and so is what a person asked for.
    pub fn is_error(self) -> bool {
        !matches!(
            self,
            Self::DownstreamClosed
                | Self::UpstreamClosed
                | Self::IdleTimeout
                | Self::HalfCloseTimeout
                | Self::MaxDuration
                | Self::Drain
                | Self::TableRemoved
                | Self::Rebalance
                | Self::AdminClosed
        )
    }
}

impl Outcome {
    /// Whether it can end the TLS handshake with a client, or its ClientHello.
    pub(super) fn is_of_handshake(self) -> bool {
        matches!(
            self,
            Self::NotTls
                | Self::ClientHelloTooLarge
                | Self::TlsHandshakeFailed
                | Self::TlsHandshakeTimeout
                | Self::PlaintextRefused
                | Self::HandshakeLimit
                | Self::TlsUnavailable
        )
    }
}

impl Side {
    pub fn label(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Sheave => "sheave",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_distinct_and_all_is_complete() {
        let labels: BTreeSet<&str> = Outcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(labels.len(), Outcome::ALL.len());
        let indices: Vec<usize> = Outcome::ALL.iter().map(|outcome| *outcome as usize).collect();
        assert_eq!(indices, (0..Outcome::ALL.len()).collect::<Vec<_>>(), "ALL follows the declaration");
    }
}
