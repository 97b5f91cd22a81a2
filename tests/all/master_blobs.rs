//! The blobs of a master, as a source sends them: on a mounted path, and through `fssync serve`
//! over a real sshd. Both must answer alike.

mod answers;
mod directories;
mod interruptions;
mod serve;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{BlobKey, LAYOUT_FILE, Layout};
use fssync::io::digest::Digest;
use fssync::source::blobs::{BlobEvent, BlobEventKind, BlobRoot, BlobWant};
use fssync::source::{Error, Source};

use crate::remote;
use crate::support::Scene;

/// A master with a blob directory.
struct Site {
    scene: Scene,
    directory: PathBuf,
    layout: Layout,
}

impl Site {
    /// A site with an empty blob directory beside its `Data.fs`.
    fn new(layout: Layout) -> Self {
        let scene = Scene::with_master("one");
        let directory = scene.master.with_file_name("blobstorage");
        make_blob_directory(&directory, layout.as_str());
        Self {
            scene,
            directory,
            layout,
        }
    }

    /// The path of a blob.
    fn path(&self, key: BlobKey) -> PathBuf {
        self.directory.join(self.layout.path(key))
    }

    /// Writes a blob.
    fn write(&self, key: BlobKey, bytes: &[u8]) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().expect("a directory")).expect("its directories");
        fs::write(path, bytes).expect("a blob");
    }

    /// A source for each transport, which has opened the master.
    fn sources(&self) -> [Box<dyn Source>; 2] {
        let mut sources = remote::sources(&self.scene);
        for source in &mut sources {
            source.stat(&[]).expect("the master");
        }
        sources
    }
}

fn make_blob_directory(path: &Path, layout: &str) {
    fs::create_dir_all(path).expect("a blob directory");
    fs::write(path.join(LAYOUT_FILE), layout).expect("its layout");
}

fn key(oid: u64, tid: u64) -> BlobKey {
    BlobKey { tid: Tid(tid), oid }
}

/// A want without anything received before.
fn want(key: BlobKey) -> BlobWant {
    BlobWant {
        key,
        have: None,
        resume: None,
    }
}

/// The answer about one blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    /// The events except for data.
    events: Vec<BlobEventKind>,
    bytes: Vec<u8>,
    pieces: usize,
}

/// Requests blobs. Checks the order of the events, and returns the answer about each blob.
fn answers(
    source: &mut dyn Source,
    root: &BlobRoot,
    wants: &[BlobWant],
) -> Result<Vec<Answer>, Error> {
    let answers = Mutex::new(vec![Answer::default(); wants.len()]);
    source.blobs(root, wants, &|BlobEvent { index, kind }| {
        let answer = &mut answers.lock().expect("no panic")[index];
        let is_over = answer.events.last().is_some_and(BlobEventKind::is_final);
        assert!(!is_over, "{kind:?} after {:?}", answer.events);
        match kind {
            BlobEventKind::Data(bytes) => {
                assert!(matches!(answer.events[..], [BlobEventKind::File { .. }]));
                assert!(!bytes.is_empty());
                answer.bytes.extend(bytes);
                answer.pieces += 1;
            }
            BlobEventKind::Digesting => {}
            kind => answer.events.push(kind),
        }
        ControlFlow::Continue(())
    })?;
    let answers = answers.into_inner().expect("no panic");
    for answer in &answers {
        assert!(answer.events.last().is_some_and(BlobEventKind::is_final));
        if let [BlobEventKind::File { stat, from }, BlobEventKind::Complete] = answer.events[..] {
            assert_eq!(answer.bytes.len() as u64, stat.size - from);
        }
    }
    Ok(answers)
}

/// The digest of the first `len` bytes.
fn prefix_digest(bytes: &[u8], len: usize) -> Digest {
    Digest::of(&bytes[..len])
}

/// Bytes without a period that a piece could hide.
fn content(len: usize) -> Vec<u8> {
    let numbers = (0..=len as u32 / 4).flat_map(u32::to_be_bytes);
    numbers.take(len).collect()
}
