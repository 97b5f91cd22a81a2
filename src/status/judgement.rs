//! Derives the effect of a failover from a status. Pure: no I/O and no clock.

use serde::Serialize;

use super::{BlobStatus, Lag, Status};
use crate::filestorage::MAGIC_LEN;
use crate::human::{ago, bytes, count, span};
use crate::plan::outcome::Exit;
use crate::plan::{SlaveState, SlaveTail, Storage};
use crate::source::Stray;

/// The effect of a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// There is no slave to fail over to.
    NoSlave,
    /// ZODB cannot open the slave, or the last verification found damage in it.
    Damaged,
    /// The failover is done: a program has opened the slave.
    Serving,
    /// The slave is not a copy of the master. A person must decide.
    Diverged,
    /// Blobs would be missing: their directory is not there, or some were not copied yet.
    Incomplete,
    /// Nothing would be lost.
    InSync,
    /// The last transactions would be lost.
    Behind,
    /// The loss is unknown.
    Unknown,
}

/// The verdict, and its text after "If you failed over now:".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The effect, on one line.
    pub line: String,
}

/// The effect of serving the slave now.
#[must_use]
pub fn judge(status: &Status) -> Judgement {
    let storage = match &status.state {
        SlaveState::Missing | SlaveState::Short { .. } => {
            return judgement(Verdict::NoSlave, no_slave(status));
        }
        SlaveState::Storage(storage) if storage.position == MAGIC_LEN => {
            return judgement(Verdict::NoSlave, no_slave(status));
        }
        SlaveState::Foreign => {
            let line = "ZODB cannot open the slave: it is not a FileStorage".to_owned();
            return judgement(Verdict::Damaged, line);
        }
        SlaveState::Damaged(damage) => {
            let line = format!("ZODB cannot open the slave: {damage}");
            return judgement(Verdict::Damaged, line);
        }
        SlaveState::Storage(storage) => storage,
    };
    if let Some(pid) = status.zodb_pid {
        let mut line = format!("process {pid} has already opened the slave");
        if let Some(problem) = status.blob_problem() {
            line += "; its blobs are missing: ";
            line += problem;
        }
        return judgement(Verdict::Serving, line);
    }
    if let Some(record) = status.found_damage() {
        let when = ago(record.time, status.time);
        let line = format!(
            "ZODB opens the slave, but `fssync verify` found damage {when}: {}",
            record.verdict
        );
        return judgement(Verdict::Damaged, line);
    }
    let (mut verdict, mut line) = loss(status);
    if let Some(missing) = missing_blobs(status, storage) {
        if verdict == Verdict::InSync {
            "no transaction would be lost".clone_into(&mut line);
        }
        line = format!("{missing}; {line}");
        if verdict != Verdict::Diverged {
            verdict = Verdict::Incomplete;
        }
    }
    if status.blobs == BlobStatus::NotReplicated {
        line += "; blobs are NOT replicated";
    }
    for work in preparations(status, storage) {
        line += "; ";
        line += &work;
    }
    judgement(verdict, line)
}

/// Why there is nothing to serve.
fn no_slave(status: &Status) -> String {
    match (status.copy, &status.state) {
        (Some(copy), _) => {
            let percent = copy.percent();
            format!("there is no slave to serve yet: {percent} % is copied")
        }
        // The first pass that copies blobs puts such a slave in place before it copies the rest.
        (None, SlaveState::Short { magic: true, .. } | SlaveState::Storage(_)) => {
            "there is no slave to serve yet: the first copy is not complete".to_owned()
        }
        (None, _) => "there is no slave to serve".to_owned(),
    }
}

/// The blobs that ZODB would not find, apart from those that the master lacks.
fn missing_blobs(status: &Status, storage: &Storage) -> Option<String> {
    let blobs = match &status.blobs {
        BlobStatus::NoneMet | BlobStatus::NotReplicated => return None,
        BlobStatus::Unrecorded(directory) => {
            let directory = directory.display();
            return Some(format!(
                "blobs may be missing, since no pass has recorded those in {directory}"
            ));
        }
        BlobStatus::Replicated(blobs) => blobs,
    };
    if let Some(problem) = &blobs.problem {
        return Some(format!("all blobs would be missing: {problem}"));
    }
    let gap = blobs.gap?;
    if let Some(missing) = gap.missing {
        let at_most = if missing.is_upper_bound { "up to " } else { "" };
        let number = count(missing.count, "blob");
        return Some(format!("{at_most}{number} would be missing"));
    }
    let (risk, work) = if gap.is_recheck {
        ("may be wrong or missing", "being compared again")
    } else {
        ("may be missing", "not copied yet")
    };
    let (len, position) = (bytes(gap.bytes()), bytes(storage.position));
    Some(format!(
        "blobs {risk}: those of {len} of {position} of transactions are {work}"
    ))
}

fn judgement(verdict: Verdict, line: String) -> Judgement {
    Judgement { verdict, line }
}

/// The transactions that would be lost.
fn loss(status: &Status) -> (Verdict, String) {
    let Some(comparison) = &status.comparison else {
        let line = unknown("the master was not queried", status);
        return (Verdict::Unknown, line);
    };
    let next = &comparison.next_pass;
    if let Some(Stray { pid, .. }) = comparison.strays.first() {
        let why = format!("process {pid} writes to a file that is no longer the master");
        return (Verdict::Unknown, unknown(&why, status));
    }
    match (comparison.lag, next.exit) {
        (Some(lag), Exit::MasterDamaged) => {
            let line = format!(
                "{}, as far as the master can be read: {}",
                lost(lag, status),
                next.reason
            );
            (behind(lag), line)
        }
        (Some(lag), _) => (behind(lag), lost(lag, status)),
        (None, Exit::Unreachable) => {
            let line = unknown("the master is unreachable", status);
            (Verdict::Unknown, line)
        }
        (None, _) => {
            let line = "the slave is not a copy of the master: a person must decide".to_owned();
            (Verdict::Diverged, line)
        }
    }
}

fn behind(lag: Lag) -> Verdict {
    match lag.transactions {
        0 => Verdict::InSync,
        _ => Verdict::Behind,
    }
}

fn lost(lag: Lag, status: &Status) -> String {
    let (transactions, size) = (count(lag.transactions, "transaction"), bytes(lag.bytes));
    let blobs = match lag.blobs {
        None | Some(0) => String::new(),
        Some(number) => format!(" with {}", count(number, "blob")),
    };
    if lag.transactions == 0 {
        return "nothing would be lost".to_owned();
    }
    let since = lag.since.map_or_else(String::new, |since| {
        let elapsed = status.time.duration_since(since);
        match elapsed.as_secs() {
            ..1 => ", of the last second".to_owned(),
            _ => format!(", of the last {}", span(elapsed)),
        }
    });
    format!("{transactions}{blobs}, {size}{since}, would be lost")
}

fn unknown(why: &str, status: &Status) -> String {
    let last = match status.last_in_sync {
        Some(time) => format!("it was in sync {}", ago(time, status.time)),
        None => "no pass has recorded when the two were in sync".to_owned(),
    };
    format!("the loss is unknown, since {why}; {last}")
}

/// The work on the slave before it can be served.
fn preparations(status: &Status, storage: &Storage) -> impl Iterator<Item = String> {
    let cut = match storage.tail {
        SlaveTail::None => None,
        SlaveTail::Ours(len) => Some(format!(
            "an unfinished append of {} is truncated, by `fssync off` or by ZODB",
            bytes(len)
        )),
        SlaveTail::Foreign(len) => Some(format!(
            "an unfinished tail of {} is truncated by ZODB, which keeps a copy",
            bytes(len)
        )),
    };
    let scan_bytes = status.index.scan_bytes(storage.position);
    let scanned = (scan_bytes > 0).then(|| format!("ZODB first reads {}", bytes(scan_bytes)));
    cut.into_iter().chain(scanned)
}

#[cfg(test)]
mod tests;
