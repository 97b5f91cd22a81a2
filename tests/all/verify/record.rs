//! The recorded result of a verification, in `fssync status` and in later passes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::{History, Run, Scene, append_sparse, as_nobody, fssync, run, sparse_master};

/// A slave in sync, with a large object.
fn large_scene() -> Scene {
    let scene = Scene::new();
    sparse_master(&scene.master, 1 << 20);
    scene.expect("full-copy");
    scene
}

/// Flips a bit in the large object's data, which only the digests can show.
fn flip_a_bit(scene: &Scene) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(&scene.slave)
        .unwrap();
    let at = 500_000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The exit code and the output of a run with `-q`.
fn quiet(scene: &Scene, words: &[&str]) -> (i32, String) {
    let Run {
        code,
        stdout,
        stderr,
    } = match words {
        [] => run(&mut scene.command(&["-q"])),
        words => run(fssync().args(words).arg("-q").arg(&scene.slave)),
    };
    assert_eq!(stdout, "");
    assert!(stderr.lines().count() <= 1, "{stderr}");
    (code, stderr)
}

fn status(scene: &Scene) -> (i32, Value) {
    let status = run(&mut scene.status(&["--json"]));
    (status.code, status.report())
}

#[test]
fn a_sound_result_is_shown() {
    let scene = Scene::synced(History::get());
    assert_eq!(status(&scene).1["verify_time"], Value::Null);
    run(&mut scene.verify(&[])).expect(0);
    let (code, report) = status(&scene);
    assert_eq!((code, &report["verify_exit_code"]), (0, &0.into()));
    assert_eq!(report["verify_verdict"], "sound");
    assert_eq!(report["verify_quick"], false);
    let age = report["verify_age_seconds"].as_f64().unwrap();
    assert!((0.0..600.0).contains(&age), "{report}");
    assert_eq!(quiet(&scene, &[]), (0, String::new()));
    scene.assert_documented_names();
}

#[test]
fn a_damaged_slave_is_reported_until_it_is_replaced() {
    let scene = large_scene();
    flip_a_bit(&scene);
    assert_eq!(status(&scene).0, 0, "it was not verified yet");
    let (code, line) = quiet(&scene, &["verify"]);
    assert_eq!(code, 31, "{line}");
    let (code, report) = status(&scene);
    assert_eq!((code, &report["verdict"]), (31, &"damaged".into()));
    assert_eq!(report["state"], "ok", "ZODB opens it");
    let (code, line) = quiet(&scene, &["status"]);
    assert!(code == 31 && line.contains("verify"), "{line}");
    for _ in 0..2 {
        let (code, line) = quiet(&scene, &[]);
        assert_eq!(code, 0);
        assert!(line.contains("found damage"), "{line}");
    }
    // An append does not repair it.
    append_sparse(&scene.master, 5_000, 0x0400_0000_0000_0000);
    assert!(quiet(&scene, &[]).1.contains("found damage"));
    assert_eq!(status(&scene).0, 31);
    // A check of the structure cannot find it.
    run(&mut scene.verify(&["--quick"])).expect(0);
    assert_eq!(status(&scene).0, 31);
    let full = scene.pass(&["--full"]).expect(0).report();
    let warnings = full["warnings"].to_string();
    assert!(!warnings.contains("found damage"), "{full}");
    assert_eq!(status(&scene).0, 0);
    assert_eq!(quiet(&scene, &[]), (0, String::new()));
}

#[test]
fn a_sound_verification_clears_an_earlier_one() {
    let scene = large_scene();
    flip_a_bit(&scene);
    run(&mut scene.verify(&[])).expect(31);
    flip_a_bit(&scene);
    run(&mut scene.verify(&[])).expect(0);
    assert_eq!(status(&scene).0, 0);
    assert_eq!(quiet(&scene, &[]), (0, String::new()));
}

#[test]
fn a_wrong_index_is_not_reported_after_the_next_pass() {
    let scene = Scene::synced(History::get());
    let index = scene.beside(".index");
    let sound = fs::read(&index).unwrap();
    let is_wrong = |at: &usize| {
        let mut bytes = sound.clone();
        bytes[*at] ^= 1;
        fs::write(&index, bytes).unwrap();
        run(&mut scene.verify(&[])).code == 31
    };
    let found = (0..sound.len()).rev().find(is_wrong);
    assert!(
        found.is_some(),
        "an index that ZODB would use, and is wrong"
    );
    // The next pass builds another index.
    assert_eq!(status(&scene).1["verify_damages"], 0);
    assert_eq!(status(&scene).0, 0);
}

#[test]
fn failing_to_record_a_result_does_not_change_the_exit_code() {
    let scene = large_scene();
    let mut verify = as_nobody(&scene);
    // The directory is read-only for this user.
    let directory = scene.slave.parent().unwrap();
    fs::set_permissions(
        directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o555),
    )
    .unwrap();
    let verified = run(verify.arg("verify").arg(&scene.slave)).expect(0);
    assert!(
        verified.stderr.contains("cannot record the result"),
        "{verified:?}"
    );
    flip_a_bit(&scene);
    let mut verify = as_nobody(&scene);
    fs::set_permissions(
        directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o555),
    )
    .unwrap();
    let verified = run(verify.args(["verify", "-q"]).arg(&scene.slave)).expect(31);
    assert_eq!(verified.stderr.lines().count(), 1, "{verified:?}");
    assert!(
        verified.stderr.contains("cannot record the result"),
        "{verified:?}"
    );
}

#[test]
fn an_invalid_record_is_ignored() {
    let scene = Scene::synced(History::get());
    for text in ["", "{", "[]", "{\"time\": 7}", "\u{0}\u{0}\u{0}"] {
        fs::write(scene.beside(".fssync-verified"), text).unwrap();
        assert_eq!(status(&scene).0, 0, "{text:?}");
        assert_eq!(quiet(&scene, &[]), (0, String::new()), "{text:?}");
        run(&mut scene.verify(&[])).expect(0);
        assert_eq!(status(&scene).1["verify_verdict"], "sound");
    }
}
