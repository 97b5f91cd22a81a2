//! A case whose slave is on a disk that loses its power, and the checks of the result.

use std::fs;

use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Sidecar;

use super::cuts::is_blob;
use super::disk::{Disk, File, Meta, Op};
use super::mount::{MountedDisk, OWNER, Recording};
use crate::crash::actor::Actor;
use crate::crash::oracle::Case;
use crate::crash::scenario::{Scenario, Switched};
use crate::support::{Run, Zodb, fssync, run};

pub const DATA: &str = "Data.fs";

/// The files that ZODB reads.
const READ_BY_ZODB: [&str; 2] = [DATA, "Data.fs.index"];

/// The files that ZODB and `fssync off` open, which the slave's owner must be able to.
const OPENED_BY_OTHERS: [&str; 5] = [
    DATA,
    "Data.fs.index",
    "Data.fs.fssync-pass",
    // Opened in a step; a pass without anything to do has none.
    "Data.fs.fssync-step",
    "Data.fs.lock",
];

/// A case on a mounted disk.
pub struct DiskCase {
    // Unmounted before the directory of the case is removed.
    pub disk: MountedDisk,
    pub case: Case,
    pub zodb: Zodb,
}

impl DiskCase {
    pub fn prepare(scenario: &'static Scenario) -> Self {
        let scene = scenario.scene();
        let disk = MountedDisk::mount(scene.slave.parent().expect("a directory"));
        let mut zodb = Zodb::start();
        (scenario.prepare)(&scene, &mut zodb);
        if scenario.is_durable {
            disk.make_durable();
        }
        let case = Case::of(scenario, scene, &mut zodb);
        disk.take_log();
        Self { disk, case, zodb }
    }

    /// Runs the actor, undisturbed, and records its operations on the disk.
    pub fn record(&mut self) -> Recording {
        let start = self.disk.disk();
        self.run_actor().expect(self.case.scenario.exit_code);
        Recording {
            start,
            // The log has been kept since the disk was loaded.
            ops: self.disk.take_log(),
            is_success: true,
        }
    }

    pub fn run_actor(&self) -> Run {
        run(&mut self.case.scenario.actor.command(&self.case.scene))
    }

    /// After how many operations, of so many, the disk is checked.
    pub fn first_checked(&self, ops: usize) -> usize {
        if self.case.scenario.is_durable {
            0
        } else {
            ops
        }
    }

    /// Whether the next pass can be checked in the same way as the actor.
    pub fn may_be_cut_again(&self) -> bool {
        let Scenario { then, is_off, .. } = self.case.scenario;
        then.is_none() && *is_off == Switched::Never
    }

    /// Checks a disk that a power cut has left, and that the next pass repairs the slave. If
    /// the actor `is_done`, the disk must contain its whole result. Returns the recording of
    /// the next pass.
    pub fn check(&mut self, left: &Disk, start: &Disk, is_done: bool) -> Recording {
        assert_owners(left, start, &READ_BY_ZODB);
        assert_owners_of_blobs(left, start);
        self.disk.load(left.clone());
        self.case.assert_sound(&mut self.zodb);
        if is_done {
            self.case.assert_done(&mut self.zodb);
        }
        let next = self.check_next_pass(left, is_done);
        let data = start.named(DATA);
        let has_stepped = next.ops.iter().any(|op| match op {
            Op::Rename { to, .. } => to.name == DATA,
            Op::Write { node, .. } => Some(*node) == data,
            _ => false,
        });
        let opened = if has_stepped { 5 } else { 3 };
        assert_owners(&self.disk.disk(), start, &OPENED_BY_OTHERS[..opened]);
        next
    }

    /// The next pass succeeds, and nothing is left to do after it.
    fn check_next_pass(&mut self, left: &Disk, is_done: bool) -> Recording {
        let scenario = self.case.scenario;
        let scene = &self.case.scene;
        if let Some(then) = scenario.then {
            then(scene);
        }
        let paths = SlavePaths::new(&scene.slave).expect("paths");
        let has_sidecar = Sidecar::load(&paths)
            .expect("a sidecar")
            .last_sync
            .is_some();
        let options = match scenario.actor {
            Actor::Pass(options) => options,
            _ => &[],
        };
        self.disk.load(left.clone());
        let mut next = scene.pass(options);
        let must_be_off = is_done && scenario.is_off == Switched::After;
        if next.code == 10 && scenario.is_off != Switched::Never {
            assert!(!is_done || must_be_off, "syncing was switched on");
            assert_eq!(self.disk.disk().read(DATA), left.read(DATA), "untouched");
            run(fssync().arg("on").arg(&scene.slave)).expect(0);
            next = scene.pass(options);
        } else {
            assert!(!must_be_off, "syncing was switched off");
        }
        if next.code == 20 && !has_sidecar && !self.is_prefix_of_master(left) {
            // The master was packed, and the sidecar, which is not synced, is lost. Nothing
            // proves that the slave's transactions were the master's.
            next = self.case.scene.pass(&["--full"]);
        }
        next.expect(0);
        let ops = self.disk.take_log();
        self.case.assert_recovered(&mut self.zodb);
        if scenario.then.is_some() {
            fs::write(&self.case.scene.master, &self.case.before.master).expect("the master");
        }
        Recording {
            start: left.clone(),
            ops,
            is_success: true,
        }
    }

    /// Whether the committed part of the slave is a prefix of the master as it is now.
    fn is_prefix_of_master(&mut self, left: &Disk) -> bool {
        let scene = &self.case.scene;
        let found = self.zodb.check(&scene.slave);
        let position = found["position"].as_u64().expect("a position");
        let master = fs::read(&scene.master).expect("the master");
        let slave = left.read(DATA).expect("a slave");
        master.starts_with(&slave[..position as usize])
    }
}

/// New blobs belong to the owner of the blob directory, who can read them.
fn assert_owners_of_blobs(disk: &Disk, start: &Disk) {
    for (path, node) in disk.tree().paths() {
        let is_blob = path.starts_with("blobstorage/0x") && is_blob(&path);
        if is_blob && start.file(node).is_none() {
            let Meta { mode, uid, .. } = disk.file(node).expect("a file").meta();
            assert_eq!((uid, mode), (OWNER, 0o444), "owner and mode of {path}");
        }
    }
}

/// Files that others open belong to the slave's owner, who can open them. Those that ZODB reads
/// have the slave's mode, too.
fn assert_owners(disk: &Disk, start: &Disk, names: &[&str]) {
    let slave = start.named(DATA).and_then(|node| start.file(node));
    let (mode, uid) = slave.map_or((0o644, OWNER), |file| (file.meta().mode, file.meta().uid));
    for (name, node) in disk.tree().paths() {
        if start.file(node).is_none() && names.contains(&name.as_str()) {
            let meta = disk.file(node).map(File::meta).expect("a file");
            assert_eq!(meta.uid, uid, "the owner of {name}");
            let is_lock = !READ_BY_ZODB.contains(&name.as_str());
            assert!(
                is_lock || meta.mode == mode,
                "the mode of {name}: {:o}",
                meta.mode
            );
        }
    }
}
