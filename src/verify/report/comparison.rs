//! The part of the JSON object about the comparison with a master.

use jiff::Timestamp;
use serde::Serialize;

use crate::filestorage::Tid;
use crate::plan::outcome::Exit;
use crate::verify::against::{Comparison, TransactionList, TransactionRef, TransactionSpan};

/// A comparison with a master. Its keys are API.
#[derive(Debug, Serialize)]
pub(super) struct ComparisonReport<'a> {
    verdict: &'static str,
    same_file: Option<bool>,
    compared_bytes: u64,
    equal_bytes: u64,
    unsearched_bytes: u64,
    master_size: u64,
    magic_differs: bool,
    ahead: Group<'a>,
    elsewhere: Group<'a>,
    differing: Group<'a>,
    slave_only: Group<'a>,
    master_only: Group<'a>,
    halted: Option<EarlyStopReport>,
    master_damage: Option<String>,
    advice: Option<&'static str>,
}

/// A group of transactions.
#[derive(Debug, Serialize)]
struct Group<'a> {
    count: u64,
    bytes: u64,
    first_tid: Option<Tid>,
    last_tid: Option<Tid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<Vec<Transaction<'a>>>,
}

/// A transaction of a group.
#[derive(Debug, Serialize)]
struct Transaction<'a> {
    position: u64,
    length: u64,
    tid: Tid,
    time: Option<Timestamp>,
    user: Option<&'a str>,
    description: Option<&'a str>,
}

/// The point at which the comparison of transactions stopped.
#[derive(Debug, Serialize)]
struct EarlyStopReport {
    slave_position: u64,
    master_position: u64,
    reason: String,
}

impl<'a> ComparisonReport<'a> {
    pub(super) fn of(comparison: &'a Comparison) -> Self {
        Self {
            verdict: match comparison.exit() {
                Exit::Diverged => "diverged",
                Exit::MasterDamaged => "master-damaged",
                _ if comparison.ahead.count > 0 => "behind",
                _ => "equal",
            },
            same_file: comparison.same_file,
            compared_bytes: comparison.slave_end,
            equal_bytes: comparison.equal_bytes,
            unsearched_bytes: comparison.unsearched_bytes,
            master_size: comparison.master_size,
            magic_differs: comparison.magic_differs,
            ahead: Group::of(&comparison.ahead),
            elsewhere: Group::of(&comparison.elsewhere),
            differing: Group::listed(&comparison.differing),
            slave_only: Group::listed(&comparison.slave_only),
            master_only: Group::listed(&comparison.master_only),
            halted: comparison.early_stop.map(|early_stop| EarlyStopReport {
                slave_position: early_stop.slave_position,
                master_position: early_stop.master_position,
                reason: early_stop.reason.to_string(),
            }),
            master_damage: comparison.damage.map(|damage| damage.to_string()),
            advice: comparison.advice(),
        }
    }
}

impl<'a> Group<'a> {
    fn of(span: &TransactionSpan) -> Self {
        Self {
            count: span.count,
            bytes: span.bytes,
            first_tid: span.first,
            last_tid: span.last,
            transactions: None,
        }
    }

    fn listed(found: &'a TransactionList) -> Self {
        Self {
            transactions: Some(found.listed.iter().map(Transaction::of).collect()),
            ..Self::of(&found.all)
        }
    }
}

impl<'a> Transaction<'a> {
    fn of(found: &'a TransactionRef) -> Self {
        let metadata = found.metadata.as_ref();
        Self {
            position: found.position,
            length: found.len,
            tid: found.tid,
            time: found.tid.time(),
            user: metadata.map(|it| it.user.as_str()),
            description: metadata.map(|it| it.description.as_str()),
        }
    }
}
