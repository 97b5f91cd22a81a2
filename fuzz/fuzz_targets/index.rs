//! See `fssync_fuzz::index`.

#![no_main]

use fssync_fuzz::index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(index::seeds), |input: &[u8]| index::run(input));
