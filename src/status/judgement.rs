//! What a failover would cost at this moment, judged from the facts alone: no
//! path, no clock, no handle.

use serde::Serialize;

use super::{Lag, Status};
use crate::human::{ago, bytes, count, span};
use crate::plan::outcome::Exit;
use crate::plan::{SlaveState, SlaveTail, Storage};
use crate::source::Stray;

/// How a failover would end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// There is no slave to fail over to.
    NoSlave,
    /// ZODB would not open the slave, or the last verification found damage in it.
    Damaged,
    /// It is done: the slave is open already.
    Serving,
    /// The slave is no copy of the master: a person must decide.
    Diverged,
    /// Nothing would be lost.
    InSync,
    /// The last transactions would be lost.
    Behind,
    /// What would be lost is not known.
    Unknown,
}

/// The verdict, in words that go on from "if you failed over now:".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What would happen, in one line.
    pub line: String,
}

/// Judges what would happen if the slave were served now.
#[must_use]
pub fn judge(status: &Status) -> Judgement {
    let storage = match &status.state {
        SlaveState::Missing | SlaveState::Short { .. } => {
            let line = match status.copy {
                None => "there is no slave to serve".to_owned(),
                Some(copy) => format!(
                    "there is no slave to serve yet: {} % of it are copied",
                    copy.percent()
                ),
            };
            return said(Verdict::NoSlave, line);
        }
        SlaveState::Foreign => {
            let line = "ZODB would not open the slave: it is no FileStorage".to_owned();
            return said(Verdict::Damaged, line);
        }
        SlaveState::Damaged(damage) => {
            let line = format!("ZODB would not open the slave: {damage}");
            return said(Verdict::Damaged, line);
        }
        SlaveState::Storage(storage) => storage,
    };
    if let Some(pid) = status.zodb_pid {
        let line = format!("process {pid} has opened the slave already");
        return said(Verdict::Serving, line);
    }
    if let Some(record) = status.found_damage() {
        let when = ago(record.time, status.time);
        let line = format!(
            "ZODB opens the slave, but `fssync verify` found damage {when}: {}",
            record.verdict
        );
        return said(Verdict::Damaged, line);
    }
    let (verdict, mut line) = loss(status);
    for work in first(status, storage) {
        line += "; ";
        line += &work;
    }
    said(verdict, line)
}

fn said(verdict: Verdict, line: String) -> Judgement {
    Judgement { verdict, line }
}

/// What of the master would be lost.
fn loss(status: &Status) -> (Verdict, String) {
    let Some(comparison) = &status.comparison else {
        let line = unknown("the master was not asked", status);
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
    format!("{transactions}, {size}{since}, would be lost")
}

fn unknown(why: &str, status: &Status) -> String {
    let last = match status.last_in_sync {
        Some(time) => format!("it was in sync {}", ago(time, status.time)),
        None => "no pass has noted when the two were in sync".to_owned(),
    };
    format!("what would be lost is not known, as {why}; {last}")
}

/// What is done to the slave before it is served.
fn first(status: &Status, storage: &Storage) -> impl Iterator<Item = String> {
    let cut = match storage.tail {
        SlaveTail::None => None,
        SlaveTail::Ours(len) => Some(format!(
            "an unfinished append of {} is cut, by `fssync off` or by ZODB",
            bytes(len)
        )),
        SlaveTail::Foreign(len) => Some(format!(
            "an unfinished tail of {} is cut by ZODB, which keeps it",
            bytes(len)
        )),
    };
    let scan_bytes = status.index.scan_bytes(storage.position);
    let scanned = (scan_bytes > 0).then(|| format!("ZODB first reads {}", bytes(scan_bytes)));
    cut.into_iter().chain(scanned)
}

#[cfg(test)]
mod tests;
