//! See `fssync_fuzz::serve`.

#![no_main]

use fssync_fuzz::serve;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(serve::seeds), |input: &[u8]| serve::run(input));
