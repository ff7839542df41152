use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;

use super::*;

/// What rustls sends for this name and these protocols.
fn real_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A handshake message in records of these lengths, the last one for what is left.
fn in_records(message: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut rest = message;
    for length in lengths.iter().copied().chain(std::iter::repeat(RECORD_MAX)) {
        let (record, more) = rest.split_at(length.clamp(1, RECORD_MAX).min(rest.len()));
        wire.extend([HANDSHAKE, 3, 1]);
        wire.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        wire.extend(record);
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    wire
}

/// A ClientHello with these extensions.
fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let long = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let all: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, bytes)| [&kind.to_be_bytes()[..], &long(bytes)].concat())
        .collect();
    let body = [&[3, 3][..], &[7; 32], &[0], &long(&[0x13, 0x01]), &[1, 0], &long(&all)].concat();
    [&[CLIENT_HELLO][..], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], &body].concat()
}

fn name_extension(name: &[u8]) -> (u16, Vec<u8>) {
    let length = |more: usize| u16::try_from(name.len() + more).unwrap().to_be_bytes();
    (SERVER_NAME, [&length(3)[..], &[0], &length(0), name].concat())
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, NoHello> {
    Reader::default().read(bytes)
}

/// Feeds the bytes up to each of `ends` in turn, and then all.
fn read_in_pieces(
    bytes: &[u8],
    ends: impl IntoIterator<Item = usize>,
) -> Result<Option<ClientHello>, NoHello> {
    let mut reader = Reader::default();
    for end in ends {
        match reader.read(&bytes[..end]) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    reader.read(bytes)
}

#[test]
fn a_real_one_says_what_it_was_told_to() {
    let hello = read(&real_hello("Db.Example.com", &["postgresql", "h2"])).unwrap().unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("db.example.com"));
    assert_eq!(hello.alpn, [Box::from(&b"postgresql"[..]), Box::from(&b"h2"[..])]);
    assert!(hello.speaks_tls12_or_later && !hello.is_ech_outer);
    // An address is no name; rustls then sends none.
    assert_eq!(read(&real_hello("10.0.0.1", &[])).unwrap().unwrap().server_name, None);
}

#[test]
fn a_post_quantum_key_share_is_no_obstacle() {
    let bytes = real_hello("a.test", &[]);
    assert!(bytes.len() > 1_200, "X25519MLKEM768 is on: {} bytes", bytes.len());
    let message = &bytes[RECORD_HEADER..];
    let whole = read(&bytes).unwrap().unwrap();
    assert_eq!(read(&in_records(message, &[1, 2, 3, 500, 1])), Ok(Some(whole)));
}

/// Chromium 156: GREASE among the extensions, an encrypted ClientHello of no meaning, a post-quantum key share.
#[test]
fn a_browsers_is_read_in_any_pieces() {
    let bytes = include_bytes!("../../../fuzz/seeds/client_hello/chromium");
    for step in [1, 7, 1_500, bytes.len()] {
        let hello = read_in_pieces(bytes, (0..bytes.len()).step_by(step)).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("www.example.com"));
        assert_eq!(hello.alpn, [Box::from(&b"h2"[..]), Box::from(&b"http/1.1"[..])]);
        assert!(hello.is_ech_outer && hello.speaks_tls12_or_later);
    }
}

#[test]
fn grease_and_ech_are_passed_over() {
    let long_enough = vec![0; 1_700];
    let extensions = [
        (0x0a0a, Vec::new()),
        name_extension(b"outer.example"),
        (ENCRYPTED_CLIENT_HELLO, vec![0; 300]),
        (51, long_enough),
        (SUPPORTED_VERSIONS, vec![6, 0x1a, 0x1a, 3, 4, 3, 3]),
        (0xfafa, vec![0]),
    ];
    let hello = read(&in_records(&message(&extensions), &[])).unwrap().unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("outer.example"));
    assert!(hello.is_ech_outer && hello.speaks_tls12_or_later);
}

#[test]
fn who_names_nobody_is_understood() {
    let nobody = ClientHello { speaks_tls12_or_later: true, ..ClientHello::default() };
    assert_eq!(read(&in_records(&message(&[]), &[])), Ok(Some(nobody)));
    let of_address = message(&[name_extension(b"10.0.0.1")]);
    assert_eq!(read(&in_records(&of_address, &[])).unwrap().unwrap().server_name, None);
}

#[test]
fn a_trailing_dot_is_no_part_of_the_name() {
    for (name, expected) in
        [(&b"A.test."[..], Some("a.test")), (b"a.test", Some("a.test")), (b"10.0.0.1.", None)]
    {
        let bytes = in_records(&message(&[name_extension(name)]), &[]);
        assert_eq!(read(&bytes).unwrap().unwrap().server_name.as_deref(), expected);
    }
}

#[test]
fn old_versions_are_told_from_those_that_still_are() {
    let speaks = |bytes: &[u8]| read(&in_records(bytes, &[])).unwrap().unwrap().speaks_tls12_or_later;
    let mut old = message(&[]);
    old[MESSAGE_HEADER + 1] = 2;
    assert!(!speaks(&old), "TLS 1.1");
    assert!(
        !speaks(&message(&[(SUPPORTED_VERSIONS, vec![4, 0x0a, 0x0a, 3, 2])])),
        "the list says what is spoken"
    );
    assert!(speaks(&message(&[(SUPPORTED_VERSIONS, vec![2, 3, 4])])));
}

#[test]
fn what_is_none_is_told_by_its_first_bytes() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], NoHello::NotTls),
        (b"G", NoHello::NotTls),
        (b"SSH-2.0-OpenSSH", NoHello::NotTls),
        // An alert, and a handshake record of SSL 1 or of something else.
        (&[21, 3, 1, 0, 2, 1, 0], NoHello::NotTls),
        (&[22, 9], NoHello::NotTls),
        (&[0x80, 0x2e, 1, 3, 1, 0, 0x15], NoHello::Ssl2),
        (&[0xff, 0xff, 7], NoHello::NotTls),
        (&[22, 3, 1, 0, 0], NoHello::Malformed("a record is empty")),
        (&[22, 3, 1, 0x40, 1], NoHello::Malformed("a record is longer than 16 KiB")),
        (&[22, 3, 1, 0, 9, 2], NoHello::Malformed("the first message is another one")),
        (&[22, 3, 1, 0, 9, 1, 1, 0, 0], NoHello::TooLarge),
        (&[22, 3, 1, 0, 1, 1, 23, 3, 3, 0, 1], NoHello::Malformed("it is interrupted by something else")),
    ] {
        assert_eq!(read(bytes), Err(expected), "{bytes:?}");
        assert_eq!(read_in_pieces(bytes, 0..bytes.len()), Err(expected), "{bytes:?} byte by byte");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    for name in [&b""[..], b".", b"a b", b"a\n", b"\xff\xfe", b"a/b", &[b'a'; 256]] {
        let bytes = in_records(&message(&[name_extension(name)]), &[]);
        assert_eq!(read(&bytes), Err(NoHello::Malformed("the server name is none")), "{name:?}");
    }
    let twice = message(&[name_extension(b"a.test"), name_extension(b"b.test")]);
    assert_eq!(read(&in_records(&twice, &[])), Err(NoHello::Malformed("it has an extension twice")));
}

#[test]
fn the_longest_is_read_and_no_longer_one() {
    // Two extensions, as one cannot be as long as all.
    let with =
        |length: usize| message(&[name_extension(b"a.test"), (21, vec![0; 60_000]), (22, vec![0; length])]);
    let base = with(0).len();
    let longest = with(HELLO_MAX + MESSAGE_HEADER - base);
    assert_eq!(longest.len(), HELLO_MAX + MESSAGE_HEADER);
    assert!(read(&in_records(&longest, &[])).unwrap().is_some());
    let mut longer = longest;
    longer[1] = 1;
    assert_eq!(read(&in_records(&longer, &[])), Err(NoHello::TooLarge));
}

#[test]
fn records_that_carry_next_to_nothing_come_to_an_end() {
    let long = message(&[(21, vec![0; 60_000])]);
    let bytes = in_records(&long, &vec![1; long.len()]);
    let mut reader = Reader::default();
    let refused =
        (0..bytes.len()).step_by(1_000).find_map(|end| Some((end, reader.read(&bytes[..end]).err()?)));
    let (end, error) = refused.unwrap();
    assert_eq!(error, NoHello::TooLarge);
    assert!(end <= WIRE_MAX + 1_000, "refused after {end} bytes");
}

fn any_hello() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just(None),
        "[a-zA-Z0-9]([a-zA-Z0-9-]{0,10}[a-zA-Z0-9])?(\\.[a-z]{1,8}){0,4}".prop_map(Some),
    ];
    let other = (prop::num::u16::ANY, prop::collection::vec(any::<u8>(), 0..80));
    let is_unknown = |kind: &u16| *kind > 60 && !(0xfe00..=0xff02).contains(kind);
    let others =
        prop::collection::vec(other.prop_filter("a known one", move |(kind, _)| is_unknown(kind)), 0..4);
    (name, others).prop_map(|(name, mut extensions)| {
        extensions.dedup_by_key(|(kind, _)| *kind);
        extensions.extend(name.map(|name| name_extension(name.as_bytes())));
        // Without these rustls takes none.
        extensions.push((10, vec![0, 2, 0, 29]));
        extensions.push((13, vec![0, 2, 4, 3]));
        message(&extensions)
    })
}

/// Found by fuzzing: the length goes on in something that is no record.
#[test]
fn only_records_say_how_long_it_is() {
    let bytes = b"\x16\x03\x01\0\x03\x01\x7e\x16\xce\x03\0\x01\0";
    let expected = Err(NoHello::Malformed("it is interrupted by something else"));
    assert_eq!(read(bytes), expected);
    assert_eq!(read_in_pieces(bytes, 0..bytes.len()), expected);
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        message in any_hello(),
        records in prop::collection::vec(1_usize..300, 0..6),
        mut ends in prop::collection::vec(0_usize..2_000, 0..20),
    ) {
        let bytes = in_records(&message, &records);
        ends.iter_mut().for_each(|end| *end %= bytes.len());
        ends.sort_unstable();
        let whole = read(&in_records(&message, &[]));
        prop_assert!(matches!(whole, Ok(Some(_))), "{whole:?}");
        prop_assert_eq!(read_in_pieces(&bytes, ends), whole);
    }

    #[test]
    fn rustls_reads_the_same(message in any_hello(), records in prop::collection::vec(1_usize..300, 0..6)) {
        let bytes = in_records(&message, &records);
        let mut acceptor = Acceptor::default();
        let mut wire = &bytes[..];
        while acceptor.read_tls(&mut wire).unwrap() > 0 {}
        if let Ok(Some(accepted)) = acceptor.accept() {
            let ours = read(&bytes).unwrap().unwrap();
            let theirs = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
            prop_assert_eq!(ours.server_name.as_deref(), theirs.as_deref());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), ends in prop::collection::vec(0_usize..600, 0..6)) {
        let mut ends: Vec<usize> = ends.into_iter().map(|end| end.min(bytes.len())).collect();
        ends.sort_unstable();
        prop_assert_eq!(read_in_pieces(&bytes, ends), read(&bytes));
    }

    #[test]
    fn changed_hellos_never_panic(message in any_hello(), changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        let mut bytes = in_records(&message, &[40]);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        prop_assert_eq!(read_in_pieces(&bytes, 0..bytes.len()), read(&bytes));
    }
}
