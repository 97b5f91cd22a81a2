//! Masters that were rewritten: packed, repaired, converted. A full copy replaces the slave
//! only if a pack explains every transaction that is gone (Law 2).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Run, Scene, Zodb, fssync, must, project, python, replace, run};

/// A master with a history, its slave, and ZODB.
struct Setup {
    scene: Scene,
    zodb: Zodb,
}

/// Number of transactions in the history, with the creation of the root.
const LEN: usize = 14;

impl Setup {
    /// A slave in sync with a master whose transactions create and change objects.
    fn new() -> Self {
        let mut setup = Self {
            scene: Scene::new(),
            zodb: Zodb::start(),
        };
        let master = setup.scene.master.clone();
        setup.with(
            &json!({"path": master, "create": true, "seed": 3}),
            |setup| {
                for _ in 0..LEN {
                    setup.commit(2);
                }
            },
        );
        setup.scene.expect("full-copy");
        setup
    }

    /// Opens a file with ZODB, runs `act`, and closes the file.
    fn with(&mut self, open: &Value, act: impl FnOnce(&mut Self)) {
        let mut command = open.clone();
        command["cmd"] = json!("open");
        command["name"] = json!("m");
        self.zodb.call(&command);
        act(self);
        self.zodb.call(&json!({"cmd": "close", "name": "m"}));
    }

    fn commit(&mut self, objects: u32) {
        self.zodb
            .call(&json!({"cmd": "commit", "name": "m", "objects": objects, "size": 300}));
    }

    /// The master continues, like with ZEO after a repair.
    fn grow(&mut self) {
        let master = self.scene.master.clone();
        self.with(&json!({"path": master, "seed": 4}), |setup| setup.commit(1));
    }

    fn pack(&mut self) {
        let master = self.scene.master.clone();
        self.with(&json!({"path": master}), |setup| {
            let answer = setup.zodb.call(&json!({"cmd": "pack", "name": "m"}));
            assert_eq!(answer["packed"], true, "{answer}");
        });
    }

    /// The tid, start and end of each transaction in a file.
    fn transactions(&mut self, path: &PathBuf) -> Vec<(String, u64, u64)> {
        let answer = self
            .zodb
            .call(&json!({"cmd": "transactions", "path": path}));
        let end = fs::metadata(path).unwrap().len();
        let of = |each: &Value| {
            let tid = each["tid"].as_str().unwrap().to_owned();
            (tid, each["pos"].as_u64().unwrap())
        };
        let found: Vec<_> = answer["transactions"]
            .as_array()
            .unwrap()
            .iter()
            .map(of)
            .collect();
        let ends = found.iter().skip(1).map(|(_, start)| *start).chain([end]);
        let ends: Vec<_> = ends.collect();
        found
            .into_iter()
            .zip(ends)
            .map(|((tid, start), end)| (tid, start, end))
            .collect()
    }

    fn tids(&mut self, path: &PathBuf) -> BTreeSet<String> {
        self.transactions(path)
            .into_iter()
            .map(|(tid, ..)| tid)
            .collect()
    }

    /// Overwrites a part of the header of the master's `nth` transaction, like a bad sector.
    /// Returns its tid.
    fn damage(&mut self, nth: usize) -> String {
        let master = self.scene.master.clone();
        let (tid, start, _) = self.transactions(&master)[nth].clone();
        let file = File::options().write(true).open(&master).unwrap();
        file.write_all_at(&[0; 40], start + 8).unwrap();
        tid
    }

    /// Replaces the damaged master by the output of fsrecover. Returns whether there is any:
    /// its pack fails if an object refers to a missing one.
    fn recover(&mut self, options: &Value) -> bool {
        let to = self.scene.directory.path().join("recovered.fs");
        let mut command = options.clone();
        command["cmd"] = json!("recover");
        command["path"] = json!(self.scene.master);
        command["to"] = json!(to);
        let answer = self.zodb.attempt(&command);
        let is_recovered = answer["ok"] == true;
        if is_recovered {
            replace(&self.scene.master, &fs::read(&to).unwrap());
        } else {
            let error = answer["error"].as_str().unwrap();
            assert!(error.starts_with("KeyError"), "{answer}");
        }
        for suffix in ["", ".index", ".lock", ".tmp", ".old", ".pack"] {
            let _ = fs::remove_file(format!("{}{suffix}", to.display()));
        }
        is_recovered
    }

    /// The tids in the slave and in all files that are kept beside it.
    fn replicated(&mut self) -> BTreeSet<String> {
        let kept = |name: &String| name == "Data.fs" || name.starts_with("Data.fs.diverged-");
        let names = self.scene.beside_slave().into_iter().filter(kept);
        let paths: Vec<_> = names
            .map(|name| self.scene.slave.with_file_name(name))
            .collect();
        paths.iter().flat_map(|path| self.tids(path)).collect()
    }

    /// A pass copies the master, and keeps the old slave because only it has `tid`.
    #[track_caller]
    fn expect_kept(&mut self, tid: &str) {
        let planned = self.scene.pass(&["--dry-run"]).expect(0);
        assert!(warns(&planned, "would be kept"), "{planned:?}");
        let mut quiet = fssync();
        quiet
            .arg("-q")
            .args([&self.scene.master, &self.scene.slave]);
        let quiet = run(&mut quiet).expect(0);
        assert_eq!(quiet.stderr.lines().count(), 1, "{quiet:?}");
        assert!(
            quiet.stderr.contains("the old slave is kept as"),
            "{quiet:?}"
        );
        assert!(self.replicated().contains(tid), "{tid}: {quiet:?}");
        self.zodb
            .assert_in_sync(&self.scene.master, &self.scene.slave);
    }
}

/// People edit the site; then it is packed to the moment before its last edits.
fn edit(scene: &Scene, edits: u32, pack_before: Option<u32>, seed: u32) {
    let mut editor = Command::new(python());
    editor
        .arg(project("tests/zodb/editor.py"))
        .arg(&scene.master);
    editor.args([edits.to_string(), format!("--seed={seed}")]);
    editor.args(pack_before.map(|before| format!("--pack={before}")));
    must(&mut editor);
}

fn warns(run: &Run, message: &str) -> bool {
    let report = run.report();
    let warnings = report["warnings"].as_array().unwrap();
    warnings
        .iter()
        .any(|warning| warning.as_str().unwrap().contains(message))
}

#[test]
fn a_slave_with_a_transaction_that_fsrecover_dropped_is_kept() {
    for nth in [1, 5, LEN - 2] {
        let mut setup = Setup::new();
        let tid = setup.damage(nth);
        setup.recover(&json!({}));
        setup.grow();
        setup.expect_kept(&tid);
    }
}

#[test]
fn a_slave_is_kept_for_a_transaction_that_survived_an_earlier_pack() {
    let mut setup = Setup::new();
    setup.pack();
    setup.grow();
    setup.scene.expect("full-copy");
    let tid = setup.damage(2);
    setup.recover(&json!({}));
    setup.grow();
    setup.expect_kept(&tid);
}

/// `fsrecover -P 0` repairs and packs, so only the records can show that no pack dropped the
/// transaction. A transaction that a pack of the intact file drops too is not lost.
#[test]
fn a_repair_with_an_immediate_pack_is_detected() {
    let mut setup = Setup::new();
    edit(&setup.scene, 25, None, 5);
    let master = setup.scene.master.clone();
    let intact = fs::read(&master).unwrap();
    let len = setup.transactions(&master).len();
    setup.pack();
    let kept_by_a_pack = setup.tids(&master);
    let mut lost = 0;
    for nth in LEN + 3..len - 1 {
        setup.scene = Scene::new();
        fs::write(&setup.scene.master, &intact).unwrap();
        setup.scene.expect("full-copy");
        let tid = setup.damage(nth);
        if setup.recover(&json!({"packed": true})) && kept_by_a_pack.contains(&tid) {
            setup.expect_kept(&tid);
            lost += 1;
        }
    }
    assert!(lost > 1, "only {lost} transactions were lost");
}

#[test]
fn a_repair_that_keeps_a_part_of_a_transaction_is_detected() {
    for partial in [false, true] {
        let mut setup = Setup::new();
        let master = setup.scene.master.clone();
        setup.with(&json!({"path": master}), |setup| {
            setup.commit(5);
            setup.commit(1);
        });
        setup.scene.expect("append");
        let transactions = setup.transactions(&master);
        let (tid, start, end) = transactions[transactions.len() - 2].clone();
        // The length of the last pickle is wrong: fsrecover saves the records before it.
        let bytes = fs::read(&master).unwrap();
        let tloc = start.to_be_bytes();
        let last_tloc = bytes[start as usize..end as usize]
            .windows(tloc.len())
            .rposition(|window| window == tloc)
            .unwrap();
        let file = File::options().write(true).open(&master).unwrap();
        let plen = start + last_tloc as u64 + 8 + 2;
        file.write_all_at(&0x7fff_ffff_u64.to_be_bytes(), plen)
            .unwrap();
        setup.recover(&json!({"partial": partial}));
        assert!(setup.tids(&master).contains(&tid), "a part is saved");
        setup.expect_kept(&tid);
    }
}

#[test]
fn a_conversion_that_omits_a_transaction_is_detected() {
    for nth in [0, 3, LEN - 3] {
        let mut setup = Setup::new();
        let master = setup.scene.master.clone();
        let tid = setup.transactions(&master)[nth].0.clone();
        let to = setup.scene.directory.path().join("converted.fs");
        setup
            .zodb
            .call(&json!({"cmd": "copy_without", "path": master, "to": to, "tids": [tid]}));
        replace(&master, &fs::read(&to).unwrap());
        setup.expect_kept(&tid);
    }
}

#[test]
fn a_complete_conversion_replaces_the_slave() {
    let mut setup = Setup::new();
    let master = setup.scene.master.clone();
    let to = setup.scene.directory.path().join("converted.fs");
    setup
        .zodb
        .call(&json!({"cmd": "copy_without", "path": master, "to": to, "tids": []}));
    let mut converted = fs::read(&to).unwrap();
    // The same transactions with a different magic.
    converted[3] ^= 1;
    converted[..4].copy_from_slice(b"FS21");
    replace(&master, &converted);
    let report = setup.scene.expect("full-copy");
    assert_eq!(report["warnings"], json!([]), "{report}");
}

/// The pass that finds the damage in a packed master records it. Otherwise the repaired file
/// would look as if the pack had dropped the transaction.
#[test]
fn a_packed_master_that_was_damaged_and_repaired_is_not_trusted() {
    let mut setup = Setup::new();
    setup.pack();
    let tid = setup.damage(1);
    setup.scene.pass(&[]).expect(30);
    let damaged = fs::read(&setup.scene.master).unwrap();
    fs::remove_file(&setup.scene.master).unwrap();
    setup.scene.pass(&[]).expect(12);
    fs::write(&setup.scene.master, damaged).unwrap();
    setup.recover(&json!({}));
    setup.grow();
    setup.expect_kept(&tid);
    // The two are in sync now, so the damage no longer matters.
    let sidecar = fs::read(setup.scene.beside(".fssync")).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar["master_was_damaged"], false, "{sidecar}");
}

#[test]
fn a_resumed_copy_still_compares_all_transactions() {
    let mut setup = Setup::new();
    let tid = setup.damage(5);
    setup.recover(&json!({}));
    let bytes = fs::read(&setup.scene.master).unwrap();
    fs::write(
        setup.scene.beside(".fssync-tmp"),
        &bytes[..bytes.len() - 100],
    )
    .unwrap();
    let run = setup.scene.pass(&[]).expect(0);
    assert!(run.stderr.contains("resuming the copy"), "{run:?}");
    assert!(setup.replicated().contains(&tid), "{run:?}");
}

/// A site that people edit and undo, packed to now or to an earlier moment. The slave is kept
/// only if it lags and the pack dropped its last transaction.
#[test]
fn packs_of_an_edited_site_set_nothing_aside() {
    let scene = Scene::new();
    for round in 0..12 {
        edit(&scene, 15, None, round);
        scene.pass(&[]).expect(0);
        let edits = 10 * (round % 3);
        let before = round % 5 * edits / 8;
        edit(&scene, edits, Some(before), round + 100);
        let report = scene.pass(&[]).expect(0).report();
        assert_eq!(report["action"], "full-copy", "{report}");
        let lags = report["reason"].as_str().unwrap().contains("no longer has");
        let is_kept = report["warnings"].to_string().contains("is kept as");
        assert_eq!(is_kept, lags, "round {round}: {report}");
        assert!(!lags || edits > 0, "round {round}: {report}");
    }
}

/// A database that ZEO creates if its disk is not mounted is not a successor, whatever is done
/// to it.
#[test]
fn another_database_never_replaces_the_slave() {
    let mut setup = Setup::new();
    let before = fs::read(&setup.scene.slave).unwrap();
    fs::remove_file(&setup.scene.master).unwrap();
    let master = setup.scene.master.clone();
    setup.with(
        &json!({"path": master, "create": true, "seed": 9}),
        |setup| setup.commit(1),
    );
    setup.scene.pass(&[]).expect(20);
    setup.grow();
    setup.scene.pass(&[]).expect(20);
    for _ in 0..2 {
        setup.grow();
        setup.pack();
        setup.scene.pass(&[]).expect(20);
    }
    assert_eq!(fs::read(&setup.scene.slave).unwrap(), before);
    assert_eq!(
        setup
            .scene
            .beside_slave()
            .iter()
            .filter(|it| it.contains("diverged"))
            .count(),
        0
    );
}

impl Setup {
    /// Replaces the master by a backup without the last transactions.
    fn restore_a_backup(&mut self) {
        let master = self.scene.master.clone();
        let (_, start, _) = self.transactions(&master)[LEN - 3].clone();
        let backup = fs::read(&master).unwrap()[..start as usize].to_vec();
        replace(&master, &backup);
    }
}

/// A master that was restored from a backup and then packed is refused. Only one pass reads it
/// in vain.
#[test]
fn a_restored_and_packed_master_is_refused_without_reading_it_again() {
    let mut setup = Setup::new();
    setup.restore_a_backup();
    setup.grow();
    setup.pack();
    let first = setup.scene.pass(&[]).expect(20);
    assert!(first.stderr.contains("full backup"), "{first:?}");
    for _ in 0..2 {
        let again = setup.scene.pass(&[]).expect(20);
        assert!(!again.stderr.contains("full backup"), "{again:?}");
        setup.grow();
    }
    setup.scene.pass(&["--full"]).expect(0);
    setup
        .zodb
        .assert_in_sync(&setup.scene.master, &setup.scene.slave);
}

/// After a master was refused, no pack makes it the slave's successor, whatever the pack
/// hides. Here both have edited the same folder.
#[test]
fn a_refused_master_stays_refused_after_a_pack() {
    let setup = Setup::new();
    edit(&setup.scene, 20, None, 1);
    setup.scene.expect("append");
    let backup = fs::read(&setup.scene.master).unwrap();
    edit(&setup.scene, 6, None, 2);
    setup.scene.expect("append");
    let right = fs::read(&setup.scene.master).unwrap();
    replace(&setup.scene.master, &backup);
    setup.scene.pass(&[]).expect(20);
    edit(&setup.scene, 30, None, 3);
    setup.scene.pass(&[]).expect(20);
    edit(&setup.scene, 1, Some(0), 4);
    for options in [&[][..], &["--dry-run"], &[]] {
        let run = setup.scene.pass(options).expect(20);
        assert!(!run.stderr.contains("full backup"), "{run:?}");
    }
    // The right file is back: from here on, a pack is accepted again.
    replace(&setup.scene.master, &right);
    setup.scene.pass(&[]).expect(0);
    edit(&setup.scene, 5, None, 5);
    setup.scene.expect("append");
    edit(&setup.scene, 0, Some(0), 6);
    setup.scene.expect("full-copy");
}

/// A bad sector in a pickle, or an editor, changes a transaction that both files have.
#[test]
fn a_slave_with_a_transaction_that_differs_is_kept() {
    let mut setup = Setup::new();
    edit(&setup.scene, 20, None, 7);
    let intact = fs::read(&setup.scene.master).unwrap();
    let master = setup.scene.master.clone();
    let transactions = setup.transactions(&master);
    setup.pack();
    let kept_by_a_pack = setup.tids(&master);
    let (_, _, end) = transactions[..transactions.len() - 1]
        .iter()
        .rfind(|(tid, ..)| kept_by_a_pack.contains(tid))
        .unwrap();
    for (in_place, packed, options) in [
        (false, false, &[][..]),
        (false, true, &[]),
        (true, false, &["--full"]),
    ] {
        setup.scene = Scene::new();
        fs::write(&setup.scene.master, &intact).unwrap();
        setup.scene.expect("full-copy");
        let mut bytes = intact.clone();
        // In the transaction's last pickle.
        bytes[*end as usize - 8 - 3] ^= 0x55;
        if in_place {
            fs::write(&setup.scene.master, &bytes).unwrap();
        } else {
            replace(&setup.scene.master, &bytes);
        }
        if packed {
            // Not packed by ZODB, which would read the pickle.
            replace(&setup.scene.master, &intact);
            setup.pack();
            let mut spoiled = fs::read(&setup.scene.master).unwrap();
            let pickle = &intact[*end as usize - 8 - 30..*end as usize - 8];
            let at = spoiled.windows(30).position(|it| it == pickle).unwrap();
            spoiled[at + 27] ^= 0x55;
            fs::write(&setup.scene.master, &spoiled).unwrap();
        }
        let dry_run = [options, &["--dry-run"]].concat();
        let planned = setup.scene.pass(&dry_run).expect(0);
        assert!(warns(&planned, "has other data"), "{planned:?}");
        let run = setup.scene.pass(options).expect(0);
        assert!(warns(&run, "has other data"), "{run:?}");
        let kept = setup.scene.beside_slave().into_iter();
        let kept: Vec<_> = kept.filter(|name| name.contains(".diverged-")).collect();
        assert_eq!(kept.len(), 1, "{run:?}");
        let kept = fs::read(setup.scene.slave.with_file_name(&kept[0])).unwrap();
        assert!(kept == intact, "the slave as it was");
    }
}

/// An object's creation is undone, and the undo is undone after the pack time. The pack keeps
/// the object's first record, and drops the transaction that undid it.
#[test]
fn a_pack_between_an_undo_and_its_undo_sets_nothing_aside() {
    let scene = Scene::new();
    let script = "import sys, time, ZODB, transaction\n\
                  from persistent.mapping import PersistentMapping\n\
                  from ZODB.FileStorage import FileStorage\n\
                  db = ZODB.DB(FileStorage(sys.argv[1]))\n\
                  root = db.open().root()\n\
                  def undo():\n\
                  \x20   db.undo(db.undoLog(0, 1)[0]['id'])\n\
                  \x20   transaction.commit()\n\
                  if len(sys.argv) == 2:\n\
                  \x20   root['other'] = 1\n\
                  \x20   transaction.commit()\n\
                  \x20   root['page'] = PersistentMapping()\n\
                  \x20   transaction.commit()\n\
                  \x20   undo()\n\
                  \x20   print(time.time())\n\
                  \x20   time.sleep(0.01)\n\
                  \x20   undo()\n\
                  else:\n\
                  \x20   db.pack(float(sys.argv[2]))\n\
                  db.close()\n";
    let zodb = |arguments: &[&str]| {
        let mut command = Command::new(python());
        command.args(["-c", script]).arg(&scene.master);
        let done = must(command.args(arguments));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    let time = zodb(&[]);
    scene.expect("full-copy");
    zodb(&[&time]);
    let report = scene.expect("full-copy");
    assert_eq!(report["warnings"], json!([]), "{report}");
}

#[test]
fn a_slave_that_shrinks_to_less_than_half_is_reported() {
    let mut setup = Setup::new();
    let master = setup.scene.master.clone();
    setup.with(&json!({"path": master}), |setup| {
        for _ in 0..40 {
            setup
                .zodb
                .call(&json!({"cmd": "commit", "name": "m", "objects": 0}));
        }
        setup
            .zodb
            .call(&json!({"cmd": "commit", "name": "m", "objects": 40, "size": 4000}));
        setup.zodb.call(&json!({"cmd": "undo", "name": "m"}));
        setup.commit(3);
    });
    setup.scene.expect("append");
    setup.pack();
    setup.grow();
    let planned = setup.scene.pass(&["--dry-run"]).expect(0);
    assert!(warns(&planned, "would shrink from"), "{planned:?}");
    let mut quiet = fssync();
    quiet
        .arg("-q")
        .args([&setup.scene.master, &setup.scene.slave]);
    let quiet = run(&mut quiet).expect(0);
    assert_eq!(quiet.stderr.lines().count(), 1, "{quiet:?}");
    assert!(quiet.stderr.contains("shrinks from"), "{quiet:?}");
}
