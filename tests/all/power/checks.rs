//! A slave on a [`Powered`] disk, what is done to it, and the checks of what a power
//! cut leaves.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fssync::io::progress::Silent;
use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Sidecar;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::verify::finding::{Kind, Severity};
use fssync::verify::verify;
use serde_json::json;
use tempfile::TempDir;

use super::disk::{Disk, File, Op};
use super::mount::{OWNER, Powered, Recording};
use crate::crash::oracle::Before;
use crate::ledger;
use crate::support::{Run, Scene, Zodb, fssync, run};

pub const DATA: &str = "Data.fs";

/// What ZODB reads.
const FILES: [&str; 2] = [DATA, "Data.fs.index"];

/// What ZODB opens, and `fssync off`: they must be able to, as the slave's owner.
const OPENED_BY_OTHERS: [&str; 5] = [
    DATA,
    "Data.fs.index",
    "Data.fs.fssync-pass",
    // Opened in a step, which a pass without anything to do does not take.
    "Data.fs.fssync-step",
    "Data.fs.lock",
];

/// Something that is done to a slave, in which the power is cut.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Makes what there is before.
    pub set: fn(&mut Stage),
    /// What is done. Returns whether it ended well.
    pub act: fn(&mut Stage) -> bool,
    /// Those of the pass, and of the one that heals.
    pub options: &'static [&'static str],
    /// Whether the old slave must be kept.
    pub keeps_old: bool,
    /// How many bytes of the old slave are a tail that must be kept.
    pub tail_len: usize,
    /// What becomes of the master before the next pass.
    pub then: Option<fn(&Stage)>,
    /// Whether the switch is off once all is done.
    pub ends_off: bool,
    /// Whether what there is before is durable. Where it is not, only what is left in
    /// the end is checked.
    pub is_settled: bool,
}

/// A slave on a disk.
pub struct Stage {
    pub scenario: Scenario,
    // Dropped before the directory that it is mounted in.
    pub disk: Powered,
    pub scene: Scene,
    pub zodb: Zodb,
    /// What there was before.
    pub before: Before,
    plain: TempDir,
}

impl Stage {
    /// Sets a scenario.
    pub fn set(scenario: Scenario) -> Self {
        let scene = Scene::new();
        let mut stage = Self {
            scenario,
            disk: Powered::mount(scene.slave.parent().expect("a directory")),
            scene,
            zodb: Zodb::start(),
            before: Before::default(),
            plain: tempfile::tempdir().expect("a directory"),
        };
        (scenario.set)(&mut stage);
        if scenario.is_settled {
            stage.disk.settle();
        }
        stage.disk.take_log();
        stage.begin();
        stage
    }

    /// Takes what is there for what was there before.
    pub fn begin(&mut self) {
        let Scene { slave, master, .. } = &self.scene;
        self.before = Before {
            keeps_slave: self.scenario.keeps_old,
            tail_len: self.scenario.tail_len,
            ..Before::of(slave, master, &mut self.zodb)
        };
    }

    /// Plays it.
    pub fn act(&mut self) -> (bool, Recording) {
        let start = self.disk.disk();
        let ended_well = (self.scenario.act)(self);
        // The log has been kept since the disk was loaded.
        let ops = self.disk.take_log();
        (ended_well, Recording { start, ops })
    }

    /// After how many operations, of so many, what is left is to be sound.
    pub fn judges_from(&self, ops: usize) -> usize {
        if self.scenario.is_settled { 0 } else { ops }
    }

    /// Whether the pass that heals is one that can be checked in the same way.
    pub fn may_be_cut_again(&self) -> bool {
        self.scenario.then.is_none() && !self.scenario.ends_off
    }

    /// One pass with the scenario's options.
    pub fn pass(&self) -> Run {
        self.scene.pass(self.scenario.options)
    }

    /// Judges what a power cut has left, and that the next pass heals it. `is_done`, all
    /// had been done, and must be there. Returns what the next pass did.
    pub fn check(&mut self, left: &Disk, start: &Disk, is_done: bool) -> Recording {
        Self::check_owners(left, start, &FILES);
        self.check_slave(left, start, is_done);
        self.disk.load(left.clone());
        if left.read(DATA).is_some() {
            ledger::assert_right(&self.scene.slave);
            self.check_by_verify();
        }
        let healing = self.check_next_pass(left, is_done);
        let data = start.named(DATA);
        let has_stepped = healing.ops.iter().any(|op| match op {
            Op::Rename { to, .. } => to == DATA,
            Op::Write { node, .. } => Some(*node) == data,
            _ => false,
        });
        let opened = if has_stepped { 5 } else { 3 };
        Self::check_owners(&self.disk.disk(), start, &OPENED_BY_OTHERS[..opened]);
        healing
    }

    /// What others open is its owner's. A lock that is nobody else's yet is so once the
    /// next pass has been there, and whatever its mode, its owner can open it.
    fn check_owners(left: &Disk, start: &Disk, names: &[&str]) {
        let slave = start.named(DATA).and_then(|node| start.file(node));
        let (mode, uid) = slave.map_or((0o644, OWNER), |file| (file.meta().mode, file.meta().uid));
        for (name, node) in left.names() {
            if start.file(node).is_none() && names.contains(&name.as_str()) {
                let meta = left.file(node).map(File::meta).expect("a file");
                assert_eq!(meta.uid, uid, "{name}'s owner");
                let is_lock = !FILES.contains(&name.as_str());
                assert!(
                    is_lock || meta.mode == mode,
                    "{name}'s mode: {:o}",
                    meta.mode
                );
            }
        }
    }

    /// ZODB finds in it what it should.
    fn check_slave(&mut self, left: &Disk, start: &Disk, is_done: bool) {
        let Some(slave) = left.read(DATA) else {
            let was_there = self.before.slave.is_some();
            assert!(!was_there, "a slave that was there is there");
            assert!(!is_done, "a slave that was copied is there");
            return;
        };
        let path = self.lay_out(left);
        let found = self.zodb.check(&path);
        let open = json!({"cmd": "check_open", "path": path});
        let opened = self.zodb.call(&open);
        assert_eq!(opened["position"], found["position"], "as its index says");
        let index = "Data.fs.index";
        let is_old = self.before.slave.as_deref() == Some(slave);
        if !(is_old && left.named(index) == start.named(index)) {
            self.zodb.assert_index(&path);
        }
        let position = found["position"].as_u64().expect("a position") as usize;
        let bytes = |name: &str| left.read(name).unwrap_or_default().to_vec();
        let beside: Vec<(String, Vec<u8>)> = left
            .names()
            .map(|(name, _)| (name.clone(), bytes(name)))
            .collect();
        self.before.assert_sound(slave, position, &beside);
        if is_done && !self.scenario.ends_off {
            assert!(
                slave == self.before.master,
                "what was told to be in sync is so"
            );
        }
    }

    /// Writes the slave and its index to a directory that ZODB may do as it likes in.
    fn lay_out(&self, left: &Disk) -> PathBuf {
        for name in [DATA, "Data.fs.index"] {
            let path = self.plain.path().join(name);
            match left.read(name) {
                Some(bytes) => fs::write(path, bytes).expect("a copy"),
                None => drop(fs::remove_file(path)),
            }
        }
        self.plain.path().join(DATA)
    }

    /// Whether what is committed of the slave is what the master starts with now.
    fn is_start_of_master(&mut self, left: &Disk) -> bool {
        let path = self.lay_out(left);
        let position = self.zodb.check(&path)["position"]
            .as_u64()
            .expect("a position");
        let master = fs::read(&self.scene.master).expect("the master");
        let slave = left.read(DATA).expect("a slave");
        master.starts_with(&slave[..position as usize])
    }

    fn check_by_verify(&self) {
        let paths = SlavePaths::new(&self.scene.slave).expect("a place");
        let slave = Slave {
            switches: Switches::new(&paths, None),
            paths,
            interrupted: Arc::new(AtomicBool::new(false)),
        };
        let mut findings = Vec::new();
        let verified = verify(&slave, false, &Silent, &mut |finding| {
            findings.push(finding.clone());
        });
        let verified = verified.expect("it can be read");
        // Of several batches in one pass, the power cut may have taken back all that says
        // that the first ones were finished, and by whom.
        let left = Sidecar::load(&slave.paths).expect("a sidecar").last_sync;
        let is_behind = left.is_none_or(|left| left.slave.position < verified.position);
        findings.retain(|it| it.kind.severity() == Severity::Damage);
        findings.retain(|it| !(is_behind && it.kind == Kind::UnfinishedWithin));
        assert!(findings.is_empty(), "verify: {findings:?}");
    }

    /// The next pass succeeds.
    fn check_next_pass(&mut self, left: &Disk, is_done: bool) -> Recording {
        if let Some(then) = self.scenario.then {
            then(self);
        }
        let paths = SlavePaths::new(&self.scene.slave).expect("a place");
        let witness = Sidecar::load(&paths).expect("a sidecar").last_sync;
        let mut healing = self.pass();
        if healing.code == 10 && self.scenario.ends_off {
            assert_eq!(self.disk.disk().read(DATA), left.read(DATA), "untouched");
            run(fssync().arg("on").arg(&self.scene.slave)).expect(0);
            healing = self.pass();
        } else {
            assert!(!(is_done && self.scenario.ends_off), "it was switched off");
        }
        if healing.code == 20 && witness.is_none() && !self.is_start_of_master(left) {
            // The master was packed, and the sidecar is lost, which is not synced: that the
            // slave's transactions were the master's cannot be proven.
            healing = self.scene.pass(&["--full"]);
        }
        healing.expect(0);
        let ops = self.disk.take_log();
        self.zodb
            .assert_in_sync(&self.scene.master, &self.scene.slave);
        self.zodb.assert_index(&self.scene.slave).expect("an index");
        ledger::assert_whole(&self.scene.slave);
        self.scene.assert_documented_names();
        for suffix in [".fssync-tmp", ".fssync-new"] {
            assert!(
                !self.scene.beside(suffix).exists(),
                "{suffix} is left behind"
            );
        }
        if self.scenario.then.is_some() {
            fs::write(&self.scene.master, &self.before.master).expect("the master");
        }
        Recording {
            start: left.clone(),
            ops,
        }
    }
}
