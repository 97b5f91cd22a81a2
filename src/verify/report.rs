//! The findings that are kept, and the object that `--json` prints. Its keys are
//! API.

use std::collections::BTreeMap;
use std::time::Duration;

use super::against::{Against, ComparisonReport};
use fssync::filestorage::Tid;
use fssync::slave::paths::SlavePaths;
use fssync::verify::finding::{File, Finding, Kind, Severity};
use fssync::verify::{DigestState, IndexState, SlaveContent, Verified};
use jiff::Timestamp;
use serde::Serialize;

/// How many findings of a kind are kept; the others are counted.
const KEPT: u64 = 100;

/// What was found: the first of each kind, and how many there are.
pub(super) struct Findings {
    paths: SlavePaths,
    kept: Vec<Finding>,
    counts: BTreeMap<Kind, u64>,
}

impl Findings {
    pub(super) fn of(paths: &SlavePaths) -> Self {
        Self {
            paths: paths.clone(),
            kept: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, finding: &Finding) {
        let count = self.counts.entry(finding.kind).or_default();
        *count += 1;
        if *count <= KEPT {
            self.kept.push(finding.clone());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.counts.values().sum()
    }

    pub(super) fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// Kinds of which more were found than kept, and how many of them.
    pub(super) fn left_out(&self) -> impl Iterator<Item = (Kind, u64)> {
        self.counts
            .iter()
            .filter(|(_, count)| **count > KEPT)
            .map(|(kind, count)| (*kind, count - KEPT))
    }

    /// Whether the file that was verified is a slave that was set aside.
    pub(super) fn are_of_set_aside(&self) -> bool {
        self.paths.is_set_aside()
    }

    /// What a person can do about a finding of this kind.
    pub(super) fn advice(&self, kind: Kind) -> &'static str {
        match kind.severity() {
            Severity::Damage if self.are_of_set_aside() => {
                "see whether the master has what is damaged here; if not, save what can be \
                 read of it, and look for the cause: the disk, or the memory"
            }
            _ => kind.advice(),
        }
    }

    /// What the file of a finding is called.
    pub(super) fn name(&self, file: File) -> String {
        let path = file.path(&self.paths);
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.display().to_string()
    }
}

#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// The storage's name, once a configuration file gives it one.
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
    /// How many bytes were compared with digests; none where there is no ledger, or
    /// it was not asked for.
    digested_bytes: Option<u64>,
    index: &'static str,
    index_position: Option<u64>,
    index_reason: Option<&'a str>,
    damages: u64,
    blemishes: u64,
    counts: &'a BTreeMap<Kind, u64>,
    findings: Vec<Told<'a>>,
    against: Option<ComparisonReport<'a>>,
    against_error: Option<String>,
    elapsed_seconds: f64,
}

/// A finding.
#[derive(Serialize)]
struct Told<'a> {
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
    pub(super) fn of(
        verified: &'a Verified,
        findings: &'a Findings,
        against: &'a Against,
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
            master: against.master().map(str::to_owned),
            slave: verified.slave.display().to_string(),
            exit_code: against.exit(verified) as u8,
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
            damages: verified.damages,
            blemishes: verified.blemishes,
            counts: &findings.counts,
            findings: findings.kept.iter().map(|it| told(it, findings)).collect(),
            against: against.compared().map(ComparisonReport::of),
            against_error: against.error(),
            elapsed_seconds: elapsed.as_secs_f64(),
        }
    }
}

fn told<'a>(finding: &'a Finding, findings: &Findings) -> Told<'a> {
    Told {
        file: findings.name(finding.kind.file()),
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

fn verdict(verified: &Verified) -> &'static str {
    match verified.content {
        SlaveContent::Missing | SlaveContent::TooShort => "no-slave",
        _ if verified.damages > 0 => "damaged",
        _ if verified.blemishes > 0 => "blemished",
        _ => "sound",
    }
}
