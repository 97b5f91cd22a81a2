//! Every fixture as a master, checked against ZODB's view of it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Scene, Zodb, must, names, project, python};

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
