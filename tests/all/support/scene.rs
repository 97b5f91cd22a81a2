//! A master, a slave, and the commands that work on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fssync::pass::Job;
use fssync::pass::apply::Tuning;
use fssync::pass::blobs::BlobMode;
use fssync::plan::Policy;
use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Unrecorded;
use fssync::slave::step::Slave;
use fssync::source::{Deadline, Heartbeat, Master, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{History, Run, fssync, names, project, run};
use crate::sshd::Sshd;

/// How a pass reads its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// From a mounted path.
    Path,
    /// Through a real sshd on loopback.
    Ssh,
}

impl Transport {
    /// Every decision must be the same over both.
    pub const BOTH: [Self; 2] = [Self::Path, Self::Ssh];
}

/// A master and a slave, in one directory each.
pub struct Scene {
    pub directory: TempDir,
    pub master: PathBuf,
    pub slave: PathBuf,
    /// Whether passes replicate the blobs. The blob directories are beside the files.
    pub has_blobs: bool,
    transport: Transport,
}

impl Scene {
    /// Two empty directories.
    pub fn new() -> Self {
        Self::of(["master", "slave"])
    }

    /// The directories of a Plone site: on each side, `filestorage` in the directory that Plone
    /// calls `var`. The blob directories are beside `filestorage`.
    pub fn plone() -> Self {
        Self::of(["master/filestorage", "slave/filestorage"])
    }

    fn of([master, slave]: [&str; 2]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [master, slave] = [master, slave].map(|side| {
            let side = directory.path().join(side);
            fs::create_dir_all(&side).expect("a directory");
            side.join("Data.fs")
        });
        Self {
            master,
            slave,
            directory,
            has_blobs: false,
            transport: Transport::Path,
        }
    }

    /// Passes replicate the blobs.
    pub fn with_blobs(self) -> Self {
        let has_blobs = true;
        Self { has_blobs, ..self }
    }

    /// Passes use this transport.
    pub fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// The master is a copy of a fixture.
    pub fn with_master(fixture: &str) -> Self {
        Self::new().copied_from(fixture)
    }

    /// The same in these directories.
    pub fn copied_from(self, fixture: &str) -> Self {
        fs::copy(project(&format!("fixtures/{fixture}.fs")), &self.master).expect("the fixture");
        self
    }

    /// One pass with these options and `--json`.
    pub fn pass(&self, options: &[&str]) -> Run {
        run(self.command(options).arg("--json"))
    }

    /// A pass with these options.
    pub fn command(&self, options: &[&str]) -> Command {
        self.command_by(fssync(), options)
    }

    /// The same with another command that runs fssync.
    pub fn command_by(&self, mut command: Command, options: &[&str]) -> Command {
        command.args(options).args(self.reach());
        command.args(self.blob_options());
        command.args([self.typed_master(), self.slave.clone()]);
        command
    }

    /// `fssync status` of the slave, with these options.
    pub fn status(&self, options: &[&str]) -> Command {
        let mut command = fssync();
        command.arg("status").args(options).arg(&self.slave);
        command
    }

    /// `fssync verify` of the slave, with these options.
    pub fn verify(&self, options: &[&str]) -> Command {
        let mut command = fssync();
        command.arg("verify").args(options).arg(&self.slave);
        command
    }

    /// `fssync status` against the master, with `--json`.
    pub fn status_against(&self) -> Run {
        let mut command = self.status(&["--json"]);
        command.args(self.reach());
        run(command.arg("--against").arg(self.typed_master()))
    }

    /// `fssync verify` of the slave against its master, with these options and `--json`.
    pub fn verify_against(&self, options: &[&str]) -> Run {
        self.verify_against_by(fssync(), options)
    }

    /// The same with another command that runs fssync.
    pub fn verify_against_by(&self, mut command: Command, options: &[&str]) -> Run {
        command.args(["verify", "--json"]).args(options);
        command.args(self.reach()).arg(&self.slave);
        run(command.arg("--against").arg(self.typed_master()))
    }

    /// The options of a pass for the blobs.
    pub fn blob_options(&self) -> &'static [&'static str] {
        if self.has_blobs { &["--blobs"] } else { &[] }
    }

    /// The options that the transport needs.
    fn reach(&self) -> &'static [&'static str] {
        static SSH: OnceLock<[&str; 4]> = OnceLock::new();
        match self.transport {
            Transport::Path => &[],
            Transport::Ssh => SSH.get_or_init(|| {
                let program = env!("CARGO_BIN_EXE_fssync");
                ["-e", Sshd::get().quick_rsh(), "--remote-fssync", program]
            }),
        }
    }

    /// The argument for the master.
    fn typed_master(&self) -> PathBuf {
        self.typed(&self.master)
    }

    /// The argument for a master with this path.
    pub fn typed(&self, master: &Path) -> PathBuf {
        match self.transport {
            Transport::Path => master.to_owned(),
            Transport::Ssh => Sshd::get().url(master).into(),
        }
    }

    /// A pass that must succeed with this action; returns its report.
    #[track_caller]
    pub fn expect(&self, action: &str) -> Value {
        let report = self.pass(&[]).expect(0).report();
        assert_eq!(report["action"], action, "{report}");
        report
    }

    /// The slave as a pass left it, when the master was `before`.
    pub fn synced(history: &History) -> Self {
        let scene = Self::new();
        fs::write(&scene.master, &history.before).expect("the master");
        scene.expect("full-copy");
        scene
    }

    /// Changes the content of the sidecar.
    pub fn edit_sidecar(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.beside(".fssync");
        let text = fs::read(&path).expect("the sidecar");
        let mut sidecar = serde_json::from_slice(&text).expect("JSON");
        edit(&mut sidecar);
        fs::write(&path, sidecar.to_string()).expect("the sidecar");
    }

    /// Whether the sidecar contains the slave as a pass left it.
    pub fn was_left(&self) -> bool {
        let text = fs::read(self.beside(".fssync")).unwrap_or_default();
        let sidecar: Value = serde_json::from_slice(&text).unwrap_or_default();
        sidecar["left"].is_object()
    }

    /// Changes the sidecar so that the index lags far behind, and is due to be stored.
    pub fn make_index_due(&self) {
        self.edit_sidecar(|sidecar| sidecar["index"]["records"]["data"] = json!(200_000));
    }

    /// A file beside the slave.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.slave.display()))
    }

    /// Fails if the slave's directory contains a name that is not documented.
    pub fn assert_documented_names(&self) {
        for name in self.beside_slave() {
            // The blob directory, also under the name that it has while it is created.
            if self.has_blobs && ["blobstorage", "blobstorage.fssync-new"].contains(&name.as_str())
            {
                continue;
            }
            let suffix = name
                .strip_prefix("Data.fs")
                .unwrap_or_else(|| panic!("{name}"));
            let known = [
                "",
                ".fssync",
                ".fssync-new",
                ".fssync-switch",
                ".fssync-ledger",
                ".fssync-verified",
                ".fssync-hooks",
                ".fssync-reported",
                ".fssync-empty-new",
                ".fssync-blobs",
                ".fssync-blobs-gone",
                ".fssync-tmp",
                ".fssync-pass",
                ".fssync-step",
                ".lock",
                ".index",
                ".index.index_tmp",
                // ZODB's, too: it collects a transaction in this file.
                ".tmp",
            ];
            assert!(
                known.contains(&suffix)
                    || suffix.starts_with(".diverged-")
                    || suffix.starts_with(".tr"),
                "{name} is not a documented name"
            );
        }
    }

    /// The names in the slave's directory, sorted.
    pub fn beside_slave(&self) -> Vec<String> {
        names(self.slave.parent().expect("a directory"))
    }

    /// A pass in this process with this source.
    pub fn job(&self, source: impl Source + 'static, tuning: Tuning) -> Job {
        let interrupted = Arc::new(AtomicBool::new(false));
        let paths = SlavePaths::new(&self.slave).expect("a place for the slave");
        Job {
            master: self.master_of(source, Duration::from_secs(10), &interrupted),
            location: None,
            slave: Slave {
                interrupted,
                ..Slave::new(paths, None)
            },
            policy: Policy::default(),
            tuning,
            blobs: BlobMode::Unset,
            dry_run: false,
            note_every: Duration::ZERO,
            index_waits: false,
            unrecorded: Unrecorded::default(),
        }
    }

    /// A master with this source, which can be opened only once.
    pub fn master_of(
        &self,
        source: impl Source + 'static,
        timeout: Duration,
        interrupted: &Arc<AtomicBool>,
    ) -> Master {
        let interrupted = Arc::clone(interrupted);
        let patience = Deadline::new(timeout, Heartbeat::default(), move || {
            interrupted.load(Ordering::Relaxed)
        });
        let source = Mutex::new(Some(Box::new(source) as Box<dyn Source>));
        let open = move || source.lock().unwrap().take().expect("one worker");
        Master::new(self.master.display().to_string(), patience, Box::new(open))
    }
}
