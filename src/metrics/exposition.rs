//! Metrics in the text format of Prometheus. No I/O.
//!
//! There is one sample of each metric per storage, with its name as the label `storage`. A value
//! that is not known has no sample. There are no timestamps: node_exporter ignores a textfile
//! that has them.

use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::filestorage::Tid;
use crate::slave::sidecar::Pass;
use crate::status::{ReplicatedBlobs, State, Status};

/// The status of a storage, for its metrics.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name of the storage.
    pub storage: String,
    /// The location of the master, if it is known.
    pub master: Option<String>,
    /// The location of the slave.
    pub slave: String,
    /// The status; `None` if it could not be read.
    pub status: Option<Status>,
}

/// Returns the metrics of storages as text. `with_version` adds `fssync_build_info`, of which a
/// machine must have only one.
///
/// Fails only if two samples have the same storage and the same slave.
pub fn text(samples: &[Sample], with_version: bool) -> Result<String, prometheus::Error> {
    let metrics = Metrics::new()?;
    if with_version {
        let version = env!("CARGO_PKG_VERSION");
        metrics.build_info.with_label_values(&[version]).set(1);
    }
    for sample in samples {
        metrics.add(sample);
    }
    TextEncoder::new().encode_to_string(&metrics.registry.gather())
}

/// The metrics of some storages.
struct Metrics {
    registry: Registry,
    build_info: IntGaugeVec,
    storage_info: IntGaugeVec,
    state: IntGaugeVec,
    syncing_enabled: IntGaugeVec,
    last_in_sync: GaugeVec,
    last_pass: GaugeVec,
    last_transaction: GaugeVec,
    last_verify: GaugeVec,
    duration: GaugeVec,
    exit_code: IntGaugeVec,
    position: IntGaugeVec,
    index_scan: IntGaugeVec,
    set_aside: IntGaugeVec,
    blobs_missing: IntGaugeVec,
    passes: IntCounterVec,
    copied_bytes: IntCounterVec,
    copied_transactions: IntCounterVec,
    copied_blobs: IntCounterVec,
}

/// Creates the metrics of one kind.
struct Builder<'a>(&'a Registry);

impl Builder<'_> {
    fn register<T: Collector + Clone + 'static>(&self, metric: T) -> Result<T, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), &["storage"])?)
    }

    fn whole_gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Builder(&registry);
        let own = ["storage"];
        Ok(Self {
            build_info: new.whole_gauge(
                "fssync_build_info",
                "The version of fssync; the value is 1.",
                &["version"],
            )?,
            storage_info: new.whole_gauge(
                "fssync_storage_info",
                "The locations of master and slave; the value is 1.",
                &["storage", "master", "slave"],
            )?,
            state: new.whole_gauge(
                "fssync_state",
                "1 for the state of the storage, and 0 for the others.",
                &["storage", "state"],
            )?,
            syncing_enabled: new.whole_gauge(
                "fssync_syncing_enabled",
                "1 if syncing is on, 0 if a switch is off.",
                &own,
            )?,
            last_in_sync: new.gauge(
                "fssync_last_in_sync_timestamp_seconds",
                "When the slave last had all transactions of the master.",
            )?,
            last_pass: new.gauge(
                "fssync_last_pass_timestamp_seconds",
                "When the last recorded pass ended.",
            )?,
            last_transaction: new.gauge(
                "fssync_last_transaction_timestamp_seconds",
                "The time of the last transaction in the slave, according to its id.",
            )?,
            last_verify: new.gauge(
                "fssync_last_verify_timestamp_seconds",
                "When the last verification of the slave ended.",
            )?,
            duration: new.gauge(
                "fssync_last_pass_duration_seconds",
                "How long the last recorded pass took.",
            )?,
            exit_code: new.whole_gauge(
                "fssync_last_pass_exit_code",
                "The exit code of the last recorded pass.",
                &own,
            )?,
            position: new.whole_gauge(
                "fssync_position_bytes",
                "Size of the slave up to its last transaction.",
                &own,
            )?,
            index_scan: new.whole_gauge(
                "fssync_index_scan_bytes",
                "How much of the slave ZODB reads when it opens it, because the index lacks it.",
                &own,
            )?,
            set_aside: new.whole_gauge(
                "fssync_set_aside_bytes",
                "Size of the slaves that were set aside, and of the tails that were cut off.",
                &["storage", "kind"],
            )?,
            blobs_missing: new.whole_gauge(
                "fssync_blobs_missing",
                "Number of blobs that the slave lacks and the master may have.",
                &own,
            )?,
            passes: new.counter(
                "fssync_passes_total",
                "Number of recorded passes.",
                &["storage", "exit_code"],
            )?,
            copied_bytes: new.counter(
                "fssync_copied_bytes_total",
                "Number of copied bytes, of transactions and blobs.",
                &["storage", "action"],
            )?,
            copied_transactions: new.counter(
                "fssync_copied_transactions_total",
                "Number of copied transactions.",
                &own,
            )?,
            copied_blobs: new.counter(
                "fssync_copied_blobs_total",
                "Number of copied blob files.",
                &own,
            )?,
            registry,
        })
    }

    /// Sets the metrics of a storage.
    fn add(&self, sample: &Sample) {
        let storage = sample.storage.as_str();
        let master = sample.master.as_deref().unwrap_or_default();
        self.storage_info
            .with_label_values(&[storage, master, &sample.slave])
            .set(1);
        let Some(status) = &sample.status else {
            return;
        };
        let current = State::of(status);
        for state in State::ALL {
            self.state
                .with_label_values(&[storage, state.as_str()])
                .set(i64::from(state == current));
        }
        self.syncing_enabled
            .with_label_values(&[storage])
            .set(i64::from(status.off.is_none()));
        self.add_times(storage, status);
        self.add_sizes(storage, status);
        self.add_counters(storage, status);
    }

    fn add_times(&self, storage: &str, status: &Status) {
        let pass = status.last_pass.as_ref();
        for (gauge, time) in [
            (&self.last_in_sync, status.last_in_sync),
            (&self.last_pass, pass.map(|pass| pass.time)),
            (&self.last_transaction, status.last_tid.and_then(Tid::time)),
            (
                &self.last_verify,
                status.verified.as_ref().map(|record| record.time),
            ),
        ] {
            if let Some(time) = time {
                gauge.with_label_values(&[storage]).set(seconds(time));
            }
        }
        if let Some(pass) = pass {
            let exit_code = self.exit_code.with_label_values(&[storage]);
            exit_code.set(i64::from(pass.exit_code));
        }
        if let Some(elapsed) = pass.and_then(Pass::elapsed) {
            let duration = self.duration.with_label_values(&[storage]);
            duration.set(elapsed.as_secs_f64());
        }
    }

    fn add_sizes(&self, storage: &str, status: &Status) {
        if let Some(position) = status.position() {
            let scan = status.index.scan_bytes(position);
            for (gauge, bytes) in [(&self.position, position), (&self.index_scan, scan)] {
                gauge.with_label_values(&[storage]).set(whole(bytes));
            }
        }
        for (kind, totals) in [("slave", status.set_aside), ("tail", status.cut_tails)] {
            let set_aside = self.set_aside.with_label_values(&[storage, kind]);
            set_aside.set(whole(totals.bytes));
        }
        let blobs = status.blobs.replicated();
        if let Some(missing) = blobs.and_then(ReplicatedBlobs::missing) {
            let blobs_missing = self.blobs_missing.with_label_values(&[storage]);
            blobs_missing.set(whole(missing));
        }
    }

    fn add_counters(&self, storage: &str, status: &Status) {
        let counters = &status.counters;
        for (exit_code, number) in &counters.passes {
            let exit_code = exit_code.to_string();
            self.passes
                .with_label_values(&[storage, &exit_code])
                .inc_by(*number);
        }
        for (action, bytes) in &counters.copied_bytes {
            self.copied_bytes
                .with_label_values(&[storage, action.as_str()])
                .inc_by(*bytes);
        }
        for (counter, number) in [
            (&self.copied_transactions, counters.copied_transactions),
            (&self.copied_blobs, counters.copied_blobs),
        ] {
            counter.with_label_values(&[storage]).inc_by(number);
        }
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
