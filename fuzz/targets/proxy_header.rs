//! However the bytes arrive, they come to the same header or to the same reason why they are none; and what a header says can
//! be written again.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use sheave_fuzz::config::{ProxyOut, ProxyTlv, ProxyVersion};
use sheave_fuzz::proxy_protocol::{Facts, Found, HEADER_MAX, Header, read, write};
use sheave_fuzz::splits;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    for end in splits(bytes.len()) {
        match read(&bytes[..end]) {
            Ok(Found::Part | Found::Unclear) => {}
            settled => {
                assert_eq!(settled, whole, "after {end} bytes");
                break;
            }
        }
    }
    let Ok(Found::Header(Header { length, addresses, parent })) = whole else { return };
    assert!(length <= bytes.len().min(HEADER_MAX));
    let Some(addresses) = addresses else { return };
    let text = String::from_utf8_lossy(&bytes[length..]);
    let traceparent = parent.map(|parent| parent.to_string()).unwrap_or_default();
    let facts = Facts {
        addresses,
        authority: Some(&text),
        alpn: Some(&bytes[length..]),
        unique_id: "1",
        traceparent: &traceparent,
        tls: None,
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let tlvs = vec![ProxyTlv::Authority, ProxyTlv::Alpn, ProxyTlv::UniqueId, ProxyTlv::Traceparent];
        let written = write(&ProxyOut { version, tlvs }, &facts);
        let Ok(Found::Header(Header { length, addresses: Some(again), parent: same })) = read(&written)
        else {
            panic!("{:?}", read(&written))
        };
        assert_eq!(same, parent.filter(|_| version == ProxyVersion::V2));
        let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
        assert_eq!(length, written.len());
        assert_eq!(canonical(again.source), canonical(addresses.source));
        assert_eq!(canonical(again.destination), canonical(addresses.destination));
    }
});
