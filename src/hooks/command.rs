//! The program that a hook runs: its environment and its input.

use std::time::Duration;

use super::history::Episode;
use crate::config::HookConfig;
use crate::filestorage::Tid;
use crate::io::process::Program;
use crate::pass::JsonReport;
use crate::plan::outcome::Outcome;

/// The longest value of an environment variable, in bytes. The kernel accepts 128 KiB, and
/// limits the total.
const MAX_VALUE_LEN: usize = 8 * 1024;

/// The last pass of a storage.
#[derive(Clone, Debug)]
pub struct LastPass {
    /// The name of the storage.
    pub storage: String,
    /// The master, as it was given.
    pub master: String,
    /// The slave, as it was given.
    pub slave: String,
    /// The outcome.
    pub outcome: Outcome,
    /// How long the pass took.
    pub elapsed: Duration,
}

/// The program of a hook that reports an event. `pass` is the last pass with this event.
///
/// The environment variables are `FSSYNC_EVENT`, `FSSYNC_STORAGE`, `FSSYNC_FROM` (the event
/// before, or the same event if the report is repeated; empty for the first pass),
/// `FSSYNC_TO` (the event), `FSSYNC_EXIT_CODE`, `FSSYNC_REASON`, `FSSYNC_HINT` (may be empty),
/// `FSSYNC_MASTER`, `FSSYNC_SLAVE`, `FSSYNC_POSITION` (bytes; empty if unknown),
/// `FSSYNC_LAST_TID` (16 hexadecimal digits; empty if unknown) and `FSSYNC_SINCE` (when the
/// event began, RFC 3339 in UTC). The standard input is the object that `--json` prints.
#[must_use]
pub fn program(hook: &HookConfig, episode: Episode, pass: &LastPass) -> Program {
    let outcome = &pass.outcome;
    let event = episode.event.as_str();
    let from = episode.from.map_or("", |from| from.as_str());
    let position = outcome.copied.position.map(|it| it.to_string());
    let last_tid = outcome.copied.last_tid.as_ref().map(Tid::to_string);
    let variables = [
        ("FSSYNC_EVENT", event.to_owned()),
        ("FSSYNC_STORAGE", pass.storage.clone()),
        ("FSSYNC_FROM", from.to_owned()),
        ("FSSYNC_TO", event.to_owned()),
        ("FSSYNC_EXIT_CODE", (outcome.exit as u8).to_string()),
        ("FSSYNC_REASON", outcome.reason.clone()),
        ("FSSYNC_HINT", outcome.hint.clone().unwrap_or_default()),
        ("FSSYNC_MASTER", pass.master.clone()),
        ("FSSYNC_SLAVE", pass.slave.clone()),
        ("FSSYNC_POSITION", position.unwrap_or_default()),
        ("FSSYNC_LAST_TID", last_tid.unwrap_or_default()),
        ("FSSYNC_SINCE", format!("{:.0}", episode.since)),
    ];
    Program {
        command: hook.command.clone(),
        variables: variables
            .map(|(name, value)| (name, truncated(value)))
            .into(),
        input: json(pass),
        timeout: hook.timeout,
    }
}

fn json(pass: &LastPass) -> Vec<u8> {
    let report = JsonReport::of(&pass.outcome, &pass.master, &pass.slave, pass.elapsed);
    let report = report.of_storage(&pass.storage);
    let mut text = serde_json::to_vec(&report).unwrap_or_default();
    text.push(b'\n');
    text
}

fn truncated(mut value: String) -> String {
    let mut len = value.len().min(MAX_VALUE_LEN);
    while !value.is_char_boundary(len) {
        len -= 1;
    }
    value.truncate(len);
    value
}
