//! The status of several storages for people: a table with one row for each storage, the cause
//! of each trouble, and the effect of a failover in the last line.

use std::io;

use fssync::filestorage::Tid;
use fssync::human::{bytes, short_span};
use fssync::status::{State, Status, Verdict, judge};
use jiff::Timestamp;

use super::site::Row;
use crate::cli::lines::{Emphasis, Lines};
use crate::cli::terminal;

/// The width of the other columns, with the spaces before them.
const OTHERS_WIDTH: usize = 2 + STATE_WIDTH + 3 * (2 + CELL_WIDTH);

/// The longest state is `master damaged`.
const STATE_WIDTH: usize = 14;

/// The longest cells are `1023.9 GiB` and `59 min ago`.
const CELL_WIDTH: usize = 11;

/// The smallest width of the column with names.
const MIN_NAME_WIDTH: usize = 7;

/// The largest number of storages that the last line names.
const MAX_NAMED: usize = 4;

/// The table and the lines below it.
pub(super) fn of(rows: &[Row<'_>]) -> Lines {
    let mut lines = Lines::for_stdout();
    let terminal = usize::from(terminal::width(io::stdout()));
    let longest = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let room = terminal.saturating_sub(OTHERS_WIDTH + 1);
    let name_width = longest.clamp(MIN_NAME_WIDTH, room.max(MIN_NAME_WIDTH));
    let header = cells(["STATE", "IN SYNC", "LAST CHANGE", "SIZE"]);
    lines.row(
        &format!("{:name_width$}", "STORAGE"),
        Emphasis::Plain,
        &header,
    );
    for row in rows {
        let name = shortened(row.name, name_width);
        let (emphasis, cells) = describe(row);
        lines.row(&format!("{name:name_width$}"), emphasis, &cells);
    }
    let mut troubles = rows
        .iter()
        .filter_map(|row| Some((row.name, row.trouble()?)));
    if let Some(first) = troubles.next() {
        lines.gap();
        for (name, trouble) in [first].into_iter().chain(troubles) {
            lines.say(&format!("{name}: {trouble}"));
        }
    }
    let (emphasis, verdict) = verdict(rows);
    lines.conclude("If you failed over now: ", emphasis, &verdict);
    lines
}

/// The cells after the name, in fixed columns.
fn cells([state, in_sync, last, size]: [&str; 4]) -> String {
    let line = format!(
        "  {state:STATE_WIDTH$}  {in_sync:CELL_WIDTH$}  {last:CELL_WIDTH$}  {size:CELL_WIDTH$}"
    );
    line.trim_end().to_owned()
}

fn describe(row: &Row<'_>) -> (Emphasis, String) {
    let Ok(status) = &row.status else {
        return (Emphasis::Bad, cells(["unknown", "", "", ""]));
    };
    let state = State::of(status);
    let lag = status.comparison.as_ref().and_then(|it| it.lag);
    let is_behind = state == State::InSync && lag.is_some_and(|lag| lag.transactions > 0);
    let (emphasis, word) = match state {
        State::InSync if is_behind => (Emphasis::Warning, "behind".to_owned()),
        State::InSync => (Emphasis::Good, state.in_words()),
        State::Off | State::Serving | State::Unreachable | State::InUse => {
            (Emphasis::Warning, state.in_words())
        }
        State::Failing
        | State::Diverged
        | State::MasterDamaged
        | State::SlaveDamaged
        | State::NoSlave => (Emphasis::Bad, state.in_words()),
    };
    let ago = |time: Option<Timestamp>| {
        let span = time.map(|time| short_span(status.time.duration_since(time)));
        span.map_or_else(|| "-".to_owned(), |span| format!("{span} ago"))
    };
    let last = status.last_tid.and_then(Tid::time);
    let cells = cells([
        &word,
        &ago(status.last_in_sync),
        &ago(last),
        &bytes(status.size),
    ]);
    (emphasis, cells)
}

/// A name that fits into a column. The middle is left out, because the names of a site often have
/// the same start, and end with a number.
fn shortened(name: &str, width: usize) -> String {
    if name.len() <= width {
        return name.to_owned();
    }
    // A name has only ASCII characters.
    let start = (width - 1) / 2;
    let end = name.len() - (width - 1 - start);
    format!("{}~{}", &name[..start], &name[end..])
}

/// The effect of a failover of the whole site.
fn verdict(rows: &[Row<'_>]) -> (Emphasis, String) {
    let is_safe = |status: &Status| judge(status).verdict == Verdict::InSync;
    let others: Vec<_> = rows
        .iter()
        .filter(|row| !row.status.as_ref().is_ok_and(is_safe))
        .collect();
    if others.is_empty() {
        return (Emphasis::Good, "nothing would be lost".to_owned());
    }
    let safe = rows.len() - others.len();
    let mut names: Vec<_> = others.iter().map(|row| row.name).collect();
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let names = names.join(", ");
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let line = format!(
        "{safe} of {} storages would lose nothing; see `fssync status --storage NAME` for \
         {names}{more}",
        rows.len()
    );
    (Emphasis::Warning, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_start_and_their_end() {
        for (width, expected) in [
            (24, "production-~ite-berlin-2"),
            (8, "pro~in-2"),
            (7, "pro~n-2"),
        ] {
            let name = shortened("production-plone-site-berlin-2", width);
            assert_eq!((name.as_str(), name.len()), (expected, width));
        }
        assert_eq!(shortened("catalog", 7), "catalog");
    }
}
