//! Arbitrary bytes as what containers are labelled with, all the way to Envoy's resources; see `tidegate_core::labels::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_core::labels::hostile(bytes));
