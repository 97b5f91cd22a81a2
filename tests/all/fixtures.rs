//! Every fixture as a master, checked against ZODB's view of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::blobs::derived::{Derived, key, on_disk};
use crate::support::{Blobs, Scene, Setup, Zodb, must, names, project, python};

fn expected() -> Value {
    let text = fs::read_to_string(project("fixtures/expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_generator_reproduces_the_fixtures() {
    must(
        std::process::Command::new(python())
            .arg(project("fixtures/generate.py"))
            .arg("--check")
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    );
}

#[test]
fn every_fixture_is_replicated_up_to_its_position() {
    let expected = expected();
    let files = expected["files"].as_object().expect("the fixtures");
    let on_disk = names(&project("fixtures"))
        .into_iter()
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|ending| ending == "fs")
        })
        .count();
    assert_eq!(on_disk, files.len(), "each fixture is in expected.json");
    let mut zodb = Zodb::start();
    for (name, observation) in files {
        let scene = Scene::with_master(name);
        let run = scene.pass(&[]);
        let code = match observation["tail"].as_str().expect("a tail") {
            "clean" | "voted" => 0,
            "foreign" => 12,
            // ZODB takes less than a header for a write that has just started.
            "torn" if name == "torn-header" => 0,
            _ => 30,
        };
        assert_eq!(run.code, code, "{name}: {run:?}");
        let Some(position) = observation["position"].as_u64() else {
            assert!(!scene.slave.exists(), "{name}");
            continue;
        };
        let report = run.report();
        assert_eq!(report["position"], position, "{name}");
        assert_eq!(report["last_tid"], observation["last_tid"], "{name}");
        let transactions = observation["transactions"]
            .as_array()
            .expect("transactions");
        assert_eq!(report["transactions"], transactions.len(), "{name}");
        let (master, slave) = (
            fs::read(&scene.master).unwrap(),
            fs::read(&scene.slave).unwrap(),
        );
        assert!(slave == master[..position as usize], "{name}");
        let found = zodb.check(&scene.slave);
        assert_eq!(found["position"], position, "{name}: {found}");
        if code == 0 {
            scene.expect("up-to-date");
        }
    }
}

/// `needed` and `optional` come from `fixtures/blob_pickles.py`, and the others from ZODB.
#[test]
fn the_blobs_of_every_fixture_are_derived_and_are_those_that_zodb_left() {
    let expected = expected();
    let files = expected["files"].as_object().expect("the fixtures");
    let mut with_files = 0;
    for (name, observation) in files {
        let Some(position) = observation["position"].as_u64() else {
            continue;
        };
        let blobs = &observation["blobs"];
        let keys = |of: &str| -> Option<BTreeSet<_>> {
            let keys = blobs[of].as_array()?.iter();
            Some(keys.map(|it| key(it.as_str().expect("a key"))).collect())
        };
        let derived = Derived::of(&project(&format!("fixtures/{name}.fs")), position);
        assert_eq!(Some(&derived.needed), keys("needed").as_ref(), "{name}");
        assert_eq!(Some(&derived.optional), keys("optional").as_ref(), "{name}");
        if let (Some(by_file_storage), Some(by_proxy)) = (keys("fs"), keys("proxy")) {
            with_files += 1;
            assert_eq!(by_file_storage, derived.needed, "{name}");
            assert_eq!(by_proxy, &derived.needed | &derived.optional, "{name}");
        }
    }
    assert_eq!(with_files, 5, "fixtures of which the files are known");
}

#[test]
fn the_site_has_all_its_blobs() {
    let file = project("fixtures/plone/var/filestorage/Data.fs");
    let directory = project("fixtures/plone/var/blobstorage");
    let len = fs::metadata(&file).expect("the site").len();
    let derived = Derived::of(&file, len);
    assert_eq!(derived.needed, on_disk(&directory));
    // ZODB creates a directory beside the blobs.
    let scene = Scene::new();
    let blobs = scene.directory.path().join("blobs");
    must(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(&directory)
            .arg(&blobs),
    );
    let site = Blobs {
        file: &file,
        directory: &blobs,
        expected: Some(&directory),
        journal: None,
    };
    assert_eq!(
        Zodb::start().assert_blobs(&site, Setup::FileStorage),
        derived.needed.len() as u64
    );
}
