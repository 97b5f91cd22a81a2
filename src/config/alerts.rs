//! The configuration of metrics, hooks and pings. Their behaviour is elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where metrics are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The textfile for node_exporter.
    pub textfile: PathBuf,
}

/// A command that is run on events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookConfig {
    /// The events, at least one.
    pub on: Vec<Event>,
    /// The program and its arguments. No shell is involved.
    pub command: Vec<String>,
    /// How long an event must last before the command is run.
    pub after: Duration,
    /// How often the command is run again while the event lasts; `None` for never.
    pub repeat: Option<Duration>,
    /// The command is killed after this time.
    pub timeout: Duration,
}

/// A web address that is requested regularly while all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingConfig {
    /// The address.
    pub url: String,
    /// The service at this address.
    pub style: PingStyle,
    /// How often it is requested.
    pub every: Duration,
}

/// A state of a storage to which hooks react. That syncing is off is not one of them: somebody has
/// decided it, and nothing may be recorded beside the slave then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The slave is in sync.
    InSync,
    /// Another program has opened the slave.
    InUse,
    /// The master is unreachable.
    Unreachable,
    /// Passes fail for another reason.
    Failing,
    /// Slave and master diverged.
    Diverged,
    /// The master is damaged.
    MasterDamaged,
    /// The slave is damaged.
    SlaveDamaged,
}

impl Event {
    /// The name in the configuration file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in-sync",
            Self::InUse => "in-use",
            Self::Unreachable => "unreachable",
            Self::Failing => "failing",
            Self::Diverged => "diverged",
            Self::MasterDamaged => "master-damaged",
            Self::SlaveDamaged => "slave-damaged",
        }
    }
}

/// The kind of service that receives pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PingStyle {
    /// healthchecks.io, or a server of one's own with its software.
    Healthchecks,
    /// A push monitor of Uptime Kuma.
    UptimeKuma,
    /// The plain address.
    Plain,
}
