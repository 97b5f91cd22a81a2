//! Reads many blobs in several threads.
//!
//! On a network file system, most of the time is latency: each directory and each file costs a
//! round trip to the server, and several threads wait for them at the same time.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::directory::BlobsFailure;
use super::reader::BlobReader;
use super::{BlobDigestAnswer, BlobEvent, BlobRoot, BlobWant};
use crate::filestorage::blob::BlobKey;
use crate::source::open::Name;
use crate::source::pending::lock;

/// The maximum number of threads that read the blobs of one request.
const MAX_READERS: usize = 8;

/// Sends the events of all wanted blobs to `sink`, until it breaks.
pub(in crate::source) fn read_all(
    root: &BlobRoot,
    wants: &[BlobWant],
    sink: &(dyn Fn(BlobEvent) -> ControlFlow<()> + Sync),
) -> Result<(), BlobsFailure> {
    each(root, wants, |reader, index, want| {
        reader.read(want, &mut |kind| sink(BlobEvent { index, kind }))
    })
}

/// Digests these blobs. Calls `alive` again and again meanwhile.
pub(in crate::source) fn digest_all(
    root: &BlobRoot,
    keys: &[BlobKey],
    alive: &(dyn Fn() + Sync),
) -> Result<Vec<BlobDigestAnswer>, BlobsFailure> {
    let answers = Mutex::new(vec![BlobDigestAnswer::Absent; keys.len()]);
    each(root, keys, |reader, index, key| {
        let answer = reader.digest(*key, alive)?;
        alive();
        lock(&answers)[index] = answer;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(answers.into_inner().unwrap_or_default())
}

/// Calls `work` with each item and its index, in several threads, each with a reader of its
/// own. Ends early if `work` breaks or fails.
fn each<T: Sync>(
    root: &BlobRoot,
    items: &[T],
    work: impl Fn(&mut BlobReader, usize, &T) -> Result<ControlFlow<()>, BlobsFailure> + Sync,
) -> Result<(), BlobsFailure> {
    let name = Name::Trusted((&root.directory).into());
    let mut first = BlobReader::open(name, root.layout)?;
    let next = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let failure = Mutex::new(None);
    let run = |reader: &mut BlobReader| {
        while !is_over.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return;
            };
            match work(reader, index, item) {
                Ok(ControlFlow::Continue(())) => continue,
                Ok(ControlFlow::Break(())) => {}
                Err(failed) => {
                    lock(&failure).get_or_insert(failed);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let run = &run;
        for _ in 1..items.len().min(MAX_READERS) {
            let mut reader = first.another();
            let started = thread::Builder::new()
                .name("blobs".to_owned())
                .spawn_scoped(scope, move || run(&mut reader));
            // Fewer threads suffice: this one reads too.
            if started.is_err() {
                break;
            }
        }
        run(&mut first);
    });
    match failure.into_inner() {
        Ok(Some(failed)) => Err(failed),
        _ => Ok(()),
    }
}
