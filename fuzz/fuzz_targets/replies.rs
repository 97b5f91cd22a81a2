//! See `fssync_fuzz::replies`.

#![no_main]

use fssync_fuzz::replies;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(replies::seeds), |input: &[u8]| replies::run(input));
