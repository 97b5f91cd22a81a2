//! Prints a configuration as a file that gives the same one, with all values resolved: without
//! defaults, included files and variables.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::alerts::{Event, HookConfig, PingConfig, PingStyle};
use super::expand::escape;
use super::name::StorageName;
use super::site::{NamedStorage, Site};
use super::storage::{BlobMode, BlobOptions, MasterConfig, StorageConfig};

const SECONDS_PER_DAY: f64 = 86_400.0;

impl Site {
    /// The text of a configuration file with the same content.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for NamedStorage { name, storage, .. } in &self.storages {
            let section = BTreeMap::from([(name, StorageSection::of(storage))]);
            text += &section_text(&Storages { storage: section });
        }
        let textfile = self.metrics.as_ref().map(|it| path(&it.textfile));
        text += &section_text(&Rest {
            metrics: textfile.map(|textfile| MetricsSection { textfile }),
            hook: self.hooks.iter().map(HookSection::of).collect(),
            ping: self.pings.iter().map(PingSection::of).collect(),
        });
        text
    }
}

/// The text of some sections, with an empty line after them.
fn section_text(section: &impl Serialize) -> String {
    // Strings, numbers and tables can always be written.
    let text = toml::to_string(section).unwrap_or_default();
    if text.is_empty() { text } else { text + "\n" }
}

#[derive(Serialize)]
struct Storages<'a> {
    storage: BTreeMap<&'a StorageName, StorageSection>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct StorageSection {
    master: Option<String>,
    slave: String,
    rsh: Option<String>,
    remote_fssync: Option<String>,
    timeout: Option<f64>,
    interval: f64,
    status_file: Option<String>,
    keep_packed: Option<f64>,
    blobs: Option<BlobValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BlobValue {
    Copied(bool),
    At {
        master: Option<String>,
        slave: Option<String>,
    },
}

impl StorageSection {
    fn of(storage: &StorageConfig) -> Self {
        let master = storage.master.as_ref();
        let (blobs, keep_packed) = match &storage.blobs {
            BlobMode::Unset => (None, None),
            BlobMode::Off => (Some(BlobValue::Copied(false)), None),
            BlobMode::On(options) => {
                let days = options.keep_packed.as_secs_f64() / SECONDS_PER_DAY;
                (Some(BlobValue::of(options)), Some(days))
            }
        };
        Self {
            master: master.map(|it| escape(&it.name())),
            slave: path(&storage.slave),
            rsh: master.map(|it: &MasterConfig| escape(&it.rsh)),
            remote_fssync: master.map(|it| escape(&it.remote_fssync)),
            timeout: master.map(|it| it.timeout.as_secs_f64()),
            interval: storage.interval.as_secs_f64(),
            status_file: storage.status_file.as_deref().map(path),
            keep_packed,
            blobs,
        }
    }
}

impl BlobValue {
    fn of(options: &BlobOptions) -> Self {
        if options.master.is_none() && options.slave.is_none() {
            return Self::Copied(true);
        }
        Self::At {
            master: options.master.as_deref().map(escape),
            slave: options.slave.as_deref().map(path),
        }
    }
}

#[derive(Serialize)]
struct Rest {
    metrics: Option<MetricsSection>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hook: Vec<HookSection>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ping: Vec<PingSection>,
}

#[derive(Serialize)]
struct MetricsSection {
    textfile: String,
}

#[derive(Serialize)]
struct HookSection {
    on: Vec<Event>,
    command: Vec<String>,
    after: Option<f64>,
    repeat: Option<f64>,
    timeout: f64,
}

impl HookSection {
    fn of(hook: &HookConfig) -> Self {
        let is_delayed = hook.after > Duration::ZERO;
        Self {
            on: hook.on.clone(),
            command: hook.command.iter().map(|word| escape(word)).collect(),
            after: is_delayed.then_some(hook.after.as_secs_f64()),
            repeat: hook.repeat.map(|it| it.as_secs_f64()),
            timeout: hook.timeout.as_secs_f64(),
        }
    }
}

#[derive(Serialize)]
struct PingSection {
    url: String,
    style: PingStyle,
    every: f64,
}

impl PingSection {
    fn of(ping: &PingConfig) -> Self {
        Self {
            url: escape(&ping.url),
            style: ping.style,
            every: ping.every.as_secs_f64(),
        }
    }
}

fn path(path: &Path) -> String {
    escape(&path.display().to_string())
}
