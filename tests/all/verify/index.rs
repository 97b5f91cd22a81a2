//! `Data.fs.index`: verify and ZODB must agree on it.

use std::collections::BTreeMap;
use std::fs;

use fssync::plan::outcome::Exit;
use fssync::verify::IndexState;
use fssync::verify::finding::Kind;
use serde_json::{Value, json};

use super::{both, number, quick, scene_of, sound, txns, whole};
use crate::fuse::Served;
use crate::support::{Scene, Zodb, project};

/// A sound slave with its index, and the bytes of the index.
pub fn with_index() -> (Scene, Vec<u8>) {
    let scene = scene_of(sound());
    let (index, _) = Zodb::start().index_of(&scene.slave);
    fs::write(scene.beside(".index"), &index).unwrap();
    (scene, index)
}

#[test]
fn the_index_is_compared_at_its_position() {
    let (scene, index) = with_index();
    let (verified, findings) = both(&scene.slave);
    assert_eq!(findings, []);
    assert_eq!(verified.index, IndexState::Sound(sound().len() as u64));
    // An index of an earlier position.
    let all = txns(sound());
    let early = scene_of(&sound()[..all[7].end()]);
    let (bytes, position) = Zodb::start().index_of(&early.slave);
    fs::write(scene.beside(".index"), bytes).unwrap();
    let (verified, findings) = both(&scene.slave);
    assert_eq!(findings, []);
    assert_eq!(verified.index, IndexState::Sound(position));
    // An index that is ahead of the file.
    fs::write(early.beside(".index"), &index).unwrap();
    let (verified, findings) = both(&early.slave);
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    assert!(
        matches!(verified.index, IndexState::Unused(_)),
        "{verified:?}"
    );
    // An index that cannot be read.
    fs::remove_file(scene.beside(".index")).unwrap();
    fs::create_dir(scene.beside(".index")).unwrap();
    let (verified, findings) = both(&scene.slave);
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    assert!(
        matches!(verified.index, IndexState::Unused(_)),
        "{verified:?}"
    );
}

#[test]
fn an_index_of_a_damaged_file_is_not_compared() {
    let (scene, _) = with_index();
    let mut bytes = sound().to_vec();
    bytes[txns(sound())[3].end() - 1] ^= 1;
    fs::write(&scene.slave, bytes).unwrap();
    let (verified, findings) = both(&scene.slave);
    assert_eq!(findings.len(), 1);
    assert!(
        matches!(verified.index, IndexState::Unknown(_)),
        "{verified:?}"
    );
}

#[test]
fn a_wrong_index_is_damage_if_zodb_uses_it() {
    let (scene, _) = with_index();
    let to = scene.beside(".index");
    let all = txns(sound());
    let end = sound().len() as u64;
    let mut objects = BTreeMap::new();
    for txn in &all {
        for at in txn.stored.iter().chain(&txn.back) {
            objects.insert(number(sound(), *at as usize), *at);
        }
    }
    let last = &all[all.len() - 1];
    let old = objects.iter().find(|&(_, &at)| at < last.found.position);
    let (&oid, &at) = old.expect("an object that the last transaction has not");
    let believed = |objects: &BTreeMap<u64, u64>, position: u64| {
        let mut zodb = Zodb::start();
        let pairs: Vec<_> = objects.iter().collect();
        zodb.call(
            &json!({"cmd": "save_index_of", "objects": pairs, "position": position, "to": to}),
        );
        let opened = zodb.attempt(&json!({"cmd": "check_open", "path": scene.slave}));
        opened["used_index"] == true
    };
    for (name, found, expected) in [
        ("another position", Some(all[0].stored[0]), Some(at)),
        ("none", None, Some(at)),
        ("one too many", Some(at), None),
    ] {
        let mut wrong = objects.clone();
        let object = if expected.is_some() {
            oid
        } else {
            0x00dd_0000_1234_5678
        };
        match found {
            Some(found) => wrong.insert(object, found),
            None => wrong.remove(&object),
        };
        assert!(wrong != objects && believed(&wrong, end), "{name}");
        let (verified, findings) = both(&scene.slave);
        assert_eq!(
            (verified.exit(), verified.index),
            (Exit::SlaveDamaged, IndexState::Wrong)
        );
        let [finding] = &findings[..] else {
            panic!("{name}: {findings:?}");
        };
        assert_eq!(
            (finding.kind, finding.oid),
            (Kind::IndexObject, Some(object)),
            "{name}"
        );
        assert!(finding.kind.advice().starts_with("remove the index"));
    }
    // A wrong index that ZODB rejects because of an object is ignored.
    let mut wrong = objects.clone();
    wrong.insert(number(sound(), last.record()), all[0].stored[0]);
    assert!(!believed(&wrong, end));
    let (verified, findings) = both(&scene.slave);
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    assert!(
        matches!(verified.index, IndexState::Unused(_)),
        "{verified:?}"
    );
    // The position of the index is not the end of a transaction.
    assert!(!believed(&objects, end - 1));
    assert_eq!(both(&scene.slave).0.exit(), Exit::Success);
}

#[test]
fn an_index_on_which_zodb_fails_is_damage() {
    let scene = Scene::new();
    fs::copy(project("fixtures/empty-transaction.fs"), &scene.slave).unwrap();
    let bytes = fs::read(&scene.slave).unwrap();
    let all = txns(&bytes);
    let empty = all.iter().take_while(|txn| txn.stored.is_empty()).count();
    // Only empty transactions, enough of them for an index.
    let header = 23_u64;
    let mut bytes = b"FS30".to_vec();
    for tid in 0x03f0_0000_0000_0000_u64..0x03f0_0000_0000_0005 {
        bytes.extend(tid.to_be_bytes());
        bytes.extend(header.to_be_bytes());
        bytes.extend([b' ', 0, 0, 0, 0, 0, 0]);
        bytes.extend(header.to_be_bytes());
    }
    assert!(empty < 5);
    fs::write(&scene.slave, &bytes).unwrap();
    let mut zodb = Zodb::start();
    let (index, _) = zodb.index_of(&scene.slave);
    assert_eq!(both(&scene.slave).0.exit(), Exit::Success);
    fs::write(scene.beside(".index"), index).unwrap();
    let opened = zodb.attempt(&json!({"cmd": "check_open", "path": scene.slave}));
    assert_eq!(opened["ok"], false);
    let (verified, findings) = both(&scene.slave);
    assert_eq!(verified.exit(), Exit::SlaveDamaged);
    assert_eq!(findings[0].kind, Kind::IndexPosition);
    fs::remove_file(scene.beside(".index")).unwrap();
    zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
}

/// Every byte of the index is changed in turn. If ZODB would use the changed index, it must be
/// damage.
#[test]
fn verify_and_zodb_agree_on_every_changed_byte_of_the_index() {
    let (scene, index) = with_index();
    let mut zodb = Zodb::start();
    let mut damages = 0;
    for at in 0..index.len() {
        let mut bytes = index.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(scene.beside(".index"), &bytes).unwrap();
        let (verified, findings) = quick(&scene.slave);
        assert!(!matches!(verified.index, IndexState::Sound(_)), "{at}");
        let loaded = zodb.attempt(&json!({"cmd": "compare_index", "path": scene.slave}));
        let what = format!("byte {at}: {findings:?} {loaded}");
        match (&loaded["used"], &loaded["same"]) {
            (Value::Bool(true), Value::Bool(false)) => {
                assert_eq!(verified.exit(), Exit::SlaveDamaged, "{what}");
                damages += 1;
            }
            _ => assert_eq!(verified.exit(), Exit::Success, "{what}"),
        }
    }
    assert!(damages > 20, "{damages}");
}

#[test]
fn an_unreadable_index_is_ignored_as_by_zodb() {
    let (scene, index) = with_index();
    // The index is longer than the file, so that the file itself can be read.
    let end = sound().len() as u64 + 100;
    let long = [&index[..], &vec![0; 2 * sound().len()]].concat();
    fs::write(scene.beside(".index"), long).unwrap();
    let served = Served::directory(scene.slave.parent().unwrap());
    served.fail_at(end..end + 1);
    let (verified, findings) = whole(&served.file("Data.fs"));
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    let IndexState::Unused(why) = verified.index else {
        panic!("{verified:?}");
    };
    assert!(why.contains("cannot be read"), "{why}");
    // Extra bytes at the end of the index are a finding.
    let (verified, findings) = both(&scene.slave);
    assert_eq!(verified.exit(), Exit::Success);
    assert_eq!(findings[0].kind, Kind::IndexForm, "{findings:?}");
}
