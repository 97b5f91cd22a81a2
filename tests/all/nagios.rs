//! `fssync status --nagios`: its line and exit codes, also when run by the tools of the
//! monitoring plugins.

use std::fs;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::site::support::SiteScene;
use crate::support::{Holder, Run, Scene, as_nobody, fssync, packaged, run};

/// The check of the scene's slave with these options.
fn check(scene: &Scene, options: &[&str]) -> Run {
    let run = run(scene.status(&["--nagios"]).args(options));
    assert_eq!(
        (run.stdout.lines().count(), run.stderr.as_str()),
        (1, ""),
        "{run:?}"
    );
    // Only one separator of performance data.
    assert!(run.stdout.matches('|').count() <= 1, "{run:?}");
    run
}

/// Fails unless the check ends with this code and a line that contains these parts.
#[track_caller]
fn assert_check(scene: &Scene, options: &[&str], code: i32, parts: &[&str]) {
    let run = check(scene, options).expect(code);
    let name = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::try_from(code).unwrap()];
    assert!(
        run.stdout.starts_with(&format!("FSSYNC {name} - ")),
        "{run:?}"
    );
    for part in parts {
        assert!(run.stdout.contains(part), "{part:?}: {run:?}");
    }
}

/// Changes the time at which the slave was last in sync.
fn age(scene: &Scene, secs: i64) {
    let time = Timestamp::now() - SignedDuration::from_secs(secs);
    scene.edit_sidecar(|sidecar| sidecar["in_sync"] = json!(time));
}

#[test]
fn the_age_decides_while_syncing_is_on() {
    let scene = Scene::with_master("commits");
    assert_check(&scene, &[], 3, &["slave: no pass was made yet"]);
    scene.pass(&[]).expect(0);
    assert_check(
        &scene,
        &[],
        0,
        &["slave: in sync ", " | 'slave_age'=", "s;180;600;0 "],
    );
    for (secs, code) in [(170, 0), (190, 1), (590, 1), (610, 2), (-610, 2)] {
        age(&scene, secs);
        assert_check(&scene, &[], code, &[]);
    }
    age(&scene, 300);
    assert_check(&scene, &["-w", "400"], 0, &["s;400;600;0"]);
    assert_check(&scene, &["-w", "60", "-c", "200"], 2, &["s;60;200;0"]);
    // The reason of a failing pass is in the line, whatever the age.
    fs::remove_file(&scene.master).unwrap();
    scene.pass(&["--timeout", "0.1"]).expect(12);
    assert_check(&scene, &[], 1, &["unreachable, in sync 5 min"]);
    scene.edit_sidecar(|sidecar| sidecar["in_sync"] = Value::Null);
    assert_check(&scene, &[], 2, &["never in sync"]);
}

#[test]
fn syncing_that_is_off_counts_as_configured() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    run(fssync().args(["off", "-q"]).arg(&scene.slave)).expect(0);
    age(&scene, 100_000);
    assert_check(
        &scene,
        &[],
        1,
        &["slave: off, in sync 1 d", "contains SYNCING=0"],
    );
    let zeo = Holder::of(&scene.beside(".lock"));
    for (severity, code) in [("ok", 0), ("warning", 1), ("critical", 2)] {
        let opened = format!("process {} has opened the slave", zeo.pid());
        assert_check(&scene, &["--off", severity], code, &["serving", &opened]);
    }
}

#[test]
fn damage_divergence_and_files_set_aside_are_reported() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    fs::write(scene.beside(".tr0"), "a tail").unwrap();
    assert_check(
        &scene,
        &[],
        1,
        &["1 cut tail, 6 bytes", "'slave_set_aside'=6B"],
    );
    fs::remove_file(scene.beside(".tr0")).unwrap();
    let good = fs::read(&scene.slave).unwrap();
    let mut bad = good.clone();
    bad[4] ^= 1;
    fs::write(&scene.slave, &bad).unwrap();
    scene.pass(&[]).expect(20);
    assert_check(&scene, &[], 2, &[]);
    fs::write(&scene.slave, "x".repeat(1000)).unwrap();
    assert_check(&scene, &[], 2, &["slave-damaged"]);
    fs::remove_file(&scene.slave).unwrap();
    assert_check(&scene, &[], 2, &["there is no slave"]);
}

#[test]
fn a_reason_cannot_add_performance_data_or_lines() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    scene.edit_sidecar(|sidecar| {
        sidecar["pass"]["exit_code"] = json!(12);
        sidecar["pass"]["reason"] = json!("a | b\nc\u{1b}[31m | 'x'=1");
    });
    assert_check(&scene, &[], 0, &["a / b c [31m / 'x'=1"]);
}

#[test]
fn wrong_arguments_and_a_slave_that_cannot_be_read_are_unknown() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    for options in [
        &["-w", "soon"][..],
        &["-w", "600", "-c", "60"],
        &["--off", "maybe"],
        &["--json"],
        &["--no-such-option"],
        &["a", "b"],
    ] {
        assert_check(&scene, options, 3, &[]);
    }
    let nowhere = scene.directory.path().join("nowhere");
    let run_at = |slave| run(fssync().args(["status", "--nagios"]).arg(slave));
    let missing = run_at(nowhere).expect(3);
    assert!(
        missing.stdout.starts_with("FSSYNC UNKNOWN - nowhere: "),
        "{missing:?}"
    );
    let mut nobody = as_nobody(&scene);
    nobody.args(["status", "--nagios"]).arg(&scene.slave);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(scene.beside(".fssync"), mode).unwrap();
    std::os::unix::fs::chown(scene.beside(".fssync"), Some(0), Some(0)).unwrap();
    let denied = run(&mut nobody).expect(3);
    assert!(denied.stdout.contains("Permission denied"), "{denied:?}");
}

#[test]
fn a_site_has_one_line_with_the_worst_storage_first() {
    let site = SiteScene::of(&["catalog", "site"]);
    site.run(&[]).expect(0);
    let all = site.run(&["status", "--nagios"]).expect(0);
    assert!(all.stdout.contains("'catalog_age'=") && all.stdout.contains("'site_age'="));
    fs::remove_file(site.slave("site")).unwrap();
    let worst = site.run(&["status", "--nagios"]).expect(2).stdout;
    let start = "FSSYNC CRITICAL - site: there is no slave; catalog: in sync";
    assert!(worst.starts_with(start), "{worst}");
    assert_eq!(worst.lines().count(), 1);
}

/// `negate` runs a plugin, reads its line and maps its exit code.
#[test]
fn the_tools_of_the_monitoring_plugins_understand_the_check() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    let negate = packaged("monitoring-plugins-common", "usr/lib/nagios/plugins/negate");
    let negated = |options: &[&str]| {
        let mut command = Command::new(&negate);
        command.args(options).arg(env!("CARGO_BIN_EXE_fssync"));
        run(command.args(["status", "--nagios"]).arg(&scene.slave))
    };
    let ok = negated(&["-s"]).expect(2);
    assert!(
        ok.stdout.starts_with("FSSYNC CRITICAL - slave: in sync"),
        "{ok:?}"
    );
    age(&scene, 300);
    let warning = negated(&["-s", "-w", "OK"]).expect(0);
    assert!(
        warning
            .stdout
            .starts_with("FSSYNC OK - slave: in sync 5 min"),
        "{warning:?}"
    );
    age(&scene, 1000);
    negated(&["-s"]).expect(0);
    fs::remove_file(scene.beside(".fssync")).unwrap();
    negated(&["-u", "WARNING"]).expect(1);
}
