//! See `fssync_fuzz::command_line`.

#![no_main]

use fssync_fuzz::command_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fssync_fuzz::write_seeds(command_line::seeds), |input: &[u8]| command_line::run(input));
