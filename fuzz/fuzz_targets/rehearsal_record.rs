#![no_main]
#![allow(dead_code, reason = "each target runs one of the shared properties")]

#[path = "../../crates/rehearsal/tests/it/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::record(input));
