//! See `fssync_fuzz::config`.

#![no_main]

use fssync_fuzz::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(config::seeds), |input: &[u8]| config::run(input));
