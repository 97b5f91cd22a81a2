//! Counts the decisions about blobs, and converts them into findings.

use super::BlobCounts;
use super::judge::{Judgement, Ours};
use crate::filestorage::blob::BlobKey;
use crate::human::count;
use crate::slave::blobs::BlobDirectory;
use crate::verify::finding::{Finding, Kind};

/// The numbers of a verification.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: BlobCounts,
    /// The first blob that neither end has.
    first_absent: Option<BlobKey>,
}

impl Tally {
    /// Counts a file.
    pub(super) fn add_file(&mut self, file: &Ours) {
        if let Ours::Present { size, .. } = file {
            self.counts.files += 1;
            self.counts.bytes += size;
        }
    }

    /// Counts a decision, and reports it if it is a finding.
    pub(super) fn add(
        &mut self,
        judgement: Judgement,
        key: BlobKey,
        directory: &BlobDirectory,
        report: &mut dyn FnMut(Finding),
    ) {
        let counts = &mut self.counts;
        match &judgement {
            Judgement::Sound { is_compared } => counts.unchecked += u64::from(!is_compared),
            Judgement::NotCopied => counts.not_copied += 1,
            Judgement::Absent => {
                counts.absent += 1;
                self.first_absent.get_or_insert(key);
            }
            Judgement::Missing { .. } => counts.missing += 1,
            Judgement::Unreadable(_) => counts.unreadable += 1,
            Judgement::OtherSize { .. }
            | Judgement::OtherContent
            | Judgement::UnlikeMaster { .. } => counts.different += 1,
            Judgement::NotNeeded
            | Judgement::MasterChanged { .. }
            | Judgement::MasterShorter { .. }
            | Judgement::OnlyHere => {}
        }
        if let Some((kind, expected, found)) = describe(judgement) {
            report(finding(kind, key, directory, expected, found));
        }
    }

    /// Reports the blobs that neither end has, all in one finding.
    pub(super) fn report_absent(&self, directory: &BlobDirectory, report: &mut dyn FnMut(Finding)) {
        if let Some(key) = self.first_absent {
            let absent = count(self.counts.absent, "blob");
            let found = format!("none; the master lacks {absent}, of which this is the first");
            let expected = "a file".to_owned();
            report(finding(Kind::BlobAbsent, key, directory, expected, found));
        }
    }
}

/// Reports a blob that the master has and cannot read, whatever the slave has.
pub(super) fn report_master_unreadable(
    why: String,
    key: BlobKey,
    directory: &BlobDirectory,
    report: &mut dyn FnMut(Finding),
) {
    let expected = "a file at the master that can be read".to_owned();
    let kind = Kind::MasterBlobUnreadable;
    report(finding(kind, key, directory, expected, why));
}

fn finding(
    kind: Kind,
    key: BlobKey,
    directory: &BlobDirectory,
    expected: String,
    found: String,
) -> Finding {
    Finding {
        tid: Some(key.tid),
        oid: Some(key.oid),
        blob: Some(directory.layout().path(key)),
        ..Finding::new(kind, 0, expected, found)
    }
}

/// The kind of finding, and the expected and the actual content; `None` if this
/// blob alone needs no report.
fn describe(judgement: Judgement) -> Option<(Kind, String, String)> {
    let bytes = |len| count(len, "byte");
    let (kind, expected, found) = match judgement {
        Judgement::Sound { .. }
        | Judgement::NotNeeded
        | Judgement::NotCopied
        | Judgement::Absent => return None,
        Judgement::Missing { is_at_master } => (
            Kind::BlobMissing,
            "a file, because the log refers to it".to_owned(),
            if is_at_master {
                "none, although the master has it".to_owned()
            } else {
                "none".to_owned()
            },
        ),
        Judgement::Unreadable(why) => (
            Kind::BlobUnreadable,
            "a file that can be read".to_owned(),
            why,
        ),
        Judgement::OtherSize { expected, found } => (
            Kind::BlobDifferent,
            format!("{}, as the master sent", bytes(expected)),
            bytes(found),
        ),
        Judgement::OtherContent => (
            Kind::BlobDifferent,
            "the bytes that the master sent, according to their digest".to_owned(),
            "different bytes".to_owned(),
        ),
        Judgement::UnlikeMaster { ours, theirs } => (
            Kind::BlobDifferent,
            format!("the master's {}, according to their digest", bytes(theirs)),
            if ours == theirs {
                "different bytes".to_owned()
            } else {
                bytes(ours)
            },
        ),
        Judgement::MasterChanged { theirs } => (
            Kind::MasterBlobDifferent,
            "the same file at the master, which sent these bytes".to_owned(),
            format!("{} there, which differ", bytes(theirs)),
        ),
        Judgement::MasterShorter { ours, theirs } => (
            Kind::MasterBlobShorter,
            format!("the same {} at the master", bytes(ours)),
            format!("only {} there", bytes(theirs)),
        ),
        Judgement::OnlyHere => (
            Kind::MasterBlobMissing,
            "the same file at the master".to_owned(),
            "none there".to_owned(),
        ),
    };
    Some((kind, expected, found))
}
