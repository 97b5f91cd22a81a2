//! What the comparison with the master found: lines, and the keys of `--json`.

use fssync::error::Error;
use fssync::filestorage::Tid;
use fssync::human::{bytes, count};
use fssync::io::progress::Monitor;
use fssync::plan::outcome::Exit;
use fssync::slave::step::Slave;
use fssync::source::Master;
use fssync::verify::Verified;
use fssync::verify::against::{self, Comparison, TransactionList, TransactionRef, TransactionSpan};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::lines::{Emphasis, Lines};

/// What came of `--against`.
pub(super) struct Against(Option<(String, Result<Option<Comparison>, Error>)>);

impl Against {
    /// Compares a slave that was verified with its master, if one is named.
    pub(super) fn compare(
        slave: &Slave,
        verified: &Verified,
        master: Option<&Master>,
        monitor: &dyn Monitor,
    ) -> Self {
        Self(master.map(|master| {
            let compared = against::compare(slave, verified, master, monitor);
            (master.name().to_owned(), compared)
        }))
    }

    /// The exit code of a verification: a damaged slave is told before all else.
    pub(super) fn exit(&self, verified: &Verified) -> Exit {
        let compared = match &self.0 {
            Some((_, Ok(Some(compared)))) => compared.exit(),
            Some((_, Err(error))) => error.exit(),
            Some((_, Ok(None))) | None => Exit::Success,
        };
        match verified.exit() {
            Exit::SlaveDamaged => Exit::SlaveDamaged,
            own if compared == Exit::Success => own,
            _ => compared,
        }
    }

    /// The master's name.
    pub(super) fn master(&self) -> Option<&str> {
        self.0.as_ref().map(|(master, _)| master.as_str())
    }

    /// What was found.
    pub(super) fn compared(&self) -> Option<&Comparison> {
        match &self.0 {
            Some((_, Ok(compared))) => compared.as_ref(),
            _ => None,
        }
    }

    /// Why nothing was found.
    pub(super) fn error(&self) -> Option<String> {
        match &self.0 {
            Some((_, Err(error))) => Some(error.display_chain()),
            _ => None,
        }
    }

    /// What came of it, in a few words.
    pub(super) fn verdict(&self) -> Option<String> {
        let Some((_, compared)) = &self.0 else {
            return None;
        };
        Some(match compared {
            Err(error) => format!("not compared with the master: {}", error.display_chain()),
            Ok(None) => "not compared with the master".to_owned(),
            Ok(Some(compared)) => verdict(compared),
        })
    }

    /// Adds the lines that tell of it.
    pub(super) fn add_to(&self, lines: &mut Lines) {
        let Some((master, compared)) = &self.0 else {
            return;
        };
        lines.gap();
        lines.add("master", Emphasis::Plain, master);
        match compared {
            Ok(Some(compared)) => add(lines, compared),
            Ok(None) => lines.add("compared", Emphasis::Warning, "no: the slave holds nothing"),
            Err(error) => {
                lines.add(
                    "compared",
                    Emphasis::Bad,
                    &format!("no: {}", error.display_chain()),
                );
                if let Some(hint) = error.hint() {
                    lines.add("", Emphasis::Plain, &format!("to do: {hint}"));
                }
            }
        }
    }
}

fn verdict(compared: &Comparison) -> String {
    let damaged = match compared.damage {
        Some(_) => ", which is DAMAGED",
        None => "",
    };
    if !compared.is_prefix() {
        return format!("NOT THE SAME as the master{damaged}");
    }
    match compared.ahead.count {
        0 => format!("equal to the master{damaged}"),
        n => format!(
            "equal to the master{damaged}, up to {} that the slave lacks",
            transactions(n)
        ),
    }
}

fn transactions(n: u64) -> String {
    count(n, "transaction")
}

fn add(lines: &mut Lines, compared: &Comparison) {
    let equal = format!(
        "{} of {} bytes, proven by digests",
        compared.equal_bytes, compared.slave_end
    );
    lines.add("equal", Emphasis::Plain, &equal);
    if compared.magic_differs {
        lines.add(
            "magic",
            Emphasis::Bad,
            "the first bytes differ, FS21 or FS30",
        );
    }
    let ahead = "committed since the slave's last";
    add_span(lines, ("ahead", Emphasis::Plain), &compared.ahead, ahead);
    let elsewhere = "which both have, as after a pack; their bytes are not compared";
    add_span(
        lines,
        ("elsewhere", Emphasis::Warning),
        &compared.elsewhere,
        elsewhere,
    );
    let kinds = [
        ("differs", "differ", &compared.differing),
        ("only slave", "only the slave has", &compared.slave_only),
        ("only master", "only the master has", &compared.master_only),
    ];
    for (what, kind, found) in kinds {
        add_found(lines, what, kind, found);
    }
    if compared.unsearched_bytes > 0 {
        let unsearched = format!(
            "in {} more, where it was not searched which transactions differ",
            bytes(compared.unsearched_bytes)
        );
        lines.add("differs", Emphasis::Bad, &unsearched);
    }
    if let Some(early_stop) = compared.early_stop {
        let fact = format!(
            "nothing behind {} in the slave and {} in the master: {}",
            early_stop.slave_position, early_stop.master_position, early_stop.reason
        );
        lines.add("compared", Emphasis::Bad, &fact);
    }
    if let Some(damage) = compared.damage {
        lines.add("DAMAGE", Emphasis::Bad, &format!("in the master: {damage}"));
    }
    if let Some(advice) = compared.advice() {
        lines.add("", Emphasis::Plain, &format!("to do: {advice}"));
    }
}

fn add_span(
    lines: &mut Lines,
    (what, emphasis): (&str, Emphasis),
    span: &TransactionSpan,
    which: &str,
) {
    let (Some(first), Some(last)) = (span.first, span.last) else {
        return;
    };
    let fact = format!(
        "{}, {}, {which}: first {}, last {}",
        transactions(span.count),
        bytes(span.bytes),
        first.with_time(),
        last.with_time()
    );
    lines.add(what, emphasis, &fact);
}

fn add_found(lines: &mut Lines, what: &str, kind: &str, found: &TransactionList) {
    for transaction in &found.listed {
        let by = match &transaction.metadata {
            Some(it) => format!(", by {:?}: {:?}", it.user, it.description),
            None => String::new(),
        };
        let tid = transaction.tid.with_time();
        let fact = format!(
            "{tid} at {}, {}{by}",
            transaction.position,
            bytes(transaction.len)
        );
        lines.add(what, Emphasis::Bad, &fact);
    }
    let left = found.all.count - found.listed.len() as u64;
    if left > 0 {
        lines.add("", Emphasis::Bad, &format!("and {left} more that {kind}"));
    }
}

/// The comparison, as `--json` prints it. Its keys are API.
#[derive(Serialize)]
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

/// Some transactions.
#[derive(Serialize)]
struct Group<'a> {
    count: u64,
    bytes: u64,
    first_tid: Option<Tid>,
    last_tid: Option<Tid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<Vec<Transaction<'a>>>,
}

/// One of them.
#[derive(Serialize)]
struct Transaction<'a> {
    position: u64,
    length: u64,
    tid: Tid,
    time: Option<Timestamp>,
    user: Option<&'a str>,
    description: Option<&'a str>,
}

/// Up to where it was compared.
#[derive(Serialize)]
struct EarlyStopReport {
    slave_position: u64,
    master_position: u64,
    reason: String,
}

impl<'a> ComparisonReport<'a> {
    pub(super) fn of(compared: &'a Comparison) -> Self {
        Self {
            verdict: match compared.exit() {
                Exit::Diverged => "diverged",
                Exit::MasterDamaged => "master-damaged",
                _ if compared.ahead.count > 0 => "behind",
                _ => "equal",
            },
            same_file: compared.same_file,
            compared_bytes: compared.slave_end,
            equal_bytes: compared.equal_bytes,
            unsearched_bytes: compared.unsearched_bytes,
            master_size: compared.master_size,
            magic_differs: compared.magic_differs,
            ahead: Group::of(&compared.ahead),
            elsewhere: Group::of(&compared.elsewhere),
            differing: Group::listed(&compared.differing),
            slave_only: Group::listed(&compared.slave_only),
            master_only: Group::listed(&compared.master_only),
            halted: compared.early_stop.map(|early_stop| EarlyStopReport {
                slave_position: early_stop.slave_position,
                master_position: early_stop.master_position,
                reason: early_stop.reason.to_string(),
            }),
            master_damage: compared.damage.map(|damage| damage.to_string()),
            advice: compared.advice(),
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
