//! `fssync -q --remind`: an outage prints a line when it begins, every hour, and when it ends.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cron::{Cron, three_times_a_minute};
use crate::faults::Mount;
use crate::support::{Holder, Run, Scene, fssync, run, tool, wait_for_minutes};

/// A quiet pass with reminders every hour.
fn pass(scene: &Scene) -> Run {
    run(&mut scene.command(&["-q", "--remind", "1h", "--timeout", "0.2"]))
}

/// Fails unless the output of a pass with this exit code is one line that contains these parts.
#[track_caller]
fn assert_line(scene: &Scene, code: i32, parts: &[&str]) {
    let run = pass(scene).expect(code);
    assert_eq!(
        (run.stdout.as_str(), run.stderr.lines().count()),
        ("", 1),
        "{run:?}"
    );
    for part in parts {
        assert!(run.stderr.contains(part), "{part:?}: {run:?}");
    }
}

#[track_caller]
fn assert_silent(scene: &Scene, code: i32) {
    let run = pass(scene).expect(code);
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("", ""),
        "{run:?}"
    );
}

/// Changes the file that remembers the last report as if that were this much longer ago.
fn age(scene: &Scene, age: SignedDuration) {
    let path = scene.beside(".fssync-reported");
    let mut trouble: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for key in ["since", "reported"] {
        let time: Timestamp = trouble[key].as_str().unwrap().parse().unwrap();
        trouble[key] = json!(time - age);
    }
    fs::write(&path, trouble.to_string()).unwrap();
}

#[test]
fn an_outage_prints_a_line_at_its_begin_every_hour_and_at_its_end() {
    let scene = Scene::with_master("commits");
    assert_silent(&scene, 0);
    let away = scene.directory.path().join("away");
    fs::rename(&scene.master, &away).unwrap();
    assert_line(&scene, 12, &["NOT SYNCING FROM MASTER", "unreachable"]);
    assert_silent(&scene, 12);
    age(&scene, SignedDuration::from_mins(30));
    assert_silent(&scene, 12);
    age(&scene, SignedDuration::from_mins(31));
    assert_line(
        &scene,
        12,
        &["unreachable", "this lasts since", "1 h 1 min"],
    );
    assert_silent(&scene, 12);
    fs::rename(&away, &scene.master).unwrap();
    assert_line(
        &scene,
        0,
        &[
            "Finished syncing",
            "in sync again after 1 h 1 min",
            "exit code 12",
        ],
    );
    assert_silent(&scene, 0);
    // Without --remind, each pass prints its line, and nothing is remembered.
    let stored = fs::read(scene.beside(".fssync-reported")).unwrap();
    fs::rename(&scene.master, &away).unwrap();
    for _ in 0..2 {
        let run = run(&mut scene.command(&["-q", "--timeout", "0.2"])).expect(12);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    assert_eq!(fs::read(scene.beside(".fssync-reported")).unwrap(), stored);
    scene.assert_documented_names();
}

#[test]
fn a_plain_off_prints_and_writes_nothing_and_an_invalid_switch_is_news() {
    let scene = Scene::with_master("commits");
    assert_silent(&scene, 0);
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    let reported = scene.beside(".fssync-reported");
    let stored = fs::read(&reported).unwrap();
    let names = scene.beside_slave();
    assert_silent(&scene, 10);
    assert_eq!(fs::read(&reported).unwrap(), stored);
    fs::remove_file(&reported).unwrap();
    assert_silent(&scene, 10);
    assert!(!reported.exists());
    let switch = scene.beside(".fssync-switch");
    fs::write(&switch, "SYNCING=maybe\n").unwrap();
    assert_line(&scene, 10, &["SYNCING=maybe", "must be a file"]);
    assert_eq!(scene.beside_slave(), names);
    assert_silent(&scene, 10);
    fs::write(&switch, "SYNCING=later\n").unwrap();
    assert_line(&scene, 10, &["SYNCING=later"]);
    assert_silent(&scene, 10);
    fs::write(&switch, "SYNCING=1\n").unwrap();
    assert_line(&scene, 0, &["in sync again"]);
}

#[test]
fn another_pass_is_news_once_it_has_a_warning() {
    let scene = Scene::with_master("commits");
    assert_silent(&scene, 0);
    let lock = Holder::of(&scene.beside(".fssync-pass"));
    assert_silent(&scene, 11);
    scene.edit_sidecar(|sidecar| {
        sidecar["in_sync"] = json!(Timestamp::now() - SignedDuration::from_hours(2));
    });
    assert_line(&scene, 11, &["not been in sync for more than an hour"]);
    assert_silent(&scene, 11);
    age(&scene, SignedDuration::from_hours(1));
    assert_line(&scene, 11, &["this lasts since"]);
    drop(lock);
    assert_line(&scene, 0, &["in sync again"]);
}

/// The line is remembered although no new file could be created.
#[test]
fn a_full_disk_is_reported_once() {
    let scene = Scene::new();
    let directory = scene.slave.parent().unwrap().to_owned();
    let disk = Mount::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &directory);
    fs::copy(
        crate::support::project("fixtures/commits.fs"),
        &scene.master,
    )
    .unwrap();
    assert_silent(&scene, 0);
    let mut filler = tool("dd", "coreutils");
    filler
        .arg("if=/dev/zero")
        .arg(format!("of={}/filler", directory.display()));
    run(filler.args(["bs=4096"]));
    let big = crate::support::project("fixtures/big-record.fs");
    fs::copy(big, &scene.master).unwrap();
    let first = pass(&scene);
    assert_eq!(first.stderr.lines().count(), 1, "{first:?}");
    assert!(![0, 10, 11].contains(&first.code), "{first:?}");
    assert_silent(&scene, first.code);
    drop(disk);
}

#[test]
fn a_state_that_is_unreadable_or_invalid_only_repeats_a_line() {
    let scene = Scene::with_master("commits");
    assert_silent(&scene, 0);
    fs::remove_file(&scene.master).unwrap();
    let reported = scene.beside(".fssync-reported");
    for content in ["", "{", "[1]", "null null", "{\"exit_code\": 999}"] {
        fs::write(&reported, content).unwrap();
        assert_line(&scene, 12, &["unreachable"]);
        assert_silent(&scene, 12);
    }
    fs::remove_file(&reported).unwrap();
    fs::create_dir(&reported).unwrap();
    assert_line(&scene, 12, &["unreachable"]);
    assert_line(&scene, 12, &["unreachable"]);
}

#[test]
fn remind_needs_quiet_and_a_time() {
    let scene = Scene::with_master("commits");
    for options in [
        &["--remind", "1h"][..],
        &["-q", "--remind", "soon"],
        &["-q", "--remind", "-1h"],
        &["-q", "--remind", "0"],
        &["-q", "--watch", "--remind", "1h"],
        &["-q", "-n", "--remind", "1h"],
    ] {
        run(&mut scene.command(options)).expect(2);
    }
    for time in ["3600", "1h", "1h30m", "90 s", "0.5"] {
        run(&mut scene.command(&["-q", "--remind", time])).expect(0);
    }
}

/// cron's own daemon makes the passes, and mails their output.
#[test]
fn cron_mails_an_outage_once_and_its_end() {
    let scene = Scene::with_master("commits");
    assert_silent(&scene, 0);
    let [passes, away] = ["passes", "away"].map(|name| scene.directory.path().join(name));
    let pass = format!(
        "{} -q --remind 1h --timeout 1 {} {}",
        env!("CARGO_BIN_EXE_fssync"),
        scene.master.display(),
        scene.slave.display()
    );
    fs::rename(&scene.master, &away).unwrap();
    let table = "MAILTO=admin\n".to_owned() + &three_times_a_minute(&pass, &passes);
    let cron = Cron::start(scene.directory.path(), &table);
    let exits = || fs::read_to_string(&passes).unwrap_or_default();
    wait_for_minutes(3, "three passes of an outage", || {
        exits().lines().count() >= 3
    });
    assert!(exits().starts_with("12\n12\n12\n"), "{}", exits());
    let mails = cron.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].contains("NOT SYNCING FROM MASTER"), "{mails:?}");
    fs::rename(&away, &scene.master).unwrap();
    wait_for_minutes(3, "two passes in sync", || {
        exits().matches("0\n").count() >= 2
    });
    let mails = cron.mails();
    assert_eq!(mails.len(), 2, "{mails:?}");
    assert!(mails.concat().contains("in sync again"), "{mails:?}");
}
