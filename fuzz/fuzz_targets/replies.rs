//! Any bytes as what a master answers: the slave's end takes them for replies or
//! says what is wrong.

#![no_main]

use fssync::source::Transactions;
use fssync::wire::{self, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answers: &[u8]| {
    let mut from = answers;
    if wire::read_hello(&mut from).is_err() {
        from = answers;
    }
    let mut buffer = vec![0; wire::MAX_DATA_LEN];
    while let Ok(Some(reply)) = wire::read_message::<Reply>(&mut from) {
        if !matches!(reply, Reply::Data(_) | Reply::Transactions { .. }) {
            continue;
        }
        let Ok(len) = wire::read_data(&mut from, &mut buffer) else {
            break;
        };
        if let Reply::Transactions { reached, .. } = reply {
            // One that is taken fits into the file.
            if let Some(list) = Transactions::decode(&buffer[..len], reached, 4, reached.offset) {
                let lens = list.entries.iter().map(|entry| entry.len);
                assert!(4 + lens.sum::<u64>() <= reached.offset);
            }
        }
    }
});
