//! Answers requests about blobs.

use std::fs;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Error, HEARTBEAT_INTERVAL, Server, confine, nothing_opened, refused};
use crate::filestorage::blob::{BlobKey, Layout};
use crate::source::blobs::{
    self, BlobEventKind, BlobReader, BlobWant, BlobsFailure, BlobsProblem, MAX_WANTS,
};
use crate::source::open::Name;
use crate::source::protocol::{self, Reply};

impl<I: Read, O: Write> Server<'_, I, O> {
    pub(super) fn blob_root(&self, given: Option<&str>) -> Reply {
        let found = match (given, &self.file) {
            (Some(directory), _) => self
                .confine_directory(directory)
                .and_then(|name| blobs::describe(&name)),
            (None, None) => return nothing_opened(),
            (None, Some(file)) => {
                blobs::find(file.name(), |path| confine_directory(self.paths, path))
            }
        };
        found.map_or_else(unusable, Reply::BlobRoot)
    }

    pub(super) fn blobs(
        &mut self,
        directory: &str,
        layout: Layout,
        wants: &[BlobWant],
    ) -> Result<(), Error> {
        let mut reader = match self.blob_reader(directory, layout, wants.len()) {
            Ok(reader) => reader,
            Err(refused) => return Ok(protocol::write_message(&mut self.output, &refused)?),
        };
        let mut sender = Sender::new(&mut self.output);
        for want in wants {
            let read = reader.read(want, &mut |event| sender.send(event));
            sender.result?;
            sender.result = Ok(());
            if let Err(failure) = read {
                return Ok(protocol::write_message(sender.output, &unusable(failure))?);
            }
        }
        Ok(())
    }

    pub(super) fn blob_digests(
        &mut self,
        directory: &str,
        layout: Layout,
        keys: &[BlobKey],
    ) -> Result<(), Error> {
        let mut reader = match self.blob_reader(directory, layout, keys.len()) {
            Ok(reader) => reader,
            Err(refused) => return Ok(protocol::write_message(&mut self.output, &refused)?),
        };
        let mut sender = Sender::new(&mut self.output);
        for key in keys {
            let digest = reader.digest(*key, || {
                let _ = sender.send(BlobEventKind::Digesting);
            });
            sender.result?;
            sender.result = Ok(());
            let reply = digest.map_or_else(unusable, Reply::BlobDigest);
            protocol::write_message(sender.output, &reply)?;
            if !matches!(reply, Reply::BlobDigest(_)) {
                break;
            }
        }
        Ok(())
    }

    /// A reader for a request about this number of blobs, or the refusal.
    fn blob_reader(
        &self,
        directory: &str,
        layout: Layout,
        count: usize,
    ) -> Result<BlobReader, Reply> {
        if count > MAX_WANTS {
            return Err(Reply::Refused {
                why: "too many blobs in one request".to_owned(),
                is_transient: false,
            });
        }
        let reader = self
            .confine_directory(directory)
            .and_then(|name| BlobReader::open(name, layout));
        reader.map_err(unusable)
    }

    fn confine_directory(&self, directory: &str) -> Result<Name, BlobsFailure> {
        confine_directory(self.paths, Path::new(directory)).ok_or_else(|| {
            let directories = vec![directory.to_owned()];
            BlobsFailure::Problem(BlobsProblem::NotServed { directories })
        })
    }
}

/// The name to open for a directory, if it is at or below a served path, or where that leads
/// to: the usual blob directories are found from the `Data.fs` that the path leads to.
fn confine_directory(served: &[PathBuf], requested: &Path) -> Option<Name> {
    confine(served, requested).or_else(|| {
        let resolved: Vec<_> = served.iter().flat_map(fs::canonicalize).collect();
        confine(&resolved, requested)
    })
}

fn unusable(failure: BlobsFailure) -> Reply {
    match failure {
        BlobsFailure::Problem(problem) => Reply::Blobs(problem),
        failure @ BlobsFailure::Io { .. } => refused(&failure.of_master("")),
    }
}

/// Sends the events of blobs.
struct Sender<'a, O> {
    output: &'a mut O,
    quiet_since: Instant,
    /// The first error of the output.
    result: std::io::Result<()>,
}

impl<'a, O: Write> Sender<'a, O> {
    fn new(output: &'a mut O) -> Self {
        Self {
            output,
            quiet_since: Instant::now(),
            result: Ok(()),
        }
    }

    /// Sends an event. Breaks if the output has failed.
    fn send(&mut self, event: BlobEventKind) -> ControlFlow<()> {
        if self.result.is_ok() {
            self.result = self.write(event);
        }
        match self.result {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn write(&mut self, event: BlobEventKind) -> std::io::Result<()> {
        match event {
            BlobEventKind::Digesting if self.quiet_since.elapsed() <= HEARTBEAT_INTERVAL => {
                return Ok(());
            }
            BlobEventKind::Digesting => {
                protocol::write_message(self.output, &Reply::Heartbeat)?;
                self.output.flush()?;
            }
            BlobEventKind::Data(bytes) => protocol::write_data(self.output, &bytes)?,
            event => protocol::write_message(self.output, &Reply::Blob(event))?,
        }
        self.quiet_since = Instant::now();
        Ok(())
    }
}
