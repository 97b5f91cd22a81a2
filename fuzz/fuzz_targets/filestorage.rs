//! See `fssync_fuzz::filestorage`.

#![no_main]

use fssync_fuzz::filestorage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(filestorage::seeds), |input: &[u8]| filestorage::run(input));
