use std::net::SocketAddr;

use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxyHeader};

use super::*;
use crate::config::{ProxyOut, ProxyTlv, ProxyVersion, SubjectAltName};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Sent by HAProxy 2.6 (`send-proxy-v2 proxy-v2-options crc32c,unique-id`).
const OF_HAPROXY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x22\x7f\0\0\x01\x7f\0\0\x01\xcf\x0c\xab\x03\x03\0\x04\x6b\x0c\x39\xcd\
    \x05\0\x0c7F000001CF0C";

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn header(length: usize, addresses: Option<Addresses>) -> Result<Found, Malformed> {
    Ok(Found::Header(Header { length, addresses, parent: None }))
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, rest].concat()
}

#[test]
fn checksums_are_those_of_the_rfc() {
    // RFC 3720, B.4.
    assert_eq!(crc32c([0; 32].into_iter()), 0x8A91_36AA);
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283);
}

#[test]
fn lines_of_version_1() {
    for (line, expected) in [
        ("PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\n", Some(("10.0.0.1:4000", "10.0.0.2:80"))),
        ("PROXY TCP6 2001:db8::1 ::1 4000 80\r\n", Some(("[2001:db8::1]:4000", "[::1]:80"))),
        ("PROXY TCP6 ::ffff:10.0.0.1 ::1 0 65535\r\n", Some(("[::ffff:10.0.0.1]:0", "[::1]:65535"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN whatever + that 1 2\r\n", None),
        ("PROXY UNKNOWN \r\n", None),
    ] {
        let expected = expected.map(|(source, destination)| addresses(source, destination));
        let with_more = format!("{line}SSH-2.0-a\r\n");
        assert_eq!(read(line.as_bytes()), header(line.len(), expected), "{line}");
        assert_eq!(read(with_more.as_bytes()), header(line.len(), expected), "{line}");
    }
}

#[test]
fn headers_of_version_2() {
    let four = [&[10, 0, 0, 1, 10, 0, 0, 2][..], &[0x0F, 0xA0, 0, 80]].concat();
    let named = addresses("10.0.0.1:4000", "10.0.0.2:80");
    let six = [&named.source.ip(), &named.destination.ip()].map(|ip| match ip {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(ip) => ip.octets(),
    });
    let six = [six.as_flattened(), &[0x0F, 0xA0, 0, 80]].concat();
    let mapped = addresses("[::ffff:10.0.0.1]:4000", "[::ffff:10.0.0.2]:80");
    let unix = vec![b'a'; 216];
    for (name, bytes, expected) in [
        ("TCP over IPv4", v2(0x21, 0x11, &four), Some(named)),
        ("TCP over IPv6", v2(0x21, 0x21, &six), Some(mapped)),
        ("UDP says nothing of a TCP connection", v2(0x21, 0x12, &four), None),
        ("UNIX", v2(0x21, 0x31, &unix), None),
        ("unspecified", v2(0x21, 0x00, &[]), None),
        ("LOCAL", v2(0x20, 0x00, &[]), None),
        ("LOCAL with addresses", v2(0x20, 0x11, &four), None),
        ("LOCAL with anything", v2(0x20, 0xFF, b"garbage"), None),
        (
            "with extensions",
            v2(0x21, 0x11, &[&four[..], &[0x04, 0, 2, 0, 0, 0xEE, 0, 0]].concat()),
            Some(named),
        ),
    ] {
        assert_eq!(read(&bytes), header(bytes.len(), expected), "{name}");
    }
    let longest = [&four[..], &[4, 0x0F, 0xE1], &[0; 4065]].concat();
    let longest = v2(0x21, 0x11, &longest);
    assert_eq!((longest.len(), read(&longest)), (HEADER_MAX, header(HEADER_MAX, Some(named))));
}

#[test]
fn a_header_of_haproxy_and_its_checksum() {
    let said = addresses("127.0.0.1:53004", "127.0.0.1:43779");
    assert_eq!(read(OF_HAPROXY), header(OF_HAPROXY.len(), Some(said)));
    for at in PREFIX_V2..OF_HAPROXY.len() {
        let mut changed = OF_HAPROXY.to_vec();
        changed[at] ^= 1;
        assert!(read(&changed).is_err() || changed[28] != TLV_CRC32C, "byte {at}: {:?}", read(&changed));
    }
}

#[test]
fn what_is_no_header_is_named() {
    let four = [0; 12];
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let late = [b"PROXY UNKNOWN".as_slice(), &[b' '; 94], b"\r\n"].concat();
    for (bytes, expected) in [
        (endless, Malformed::LineTooLong),
        (late, Malformed::LineTooLong),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\rx".to_vec(), Malformed::Addresses),
        (b"PROXY UNKNOWNfoo\r\n".to_vec(), Malformed::Addresses),
        (b"PROXY UNKNOWN\t1 2\r\n".to_vec(), Malformed::Addresses),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 +80\r\n".to_vec(), Malformed::Addresses),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 65536\r\n".to_vec(), Malformed::Addresses),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 4000\r\n".to_vec(), Malformed::Addresses),
        (b"PROXY TCP4 ::1 ::2 4000 80\r\n".to_vec(), Malformed::Addresses),
        (b"PROXY TCP5 10.0.0.1 10.0.0.2 4000 80\r\n".to_vec(), Malformed::Addresses),
        (v2(0x22, 0x11, &four), Malformed::Version(0x22)),
        (v2(0x11, 0x11, &four), Malformed::Version(0x11)),
        (v2(0x21, 0x11, &four[1..]), Malformed::Addresses),
        (v2(0x21, 0x41, &four), Malformed::Addresses),
        (v2(0x21, 0x11, &[&four[..], &[4, 0, 2, 0]].concat()), Malformed::Extension),
        (v2(0x21, 0x11, &[&four[..], &[4]].concat()), Malformed::Extension),
        (v2(0x21, 0x11, &[&four[..], &[3, 0, 4, 0, 0, 0, 0]].concat()), Malformed::Checksum),
        (v2(0x21, 0x11, &[&four[..], &[3, 0, 1, 0]].concat()), Malformed::Checksum),
        ([V2, &[0x21, 0x11, 0x0F, 0xF1]].concat(), Malformed::TooLong(4097)),
    ] {
        assert_eq!(read(&bytes), Err(expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn other_protocols_are_none_from_their_first_bytes_on() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PRI * HTTP/2.0", b"\r\n\r\r", b"PROXY\t", b"\r\n\0"]
    {
        assert_eq!(read(bytes), Ok(Found::Nothing), "{}", bytes.escape_ascii());
    }
    for bytes in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(read(bytes), Ok(Found::Unclear), "{}", bytes.escape_ascii());
    }
}

fn facts(addresses: Addresses) -> Facts<'static> {
    Facts {
        addresses,
        authority: Some("db.example.com"),
        alpn: Some(b"h2"),
        unique_id: "0af7651916cd43dd8448eb211c80319c",
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        tls: Some(TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            client: Some(ClientFacts { common_name: Some("client"), names: &[], fingerprint: &[0xAB; 32] }),
        }),
    }
}

const ALL: [ProxyTlv; 5] =
    [ProxyTlv::Authority, ProxyTlv::Alpn, ProxyTlv::UniqueId, ProxyTlv::Traceparent, ProxyTlv::Tls];

fn out(version: ProxyVersion, tlvs: &[ProxyTlv]) -> ProxyOut {
    ProxyOut { version, tlvs: tlvs.to_vec() }
}

#[test]
fn what_is_written_for_version_1() {
    for (source, destination, line) in [
        ("10.0.0.1:4000", "10.0.0.2:80", "PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\n"),
        ("[::ffff:10.0.0.1]:4000", "[::ffff:10.0.0.2]:80", "PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\n"),
        ("[2001:db8::1]:4000", "[::1]:80", "PROXY TCP6 2001:db8::1 ::1 4000 80\r\n"),
        ("10.0.0.1:4000", "[::1]:80", "PROXY TCP6 ::ffff:10.0.0.1 ::1 4000 80\r\n"),
    ] {
        let written = write(&out(ProxyVersion::V1, &[]), &facts(addresses(source, destination)));
        assert_eq!(written.escape_ascii().to_string(), line.as_bytes().escape_ascii().to_string());
    }
}

#[test]
fn what_is_written_for_version_2() {
    let facts = facts(addresses("[::ffff:10.0.0.1]:4000", "[::ffff:10.0.0.2]:80"));
    let written = write(&out(ProxyVersion::V2, &ALL), &facts);
    let parent = TraceParent::parse(facts.traceparent.as_bytes());
    let addresses = Some(addresses("10.0.0.1:4000", "10.0.0.2:80"));
    assert!(parent.is_some());
    assert_eq!(read(&written), Ok(Found::Header(Header { length: written.len(), addresses, parent })));
    let (parsed, _) = ProxyHeader::parse(&written, ParseConfig::default()).unwrap();
    assert_eq!(parsed.authority(), Some("db.example.com"));
    assert_eq!(parsed.alpn(), Some(&b"h2"[..]));
    assert_eq!(parsed.unique_id(), Some(facts.unique_id.as_bytes()));
    let traceparent = parsed.tlvs().flatten().find(|tlv| tlv.kind() == 0xE0).unwrap();
    assert_eq!(traceparent, proxy_header::Tlv::Custom(0xE0, facts.traceparent.as_bytes().into()));
    let tls = parsed.ssl().unwrap();
    assert!(tls.client_ssl() && tls.client_cert_conn() && tls.verify() == 0);
    assert_eq!((tls.version(), tls.cn()), (Some("TLSv1.3"), Some("client")));
    assert_eq!(tls.cipher(), Some("TLS_AES_128_GCM_SHA256"));
}

/// The types and the values of a header's extensions, one after the other.
fn tlvs(header: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &header[PREFIX_V2 + 12..];
    let mut found = Vec::new();
    while let [kind, high, low, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        found.push((*kind, value[..length].to_vec()));
        rest = &value[length..];
    }
    assert!(rest.is_empty());
    found
}

/// What is sent for a client whose certificate has these names.
fn identified(names: &[SubjectAltName], asked: &[ProxyTlv]) -> Vec<(u8, Vec<u8>)> {
    let fingerprint = std::array::from_fn(|at| u8::try_from(at).unwrap() * 8);
    let mut facts = facts(addresses("10.0.0.1:4000", "10.0.0.2:80"));
    let client = ClientFacts { common_name: Some("client"), names, fingerprint: &fingerprint };
    facts.tls.as_mut().unwrap().client = Some(client);
    let header = write(&out(ProxyVersion::V2, asked), &facts);
    let is_whole = |found: Header| found.length == header.len() && found.addresses == Some(facts.addresses);
    assert!(matches!(read(&header), Ok(Found::Header(found)) if is_whole(found)), "{:?}", read(&header));
    tlvs(&header)
}

#[test]
fn who_the_client_is_by_its_certificate() {
    let names = [
        SubjectAltName::Uri("spiffe://cluster.local/ns/shop/sa/web".into()),
        SubjectAltName::Dns("web.example".into()),
        SubjectAltName::Ip("10.0.0.7".parse().unwrap()),
    ];
    let text = |value: &str| value.as_bytes().to_vec();
    let sent = identified(&names, &[ProxyTlv::Tls]);
    let expected = [
        (0xE1, text("0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8")),
        (0xE2, text("URI:spiffe://cluster.local/ns/shop/sa/web")),
        (0xE2, text("DNS:web.example")),
        (0xE2, text("IP:10.0.0.7")),
    ];
    assert_eq!((sent[0].0, &sent[1..]), (0x20, &expected[..]));
    assert_eq!(identified(&names, &[ProxyTlv::Alpn]).len(), 1, "only where TLS is told of");
    // The first ones that fit, whatever else is sent.
    let many: Vec<_> = (0..100).map(|n| SubjectAltName::Dns(format!("{n}.{}", "a".repeat(243)))).collect();
    let sent = identified(&many, &ALL);
    assert_eq!(sent.iter().filter(|(kind, _)| *kind == 0xE2).count(), 4);
}

#[test]
fn what_is_not_known_is_left_out() {
    let named = addresses("10.0.0.1:4000", "10.0.0.2:80");
    let long = "a".repeat(1025);
    let facts = Facts { authority: Some(&long), alpn: None, tls: None, ..facts(named) };
    let written =
        write(&out(ProxyVersion::V2, &[ProxyTlv::Authority, ProxyTlv::Alpn, ProxyTlv::Tls]), &facts);
    assert_eq!((written.len(), read(&written)), (28, header(28, Some(named))));
}

#[test]
fn headers_of_ones_own_are_read_as_such() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        assert_eq!(read(local(version)), header(local(version).len(), None));
    }
}

/// Two addresses of any families.
fn any_addresses() -> impl Strategy<Value = Addresses> {
    (any::<SocketAddr>(), any::<SocketAddr>())
        .prop_map(|(source, destination)| Addresses { source, destination })
}

/// Something like a header: one that is written, with some bytes changed, cut or added.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (
        any_addresses(),
        version,
        changes,
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(addresses, version, changes, cut, more)| {
            let mut bytes = write(&out(version, &ALL), &facts(addresses));
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes.extend(more);
            bytes
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read(addresses in any_addresses()) {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let written = write(&out(version, &ALL), &facts(addresses));
            let Ok(Found::Header(Header { length, addresses: Some(found), .. })) = read(&written) else {
                panic!("{:?}", read(&written))
            };
            prop_assert_eq!(length, written.len());
            let same = |one: SocketAddr, other: SocketAddr| {
                one.ip().to_canonical() == other.ip().to_canonical() && one.port() == other.port()
            };
            prop_assert!(same(found.source, addresses.source) && same(found.destination, addresses.destination));
        }
    }

    /// Wherever the bytes are split: too early it is never said wrongly, and more bytes change nothing.
    #[test]
    fn every_split_comes_to_the_same(bytes in prop_oneof![
        nearly_a_header(),
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(any::<u8>(), 0..64).prop_map(|rest| [V2, &rest].concat()),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|rest| [b"PROXY ", &rest[..]].concat()),
    ]) {
        let whole = read(&bytes);
        if let Ok(Found::Header(header)) = whole {
            prop_assert!(header.length <= bytes.len() && header.length <= HEADER_MAX);
        }
        let mut begun = false;
        for end in 0..=bytes.len() {
            match read(&bytes[..end]) {
                Ok(Found::Unclear) => prop_assert!(!begun, "{end}"),
                Ok(Found::Part) => begun = true,
                settled => {
                    prop_assert_eq!(settled, whole, "{}", end);
                    begun = true;
                }
            }
        }
    }
}
