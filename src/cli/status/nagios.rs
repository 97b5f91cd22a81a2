//! `fssync status --nagios`: one line and an exit code for Nagios, Icinga and the like.
//!
//! | result | storage |
//! | --- | --- |
//! | OK, 0 | it was in sync at most `-w` seconds ago |
//! | WARNING, 1 | longer ago; syncing is off or ZEO serves the slave (or as `--off` says); something was set aside; ZODB would read more than 1 GiB without an index |
//! | CRITICAL, 2 | it was in sync more than `-c` seconds ago, or never; the histories differ; a file is damaged; there is no slave, or not its blob directory |
//! | UNKNOWN, 3 | the slave cannot be examined, or no pass is recorded |

use std::io::{self, Write};
use std::process::ExitCode;

use fssync::config::StorageName;
use fssync::error::Error;
use fssync::human::{ago, bytes, count};
use fssync::io::progress::Silent;
use fssync::slave::presence::Presence;
use fssync::status::{self, ReplicatedBlobs, State, Status};
use jiff::{SignedDuration, Timestamp};

use crate::cli::args::{NagiosArgs, OffSeverity};
use crate::cli::storage::Selected;

/// How much of a slave ZODB may read at its start without a warning, in bytes.
const MAX_SCAN_LEN: u64 = 1 << 30;

/// A state of a service, in the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Ok,
    Warning,
    Unknown,
    Critical,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Unknown => "UNKNOWN",
            Self::Critical => "CRITICAL",
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

impl From<OffSeverity> for Severity {
    fn from(off: OffSeverity) -> Self {
        match off {
            OffSeverity::Ok => Self::Ok,
            OffSeverity::Warning => Self::Warning,
            OffSeverity::Critical => Self::Critical,
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    severity: Severity,
    /// The storage and its problems.
    text: String,
    /// Performance data, each with a space before it.
    data: String,
}

/// Prints the line for the storages, and returns the exit code of the check.
pub(crate) fn run(selected: &Selected, limits: &NagiosArgs) -> ExitCode {
    if limits.warning > limits.critical {
        return usage("-w must not be more than -c");
    }
    let storages = selected.storages();
    let checks = storages.iter().map(|storage| {
        let name = storage.name.cloned();
        let name = name.unwrap_or_else(|| StorageName::of_slave(&storage.config.slave));
        let look = || status::look(&storage.config.slave()?, None, &Silent);
        check(name.as_str(), &look(), limits)
    });
    print(&checks.collect::<Vec<_>>())
}

/// Prints a line that reports wrong arguments, and returns the exit code for them.
pub(crate) fn usage(why: &str) -> ExitCode {
    print(&[Check {
        severity: Severity::Unknown,
        text: why.to_owned(),
        data: String::new(),
    }])
}

fn print(checks: &[Check]) -> ExitCode {
    let (severity, line) = line(checks);
    // A line that cannot be printed must not look like a success.
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => severity.exit_code().into(),
        Err(_) => Severity::Unknown.exit_code().into(),
    }
}

/// The line for several storages, the worst first.
fn line(checks: &[Check]) -> (Severity, String) {
    let worst = checks.iter().map(|check| check.severity).max();
    let worst = worst.unwrap_or(Severity::Unknown);
    let mut sorted: Vec<_> = checks.iter().collect();
    sorted.sort_by_key(|check| std::cmp::Reverse(check.severity));
    let texts: Vec<_> = sorted.iter().map(|check| plain(&check.text)).collect();
    let data: String = checks.iter().map(|check| check.data.as_str()).collect();
    let separator = if data.is_empty() { "" } else { " |" };
    let (name, texts) = (worst.name(), texts.join("; "));
    (worst, format!("FSSYNC {name} - {texts}{separator}{data}"))
}

/// The text without characters that have a meaning for Nagios.
fn plain(text: &str) -> String {
    text.replace('|', "/").replace(char::is_control, " ")
}

/// Checks a storage.
fn check(name: &str, looked: &Result<Status, Error>, limits: &NagiosArgs) -> Check {
    let status = match looked {
        Ok(status) => status,
        Err(error) => {
            return Check {
                severity: Severity::Unknown,
                text: format!("{name}: {}", error.display_chain()),
                data: String::new(),
            };
        }
    };
    let (mut severity, mut text) = judge(status, limits);
    let mut add = |least: Severity, problem: String| {
        severity = severity.max(least);
        text = format!("{text}; {problem}");
    };
    if let Some(problem) = status.blob_problem() {
        add(Severity::Critical, format!("blobs: {problem}"));
    }
    let scan_bytes = status.position().map(|at| status.index.scan_bytes(at));
    if let Some(len) = scan_bytes.filter(|len| *len > MAX_SCAN_LEN) {
        let problem = format!("ZODB would first read {}", bytes(len));
        add(Severity::Warning, problem);
    }
    for (totals, what) in [
        (status.set_aside, "slave set aside"),
        (status.cut_tails, "cut tail"),
    ] {
        if totals.files > 0 {
            let problem = format!("{}, {}", count(totals.files, what), bytes(totals.bytes));
            add(Severity::Warning, problem);
        }
    }
    Check {
        severity,
        text: format!("{name}: {text}"),
        data: performance_data(name, status, limits),
    }
}

/// The severity of a storage's state, and a text about it.
fn judge(status: &Status, limits: &NagiosArgs) -> (Severity, String) {
    let state = State::of(status);
    let was_in_sync = match status.last_in_sync {
        Some(time) => format!("in sync {}", ago(time, status.time)),
        None => "never in sync".to_owned(),
    };
    let pass = status.last_pass.as_ref();
    let reason = pass.map_or("no pass is recorded", |pass| pass.reason.as_str());
    let name = state.as_str();
    match state {
        State::NoSlave if status.presence != Presence::Synced => {
            (Severity::Unknown, "no pass was made yet".to_owned())
        }
        State::NoSlave => (Severity::Critical, "there is no slave".to_owned()),
        State::SlaveDamaged => {
            let line = status::judge(status).line;
            (Severity::Critical, format!("{name}: {line}"))
        }
        State::Diverged | State::MasterDamaged => (
            Severity::Critical,
            format!("{name}, {was_in_sync}: {reason}"),
        ),
        State::Off => {
            let why = status
                .off
                .as_ref()
                .map_or_else(String::new, ToString::to_string);
            (limits.off.into(), format!("{name}, {was_in_sync}: {why}"))
        }
        State::Serving => {
            let pid = status.zodb_pid.unwrap_or_default();
            let text = format!("{name}, {was_in_sync}: process {pid} has opened the slave");
            (limits.off.into(), text)
        }
        _ if pass.is_none() && status.last_in_sync.is_none() => {
            (Severity::Unknown, reason.to_owned())
        }
        State::InSync => (by_age(status, limits), was_in_sync),
        State::InUse | State::Failing | State::Unreachable => {
            let text = format!("{name}, {was_in_sync}: {reason}");
            (by_age(status, limits), text)
        }
    }
}

/// How severe it is that the slave was last in sync at this time. A time in the future counts
/// like one in the past: the clock was wrong.
fn by_age(status: &Status, limits: &NagiosArgs) -> Severity {
    let age = status
        .last_in_sync
        .map(|time| age(status, time).unsigned_abs());
    match age {
        Some(age) if age <= limits.warning => Severity::Ok,
        Some(age) if age <= limits.critical => Severity::Warning,
        _ => Severity::Critical,
    }
}

fn age(status: &Status, time: Timestamp) -> SignedDuration {
    status.time.duration_since(time)
}

fn performance_data(name: &str, status: &Status, limits: &NagiosArgs) -> String {
    let mut data = Vec::new();
    if let Some(time) = status.last_in_sync {
        let age = age(status, time).as_secs().max(0);
        let (warning, critical) = (limits.warning.as_secs_f64(), limits.critical.as_secs_f64());
        data.push(format!(" '{name}_age'={age}s;{warning};{critical};0"));
    }
    if let Some(position) = status.position() {
        let scan = status.index.scan_bytes(position);
        data.push(format!(" '{name}_position'={position}B;;;0"));
        data.push(format!(" '{name}_index_scan'={scan}B;{MAX_SCAN_LEN};;0"));
    }
    let blobs = status.blobs.replicated();
    if let Some(missing) = blobs.and_then(ReplicatedBlobs::missing) {
        data.push(format!(" '{name}_blobs_missing'={missing};;;0"));
    }
    let set_aside = status
        .set_aside
        .bytes
        .saturating_add(status.cut_tails.bytes);
    data.push(format!(" '{name}_set_aside'={set_aside}B;0;;0"));
    data.concat()
}
