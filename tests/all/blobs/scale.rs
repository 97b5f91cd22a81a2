//! Memory and reads of passes with blobs, over generated logs with very many of them. Most of the
//! blobs have no file: a pass asks for them in the same way, and the answer is shorter.
//!
//! All transactions change the same objects. So the work on the index, which takes memory for each
//! object, is the same for logs of any length.
//!
//! ```sh
//! FSSYNC_BLOB_RECORDS=10000000 cargo test --release --test all -- blobs::scale --nocapture
//! ```
//!
//! runs them with longer logs.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{BlobKey, LAYOUT_FILE, Layout};
use serde_json::Value;

use crate::support::{Scene, Taken, blobs_beside, measured, number};

/// Number of blobs of the shorter log; the longer one has four times as many.
const BLOBS: usize = 40_000;

/// Number of objects, all of them blobs that each transaction changes.
const OBJECTS: usize = 500;

/// One in so many blobs has a file.
const PER_FILE: usize = 1000;

/// The first data record of ZODB 6.4 for a blob, and its state.
const RECORD: &[u8] = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N.";

const FIRST_TID: u64 = 0x03f0_0000_0000_0000;

/// The memory limit of a pass with blobs, in bytes.
const MOST_MEMORY: u64 = 32 << 20;

/// How much more memory a longer log may take, in bytes: the noise of the allocator.
const NOISE: u64 = 2 << 20;

/// More bytes than a pass reads that has nothing to do.
const LITTLE: u64 = 1 << 20;

/// A master with this number of blobs, and a slave directory that is empty. One blob in `per_file`
/// has a file.
pub(super) fn site(blobs: usize, per_file: usize) -> Scene {
    let scene = Scene::new();
    write_log(&scene.master, 0..blobs);
    let directory = blobs_beside(&scene.master);
    fs::create_dir(&directory).expect("the blob directory");
    fs::write(directory.join(LAYOUT_FILE), "lawn").expect("its layout");
    for blob in (0..blobs).step_by(per_file) {
        let path = path_of(&directory, blob);
        fs::create_dir_all(path.parent().expect("its directory")).expect("its directory");
        fs::write(path, blob.to_string()).expect("a blob");
    }
    scene
}

/// Writes a log with the blobs of these numbers.
fn write_log(path: &Path, blobs: Range<usize>) {
    let log = File::create(path).expect("the log");
    let mut log = BufWriter::new(log);
    log.write_all(b"FS30").expect("the magic");
    let mut position = 4;
    for first in blobs.step_by(OBJECTS) {
        let bytes = transaction(tid_of(first), position);
        log.write_all(&bytes).expect("a transaction");
        position += bytes.len() as u64;
    }
    log.flush().expect("the log");
}

/// The transaction that stores the blob with this number.
fn tid_of(blob: usize) -> u64 {
    FIRST_TID + (blob / OBJECTS) as u64
}

/// The file of the blob with this number.
fn path_of(directory: &Path, blob: usize) -> PathBuf {
    let text = fs::read(directory.join(LAYOUT_FILE)).expect(".layout");
    let layout = Layout::parse(&text).expect("a layout");
    let (tid, oid) = (Tid(tid_of(blob)), (blob % OBJECTS) as u64);
    directory.join(layout.path(BlobKey { tid, oid }))
}

/// A transaction that changes all objects.
fn transaction(tid: u64, position: u64) -> Vec<u8> {
    let record_len = 42 + RECORD.len();
    let len = (23 + OBJECTS * record_len) as u64;
    let mut bytes = Vec::with_capacity(len as usize + 8);
    bytes.extend(tid.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend([b' ', 0, 0, 0, 0, 0, 0]);
    for oid in 0..OBJECTS {
        for field in [oid as u64, tid, 0, position] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(0u16.to_be_bytes());
        bytes.extend((RECORD.len() as u64).to_be_bytes());
        bytes.extend(RECORD);
    }
    bytes.extend(len.to_be_bytes());
    bytes
}

/// A pass with these options. Returns its report and what it took.
fn pass(scene: &Scene, options: &[&str]) -> (Value, Taken) {
    let pass = scene.command(options);
    let mut command = Command::new("env");
    // With one arena for all threads, the memory of a pass varies less.
    command.arg("MALLOC_ARENA_MAX=1").arg(pass.get_program());
    let (run, taken) = measured(command.args(pass.get_args()).arg("--json"));
    let report = run.expect(0).report();
    assert!(taken.memory <= MOST_MEMORY, "{options:?}: {taken:?}");
    println!("{options:?}: {taken:?}");
    (report, taken)
}

/// Fetches the blobs of a log that was copied without them, in as many passes as it takes. Returns
/// the largest numbers of a pass.
fn caught_up(scene: &Scene) -> Taken {
    let (_, mut most) = pass(scene, &["--blobs"]);
    loop {
        let (report, taken) = pass(scene, &["--blobs"]);
        if report["blobs"] == 0 && report["blobs_absent"] == 0 {
            return most;
        }
        if taken.memory > most.memory {
            most = taken;
        }
    }
}

/// Fails unless the slave has all blobs that the master has.
fn assert_complete(scene: &Scene, blobs: usize) {
    let directory = scene.slave.with_file_name("blobstorage");
    for blob in (0..blobs).step_by(PER_FILE) {
        let content = fs::read_to_string(path_of(&directory, blob)).expect("a blob");
        assert_eq!(content, blob.to_string());
    }
}

/// The kinds of passes over a log with blobs: what each took.
struct Measured {
    /// The first copy with blobs.
    copy: Taken,
    /// A pass that has nothing to do.
    idle: Taken,
    /// The passes that fetch the blobs of a log that was copied without them.
    catch_up: Taken,
    /// A pass that follows a pack, with half of the blobs gone.
    pack: Taken,
}

impl Measured {
    fn of(blobs: usize) -> Self {
        let scene = site(blobs, PER_FILE);
        let (report, copy) = pass(&scene, &["--blobs"]);
        let files = blobs.div_ceil(PER_FILE);
        assert_eq!(report["blobs"], files, "{report}");
        assert_eq!(report["blobs_absent"], blobs - files, "{report}");
        assert_complete(&scene, blobs);
        // The first one notes when the master is asked for absent blobs again.
        pass(&scene, &["--blobs"]);
        let (report, idle) = pass(&scene, &["--blobs"]);
        assert_eq!(report["action"], "up-to-date", "{report}");

        let without = site(blobs, PER_FILE);
        pass(&without, &["--no-blobs"]);
        let catch_up = caught_up(&without);
        assert_complete(&without, blobs);

        let packed = scene.master.with_extension("pack");
        write_log(&packed, blobs / 2 / OBJECTS * OBJECTS..blobs);
        fs::rename(&packed, &scene.master).expect("a pack");
        let (report, pack) = pass(&scene, &["--blobs"]);
        assert_eq!(report["action"], "full-copy", "{report}");
        Self {
            copy,
            idle,
            catch_up,
            pack,
        }
    }
}

#[test]
fn memory_and_idle_passes_do_not_depend_on_the_number_of_blobs() {
    let blobs = number("FSSYNC_BLOB_RECORDS").map_or(BLOBS, |it| it / 4);
    let (few, many) = (Measured::of(blobs), Measured::of(4 * blobs));
    for (name, few, many) in [
        ("copy", few.copy, many.copy),
        ("idle", few.idle, many.idle),
        ("catch-up", few.catch_up, many.catch_up),
        ("pack", few.pack, many.pack),
    ] {
        assert!(
            many.memory <= few.memory + NOISE,
            "{name}: {few:?} {many:?}"
        );
    }
    assert!(many.idle.read < LITTLE, "{:?}", many.idle);
    assert!(
        many.idle.read <= few.idle.read + 1000,
        "{:?} {:?}",
        few.idle,
        many.idle
    );
}
