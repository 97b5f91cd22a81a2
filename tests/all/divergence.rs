//! Every way in which a slave and a master can differ, as a table: the output and effect of a
//! pass, of `--dry-run`, and the files that `--full` keeps.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Run, Scene, Transport, Zodb, project, replace};

/// The ends of transactions in the fixtures; see `expected.json`. `packed-gc` is `unpacked`
/// after a pack.
const COMMITS_LAGGING: usize = 1362;
const UNPACKED_LAST_KEPT: usize = 2146;
const UNPACKED_LAST_GONE: usize = 2318;

/// Tids of transactions that end there.
const TID_LAGGING: &str = "0405ff75a6666666";
const TID_LAST_GONE: &str = "0405ff9284444444";
const TID_COMMITS: &str = "0405ff9284444444";
const TID_UNDO: &str = "0405ffbdd1111111";
const TID_UNPACKED: &str = "0405ffb699999999";

/// The tid in the name of a slave without transactions.
const NO_TID: &str = "0000000000000000";

/// Creates the files of a case.
type SetUp = Box<dyn Fn(&mut Files)>;

/// A way in which the two files differ.
struct Case {
    name: String,
    set_up: SetUp,
    exit: i32,
    action: &'static str,
    /// Texts that the log must contain.
    says: &'static [&'static str],
    /// The expected fate of the old slave.
    old: Old,
    /// The same with `--full`, and the exit code of that pass.
    old_if_full: Old,
    exit_if_full: i32,
}

/// The expected fate of the old slave.
#[derive(Clone, Copy)]
enum Old {
    /// It is not touched.
    Untouched,
    /// The pass appends to it.
    Grows,
    /// It is replaced and not kept.
    Goes,
    /// It is replaced, and kept under a name with this tid.
    Aside(&'static str),
    /// The same, with the tid of its last transaction.
    AsideAsLast,
}

/// The files of a case, and a ZODB to write them.
struct Files {
    scene: Scene,
    zodb: Zodb,
    transport: Transport,
}

impl Files {
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

    /// Writes the master, in the same file if there is one.
    fn master(&self, bytes: &[u8]) {
        fs::write(&self.scene.master, bytes).expect("the master");
    }

    /// The slave as a pass leaves it, copied from this master.
    fn synced(&self, bytes: &[u8]) {
        self.master(bytes);
        self.scene.expect("full-copy");
    }

    /// Writes the slave without a pass.
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

    /// Commits to the slave as ZEO does after a failover.
    fn grow_slave(&mut self, count: u32) {
        let path = self.scene.slave.clone();
        let what = json!({"user": "/site admin", "description": "after the failover"});
        self.commit(&path, count, &what);
    }

    /// The slave gets a last transaction without references to it, and a pack of the master
    /// drops it.
    fn pack_away_the_last(&mut self) {
        let path = self.scene.master.clone();
        self.commit(&path, 1, &json!({"objects": 0}));
        self.scene.expect("append");
        self.pack(&path);
    }

    /// Puts another database in the place of the master, as ZEO does if it finds none.
    fn replace_by_another_database(&mut self, count: u32) {
        fs::remove_file(&self.scene.master).expect("the master goes");
        let path = self.scene.master.clone();
        let open = json!({"cmd": "open", "name": "one", "path": path, "create": true});
        self.zodb.call(&open);
        self.zodb.call(&json!({"cmd": "close", "name": "one"}));
        self.commit(&path, count, &json!({"objects": 2}));
    }

    /// Packs a file with ZODB. The pack must change it.
    fn pack(&mut self, path: &Path) {
        self.zodb
            .call(&json!({"cmd": "open", "name": "one", "path": path}));
        let answer = self.zodb.call(&json!({"cmd": "pack", "name": "one"}));
        assert_eq!(answer["packed"], true, "{answer}");
        self.zodb.call(&json!({"cmd": "close", "name": "one"}));
    }

    /// The tids of the slave's transactions from `position` on.
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

    /// The files beside the slave, without those of passes and of ZODB.
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

    /// All files in the slave's directory.
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

/// A history that is longer than the digests in a sidecar cover.
fn long(files: &mut Files) -> Vec<u8> {
    files.master(&fixture("commits"));
    let path = files.scene.master.clone();
    files.commit(&path, 4, &json!({"size": 40_000}));
    fs::read(path).unwrap()
}

/// `packed-gc` with these bytes appended.
fn packed_and(tail: &[u8]) -> Vec<u8> {
    [&fixture("packed-gc"), tail].concat()
}

/// A transaction that is voted and not finished.
fn vote() -> Vec<u8> {
    fixture("voted").split_off(fixture("commits").len())
}

/// `packed-gc` with a wrong length in the middle.
fn packed_and_damaged() -> Vec<u8> {
    let mut bytes = fixture("packed-gc");
    bytes[PACKED_DAMAGED_FROM + 15] ^= 1;
    bytes
}

/// The start of a transaction in `packed-gc`.
const PACKED_DAMAGED_FROM: usize = 742;

/// A case in which no person has to decide.
fn repairable(
    name: &str,
    action: &'static str,
    says: &'static [&'static str],
    set_up: fn(&mut Files),
) -> Case {
    Case {
        name: name.to_owned(),
        set_up: Box::new(set_up),
        exit: 0,
        action,
        says,
        old: match action {
            "append" => Old::Grows,
            _ => Old::Untouched,
        },
        old_if_full: Old::Goes,
        exit_if_full: 0,
    }
}

/// Cases in which the slave is a prefix of the master, with or without a sidecar.
fn slave_is_a_prefix() -> Vec<Case> {
    let case = repairable;
    vec![
        case("in sync", "up-to-date", &[], |files| {
            files.synced(&fixture("commits"));
        }),
        case("lagging", "append", &[], |files| {
            files.synced(&fixture("commits")[..COMMITS_LAGGING]);
            files.master(&fixture("commits"));
        }),
        case("lagging, no sidecar", "append", PROVED, |files| {
            files.slave(&fixture("commits")[..COMMITS_LAGGING]);
            files.master(&fixture("commits"));
        }),
        case("in sync, no sidecar", "up-to-date", PROVED, |files| {
            files.synced(&fixture("commits"));
            files.lose_sidecar();
        }),
        case("an invalid sidecar", "append", &["ignoring"], |files| {
            files.slave(&fixture("commits")[..COMMITS_LAGGING]);
            fs::write(files.beside("Data.fs.fssync"), "{\"left\": 7}").unwrap();
            files.master(&fixture("commits"));
        }),
        case("restored from a backup", "append", PROVED, |files| {
            files.synced(&fixture("commits"));
            files.slave(&fixture("commits")[..COMMITS_LAGGING]);
        }),
    ]
}

/// Cases in which the master is a new file with the slave's bytes.
fn master_is_another_file() -> Vec<Case> {
    let case = repairable;
    vec![
        case("another inode, same bytes", "up-to-date", PROVED, |files| {
            files.synced(&fixture("commits"));
            replace(&files.scene.master, &fixture("commits"));
        }),
        case("another inode, and more", "append", PROVED, |files| {
            files.synced(&fixture("commits")[..COMMITS_LAGGING]);
            replace(&files.scene.master, &fixture("commits"));
        }),
        case("failed back", "up-to-date", PROVED, |files| {
            files.synced(&fixture("commits"));
            files.grow_slave(3);
            fs::copy(&files.scene.slave, &files.scene.master).unwrap();
        }),
        case("failed back by rename", "append", PROVED, |files| {
            files.synced(&fixture("commits"));
            files.grow_slave(3);
            replace(&files.scene.master, &fs::read(&files.scene.slave).unwrap());
            files.grow_master(1);
        }),
    ]
}

/// Logged by a pass that compares the whole files.
const PROVED: &[&str] = &["comparing the slave with the master"];

/// A case that a full copy repairs.
fn copied(name: &str, old: Old, set_up: impl Fn(&mut Files) + 'static) -> Case {
    Case {
        name: name.to_owned(),
        set_up: Box::new(set_up),
        exit: 0,
        action: "full-copy",
        says: match old {
            Old::Aside(_) | Old::AsideAsLast => &["full backup", "the old slave is kept as"],
            _ => &["full backup"],
        },
        old,
        old_if_full: old,
        exit_if_full: 0,
    }
}

/// Cases in which the master was packed and the slave was not changed.
fn packed() -> Vec<Case> {
    let up_to = |position, packed| {
        move |files: &mut Files| {
            files.synced(&fixture("unpacked")[..position]);
            replace(&files.scene.master, &fixture(packed));
        }
    };
    let all = fixture("unpacked").len();
    vec![
        copied("packed", Old::Goes, up_to(all, "packed-gc")),
        copied(
            "packed without garbage collection",
            Old::Goes,
            up_to(all, "packed-nogc"),
        ),
        copied(
            "packed and grown again",
            Old::Goes,
            up_to(all, "packed-regrown"),
        ),
        copied(
            "packed, slave lagging, its last transaction kept",
            Old::Goes,
            up_to(UNPACKED_LAST_KEPT, "packed-gc"),
        ),
        copied(
            "packed, slave lagging, its last transaction dropped",
            Old::Aside(TID_LAST_GONE),
            up_to(UNPACKED_LAST_GONE, "packed-gc"),
        ),
        copied("packed, a vote under way", Old::Goes, |files| {
            files.synced(&fixture("unpacked"));
            replace(&files.scene.master, &packed_and(&vote()));
        }),
        copied("packed, a vote being written", Old::Goes, |files| {
            files.synced(&fixture("unpacked"));
            replace(&files.scene.master, &packed_and(&vote()[..100]));
        }),
        copied("packed in the same inode", Old::Goes, |files| {
            files.synced(&fixture("unpacked"));
            files.master(&fixture("packed-regrown"));
        }),
        copied(
            "packed, the slave's last transaction dropped, no packed one after it",
            Old::AsideAsLast,
            |files| {
                files.synced(&fixture("unpacked"));
                files.pack_away_the_last();
            },
        ),
        copied(
            "packed, the slave's last transaction dropped, others after it",
            Old::AsideAsLast,
            |files| {
                files.synced(&fixture("unpacked"));
                files.pack_away_the_last();
                files.grow_master(1);
            },
        ),
    ]
}

/// Cases in which a full copy loses nothing.
fn nothing_to_lose() -> Vec<Case> {
    vec![
        copied("another magic, same transactions", Old::Goes, |files| {
            let mut bytes = long(files);
            files.synced(&bytes);
            bytes[..4].copy_from_slice(b"FS21");
            files.master(&bytes);
        }),
        copied("a slave with only its magic", Old::Goes, |files| {
            files.slave(b"FS30");
            files.master(&fixture("commits"));
        }),
        copied("a slave that is empty", Old::Goes, |files| {
            files.slave(b"");
            files.master(&fixture("commits"));
        }),
    ]
}

/// A case in which the slave has a transaction that the master lacks.
fn diverged(name: &str, says: &'static [&'static str], set_up: fn(&mut Files)) -> Case {
    Case {
        name: name.to_owned(),
        set_up: Box::new(set_up),
        exit: 20,
        action: "refuse",
        says,
        old: Old::Untouched,
        old_if_full: Old::AsideAsLast,
        exit_if_full: 0,
    }
}

/// Cases in which the slave was changed after the last pass.
fn slave_changed() -> Vec<Case> {
    let case = diverged;
    vec![
        case("grown", GROWN, |files| {
            files.synced(&fixture("commits"));
            files.grow_slave(2);
        }),
        case("both grown", GROWN, |files| {
            files.synced(&fixture("commits"));
            files.grow_slave(2);
            files.grow_master(1);
        }),
        case("grown, and the master was packed", GROWN, |files| {
            files.synced(&fixture("unpacked"));
            files.grow_slave(2);
            replace(&files.scene.master, &fixture("packed-gc"));
        }),
        case("grown, no sidecar", BEHIND, |files| {
            files.synced(&fixture("commits"));
            files.grow_slave(2);
            files.lose_sidecar();
        }),
        case("both grown, no sidecar", DIVERGED, |files| {
            files.synced(&fixture("commits"));
            files.grow_slave(2);
            files.lose_sidecar();
            files.grow_master(1);
        }),
        case("another history of its own", DIVERGED, |files| {
            files.slave(&fixture("extensions"));
            files.grow_slave(1);
            files.master(&fixture("commits"));
            files.grow_master(1);
        }),
        case("packed", DIFFER, |files| {
            files.synced(&fixture("unpacked"));
            files.slave(&fixture("packed-gc"));
        }),
        case("restored from a backup and grown", CHANGED, |files| {
            files.synced(&fixture("commits"));
            files.slave(&fixture("commits")[..COMMITS_LAGGING]);
            files.grow_slave(2);
        }),
        case("changed at its end", CHANGED, |files| {
            files.synced(&fixture("commits"));
            files.flip(fixture("commits").len() as u64 - 20);
        }),
        case("changed in the middle, no sidecar", DIFFER, |files| {
            let bytes = long(files);
            files.synced(&bytes);
            files.lose_sidecar();
            files.flip(bytes.len() as u64 / 2);
        }),
    ]
}

/// Cases in which the master lost data.
fn master_changed() -> Vec<Case> {
    let case = diverged;
    vec![
        case("master restored in place", BEHIND, |files| {
            files.synced(&fixture("commits"));
            files.master(&fixture("commits")[..COMMITS_LAGGING]);
        }),
        case("master restored by rename", BEHIND, |files| {
            files.synced(&fixture("commits"));
            replace(&files.scene.master, &fixture("commits")[..COMMITS_LAGGING]);
        }),
        case("master restored and grown", DIVERGED, |files| {
            files.synced(&fixture("commits"));
            files.master(&fixture("commits")[..COMMITS_LAGGING]);
            files.grow_master(2);
        }),
        case(
            "master restored and grown past the slave",
            DIVERGED,
            |files| {
                files.synced(&fixture("commits"));
                replace(&files.scene.master, &fixture("commits")[..COMMITS_LAGGING]);
                files.grow_master(30);
            },
        ),
        case("master without a transaction", BEHIND, |files| {
            files.synced(&fixture("commits"));
            files.master(&fixture("empty"));
        }),
        case("master restored, grown and packed", DIVERGED, |files| {
            files.synced(&fixture("unpacked"));
            files.master(&fixture("unpacked")[..UNPACKED_LAST_KEPT]);
            files.grow_master(3);
            let path = files.scene.master.clone();
            files.pack(&path);
        }),
        case("another database", DIVERGED, |files| {
            files.synced(&fixture("unpacked"));
            files.replace_by_another_database(3);
        }),
        case("another database, packed", DIVERGED, |files| {
            files.synced(&fixture("unpacked"));
            files.replace_by_another_database(3);
            let path = files.scene.master.clone();
            files.pack(&path);
        }),
        case("packed, slave lagging, no sidecar", DIVERGED, |files| {
            files.slave(&fixture("unpacked")[..UNPACKED_LAST_GONE]);
            files.master(&fixture("packed-gc"));
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
const DIVERGED: &[&str] = &[
    "the slave and the master have diverged",
    "that the master lacks",
];
const CHANGED: &[&str] = &["the slave was changed since the last pass"];
const DIFFER: &[&str] = &["the bytes before it differ"];

/// Cases in which ZODB cannot open the slave.
fn damaged_slaves() -> Vec<Case> {
    let case = |name: &str, says, tid, bytes: Vec<u8>| Case {
        name: format!("the slave is {name}"),
        set_up: Box::new(move |files| {
            files.slave(&bytes);
            files.master(&fixture("commits"));
        }),
        exit: 31,
        action: "refuse",
        says,
        old: Old::Untouched,
        old_if_full: Old::Aside(tid),
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
        .map(|name| case(name, DAMAGED, TID_LAGGING, fixture(name)))
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
const FOREIGN: &[&str] = &["the slave is not a FileStorage", "fssync --full"];

/// Cases in which the master is damaged. Everything before the damage is appended, but the
/// copy replaces a slave only with `--full`.
fn damaged_masters() -> Vec<Case> {
    vec![
        Case {
            name: "a damaged master, slave lagging".to_owned(),
            set_up: Box::new(|files| {
                files.synced(&fixture("commits")[..879]);
                files.master(&fixture("damage-length"));
            }),
            exit: 30,
            action: "append",
            says: MASTER_DAMAGED,
            old: Old::Grows,
            old_if_full: Old::Aside("0405ff6737777777"),
            exit_if_full: 30,
        },
        Case {
            name: "a damaged master, slave empty".to_owned(),
            set_up: Box::new(|files| {
                files.slave(b"");
                files.master(&fixture("damage-length"));
            }),
            exit: 30,
            action: "full-copy",
            says: MASTER_DAMAGED,
            old: Old::Goes,
            old_if_full: Old::Goes,
            exit_if_full: 30,
        },
        Case {
            name: "a master damaged in what the slave has".to_owned(),
            set_up: Box::new(|files| {
                files.synced(&fixture("commits"));
                files.master(&fixture("damage-length"));
            }),
            exit: 30,
            action: "error",
            says: MASTER_DAMAGED,
            old: Old::Untouched,
            old_if_full: Old::Aside(TID_COMMITS),
            exit_if_full: 30,
        },
        Case {
            name: "a master packed and damaged".to_owned(),
            set_up: Box::new(|files| {
                files.synced(&fixture("unpacked"));
                replace(&files.scene.master, &packed_and_damaged());
            }),
            exit: 30,
            action: "error",
            says: MASTER_DAMAGED,
            old: Old::Untouched,
            old_if_full: Old::Aside(TID_UNPACKED),
            exit_if_full: 30,
        },
    ]
}

const MASTER_DAMAGED: &[&str] = &["NOT SYNCING FROM MASTER", "is damaged", "record at"];

/// Makes a pass, and checks what became of the old slave.
fn check_outcome(files: &mut Files, name: &str, options: &[&str], (exit, old): (i32, Old)) -> Run {
    let before = fs::read(&files.scene.slave).unwrap();
    let last_tid = files
        .zodb
        .attempt(&json!({"cmd": "check", "path": files.scene.slave}));
    let everything = files.everything();
    let run = files.scene.pass(options);
    assert_eq!(run.code, exit, "{name} {options:?}: {run:?}");
    let after = fs::read(&files.scene.slave).unwrap();
    let kept = files.kept();
    let aside = match old {
        Old::Untouched => {
            let inode = fs::metadata(&files.scene.slave).unwrap().ino();
            assert!(everything["Data.fs"] == (inode, after), "{name}: untouched");
            None
        }
        Old::Grows => {
            assert!(
                after.len() > before.len() && after.starts_with(&before),
                "{name}: grown"
            );
            None
        }
        Old::Goes => None,
        Old::Aside(tid) => Some(tid.to_owned()),
        Old::AsideAsLast => Some(last_tid["last_tid"].as_str().expect("a tid").to_owned()),
    };
    let aside = aside.map(|tid| (format!("Data.fs.diverged-{tid}"), before));
    let names: Vec<_> = kept.keys().collect();
    assert!(
        kept == aside.into_iter().collect(),
        "{name} {options:?}: {names:?}"
    );
    run
}

/// Fails unless the slave has everything of the master that ZODB can read.
fn assert_has_readable_transactions(files: &mut Files, name: &str, exit: i32) {
    let Scene { master, slave, .. } = &files.scene;
    if exit == 0 {
        files.zodb.assert_in_sync(master, slave);
    } else {
        let (master, slave_bytes) = (fs::read(master).unwrap(), fs::read(slave).unwrap());
        assert!(master.starts_with(&slave_bytes), "{name}: a prefix");
        let found = files.zodb.check(slave);
        assert_eq!(found["position"], slave_bytes.len(), "{name}: {found}");
    }
}

/// Tries a case without options, with `--dry-run` and with `--full`.
fn try_case(files: &mut Files, case: &Case) {
    let name = &case.name;
    files.clear();
    (case.set_up)(files);
    let before = files.everything();
    let dry = files.scene.pass(&["--dry-run"]);
    assert_eq!(dry.code, case.exit, "{name} --dry-run: {dry:?}");
    assert!(files.everything() == before, "{name}: a dry run writes");

    let run = check_outcome(files, name, &[], (case.exit, case.old));
    for message in case.says {
        assert!(
            run.stderr.contains(message),
            "{name}: {message:?} in {run:?}"
        );
    }
    let (report, planned) = (run.report(), dry.report());
    assert_eq!(report["action"], case.action, "{name}: {report}");
    assert_eq!(planned["action"], case.action, "{name}: {planned}");
    if !matches!(case.old, Old::Untouched) {
        assert_has_readable_transactions(files, name, case.exit);
    }

    files.clear();
    (case.set_up)(files);
    let how = (case.exit_if_full, case.old_if_full);
    let run = check_outcome(files, name, &["--whole"], how);
    assert_eq!(
        run.report()["action"],
        "full-copy",
        "{name} --full: {run:?}"
    );
    assert_has_readable_transactions(files, name, case.exit_if_full);
    // The index of the old slave is gone.
    files.zodb.assert_index(&files.scene.slave);
}

fn try_all(cases: &[Case]) {
    for transport in Transport::BOTH {
        let mut files = Files::new(transport);
        for case in cases {
            try_case(&mut files, case);
        }
    }
}

#[test]
fn a_slave_that_is_a_prefix_of_the_master_is_brought_in_sync() {
    try_all(&slave_is_a_prefix());
    try_all(&master_is_another_file());
}

#[test]
fn a_packed_master_is_copied_and_a_slave_that_may_have_more_is_set_aside() {
    try_all(&packed());
    try_all(&nothing_to_lose());
}

#[test]
fn a_slave_with_changes_of_its_own_is_not_touched() {
    try_all(&slave_changed());
}

#[test]
fn a_slave_is_not_touched_if_its_master_lost_data() {
    try_all(&master_changed());
}

#[test]
fn a_slave_that_zodb_cannot_open_is_not_touched() {
    try_all(&damaged_slaves());
}

#[test]
fn a_damaged_master_does_not_replace_a_slave() {
    try_all(&damaged_masters());
}

#[test]
fn a_refusal_lists_the_transactions_that_only_the_slave_has() {
    let mut files = Files::new(Transport::Path);
    files.synced(&fixture("commits"));
    files.grow_slave(7);
    let tids = files.slave_tids_beyond(fixture("commits").len() as u64);
    let run = files.scene.pass(&[]).expect(20);
    let message = run.report()["reason"]
        .as_str()
        .expect("a reason")
        .to_owned();
    assert!(
        message.contains("the slave has 7 transactions"),
        "{message}"
    );
    assert!(message.contains(&format!("first {}", tids[0])), "{message}");
    assert!(message.contains(&format!("last {}", tids[6])), "{message}");
    for tid in &tids[2..] {
        let described = format!("{tid} by \"/site admin\": \"after the failover\"");
        assert!(message.contains(&described), "{described} in {message}");
    }
}

#[test]
fn zodb_opens_a_slave_that_was_set_aside() {
    let mut files = Files::new(Transport::Path);
    files.synced(&fixture("commits"));
    files.grow_slave(2);
    let tids = files.slave_tids_beyond(fixture("commits").len() as u64);
    files.scene.pass(&["--whole"]).expect(0);
    let aside = files.beside(&format!("Data.fs.diverged-{}", tids[1]));
    let opened = files
        .zodb
        .call(&json!({"cmd": "check_open", "path": aside}));
    assert_eq!(opened["last_tid"], tids[1].as_str(), "{opened}");
    let answer = files
        .zodb
        .call(&json!({"cmd": "transactions", "path": aside}));
    let found = answer["transactions"].as_array().expect("a list");
    let last_two = found[found.len() - 2..].iter().map(|found| &found["tid"]);
    assert!(last_two.eq(&tids), "{answer}");
}

#[test]
fn setting_a_slave_aside_never_overwrites_a_file() {
    let files = Files::new(Transport::Path);
    files.master(&fixture("commits"));
    for round in 0..3 {
        files.slave(&fixture("undo"));
        let run = files.scene.pass(&["--whole"]).expect(0);
        assert!(run.stderr.contains("is kept as"), "{run:?}");
        let kept = files.kept();
        assert_eq!(kept.len(), round + 1, "{:?}", kept.keys());
        assert!(kept.values().all(|bytes| *bytes == fixture("undo")));
    }
    let names: Vec<_> = files.kept().into_keys().collect();
    let first = format!("Data.fs.diverged-{TID_UNDO}");
    assert_eq!(
        names,
        [first.clone(), format!("{first}.1"), format!("{first}.2")]
    );
}
