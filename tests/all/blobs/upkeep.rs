//! Work on blobs besides the copy of new ones: digests that the ledger lacks, and blobs that the
//! master did not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::derived;
use crate::support::{Scene, Setup, Zodb, blobs_beside, names, run, strace};

/// A master with four blobs in a bushy directory.
fn scene() -> Scene {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy"});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 4, "blob_size": 2000}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    scene
}

fn slave_blobs(scene: &Scene) -> PathBuf {
    scene.slave.with_file_name("blobstorage")
}

/// Copies a directory as an administrator does, with times and owners.
fn seed(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp").success());
}

/// A blob file of the master.
fn a_blob(scene: &Scene) -> PathBuf {
    let found = Command::new("find")
        .arg(blobs_beside(&scene.master))
        .args(["-name", "*.blob"])
        .output()
        .expect("find");
    let found = String::from_utf8(found.stdout).expect("paths");
    found.lines().min().expect("a blob").into()
}

fn sidecar(scene: &Scene) -> Value {
    let text = fs::read(scene.beside(".fssync")).expect("the sidecar");
    serde_json::from_slice(&text).expect("the sidecar")
}

#[test]
fn a_pass_asks_for_the_digests_of_blobs_that_were_copied_by_hand() {
    let scene = scene();
    seed(&blobs_beside(&scene.master), &slave_blobs(&scene));
    let report = scene.pass(&["--blobs"]).expect(0).report();
    assert_eq!(report["blobs"], 0, "nothing is copied again: {report}");
    assert_eq!(sidecar(&scene)["blobs"]["files"], 4);
    let verified = run(scene.verify(&[]).arg("--json")).expect(0).report();
    assert_eq!(
        (&verified["blobs"], &verified["blobs_unchecked"]),
        (&json!(4), &json!(0))
    );
}

/// The slave has this blob, and the pass reports only that the master's is damaged.
#[test]
fn a_blob_that_the_master_cannot_read_does_not_keep_others_from_their_digests() {
    let scene = scene();
    seed(&blobs_beside(&scene.master), &slave_blobs(&scene));
    let blob = a_blob(&scene);
    let inject = ["-e", "inject=read,pread64:error=EIO"];
    let command = strace(&inject, std::slice::from_ref(&blob));
    let mut pass = scene.command_by(command, &["--blobs"]);
    let report = run(pass.arg("--json")).expect(0).report();
    let warnings = report["warnings"].to_string();
    let name = blob.file_name().expect("a name").display().to_string();
    assert!(
        warnings.contains(&name) && warnings.contains("Input/output error"),
        "{report}"
    );
    let verified = run(scene.verify(&[]).arg("--json")).expect(0).report();
    assert_eq!(
        (&verified["blobs"], &verified["blobs_unchecked"]),
        (&json!(4), &json!(1))
    );
    // The others need not be asked for again.
    let report = scene.pass(&["--blobs"]).expect(0).report();
    assert_eq!(report["warnings"], json!([]), "{report}");
}

#[test]
fn a_pass_completes_a_ledger_that_was_lost_with_the_sidecar() {
    let scene = scene();
    scene.pass(&["--blobs"]).expect(0);
    for suffix in [".fssync", ".fssync-blobs"] {
        fs::remove_file(scene.beside(suffix)).expect("a file");
    }
    assert_eq!(scene.pass(&["--blobs"]).expect(0).report()["blobs"], 0);
    let verified = run(scene.verify(&[]).arg("--json")).expect(0).report();
    assert_eq!(verified["blobs_unchecked"], 0, "{verified}");
}

#[test]
fn temporary_files_of_earlier_passes_are_removed_by_the_next_pass_with_blobs() {
    let scene = scene();
    scene.pass(&["--blobs"]).expect(0);
    let tmp = slave_blobs(&scene).join(".fssync/tmp");
    let [small, large] = [
        "000000000000000f-000000000000000f",
        "00000000000000ff-00000000000000ff",
    ]
    .map(|name| tmp.join(name));
    fs::write(&small, "a part").expect("a file");
    let long_enough = 17 * 1024 * 1024;
    let part = fs::File::create(&large).expect("a file");
    part.set_len(long_enough).expect("a length");
    // A pass with nothing new does not list the directory.
    scene.pass(&["--blobs"]).expect(0);
    assert!(small.exists() && large.exists());
    let mut zodb = Zodb::start();
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &json!({}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 1}));
    assert_eq!(scene.pass(&["--blobs"]).expect(0).report()["blobs"], 1);
    assert_eq!(names(&tmp), [""; 0]);
}

#[test]
fn a_blob_that_comes_back_is_fetched_after_an_hour() {
    let scene = scene();
    let blob = a_blob(&scene);
    let away = blob.with_extension("away");
    fs::rename(&blob, &away).expect("a rename");
    let report = scene.pass(&["--blobs"]).expect(0).report();
    assert_eq!(
        (&report["blobs"], &report["blobs_absent"]),
        (&json!(3), &json!(1))
    );
    assert!(
        report["warnings"].to_string().contains("lacks 1 blob"),
        "{report}"
    );
    fs::rename(&away, &blob).expect("a rename");
    // Within the hour, the master is not asked again.
    assert_eq!(scene.pass(&["--blobs"]).expect(0).report()["blobs"], 0);
    let mut state = sidecar(&scene);
    assert_eq!(state["blobs"]["absent"], 1);
    state["blobs"]["absent_asked"] = json!("2020-01-01T00:00:00Z");
    fs::write(scene.beside(".fssync"), state.to_string()).expect("the sidecar");
    assert_eq!(scene.pass(&["--blobs"]).expect(0).report()["blobs"], 1);
    let state = sidecar(&scene);
    assert_eq!(
        (&state["blobs"]["absent"], &state["blobs"]["files"]),
        (&json!(0), &json!(4))
    );
    let relative = blob
        .strip_prefix(blobs_beside(&scene.master))
        .expect("below");
    let copy = fs::read(slave_blobs(&scene).join(relative)).expect("the blob");
    assert_eq!(copy, fs::read(&blob).expect("the blob"));
}

#[test]
fn a_master_that_has_none_of_many_blobs_is_the_wrong_directory() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy"});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 25, "blob_size": 10}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let blobs = blobs_beside(&scene.master);
    fs::remove_dir_all(&blobs).expect("the blobs");
    fs::create_dir(&blobs).expect("a directory");
    fs::write(blobs.join(".layout"), "bushy").expect("a layout");
    let run = scene.pass(&["--blobs"]).expect(2);
    assert!(
        run.stderr
            .contains("name the right directory with --master-blobs"),
        "{run:?}"
    );
}

/// A transaction at `position` with the record of a blob.
fn transaction(position: u64, tid: u64, oid: u64) -> Vec<u8> {
    const PICKLE: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";
    let len = (23 + 42 + PICKLE.len()) as u64;
    let mut bytes = Vec::new();
    bytes.extend(tid.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend([b' ', 0, 0, 0, 0, 0, 0]);
    bytes.extend([oid, tid, 0, position].map(u64::to_be_bytes).concat());
    bytes.extend(0u16.to_be_bytes());
    bytes.extend((PICKLE.len() as u64).to_be_bytes());
    bytes.extend(PICKLE);
    bytes.extend(len.to_be_bytes());
    bytes
}

#[test]
fn a_log_that_refers_to_a_blob_twice_is_copied() {
    let scene = Scene::new();
    let mut log = b"FS30".to_vec();
    for _ in 0..2 {
        let next = transaction(log.len() as u64, 7, 1);
        log.extend(next);
    }
    fs::write(&scene.master, &log).expect("the master");
    let blobs = blobs_beside(&scene.master);
    let blob = Path::new("0x01/0x07.blob");
    fs::create_dir_all(blobs.join("0x01")).expect("a directory");
    fs::write(blobs.join(".layout"), "lawn").expect("a layout");
    fs::write(blobs.join(blob), "content").expect("a blob");
    let report = scene.pass(&["--blobs"]).expect(0).report();
    assert_eq!(report["blobs"], 1, "{report}");
    assert_eq!(fs::read(&scene.slave).expect("the slave"), log);
}

#[test]
fn a_log_that_somebody_copied_over_the_slave_gets_all_its_blobs() {
    let scene = scene();
    scene.pass(&["--blobs"]).expect(0);
    let mut zodb = Zodb::start();
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &json!({}));
    for command in [
        json!({"cmd": "commit", "name": "m", "changes": 2, "blobs": 3, "blob_size": 100}),
        json!({"cmd": "pack", "name": "m"}),
        json!({"cmd": "close", "name": "m"}),
    ] {
        zodb.call(&command);
    }
    fs::copy(&scene.master, &scene.slave).expect("a copy");
    scene.pass(&["--blobs"]).expect(0);
    let blobs_of = |directory: &Path| derived::on_disk(directory);
    let lacking: Vec<_> = blobs_of(&blobs_beside(&scene.master))
        .difference(&blobs_of(&slave_blobs(&scene)))
        .copied()
        .collect();
    assert_eq!(lacking, []);
}
