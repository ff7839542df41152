//! Writing: the header that an endpoint gets before anything else.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use crate::config::{ProxyOut, ProxyTlv, ProxyVersion, SubjectAltName};

use super::{Addresses, TLV_TRACEPARENT};

/// Behind that of traceparent: SHA-256 of the client's certificate, in hexadecimal as in the access log; and a name in it, as often as
/// there are names. The specification has numbers for neither; that of the certificate itself (0x28, with HAProxy) would make a header
/// that does not fit into what others read.
pub(super) const TLV_FINGERPRINT: u8 = 0xE1;
pub(super) const TLV_CLIENT_NAME: u8 = 0xE2;
/// All names of the client together, as they are encoded; further ones are left out, so that a header stays short of what is read.
const NAMES_MAX: usize = 1024;
/// A value that is longer is left out: no name or certificate in use has one, and an endpoint may read little.
const VALUE_MAX: usize = 1024;
/// Of a TLV: its type and its length.
const TLV_HEAD: usize = 3;
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
    /// Who the client is, if it has shown a certificate, which then was verified.
    pub client: Option<ClientFacts<'a>>,
}

/// What a certificate says of the client.
#[derive(Clone, Debug)]
pub struct ClientFacts<'a> {
    pub common_name: Option<&'a str>,
    pub names: &'a [SubjectAltName],
    pub fingerprint: &'a [u8; 32],
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
            let client = facts.tls.as_ref().and_then(|tls| tls.client.as_ref());
            let client = client.filter(|_| out.tlvs.contains(&ProxyTlv::Tls));
            ProxyHeader::with_tlvs(addresses, tlvs.chain(client.into_iter().flat_map(identify)))
                .encode_v2(&mut bytes)
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
            let has_certificate = tls.client.is_some();
            let verified = if has_certificate { 0 } else { UNVERIFIED };
            let mut info = SslInfo::new(true, has_certificate, has_certificate, verified);
            info.append_tlv(Tlv::SslVersion(tls.version.into()));
            let common_name = tls.client.as_ref().and_then(|client| client.common_name);
            if let Some(name) = common_name.filter(|name| name.len() <= VALUE_MAX) {
                info.append_tlv(Tlv::SslCn(name.into()));
            }
            info.append_tlv(Tlv::SslCipher(tls.cipher.into()));
            Tlv::Ssl(info)
        }
    })
}

/// Who a client is beyond its common name.
fn identify<'a>(client: &ClientFacts<'a>) -> impl Iterator<Item = Tlv<'a>> + use<'a> {
    let fingerprint: String = client.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut room = NAMES_MAX;
    let names = client.names.iter().map_while(move |name| {
        // Of which kind it is, because an authority may write an address as a DNS name.
        let kind = match name {
            SubjectAltName::Dns(_) => "DNS",
            SubjectAltName::Uri(_) => "URI",
            SubjectAltName::Ip(_) => "IP",
        };
        let text = format!("{kind}:{name}");
        room = room.checked_sub(TLV_HEAD + text.len())?;
        Some(Tlv::Custom(TLV_CLIENT_NAME, text.into_bytes().into()))
    });
    std::iter::once(Tlv::Custom(TLV_FINGERPRINT, fingerprint.into_bytes().into())).chain(names)
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
