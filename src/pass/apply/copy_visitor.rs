//! Collects facts about a full copy while its transactions are read.

use crate::compare::succession::Succession;
use crate::filestorage::Tid;
use crate::filestorage::blob::{BlobCandidate, BlobCollector};
use crate::filestorage::index::Index;
use crate::filestorage::index::builder::Builder;
use crate::filestorage::scan::{Event, Visitor};
use crate::pass::survey::Survey;
use crate::plan::{CopyFindings, SlaveState};

/// Visits every transaction of a full copy, from the first one on: those in a copy that an
/// earlier pass has begun, and those that this pass reads from the master.
pub(super) struct CopyVisitor<'a> {
    required_tid: Option<Tid>,
    has_required_tid: bool,
    /// Builds the index of the copy.
    builder: Builder,
    /// Joins the copy with the slave that it is to replace; `None` if that is missing or not
    /// a FileStorage.
    join: Option<Succession<'a>>,
    /// Collects the blobs. `None` while the copy of an earlier pass is visited, whose blobs are
    /// found by a scan of their own.
    blobs: Option<BlobCollector>,
}

impl<'a> CopyVisitor<'a> {
    pub(super) fn new(survey: &'a Survey, required_tid: Option<Tid>) -> Self {
        Self {
            required_tid,
            has_required_tid: required_tid.is_none(),
            builder: Builder::default(),
            join: join(survey),
            blobs: None,
        }
    }

    /// Collects the blobs from now on.
    pub(super) fn collect_blobs(&mut self) {
        self.blobs = Some(BlobCollector::default());
    }

    /// The blobs of the complete transactions since the last call.
    pub(super) fn take_blobs(&mut self) -> Vec<BlobCandidate> {
        self.blobs
            .as_mut()
            .map(BlobCollector::take)
            .unwrap_or_default()
    }

    /// All that was found, once the whole copy was visited.
    pub(super) fn findings(&mut self, is_damaged: bool) -> CopyFindings {
        let index = self.builder.index();
        let evidence = self.join.take().map(|join| join.finish(index));
        if let Some(evidence) = &evidence {
            tracing::debug!("the old slave and the copy: {evidence:?}");
        }
        CopyFindings {
            is_damaged,
            has_required_tid: self.has_required_tid,
            evidence,
        }
    }

    /// The index of a copy that ends at `position`; `None` if damage has spoiled it.
    pub(super) fn into_index(self, position: u64) -> Option<Index> {
        let is_complete = self.builder.position() == position;
        is_complete.then(|| self.builder.finish()).flatten()
    }
}

impl Visitor for CopyVisitor<'_> {
    fn event(&mut self, event: Event) {
        // The join looks up the current records of objects, this event's included.
        self.builder.take(event);
        if let Some(join) = &mut self.join {
            join.take(event, self.builder.index());
        }
        if let Some(blobs) = &mut self.blobs {
            blobs.event(event);
        }
        if let Event::Transaction(transaction) = event {
            self.has_required_tid |= Some(transaction.header.tid) == self.required_tid;
        }
    }

    fn bytes(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(join) = &mut self.join {
            join.take_bytes(offset, bytes);
        }
        if let Some(blobs) = &mut self.blobs {
            blobs.bytes(offset, bytes);
        }
    }
}

fn join(survey: &Survey) -> Option<Succession<'_>> {
    let SlaveState::Storage(slave) = &survey.observation.slave else {
        return None;
    };
    let file = survey.slave_file()?;
    Some(Succession::new(file, slave.position, slave.last_tid))
}
