//! Masters that were rewritten: packed, repaired, converted. A full copy replaces the slave only
//! if a pack explains every transaction that is gone (Law 2).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Run, Scene, Zodb, fssync, must, project, python, replace, run};

/// A master with a history of its own, its slave, and ZODB.
struct Stage {
    scene: Scene,
    zodb: Zodb,
}

/// How many transactions the history has, the root's creation included.
const LEN: usize = 14;

impl Stage {
    /// A slave in sync with a master whose transactions create objects and change them.
    fn new() -> Self {
        let mut stage = Self {
            scene: Scene::new(),
            zodb: Zodb::start(),
        };
        let master = stage.scene.master.clone();
        stage.with(
            &json!({"path": master, "create": true, "seed": 3}),
            |stage| {
                for _ in 0..LEN {
                    stage.commit(2);
                }
            },
        );
        stage.scene.expect("full-copy");
        stage
    }

    /// Opens a file with ZODB, and closes it afterwards.
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

    /// The master goes on, as ZEO does after a repair.
    fn grow(&mut self) {
        let master = self.scene.master.clone();
        self.with(&json!({"path": master, "seed": 4}), |stage| stage.commit(1));
    }

    fn pack(&mut self) {
        let master = self.scene.master.clone();
        self.with(&json!({"path": master}), |stage| {
            let answer = stage.zodb.call(&json!({"cmd": "pack", "name": "m"}));
            assert_eq!(answer["packed"], true, "{answer}");
        });
    }

    /// The tids, and where each transaction starts and ends, of a file.
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

    /// Spoils the header of the master's `nth` transaction, as a bad sector does. Returns its tid.
    fn damage(&mut self, nth: usize) -> String {
        let master = self.scene.master.clone();
        let (tid, start, _) = self.transactions(&master)[nth].clone();
        let file = File::options().write(true).open(&master).unwrap();
        file.write_all_at(&[0; 40], start + 8).unwrap();
        tid
    }

    /// Replaces the damaged master by what fsrecover makes of it. Returns whether there is
    /// anything: its pack fails if an object is missing that another refers to.
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

    /// The transactions in the slave and in all that is kept beside it.
    fn replicated(&mut self) -> BTreeSet<String> {
        let kept = |name: &String| name == "Data.fs" || name.starts_with("Data.fs.diverged-");
        let names = self.scene.beside_slave().into_iter().filter(kept);
        let paths: Vec<_> = names
            .map(|name| self.scene.slave.with_file_name(name))
            .collect();
        paths.iter().flat_map(|path| self.tids(path)).collect()
    }

    /// A pass that copies the master and keeps the old slave, since it alone has `tid`.
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

fn warns(run: &Run, said: &str) -> bool {
    let report = run.report();
    let warnings = report["warnings"].as_array().unwrap();
    warnings
        .iter()
        .any(|warning| warning.as_str().unwrap().contains(said))
}

#[test]
fn fsrecover_drops_a_transaction_and_the_slave_that_has_it_is_kept() {
    for nth in [1, 5, LEN - 2] {
        let mut stage = Stage::new();
        let tid = stage.damage(nth);
        stage.recover(&json!({}));
        stage.grow();
        stage.expect_kept(&tid);
    }
}

#[test]
fn a_transaction_that_an_earlier_pack_kept_is_dropped_only_by_a_later_one() {
    let mut stage = Stage::new();
    stage.pack();
    stage.grow();
    stage.scene.expect("full-copy");
    let tid = stage.damage(2);
    stage.recover(&json!({}));
    stage.grow();
    stage.expect_kept(&tid);
}

/// `fsrecover -P 0` repairs and packs, so that only the records can show that no pack dropped
/// the transaction. What a pack of the intact file drops as well is no loss.
#[test]
fn a_repair_that_is_packed_at_once_is_found_out() {
    let mut stage = Stage::new();
    edit(&stage.scene, 25, None, 5);
    let master = stage.scene.master.clone();
    let intact = fs::read(&master).unwrap();
    let len = stage.transactions(&master).len();
    stage.pack();
    let kept_by_a_pack = stage.tids(&master);
    let mut lost = 0;
    for nth in LEN + 3..len - 1 {
        stage.scene = Scene::new();
        fs::write(&stage.scene.master, &intact).unwrap();
        stage.scene.expect("full-copy");
        let tid = stage.damage(nth);
        if stage.recover(&json!({"packed": true})) && kept_by_a_pack.contains(&tid) {
            stage.expect_kept(&tid);
            lost += 1;
        }
    }
    assert!(lost > 1, "{lost} transactions were worth keeping");
}

#[test]
fn a_repair_that_keeps_a_part_of_a_transaction_is_found_out() {
    for partial in [false, true] {
        let mut stage = Stage::new();
        let master = stage.scene.master.clone();
        stage.with(&json!({"path": master}), |stage| {
            stage.commit(5);
            stage.commit(1);
        });
        stage.scene.expect("append");
        let transactions = stage.transactions(&master);
        let (tid, start, end) = transactions[transactions.len() - 2].clone();
        // The last pickle's length is wrong: fsrecover saves the records before it.
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
        stage.recover(&json!({"partial": partial}));
        assert!(stage.tids(&master).contains(&tid), "a part is saved");
        stage.expect_kept(&tid);
    }
}

#[test]
fn a_conversion_that_leaves_out_a_transaction_is_found_out() {
    for nth in [0, 3, LEN - 3] {
        let mut stage = Stage::new();
        let master = stage.scene.master.clone();
        let tid = stage.transactions(&master)[nth].0.clone();
        let to = stage.scene.directory.path().join("converted.fs");
        stage
            .zodb
            .call(&json!({"cmd": "copy_without", "path": master, "to": to, "tids": [tid]}));
        replace(&master, &fs::read(&to).unwrap());
        stage.expect_kept(&tid);
    }
}

#[test]
fn a_conversion_that_leaves_out_nothing_replaces_the_slave() {
    let mut stage = Stage::new();
    let master = stage.scene.master.clone();
    let to = stage.scene.directory.path().join("converted.fs");
    stage
        .zodb
        .call(&json!({"cmd": "copy_without", "path": master, "to": to, "tids": []}));
    let mut converted = fs::read(&to).unwrap();
    // The same transactions, but other bytes.
    converted[3] ^= 1;
    converted[..4].copy_from_slice(b"FS21");
    replace(&master, &converted);
    let report = stage.scene.expect("full-copy");
    assert_eq!(report["warnings"], json!([]), "{report}");
}

/// The pass that meets the damage in a packed master remembers it: the repaired file looks as if
/// the pack had dropped the transaction.
#[test]
fn a_packed_master_that_was_damaged_and_repaired_is_not_trusted() {
    let mut stage = Stage::new();
    stage.pack();
    let tid = stage.damage(1);
    stage.scene.pass(&[]).expect(30);
    let damaged = fs::read(&stage.scene.master).unwrap();
    fs::remove_file(&stage.scene.master).unwrap();
    stage.scene.pass(&[]).expect(12);
    fs::write(&stage.scene.master, damaged).unwrap();
    stage.recover(&json!({}));
    stage.grow();
    stage.expect_kept(&tid);
    // Now that the two are in sync, the damage is of no concern any more.
    let sidecar = fs::read(stage.scene.beside(".fssync")).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar["master_was_damaged"], false, "{sidecar}");
}

#[test]
fn an_interrupted_copy_that_is_taken_up_still_compares_all_transactions() {
    let mut stage = Stage::new();
    let tid = stage.damage(5);
    stage.recover(&json!({}));
    let bytes = fs::read(&stage.scene.master).unwrap();
    fs::write(
        stage.scene.beside(".fssync-tmp"),
        &bytes[..bytes.len() - 100],
    )
    .unwrap();
    let run = stage.scene.pass(&[]).expect(0);
    assert!(run.stderr.contains("going on at"), "{run:?}");
    assert!(stage.replicated().contains(&tid), "{run:?}");
}

/// A site that people edit and undo, packed to now or to an earlier moment: the slave is kept
/// only if it lags, and the pack dropped its last transaction.
#[test]
fn the_packs_of_an_edited_site_keep_nothing_aside() {
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

/// What ZEO makes where its disk is not mounted is no successor, whatever happens to it.
#[test]
fn another_database_never_replaces_the_slave() {
    let mut stage = Stage::new();
    let before = fs::read(&stage.scene.slave).unwrap();
    fs::remove_file(&stage.scene.master).unwrap();
    let master = stage.scene.master.clone();
    stage.with(
        &json!({"path": master, "create": true, "seed": 9}),
        |stage| stage.commit(1),
    );
    stage.scene.pass(&[]).expect(20);
    stage.grow();
    stage.scene.pass(&[]).expect(20);
    for _ in 0..2 {
        stage.grow();
        stage.pack();
        stage.scene.pass(&[]).expect(20);
    }
    assert_eq!(fs::read(&stage.scene.slave).unwrap(), before);
    assert_eq!(
        stage
            .scene
            .beside_slave()
            .iter()
            .filter(|it| it.contains("diverged"))
            .count(),
        0
    );
}

impl Stage {
    /// The master as it was before its last transactions.
    fn restore_a_backup(&mut self) {
        let master = self.scene.master.clone();
        let (_, start, _) = self.transactions(&master)[LEN - 3].clone();
        let backup = fs::read(&master).unwrap()[..start as usize].to_vec();
        replace(&master, &backup);
    }
}

/// A master that was restored from a backup and then packed is refused, and read in vain but
/// once.
#[test]
fn a_restored_master_that_was_packed_is_refused_without_reading_it_again() {
    let mut stage = Stage::new();
    stage.restore_a_backup();
    stage.grow();
    stage.pack();
    let first = stage.scene.pass(&[]).expect(20);
    assert!(first.stderr.contains("full backup"), "{first:?}");
    for _ in 0..2 {
        let again = stage.scene.pass(&[]).expect(20);
        assert!(!again.stderr.contains("full backup"), "{again:?}");
        stage.grow();
    }
    stage.scene.pass(&["--full"]).expect(0);
    stage
        .zodb
        .assert_in_sync(&stage.scene.master, &stage.scene.slave);
}

/// Once a master was refused, no pack of it makes it the slave's successor, whatever it hides:
/// here both have edited the same folder.
#[test]
fn a_master_that_was_refused_stays_refused_when_it_is_packed() {
    let stage = Stage::new();
    edit(&stage.scene, 20, None, 1);
    stage.scene.expect("append");
    let backup = fs::read(&stage.scene.master).unwrap();
    edit(&stage.scene, 6, None, 2);
    stage.scene.expect("append");
    let right = fs::read(&stage.scene.master).unwrap();
    replace(&stage.scene.master, &backup);
    stage.scene.pass(&[]).expect(20);
    edit(&stage.scene, 30, None, 3);
    stage.scene.pass(&[]).expect(20);
    edit(&stage.scene, 1, Some(0), 4);
    for options in [&[][..], &["--dry-run"], &[]] {
        let run = stage.scene.pass(options).expect(20);
        assert!(!run.stderr.contains("full backup"), "{run:?}");
    }
    // The right file is in its place again: from here on, a pack is a pack again.
    replace(&stage.scene.master, &right);
    stage.scene.pass(&[]).expect(0);
    edit(&stage.scene, 5, None, 5);
    stage.scene.expect("append");
    edit(&stage.scene, 0, Some(0), 6);
    stage.scene.expect("full-copy");
}

/// A bad sector in a pickle, or an editor, changes a transaction that both still have.
#[test]
fn a_transaction_with_other_data_is_kept_as_the_slave_has_it() {
    let mut stage = Stage::new();
    edit(&stage.scene, 20, None, 7);
    let intact = fs::read(&stage.scene.master).unwrap();
    let master = stage.scene.master.clone();
    let transactions = stage.transactions(&master);
    stage.pack();
    let kept_by_a_pack = stage.tids(&master);
    let (_, _, end) = transactions[..transactions.len() - 1]
        .iter()
        .rfind(|(tid, ..)| kept_by_a_pack.contains(tid))
        .unwrap();
    for (in_place, packed, options) in [
        (false, false, &[][..]),
        (false, true, &[]),
        (true, false, &["--full"]),
    ] {
        stage.scene = Scene::new();
        fs::write(&stage.scene.master, &intact).unwrap();
        stage.scene.expect("full-copy");
        let mut bytes = intact.clone();
        // In the transaction's last pickle.
        bytes[*end as usize - 8 - 3] ^= 0x55;
        if in_place {
            fs::write(&stage.scene.master, &bytes).unwrap();
        } else {
            replace(&stage.scene.master, &bytes);
        }
        if packed {
            // Not by ZODB, which would read the pickle.
            replace(&stage.scene.master, &intact);
            stage.pack();
            let mut spoiled = fs::read(&stage.scene.master).unwrap();
            let pickle = &intact[*end as usize - 8 - 30..*end as usize - 8];
            let at = spoiled.windows(30).position(|it| it == pickle).unwrap();
            spoiled[at + 27] ^= 0x55;
            fs::write(&stage.scene.master, &spoiled).unwrap();
        }
        let dry_run = [options, &["--dry-run"]].concat();
        let planned = stage.scene.pass(&dry_run).expect(0);
        assert!(warns(&planned, "has other data"), "{planned:?}");
        let run = stage.scene.pass(options).expect(0);
        assert!(warns(&run, "has other data"), "{run:?}");
        let kept = stage.scene.beside_slave().into_iter();
        let kept: Vec<_> = kept.filter(|name| name.contains(".diverged-")).collect();
        assert_eq!(kept.len(), 1, "{run:?}");
        let kept = fs::read(stage.scene.slave.with_file_name(&kept[0])).unwrap();
        assert!(kept == intact, "the slave as it was");
    }
}

/// An object's creation is undone, and the undo is undone after the pack time: the pack keeps
/// the object's first record, and drops the transaction that undid it.
#[test]
fn a_pack_between_an_undo_and_its_undo_keeps_nothing_aside() {
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
fn a_slave_that_shrinks_to_less_than_half_is_news() {
    let mut stage = Stage::new();
    let master = stage.scene.master.clone();
    stage.with(&json!({"path": master}), |stage| {
        for _ in 0..40 {
            stage
                .zodb
                .call(&json!({"cmd": "commit", "name": "m", "objects": 0}));
        }
        stage
            .zodb
            .call(&json!({"cmd": "commit", "name": "m", "objects": 40, "size": 4000}));
        stage.zodb.call(&json!({"cmd": "undo", "name": "m"}));
        stage.commit(3);
    });
    stage.scene.expect("append");
    stage.pack();
    stage.grow();
    let planned = stage.scene.pass(&["--dry-run"]).expect(0);
    assert!(warns(&planned, "would shrink from"), "{planned:?}");
    let mut quiet = fssync();
    quiet
        .arg("-q")
        .args([&stage.scene.master, &stage.scene.slave]);
    let quiet = run(&mut quiet).expect(0);
    assert_eq!(quiet.stderr.lines().count(), 1, "{quiet:?}");
    assert!(quiet.stderr.contains("shrinks from"), "{quiet:?}");
}
