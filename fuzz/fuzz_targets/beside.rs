//! See `fssync_fuzz::beside`.

#![no_main]

use fssync_fuzz::beside;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(beside::seeds), |input: &[u8]| beside::run(input));
