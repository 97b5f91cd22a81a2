//! The object that `fssync status --json` prints. Its keys are a stable interface.

use crate::filestorage::Tid;
use crate::plan::outcome::Action;
use crate::plan::{Continuity, SlaveState, SlaveTail};
use crate::slave::sidecar::Pass;
use crate::status::{BlobStatus, IndexStatus, ReplicatedBlobs, State, Status, Verdict, judge};
use jiff::Timestamp;
use serde::Serialize;

/// A status as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct JsonReport {
    /// The storage's name, if it has one from a configuration file.
    storage: Option<String>,
    master: Option<String>,
    slave: String,
    exit_code: u8,
    time: Timestamp,
    replication: State,
    verdict: Verdict,
    failover: String,
    syncing: &'static str,
    off_reason: Option<String>,
    pass_time: Option<Timestamp>,
    pass_age_seconds: Option<f64>,
    pass_action: Option<Action>,
    pass_exit_code: Option<u8>,
    pass_reason: Option<String>,
    pass_hint: Option<String>,
    pass_since: Option<Timestamp>,
    pass_duration_seconds: Option<f64>,
    in_sync_time: Option<Timestamp>,
    in_sync_age_seconds: Option<f64>,
    max_age_seconds: Option<f64>,
    stale: Option<bool>,
    pass_pid: Option<u32>,
    pass_running_seconds: Option<f64>,
    zodb_pid: Option<u32>,
    copy_bytes: Option<u64>,
    copy_total_bytes: Option<u64>,
    copy_seconds_left: Option<f64>,
    state: &'static str,
    left: &'static str,
    size: u64,
    position: Option<u64>,
    last_tid: Option<Tid>,
    last_tid_time: Option<Timestamp>,
    last_tid_age_seconds: Option<f64>,
    unfinished_bytes: u64,
    index: &'static str,
    scan_bytes: Option<u64>,
    blobs_replicated: Option<bool>,
    blob_directory: Option<String>,
    blob_problem: Option<String>,
    blobs: Option<u64>,
    blob_bytes: Option<u64>,
    blobs_complete: Option<bool>,
    blobs_pending_bytes: Option<u64>,
    blobs_missing: Option<u64>,
    blobs_absent: Option<u64>,
    blobs_to_remove: Option<u64>,
    verify_time: Option<Timestamp>,
    verify_age_seconds: Option<f64>,
    verify_quick: Option<bool>,
    verify_exit_code: Option<u8>,
    verify_damages: Option<u64>,
    verify_blob_damages: Option<u64>,
    verify_verdict: Option<String>,
    set_aside_files: u64,
    set_aside_bytes: u64,
    cut_tail_files: u64,
    cut_tail_bytes: u64,
    lag_seconds: Option<f64>,
    lag_transactions: Option<u64>,
    lag_bytes: Option<u64>,
    lag_blobs: Option<u64>,
    next_action: Option<Action>,
    next_exit_code: Option<u8>,
    next_reason: Option<String>,
    warnings: Vec<String>,
}

impl JsonReport {
    /// The report of a status.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let age = |time: Timestamp| status.time.duration_since(time).as_secs_f64();
        let pass = status.last_pass.as_ref();
        let running = status.pass.as_ref();
        let next = status
            .comparison
            .as_ref()
            .map(|comparison| &comparison.next_pass);
        let lag = status
            .comparison
            .as_ref()
            .and_then(|comparison| comparison.lag);
        let left_of_copy = status.copy.and_then(|copy| copy.left);
        let verified = status.verified.as_ref();
        let blobs = status.blobs.replicated();
        let judgement = judge(status);
        let last_tid_time = status.last_tid.and_then(Tid::time);
        Self {
            storage: None,
            master: status.comparison.as_ref().map(|asked| asked.master.clone()),
            slave: status.slave.display().to_string(),
            exit_code: status.exit() as u8,
            time: status.time,
            replication: State::of(status),
            verdict: judgement.verdict,
            failover: judgement.line,
            syncing: if status.off.is_some() { "off" } else { "on" },
            off_reason: status.off.as_ref().map(ToString::to_string),
            pass_time: pass.map(|pass| pass.time),
            pass_age_seconds: pass.map(|pass| age(pass.time)),
            pass_action: pass.map(|pass| pass.action),
            pass_exit_code: pass.map(|pass| pass.exit_code),
            pass_reason: pass.map(|pass| pass.reason.clone()),
            pass_hint: pass.and_then(|pass| pass.hint.clone()),
            pass_since: pass.and_then(|pass| pass.since),
            pass_duration_seconds: pass
                .and_then(Pass::elapsed)
                .map(|elapsed| elapsed.as_secs_f64()),
            in_sync_time: status.last_in_sync,
            in_sync_age_seconds: status.last_in_sync.map(age),
            max_age_seconds: status.max_age.map(|max_age| max_age.as_secs_f64()),
            stale: status.max_age.map(|_| status.is_stale()),
            pass_pid: running.and_then(|running| running.pid),
            pass_running_seconds: running
                .and_then(|running| running.age)
                .map(|age| age.as_secs_f64()),
            zodb_pid: status.zodb_pid,
            copy_bytes: status.copy.map(|copy| copy.done),
            copy_total_bytes: status.copy.map(|copy| copy.total),
            copy_seconds_left: left_of_copy.map(|left| left.as_secs_f64()),
            state: state(&status.state),
            left: left(&status.state),
            size: status.size,
            position: status.position(),
            last_tid: status.last_tid,
            last_tid_time,
            last_tid_age_seconds: last_tid_time.map(age),
            unfinished_bytes: unfinished(&status.state),
            index: index(status.index),
            scan_bytes: status.position().map(|at| status.index.scan_bytes(at)),
            blobs_replicated: is_replicated(&status.blobs),
            blob_directory: blob_directory(&status.blobs),
            blob_problem: status.blob_problem().map(str::to_owned),
            blobs: blobs.map(|blobs| blobs.files),
            blob_bytes: blobs.map(|blobs| blobs.bytes),
            blobs_complete: blobs.map(|blobs| blobs.problem.is_none() && blobs.gap.is_none()),
            blobs_pending_bytes: blobs.map(|blobs| blobs.gap.map_or(0, |gap| gap.bytes())),
            blobs_missing: blobs.and_then(ReplicatedBlobs::missing),
            blobs_absent: blobs.map(|blobs| blobs.absent),
            blobs_to_remove: blobs.map(|blobs| blobs.to_remove),
            verify_time: verified.map(|record| record.time),
            verify_age_seconds: verified.map(|record| age(record.time)),
            verify_quick: verified.map(|record| record.quick),
            verify_exit_code: verified.map(|record| record.exit_code),
            verify_damages: verified.map(|record| record.damages),
            verify_blob_damages: verified.map(|record| record.blob_damages),
            verify_verdict: verified.map(|record| record.verdict.clone()),
            set_aside_files: status.set_aside.files,
            set_aside_bytes: status.set_aside.bytes,
            cut_tail_files: status.cut_tails.files,
            cut_tail_bytes: status.cut_tails.bytes,
            lag_seconds: lag.map(|lag| lag.since.map_or(0.0, |since| age(since).max(0.0))),
            lag_transactions: lag.map(|lag| lag.transactions),
            lag_bytes: lag.map(|lag| lag.bytes),
            lag_blobs: lag.and_then(|lag| lag.blobs),
            next_action: next.map(|next| next.action),
            next_exit_code: next.map(|next| next.exit as u8),
            next_reason: next.map(|next| next.reason.clone()),
            warnings: asked_warnings(status),
        }
    }

    /// The same report with the storage's name.
    #[must_use]
    pub fn of_storage(self, name: &str) -> Self {
        let storage = Some(name.to_owned());
        Self { storage, ..self }
    }
}

fn asked_warnings(status: &Status) -> Vec<String> {
    let comparison = status.comparison.as_ref();
    comparison.map_or_else(Vec::new, |comparison| comparison.warnings.clone())
}

fn state(slave: &SlaveState) -> &'static str {
    match slave {
        SlaveState::Missing => "missing",
        SlaveState::Short { .. } => "short",
        SlaveState::Foreign => "foreign",
        SlaveState::Damaged(_) => "damaged",
        SlaveState::Storage(_) => "ok",
    }
}

/// How the slave has changed since the last pass.
fn left(slave: &SlaveState) -> &'static str {
    match slave {
        SlaveState::Storage(slave) => match slave.continuity {
            Continuity::UpTo(position) if position < slave.position => "grown",
            Continuity::UpTo(_) => "same",
            Continuity::Changed => "changed",
            Continuity::Unknown => "unknown",
        },
        _ => "unknown",
    }
}

fn unfinished(slave: &SlaveState) -> u64 {
    match slave {
        SlaveState::Storage(slave) => match slave.tail {
            SlaveTail::None => 0,
            SlaveTail::Ours(len) | SlaveTail::Foreign(len) => len,
        },
        _ => 0,
    }
}

/// Whether passes copy blobs; `None` if no pass has met one.
fn is_replicated(blobs: &BlobStatus) -> Option<bool> {
    match blobs {
        BlobStatus::NoneMet => None,
        BlobStatus::NotReplicated => Some(false),
        BlobStatus::Unrecorded(_) | BlobStatus::Replicated(_) => Some(true),
    }
}

fn blob_directory(blobs: &BlobStatus) -> Option<String> {
    match blobs {
        BlobStatus::NoneMet | BlobStatus::NotReplicated => None,
        BlobStatus::Unrecorded(directory) => Some(directory.display().to_string()),
        BlobStatus::Replicated(blobs) => Some(blobs.directory.display().to_string()),
    }
}

fn index(index: IndexStatus) -> &'static str {
    match index {
        IndexStatus::Missing => "missing",
        IndexStatus::Unusable => "unusable",
        IndexStatus::UpTo(_) => "usable",
    }
}
