//! Arbitrary bytes as what a Docker engine says: events, inspects and lists; see `tidegate::discovery::docker::answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::discovery::docker::answers(bytes));
