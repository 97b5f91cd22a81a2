//! The text output of `fssync verify`: one fact per line, the findings, and the verdict in the last
//! line.

use std::fmt::Write;

use fssync::filestorage::Tid;
use fssync::human::{bytes, count};
use fssync::slave::presence::Presence;
use fssync::verify::against::Attempt;
use fssync::verify::finding::{File, Finding, Severity};
use fssync::verify::report::Findings;
use fssync::verify::{DigestState, IndexState, SlaveContent, UnfinishedTail, Verified};

use super::{against, blobs};
use crate::cli::lines::{Emphasis, Lines, NEVER_SYNCED, SET_ASIDE};

/// The lines of a verification.
pub(super) fn of(verified: &Verified, findings: &Findings, attempt: Option<&Attempt>) -> Lines {
    let mut lines = Lines::for_stdout();
    lines.add(
        "slave",
        Emphasis::Plain,
        &verified.slave.display().to_string(),
    );
    match verified.presence {
        Presence::Synced => {}
        _ if findings.are_of_set_aside() => lines.add("passes", Emphasis::Plain, SET_ASIDE),
        _ => lines.add("passes", Emphasis::Warning, NEVER_SYNCED),
    }
    if verified.content == SlaveContent::FileStorage {
        add_facts(&mut lines, verified);
    }
    if let Some(verified) = &verified.blobs {
        blobs::add_to(&mut lines, verified);
    }
    add_findings(&mut lines, findings);
    if let Some(attempt) = attempt {
        against::add_to(&mut lines, attempt);
    }
    let emphasis = match verified.exit_with(attempt) as u8 {
        0 if verified.blemishes == 0 => Emphasis::Good,
        0 => Emphasis::Warning,
        _ => Emphasis::Bad,
    };
    lines.conclude("", emphasis, &verdict(verified, attempt));
    lines
}

/// Adds a line for each fact about the slave.
fn add_facts(lines: &mut Lines, verified: &Verified) {
    let checked = format!(
        "{}, {}, {}",
        count(verified.transactions, "transaction"),
        count(verified.records, "data record"),
        count(verified.objects, "object")
    );
    lines.add("whole", Emphasis::Plain, &checked);
    lines.add("read", Emphasis::Plain, &bytes(verified.bytes));
    let position = format!("{} ({})", verified.position, bytes(verified.position));
    lines.add("position", Emphasis::Plain, &position);
    let last = verified.last_tid.map_or("none".to_owned(), Tid::with_time);
    lines.add("last tid", Emphasis::Plain, &last);
    let unfinished = match verified.unfinished {
        None => "nothing".to_owned(),
        Some(UnfinishedTail {
            bytes: len,
            is_ours,
        }) => {
            let of = if is_ours { " of an append" } else { "" };
            format!("{}{of}, which ZODB truncates", bytes(len))
        }
    };
    lines.add("unfinished", Emphasis::Plain, &unfinished);
    let (emphasis, digests) = match verified.digests {
        DigestState::Skipped => (Emphasis::Plain, "not compared".to_owned()),
        DigestState::NoLedger => (
            Emphasis::Warning,
            "there is no ledger of this file".to_owned(),
        ),
        DigestState::Compared(len) if len >= verified.position => {
            (Emphasis::Plain, "all bytes compared".to_owned())
        }
        DigestState::Compared(len) => {
            let without = bytes(verified.position - len);
            (
                Emphasis::Warning,
                format!("{} compared, {without} have none", bytes(len)),
            )
        }
    };
    lines.add("digests", emphasis, &digests);
    let (emphasis, index) = match &verified.index {
        IndexState::Missing => (Emphasis::Warning, "missing".to_owned()),
        IndexState::Sound(at) => (Emphasis::Plain, format!("sound, up to position {at}")),
        IndexState::Wrong => (Emphasis::Bad, "WRONG, and ZODB would use it".to_owned()),
        IndexState::Unused(why) => (Emphasis::Warning, format!("ignored by ZODB: {why}")),
        IndexState::Unknown(why) => (Emphasis::Warning, format!("not compared: {why}")),
    };
    lines.add("index", emphasis, &index);
}

/// Adds the findings, with advice after the first of several of the same kind.
fn add_findings(lines: &mut Lines, findings: &Findings) {
    let mut advised = None;
    for finding in findings.kept() {
        add_finding(lines, finding, findings);
        if advised != Some(finding.kind) {
            lines.add(
                "",
                Emphasis::Plain,
                &format!("to do: {}", findings.advice(finding.kind)),
            );
        }
        advised = Some(finding.kind);
    }
    for (kind, count) in findings.left_out() {
        lines.add(
            "",
            Emphasis::Plain,
            &format!("and {count} more of the kind {}", kind.as_str()),
        );
    }
}

/// Adds two lines: the place of the fault, and the expected and actual content.
fn add_finding(lines: &mut Lines, finding: &Finding, findings: &Findings) {
    let (what, emphasis) = match finding.kind.severity() {
        Severity::Damage => ("DAMAGE", Emphasis::Bad),
        Severity::Blemish => ("blemish", Emphasis::Warning),
    };
    let mut place = match finding.kind.file() {
        File::Blob => findings.name(finding),
        _ => format!("{} at {}", findings.name(finding), finding.position),
    };
    if let Some(end) = finding.end {
        let _ = write!(place, " to {end}");
    }
    if let Some(tid) = finding.tid {
        let _ = write!(place, ", tid {}", tid.with_time());
    }
    if let Some(oid) = finding.oid {
        let _ = write!(place, ", oid {oid:016x}");
    }
    let Finding {
        expected, found, ..
    } = finding;
    lines.gap();
    lines.add(what, emphasis, &place);
    lines.add(
        "",
        Emphasis::Plain,
        &format!("expected {expected}, found {found}"),
    );
}

/// The result in one line.
pub(super) fn verdict(verified: &Verified, attempt: Option<&Attempt>) -> String {
    let mut verdict = own_verdict(verified);
    let compared = attempt.map(against::verdict);
    let blobs = verified.blobs.as_ref().and_then(blobs::verdict);
    for part in [compared, blobs].into_iter().flatten() {
        let _ = write!(verdict, "; {part}");
    }
    verdict
}

/// The verdict without the comparison with the master.
fn own_verdict(verified: &Verified) -> String {
    match verified.content {
        SlaveContent::Missing if verified.presence == Presence::Nothing => {
            format!("there is no such file; {NEVER_SYNCED}")
        }
        SlaveContent::Missing => "there is no such file, or it is empty".to_owned(),
        SlaveContent::TooShort => "it does not contain a whole transaction".to_owned(),
        SlaveContent::Foreign => "it is not a FileStorage".to_owned(),
        SlaveContent::FileStorage => match (verified.damages, verified.blemishes) {
            (0, 0) => "sound".to_owned(),
            (0, 1) => "sound, except for 1 blemish".to_owned(),
            (0, n) => format!("sound, except for {n} blemishes"),
            (n, _) if verified.blob_damages > 0 => format!(
                "DAMAGED: {}, {} of them in blobs",
                count(n, "finding"),
                verified.blob_damages
            ),
            (n, _) => format!("DAMAGED: {}", count(n, "finding")),
        },
    }
}
