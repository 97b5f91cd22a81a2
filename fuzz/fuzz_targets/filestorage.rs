//! Any bytes as a `Data.fs`: both walks, the check of what they come by, the search
//! behind what is damaged, and ZODB's look at an index of it, come to an end within it.

#![no_main]

use std::convert::Infallible;

use fssync::filestorage::backward::{Backward, Preceding, ReadAt};
use fssync::filestorage::behind::{end_of, search};
use fssync::filestorage::check::Checker;
use fssync::filestorage::index::sanity::witnesses;
use fssync::filestorage::scan::Scanner;
use libfuzzer_sys::fuzz_target;

struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    type Error = Infallible;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Infallible> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(())
    }
}

fuzz_target!(|file: &[u8]| {
    let mut scanner = Scanner::new(file.len() as u64);
    let mut checker = Checker::default();
    for piece in file.get(4..).unwrap_or_default().chunks(97) {
        scanner.feed(piece, &mut |event| {
            checker.take(event, &mut Bytes(file), &mut |flaw| {
                assert!(flaw.position < file.len() as u64);
            });
        });
        assert!(scanner.decided() <= scanner.offset());
    }
    assert!(scanner.position() <= file.len().max(4) as u64);
    if file.len() < 4 {
        return;
    }
    let (start, limit, last_tid) = (scanner.position(), file.len() as u64, scanner.last_tid());
    let Ok(end) = end_of(&mut Bytes(file), start, limit, last_tid);
    let Ok(found) = search(&mut Bytes(file), start, start + 1, limit, last_tid);
    for next in [end, found].into_iter().flatten() {
        assert!((start + 1..=limit).contains(&next));
    }
    let Ok(_) = witnesses(Bytes(file), file.len() as u64, scanner.position());
    let mut backward = Backward::new(Bytes(file), file.len() as u64);
    let mut end = file.len() as u64;
    while let Ok(Preceding::Transaction(found)) = backward.step() {
        assert!(found.position < end);
        end = found.position;
    }
});
