//! `fssync verify`: what it finds, what ZODB says to that, and that it touches
//! nothing.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use fssync::filestorage::scan::{Event, Scanner, Transaction};
use fssync::monitor::{Monitor, Silent};
use fssync::outcome::Exit;
use fssync::slave::place::Place;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::stop::Stop;
use fssync::verify::finding::{Finding, Kind, Severity};
use fssync::verify::{Content, IndexState, Verified, verify};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::command_line::{man_page, snapshot};
use crate::faults::Mount;
use crate::support::{
    History, Run, Scene, Zodb, append_killed_at_sync, fssync, project, python, replace,
    rewrite_end, run, sparse_master, spawn, strace, without_forks,
};

/// The slave at a path.
fn slave(path: &Path) -> Slave {
    let place = Place::new(path).expect("a place for the slave");
    Slave {
        switches: Switches::new(&place, None),
        place,
        interrupted: Arc::new(AtomicBool::new(false)),
    }
}

/// What comes of a verification in this process.
fn try_verify(path: &Path, quick: bool) -> Result<(Verified, Vec<Finding>), Stop> {
    let mut findings = Vec::new();
    let verified = verify(&slave(path), quick, &Silent, &mut |finding| {
        findings.push(finding.clone());
    })?;
    Ok((verified, findings))
}

fn whole(path: &Path) -> (Verified, Vec<Finding>) {
    try_verify(path, false).expect("it can be read")
}

fn quick(path: &Path) -> (Verified, Vec<Finding>) {
    try_verify(path, true).expect("it can be read")
}

/// Both ways of verifying, which must find the same.
#[track_caller]
fn both(path: &Path) -> (Verified, Vec<Finding>) {
    let (verified, findings) = whole(path);
    let (quick, same) = quick(path);
    assert_eq!(findings, same);
    assert_eq!(
        (
            quick.position,
            quick.records,
            quick.unfinished,
            &quick.index
        ),
        (
            verified.position,
            verified.records,
            verified.unfinished,
            &verified.index
        ),
    );
    (verified, findings)
}

/// A transaction, and where its data records are: with data, and back pointers.
#[derive(Clone, Debug)]
struct Txn {
    found: Transaction,
    stored: Vec<u64>,
    back: Vec<u64>,
}

impl Txn {
    fn start(&self) -> usize {
        self.found.position as usize
    }

    fn end(&self) -> usize {
        self.found.end as usize
    }

    /// The first record with data.
    fn record(&self) -> usize {
        self.stored[0] as usize
    }
}

/// The transactions of a file.
fn txns(bytes: &[u8]) -> Vec<Txn> {
    let mut scanner = Scanner::new(bytes.len() as u64);
    let mut found = Vec::new();
    let (mut stored, mut back) = (Vec::new(), Vec::new());
    scanner.feed(&bytes[4..], &mut |event| match event {
        Event::Record {
            position,
            back: None | Some(0),
            ..
        } => stored.push(position),
        Event::Record { position, .. } => back.push(position),
        Event::Transaction(transaction) => found.push(Txn {
            found: transaction,
            stored: std::mem::take(&mut stored),
            back: std::mem::take(&mut back),
        }),
        _ => {}
    });
    found
}

/// A file without a fault, of 12 transactions: the fifth and the last but one undo,
/// the sixth is empty.
fn sound() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let scene = Scene::new();
        let mut zodb = Zodb::start();
        let commit = |objects: u32, size: u32| {
            json!({"cmd": "commit", "name": "m", "objects": objects, "size": size,
                   "user": "editor", "description": "a page"})
        };
        let undo = json!({"cmd": "undo", "name": "m"});
        zodb.call(
            &json!({"cmd": "open", "name": "m", "path": scene.slave, "create": true,
                          "seed": 11}),
        );
        for command in [
            commit(4, 200),
            commit(3, 300),
            commit(1, 10_000),
            commit(4, 100),
            undo.clone(),
            commit(0, 0),
            commit(2, 700),
            commit(1, 9000),
            commit(3, 60),
            commit(3, 60),
            undo,
            commit(2, 500),
        ] {
            zodb.call(&command);
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        fs::read(&scene.slave).expect("the file")
    })
}

fn put(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A slave alone, with these bytes.
fn scene_of(bytes: &[u8]) -> Scene {
    let scene = Scene::new();
    fs::write(&scene.slave, bytes).expect("the slave");
    scene
}

#[test]
fn a_sound_slave_is_sound() {
    let scene = scene_of(sound());
    let mut zodb = Zodb::start();
    let expected = zodb.check(&scene.slave);
    let (verified, findings) = both(&scene.slave);
    assert_eq!(findings, []);
    assert_eq!(verified.exit(), Exit::Success);
    assert_eq!(verified.position, expected["position"]);
    assert_eq!(verified.objects, expected["objects"]);
    assert_eq!(
        verified.last_tid.map(|tid| tid.to_string()),
        expected["last_tid"].as_str().map(ToOwned::to_owned)
    );
    let txns = txns(sound());
    assert_eq!(verified.transactions, txns.len() as u64);
    let records = txns.iter().map(|txn| txn.stored.len() + txn.back.len());
    assert_eq!(verified.records, records.sum::<usize>() as u64);
    assert!(txns.iter().any(|txn| !txn.back.is_empty()), "it has undone");
    assert_eq!(verified.bytes, sound().len() as u64);
    assert!(quick(&scene.slave).0.bytes <= verified.bytes);
}

#[test]
fn every_fixture_is_judged_as_zodb_judges_it() {
    let expected = fs::read_to_string(project("fixtures/expected.json")).expect("expected.json");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    let mut zodb = Zodb::start();
    for name in expected["files"].as_object().expect("the fixtures").keys() {
        let scene = Scene::new();
        fs::copy(project(&format!("fixtures/{name}.fs")), &scene.slave).unwrap();
        let (verified, findings) = both(&scene.slave);
        if matches!(verified.content, Content::Short | Content::Missing) {
            assert_eq!(verified.exit(), Exit::Failure, "{name}");
            continue;
        }
        let zodb = zodb.attempt(&json!({"cmd": "check", "path": scene.slave}));
        let exit = match &zodb["ok"] {
            Value::Bool(true) => Exit::Success,
            _ => Exit::SlaveDamaged,
        };
        assert_eq!(verified.exit(), exit, "{name}: {findings:?} {zodb}");
        if exit == Exit::Success {
            assert_eq!(verified.position, zodb["position"], "{name}");
            assert_eq!(verified.objects, zodb["objects"], "{name}");
        }
        let is_blemished = name.starts_with("blemish");
        assert_eq!(verified.blemishes > 0, is_blemished, "{name}: {findings:?}");
    }
}

/// A kind of damage: what is done to a transaction of a file, and what is found
/// where.
struct Fault {
    name: &'static str,
    spoil: fn(&mut Vec<u8>, &Txn) -> Option<(Kind, usize)>,
}

const fn fault(
    name: &'static str,
    spoil: fn(&mut Vec<u8>, &Txn) -> Option<(Kind, usize)>,
) -> Fault {
    Fault { name, spoil }
}

/// None of these is found in the strings and the pickles, which the structure does
/// not tell anything about.
const FAULTS: &[Fault] = &[
    fault("the tid", |bytes, txn| {
        bytes[txn.start() + 7] ^= 1;
        Some((Kind::DataTid, txn.record()))
    }),
    fault("the length, too great", |bytes, txn| {
        bytes[txn.start() + 8] ^= 1;
        Some((Kind::TransactionLength, txn.start()))
    }),
    fault("the length, too small for the header", |bytes, txn| {
        put(bytes, txn.start() + 8, 5);
        Some((Kind::TransactionHeader, txn.start()))
    }),
    fault("the length, a bit greater", |bytes, txn| {
        put(bytes, txn.start() + 8, txn.found.header.tlen + 1);
        // The byte behind, of the trailer, is no data record. Behind the last
        // transaction there is none.
        (txn.end() < bytes.len()).then_some((Kind::DataRecord, txn.end() - 8))
    }),
    fault("the status, not ASCII", |bytes, txn| {
        bytes[txn.start() + 16] |= 0x80;
        Some((Kind::TransactionHeader, txn.start()))
    }),
    fault("the status, odd", |bytes, txn| {
        bytes[txn.start() + 16] = b'!';
        Some((Kind::OddStatus, txn.start()))
    }),
    fault("the status, unfinished", |bytes, txn| {
        bytes[txn.start() + 16] = b'c';
        (txn.end() < bytes.len()).then_some((Kind::UnfinishedWithin, txn.start()))
    }),
    fault("the length of the user name", |bytes, txn| {
        bytes[txn.start() + 17] ^= 0x80;
        let len = txn.end() - txn.start() - 8;
        // Then the pickles of a long one are taken for data records.
        (len < 0x8000).then_some((Kind::TransactionHeader, txn.start()))
    }),
    fault("the length of the description", |bytes, txn| {
        bytes[txn.start() + 20] ^= 1;
        None
    }),
    fault("a data record's tid", |bytes, txn| {
        bytes[txn.record() + 15] ^= 0x10;
        Some((Kind::DataTid, txn.record()))
    }),
    fault("a data record's prev", |bytes, txn| {
        bytes[txn.record() + 22] ^= 0x40;
        Some((Kind::PreviousPointer, txn.record()))
    }),
    fault("a data record's tloc", |bytes, txn| {
        bytes[txn.record() + 31] ^= 1;
        Some((Kind::DataRecord, txn.record()))
    }),
    fault("a data record's version", |bytes, txn| {
        bytes[txn.record() + 33] = 1;
        Some((Kind::DataRecord, txn.record()))
    }),
    fault("a data record's length, too great", |bytes, txn| {
        bytes[txn.record() + 34] = 1;
        Some((Kind::DataRecord, txn.record()))
    }),
    fault("a data record's length, by one", |bytes, txn| {
        bytes[txn.record() + 41] ^= 1;
        None
    }),
    fault("a back pointer", |bytes, txn| {
        let record = *txn.back.first()? as usize;
        bytes[record + 42 + 7] ^= 1;
        Some((Kind::BackPointer, record))
    }),
    fault("a back pointer to another object", |bytes, txn| {
        let record = *txn.back.first()? as usize;
        let oid = number(bytes, record);
        let other = txns(bytes)[0].stored.clone();
        let other = other
            .into_iter()
            .find(|&at| number(bytes, at as usize) != oid)?;
        put(bytes, record + 42, other);
        Some((Kind::BackPointer, record))
    }),
    fault("the length at the end", |bytes, txn| {
        bytes[txn.end() - 1] ^= 1;
        Some((Kind::TransactionLength, txn.start()))
    }),
    fault("zeros over the header", |bytes, txn| {
        bytes[txn.start()..txn.start() + 30].fill(0);
        Some((Kind::TransactionHeader, txn.start()))
    }),
    fault("zeros over it all", |bytes, txn| {
        bytes[txn.start()..txn.end()].fill(0);
        (txn.end() < bytes.len()).then_some((Kind::TransactionHeader, txn.start()))
    }),
    fault("zeros from its middle into the next", |bytes, txn| {
        let end = bytes.len().min(txn.end() + 20);
        bytes[txn.record() + 50..end].fill(0);
        None
    }),
    fault("swapped blocks", |bytes, txn| {
        let (from, to) = (txn.record(), txn.record() + 64);
        let other: [u8; 64] = bytes[to..to + 64].try_into().unwrap();
        bytes.copy_within(from..to, to);
        bytes[from..to].copy_from_slice(&other);
        None
    }),
];

#[test]
fn each_damage_is_found_where_it_is_and_zodb_agrees() {
    let mut zodb = Zodb::start();
    let sound_scene = scene_of(sound());
    let read_all = |zodb: &mut Zodb, scene: &Scene| {
        zodb.attempt(&json!({"cmd": "read_all", "path": scene.slave}))
    };
    let as_sound = read_all(&mut zodb, &sound_scene);
    assert_eq!(
        (&as_sound["ok"], &as_sound["warnings"]),
        (&json!(true), &json!([]))
    );
    let all = txns(sound());
    let (first, last) = (&all[0], &all[all.len() - 1]);
    let mut judged = 0;
    for fault in FAULTS {
        for (place, txn) in [
            ("first", first),
            ("undo", &all[4]),
            ("middle", &all[6]),
            ("last", last),
        ] {
            if txn.stored.is_empty() && !fault.name.starts_with("a back pointer") {
                continue;
            }
            let mut bytes = sound().to_vec();
            let expected = (fault.spoil)(&mut bytes, txn);
            if bytes == sound() {
                continue;
            }
            let what = format!("{}, {place}", fault.name);
            let scene = scene_of(&bytes);
            let (verified, findings) = both(&scene.slave);
            let zodbs = read_all(&mut zodb, &scene);
            let same = |key: &str| zodbs[key] == as_sound[key];
            if let Some((kind, at)) = expected {
                let found = findings
                    .iter()
                    .any(|it| it.kind == kind && it.position == at as u64);
                assert!(found, "{what}: {kind:?} at {at}: {findings:#?}");
                assert_eq!(
                    verified.damages > 0,
                    kind.severity() == Severity::Damage,
                    "{what}"
                );
            }
            let is_tail = verified.unfinished.is_some();
            assert!(is_tail || !findings.is_empty(), "{what} is not found");
            if verified.damages > 0 {
                let is_served = zodbs["ok"] == true && same("records") && same("current");
                assert!(!is_served, "{what}: ZODB serves it: {findings:#?} {zodbs}");
            } else if !is_tail {
                assert!(zodbs["ok"] == true && same("current"), "{what}: {zodbs}");
                assert_ne!(zodbs["warnings"], json!([]), "{what}");
            }
            // The walk went on behind it: what is whole there is counted.
            if place != "last" && verified.unfinished.is_none() {
                assert_eq!(verified.last_tid, Some(last.found.header.tid), "{what}");
                assert!(
                    verified.transactions + 2 >= all.len() as u64,
                    "{what}: {verified:?}"
                );
            }
            judged += 1;
        }
    }
    assert!(judged > 60, "{judged}");
}
