#![no_main]

#[path = "../../crates/pgproxy/tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::framer(input));
