//! Damage of `Data.fs`: each kind is found at its position, and tails are not damage.

use std::fs;

use fssync::plan::outcome::Exit;
use fssync::verify::finding::{Finding, Kind, Severity};
use fssync::verify::{IndexState, SlaveContent};
use serde_json::{Value, json};

use super::{Txn, both, number, put, quick, scene_of, sound, txns};
use crate::support::{History, Scene, Zodb, append_killed_at_sync, fssync, project, run};

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
    assert!(
        txns.iter().any(|txn| !txn.back.is_empty()),
        "it has back pointers"
    );
    assert_eq!(verified.bytes, sound().len() as u64);
    assert!(quick(&scene.slave).0.bytes <= verified.bytes);
}

#[test]
fn verify_and_zodb_agree_on_every_fixture() {
    let expected = fs::read_to_string(project("fixtures/expected.json")).expect("expected.json");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    let mut zodb = Zodb::start();
    for name in expected["files"].as_object().expect("the fixtures").keys() {
        let scene = Scene::new();
        fs::copy(project(&format!("fixtures/{name}.fs")), &scene.slave).unwrap();
        let (verified, findings) = both(&scene.slave);
        if matches!(
            verified.content,
            SlaveContent::TooShort | SlaveContent::Missing
        ) {
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

/// Damages a transaction of a file. Returns the expected finding and its position, if there
/// must be one.
pub type Spoil = fn(&mut Vec<u8>, &Txn) -> Option<(Kind, usize)>;

/// A kind of damage.
pub struct Fault {
    name: &'static str,
    pub spoil: Spoil,
}

const fn fault(name: &'static str, spoil: Spoil) -> Fault {
    Fault { name, spoil }
}

/// None of these is in a string or a pickle, which the structure does not cover.
pub const FAULTS: &[Fault] = &[
    fault("the tid", |bytes, txn| {
        bytes[txn.start() + 7] ^= 1;
        Some((Kind::DataTid, txn.record()))
    }),
    fault("the length, too large", |bytes, txn| {
        bytes[txn.start() + 8] ^= 1;
        Some((Kind::TransactionLength, txn.start()))
    }),
    fault("the length, too small for the header", |bytes, txn| {
        put(bytes, txn.start() + 8, 5);
        Some((Kind::TransactionHeader, txn.start()))
    }),
    fault("the length, too large by one", |bytes, txn| {
        put(bytes, txn.start() + 8, txn.found.header.tlen + 1);
        // The next byte, of the trailer, is not a data record. After the last transaction
        // there is no such byte.
        (txn.end() < bytes.len()).then_some((Kind::DataRecord, txn.end() - 8))
    }),
    fault("the status, not ASCII", |bytes, txn| {
        bytes[txn.start() + 16] |= 0x80;
        Some((Kind::TransactionHeader, txn.start()))
    }),
    fault("the status, unknown", |bytes, txn| {
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
        // The pickles of a longer transaction are then read as data records.
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
    fault("a data record's length, too large", |bytes, txn| {
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
    fault("zeros over the transaction", |bytes, txn| {
        bytes[txn.start()..txn.end()].fill(0);
        (txn.end() < bytes.len()).then_some((Kind::TransactionHeader, txn.start()))
    }),
    fault(
        "zeros from its middle into the next transaction",
        |bytes, txn| {
            let end = bytes.len().min(txn.end() + 20);
            bytes[txn.record() + 50..end].fill(0);
            None
        },
    ),
    fault("swapped blocks", |bytes, txn| {
        let (from, to) = (txn.record(), txn.record() + 64);
        let other: [u8; 64] = bytes[to..to + 64].try_into().unwrap();
        bytes.copy_within(from..to, to);
        bytes[from..to].copy_from_slice(&other);
        None
    }),
];

#[test]
fn each_kind_of_damage_is_found_at_its_position_and_zodb_agrees() {
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
            // The scan continued after the damage: intact transactions there are counted.
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
fn bytes_after_the_last_transaction_are_not_damage() {
    let history = History::get();
    let all = txns(sound());
    let last = all[all.len() - 1].clone();
    let mut garbage = sound().to_vec();
    garbage.extend((0..300_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 25) as u8 | 1));
    let after = history.after.len();
    for (name, bytes, position) in [
        ("a vote in progress", history.voted.clone(), after),
        (
            "a partial vote",
            history.voted[..after + 100].to_vec(),
            after,
        ),
        (
            "a partial header",
            history.voted[..after + 11].to_vec(),
            after,
        ),
        ("garbage", garbage, sound().len()),
        ("zeros", [sound(), &[0; 5000]].concat(), sound().len()),
        ("a few zeros", [sound(), &[0; 9]].concat(), sound().len()),
        (
            "truncated in a pickle",
            sound()[..last.record() + 60].to_vec(),
            last.start(),
        ),
        (
            "truncated in a header",
            sound()[..last.start() + 9].to_vec(),
            last.start(),
        ),
        (
            "truncated in its trailer",
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
fn a_killed_append_is_not_damage() {
    for nth in [1, 2, 3] {
        let scene = append_killed_at_sync(nth);
        let (verified, findings) = both(&scene.slave);
        assert_eq!(findings, [], "{nth}");
        if let Some(unfinished) = verified.unfinished {
            assert!(unfinished.is_ours, "{nth}");
            assert_eq!(verified.position, History::get().before.len() as u64);
        }
        if nth == 2 {
            // The ledger ends there, too. Without both files, whole transactions that ZODB
            // truncates are damage.
            fs::remove_file(scene.beside(".fssync")).unwrap();
            assert_eq!(both(&scene.slave).1, []);
            fs::remove_file(scene.beside(".fssync-ledger")).unwrap();
            let (verified, findings) = both(&scene.slave);
            assert_eq!(findings[0].kind, Kind::UnfinishedWithin, "{verified:?}");
        }
    }
}

#[test]
fn a_slave_that_was_truncated_is_reported() {
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
    // Without the ledger, nothing shows that it is the same file.
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
fn a_missing_slave_and_a_foreign_file_are_reported() {
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
