//! See `fssync_fuzz::verify`.

#![no_main]

use fssync_fuzz::verify;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(verify::seeds), |input: &[u8]| verify::run(input));
