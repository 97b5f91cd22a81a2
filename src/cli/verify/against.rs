//! The text output about the comparison with a master.

use fssync::human::{bytes, count};
use fssync::verify::against::{Attempt, Comparison, TransactionList, TransactionSpan};

use crate::cli::lines::{Emphasis, Lines};

/// The result in a few words.
pub(super) fn verdict(attempt: &Attempt) -> String {
    match &attempt.result {
        Err(error) => format!("not compared with the master: {}", error.display_chain()),
        Ok(None) => "not compared with the master".to_owned(),
        Ok(Some(comparison)) => verdict_of(comparison),
    }
}

/// Adds the lines about the comparison.
pub(super) fn add_to(lines: &mut Lines, attempt: &Attempt) {
    lines.gap();
    lines.add("master", Emphasis::Plain, &attempt.master);
    match &attempt.result {
        Ok(Some(comparison)) => add(lines, comparison),
        Ok(None) => lines.add("compared", Emphasis::Warning, "no: the slave is empty"),
        Err(error) => {
            let fact = format!("no: {}", error.display_chain());
            lines.add("compared", Emphasis::Bad, &fact);
            if let Some(hint) = error.hint() {
                lines.add("", Emphasis::Plain, &format!("to do: {hint}"));
            }
        }
    }
}

/// The verdict of a comparison that succeeded.
fn verdict_of(comparison: &Comparison) -> String {
    let damaged = match comparison.damage {
        Some(_) => ", which is DAMAGED",
        None => "",
    };
    if !comparison.is_prefix() {
        return format!("NOT THE SAME as the master{damaged}");
    }
    match comparison.ahead.count {
        0 => format!("equal to the master{damaged}"),
        n => format!(
            "equal to the master{damaged}, but lags by {}",
            transactions(n)
        ),
    }
}

fn transactions(n: u64) -> String {
    count(n, "transaction")
}

/// Adds the facts of a comparison, and the recommended action.
fn add(lines: &mut Lines, comparison: &Comparison) {
    let equal = format!(
        "{} of {} bytes, proven by digests",
        comparison.equal_bytes, comparison.slave_end
    );
    lines.add("equal", Emphasis::Plain, &equal);
    if comparison.magic_differs {
        lines.add(
            "magic",
            Emphasis::Bad,
            "one file starts with FS21, the other with FS30",
        );
    }
    if let Some(span) = describe(&comparison.ahead, "committed since the slave's last") {
        lines.add("ahead", Emphasis::Plain, &span);
    }
    let elsewhere =
        "at other positions in the master, as after a pack; their bytes are not compared";
    if let Some(span) = describe(&comparison.elsewhere, elsewhere) {
        lines.add("elsewhere", Emphasis::Warning, &span);
    }
    let groups = [
        ("differs", "differ", &comparison.differing),
        ("only slave", "only the slave has", &comparison.slave_only),
        (
            "only master",
            "only the master has",
            &comparison.master_only,
        ),
    ];
    for (label, predicate, list) in groups {
        add_list(lines, label, predicate, list);
    }
    if comparison.unsearched_bytes > 0 {
        let unsearched = format!(
            "{} more differ (transactions not identified)",
            bytes(comparison.unsearched_bytes)
        );
        lines.add("differs", Emphasis::Bad, &unsearched);
    }
    if let Some(early_stop) = comparison.early_stop {
        let fact = format!(
            "only up to {} in the slave and {} in the master: {}",
            early_stop.slave_position, early_stop.master_position, early_stop.reason
        );
        lines.add("compared", Emphasis::Bad, &fact);
    }
    if let Some(damage) = comparison.damage {
        lines.add("DAMAGE", Emphasis::Bad, &format!("in the master: {damage}"));
    }
    if let Some(advice) = comparison.advice() {
        lines.add("", Emphasis::Plain, &format!("to do: {advice}"));
    }
}

/// Describes a group of transactions; `None` if it is empty.
fn describe(span: &TransactionSpan, which: &str) -> Option<String> {
    let (first, last) = (span.first?, span.last?);
    Some(format!(
        "{}, {}, {which}: first {}, last {}",
        transactions(span.count),
        bytes(span.bytes),
        first.with_time(),
        last.with_time()
    ))
}

/// Adds a line for each listed transaction, and the number of the others.
fn add_list(lines: &mut Lines, label: &str, predicate: &str, list: &TransactionList) {
    for transaction in &list.listed {
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
        lines.add(label, Emphasis::Bad, &fact);
    }
    let others = list.all.count - list.listed.len() as u64;
    if others > 0 {
        lines.add(
            "",
            Emphasis::Bad,
            &format!("and {others} more that {predicate}"),
        );
    }
}
