//! Passes with `--full` from a new master to an old one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::crash::scenario::{REWIND, REWIND_OF_A_SLAVE, Scenario};
use crate::support::{History, Scene, Transport, Zodb, fssync, run};

/// A prepared scenario.
struct Site {
    scene: Scene,
    zodb: Zodb,
    /// The slave before the pass.
    old: PathBuf,
    inode: u64,
}

impl Site {
    fn new(scenario: &Scenario, transport: Transport) -> Self {
        let scene = scenario.scene().over(transport);
        let mut zodb = Zodb::start();
        (scenario.prepare)(&scene, &mut zodb);
        let old = scene.directory.path().join("old.fs");
        fs::copy(&scene.slave, &old).expect("a copy");
        Self {
            inode: fs::metadata(&scene.slave).expect("the slave").ino(),
            scene,
            zodb,
            old,
        }
    }

    /// The slave is a copy of the master, in the same file as before.
    fn assert_rewound(&mut self) {
        let scene = &self.scene;
        self.zodb.assert_in_sync(&scene.master, &scene.slave);
        let inode = fs::metadata(&scene.slave).expect("the slave").ino();
        assert_eq!(inode, self.inode, "the same file");
    }

    /// ZODB serves the own transactions from the file that was set aside, also over the slave.
    fn assert_set_aside(&mut self, path: &Path, fork: usize) {
        let found = self
            .zodb
            .call(&json!({"cmd": "compare_set_aside", "path": path,
            "old": self.old, "start": fork, "base": self.scene.slave}));
        assert_eq!(found["transactions"], 1, "{found}");
    }
}

fn path_of(report: &Value) -> PathBuf {
    PathBuf::from(report["set_aside"].as_str().expect("a path"))
}

#[test]
fn own_transactions_are_set_aside_and_the_masters_are_appended() {
    let fork = History::get().before.len();
    for transport in Transport::BOTH {
        for scenario in [&REWIND, &REWIND_OF_A_SLAVE] {
            let mut site = Site::new(scenario, transport);
            let dry = site.scene.pass(&["--full", "--dry-run"]).expect(0);
            assert_eq!(
                fs::read(&site.old).unwrap(),
                fs::read(&site.scene.slave).unwrap()
            );
            let pass = site.scene.pass(&["--full"]).expect(0);
            let report = pass.report();
            site.assert_rewound();
            site.assert_set_aside(&path_of(&report), fork);
            assert_eq!(report["action"], "rewind", "{report}");
            assert_eq!(report["own_transactions"], 1, "{report}");
            let appended = fs::metadata(&site.scene.master).unwrap().len() - fork as u64;
            assert_eq!(report["bytes"], appended, "{report}");
            // The dry run has predicted all of it.
            let dry = dry.report();
            for key in [
                "action",
                "own_transactions",
                "set_aside",
                "transactions",
                "bytes",
            ] {
                assert_eq!(dry[key], report[key], "{key}: {dry}");
            }
            site.scene.expect("up-to-date");
            run(&mut site.scene.verify(&[])).expect(0);
        }
    }
}

#[test]
fn the_own_transactions_are_named_in_a_warning() {
    let site = Site::new(&REWIND, Transport::Path);
    let pass = site.scene.pass(&["--full"]).expect(0);
    let name = path_of(&pass.report());
    assert!(
        pass.stderr.contains(&name.display().to_string()),
        "{pass:?}"
    );
    assert!(pass.stderr.contains("1 transaction"), "{pass:?}");
    let status = run(&mut site.scene.status(&[]));
    assert!(status.stdout.contains("set aside     1 file"), "{status:?}");
}

/// Without `--full`, a person must decide, before and after an attempt that was interrupted.
#[test]
fn a_pass_without_full_refuses() {
    let site = Site::new(&REWIND_OF_A_SLAVE, Transport::Path);
    site.scene.pass(&[]).expect(20);
    assert_eq!(
        fs::read(&site.old).unwrap(),
        fs::read(&site.scene.slave).unwrap()
    );
}

#[test]
fn a_slave_that_is_a_prefix_is_not_copied_again() {
    let scene = Scene::synced(History::get());
    let inode = fs::metadata(&scene.slave).unwrap().ino();
    let report = scene.pass(&["--full"]).expect(0).report();
    assert_eq!(report["action"], "up-to-date", "{report}");
    fs::write(&scene.master, &History::get().after).unwrap();
    let report = scene.pass(&["--full"]).expect(0).report();
    assert_eq!(report["action"], "append", "{report}");
    assert_eq!(fs::metadata(&scene.slave).unwrap().ino(), inode);
    let report = scene.pass(&["--whole"]).expect(0).report();
    assert_eq!(report["action"], "full-copy", "{report}");
}

/// The slave is damaged before its last transactions: they are in the master, so nothing is set
/// aside as the slave's own.
#[test]
fn a_damaged_slave_is_not_rewound() {
    let scene = Scene::synced(History::get());
    let mut bytes = History::get().before.clone();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(&scene.slave, &bytes).unwrap();
    let pass = scene.pass(&["--full"]).expect(0);
    assert_eq!(pass.report()["action"], "full-copy", "{pass:?}");
}

/// If less than half of the slave is common, it is kept as a whole.
#[test]
fn a_slave_with_many_transactions_of_its_own_is_not_rewound() {
    let site = Site::new(&REWIND, Transport::Path);
    let mut zodb = Zodb::start();
    let slave = &site.scene.slave;
    zodb.call(&json!({"cmd": "open", "name": "s", "path": slave}));
    let len = History::get().before.len();
    zodb.call(&json!({"cmd": "commit", "name": "s", "objects": 1, "size": len}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    let whole = fs::read(slave).unwrap();
    let report = site.scene.pass(&["--full"]).expect(0).report();
    assert_eq!(report["action"], "full-copy", "{report}");
    assert_eq!(fs::read(path_of(&report)).unwrap(), whole);
}

/// The own transactions are as long as the sidecar's digests, so the digests alone would not show
/// that the slave was truncated.
#[test]
fn a_rewind_before_the_position_of_the_sidecar_leaves_a_slave_that_passes_recognise() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    let path = &scene.master;
    zodb.call(&json!({"cmd": "open", "name": "m", "path": path, "create": true}));
    let mut commit = |size: u32| {
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 2, "size": size}));
        fs::read(path).expect("the master")
    };
    commit(400_000);
    let restored = commit(100);
    let lost = commit(200_000);
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    scene.expect("full-copy");
    fs::write(path, &restored).unwrap();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": path}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "size": 700}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let report = scene.pass(&["--full"]).expect(0).report();
    assert_eq!(report["action"], "rewind", "{report}");
    zodb.assert_in_sync(&scene.master, &scene.slave);
    scene.expect("up-to-date");
    run(&mut scene.verify(&[])).expect(0);
    let kept = fs::metadata(path_of(&report)).unwrap().len();
    assert_eq!(kept, 4 + (lost.len() - restored.len()) as u64);
}

/// A history with a long transaction at the end of the first segment, which has 4 MiB, and short
/// ones before and after it. The slave forks at each boundary in turn.
#[test]
fn a_fork_at_any_boundary_is_found() {
    let mut zodb = Zodb::start();
    let scene = Scene::new();
    let path = &scene.master;
    let open = |path: &Path| json!({"cmd": "open", "name": "m", "path": path, "create": true});
    zodb.call(&open(path));
    let mut boundaries = Vec::new();
    for size in [
        2_000_000, 1_000_000, 300, 1_500_000, 200, 100, 100, 300_000, 100,
    ] {
        let commit = json!({"cmd": "commit", "name": "m", "objects": 2, "size": size});
        boundaries.push(zodb.call(&commit)["position"].as_u64().expect("a position") as usize);
    }
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    let master = fs::read(path).unwrap();
    for &fork in &boundaries[3..] {
        let scene = Scene::new();
        fs::write(&scene.master, &master).unwrap();
        fs::write(&scene.slave, &master[..fork]).unwrap();
        zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
        zodb.call(&json!({"cmd": "commit", "name": "s", "objects": 2, "size": 50_000}));
        zodb.call(&json!({"cmd": "close", "name": "s"}));
        let old = fs::read(&scene.slave).unwrap();
        let report = scene.pass(&["--full"]).expect(0).report();
        assert_eq!(report["action"], "rewind", "{fork}: {report}");
        assert_eq!(report["bytes"], master.len() - fork, "{fork}: {report}");
        zodb.assert_in_sync(&scene.master, &scene.slave);
        let set_aside = fs::metadata(path_of(&report)).unwrap().len();
        assert_eq!(set_aside, (4 + old.len() - fork) as u64, "{fork}");
        run(&mut scene.verify(&[])).expect(0);
    }
}

#[test]
fn a_rewind_while_zodb_has_the_slave_open_is_refused() {
    let mut site = Site::new(&REWIND, Transport::Path);
    let open = json!({"cmd": "open", "name": "s", "path": site.scene.slave});
    site.zodb.call(&open);
    let files = site.scene.beside_slave();
    site.scene.pass(&["--full"]).expect(13);
    site.scene.pass(&["--full", "--dry-run"]).expect(13);
    let kept = |name: &&String| name.contains(".diverged-");
    assert_eq!(files.iter().filter(kept).count(), 0, "{files:?}");
    site.zodb.call(&json!({"cmd": "close", "name": "s"}));
    run(fssync().arg("off").arg(&site.scene.slave)).expect(0);
    site.scene.pass(&["--full"]).expect(10);
    assert_eq!(
        fs::read(&site.old).unwrap(),
        fs::read(&site.scene.slave).unwrap()
    );
}
