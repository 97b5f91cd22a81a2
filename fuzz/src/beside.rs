//! Any bytes as the files beside a slave: its sidecar, ledger, index and switch. Each file is
//! used, reported or ignored. Only a wrong index, or a ledger with other digests, counts as
//! damage of the slave. A pass leaves the slave unchanged or equal to the master.
//!
//! A ledger counts only if it belongs to the file, and an entry only with its checksum. So the
//! first record is written before the entries of the input, and the checksums are added. A
//! sidecar's index counts only if it is the index in the file. So, if the first byte has bit
//! 1, its stamp and its digest are set. With bit 2, the ledger is written before the pass.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;

use fssync::io::digest::Digest;
use fssync::io::progress::Silent;
use fssync::slave::ledger::{SegmentHasher, note};
use fssync::slave::paths::{Sibling, SlavePaths};
use fssync::slave::step::Slave;
use fssync::status;
use fssync::verify::finding::Kind;
use fssync::verify::{Verified, verify};
use serde_json::{Value, json};

use super::input::{Input, section};
use super::scene::{How, Scene};
use super::storage::Scanned;

const MASTER: &[u8] = include_bytes!("../../fixtures/undo.fs");

/// Length of the part that the slave has.
const SLAVE_LEN: usize = 2318;

/// Length of a record of a ledger, and of its part before the checksum.
const RECORD_LEN: usize = 64;
const BODY_LEN: usize = 48;

/// Verifies a slave with these files beside it, writes to its ledger, and makes a pass.
///
/// # Panics
///
/// If a file has more influence than it may have.
pub fn run(input: &[u8]) {
    let scene = Scene::new();
    let bytes = &MASTER[..SLAVE_LEN];
    fs::write(&scene.master, MASTER).expect("the master");
    fs::write(&scene.slave, bytes).expect("the slave");
    let slave = scene.slave();
    let mut input = Input(input);
    let flags = input.byte().unwrap_or(0);
    put(&slave, input, flags & 1 == 1);
    let verified = look(&slave);
    assert_eq!(verified.position, SLAVE_LEN as u64);
    status::look(&slave, None, &Silent).expect("a status");
    if flags & 2 == 2 {
        let data = File::open(&scene.slave).expect("the slave");
        // Nothing is written if a switch is off.
        let _ = note(&slave, &data, entries(&data));
    }
    assert!(fs::read(&scene.slave).expect("the slave") == bytes);
    let outcome = scene.pass(How::default());
    assert!(matches!(outcome.exit as u8, 0 | 10), "{outcome:?}");
    assert!(fs::read(&scene.master).expect("the master") == MASTER);
    let after = fs::read(&scene.slave).expect("the slave");
    if outcome.exit as u8 == 0 {
        assert!(after == MASTER, "the slave is in sync");
        assert!(Scanned::of(&after, usize::MAX).is_opened());
    } else {
        assert!(after == bytes, "the slave is unchanged");
    }
    look(&slave);
}

/// Verifies the slave, which is sound.
fn look(slave: &Slave) -> Verified {
    let report = &mut |finding: &fssync::verify::finding::Finding| {
        use Kind::{Digest, IndexForm, IndexObject, IndexPosition, Ledger, Lost, Shortened};
        let may_be = [
            Digest,
            Ledger,
            Lost,
            Shortened,
            IndexForm,
            IndexObject,
            IndexPosition,
        ];
        assert!(may_be.contains(&finding.kind), "{finding:?}");
    };
    verify(slave, false, &Silent, report).expect("it can be read")
}

/// The ledger entries of a pass that has read the whole slave.
fn entries(data: &File) -> Vec<fssync::slave::ledger::LedgerEntry> {
    let mut tally = SegmentHasher::new(0);
    tally.take(&MASTER[..SLAVE_LEN]);
    tally.end_at(data, SLAVE_LEN as u64).expect("entries")
}

/// Writes the sections of an input to the files beside the slave: the sidecar, the ledger, the
/// index and the switch. If `vouches`, the sidecar is changed to match the index.
fn put(slave: &Slave, mut input: Input<'_>, vouches: bool) {
    let paths = &slave.paths;
    let sidecar = input.section();
    if let Some(bodies) = input.section().filter(|it| !it.is_empty()) {
        put_ledger(slave, bodies);
    }
    for file in [Sibling::ZodbIndex, Sibling::Switch] {
        if let Some(bytes) = input.section().filter(|it| !it.is_empty()) {
            fs::write(paths.sibling(file), bytes).expect("a file");
        }
    }
    if let Some(bytes) = sidecar.filter(|it| !it.is_empty()) {
        let known = serde_json::from_slice(bytes).ok().filter(|_| vouches);
        let bytes = known.map_or(bytes.to_vec(), |sidecar| vouch(sidecar, paths));
        fs::write(paths.sibling(Sibling::Sidecar), bytes).expect("a file");
    }
}

fn put_ledger(slave: &Slave, bodies: &[u8]) {
    let data = File::open(slave.paths.data()).expect("the slave");
    note(slave, &data, entries(&data)).expect("a ledger");
    let path = slave.paths.sibling(Sibling::Ledger);
    let mut ledger = fs::read(&path).expect("a ledger");
    ledger.truncate(RECORD_LEN);
    for (body, number) in bodies.chunks(BODY_LEN).zip(1u64..) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(body).update(&number.to_be_bytes());
        ledger.extend(body);
        ledger.extend(&hasher.finalize().as_bytes()[..RECORD_LEN - BODY_LEN]);
    }
    fs::write(&path, ledger).expect("a ledger");
}

/// Changes a sidecar so that it matches the index.
fn vouch(mut sidecar: Value, paths: &SlavePaths) -> Vec<u8> {
    let path = paths.sibling(Sibling::ZodbIndex);
    if let (Ok(bytes), Ok(found)) = (fs::read(&path), fs::metadata(&path))
        && let Some(stored) = sidecar
            .pointer_mut("/index/stored")
            .filter(|it| it.is_object())
    {
        stored["stamp"] = stamp(&found);
        stored["digest"] = json!(Digest::of(&bytes).to_string());
    }
    sidecar.to_string().into_bytes()
}

fn stamp(found: &Metadata) -> Value {
    let modified = [found.mtime(), found.mtime_nsec()];
    json!({"inode": found.ino(), "size": found.len(), "modified": modified})
}

/// Files that passes leave beside a slave, and damaged switches.
///
/// # Panics
///
/// If a pass leaves other files.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let scene = Scene::new();
    fs::write(&scene.master, &MASTER[..SLAVE_LEN]).expect("the master");
    assert_eq!(scene.pass(How::default()).exit as u8, 0);
    let read = |suffix: &str| {
        let beside = scene.beside_slave();
        let found = beside.into_iter().find(|(name, _)| name == suffix);
        found.unwrap_or_else(|| panic!("no {suffix}")).1
    };
    let (sidecar, index) = (read(".fssync"), read(".index"));
    let records = read(".fssync-ledger");
    let bodies: Vec<u8> = records[RECORD_LEN..]
        .chunks(RECORD_LEN)
        .flat_map(|record| record[..BODY_LEN].to_vec())
        .collect();
    let mut begun: Value = serde_json::from_slice(&sidecar).expect("a sidecar");
    begun["batch"] = json!({"from": SLAVE_LEN, "header": MASTER[SLAVE_LEN..SLAVE_LEN + 23]});
    begun["index_failure"] = json!({"time": "2026-01-01T00:00:00Z", "len": 5_000_000_000u64});
    begun["scanned"] = begun["left"]["slave"].clone();
    let begun = begun.to_string().into_bytes();
    let on = b"SYNCING=1\n";
    let seed = |vouches, files: [&[u8]; 4]| [vec![vouches], files.map(section).concat()].concat();
    vec![
        seed(1, [&sidecar, &bodies, &index, on]),
        seed(1, [&sidecar, &[], &index, &[]]),
        seed(2, [&sidecar, &bodies.repeat(3), &index, &[]]),
        seed(1, [&begun, &bodies, &index[..20], &[]]),
        seed(0, [&begun, &[], &[], &[]]),
        seed(0, [&[], &bodies, &index, b"SYNCING=0\n"]),
        seed(0, [&[], &[], &[], &[]]),
    ]
}
