//! `make fuzz FUZZ_TARGETS=reader`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_fuzz::reader(bytes));
