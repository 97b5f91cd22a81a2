//! Any bytes as what a master answers: the slave's end takes them for replies or
//! says what is wrong.

#![no_main]

use fssync::wire::{self, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answers: &[u8]| {
    let mut from = answers;
    if wire::read_hello(&mut from).is_err() {
        from = answers;
    }
    let mut buffer = vec![0; 4096];
    while let Ok(Some(reply)) = wire::read_message::<Reply>(&mut from) {
        if matches!(reply, Reply::Data(_)) && wire::read_data(&mut from, &mut buffer).is_err() {
            break;
        }
    }
});
