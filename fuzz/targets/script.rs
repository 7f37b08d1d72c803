//! `make fuzz FUZZ_TARGETS=script`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_fuzz::script(bytes));
