//! The object that `fssync MASTER SLAVE --json` prints. Its keys are a stable interface.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::filestorage::Tid;
use crate::plan::outcome::{Action, Outcome};

/// The outcome of a pass as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct JsonReport {
    /// The storage's name, if it has one from a configuration file.
    storage: Option<String>,
    master: String,
    slave: String,
    action: Action,
    reason: String,
    exit_code: u8,
    position: Option<u64>,
    last_tid: Option<Tid>,
    transactions: u64,
    bytes: u64,
    blobs: u64,
    blob_bytes: u64,
    blobs_absent: u64,
    own_transactions: u64,
    set_aside: Option<PathBuf>,
    elapsed_seconds: f64,
    warnings: Vec<String>,
}

impl JsonReport {
    /// The report of a pass that took this long. The names are those that messages use.
    #[must_use]
    pub fn of(outcome: &Outcome, master: &str, slave: &str, elapsed: Duration) -> Self {
        Self {
            storage: None,
            master: master.to_owned(),
            slave: slave.to_owned(),
            action: outcome.action,
            reason: outcome.reason.clone(),
            exit_code: outcome.exit as u8,
            position: outcome.copied.position,
            last_tid: outcome.copied.last_tid,
            transactions: outcome.copied.transactions,
            bytes: outcome.copied.bytes,
            blobs: outcome.copied.blobs,
            blob_bytes: outcome.copied.blob_bytes,
            blobs_absent: outcome.copied.blobs_absent,
            own_transactions: outcome.copied.own_transactions,
            set_aside: outcome.copied.set_aside.clone(),
            elapsed_seconds: elapsed.as_secs_f64(),
            warnings: outcome.warnings.clone(),
        }
    }

    /// The same report with the storage's name.
    #[must_use]
    pub fn of_storage(self, name: &str) -> Self {
        let storage = Some(name.to_owned());
        Self { storage, ..self }
    }
}
