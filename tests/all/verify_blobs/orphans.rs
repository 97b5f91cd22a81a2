//! `--orphans`: files to which the log does not refer.

use std::fs;
use std::path::{Path, PathBuf};

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{BlobKey, Layout};
use fssync::slave::blobs::GoneWriter;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Site;
use crate::support::{Setup, run};

/// Writes a blob file below this directory.
fn write(blobs: &Path, key: BlobKey) -> PathBuf {
    let path = Layout::Bushy.path(key);
    let file = blobs.join(&path);
    fs::create_dir_all(file.parent().expect("a directory")).expect("directories");
    fs::write(&file, "an orphan").expect("a file");
    path
}

fn files(report: &Value) -> Vec<PathBuf> {
    let files = report["orphan_files"].as_array().expect("a list").iter();
    let mut files: Vec<PathBuf> = files
        .map(|it| it.as_str().expect("a path").into())
        .collect();
    files.sort();
    files
}

#[test]
fn files_to_which_the_log_does_not_refer_are_listed_and_are_not_damage() {
    for setup in Setup::BOTH {
        let site = Site::of(setup, Layout::Lawn);
        let report = site.report(&["--orphans"], 0);
        assert_eq!(
            (&report["orphans"], files(&report)),
            (&json!(0), vec![]),
            "{report}"
        );
        let old = site.keys[0];
        let expected = [
            // A revision of an object that the log has, and an object that it does not have.
            BlobKey { tid: Tid(7), ..old },
            BlobKey {
                oid: 0x0102_0304,
                ..old
            },
        ]
        .map(|key| write(&site.blobs(), key));
        // Not orphans: files that are being received, and other files.
        write(
            &site.blobs().join(".fssync/aside-0000000000000007"),
            BlobKey { tid: Tid(8), ..old },
        );
        fs::write(site.file(0).with_file_name("notes"), "").expect("a file");
        let report = site.report(&["--orphans"], 0);
        assert_eq!(report["orphans"], 2, "{report}");
        assert_eq!(report["orphan_bytes"], 18);
        let mut sorted = expected.to_vec();
        sorted.sort();
        assert_eq!(files(&report), sorted);
        assert_eq!(
            (&report["blobs"], &report["verdict"]),
            (&json!(5), &json!("sound"))
        );
        let printed = run(&mut site.scene.verify(&["--orphans", "-v"])).expect(0);
        for path in &expected {
            let path = path.to_str().expect("UTF-8");
            assert!(printed.stdout.contains(path), "{}", printed.stdout);
            assert!(printed.stderr.contains(path), "{}", printed.stderr);
        }
        assert!(
            printed
                .stdout
                .contains("orphans       2 files, 18 bytes, to which the log does not refer"),
            "{}",
            printed.stdout
        );
    }
}

#[test]
fn files_that_a_pass_will_use_or_remove_are_no_orphans() {
    let site = Site::new();
    let old = site.keys[0];
    let gone = BlobKey { tid: Tid(9), ..old };
    // A pass was killed before the transaction became visible.
    let last = site.keys[4].tid.0;
    let newer = BlobKey {
        tid: Tid(last + 1),
        ..old
    };
    for key in [gone, newer] {
        write(&site.blobs(), key);
    }
    assert_eq!(site.report(&["--orphans"], 0)["orphans"], 1);
    let slave = site.slave();
    let mut writer = GoneWriter::new(&slave, Timestamp::now());
    writer.add(gone).expect("an entry");
    writer.finish().expect("the list");
    let report = site.report(&["--orphans"], 0);
    assert_eq!(report["orphans"], 0, "{report}");
}

#[test]
fn many_orphans_are_counted_and_the_first_are_printed() {
    let site = Site::new();
    for oid in 1000..1050 {
        write(&site.blobs(), BlobKey { tid: Tid(1), oid });
    }
    let report = site.report(&["--orphans", "--quick"], 0);
    assert_eq!((&report["orphans"], files(&report).len()), (&json!(50), 50));
    let printed = run(&mut site.scene.verify(&["--orphans"])).expect(0);
    assert_eq!(
        printed.stdout.matches("/0x01.blob").count(),
        20,
        "{}",
        printed.stdout
    );
    assert!(printed.stdout.contains("and 30 more"), "{}", printed.stdout);
}
