//! A master that runs a hook before it answers.

use std::ops::{ControlFlow, Range};
use std::time::Duration;

use fssync::filestorage::blob::BlobKey;
use fssync::io::digest::Digest;
use fssync::source::blobs::{BlobDigestAnswer, BlobEvent, BlobRoot, BlobWant};
use fssync::source::path::MountedPath;
use fssync::source::{Error, MasterStat, Source, Surroundings, Transactions};

/// A mounted path that runs a hook before it answers. A test can thus act between two steps of
/// a pass, at a point that it can name.
pub struct Hooked<H> {
    pub path: MountedPath,
    pub hook: H,
}

/// The request that the source is about to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Look,
    Read(u64),
    Digest(Range<u64>),
    Confirm(Range<u64>),
    Transactions(u64),
    BlobRoot,
    /// Contains the number of wanted blobs.
    Blobs(usize),
    /// Contains the number of keys.
    BlobDigests(usize),
}

impl<H: FnMut(Call) -> Result<(), Error> + Send> Source for Hooked<H> {
    fn stat(&mut self, ranges: &[Range<u64>]) -> Result<MasterStat, Error> {
        (self.hook)(Call::Look)?;
        self.path.stat(ranges)
    }

    fn surroundings(&mut self) -> Result<Surroundings, Error> {
        self.path.surroundings()
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        (self.hook)(Call::Read(offset))?;
        self.path.read(buffer, offset)
    }

    fn digest(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        (self.hook)(Call::Digest(range.clone()))?;
        self.path.digest(range)
    }

    fn confirm(&mut self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        (self.hook)(Call::Confirm(range.clone()))?;
        self.path.confirm(range)
    }

    fn transactions(&mut self, from: u64, size: u64) -> Result<Transactions, Error> {
        (self.hook)(Call::Transactions(from))?;
        self.path.transactions(from, size)
    }

    fn blob_root(&mut self, given: Option<&str>) -> Result<BlobRoot, Error> {
        (self.hook)(Call::BlobRoot)?;
        self.path.blob_root(given)
    }

    fn blobs(
        &mut self,
        root: &BlobRoot,
        wants: &[BlobWant],
        sink: &(dyn Fn(BlobEvent) -> ControlFlow<()> + Sync),
    ) -> Result<(), Error> {
        (self.hook)(Call::Blobs(wants.len()))?;
        self.path.blobs(root, wants, sink)
    }

    fn blob_digests(
        &mut self,
        root: &BlobRoot,
        keys: &[BlobKey],
        alive: &(dyn Fn() + Sync),
    ) -> Result<Vec<BlobDigestAnswer>, Error> {
        (self.hook)(Call::BlobDigests(keys.len()))?;
        self.path.blob_digests(root, keys, alive)
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, Error> {
        self.path.wait(timeout)
    }

    fn close(&mut self) {
        self.path.close();
    }
}
