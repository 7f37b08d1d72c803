//! `make fuzz FUZZ_TARGETS=payload`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_fuzz::payload(bytes));
