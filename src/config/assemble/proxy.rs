//! The PROXY protocol: who is believed, and what is told.

use super::Context;
use crate::config::raw::{self, Field};
use crate::config::{ProxyIn, ProxyMode, ProxyOut, ProxyTlv, ProxyVersion};

pub(super) fn listener(cx: &Context<'_>, path: &str, raw: Field<raw::ProxyProtocol>) -> Option<ProxyIn> {
    let path = format!("{path}.proxyProtocol.trusted");
    let raw = raw.value()?;
    let trusts_nobody = raw.trusted.is_absent() || raw.trusted.get().is_some_and(Vec::is_empty);
    let trusted = cx.networks(raw.trusted, &path);
    let mode = match raw.mode.or(raw::ProxyProtocolMode::Off) {
        raw::ProxyProtocolMode::Off => return None,
        raw::ProxyProtocolMode::Require => ProxyMode::Require,
        raw::ProxyProtocolMode::Optional => ProxyMode::Optional,
    };
    // Everyone could claim any address if none meant all, as it does elsewhere.
    if trusts_nobody {
        cx.report.add(
            path,
            "nobody's header would be believed; write the networks of the load balancers in front, like trusted: \
             [10.0.0.0/8], or [0.0.0.0/0, \"::/0\"] where no client can reach this port",
        );
    }
    Some(ProxyIn { mode, trusted })
}

pub(super) fn upstream(
    cx: &Context<'_>,
    path: &str,
    raw: Field<raw::UpstreamProxyProtocol>,
) -> Option<ProxyOut> {
    let path = format!("{path}.proxyProtocol");
    let raw = raw.value()?;
    let version = match raw.version.or(raw::ProxyProtocolVersion::V2) {
        raw::ProxyProtocolVersion::V1 => ProxyVersion::V1,
        raw::ProxyProtocolVersion::V2 => ProxyVersion::V2,
    };
    let at = format!("{path}.tlvs");
    let mut tlvs = Vec::new();
    for (path, tlv) in cx.items(raw.tlvs, &at) {
        let tlv = match tlv {
            raw::Tlv::Authority => ProxyTlv::Authority,
            raw::Tlv::Alpn => ProxyTlv::Alpn,
            raw::Tlv::UniqueId => ProxyTlv::UniqueId,
            raw::Tlv::Traceparent => ProxyTlv::Traceparent,
            raw::Tlv::Tls => ProxyTlv::Tls,
        };
        if tlvs.contains(&tlv) {
            cx.report.add(path, "it is in the list already; remove one of the two");
        } else {
            tlvs.push(tlv);
        }
    }
    if version == ProxyVersion::V1 && !tlvs.is_empty() {
        cx.report.add(at, "a V1 header has no room for them; write version: V2, or remove them");
    }
    Some(ProxyOut { version, tlvs })
}
