//! `fssync status` of a slave with blobs, which ZODB has written at the master.

use std::fs;
use std::path::PathBuf;

use fssync::filestorage::blob::BlobKey;
use fssync::pass::apply::Tuning;
use fssync::slave::blobs::GoneWriter;
use fssync::source::path::MountedPath;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::derived::{key, on_disk};
use crate::contrib::script::{configure, script};
use crate::status::assert_only_reads;
use crate::support::{Run, Scene, Setup, Transport, Zodb, as_nobody, blobs_beside, run};

/// A site with five blobs, and the ZODB that has it open.
struct Site {
    scene: Scene,
    zodb: Zodb,
}

impl Site {
    fn new() -> Self {
        let scene = Scene::new();
        let mut zodb = Zodb::start();
        let options = json!({"create": true, "layout": "bushy"});
        zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
        let mut site = Self { scene, zodb };
        site.commit(&json!({"blobs": 3, "blob_size": 1000}));
        site.commit(&json!({"changes": 1, "blob_size": 10}));
        site.commit(&json!({"blobs": 1, "blob_size": 300_000}));
        site
    }

    /// The same, with a slave in sync.
    fn synced(transport: Transport) -> Self {
        let site = Self::new();
        let scene = site.scene.over(transport);
        let site = Self { scene, ..site };
        site.pass();
        site
    }

    /// A pass with blobs. Returns its report.
    #[track_caller]
    fn pass(&self) -> Value {
        self.scene.pass(&["--blobs"]).expect(0).report()
    }

    fn commit(&mut self, what: &Value) {
        let mut command = json!({"cmd": "commit", "name": "m"});
        let what = what.as_object().expect("what").clone();
        command.as_object_mut().expect("a command").extend(what);
        self.zodb.call(&command);
    }

    /// The slave's blob directory.
    fn blobs(&self) -> PathBuf {
        self.scene.slave.with_file_name("blobstorage")
    }

    /// The paths of some blob files of the slave.
    fn blob_files(&mut self) -> Vec<PathBuf> {
        let blobs = self.blobs();
        let answer = self
            .zodb
            .call(&json!({"cmd": "blob_files", "blob_directory": blobs}));
        let files = answer["files"].as_object().expect("files").values();
        let path = |it: &Value| it.as_str().expect("a path").into();
        files.map(path).collect()
    }

    /// The report against the master, with this exit code.
    #[track_caller]
    fn report(&self, code: i32) -> Value {
        self.scene.status_against().expect(code).report()
    }

    /// The line about blobs, and the one about a failover, without the master.
    #[track_caller]
    fn lines(&self, code: i32) -> (String, String) {
        let text = run(&mut self.scene.status(&[])).expect(code).stdout;
        let line = |start: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(start));
            found.unwrap_or_else(|| panic!("{text}")).to_owned()
        };
        (line("blobs         "), line("If you failed over now: "))
    }
}

#[test]
fn the_blobs_of_a_slave_in_sync_are_counted() {
    for transport in Transport::BOTH {
        let mut site = Site::synced(transport);
        let report = site.report(0);
        let files = site.blob_files();
        let len = |path: &PathBuf| fs::metadata(path).unwrap().len();
        assert_eq!(report["blobs"], files.len(), "{report}");
        assert_eq!(report["blobs"], on_disk(&site.blobs()).len());
        assert_eq!(report["blob_bytes"], files.iter().map(len).sum::<u64>());
        assert_eq!(report["blob_directory"], json!(site.blobs()));
        assert_eq!(report["blobs_replicated"], true);
        assert_eq!(report["blobs_complete"], true);
        for none in [
            "blobs_pending_bytes",
            "blobs_missing",
            "blobs_absent",
            "blobs_to_remove",
            "lag_blobs",
        ] {
            assert_eq!(report[none], 0, "{none}: {report}");
        }
        assert_eq!(report["blob_problem"], Value::Null);
        assert_eq!(report["verdict"], "in-sync");
        let (blobs, _) = site.lines(0);
        assert_eq!(blobs, "5 files, 295.9 KiB; all transactions have theirs");
    }
}

#[test]
fn blobs_that_passes_do_not_copy_are_reported() {
    let site = Site::new();
    let assert_not_replicated = || {
        let report = site.report(0);
        assert_eq!(report["blobs_replicated"], false, "{report}");
        assert_eq!(report["blobs"], Value::Null);
        assert_eq!(report["verdict"], "in-sync");
        let (blobs, failover) = site.lines(0);
        assert_eq!(blobs, "NOT replicated: passes copy only Data.fs");
        assert!(
            failover.contains("; blobs are NOT replicated"),
            "{failover}"
        );
    };
    site.scene.pass(&[]).expect(0);
    assert_not_replicated();
    site.pass();
    assert_eq!(site.report(0)["blobs"], 5);
    site.scene.pass(&["--no-blobs"]).expect(0);
    assert_not_replicated();
    // A site without blobs.
    let scene = Scene::with_master("commits");
    scene.expect("full-copy");
    let report = scene.status_against().expect(0).report();
    assert_eq!(report["blobs_replicated"], Value::Null);
    let text = run(&mut scene.status(&[])).expect(0).stdout;
    assert!(
        text.contains("blobs         no pass has met one\n"),
        "{text}"
    );
}

#[test]
fn the_blobs_of_transactions_that_would_be_lost_are_counted() {
    for transport in Transport::BOTH {
        let mut site = Site::synced(transport);
        site.commit(&json!({"blobs": 2}));
        site.commit(&json!({"changes": 1}));
        // The undo creates a file too. Its back pointer leads to the change before.
        site.zodb.call(&json!({"cmd": "undo", "name": "m"}));
        site.commit(&json!({"objects": 2}));
        let report = site.report(0);
        assert_eq!(report["lag_transactions"], 4, "{report}");
        assert_eq!(report["lag_blobs"], 4, "{report}");
        assert_eq!(report["verdict"], "behind");
        let line = report["failover"].as_str().unwrap();
        assert!(line.starts_with("4 transactions with 4 blobs, "), "{line}");
        assert_eq!(report["blobs_complete"], true, "none is missing");
        let copied = site.pass();
        assert_eq!(copied["blobs"], report["lag_blobs"], "{copied}");
        assert_eq!(site.report(0)["lag_blobs"], 0);
    }
}

#[test]
fn without_its_blob_directory_a_slave_is_incomplete() {
    let site = Site::synced(Transport::Path);
    let away = site.scene.directory.path().join("away");
    fs::rename(site.blobs(), &away).unwrap();
    let assert_incomplete = |why: &str| {
        let report = site.report(1);
        assert_eq!(report["verdict"], "incomplete", "{report}");
        assert_eq!(report["blobs_complete"], false);
        assert_eq!(report["blobs_missing"], Value::Null);
        let pass = site.scene.pass(&["--blobs"]).expect(1).report();
        assert_eq!(report["next_exit_code"], 1, "{report}");
        assert_eq!(report["next_reason"], pass["reason"]);
        assert_eq!(report["next_action"], pass["action"]);
        let problem = report["blob_problem"].as_str().unwrap();
        assert!(problem.contains(why), "{problem}");
        let (blobs, failover) = site.lines(1);
        assert_eq!(blobs, problem);
        assert!(
            failover.starts_with("all blobs would be missing: "),
            "{failover}"
        );
        let quiet = run(&mut site.scene.status(&["-q"])).expect(1);
        assert_eq!(quiet.stderr.lines().count(), 1, "{quiet:?}");
        assert!(quiet.stderr.contains(why), "{quiet:?}");
    };
    assert_incomplete("it does not exist");
    // The empty directory under a mount point.
    fs::create_dir(site.blobs()).unwrap();
    assert_incomplete("it has no valid .fssync/id");
    fs::create_dir(site.blobs().join(".fssync")).unwrap();
    fs::write(
        site.blobs().join(".fssync/id"),
        "0123456789abcdef".repeat(2),
    )
    .unwrap();
    assert_incomplete("is that of another directory");
    fs::remove_dir_all(site.blobs()).unwrap();
    fs::rename(&away, site.blobs()).unwrap();
    assert_eq!(site.report(0)["verdict"], "in-sync");
}

#[test]
fn a_blob_directory_that_was_replaced_is_filled_by_a_pass_with_recheck_blobs() {
    let mut site = Site::synced(Transport::Path);
    for is_sidecar_lost in [false, true] {
        let before = on_disk(&site.blobs());
        let files = site.blob_files();
        fs::remove_dir_all(site.blobs()).unwrap();
        if is_sidecar_lost {
            fs::remove_file(site.scene.beside(".fssync")).unwrap();
        }
        let refused = site.scene.pass(&["--blobs"]).expect(1);
        assert!(refused.stderr.contains("--recheck-blobs"), "{refused:?}");
        assert!(!site.blobs().exists(), "nothing is created");
        let report = site.scene.pass(&["--recheck-blobs"]).expect(0).report();
        assert_eq!(report["blobs"], files.len(), "{report}");
        assert_eq!(on_disk(&site.blobs()), before);
        assert_eq!(site.report(0)["blobs_complete"], true);
        assert_eq!(site.report(0)["blobs"], files.len());
    }
}

#[test]
fn a_blob_directory_that_cannot_be_read_is_not_called_complete() {
    let site = Site::synced(Transport::Path);
    let mut status = as_nobody(&site.scene);
    status.arg("status").arg("--json").arg(&site.scene.slave);
    assert_eq!(run(&mut status).expect(0).report()["blobs_complete"], true);
    let ours = site.blobs().join(".fssync");
    std::os::unix::fs::chown(&ours, Some(0), Some(0)).unwrap();
    let report = run(&mut status).expect(1).report();
    assert_eq!(report["verdict"], "incomplete", "{report}");
    let problem = report["blob_problem"].as_str().unwrap();
    assert!(problem.contains("Permission denied"), "{problem}");
}

#[test]
fn blobs_that_are_not_copied_yet_are_looked_up_in_a_short_part_of_the_log() {
    let mut site = Site::new();
    site.scene.pass(&[]).expect(0);
    let position = fs::metadata(&site.scene.slave).unwrap().len();
    site.pass();
    // As it is after the first pass with `--blobs`, if that has not closed the gap.
    let reopen_gap = |site: &Site| {
        site.scene.edit_sidecar(|sidecar| {
            sidecar["blobs"]["complete"] = json!(4);
            sidecar["blobs"]["since"] = json!(position);
        });
    };
    site.commit(&json!({"blobs": 1}));
    site.pass();
    reopen_gap(&site);
    assert_eq!(site.report(0)["blobs_complete"], true, "all are there");
    let files = site.blob_files();
    for file in &files[..2] {
        fs::remove_file(file).unwrap();
    }
    let report = site.report(0);
    assert_eq!(report["blobs_complete"], false, "{report}");
    assert_eq!(report["blobs_missing"], 2);
    assert_eq!(report["blobs_pending_bytes"], position - 4);
    assert_eq!(report["verdict"], "incomplete");
    let line = report["failover"].as_str().unwrap();
    let expected = "2 blobs would be missing; no transaction would be lost";
    assert!(line.starts_with(expected), "{line}");
    let (blobs, _) = site.lines(0);
    let expected = format!("and from position {position} on");
    assert!(blobs.contains("; complete up to 0 % of "), "{blobs}");
    assert!(blobs.ends_with(&expected), "{blobs}");
    site.pass();
    assert_eq!(site.report(0)["verdict"], "in-sync");
}

#[test]
fn a_long_part_of_the_log_without_its_blobs_is_not_read() {
    let mut site = Site::new();
    site.commit(&json!({"objects": 20, "size": 1_000_000}));
    site.pass();
    site.scene.edit_sidecar(|sidecar| {
        sidecar["blobs"]["complete"] = json!(4);
        sidecar["blobs"]["since"] = sidecar["blobs"]["until"].clone();
    });
    let report = site.report(0);
    assert_eq!(report["verdict"], "incomplete", "{report}");
    assert_eq!(report["blobs_missing"], Value::Null);
    let position = report["position"].as_u64().unwrap();
    assert_eq!(report["blobs_pending_bytes"], position - 4);
    let line = report["failover"].as_str().unwrap();
    assert!(
        line.starts_with("blobs may be missing: those of "),
        "{line}"
    );
    assert!(line.contains(" are not copied yet; "), "{line}");
    site.scene
        .edit_sidecar(|sidecar| sidecar["blobs"]["rechecks"] = json!(true));
    let (blobs, failover) = site.lines(0);
    assert!(blobs.contains("; compared again up to 0 % of "), "{blobs}");
    assert!(
        failover.contains("are being compared again; "),
        "{failover}"
    );
}

#[test]
fn transactions_that_the_sidecar_does_not_record_yet_have_their_blobs() {
    let mut site = Site::synced(Transport::Path);
    let sidecar = fs::read(site.scene.beside(".fssync")).unwrap();
    site.commit(&json!({"blobs": 2}));
    site.pass();
    // As if the pass was still running, or was killed.
    fs::write(site.scene.beside(".fssync"), sidecar).unwrap();
    let report = site.report(0);
    assert_eq!(report["left"], "grown");
    assert_eq!(report["blobs_complete"], true, "{report}");
    assert_eq!(report["verdict"], "in-sync");
}

#[test]
fn a_lost_record_of_the_blobs_is_reported() {
    let site = Site::synced(Transport::Path);
    fs::remove_file(site.scene.beside(".fssync")).unwrap();
    let report = site.report(0);
    assert_eq!(report["verdict"], "incomplete", "{report}");
    assert_eq!(report["blobs_replicated"], true);
    assert_eq!(report["blobs"], Value::Null);
    assert_eq!(report["blob_directory"], json!(site.blobs()));
    let (blobs, _) = site.lines(0);
    assert!(blobs.starts_with("not recorded, in "), "{blobs}");
    site.pass();
    assert_eq!(site.report(0)["blobs"], 5);
}

#[test]
fn absent_blobs_and_blobs_to_be_removed_are_counted() {
    let mut site = Site::new();
    let master = blobs_beside(&site.scene.master);
    let answer = site
        .zodb
        .call(&json!({"cmd": "blob_files", "blob_directory": master}));
    let files = answer["files"].as_object().expect("files");
    let (removed, path) = files.iter().next().expect("a blob");
    fs::remove_file(path.as_str().unwrap()).unwrap();
    site.pass();
    let job = site.scene.job(
        MountedPath::new(site.scene.master.clone()),
        Tuning::default(),
    );
    let mut gone = GoneWriter::new(&job.slave, Timestamp::now());
    for oid in 100..103 {
        let BlobKey { tid, .. } = key(removed);
        gone.add(BlobKey { tid, oid }).unwrap();
    }
    gone.finish().unwrap();
    let report = site.report(0);
    assert_eq!(report["blobs"], 4);
    assert_eq!(report["blobs_absent"], 1);
    assert_eq!(report["blobs_missing"], 0, "the master lacks it too");
    assert_eq!(report["blobs_to_remove"], 3);
    assert_eq!(report["verdict"], "in-sync");
    let (blobs, _) = site.lines(0);
    let expected = "; all transactions have theirs; the master lacks 1; 3 that a pack has removed \
                    at the master are kept for now";
    assert!(blobs.ends_with(expected), "{blobs}");
}

/// Runs the first pass, which cannot read one of the blobs.
fn interrupted_first_copy(site: &mut Site) -> Run {
    let master = blobs_beside(&site.scene.master);
    let answer = site
        .zodb
        .call(&json!({"cmd": "blob_files", "blob_directory": master}));
    let files = answer["files"].as_object().expect("files");
    let path = files
        .values()
        .next_back()
        .expect("a blob")
        .as_str()
        .unwrap();
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    site.scene.pass(&["--blobs"])
}

#[test]
fn a_slave_whose_first_copy_is_not_complete_is_no_slave() {
    let mut site = Site::new();
    let pass = interrupted_first_copy(&mut site);
    assert_ne!(pass.code, 0, "{pass:?}");
    assert_eq!(fs::read(&site.scene.slave).unwrap(), b"FS30");
    let report = site.report(1);
    assert_eq!(report["state"], "short");
    assert_eq!(report["verdict"], "no-slave");
    let (_, failover) = site.lines(1);
    let expected = "there is no slave to serve yet: the first copy is not complete";
    assert_eq!(failover, expected);
    configure(&site.scene, "");
    let refused = script(&site.scene, "start").expect(1);
    let message = "is missing or empty; ZEO is not started";
    assert!(refused.stderr.contains(message), "{refused:?}");
    script(&site.scene, "status").expect(3);
    assert!(
        !site.scene.beside(".fssync-switch").exists(),
        "passes go on"
    );
}

#[test]
fn nothing_is_written_and_the_blob_directory_is_not_walked_through() {
    let site = Site::synced(Transport::Path);
    let master = site.scene.master.to_str().unwrap();
    let command = site.scene.status(&["--against", master]);
    assert_only_reads(&site.scene, &command);
    let trace = fs::read_to_string(site.scene.directory.path().join("trace")).unwrap();
    assert!(trace.contains("/blobstorage"), "{trace}");
    assert!(!trace.contains(".blob"), "no blob is opened: {trace}");
}
