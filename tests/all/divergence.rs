//! Every way in which a slave and a master can differ, as a table: what a pass
//! says and does, what `--dry-run` says, and what `--full` keeps.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Run, Scene, Transport, Zodb, project, replace};

/// Where transactions of the fixtures end; see `expected.json`. `packed-gc` is
/// `unpacked` without some of them.
const COMMITS_BEHIND: usize = 1362;
const UNPACKED_LAST_KEPT: usize = 2146;
const UNPACKED_LAST_GONE: usize = 2318;

/// Tids of transactions that end there.
const TID_BEHIND: &str = "0405ff75a6666666";
const TID_LAST_GONE: &str = "0405ff9284444444";
const TID_COMMITS: &str = "0405ff9284444444";
const TID_UNDO: &str = "0405ffbdd1111111";
const TID_UNPACKED: &str = "0405ffb699999999";

/// The tid of a slave that has none.
const NO_TID: &str = "0000000000000000";

/// Makes the files of a case.
type SetUp = Box<dyn Fn(&mut Stage)>;

/// A way in which they differ.
struct Case {
    name: String,
    set_up: SetUp,
    exit: i32,
    action: &'static str,
    /// What is said, in parts.
    says: &'static [&'static str],
    /// What becomes of the old slave.
    old: OldSlave,
    /// What becomes of it with `--full`, and how that ends.
    old_if_full: OldSlave,
    exit_if_full: i32,
}

/// What becomes of the old slave.
#[derive(Clone, Copy)]
enum OldSlave {
    /// It is left as it is.
    Untouched,
    /// It is appended to.
    Grows,
    /// It is replaced, and nothing of it is kept.
    Goes,
    /// It is replaced, and kept under the name with this tid.
    Aside(&'static str),
    /// The same, with the tid of its last transaction.
    AsideAsLast,
}

/// The files of a case, and ZODB to write them.
struct Stage {
    scene: Scene,
    zodb: Zodb,
    transport: Transport,
}

impl Stage {
    fn new(transport: Transport) -> Self {
        Self {
            scene: Scene::new().over(transport),
            zodb: Zodb::start(),
            transport,
        }
    }

    /// Removes all files.
    fn clear(&mut self) {
        self.scene = Scene::new().over(self.transport);
    }

    /// The master is this, in the same file if there is one.
    fn master(&self, bytes: &[u8]) {
        fs::write(&self.scene.master, bytes).expect("the master");
    }

    /// The slave is what a pass left when the master was this.
    fn synced(&self, bytes: &[u8]) {
        self.master(bytes);
        self.scene.expect("full-copy");
    }

    /// The slave is this, and no pass has seen it.
    fn slave(&self, bytes: &[u8]) {
        fs::write(&self.scene.slave, bytes).expect("the slave");
    }

    fn lose_sidecar(&self) {
        fs::remove_file(self.scene.slave.with_file_name("Data.fs.fssync")).expect("the sidecar");
    }

    /// Changes a byte of the slave in place.
    fn flip(&self, offset: u64) {
        let file = File::options().write(true).open(&self.scene.slave);
        file.and_then(|file| file.write_all_at(b"~", offset))
            .expect("a byte");
    }

    /// Opens a file with ZODB, commits and closes it.
    fn commit(&mut self, path: &Path, count: u32, what: &Value) {
        let mut command = json!({"cmd": "commit", "name": "one"});
        for (key, value) in what.as_object().expect("parameters") {
            command[key] = value.clone();
        }
        self.zodb
            .call(&json!({"cmd": "open", "name": "one", "path": path}));
        for _ in 0..count {
            self.zodb.call(&command);
        }
        self.zodb.call(&json!({"cmd": "close", "name": "one"}));
    }

    fn grow_master(&mut self, count: u32) {
        let path = self.scene.master.clone();
        self.commit(&path, count, &json!({"user": "editor"}));
    }

    /// What ZEO does to the slave after a failover.
    fn grow_slave(&mut self, count: u32) {
        let path = self.scene.slave.clone();
        let what = json!({"user": "/site admin", "description": "after the failover"});
        self.commit(&path, count, &what);
    }

    /// The slave gets a last transaction that nothing refers to, and a pack of
    /// the master drops it.
    fn pack_away_the_last(&mut self) {
        let path = self.scene.master.clone();
        self.commit(&path, 1, &json!({"objects": 0}));
        self.scene.expect("append");
        self.pack(&path);
    }

    /// Another database is put in the master's place: ZEO found none there and made one.
    fn put_another_database(&mut self, count: u32) {
        fs::remove_file(&self.scene.master).expect("the master goes");
        let path = self.scene.master.clone();
        let open = json!({"cmd": "open", "name": "one", "path": path, "create": true});
        self.zodb.call(&open);
        self.zodb.call(&json!({"cmd": "close", "name": "one"}));
        self.commit(&path, count, &json!({"objects": 2}));
    }

    /// Packs a file with ZODB, which must change it.
    fn pack(&mut self, path: &Path) {
        self.zodb
            .call(&json!({"cmd": "open", "name": "one", "path": path}));
        let answer = self.zodb.call(&json!({"cmd": "pack", "name": "one"}));
        assert_eq!(answer["packed"], true, "{answer}");
        self.zodb.call(&json!({"cmd": "close", "name": "one"}));
    }

    /// The tids of what the slave has beyond `position`.
    fn slave_tids_beyond(&mut self, position: u64) -> Vec<String> {
        let path = &self.scene.slave;
        let answer = self
            .zodb
            .call(&json!({"cmd": "transactions", "path": path}));
        let transactions = answer["transactions"].as_array().expect("a list");
        transactions
            .iter()
            .filter(|transaction| transaction["pos"].as_u64() >= Some(position))
            .map(|transaction| transaction["tid"].as_str().unwrap().to_owned())
            .collect()
    }

    /// What lies beside the slave, but for the passes' own files and ZODB's.
    fn kept(&self) -> BTreeMap<String, Vec<u8>> {
        const OWN: [&str; 9] = [
            "",
            ".fssync",
            ".fssync-ledger",
            ".fssync-verified",
            ".fssync-pass",
            ".fssync-step",
            ".lock",
            ".index",
            ".tmp",
        ];
        let names = self.scene.beside_slave().into_iter();
        names
            .filter(|name| OWN.iter().all(|suffix| *name != format!("Data.fs{suffix}")))
            .map(|name| (name.clone(), fs::read(self.beside(&name)).unwrap()))
            .collect()
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.scene.slave.with_file_name(name)
    }

    /// Everything in the slave's directory.
    fn everything(&self) -> BTreeMap<String, (u64, Vec<u8>)> {
        let names = self.scene.beside_slave().into_iter();
        names
            .map(|name| {
                let path = self.beside(&name);
                let inode = fs::metadata(&path).unwrap().ino();
                (name, (inode, fs::read(path).unwrap()))
            })
            .collect()
    }
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(project(&format!("fixtures/{name}.fs"))).expect("the fixture")
}

/// A history with more bytes than a sidecar has digests of.
fn long(stage: &mut Stage) -> Vec<u8> {
    stage.master(&fixture("commits"));
    let path = stage.scene.master.clone();
    stage.commit(&path, 4, &json!({"size": 40_000}));
    fs::read(path).unwrap()
}

/// `packed-gc` with more at its end.
fn packed_and(tail: &[u8]) -> Vec<u8> {
    [&fixture("packed-gc"), tail].concat()
}

/// A transaction that is voted and not finished.
fn vote() -> Vec<u8> {
    fixture("voted").split_off(fixture("commits").len())
}

/// `packed-gc` with a wrong length in its middle.
fn packed_and_damaged() -> Vec<u8> {
    let mut bytes = fixture("packed-gc");
    bytes[PACKED_DAMAGED_FROM + 15] ^= 1;
    bytes
}

/// Where a transaction of `packed-gc` starts.
const PACKED_DAMAGED_FROM: usize = 742;

/// A case in which nothing has to be decided by a person.
fn mendable(
    name: &str,
    action: &'static str,
    says: &'static [&'static str],
    set_up: fn(&mut Stage),
) -> Case {
    Case {
        name: name.to_owned(),
        set_up: Box::new(set_up),
        exit: 0,
        action,
        says,
        old: match action {
            "append" => OldSlave::Grows,
            _ => OldSlave::Untouched,
        },
        old_if_full: OldSlave::Goes,
        exit_if_full: 0,
    }
}

/// Cases in which the slave is a start of the master, with a sidecar or
/// without.
fn slave_is_a_prefix() -> Vec<Case> {
    let case = mendable;
    vec![
        case("in sync", "up-to-date", &[], |stage| {
            stage.synced(&fixture("commits"));
        }),
        case("lagging", "append", &[], |stage| {
            stage.synced(&fixture("commits")[..COMMITS_BEHIND]);
            stage.master(&fixture("commits"));
        }),
        case("lagging, no sidecar", "append", PROVED, |stage| {
            stage.slave(&fixture("commits")[..COMMITS_BEHIND]);
            stage.master(&fixture("commits"));
        }),
        case("in sync, no sidecar", "up-to-date", PROVED, |stage| {
            stage.synced(&fixture("commits"));
            stage.lose_sidecar();
        }),
        case("a senseless sidecar", "append", &["passed over"], |stage| {
            stage.slave(&fixture("commits")[..COMMITS_BEHIND]);
            fs::write(stage.beside("Data.fs.fssync"), "{\"left\": 7}").unwrap();
            stage.master(&fixture("commits"));
        }),
        case("an older slave put back", "append", PROVED, |stage| {
            stage.synced(&fixture("commits"));
            stage.slave(&fixture("commits")[..COMMITS_BEHIND]);
        }),
    ]
}

/// Cases in which another file with the slave's bytes is the master.
fn master_is_another_file() -> Vec<Case> {
    let case = mendable;
    vec![
        case("another inode, same bytes", "up-to-date", PROVED, |stage| {
            stage.synced(&fixture("commits"));
            replace(&stage.scene.master, &fixture("commits"));
        }),
        case("another inode, and more", "append", PROVED, |stage| {
            stage.synced(&fixture("commits")[..COMMITS_BEHIND]);
            replace(&stage.scene.master, &fixture("commits"));
        }),
        case("failed back", "up-to-date", PROVED, |stage| {
            stage.synced(&fixture("commits"));
            stage.grow_slave(3);
            fs::copy(&stage.scene.slave, &stage.scene.master).unwrap();
        }),
        case("failed back by rename", "append", PROVED, |stage| {
            stage.synced(&fixture("commits"));
            stage.grow_slave(3);
            replace(&stage.scene.master, &fs::read(&stage.scene.slave).unwrap());
            stage.grow_master(1);
        }),
    ]
}

/// What a pass says that compares the whole files.
const PROVED: &[&str] = &["comparing the slave with the master"];

/// A case that is mended by a full copy.
fn copied(name: &str, old: OldSlave, set_up: impl Fn(&mut Stage) + 'static) -> Case {
    Case {
        name: name.to_owned(),
        set_up: Box::new(set_up),
        exit: 0,
        action: "full-copy",
        says: match old {
            OldSlave::Aside(_) | OldSlave::AsideAsLast => {
                &["full backup", "the old slave is kept as"]
            }
            _ => &["full backup"],
        },
        old,
        old_if_full: old,
        exit_if_full: 0,
    }
}

/// Cases in which the master was packed, and the slave is as a pass left it.
fn packed() -> Vec<Case> {
    let up_to = |position, packed| {
        move |stage: &mut Stage| {
            stage.synced(&fixture("unpacked")[..position]);
            replace(&stage.scene.master, &fixture(packed));
        }
    };
    let all = fixture("unpacked").len();
    vec![
        copied("packed", OldSlave::Goes, up_to(all, "packed-gc")),
        copied(
            "packed, not collected",
            OldSlave::Goes,
            up_to(all, "packed-nogc"),
        ),
        copied(
            "packed and regrown",
            OldSlave::Goes,
            up_to(all, "packed-regrown"),
        ),
        copied(
            "packed, slave lagging, its last kept",
            OldSlave::Goes,
            up_to(UNPACKED_LAST_KEPT, "packed-gc"),
        ),
        copied(
            "packed, slave lagging, its last gone",
            OldSlave::Aside(TID_LAST_GONE),
            up_to(UNPACKED_LAST_GONE, "packed-gc"),
        ),
        copied("packed, a vote under way", OldSlave::Goes, |stage| {
            stage.synced(&fixture("unpacked"));
            replace(&stage.scene.master, &packed_and(&vote()));
        }),
        copied("packed, a vote being written", OldSlave::Goes, |stage| {
            stage.synced(&fixture("unpacked"));
            replace(&stage.scene.master, &packed_and(&vote()[..100]));
        }),
        copied("packed in the same inode", OldSlave::Goes, |stage| {
            stage.synced(&fixture("unpacked"));
            stage.master(&fixture("packed-regrown"));
        }),
        copied(
            "packed, its last gone, nothing packed behind",
            OldSlave::AsideAsLast,
            |stage| {
                stage.synced(&fixture("unpacked"));
                stage.pack_away_the_last();
            },
        ),
        copied(
            "packed, its last gone, others behind",
            OldSlave::AsideAsLast,
            |stage| {
                stage.synced(&fixture("unpacked"));
                stage.pack_away_the_last();
                stage.grow_master(1);
            },
        ),
    ]
}

/// Cases in which a full copy loses nothing.
fn nothing_to_lose() -> Vec<Case> {
    vec![
        copied("another head, same tail", OldSlave::Goes, |stage| {
            let mut bytes = long(stage);
            stage.synced(&bytes);
            bytes[..4].copy_from_slice(b"FS21");
            stage.master(&bytes);
        }),
        copied(
            "a slave with nothing but its magic",
            OldSlave::Goes,
            |stage| {
                stage.slave(b"FS30");
                stage.master(&fixture("commits"));
            },
        ),
        copied("a slave that is empty", OldSlave::Goes, |stage| {
            stage.slave(b"");
            stage.master(&fixture("commits"));
        }),
    ]
}

/// A case in which the slave has something that the master lacks.
fn diverged(name: &str, says: &'static [&'static str], set_up: fn(&mut Stage)) -> Case {
    Case {
        name: name.to_owned(),
        set_up: Box::new(set_up),
        exit: 20,
        action: "refuse",
        says,
        old: OldSlave::Untouched,
        old_if_full: OldSlave::AsideAsLast,
        exit_if_full: 0,
    }
}

/// Cases in which the slave has gone on alone, or was changed.
fn slave_changed() -> Vec<Case> {
    let case = diverged;
    vec![
        case("grown", GROWN, |stage| {
            stage.synced(&fixture("commits"));
            stage.grow_slave(2);
        }),
        case("grown, and so has the master", GROWN, |stage| {
            stage.synced(&fixture("commits"));
            stage.grow_slave(2);
            stage.grow_master(1);
        }),
        case("grown, and the master was packed", GROWN, |stage| {
            stage.synced(&fixture("unpacked"));
            stage.grow_slave(2);
            replace(&stage.scene.master, &fixture("packed-gc"));
        }),
        case("grown, no sidecar", BEHIND, |stage| {
            stage.synced(&fixture("commits"));
            stage.grow_slave(2);
            stage.lose_sidecar();
        }),
        case(
            "grown, no sidecar, and so has the master",
            DIVERGED,
            |stage| {
                stage.synced(&fixture("commits"));
                stage.grow_slave(2);
                stage.lose_sidecar();
                stage.grow_master(1);
            },
        ),
        case("another history of its own", DIVERGED, |stage| {
            stage.slave(&fixture("extensions"));
            stage.grow_slave(1);
            stage.master(&fixture("commits"));
            stage.grow_master(1);
        }),
        case("packed", DIFFER, |stage| {
            stage.synced(&fixture("unpacked"));
            stage.slave(&fixture("packed-gc"));
        }),
        case("put back older and grown", CHANGED, |stage| {
            stage.synced(&fixture("commits"));
            stage.slave(&fixture("commits")[..COMMITS_BEHIND]);
            stage.grow_slave(2);
        }),
        case("changed at its end", CHANGED, |stage| {
            stage.synced(&fixture("commits"));
            stage.flip(fixture("commits").len() as u64 - 20);
        }),
        case("changed in the middle, no sidecar", DIFFER, |stage| {
            let bytes = long(stage);
            stage.synced(&bytes);
            stage.lose_sidecar();
            stage.flip(bytes.len() as u64 / 2);
        }),
    ]
}

/// Cases in which the master lost something.
fn master_changed() -> Vec<Case> {
    let case = diverged;
    vec![
        case("master restored in place", BEHIND, |stage| {
            stage.synced(&fixture("commits"));
            stage.master(&fixture("commits")[..COMMITS_BEHIND]);
        }),
        case("master restored by rename", BEHIND, |stage| {
            stage.synced(&fixture("commits"));
            replace(&stage.scene.master, &fixture("commits")[..COMMITS_BEHIND]);
        }),
        case("master restored and grown", DIVERGED, |stage| {
            stage.synced(&fixture("commits"));
            stage.master(&fixture("commits")[..COMMITS_BEHIND]);
            stage.grow_master(2);
        }),
        case(
            "master restored and grown past the slave",
            DIVERGED,
            |stage| {
                stage.synced(&fixture("commits"));
                replace(&stage.scene.master, &fixture("commits")[..COMMITS_BEHIND]);
                stage.grow_master(30);
            },
        ),
        case("master without a transaction", BEHIND, |stage| {
            stage.synced(&fixture("commits"));
            stage.master(&fixture("empty"));
        }),
        case("master restored, grown and packed", DIVERGED, |stage| {
            stage.synced(&fixture("unpacked"));
            stage.master(&fixture("unpacked")[..UNPACKED_LAST_KEPT]);
            stage.grow_master(3);
            let path = stage.scene.master.clone();
            stage.pack(&path);
        }),
        case("another database", DIVERGED, |stage| {
            stage.synced(&fixture("unpacked"));
            stage.put_another_database(3);
        }),
        case("another database, packed", DIVERGED, |stage| {
            stage.synced(&fixture("unpacked"));
            stage.put_another_database(3);
            let path = stage.scene.master.clone();
            stage.pack(&path);
        }),
        case("packed, slave lagging, no sidecar", DIVERGED, |stage| {
            stage.slave(&fixture("unpacked")[..UNPACKED_LAST_GONE]);
            stage.master(&fixture("packed-gc"));
        }),
    ]
}

const GROWN: &[&str] = &[
    "has grown since last syncing",
    "the slave has 2 transactions that the master lacks",
    "\"/site admin\"",
    "\"after the failover\"",
    "fssync --full",
];
const BEHIND: &[&str] = &["the master has fallen behind the slave", "fssync --full"];
const DIVERGED: &[&str] = &["have gone different ways", "that the master lacks"];
const CHANGED: &[&str] = &["the slave is not what the last pass left"];
const DIFFER: &[&str] = &["the bytes before it differ"];

/// Cases in which the slave is no file that ZODB opens.
fn damaged_slaves() -> Vec<Case> {
    let case = |name: &str, says, tid, bytes: Vec<u8>| Case {
        name: format!("the slave is {name}"),
        set_up: Box::new(move |stage| {
            stage.slave(&bytes);
            stage.master(&fixture("commits"));
        }),
        exit: 31,
        action: "refuse",
        says,
        old: OldSlave::Untouched,
        old_if_full: OldSlave::Aside(tid),
        exit_if_full: 0,
    };
    let damaged = [
        "damage-header",
        "damage-length",
        "damage-record-exceeds",
        "damage-records-sum",
        "damage-status",
        "damage-tloc",
        "damage-version",
    ];
    let mut cases: Vec<_> = damaged
        .into_iter()
        .map(|name| case(name, DAMAGED, TID_BEHIND, fixture(name)))
        .collect();
    let foreign = fixture("damage-magic");
    cases.extend([
        case("damage-magic", FOREIGN, NO_TID, foreign),
        case("a word", FOREIGN, NO_TID, b"hello\n".to_vec()),
        case("zeros", FOREIGN, NO_TID, vec![0; 5000]),
    ]);
    cases
}

const DAMAGED: &[&str] = &["the slave is damaged", "record at 1", "fssync --full"];
const FOREIGN: &[&str] = &["the slave is no FileStorage", "fssync --full"];

/// Cases in which the master is damaged. All of it that is good is copied,
/// but it takes the place of a slave only with `--full`.
fn damaged_masters() -> Vec<Case> {
    vec![
        Case {
            name: "a damaged master, slave lagging".to_owned(),
            set_up: Box::new(|stage| {
                stage.synced(&fixture("commits")[..879]);
                stage.master(&fixture("damage-length"));
            }),
            exit: 30,
            action: "append",
            says: MASTER_DAMAGED,
            old: OldSlave::Grows,
            old_if_full: OldSlave::Aside("0405ff6737777777"),
            exit_if_full: 30,
        },
        Case {
            name: "a damaged master, slave empty".to_owned(),
            set_up: Box::new(|stage| {
                stage.slave(b"");
                stage.master(&fixture("damage-length"));
            }),
            exit: 30,
            action: "full-copy",
            says: MASTER_DAMAGED,
            old: OldSlave::Goes,
            old_if_full: OldSlave::Goes,
            exit_if_full: 30,
        },
        Case {
            name: "a master damaged in what the slave has".to_owned(),
            set_up: Box::new(|stage| {
                stage.synced(&fixture("commits"));
                stage.master(&fixture("damage-length"));
            }),
            exit: 30,
            action: "error",
            says: MASTER_DAMAGED,
            old: OldSlave::Untouched,
            old_if_full: OldSlave::Aside(TID_COMMITS),
            exit_if_full: 30,
        },
        Case {
            name: "a master packed and damaged".to_owned(),
            set_up: Box::new(|stage| {
                stage.synced(&fixture("unpacked"));
                replace(&stage.scene.master, &packed_and_damaged());
            }),
            exit: 30,
            action: "error",
            says: MASTER_DAMAGED,
            old: OldSlave::Untouched,
            old_if_full: OldSlave::Aside(TID_UNPACKED),
            exit_if_full: 30,
        },
    ]
}

const MASTER_DAMAGED: &[&str] = &["NOT SYNCING FROM MASTER", "is damaged", "record at"];

/// Makes a pass and judges what became of the old slave.
fn judge(stage: &mut Stage, name: &str, options: &[&str], (exit, old): (i32, OldSlave)) -> Run {
    let before = fs::read(&stage.scene.slave).unwrap();
    let last_tid = stage
        .zodb
        .attempt(&json!({"cmd": "check", "path": stage.scene.slave}));
    let everything = stage.everything();
    let run = stage.scene.pass(options);
    assert_eq!(run.code, exit, "{name} {options:?}: {run:?}");
    let after = fs::read(&stage.scene.slave).unwrap();
    let kept = stage.kept();
    let aside = match old {
        OldSlave::Untouched => {
            let inode = fs::metadata(&stage.scene.slave).unwrap().ino();
            assert!(everything["Data.fs"] == (inode, after), "{name}: untouched");
            None
        }
        OldSlave::Grows => {
            assert!(
                after.len() > before.len() && after.starts_with(&before),
                "{name}: grown"
            );
            None
        }
        OldSlave::Goes => None,
        OldSlave::Aside(tid) => Some(tid.to_owned()),
        OldSlave::AsideAsLast => Some(last_tid["last_tid"].as_str().expect("a tid").to_owned()),
    };
    let aside = aside.map(|tid| (format!("Data.fs.diverged-{tid}"), before));
    let names: Vec<_> = kept.keys().collect();
    assert!(
        kept == aside.into_iter().collect(),
        "{name} {options:?}: {names:?}"
    );
    run
}

/// Fails unless the slave holds all of the master that ZODB can read.
fn assert_has_what_is_good(stage: &mut Stage, name: &str, exit: i32) {
    let Scene { master, slave, .. } = &stage.scene;
    if exit == 0 {
        stage.zodb.assert_in_sync(master, slave);
    } else {
        let (master, slave_bytes) = (fs::read(master).unwrap(), fs::read(slave).unwrap());
        assert!(master.starts_with(&slave_bytes), "{name}: a prefix");
        let found = stage.zodb.check(slave);
        assert_eq!(found["position"], slave_bytes.len(), "{name}: {found}");
    }
}

/// Tries a case without options, with `--dry-run` and with `--full`.
fn try_case(stage: &mut Stage, case: &Case) {
    let name = &case.name;
    stage.clear();
    (case.set_up)(stage);
    let before = stage.everything();
    let dry = stage.scene.pass(&["--dry-run"]);
    assert_eq!(dry.code, case.exit, "{name} --dry-run: {dry:?}");
    assert!(stage.everything() == before, "{name}: a dry run writes");

    let run = judge(stage, name, &[], (case.exit, case.old));
    for said in case.says {
        assert!(run.stderr.contains(said), "{name}: {said:?} in {run:?}");
    }
    let (report, planned) = (run.report(), dry.report());
    assert_eq!(report["action"], case.action, "{name}: {report}");
    assert_eq!(planned["action"], case.action, "{name}: {planned}");
    if !matches!(case.old, OldSlave::Untouched) {
        assert_has_what_is_good(stage, name, case.exit);
    }

    stage.clear();
    (case.set_up)(stage);
    let how = (case.exit_if_full, case.old_if_full);
    let run = judge(stage, name, &["--full"], how);
    assert_eq!(
        run.report()["action"],
        "full-copy",
        "{name} --full: {run:?}"
    );
    assert_has_what_is_good(stage, name, case.exit_if_full);
    // None of the old slave's is left.
    stage.zodb.assert_index(&stage.scene.slave);
}

fn try_all(cases: &[Case]) {
    for transport in Transport::BOTH {
        let mut stage = Stage::new(transport);
        for case in cases {
            try_case(&mut stage, case);
        }
    }
}

#[test]
fn what_nobody_has_to_decide_is_mended() {
    try_all(&slave_is_a_prefix());
    try_all(&master_is_another_file());
}

#[test]
fn a_rewritten_master_is_copied_and_a_slave_that_may_have_more_is_kept() {
    try_all(&packed());
    try_all(&nothing_to_lose());
}

#[test]
fn a_slave_that_has_gone_on_alone_is_not_touched() {
    try_all(&slave_changed());
}

#[test]
fn a_slave_whose_master_lost_something_is_not_touched() {
    try_all(&master_changed());
}

#[test]
fn a_slave_that_zodb_does_not_open_is_not_touched() {
    try_all(&damaged_slaves());
}

#[test]
fn a_damaged_master_replaces_no_slave() {
    try_all(&damaged_masters());
}

#[test]
fn a_refusal_names_the_transactions_that_only_the_slave_has() {
    let mut stage = Stage::new(Transport::Path);
    stage.synced(&fixture("commits"));
    stage.grow_slave(7);
    let tids = stage.slave_tids_beyond(fixture("commits").len() as u64);
    let run = stage.scene.pass(&[]).expect(20);
    let said = run.report()["reason"]
        .as_str()
        .expect("a reason")
        .to_owned();
    assert!(said.contains("the slave has 7 transactions"), "{said}");
    assert!(said.contains(&format!("first {}", tids[0])), "{said}");
    assert!(said.contains(&format!("last {}", tids[6])), "{said}");
    for tid in &tids[2..] {
        let described = format!("{tid} by \"/site admin\": \"after the failover\"");
        assert!(said.contains(&described), "{described} in {said}");
    }
}

#[test]
fn what_is_set_aside_opens_and_holds_its_transactions() {
    let mut stage = Stage::new(Transport::Path);
    stage.synced(&fixture("commits"));
    stage.grow_slave(2);
    let tids = stage.slave_tids_beyond(fixture("commits").len() as u64);
    stage.scene.pass(&["--full"]).expect(0);
    let aside = stage.beside(&format!("Data.fs.diverged-{}", tids[1]));
    let opened = stage
        .zodb
        .call(&json!({"cmd": "check_open", "path": aside}));
    assert_eq!(opened["last_tid"], tids[1].as_str(), "{opened}");
    let answer = stage
        .zodb
        .call(&json!({"cmd": "transactions", "path": aside}));
    let found = answer["transactions"].as_array().expect("a list");
    let last_two = found[found.len() - 2..].iter().map(|found| &found["tid"]);
    assert!(last_two.eq(&tids), "{answer}");
}

#[test]
fn a_name_that_is_taken_is_never_overwritten() {
    let stage = Stage::new(Transport::Path);
    stage.master(&fixture("commits"));
    for round in 0..3 {
        stage.slave(&fixture("undo"));
        let run = stage.scene.pass(&["--full"]).expect(0);
        assert!(run.stderr.contains("is kept as"), "{run:?}");
        let kept = stage.kept();
        assert_eq!(kept.len(), round + 1, "{:?}", kept.keys());
        assert!(kept.values().all(|bytes| *bytes == fixture("undo")));
    }
    let names: Vec<_> = stage.kept().into_keys().collect();
    let first = format!("Data.fs.diverged-{TID_UNDO}");
    assert_eq!(
        names,
        [first.clone(), format!("{first}.1"), format!("{first}.2")]
    );
}
