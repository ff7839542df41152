//! Writing: the header that an endpoint gets before anything else.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use crate::config::{ProxyOut, ProxyTlv, ProxyVersion};

use super::{Addresses, TLV_TRACEPARENT};

/// A value that is longer is left out: no name or certificate in use has one, and an endpoint may read little.
const VALUE_MAX: usize = 1024;
/// The result of a verification that found something wrong, or nothing to verify.
const UNVERIFIED: u32 = 1;

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub addresses: Addresses,
    /// The server name that the client asked for.
    pub authority: Option<&'a str>,
    /// The application protocol that was agreed on with the client.
    pub alpn: Option<&'a [u8]>,
    pub unique_id: &'a str,
    pub traceparent: &'a str,
    /// `None`: the client speaks no TLS with this process.
    pub tls: Option<TlsFacts<'a>>,
}

/// What is known of the client's TLS.
#[derive(Clone, Debug)]
pub struct TlsFacts<'a> {
    /// Such as `TLSv1.3`.
    pub version: &'a str,
    pub cipher: &'a str,
    /// Whether the client has shown a certificate, which then was verified.
    pub has_certificate: bool,
    /// The common name in it.
    pub common_name: Option<&'a str>,
}

/// The header of a connection of this process's own, such as a probe.
pub fn local(version: ProxyVersion) -> &'static [u8] {
    match version {
        ProxyVersion::V1 => b"PROXY UNKNOWN\r\n",
        ProxyVersion::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

/// The header of a client's connection.
pub fn write(out: &ProxyOut, facts: &Facts<'_>) -> Vec<u8> {
    let Addresses { source, destination } = of_one_family(facts.addresses);
    let addresses = Some(ProxiedAddress::stream(source, destination));
    let mut bytes = Vec::with_capacity(256);
    let written = match out.version {
        ProxyVersion::V1 => ProxyHeader::with_tlvs(addresses, []).encode_v1(&mut bytes),
        ProxyVersion::V2 => {
            let tlvs = out.tlvs.iter().filter_map(|tlv| encode(*tlv, facts));
            ProxyHeader::with_tlvs(addresses, tlvs).encode_v2(&mut bytes)
        }
    };
    if written.is_err() {
        // Of one family and with short values there is nothing to go wrong; who is told less still has a header.
        return local(out.version).to_vec();
    }
    bytes
}

/// `None`: nothing is known.
fn encode<'a>(tlv: ProxyTlv, facts: &Facts<'a>) -> Option<Tlv<'a>> {
    let short = |value: &&[u8]| value.len() <= VALUE_MAX;
    Some(match tlv {
        ProxyTlv::Authority => Tlv::Authority(facts.authority.filter(|name| name.len() <= VALUE_MAX)?.into()),
        ProxyTlv::Alpn => Tlv::Alpn(facts.alpn.filter(short)?.into()),
        ProxyTlv::UniqueId => Tlv::UniqueId(facts.unique_id.as_bytes().into()),
        ProxyTlv::Traceparent => Tlv::Custom(TLV_TRACEPARENT, facts.traceparent.as_bytes().into()),
        ProxyTlv::Tls => {
            let tls = facts.tls.as_ref()?;
            let verified = if tls.has_certificate { 0 } else { UNVERIFIED };
            let mut info = SslInfo::new(true, tls.has_certificate, tls.has_certificate, verified);
            info.append_tlv(Tlv::SslVersion(tls.version.into()));
            if let Some(name) = tls.common_name.filter(|name| name.len() <= VALUE_MAX) {
                info.append_tlv(Tlv::SslCn(name.into()));
            }
            info.append_tlv(Tlv::SslCipher(tls.cipher.into()));
            Tlv::Ssl(info)
        }
    })
}

/// IPv4 where both are (a socket for both families says so in its way), else IPv6.
fn of_one_family(addresses: Addresses) -> Addresses {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let Addresses { source, destination } = addresses;
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return Addresses { source, destination };
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    Addresses { source: mapped(source), destination: mapped(destination) }
}
