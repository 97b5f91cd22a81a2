//! The findings to print, and the JSON object of a verification. Its keys are API.

mod blobs;
mod comparison;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use self::blobs::BlobsReport;
use self::comparison::ComparisonReport;
use super::against::Attempt;
use super::finding::{Finding, Kind, Severity};
use super::{DigestState, IndexState, SlaveContent, Verified};
use crate::error::Error;
use crate::filestorage::Tid;
use crate::slave::paths::SlavePaths;

/// Number of findings of each kind that are kept; the others are only counted.
const MAX_KEPT: u64 = 100;

/// The first findings of each kind, and the number of all of them.
#[derive(Debug)]
pub struct Findings {
    paths: SlavePaths,
    kept: Vec<Finding>,
    counts: BTreeMap<Kind, u64>,
}

impl Findings {
    /// No findings yet, for the slave at `paths`.
    #[must_use]
    pub fn new(paths: &SlavePaths) -> Self {
        Self {
            paths: paths.clone(),
            kept: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Counts a finding, and keeps it if it is one of the first of its kind.
    pub fn add(&mut self, finding: &Finding) {
        let count = self.counts.entry(finding.kind).or_default();
        *count += 1;
        if *count <= MAX_KEPT {
            self.kept.push(finding.clone());
        }
    }

    /// Whether there is no finding.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Number of all findings.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The findings that are kept, in the order in which they were found.
    #[must_use]
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// The kinds of which more were found than kept, with the number of the others.
    pub fn left_out(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.counts
            .iter()
            .filter(|(_, count)| **count > MAX_KEPT)
            .map(|(kind, count)| (*kind, count - MAX_KEPT))
    }

    /// Whether the verified file is a slave that was set aside.
    #[must_use]
    pub fn are_of_set_aside(&self) -> bool {
        self.paths.is_set_aside()
    }

    /// The recommended action for a finding of this kind.
    #[must_use]
    pub fn advice(&self, kind: Kind) -> &'static str {
        match kind.severity() {
            Severity::Damage if self.are_of_set_aside() => {
                "check whether the master has the damaged transactions; if not, copy all that can \
                 be read of this file, and check the disk and the memory"
            }
            _ => kind.advice(),
        }
    }

    /// The name of the file that a finding is about, without its directory; for a blob, its path
    /// below the blob directory.
    #[must_use]
    pub fn name(&self, finding: &Finding) -> String {
        if let Some(blob) = &finding.blob {
            return blob.display().to_string();
        }
        let path = finding.kind.file().path(&self.paths);
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.display().to_string()
    }
}

/// The JSON object of a verification.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The storage's name, if it has one from a configuration file.
    storage: Option<String>,
    master: Option<String>,
    slave: String,
    exit_code: u8,
    verdict: &'static str,
    size: u64,
    position: u64,
    last_tid: Option<Tid>,
    transactions: u64,
    records: u64,
    objects: u64,
    bytes: u64,
    unfinished_bytes: u64,
    /// Number of bytes that were compared with digests; `None` if they were not compared.
    digested_bytes: Option<u64>,
    index: &'static str,
    index_position: Option<u64>,
    index_reason: Option<&'a str>,
    #[serde(flatten)]
    blobs: BlobsReport<'a>,
    damages: u64,
    blemishes: u64,
    counts: &'a BTreeMap<Kind, u64>,
    findings: Vec<FindingReport<'a>>,
    against: Option<ComparisonReport<'a>>,
    against_error: Option<String>,
    elapsed_seconds: f64,
}

/// A finding in the JSON object.
#[derive(Debug, Serialize)]
struct FindingReport<'a> {
    file: String,
    kind: Kind,
    severity: Severity,
    position: u64,
    end: Option<u64>,
    tid: Option<Tid>,
    time: Option<Timestamp>,
    oid: Option<String>,
    expected: &'a str,
    found: &'a str,
    advice: &'static str,
}

impl<'a> Report<'a> {
    /// The same report with the storage's name.
    #[must_use]
    pub fn of_storage(self, name: &str) -> Self {
        let storage = Some(name.to_owned());
        Self { storage, ..self }
    }

    /// The report of a verification that took `elapsed`, with the comparison if one was requested.
    #[must_use]
    pub fn new(
        verified: &'a Verified,
        findings: &'a Findings,
        attempt: Option<&'a Attempt>,
        elapsed: Duration,
    ) -> Self {
        let (index, index_position, index_reason) = match &verified.index {
            IndexState::Missing => ("missing", None, None),
            IndexState::Sound(position) => ("sound", Some(*position), None),
            IndexState::Wrong => ("wrong", None, None),
            IndexState::Unused(why) => ("unused", None, Some(why.as_str())),
            IndexState::Unknown(why) => ("unknown", None, Some(why.as_str())),
        };
        let digested_bytes = match verified.digests {
            DigestState::Compared(len) => Some(len),
            DigestState::Skipped | DigestState::NoLedger => None,
        };
        Self {
            storage: None,
            master: attempt.map(|it| it.master.clone()),
            slave: verified.slave.display().to_string(),
            exit_code: verified.exit_with(attempt) as u8,
            verdict: verdict(verified),
            size: verified.size,
            position: verified.position,
            last_tid: verified.last_tid,
            transactions: verified.transactions,
            records: verified.records,
            objects: verified.objects,
            bytes: verified.bytes,
            unfinished_bytes: verified.unfinished.map_or(0, |it| it.bytes),
            digested_bytes,
            index,
            index_position,
            index_reason,
            blobs: verified
                .blobs
                .as_ref()
                .map(BlobsReport::of)
                .unwrap_or_default(),
            damages: verified.damages,
            blemishes: verified.blemishes,
            counts: &findings.counts,
            findings: findings
                .kept
                .iter()
                .map(|it| FindingReport::new(it, findings))
                .collect(),
            against: attempt
                .and_then(Attempt::comparison)
                .map(ComparisonReport::of),
            against_error: attempt
                .and_then(|it| it.result.as_ref().err())
                .map(Error::display_chain),
            elapsed_seconds: elapsed.as_secs_f64(),
        }
    }
}

impl<'a> FindingReport<'a> {
    fn new(finding: &'a Finding, findings: &Findings) -> Self {
        Self {
            file: findings.name(finding),
            kind: finding.kind,
            severity: finding.kind.severity(),
            position: finding.position,
            end: finding.end,
            tid: finding.tid,
            time: finding.tid.and_then(Tid::time),
            oid: finding.oid.map(|oid| format!("{oid:016x}")),
            expected: &finding.expected,
            found: &finding.found,
            advice: findings.advice(finding.kind),
        }
    }
}

/// The verdict without the comparison.
fn verdict(verified: &Verified) -> &'static str {
    match verified.content {
        SlaveContent::Missing | SlaveContent::TooShort => "no-slave",
        _ if verified.damages > 0 => "damaged",
        _ if verified.blemishes > 0 => "blemished",
        _ => "sound",
    }
}
