#![no_main]
#![allow(dead_code, reason = "each target runs one of the shared properties")]

#[path = "../../crates/rehearsal/tests/it/record_properties.rs"]
mod record_properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| record_properties::record(input));
