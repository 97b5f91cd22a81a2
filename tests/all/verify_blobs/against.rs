//! The comparison with the blobs of the master, on a mounted path and through SSH.

use std::fs;
use std::process::Command;

use fssync::filestorage::blob::Layout;
use fssync::slave::blobs::BlobState;
use serde_json::{Value, json};

use super::{Site, findings, flip_a_byte, shorten};
use crate::support::{Run, Setup, Transport, as_nobody, blobs_beside, must, strace};

impl Site {
    /// Sites whose ledgers have all digests, one for each transport.
    fn over_both() -> [Self; 2] {
        Transport::BOTH.map(|transport| Self::reached(Setup::FileStorage, Layout::Lawn, transport))
    }

    fn lose_ledger(&self) {
        fs::remove_file(self.scene.beside(".fssync-blobs")).expect("the ledger");
    }

    /// The report of a comparison with these options and this exit code.
    #[track_caller]
    fn compare(&self, options: &[&str], code: i32) -> Value {
        let report = self.scene.verify_against(options).expect(code).report();
        assert_eq!(report["exit_code"], code, "{report}");
        report
    }
}

#[test]
fn equal_blobs_are_proven_to_be_equal_even_without_a_ledger() {
    for site in Site::over_both() {
        let master = blobs_beside(&site.scene.master);
        for has_ledger in [true, false] {
            if !has_ledger {
                site.lose_ledger();
            }
            for options in [&[][..], &["--quick"]] {
                let report = site.compare(options, 0);
                let against = &report["blobs_against"];
                assert_eq!(against["equal"], 5, "{report}");
                assert_eq!(against["directory"], json!(master));
                assert_eq!(report["blobs_unchecked"], 0);
                assert_eq!(report["verdict"], "sound");
            }
        }
        let given = master.to_str().expect("UTF-8");
        site.compare(&["--master-blobs", given], 0);
    }
}

#[test]
fn a_slave_whose_blob_differs_from_the_master_is_damaged() {
    for site in Site::over_both() {
        site.lose_ledger();
        flip_a_byte(&site.file(1));
        shorten(&site.file(3), 10);
        fs::remove_file(site.file(4)).expect("a blob");
        let report = site.compare(&[], 31);
        let different = "blob-different".to_owned();
        let expected = [
            (different.clone(), site.name(1)),
            (different, site.name(3)),
            ("blob-missing".to_owned(), site.name(4)),
        ];
        assert_eq!(findings(&report), expected, "{report}");
        assert_eq!(report["blobs_against"]["equal"], 2);
        let found = report["findings"][2]["found"].as_str().expect("a text");
        assert!(found.contains("the master has it"), "{found}");
    }
}

#[test]
fn a_blob_that_the_master_lost_in_a_power_cut_is_damage_of_the_master() {
    for site in Site::over_both() {
        shorten(&site.master_file(0), 0);
        shorten(&site.master_file(4), 299_999);
        for has_ledger in [true, false] {
            if !has_ledger {
                site.lose_ledger();
            }
            let report = site.compare(&[], 30);
            let shorter = "master-blob-shorter".to_owned();
            let expected = [(shorter.clone(), site.name(0)), (shorter, site.name(4))];
            assert_eq!(findings(&report), expected, "{report}");
            let found = report["findings"][1]["found"].as_str().expect("a text");
            assert_eq!(found, "only 299999 bytes there");
            let advice = report["findings"][1]["advice"].as_str().expect("advice");
            assert!(advice.contains("power cut"), "{advice}");
            assert_eq!(report["blobs_against"]["master_different"], 2);
            assert_eq!(
                (&report["damages"], &report["blemishes"]),
                (&json!(0), &json!(2))
            );
        }
    }
}

#[test]
fn the_ledger_proves_which_end_has_changed() {
    for site in Site::over_both() {
        flip_a_byte(&site.master_file(1));
        let report = site.compare(&[], 30);
        let theirs = [("master-blob-different".to_owned(), site.name(1))];
        assert_eq!(findings(&report), theirs, "{report}");
        site.lose_ledger();
        let report = site.compare(&[], 31);
        assert_eq!(
            findings(&report),
            [("blob-different".to_owned(), site.name(1))]
        );
    }
}

#[test]
fn blobs_that_one_end_or_both_lack_are_distinguished() {
    for site in Site::over_both() {
        fs::remove_file(site.master_file(0)).expect("a blob");
        for number in 1..3 {
            fs::remove_file(site.master_file(number)).expect("a blob");
            fs::remove_file(site.file(number)).expect("a blob");
        }
        let report = site.compare(&[], 0);
        let expected = [
            ("master-blob-missing".to_owned(), site.name(0)),
            ("blob-absent".to_owned(), site.name(1)),
        ];
        assert_eq!(findings(&report), expected, "{report}");
        assert_eq!(
            (&report["blobs_absent"], &report["blobs_missing"]),
            (&json!(2), &json!(0))
        );
        assert_eq!(report["blobs_against"]["master_missing"], 1);
    }
}

/// The comparison ended at the master's file of the blob with this number, and this is not damage
/// of the slave.
#[track_caller]
fn assert_ended(site: &Site, run: Run, number: usize, why: &str) {
    let report = run.expect(12).report();
    let error = report["blobs_against"]["error"].as_str().expect("a text");
    let file = site.master_file(number).display().to_string();
    assert!(error.contains(&file) && error.contains(why), "{error}");
    assert_eq!(findings(&report), [], "{report}");
    assert_eq!(
        (&report["verdict"], &report["damages"]),
        (&json!("sound"), &json!(0))
    );
    assert_eq!(report["against"]["verdict"], "equal", "the log is compared");
}

/// The master's file of the blob with this number is the only finding, and the other four blobs are
/// equal.
#[track_caller]
fn assert_only_unreadable(site: &Site, report: &Value, number: usize, why: &str) {
    let unreadable = "master-blob-unreadable".to_owned();
    assert_eq!(findings(report), [(unreadable, site.name(number))]);
    let found = report["findings"][0]["found"].as_str().expect("a text");
    let file = site.master_file(number).display().to_string();
    assert!(found.contains(&file) && found.contains(why), "{found}");
    let against = &report["blobs_against"];
    let counts = ["equal", "master_unreadable", "master_different"].map(|key| &against[key]);
    assert_eq!(counts, [&json!(4), &json!(1), &json!(0)], "{report}");
    assert_eq!(against["error"], Value::Null);
    assert_eq!(
        (&report["verdict"], &report["damages"]),
        (&json!("blemished"), &json!(0))
    );
}

/// As in a pass, this is damage of the master.
#[test]
fn a_blob_that_cannot_be_read_at_the_master_is_damage_of_the_master() {
    let site = Site::of(Setup::FileStorage, Layout::Lawn);
    let inject = ["-e", "inject=read,pread64:error=EIO"];
    let command = strace(&inject, &[site.master_file(1)]);
    let report = site.scene.verify_against_by(command, &[]).expect(30);
    assert_only_unreadable(&site, &report.report(), 1, "Input/output error");
    site.compare(&[], 0);
    for site in Site::over_both() {
        let file = site.master_file(2);
        fs::remove_file(&file).expect("a blob");
        fs::create_dir(&file).expect("a directory in its place");
        let report = site.compare(&[], 30);
        assert_only_unreadable(&site, &report, 2, "not a regular file");
        // The slave's own damage is more severe.
        fs::remove_file(site.file(2)).expect("a blob");
        let report = site.compare(&[], 31);
        let expected =
            ["blob-missing", "master-blob-unreadable"].map(|kind| (kind.to_owned(), site.name(2)));
        assert_eq!(findings(&report), expected);
        let pass = site.scene.pass(&["--blobs", "--recheck-blobs"]).expect(30);
        assert!(pass.stderr.contains("not a regular file"), "{pass:?}");
    }
}

/// An administrator runs `verify` as a user who may not read the master's blobs.
#[test]
fn a_lack_of_permission_at_the_master_is_reported_with_the_file() {
    let site = Site::of(Setup::FileStorage, Layout::Bushy);
    let command = as_nobody(&site.scene);
    let file = site.master_file(3);
    must(Command::new("chown").arg("root:root").arg(&file));
    must(Command::new("chmod").arg("0400").arg(&file));
    let run = site.scene.verify_against_by(command, &[]);
    assert_ended(&site, run, 3, "permission to read");
}

#[test]
fn a_blob_that_was_absent_and_is_at_the_master_now_is_missing() {
    for site in Site::over_both() {
        site.record(&site.keys[1..2], |_| BlobState::Absent);
        fs::remove_file(site.file(1)).expect("a blob");
        assert_eq!(
            findings(&site.report(&[], 0)),
            [("blob-absent".to_owned(), site.name(1))]
        );
        let report = site.compare(&[], 31);
        assert_eq!(
            findings(&report),
            [("blob-missing".to_owned(), site.name(1))]
        );
    }
}

#[test]
fn a_master_without_blobs_is_refused_before_the_slave_is_read() {
    for site in Site::over_both() {
        let blobs = blobs_beside(&site.scene.master);
        fs::rename(&blobs, site.scene.directory.path().join("elsewhere")).expect("a rename");
        let refused = site.scene.verify_against(&[]).expect(2);
        assert_eq!(refused.stdout, "");
        assert!(refused.stderr.contains("--master-blobs"), "{refused:?}");
    }
}

#[test]
fn the_slaves_own_blobs_are_not_compared_with_themselves() {
    let site = Site::of(Setup::FileStorage, Layout::Bushy);
    let own = site.blobs();
    let refused = site
        .scene
        .verify_against(&["--master-blobs", own.to_str().expect("UTF-8")]);
    let refused = refused.expect(2);
    assert!(refused.stderr.contains("is the slave's"), "{refused:?}");
}
