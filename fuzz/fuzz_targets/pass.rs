//! See `fssync_fuzz::pass`.

#![no_main]

use fssync_fuzz::pass;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(pass::seeds), |input: &[u8]| pass::run(input));
