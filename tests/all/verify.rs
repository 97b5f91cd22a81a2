//! `fssync verify`: its findings, compared with what ZODB makes of the same file. It must not
//! change the slave.

pub mod concurrent_changes;
mod damage;
mod flips;
mod index;
mod output;
mod record;
mod sectors;

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use fssync::error::Error;
use fssync::filestorage::scan::{Event, Scanner, Transaction};
use fssync::io::progress::Silent;
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use fssync::verify::finding::Finding;
use fssync::verify::{Verified, verify};
use serde_json::json;

use crate::support::{Scene, Zodb};

/// The slave at this path.
fn slave(path: &Path) -> Slave {
    let paths = SlavePaths::new(path).expect("a place for the slave");
    Slave::new(paths, None)
}

/// The result of a verification in this process.
fn try_verify(path: &Path, quick: bool) -> Result<(Verified, Vec<Finding>), Error> {
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

/// A complete and a quick verification, which must have the same findings.
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

/// A transaction, with the positions of its data records: those with data, and those with back
/// pointers.
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

/// A sound file with 12 transactions: the fifth and the last but one undo, the sixth is empty.
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

/// A slave with these bytes, without a master.
fn scene_of(bytes: &[u8]) -> Scene {
    let scene = Scene::new();
    fs::write(&scene.slave, bytes).expect("the slave");
    scene
}
