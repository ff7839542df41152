//! However the bytes arrive, they come to the same ClientHello or to the same reason why they are none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheave_fuzz::splits;
use sheave_fuzz::tls::client_hello::Reader;

fuzz_target!(|bytes: &[u8]| {
    let whole = Reader::default().read(bytes);
    let mut reader = Reader::default();
    for end in splits(bytes.len()) {
        match reader.read(&bytes[..end]) {
            Ok(None) => {}
            settled => return assert_eq!(settled, whole, "after {end} bytes"),
        }
    }
    assert_eq!(reader.read(bytes), whole, "at the end");
});
