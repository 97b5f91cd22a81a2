//! The oracle: the promises that every slave must keep, whatever fault has disturbed the actor.
//!
//! At any time ([`Case::assert_sound`]):
//!
//! 1. Only documented names are in the slave's directory, and a slave that was there is there.
//! 2. ZODB opens the slave, with its index and without it, at the same position.
//! 3. The index is the one that ZODB itself would save for some position of the slave.
//! 4. The ledger contains no wrong digest, and `verify` finds no damage.
//! 5. If blobs are replicated: ZODB can load each blob of each transaction that it finds in the
//!    slave, and the blob has the bytes that it had in the master (Law 7). The same holds for an
//!    old slave that was set aside (Law 2).
//! 6. No transaction is lost or invented. A slave or a tail that must be saved is saved
//!    ([`Before`]).
//!
//! After a pass that has reported success, slave and master are in sync
//! ([`Case::assert_done`]). The next pass always succeeds; after it, nothing is left to do
//! ([`Case::assert_recovered`]).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fssync::filestorage::MAGIC_LEN;
use fssync::filestorage::blob::{LAYOUT_FILE, Layout};
use fssync::io::progress::Silent;
use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Sidecar;
use fssync::slave::step::Slave;
use fssync::verify::finding::{Kind, Severity};
use fssync::verify::verify;
use serde_json::json;

use super::before::{Before, Own};
use super::scenario::{Kept, Scenario, Switched};
use crate::blobs::derived::on_disk;
use crate::ledger;
use crate::support::{BlobHistory, Blobs, Scene, Setup, Zodb, blobs_beside, names};

/// The files in the slave's directory.
type Files = BTreeMap<String, Vec<u8>>;

/// A prepared scenario.
pub struct Case {
    pub scenario: &'static Scenario,
    pub scene: Scene,
    pub before: Before,
    files_before: Files,
}

impl Case {
    pub fn prepare(scenario: &'static Scenario, zodb: &mut Zodb) -> Self {
        let scene = scenario.scene();
        (scenario.prepare)(&scene, zodb);
        Self::of(scenario, scene, zodb)
    }

    /// A case whose scenario is already prepared in a scene.
    pub fn of(scenario: &'static Scenario, scene: Scene, zodb: &mut Zodb) -> Self {
        let mut before = Before {
            keeps_slave: scenario.keeps != Kept::Nothing,
            tail_len: scenario.tail_len,
            // With blobs, a first pass creates an empty slave before it copies any.
            may_be_empty: scenario.has_blobs,
            ..Before::of(&scene.slave, &scene.master, zodb)
        };
        if scenario.keeps == Kept::OwnTransactions {
            let slave = before.slave.as_deref().expect("a slave");
            before.own = Some(Own::of(slave, before.slave_position, &before.master));
        }
        Self {
            files_before: files(&scene),
            scenario,
            scene,
            before,
        }
    }

    /// Checks the promises that hold at any time.
    pub fn assert_sound(&self, zodb: &mut Zodb) {
        let scene = &self.scene;
        scene.assert_documented_names();
        if !scene.slave.exists() {
            let was_there = self.before.slave.is_some();
            assert!(!was_there, "a slave that was there is there");
            return;
        }
        let found = zodb.check(&scene.slave);
        let opened = zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
        assert_eq!(opened["position"], found["position"], "as its index says");
        let files = files(scene);
        // A scenario may start with an index that does not fit.
        let is_unchanged = |name: &str| files.get(name) == self.files_before.get(name);
        if !(is_unchanged("Data.fs") && is_unchanged("Data.fs.index")) {
            zodb.assert_index(&scene.slave);
        }
        ledger::assert_right(&scene.slave);
        assert_blobs(scene, zodb);
        self.assert_transactions(&files, found["position"].as_u64().expect("a position"));
        self.assert_old_blobs(&files, zodb);
    }

    /// If the old slave was replaced and must be kept, it has all its blobs in a directory of its
    /// own.
    fn assert_old_blobs(&self, files: &Files, zodb: &mut Zodb) {
        let old = self.before.slave.as_deref().unwrap_or_default();
        let must_be_kept = self.before.keeps_slave && self.scenario.has_blobs;
        if !must_be_kept || files["Data.fs"].starts_with(old) {
            return;
        }
        let slave = &self.scene.slave;
        let kept = self.before.own.as_ref().map_or(old, |own| &own.set_aside);
        let is_old = |(name, bytes): (&String, &Vec<u8>)| {
            let tid = name.strip_prefix("Data.fs.diverged-")?;
            (bytes == kept).then(|| tid.to_owned())
        };
        let tid = files.iter().find_map(is_old).expect("the old slave");
        let directory = blobs_beside(slave).join(format!(".fssync/aside-{tid}"));
        assert!(directory.exists(), "the old slave has no blobs");
        let set_aside = Blobs {
            file: &slave.with_file_name(format!("Data.fs.diverged-{tid}")),
            directory: &directory,
            expected: None,
            journal: Some(&BlobHistory::get().journal()),
        };
        let count = zodb.assert_blobs(&set_aside, Setup::FileStorage);
        assert!(count > 0, "the old slave has blobs");
    }

    /// The slave contains the transactions that it must, and `verify` agrees.
    fn assert_transactions(&self, files: &Files, position: u64) {
        self.assert_undamaged(position);
        self.before
            .assert_sound(&files["Data.fs"], position as usize, files);
    }

    /// `verify` finds no damage.
    fn assert_undamaged(&self, position: u64) {
        let paths = SlavePaths::new(&self.scene.slave).expect("paths");
        let slave = Slave::new(paths, None);
        let mut findings = Vec::new();
        let verified = verify(&slave, false, &Silent, &mut |finding| {
            findings.push(finding.clone());
        });
        verified.expect("the slave can be read");
        // A power cut after the first batches of a pass may lose the sidecar and the ledger of
        // all of them. Nothing then proves that the last one was finished.
        let left = Sidecar::load(&slave.paths).expect("a sidecar").last_sync;
        let is_behind = left.is_none_or(|left| left.slave.position < position);
        findings.retain(|it| it.kind.severity() == Severity::Damage);
        findings.retain(|it| !(is_behind && it.kind == Kind::UnfinishedWithin));
        assert!(findings.is_empty(), "verify: {findings:?}");
    }

    /// Checks the result of an actor that has exited with 0.
    pub fn assert_done(&self, zodb: &mut Zodb) {
        if self.scenario.actor.is_pass() && self.scenario.is_off != Switched::After {
            zodb.assert_in_sync(&self.scene.master, &self.scene.slave);
        }
    }

    /// No file of unfinished work is left.
    pub fn assert_tidy(&self) {
        for suffix in [".fssync-tmp", ".fssync-new"] {
            let is_left = self.scene.beside(suffix).exists();
            assert!(!is_left, "{suffix} is left");
        }
        let received = blobs_beside(&self.scene.slave).join(".fssync/tmp");
        if self.scene.has_blobs && received.exists() {
            assert_eq!(names(&received), [""; 0], "received blobs are left");
        }
    }

    /// A tail is saved once, and only if it was truncated.
    pub fn assert_tail_saved_once(&self) {
        let slave = fs::read(&self.scene.slave).ok();
        let is_truncated = slave != self.before.slave && self.scenario.tail_len > 0;
        let names = self.scene.beside_slave();
        let copies = names.iter().filter(|name| name.contains(".tr"));
        assert_eq!(copies.count(), usize::from(is_truncated), "{names:?}");
    }

    /// No file has changed, except for the result of a verification.
    pub fn assert_untouched(&self) {
        let mut files = files(&self.scene);
        files.retain(|name, _| !name.contains(".fssync-verified"));
        assert!(files.keys().eq(self.files_before.keys()), "{files:?}");
        assert!(files == self.files_before, "written to");
    }

    /// Checks the slave after the next pass has succeeded. Another pass has nothing to do.
    pub fn assert_recovered(&self, zodb: &mut Zodb) {
        let lasting = || {
            let mut files = files(&self.scene);
            files.remove("Data.fs.fssync");
            files
        };
        self.assert_complete(zodb);
        let complete = lasting();
        self.scene.expect("up-to-date");
        if lasting() != complete {
            self.assert_complete(zodb);
        }
    }

    /// Slave and master are in sync, and the files beside the slave are complete.
    fn assert_complete(&self, zodb: &mut Zodb) {
        let scene = &self.scene;
        scene.assert_documented_names();
        self.assert_tidy();
        zodb.assert_in_sync(&scene.master, &scene.slave);
        zodb.assert_index(&scene.slave).expect("an index");
        ledger::assert_whole(&scene.slave);
        if scene.has_blobs {
            assert_blobs_are_the_masters(scene, zodb);
        }
        let files = files(scene);
        let len = files["Data.fs"].len() as u64;
        let opened = zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
        assert_eq!(opened["position"], len, "as its index says");
        // Otherwise the master has changed since.
        if self.scenario.then.is_none() {
            self.assert_transactions(&files, len);
        }
    }
}

fn files(scene: &Scene) -> Files {
    let names = scene.beside_slave().into_iter();
    let file = |name: String| {
        let path = scene.slave.with_file_name(&name);
        // The blob directory is checked by loading the blobs.
        path.is_file()
            .then(|| (name, fs::read(path).expect("a file")))
    };
    names.filter_map(file).collect()
}

/// ZODB can load each blob that the slave refers to. If there is no blob directory, the slave has
/// no transaction.
fn assert_blobs(scene: &Scene, zodb: &mut Zodb) -> u64 {
    let directory = blobs_beside(&scene.slave);
    if !scene.has_blobs {
        return 0;
    }
    if !directory.exists() {
        let len = fs::metadata(&scene.slave).expect("the slave").len();
        assert_eq!(len, MAGIC_LEN, "transactions without a blob directory");
        return 0;
    }
    let slave = Blobs {
        file: &scene.slave,
        directory: &directory,
        expected: None,
        journal: Some(&BlobHistory::get().journal()),
    };
    zodb.assert_blobs(&slave, Setup::FileStorage)
}

/// The slave has all blobs of its log, and no temporary file. Size, content and time of each one
/// are those of the master's file.
fn assert_blobs_are_the_masters(scene: &Scene, zodb: &mut Zodb) {
    let [master, slave] = [&scene.master, &scene.slave].map(|file| blobs_beside(file));
    let of_master = on_disk(&master);
    assert_eq!(assert_blobs(scene, zodb), of_master.len() as u64);
    let layout = |directory: &Path| {
        let text = fs::read(directory.join(LAYOUT_FILE)).expect(".layout");
        Layout::parse(&text).expect("a layout")
    };
    for key in of_master {
        let [theirs, ours] = [&master, &slave].map(|it| it.join(layout(it).path(key)));
        let [was, is] = [&theirs, &ours].map(|path| fs::metadata(path).expect("a blob"));
        let time = |it: &fs::Metadata| (it.mtime(), it.mtime_nsec());
        assert_eq!(time(&is), time(&was), "the time of {}", ours.display());
        let bytes = [theirs, ours].map(|path| fs::read(path).expect("a blob"));
        assert!(bytes[0] == bytes[1], "{key:?} has the master's bytes");
    }
}
