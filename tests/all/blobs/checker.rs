//! The check that all other tests of blobs rely on: does it find what is wrong?

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Blobs, Scene, Setup, Zodb, blobs_beside};

/// A site of which ZODB can load five blobs, one of them only through an old transaction.
fn site(zodb: &mut Zodb, setup: Setup, layout: &str) -> Scene {
    let scene = Scene::new();
    let options = json!({"create": true, "layout": layout, "journal": journal(&scene)});
    zodb.open_with_blobs(&scene.master, setup, &options);
    let mut commit = |what: Value| {
        let mut command = json!({"cmd": "commit", "name": "m"});
        let what = what.as_object().expect("what").clone();
        command.as_object_mut().expect("a command").extend(what);
        zodb.call(&command);
    };
    commit(json!({"blobs": 3, "blob_size": 1000}));
    commit(json!({"changes": 1, "blob_size": 0}));
    commit(json!({"blobs": 1, "blob_size": 300_000}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    scene
}

fn journal(scene: &Scene) -> PathBuf {
    scene.directory.path().join("journal")
}

/// The names of all blob files, sorted by tid.
fn keys(zodb: &mut Zodb, scene: &Scene) -> Vec<(String, PathBuf)> {
    let blobs = blobs_beside(&scene.master);
    let answer = zodb.call(&json!({"cmd": "blob_files", "blob_directory": blobs}));
    let files = answer["files"].as_object().expect("files").iter();
    let mut files: Vec<(String, PathBuf)> = files
        .map(|(key, path)| (key.clone(), path.as_str().expect("a path").into()))
        .collect();
    files.sort_by_key(|(key, _)| key[17..].to_owned());
    files
}

#[test]
fn each_set_up_and_layout_is_loaded_and_compared_with_the_journal_and_with_the_files() {
    let mut zodb = Zodb::start();
    for setup in Setup::BOTH {
        for layout in ["bushy", "lawn"] {
            let scene = site(&mut zodb, setup, layout);
            let (directory, journal) = (blobs_beside(&scene.master), journal(&scene));
            let written = fs::read_to_string(directory.join(".layout")).expect(".layout");
            assert_eq!(written, layout);
            let file = scene.master.as_path();
            let blobs = Blobs {
                file,
                directory: &directory,
                expected: None,
                journal: Some(&journal),
            };
            assert_eq!(zodb.assert_blobs(&blobs, setup), 5);
            let by_files = Blobs {
                journal: None,
                expected: Some(&directory),
                ..blobs
            };
            assert_eq!(zodb.assert_blobs(&by_files, setup), 5);
            let unknown = Blobs {
                journal: None,
                ..blobs
            };
            let found = zodb.check_blobs(&unknown, setup);
            assert_eq!(found["unknown"].as_array().map(Vec::len), Some(5));
        }
    }
}

#[test]
fn a_missing_and_a_different_blob_are_found() {
    let mut zodb = Zodb::start();
    for setup in Setup::BOTH {
        let scene = site(&mut zodb, setup, "bushy");
        let (directory, journal) = (blobs_beside(&scene.master), journal(&scene));
        let blobs = Blobs {
            file: &scene.master,
            directory: &directory,
            expected: None,
            journal: Some(&journal),
        };
        let files = keys(&mut zodb, &scene);
        let (removed, removed_path) = &files[0];
        let (changed, changed_path) = &files[4];
        fs::remove_file(removed_path).expect("a blob");
        let mut bytes = fs::read(changed_path).expect("a blob");
        bytes[150_000] ^= 1;
        fs::remove_file(changed_path).expect("a blob");
        fs::write(changed_path, bytes).expect("a blob");
        let found = zodb.check_blobs(&blobs, setup);
        assert_eq!(found["missing"], json!([removed]), "{found}");
        let different = found["different"].as_array().expect("a list");
        assert_eq!(different.len(), 1, "{found}");
        assert!(different[0].as_str().unwrap().starts_with(changed.as_str()));
        assert_eq!(found["blobs"], 4);
        // The last one created is reachable.
        fs::remove_file(changed_path).expect("a blob");
        let found = zodb.check_blobs(&blobs, setup);
        assert_eq!(found["missing"], json!([removed, changed]), "{found}");
        let reachable = found["missing_reachable"].as_array().expect("a list");
        assert!(reachable.contains(&json!(changed)), "{found}");
    }
}
