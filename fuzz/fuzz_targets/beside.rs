//! Any bytes as what lies beside a slave: its sidecar, its ledger, its index and its
//! switch. Each is told or passed over, and none makes damage of the slave but a wrong
//! index and a ledger that says so.

#![no_main]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fssync::monitor::Silent;
use fssync::slave::ledger::{Tally, note};
use fssync::slave::place::{Beside, Place};
use fssync::slave::step::Slave;
use fssync::slave::switch::Switches;
use fssync::status;
use fssync::verify::verify;
use libfuzzer_sys::fuzz_target;

const SLAVE: &[u8] = include_bytes!("../../fixtures/undo-creation.fs");

/// The files, in the order in which the input has them: a length of 2 bytes, and so many
/// bytes of it.
const FILES: [Beside; 4] = [
    Beside::Sidecar,
    Beside::Ledger,
    Beside::ZodbIndex,
    Beside::Switch,
];

fuzz_target!(|input: &[u8]| {
    // In memory, where there is such a place.
    let memory = Some(Path::new("/dev/shm")).filter(|it| it.is_dir());
    let directory = match memory {
        Some(memory) => tempfile::tempdir_in(memory),
        None => tempfile::tempdir(),
    };
    let directory = directory.expect("a directory");
    let path = directory.path().join("Data.fs");
    fs::write(&path, SLAVE).expect("the slave");
    let place = Place::new(&path).expect("a place");
    let mut rest = input;
    for file in FILES {
        let Some((len, bytes)) = rest.split_first_chunk() else {
            break;
        };
        let len = usize::from(u16::from_be_bytes(*len)).min(bytes.len());
        let (content, behind) = bytes.split_at(len);
        fs::write(place.beside(file), content).expect("a file");
        rest = behind;
    }
    let slave = Slave {
        switches: Switches::new(&place, None),
        place,
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let verified = verify(&slave, false, &Silent, &mut |_| {}).expect("it can be read");
    assert_eq!(verified.position, SLAVE.len() as u64);
    status::look(&slave, None, &Silent).expect("a status");
    let data = File::open(&path).expect("the slave");
    let mut tally = Tally::new(0);
    tally.take(SLAVE);
    let entries = tally.end_at(&data, SLAVE.len() as u64).expect("entries");
    // Where a switch says off, nothing is noted.
    let _ = note(&slave, &data, entries);
    assert!(fs::read(&path).expect("the slave") == SLAVE);
});
