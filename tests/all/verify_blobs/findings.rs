//! Damaged blobs of a slave, without its master.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fssync::filestorage::blob::Layout;
use serde_json::json;

use super::{Site, findings, flip_a_byte, shorten};
use crate::support::{
    Scene, Setup, Transport, as_nobody, fssync, must, project, run, strace, tool,
};

#[test]
fn intact_blobs_are_compared_with_their_digests_in_both_set_ups_and_layouts() {
    for setup in Setup::BOTH {
        for layout in [Layout::Bushy, Layout::Lawn] {
            let site = Site::of(setup, layout);
            let total: u64 = (0..5)
                .map(|n| fs::metadata(site.file(n)).expect("a blob").len())
                .sum();
            for options in [&[][..], &["--quick"]] {
                let report = site.report(options, 0);
                assert_eq!(report["verdict"], "sound", "{report}");
                assert_eq!(report["blob_directory"], json!(site.blobs()));
                assert_eq!(
                    (&report["blobs"], &report["blob_bytes"]),
                    (&json!(5), &json!(total))
                );
                for key in [
                    "missing",
                    "different",
                    "unreadable",
                    "absent",
                    "not_copied",
                    "unchecked",
                ] {
                    assert_eq!(report[format!("blobs_{key}")], 0, "{key}");
                }
                assert_eq!(report["blobs_position"], report["position"]);
                for key in ["blobs_stopped", "blobs_against", "orphans", "orphan_files"] {
                    assert!(report[key].is_null(), "{key}");
                }
            }
        }
    }
}

#[test]
fn the_blobs_of_a_plone_site_are_verified_before_and_after_a_pass() {
    let scene = Scene::new();
    let var = scene.directory.path().join("var");
    must(
        Command::new("cp")
            .arg("-r")
            .arg(project("fixtures/plone/var"))
            .arg(&var),
    );
    let (log, blobs) = (var.join("filestorage/Data.fs"), var.join("blobstorage"));
    let verify = |slave: &Path, blobs: Option<&Path>| {
        let mut command = fssync();
        command.args(["verify", "--json", "--orphans"]).arg(slave);
        if let Some(blobs) = blobs {
            command.arg("--slave-blobs").arg(blobs);
        }
        run(&mut command).expect(0).report()
    };
    // The site itself: no pass was made for it.
    let site = verify(&log, Some(&blobs));
    let number = site["blobs"].as_u64().expect("a number");
    assert!(number > 3, "{site}");
    assert_eq!(
        (&site["blobs_unchecked"], &site["orphans"]),
        (&json!(number), &json!(0))
    );
    let mut pass = fssync();
    run(pass.arg("--blobs").arg(&log).arg(&scene.slave)).expect(0);
    let slave = verify(&scene.slave, None);
    for key in [
        "blobs",
        "blob_bytes",
        "orphans",
        "blobs_missing",
        "blobs_not_copied",
    ] {
        assert_eq!(slave[key], site[key], "{key}");
    }
}

#[test]
fn blobs_are_not_verified_if_passes_do_not_copy_them() {
    let site = Site::of_master(Setup::FileStorage, Layout::Bushy, Transport::Path);
    site.scene.pass(&["--no-blobs"]).expect(0);
    let report = site.report(&[], 0);
    for key in ["blobs", "blob_bytes", "blobs_missing", "blob_directory"] {
        assert!(report[key].is_null(), "{key}");
    }
    let refused = site.verify(&["--orphans"]).expect(2);
    assert!(refused.stderr.contains("--slave-blobs"), "{refused:?}");
}

#[test]
fn missing_and_different_files_are_damage() {
    let site = Site::new();
    fs::remove_file(site.file(1)).expect("a blob");
    shorten(&site.file(2), 999);
    flip_a_byte(&site.file(4));
    let report = site.report(&[], 31);
    let (missing, different) = ("blob-missing".to_owned(), "blob-different".to_owned());
    let damages = [
        (missing, site.name(1)),
        (different.clone(), site.name(2)),
        (different, site.name(4)),
    ];
    assert_eq!(findings(&report), damages);
    assert_eq!(
        (&report["damages"], &report["verdict"]),
        (&json!(3), &json!("damaged"))
    );
    assert_eq!(
        (&report["blobs_missing"], &report["blobs_different"]),
        (&json!(1), &json!(2))
    );
    let [missing, shorter, content] = report["findings"].as_array().expect("a list").as_slice()
    else {
        panic!("{report}");
    };
    let key = site.keys[1];
    assert_eq!(missing["tid"], key.tid.to_string());
    assert_eq!(missing["oid"], format!("{:016x}", key.oid));
    assert_eq!(missing["position"], 0);
    assert_eq!(shorter["expected"], "1000 bytes, as the master sent");
    assert_eq!(shorter["found"], "999 bytes");
    assert_eq!(content["found"], "different bytes");
    for finding in [missing, shorter, content] {
        let advice = finding["advice"].as_str().expect("advice");
        assert!(advice.contains("fssync --recheck-blobs"), "{advice}");
    }
    // The content is not read.
    let report = site.report(&["--quick"], 31);
    assert_eq!(findings(&report), damages[..2]);
    let printed = run(&mut site.scene.verify(&[])).expect(31);
    let line = format!(
        "DAMAGE        {}, tid {}",
        site.name(1).display(),
        key.tid.with_time()
    );
    assert!(printed.stdout.contains(&line), "{}", printed.stdout);
    assert!(
        printed.stdout.contains("blobs         4 files, "),
        "{}",
        printed.stdout
    );
    assert!(
        printed
            .stdout
            .ends_with("DAMAGED: 3 findings, 3 of them in blobs\n"),
        "{}",
        printed.stdout
    );
}

#[test]
fn other_kinds_of_files_in_place_of_a_blob_are_damage_and_are_not_followed() {
    let site = Site::new();
    let secret = site.scene.directory.path().join("secret");
    fs::rename(site.file(0), &secret).expect("a rename");
    symlink(&secret, site.file(0)).expect("a link");
    for (number, make) in [(1, Command::new("mkdir")), (2, tool("mkfifo", "coreutils"))] {
        let mut make = make;
        fs::remove_file(site.file(number)).expect("a blob");
        must(make.arg(site.file(number)));
    }
    // A link in place of a directory leads to the right file, but not into the blob directory.
    let directory = site.file(4);
    let directory = directory.parent().expect("a directory");
    let elsewhere = site.scene.directory.path().join("elsewhere");
    fs::rename(directory, &elsewhere).expect("a rename");
    symlink(&elsewhere, directory).expect("a link");
    for options in [&[][..], &["--quick"]] {
        let report = site.report(options, 31);
        let expected: Vec<_> = [0, 1, 2, 4]
            .map(|n| ("blob-unreadable".to_owned(), site.name(n)))
            .into();
        assert_eq!(findings(&report), expected, "{report}");
        assert_eq!(report["blobs"], 1);
        let found = |n: usize| report["findings"][n]["found"].as_str().expect("a text");
        assert!(found(0).contains("not a regular file"), "{report}");
        assert!(found(1).contains("not a regular file"), "{report}");
        assert!(found(3).contains("symbolic link"), "{report}");
    }
}

#[test]
fn a_blob_that_cannot_be_read_is_damage_and_the_others_are_verified() {
    let site = Site::new();
    flip_a_byte(&site.file(4));
    let inject = ["-e", "inject=pread64:error=EIO"];
    let mut command = strace(&inject, &[site.file(1)]);
    command.args(["verify", "--json"]).arg(&site.scene.slave);
    let report = run(&mut command).expect(31).report();
    let expected = [
        ("blob-unreadable".to_owned(), site.name(1)),
        ("blob-different".to_owned(), site.name(4)),
    ];
    assert_eq!(findings(&report), expected, "{report}");
    let found = report["findings"][0]["found"].as_str().expect("a text");
    assert!(found.contains("Input/output error"), "{found}");
    assert_eq!(report["blobs_unreadable"], 1);
}

#[test]
fn a_lack_of_permission_is_an_error_and_no_damage() {
    let site = Site::new();
    let mut command = as_nobody(&site.scene);
    // ZODB 5.1.1 makes such files.
    must(Command::new("chown").args(["-R", "root"]).arg(site.blobs()));
    must(Command::new("chmod").args(["-R", "go="]).arg(site.blobs()));
    let denied = run(command.arg("verify").arg(&site.scene.slave)).expect(1);
    assert!(denied.stderr.contains("Permission denied"), "{denied:?}");
}

#[test]
fn a_blob_directory_that_is_not_mounted_is_an_error_and_no_blob_is_missing() {
    let site = Site::new();
    fs::rename(site.blobs(), site.scene.directory.path().join("elsewhere")).expect("a rename");
    for make in [false, true] {
        if make {
            fs::create_dir(site.blobs()).expect("a mount point");
        }
        let failed = site.verify(&[]).expect(1);
        assert_eq!(failed.stdout, "");
        assert!(failed.stderr.contains("is its disk mounted?"), "{failed:?}");
    }
}

#[test]
fn damaged_blobs_are_recorded_apart_from_the_log_and_a_quick_look_does_not_clear_them() {
    let site = Site::new();
    let recorded = || {
        let text = fs::read(site.scene.beside(".fssync-verified")).expect("the result");
        let result: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        (result["damages"].clone(), result["blob_damages"].clone())
    };
    site.report(&[], 0);
    assert_eq!(recorded(), (json!(0), json!(0)));
    flip_a_byte(&site.file(3));
    site.report(&[], 31);
    assert_eq!(recorded(), (json!(0), json!(1)));
    site.report(&["--quick"], 0);
    assert_eq!(recorded(), (json!(0), json!(1)));
    // Neither `status` nor a pass reports the slave as sound.
    let status = || run(&mut site.scene.status(&["--json"]));
    let report = status().expect(31).report();
    assert_eq!(
        (&report["verdict"], &report["verify_blob_damages"]),
        (&json!("damaged"), &json!(1))
    );
    for options in [&["--blobs"], &["--recheck-blobs"]] {
        let pass = site.scene.pass(options).expect(0).report();
        let warnings = pass["warnings"].to_string();
        assert!(warnings.contains("fssync --recheck-blobs"), "{pass}");
        assert!(!warnings.contains("--full"), "{pass}");
    }
    site.report(&[], 0);
    assert_eq!(recorded(), (json!(0), json!(0)));
    status().expect(0);
    let pass = site.scene.pass(&["--blobs"]).expect(0).report();
    assert_eq!(pass["warnings"], json!([]), "{pass}");
}

#[test]
fn a_pass_that_compares_all_blobs_again_repairs_them() {
    let site = Site::new();
    fs::remove_file(site.file(1)).expect("a blob");
    flip_a_byte(&site.file(4));
    site.report(&[], 31);
    site.scene.pass(&["--recheck-blobs"]).expect(0);
    let report = site.report(&[], 0);
    assert_eq!(
        (&report["blobs"], &report["verdict"]),
        (&json!(5), &json!("sound"))
    );
}

#[test]
fn a_damaged_log_is_searched_for_blobs_up_to_the_damage() {
    let site = Site::new();
    let mut bytes = fs::read(&site.scene.slave).expect("the slave");
    // The last transaction but one has the last blob but one.
    let tid = site.keys[3].tid.0.to_be_bytes();
    let at = bytes.windows(8).position(|it| it == tid).expect("a header");
    bytes[at + 8] = 0xff;
    fs::write(&site.scene.slave, bytes).expect("the slave");
    let report = site.report(&["--orphans"], 31);
    assert_eq!(
        (&report["blobs"], &report["blobs_position"]),
        (&json!(3), &json!(at))
    );
    let stopped = report["blobs_stopped"].as_str().expect("a reason");
    assert!(stopped.contains("damaged"), "{report}");
    assert!(report["orphans"].is_null(), "{report}");
}
