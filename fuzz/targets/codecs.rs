//! `make fuzz FUZZ_TARGETS=codecs`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_store::fuzzing::codecs(bytes));
