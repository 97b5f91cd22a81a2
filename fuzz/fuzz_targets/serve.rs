//! Any bytes as the input of `fssync serve`: it ends, and says nothing that is
//! no frame.

#![no_main]

use std::path::PathBuf;

use fssync::agent::serve;
use fssync::wire::{self, HELLO_LEN, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|requests: &[u8]| {
    let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures"));
    let input = [&wire::hello(), requests].concat();
    let mut output = Vec::new();
    // What is no request ends it with an error, which is well.
    let _ = serve(&[fixtures], input.as_slice(), &mut output);
    let mut said = &output[HELLO_LEN..];
    let mut buffer = vec![0; wire::MAX_DATA_LEN];
    while let Some(reply) = wire::read_message::<Reply>(&mut said).expect("a reply") {
        if let Reply::Data(len @ 1..) | Reply::Transactions { len: len @ 1.., .. } = reply {
            let got = wire::read_data(&mut said, &mut buffer).expect("its bytes");
            assert_eq!(got as u64, len);
        }
    }
});
