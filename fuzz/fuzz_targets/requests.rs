//! Arbitrary bytes as what clients and a writer do; see `tidegate_xds::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_xds::fuzz::requests(bytes));
