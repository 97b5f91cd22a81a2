//! Any bytes as a `Data.fs.index`: they are foreign, or an index that is written
//! again to the byte.

#![no_main]

use fssync::filestorage::index::Index;
use fssync::filestorage::index::pickle::read_position;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok((index, position)) = Index::read(file, u64::MAX) else {
        return;
    };
    assert_eq!(read_position(file).expect("the position"), position);
    let mut written = Vec::new();
    index.write(position, &mut written).expect("it fits");
    assert_eq!(written, file);
});
