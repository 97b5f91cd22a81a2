//! A status for people: one fact a line, and the effect of a failover in the last one.

use std::time::Duration;

use fssync::error::running::RunningPass;
use fssync::filestorage::Tid;
use fssync::human::{ago, bytes, count, span};
use fssync::plan::outcome::{Action, Exit};
use fssync::plan::{Continuity, SlaveState, SlaveTail, Storage};
use fssync::slave::presence::Presence;
use fssync::status::{
    BlobStatus, CopyProgress, FileTotals, IndexStatus, Lag, MasterComparison, ReplicatedBlobs,
    Status, Verdict, judge,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::cli::lines::{Emphasis, Lines, NEVER_SYNCED};

/// The lines of a status.
pub(super) fn of(status: &Status) -> Lines {
    let mut lines = Lines::for_stdout();
    lines.add(
        "slave",
        Emphasis::Plain,
        &status.slave.display().to_string(),
    );
    passes(&mut lines, status);
    slave(&mut lines, status);
    if let Some(comparison) = &status.comparison {
        master(&mut lines, comparison, status);
    }
    let judgement = judge(status);
    let emphasis = match judgement.verdict {
        Verdict::InSync => Emphasis::Good,
        Verdict::Behind | Verdict::Unknown | Verdict::Serving => Emphasis::Warning,
        Verdict::NoSlave | Verdict::Damaged | Verdict::Diverged | Verdict::Incomplete => {
            Emphasis::Bad
        }
    };
    lines.conclude("If you failed over now: ", emphasis, &judgement.line);
    lines
}

/// Why the exit code is not 0, on one line.
pub(super) fn trouble(status: &Status) -> String {
    if status.exit() != Exit::Stale {
        let next = status
            .comparison
            .as_ref()
            .map(|comparison| &comparison.next_pass);
        return match next {
            Some(next) if next.exit == status.exit() => next.reason.clone(),
            _ => judge(status).line,
        };
    }
    let last = match status.last_in_sync {
        None => "no pass has recorded when the slave was in sync".to_owned(),
        Some(time) => format!("the slave was last in sync {}", ago(time, status.time)),
    };
    let allowed = status.max_age.map_or_else(String::new, seconds);
    let why = match (&status.off, &status.last_pass) {
        (Some(off), _) => format!("syncing is off: {off}"),
        (None, Some(pass)) => format!(
            "the last pass ended with {}: {}",
            pass.exit_code, pass.reason
        ),
        (None, None) => "no pass is recorded".to_owned(),
    };
    format!("{last}, {allowed} are allowed; {why}")
}

/// A time that was given on the command line.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// Adds the lines about passes.
fn passes(lines: &mut Lines, status: &Status) {
    match &status.off {
        None => lines.add("syncing", Emphasis::Plain, "on"),
        Some(why) => lines.add("syncing", Emphasis::Warning, &format!("off: {why}")),
    }
    match &status.last_pass {
        None if status.presence != Presence::Synced => {
            lines.add("last pass", Emphasis::Warning, NEVER_SYNCED);
        }
        None => lines.add("last pass", Emphasis::Warning, "none is recorded"),
        Some(pass) => {
            let emphasis = match pass.exit_code {
                0 => Emphasis::Plain,
                _ => Emphasis::Bad,
            };
            let when = when(pass.time, status);
            let (action, code, reason) = (name(pass.action), pass.exit_code, &pass.reason);
            let fact = format!("{when}, {action}, exit code {code}: {reason}");
            lines.add("last pass", emphasis, &fact);
            if code != 0
                && let Some(since) = pass.since
            {
                lines.add("since", emphasis, &self::when(since, status));
            }
        }
    }
    let last = status
        .last_in_sync
        .map_or_else(|| "not recorded".to_owned(), |time| when(time, status));
    match status.max_age {
        Some(max_age) if status.is_stale() => {
            let fact = format!("{last}: OUT OF DATE, {} are allowed", seconds(max_age));
            lines.add("last in sync", Emphasis::Bad, &fact);
        }
        _ if status.last_in_sync.is_none() => lines.add("last in sync", Emphasis::Warning, &last),
        _ => lines.add("last in sync", Emphasis::Plain, &last),
    }
    if let Some(copy) = status.copy {
        lines.add("full copy", Emphasis::Warning, &copying(copy, status));
    }
    match &status.pass {
        None => lines.add("pass now", Emphasis::Plain, "none"),
        Some(running) => {
            let emphasis = match running.warning() {
                None => Emphasis::Plain,
                Some(_) => Emphasis::Warning,
            };
            lines.add("pass now", emphasis, &at_work(running));
        }
    }
}

/// The process of the running pass, and its age.
fn at_work(running: &RunningPass) -> String {
    let pid = running.pid.unwrap_or_default();
    let age = running.age.map(|age| format!(", for {}", span(age)));
    let warning = running.warning().map(|warning| format!("; {warning}"));
    format!(
        "process {pid}{}{}",
        age.unwrap_or_default(),
        warning.unwrap_or_default()
    )
}

/// The progress of a full copy.
fn copying(copy: CopyProgress, status: &Status) -> String {
    let (done, total) = (bytes(copy.done), bytes(copy.total));
    let rest = match (copy.left, &status.pass) {
        (Some(left), _) => format!(", about {} left", span(left)),
        (None, Some(_)) => String::new(),
        (None, None) => ", interrupted: the next pass resumes it".to_owned(),
    };
    format!("{done} of {total} ({} %){rest}", copy.percent())
}

/// Adds the lines about the slave.
fn slave(lines: &mut Lines, status: &Status) {
    match status.zodb_pid {
        None => lines.add("in use", Emphasis::Plain, "no"),
        Some(pid) => {
            let fact = format!("process {pid} has opened it and holds ZODB's lock");
            lines.add("in use", Emphasis::Warning, &fact);
        }
    }
    match &status.state {
        SlaveState::Missing => {
            lines.add(
                "holds",
                Emphasis::Bad,
                "there is no such file, or it is empty",
            );
        }
        SlaveState::Short { size, .. } => {
            let fact = format!("{}, not a whole transaction", bytes(*size));
            lines.add("holds", Emphasis::Bad, &fact);
        }
        SlaveState::Foreign => lines.add("holds", Emphasis::Bad, "not a FileStorage"),
        SlaveState::Damaged(damage) => {
            lines.add("holds", Emphasis::Bad, &format!("damage: {damage}"));
        }
        SlaveState::Storage(slave) => storage(lines, slave, status),
    }
    let (emphasis, fact) = blobs(status);
    lines.add("blobs", emphasis, &fact);
    verified(lines, status);
    file_totals(lines, "set aside", status.set_aside);
    file_totals(lines, "cut tails", status.cut_tails);
}

fn storage(lines: &mut Lines, slave: &Storage, status: &Status) {
    let (emphasis, left) = match slave.continuity {
        Continuity::Unknown => (Emphasis::Warning, "not recorded by a pass".to_owned()),
        Continuity::Changed => (Emphasis::Warning, "changed since the last pass".to_owned()),
        Continuity::UpTo(left) if left < slave.position => {
            let grown = bytes(slave.position - left);
            (
                Emphasis::Warning,
                format!("{grown} more than the last pass recorded"),
            )
        }
        Continuity::UpTo(_) => (Emphasis::Plain, "unchanged since the last pass".to_owned()),
    };
    let fact = format!("{} ({}), {left}", slave.position, bytes(slave.position));
    lines.add("position", emphasis, &fact);
    let fact = match status.last_tid {
        None => "none".to_owned(),
        Some(tid) => {
            let age = tid.time().map(|time| ago(time, status.time));
            let age = age.map_or_else(String::new, |age| format!(", {age}"));
            Tid::with_time(tid) + &age
        }
    };
    lines.add("last tid", Emphasis::Plain, &fact);
    let unfinished = match slave.tail {
        SlaveTail::None => "nothing".to_owned(),
        SlaveTail::Ours(len) => format!("{} of an append", bytes(len)),
        SlaveTail::Foreign(len) => format!("{} that no pass has recorded", bytes(len)),
    };
    let emphasis = match slave.tail {
        SlaveTail::None => Emphasis::Plain,
        SlaveTail::Ours(_) | SlaveTail::Foreign(_) => Emphasis::Warning,
    };
    lines.add("unfinished", emphasis, &unfinished);
    let scanned = bytes(status.index.scan_bytes(slave.position));
    let (emphasis, index) = match status.index {
        IndexStatus::UpTo(_) => (Emphasis::Plain, "usable"),
        IndexStatus::Unusable => (Emphasis::Warning, "of another file"),
        IndexStatus::Missing => (Emphasis::Warning, "missing"),
    };
    lines.add("index", emphasis, &format!("{index}, ZODB reads {scanned}"));
}

/// The blobs: their number, which transactions have them, and which are missing.
fn blobs(status: &Status) -> (Emphasis, String) {
    let blobs = match &status.blobs {
        BlobStatus::NoneMet => return (Emphasis::Plain, "no pass has met one".to_owned()),
        BlobStatus::NotReplicated => {
            let fact = "NOT replicated: passes copy only Data.fs".to_owned();
            return (Emphasis::Warning, fact);
        }
        BlobStatus::Unrecorded(directory) => {
            let directory = directory.display();
            let fact = format!("not recorded, in {directory}: a pass with --blobs looks for each");
            return (Emphasis::Warning, fact);
        }
        BlobStatus::Replicated(blobs) => blobs,
    };
    if let Some(problem) = &blobs.problem {
        return (Emphasis::Bad, problem.clone());
    }
    let (emphasis, complete) = completeness(blobs, status.position().unwrap_or_default());
    let (files, size) = (count(blobs.files, "file"), bytes(blobs.bytes));
    let absent = match blobs.absent {
        0 => String::new(),
        number => format!("; the master lacks {number}"),
    };
    let kept = match blobs.to_remove {
        0 => String::new(),
        number => format!("; {number} that a pack has removed at the master are kept for now"),
    };
    (
        emphasis,
        format!("{files}, {size}; {complete}{absent}{kept}"),
    )
}

/// Which transactions of a slave that ends at `position` have their blobs.
fn completeness(blobs: &ReplicatedBlobs, position: u64) -> (Emphasis, String) {
    let Some(gap) = blobs.gap else {
        return (Emphasis::Plain, "all transactions have theirs".to_owned());
    };
    let percent = u128::from(gap.from) * 100 / u128::from(position.max(1));
    let state = if gap.is_recheck {
        "compared again"
    } else {
        "complete"
    };
    let and_from = if gap.to < position {
        format!(", and from position {} on", gap.to)
    } else {
        String::new()
    };
    let fact = format!("{state} up to {percent} % of {}{and_from}", bytes(position));
    (Emphasis::Warning, fact)
}

/// The last verification.
fn verified(lines: &mut Lines, status: &Status) {
    let Some(record) = &status.verified else {
        lines.add("verified", Emphasis::Plain, "not recorded for this file");
        return;
    };
    let emphasis = match record.exit_code {
        0 => Emphasis::Plain,
        _ if record.is_damaged() => Emphasis::Bad,
        _ => Emphasis::Warning,
    };
    let quick = if record.quick { ", --quick" } else { "" };
    let when = when(record.time, status);
    let (code, verdict) = (record.exit_code, &record.verdict);
    let fact = format!("{when}{quick}, exit code {code}: {verdict}");
    lines.add("verified", emphasis, &fact);
}

fn file_totals(lines: &mut Lines, what: &str, file_totals: FileTotals) {
    let fact = match file_totals.files {
        0 => "none".to_owned(),
        n => format!("{}, {}", count(n, "file"), bytes(file_totals.bytes)),
    };
    lines.add(what, Emphasis::Plain, &fact);
}

/// Adds the lines about the master.
fn master(lines: &mut Lines, comparison: &MasterComparison, status: &Status) {
    lines.add("master", Emphasis::Plain, &comparison.master);
    let (emphasis, fact) = match comparison.lag {
        None => (Emphasis::Warning, "unknown".to_owned()),
        Some(Lag {
            transactions: 0, ..
        }) => (Emphasis::Good, "none".to_owned()),
        Some(lag) => {
            let transactions = count(lag.transactions, "transaction");
            let since = lag.since.map_or_else(String::new, |since| {
                format!(", {}", span(status.time.duration_since(since)))
            });
            let blobs = match lag.blobs {
                None | Some(0) => String::new(),
                Some(number) => format!(" with {}", count(number, "blob")),
            };
            let fact = format!("{transactions}{blobs}, {}{since}", bytes(lag.bytes));
            (Emphasis::Warning, fact)
        }
    };
    lines.add("lag", emphasis, &fact);
    let next = &comparison.next_pass;
    let emphasis = match next.exit {
        Exit::Success => Emphasis::Plain,
        _ => Emphasis::Bad,
    };
    let off = match status.off {
        Some(_) => ", once syncing is on",
        None => "",
    };
    let (action, code) = (name(next.action), next.exit as u8);
    let is_known = (status.last_pass.as_ref()).is_some_and(|last| last.reason == next.reason);
    let reason = if is_known {
        "for the same reason as the last pass"
    } else {
        &next.reason
    };
    let fact = format!("{action}, exit code {code}{off}: {reason}");
    lines.add("next pass", emphasis, &fact);
    if let Some(hint) = &next.hint {
        lines.add("hint", Emphasis::Plain, hint);
    }
    for warning in &comparison.warnings {
        lines.add("warning", Emphasis::Bad, warning);
    }
}

/// A time, and how long ago it was.
fn when(time: Timestamp, status: &Status) -> String {
    format!("{time:.0}, {}", ago(time, status.time))
}

/// An action as `--json` calls it.
fn name(action: Action) -> String {
    match serde_json::to_value(action) {
        Ok(Value::String(name)) => name,
        _ => format!("{action:?}"),
    }
}
