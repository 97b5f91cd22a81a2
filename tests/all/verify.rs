//! `fssync verify`: what it finds, what ZODB says to that, and that it touches
//! nothing.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use fssync::filestorage::scan::{Event, Scanner, Transaction};
use fssync::monitor::{Monitor, Silent};
use fssync::outcome::Exit;
use fssync::slave::place::Place;
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::stop::Stop;
use fssync::verify::finding::{Finding, Kind, Severity};
use fssync::verify::{Content, DigestState, IndexState, Verified, verify};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::command_line::{man_page, snapshot};
use crate::fuse::Served;
use crate::status::assert_only_reads;
use crate::support::{
    History, Scene, Zodb, append_killed_at_sync, append_sparse, fssync, project, python, replace,
    rewrite_end, run, sparse_master, spawn, wait_for,
};
use crate::watcher::Watcher;

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

/// Does something to a transaction of a file; says what is found then, and where.
type Spoil = fn(&mut Vec<u8>, &Txn) -> Option<(Kind, usize)>;

/// A kind of damage.
struct Fault {
    name: &'static str,
    spoil: Spoil,
}

const fn fault(name: &'static str, spoil: Spoil) -> Fault {
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

#[test]
fn what_lies_behind_the_last_transaction_is_no_damage() {
    let history = History::get();
    let all = txns(sound());
    let last = all[all.len() - 1].clone();
    let mut garbage = sound().to_vec();
    garbage.extend((0..300_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 25) as u8 | 1));
    let after = history.after.len();
    for (name, bytes, position) in [
        ("a vote under way", history.voted.clone(), after),
        (
            "a vote in part",
            history.voted[..after + 100].to_vec(),
            after,
        ),
        (
            "a header in part",
            history.voted[..after + 11].to_vec(),
            after,
        ),
        ("garbage", garbage, sound().len()),
        ("zeros", [sound(), &[0; 5000]].concat(), sound().len()),
        ("a few zeros", [sound(), &[0; 9]].concat(), sound().len()),
        (
            "cut in a pickle",
            sound()[..last.record() + 60].to_vec(),
            last.start(),
        ),
        (
            "cut in a header",
            sound()[..last.start() + 9].to_vec(),
            last.start(),
        ),
        (
            "cut in its trailer",
            sound()[..last.end() - 1].to_vec(),
            last.start(),
        ),
    ] {
        let scene = scene_of(&bytes);
        let (verified, findings) = both(&scene.slave);
        assert_eq!(findings, [], "{name}");
        assert_eq!(verified.position, position as u64, "{name}");
        let unfinished = verified.unfinished.expect("an unfinished tail");
        assert_eq!(unfinished.bytes as usize, bytes.len() - position, "{name}");
        let opened = Zodb::start().call(&json!({"cmd": "check_open", "path": scene.slave}));
        assert_eq!(opened["position"], position, "{name}");
        let told = run(&mut scene.verify(&["--json"])).expect(0).report();
        assert_eq!(told["unfinished_bytes"], unfinished.bytes, "{name}");
    }
}

#[test]
fn a_tail_on_which_zodb_fails_is_damage() {
    let mut bytes = sound().to_vec();
    bytes.extend([0xe3; 300]);
    let scene = scene_of(&bytes);
    let (verified, findings) = both(&scene.slave);
    assert_eq!(verified.exit(), Exit::SlaveDamaged);
    assert_eq!(
        (findings.len(), findings[0].position),
        (1, sound().len() as u64)
    );
    let opened = Zodb::start().attempt(&json!({"cmd": "check_open", "path": scene.slave}));
    assert_eq!(opened["ok"], false);
}

#[test]
fn an_append_of_ours_that_was_killed_is_no_damage() {
    for nth in [1, 2, 3] {
        let scene = append_killed_at_sync(nth);
        let (verified, findings) = both(&scene.slave);
        assert_eq!(findings, [], "{nth}");
        if let Some(unfinished) = verified.unfinished {
            assert!(unfinished.is_ours, "{nth}");
            assert_eq!(verified.position, History::get().before.len() as u64);
        }
        if nth == 2 {
            // The ledger ends there, too. Without both, whole transactions that ZODB cuts
            // are damage.
            fs::remove_file(scene.beside(".fssync")).unwrap();
            assert_eq!(both(&scene.slave).1, []);
            fs::remove_file(scene.beside(".fssync-ledger")).unwrap();
            let (verified, findings) = both(&scene.slave);
            assert_eq!(findings[0].kind, Kind::UnfinishedWithin, "{verified:?}");
        }
    }
}

#[test]
fn a_slave_that_became_shorter_is_told() {
    let scene = Scene::synced(History::get());
    let bytes = fs::read(&scene.slave).unwrap();
    let all = txns(&bytes);
    let cut = all[all.len() - 1].start();
    fs::write(&scene.slave, &bytes[..cut]).unwrap();
    let (_, findings) = both(&scene.slave);
    let kinds = |findings: &[Finding]| -> Vec<_> {
        findings.iter().map(|it| (it.kind, it.position)).collect()
    };
    assert_eq!(kinds(&findings), [(Kind::Lost, cut as u64)]);
    // Nobody can say any more that it is the same file.
    fs::remove_file(scene.beside(".fssync-ledger")).unwrap();
    let (verified, findings) = both(&scene.slave);
    assert_eq!(verified.exit(), Exit::Success);
    assert_eq!(kinds(&findings), [(Kind::Shortened, cut as u64)]);
    assert!(
        matches!(verified.index, IndexState::Unused(_)),
        "{verified:?}"
    );
}

#[test]
fn no_slave_and_no_filestorage() {
    let scene = Scene::new();
    let verified = run(&mut scene.verify(&["--json"])).expect(1).report();
    assert_eq!(verified["verdict"], "no-slave");
    for (bytes, code, verdict) in [
        (&b""[..], 1, "no-slave"),
        (b"FS30", 1, "no-slave"),
        (&[b'x'; 1000], 31, "damaged"),
        (&[0; 1000], 31, "damaged"),
    ] {
        fs::write(&scene.slave, bytes).unwrap();
        for options in [&["--json"][..], &["--json", "--quick"]] {
            let report = run(&mut scene.verify(options)).expect(code).report();
            assert_eq!(report["verdict"], verdict);
        }
    }
    let missing = run(fssync().args(["verify", "/no/such/directory/Data.fs"]));
    assert_eq!(missing.code, 2, "{missing:?}");
}

/// A sound slave with its index, and the index's bytes.
fn with_index() -> (Scene, Vec<u8>) {
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
    // One of an earlier position.
    let all = txns(sound());
    let early = scene_of(&sound()[..all[7].end()]);
    let (bytes, position) = Zodb::start().index_of(&early.slave);
    fs::write(scene.beside(".index"), bytes).unwrap();
    let (verified, findings) = both(&scene.slave);
    assert_eq!(findings, []);
    assert_eq!(verified.index, IndexState::Sound(position));
    // One that is ahead.
    fs::write(early.beside(".index"), &index).unwrap();
    let (verified, findings) = both(&early.slave);
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    assert!(
        matches!(verified.index, IndexState::Unused(_)),
        "{verified:?}"
    );
    // None that can be read.
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
fn an_index_that_zodb_believes_is_damage_where_it_is_wrong() {
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
    // One of an object that ZODB looks up is passed over.
    let mut wrong = objects.clone();
    wrong.insert(number(sound(), last.record()), all[0].stored[0]);
    assert!(!believed(&wrong, end));
    let (verified, findings) = both(&scene.slave);
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    assert!(
        matches!(verified.index, IndexState::Unused(_)),
        "{verified:?}"
    );
    // Of no boundary.
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
    // Empty transactions alone, long enough for an index.
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

/// Every byte of the index, changed: what ZODB would believe is damage or the same.
#[test]
fn any_byte_of_the_index_that_is_changed_is_judged_as_by_zodb() {
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
fn random_histories_are_sound() {
    let mut zodb = Zodb::start();
    for seed in 21..24 {
        let scene = Scene::new();
        let path = &scene.slave;
        zodb.call(
            &json!({"cmd": "open", "name": "m", "path": path, "create": true, "seed": seed,
                          "pack_gc": seed != 22}),
        );
        for _ in 0..5 {
            zodb.call(&json!({"cmd": "random", "name": "m", "count": 30, "pack": true}));
            let (verified, findings) = both(path);
            let severe = findings.iter().any(|it| it.kind != Kind::PreviousPointer);
            assert!(
                !severe && verified.damages == 0,
                "seed {seed}: {findings:?}"
            );
            let check = zodb.check(path);
            assert_eq!(verified.position, check["position"], "seed {seed}");
            assert_eq!(verified.objects, check["objects"], "seed {seed}");
            // ZODB warns of what is a blemish, and of nothing else.
            let warned = check["warnings"].as_array().unwrap().len() as u64;
            assert_eq!(
                verified.blemishes, warned,
                "seed {seed}: {findings:?} {check}"
            );
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        let (verified, _) = both(path);
        assert!(
            matches!(verified.index, IndexState::Sound(_)),
            "{verified:?}"
        );
        zodb.call(&json!({"cmd": "read_all", "path": path}));
    }
}

/// Where a changed bit of a header is not found by the structure alone: in the tid
/// of an empty transaction as long as tids still rise, and in the oid of the first
/// record of an object, which then is another one's, if that has none either, or
/// if no later record points back to it.
fn may_be_missed(txn: &Txn, at: usize, bytes: &[u8]) -> bool {
    let is_tid = at < txn.start() + 8;
    let is_empty = txn.stored.is_empty() && txn.back.is_empty();
    let is_first_oid = |record: u64| {
        let record = record as usize;
        (record..record + 8).contains(&at) && number(bytes, record + 16) == 0
    };
    // A back pointer takes as much room as a pickle of 8 bytes.
    let mut records = txn.stored.iter().chain(&txn.back);
    let is_length_8 = records.any(|&record| at == record as usize + 41 && bytes[at] == 0);
    is_tid && is_empty || is_length_8 || txn.stored.iter().any(|&record| is_first_oid(record))
}

/// The offsets of a transaction's headers, back pointers and lengths.
fn headers(txn: &Txn) -> Vec<Range<usize>> {
    let mut ranges = vec![txn.start()..txn.start() + 23, txn.end() - 8..txn.end()];
    let stored = txn.stored.iter().map(|&at| at as usize..at as usize + 42);
    let back = txn.back.iter().map(|&at| at as usize..at as usize + 50);
    ranges.extend(stored.chain(back));
    ranges
}

#[test]
fn any_flipped_bit_of_a_header_is_found_by_the_structure_alone() {
    let bytes = sound();
    let scene = scene_of(bytes);
    let file = File::options().write(true).open(&scene.slave).unwrap();
    let (mut flipped, mut missed) = (0, Vec::new());
    for txn in txns(bytes) {
        for at in headers(&txn).into_iter().flatten() {
            // One bit of each byte, another one each time.
            let bit = 1 << ((at * 5 + at / 8) % 8);
            file.write_all_at(&[bytes[at] ^ bit], at as u64).unwrap();
            let (_, findings) = quick(&scene.slave);
            if findings.is_empty() {
                assert!(
                    may_be_missed(&txn, at, bytes),
                    "bit {bit} at {at} of {txn:?}"
                );
                missed.push(at);
            }
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 1000 && missed.len() < flipped / 20, "{missed:?}");
    assert_eq!(quick(&scene.slave).1, []);
}

#[test]
fn long_pickles_are_passed_over_quickly() {
    let scene = Scene::new();
    sparse_master(&scene.slave, 64 << 20);
    let (verified, findings) = quick(&scene.slave);
    assert_eq!((findings, verified.records), (vec![], 1));
    assert!(verified.bytes < 100_000, "{verified:?}");
}

#[test]
fn a_flipped_bit_of_a_pickle_is_not_found_by_the_structure() {
    let mut bytes = sound().to_vec();
    bytes[txns(sound())[2].record() + 300] ^= 1;
    assert_eq!(quick(&scene_of(&bytes).slave).1, []);
}

#[test]
fn all_bytes_are_compared_with_their_digests_whatever_is_damaged() {
    let all = txns(sound());
    let mut files: Vec<Vec<u8>> = FAULTS
        .iter()
        .enumerate()
        .map(|(n, fault)| {
            let mut bytes = sound().to_vec();
            (fault.spoil)(&mut bytes, &all[[0, 6, 11][n % 3]]);
            bytes
        })
        .collect();
    // Behind damage that nothing follows.
    let mut bytes = sound().to_vec();
    bytes[all[1].start()..].fill(1);
    files.push(bytes);
    let scene = scene_of(sound());
    fs::copy(&scene.slave, &scene.master).unwrap();
    scene.expect("up-to-date");
    for bytes in files.iter().filter(|bytes| bytes.len() == sound().len()) {
        fs::write(&scene.slave, bytes).unwrap();
        let (verified, findings) = whole(&scene.slave);
        let foreign = !bytes.starts_with(b"FS30");
        let compared = DigestState::Compared(bytes.len() as u64);
        assert!(foreign || verified.digests == compared, "{verified:?}");
        let found = findings.iter().filter(|it| it.kind == Kind::Digest);
        let is_other = bytes != sound() && !foreign;
        assert_eq!(found.count(), usize::from(is_other), "{findings:?}");
    }
}

#[test]
fn sectors_that_cannot_be_read_are_findings_and_the_rest_is_checked() {
    let all = txns(sound());
    let mut bytes = sound().to_vec();
    // The pickle of 9000 bytes holds two pages; damage lies behind it.
    let pages = (all[7].record() + 42).next_multiple_of(4096) as u64;
    let bad = pages..pages + 4096;
    assert!(bad.end < all[7].end() as u64, "{:?}", all[7]);
    bytes[all[9].record() + 15] ^= 1;
    let scene = scene_of(&bytes);
    let served = Served::directory(scene.slave.parent().unwrap());
    let slave = served.file("Data.fs");
    served.fail_at(bad.start + 100..bad.start + 101);
    let (_, findings) = whole(&slave);
    let [unreadable, behind] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert_eq!(unreadable.kind, Kind::Unreadable);
    assert_eq!(
        (unreadable.position, unreadable.end),
        (bad.start, Some(bad.end))
    );
    assert_eq!(
        (behind.kind, behind.position),
        (Kind::DataTid, all[9].record() as u64)
    );
    // A header that cannot be read.
    let header = all[8].start() as u64;
    served.fail_at(header..header + 1);
    let (verified, findings) = both_served(&slave);
    let kinds: Vec<_> = findings.iter().map(|it| it.kind).collect();
    assert!(
        kinds.contains(&Kind::Unreadable) && kinds.len() > 1,
        "{findings:?}"
    );
    assert_eq!(verified.position, sound().len() as u64);
    // The first one, and the last.
    for at in [0, sound().len() as u64 - 1] {
        served.fail_at(at..at + 1);
        let (verified, findings) = whole(&slave);
        assert!(
            findings.iter().any(|it| it.kind == Kind::Unreadable),
            "{findings:?}"
        );
        assert_eq!(verified.exit(), Exit::SlaveDamaged);
    }
}

/// As a whole; quickly, it may read another part of what cannot be read.
fn both_served(path: &Path) -> (Verified, Vec<Finding>) {
    let (quick, _) = quick(path);
    let (verified, findings) = whole(path);
    assert_eq!(quick.position, verified.position);
    (verified, findings)
}

#[test]
fn an_index_that_cannot_be_read_is_passed_over_as_by_zodb() {
    let (scene, index) = with_index();
    // Longer than the file, so that the file can be read.
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
    // Bytes behind its end are another matter.
    let (verified, findings) = both(&scene.slave);
    assert_eq!(verified.exit(), Exit::Success);
    assert_eq!(findings[0].kind, Kind::IndexForm, "{findings:?}");
}

/// Does something while the slave is read.
struct Meanwhile<F>(F);

impl<F: Fn()> Monitor for Meanwhile<F> {
    fn progress(&self, _: &'static str, _: u64, _: u64) {
        (self.0)();
    }
}

/// Verifies a slave while something is done.
fn verify_meanwhile(path: &Path, meanwhile: impl Fn()) -> Result<(Verified, Vec<Finding>), Stop> {
    let mut findings = Vec::new();
    let verified = verify(&slave(path), false, &Meanwhile(meanwhile), &mut |finding| {
        findings.push(finding.clone());
    })?;
    Ok((verified, findings))
}

#[test]
fn what_is_being_written_is_looked_at_again() {
    let history = History::get();
    let after = &history.after;
    let all = txns(after);
    let last = all[all.len() - 1].start();
    for before in [
        after[..after.len() - 7].to_vec(),
        // What was aborted is cut, and another transaction takes its place.
        [&after[..last], &history.voted[after.len()..]].concat(),
        [after, &history.voted[after.len()..]].concat(),
    ] {
        let scene = scene_of(&before);
        let (verified, findings) =
            verify_meanwhile(&scene.slave, || rewrite_end(&scene.slave, after)).unwrap();
        assert_eq!(findings, []);
        assert_eq!(verified.position, after.len() as u64);
        assert_eq!(verified.unfinished, None);
    }
}

#[test]
fn what_grows_meanwhile_is_not_waited_for() {
    let history = History::get();
    let scene = scene_of(&history.before);
    let (verified, findings) =
        verify_meanwhile(&scene.slave, || rewrite_end(&scene.slave, &history.after)).unwrap();
    assert_eq!((findings, verified.unfinished), (vec![], None));
    assert_eq!(verified.position, history.before.len() as u64);
}

#[test]
fn a_slave_that_is_replaced_or_cut_meanwhile_was_not_verified() {
    let history = History::get();
    let scene = scene_of(&history.after);
    let result = verify_meanwhile(&scene.slave, || replace(&scene.slave, &history.packed));
    assert!(
        matches!(result, Err(Stop::SlaveChanged { .. })),
        "{result:?}"
    );
    let scene = scene_of(&history.after);
    let result = verify_meanwhile(&scene.slave, || {
        let _ = fs::remove_file(&scene.slave);
    });
    assert!(
        matches!(result, Err(Stop::SlaveChanged { .. })),
        "{result:?}"
    );
    let scene = Scene::new();
    sparse_master(&scene.slave, 1_000);
    append_sparse(&scene.slave, 3_000_000, 0x03f0_0000_0000_0001);
    let windows = Cell::new(0);
    let result = verify_meanwhile(&scene.slave, || {
        windows.set(windows.get() + 1);
        // The first transaction was read by then.
        if windows.get() == 2 {
            let file = File::options().write(true).open(&scene.slave);
            file.and_then(|file| file.set_len(100)).expect("a cut");
        }
    });
    assert!(
        matches!(result, Err(Stop::SlaveChanged { .. })),
        "{result:?}"
    );
}

#[test]
fn an_index_that_is_replaced_meanwhile_is_not_judged() {
    let (scene, index) = with_index();
    let to = scene.beside(".index");
    let mut wrong = index.clone();
    let at = wrong.len() - 4 - 2 - 6 * 2 - 1;
    wrong[at] ^= 1;
    fs::write(&to, &wrong).unwrap();
    assert_eq!(whole(&scene.slave).0.index, IndexState::Wrong);
    let (verified, findings) = verify_meanwhile(&scene.slave, || replace(&to, &index)).unwrap();
    assert_eq!((findings, verified.exit()), (vec![], Exit::Success));
    assert!(
        matches!(verified.index, IndexState::Unknown(_)),
        "{verified:?}"
    );
}

#[test]
fn nothing_is_locked_opened_for_writing_or_created() {
    let scene = Scene::synced(History::get());
    let directory = scene.slave.parent().unwrap();
    let before = snapshot(directory);
    for options in [&[][..], &["--quick"], &["--json"]] {
        assert_only_reads(&scene, &scene.verify(options));
    }
    assert!(snapshot(directory) == before);
}

#[test]
fn zodb_goes_on_undisturbed_and_is_never_taken_for_damage() {
    let scene = Scene::synced(History::get());
    let mut writer = spawn(&mut writer(&scene.slave, &["--pack"]));
    let len = || fs::metadata(&scene.slave).map_or(0, |found| found.len());
    let before = len();
    wait_for("transaction of ZODB's", || len() != before);
    let runs: Vec<_> = (0..30)
        .map(|n| {
            let quick = if n % 2 == 0 {
                &["--json"][..]
            } else {
                &["--json", "--quick"]
            };
            run(&mut scene.verify(quick))
        })
        .collect();
    let still_writes = writer.try_wait().unwrap().is_none();
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(still_writes, "nothing disturbed it");
    let counted = runs.iter().filter(|run| run.code == 0).count();
    assert!(counted > 15, "{runs:?}");
    for run in runs {
        // A pack puts another file in its place.
        let is_changed = run.code == 1 && run.stderr.contains("verify it again");
        assert!(run.code == 0 || is_changed, "{run:?}");
    }
}

/// Writes, undoes and aborts without a pause, as ZODB.
fn writer(path: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(project("tests/zodb/agent.py")).arg("write");
    command.arg(path).args(["--seed", "5", "--seconds", "60"]);
    command.args(options);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdout(Stdio::null());
    command
}

#[test]
fn appends_of_a_watch_are_never_taken_for_damage() {
    let scene = Scene::synced(History::get());
    let mut writer = spawn(&mut writer(&scene.master, &[]));
    let mut watch = Watcher::start(&scene, &[]);
    watch.expect("Finished syncing");
    let (mut runs, mut positions) = (Vec::new(), BTreeSet::new());
    wait_for("growth", || {
        let run = run(&mut scene.verify(&["--json"])).expect(0);
        positions.insert(run.report()["position"].as_u64());
        runs.push(run);
        positions.len() > 20
    });
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert_eq!(watch.end().0, 0);
    for run in runs {
        assert_eq!(run.report()["findings"], json!([]), "{run:?}");
    }
}

#[test]
fn a_signal_ends_it() {
    let scene = Scene::new();
    sparse_master(&scene.slave, 64 << 30);
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = scene.verify(&["--progress", "always"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = spawn(&mut command);
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("verifying: "), "{line}");
        let pid = Pid::from_child(&process);
        rustix::process::kill_process(pid, signal).expect("it runs");
        assert_eq!(process.wait().unwrap().code(), Some(1));
        assert!(lines.any(|line| line.unwrap().contains("interrupted")));
    }
}

#[test]
fn what_is_found_is_laid_out_for_eyes() {
    let all = txns(sound());
    let mut bytes = sound().to_vec();
    bytes[all[3].record() + 15] ^= 1;
    bytes[all[6].start() + 16] = 0x1b;
    let scene = scene_of(&bytes);
    let told = run(&mut scene.verify(&[])).expect(31);
    let tid = all[3].found.header.tid;
    let found = tid.0 ^ 1;
    let lines: Vec<_> = told.stdout.lines().collect();
    let at = all[3].record();
    let oid = number(&bytes, at);
    let line = format!(
        "DAMAGE        Data.fs at {at}, tid {}, oid {oid:016x}",
        tid.with_time()
    );
    let position = lines.iter().position(|it| **it == line);
    let position = position.unwrap_or_else(|| panic!("{line}: {}", told.stdout));
    assert_eq!(
        lines[position + 1].trim(),
        format!("expected tid {tid}, found {found:016x}")
    );
    assert!(lines[position + 2].trim().starts_with("to do: "));
    assert_eq!(*lines.last().unwrap(), "DAMAGED: 1 finding");
    assert!(
        told.stdout.contains("blemish       Data.fs at "),
        "{}",
        told.stdout
    );
    assert!(!told.stdout.contains('\x1b'), "{}", told.stdout);
    // One line for cron, and none where there is nothing to say.
    let quiet = run(&mut scene.verify(&["-q"])).expect(31);
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.lines().count()),
        ("", 1),
        "{quiet:?}"
    );
    let quiet = run(&mut scene_of(sound()).verify(&["-q"])).expect(0);
    assert_eq!((quiet.stdout, quiet.stderr), (String::new(), String::new()));
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let scene = Scene::new();
    let slave = scene.slave.with_file_name("Data\x1b[31m.fs");
    let mut bytes = sound().to_vec();
    bytes[16] = b'c';
    fs::write(&slave, bytes).unwrap();
    let told = run(fssync().arg("verify").arg(&slave)).expect(31);
    assert!(
        told.stdout.contains("Data?[31m.fs") && !told.stdout.contains('\x1b'),
        "{told:?}"
    );
}

#[test]
fn of_many_findings_the_first_are_told_and_all_are_counted() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.slave, "create": true}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 300, "size": 10}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    fs::remove_file(scene.beside(".index")).unwrap();
    let mut bytes = fs::read(&scene.slave).unwrap();
    for at in &txns(&bytes)[0].stored {
        bytes[*at as usize + 8] ^= 1;
    }
    fs::write(&scene.slave, bytes).unwrap();
    let report = run(&mut scene.verify(&["--json"])).expect(31).report();
    assert_eq!(report["damages"], 300);
    assert_eq!(report["counts"], json!({"data-tid": 300}));
    assert_eq!(report["findings"].as_array().unwrap().len(), 100);
    let told = run(&mut scene.verify(&[])).expect(31);
    assert!(
        told.stdout.contains("and 200 more of the kind data-tid"),
        "{told:?}"
    );
}

#[test]
fn the_object_has_its_keys_and_the_man_page_names_them() {
    let mut bytes = sound().to_vec();
    bytes[txns(sound())[4].end() - 1] ^= 1;
    let mut keys = BTreeSet::new();
    let mut shapes = BTreeSet::new();
    for bytes in [sound(), &bytes, b"", &[b'x'; 100]] {
        let run = run(&mut scene_of(bytes).verify(&["--json"]));
        assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
        let report = run.report();
        assert_eq!(report["exit_code"], run.code);
        let found: BTreeSet<_> = report.as_object().unwrap().keys().cloned().collect();
        for finding in report["findings"].as_array().unwrap() {
            keys.extend(finding.as_object().unwrap().keys().cloned());
            keys.insert(finding["kind"].as_str().unwrap().to_owned());
        }
        keys.extend(found.clone());
        shapes.insert(found);
    }
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    let page = man_page();
    let (_, section) = page.split_once(".SH VERIFY").expect("a section on verify");
    let section = section.split(".SH").next().unwrap();
    let named: BTreeSet<String> = section
        .split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != '-')
        .map(str::to_owned)
        .collect();
    for key in keys {
        assert!(named.contains(&key), "{key} is not in the man page");
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let scene = scene_of(sound());
    let slave = scene.slave.to_str().unwrap();
    for arguments in [
        &["verify"][..],
        &["verify", slave, slave],
        &["verify", "--full", slave],
        &["verify", "/no/such/directory/Data.fs"],
    ] {
        let run = run(fssync().args(arguments));
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert_ne!(run.stderr, "", "{arguments:?}");
    }
}
