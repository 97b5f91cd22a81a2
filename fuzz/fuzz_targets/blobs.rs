//! See `fssync_fuzz::blobs`.

#![no_main]

use fssync_fuzz::blobs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(blobs::seeds), |input: &[u8]| blobs::run(input));
