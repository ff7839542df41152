//! However the bytes arrive, they come to the same beginning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheave_fuzz::splits;
use sheave_fuzz::tls::postgres::{First, read};

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    for end in splits(bytes.len()) {
        let part = read(&bytes[..end]);
        assert!(part == First::Unclear || part == whole, "{part:?} after {end} bytes, {whole:?} at the end");
    }
});
