#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| feedmill_fuzz::csv(input));
