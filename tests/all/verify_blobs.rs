//! `fssync verify` of a slave with blobs, which the real ZODB has written: missing, different and
//! unreadable files, the ledger of blobs, the comparison with the master, and files to which the
//! log does not refer.

mod against;
mod findings;
mod ledger;
mod many;
mod orphans;
mod ranges;

use std::fs;
use std::path::{Path, PathBuf};

use fssync::filestorage::blob::{BlobKey, Layout};
use fssync::io::digest::Digest;
use fssync::slave::blobs::{BlobDirectory, BlobEntry, BlobLedger, BlobState};
use fssync::slave::paths::SlavePaths;
use fssync::slave::step::Slave;
use serde_json::{Value, json};

use crate::blobs::derived;
use crate::support::{Run, Scene, Setup, Transport, Zodb, blobs_beside, run};

/// A slave in sync, with five blobs.
struct Site {
    scene: Scene,
    layout: Layout,
    /// Its blobs, in log order.
    keys: Vec<BlobKey>,
}

impl Site {
    fn new() -> Self {
        Self::of(Setup::FileStorage, Layout::Bushy)
    }

    fn of(setup: Setup, layout: Layout) -> Self {
        Self::reached(setup, layout, Transport::Path)
    }

    /// A site whose master is reached in this way.
    fn reached(setup: Setup, layout: Layout, transport: Transport) -> Self {
        let site = Self::of_master(setup, layout, transport);
        site.scene.pass(&["--blobs"]).expect(0);
        site
    }

    /// The same without a slave.
    fn of_master(setup: Setup, layout: Layout, transport: Transport) -> Self {
        let scene = Scene::new().over(transport);
        let mut zodb = Zodb::start();
        let options = json!({"create": true, "layout": layout.as_str()});
        zodb.open_with_blobs(&scene.master, setup, &options);
        for what in [
            json!({"blobs": 3, "blob_size": 1000}),
            json!({"changes": 1, "blob_size": 700}),
            json!({"blobs": 1, "blob_size": 300_000}),
        ] {
            let mut command = json!({"cmd": "commit", "name": "m"});
            let what = what.as_object().expect("what").clone();
            command.as_object_mut().expect("a command").extend(what);
            zodb.call(&command);
        }
        zodb.call(&json!({"cmd": "close", "name": "m"}));
        let keys = derived::on_disk(&blobs_beside(&scene.master));
        let keys: Vec<BlobKey> = keys.into_iter().collect();
        assert_eq!(keys.len(), 5);
        Self {
            scene,
            layout,
            keys,
        }
    }

    /// The slave's blob directory, which is always bushy.
    fn blobs(&self) -> PathBuf {
        self.scene.slave.with_file_name("blobstorage")
    }

    /// The slave's file of the blob with this number.
    fn file(&self, number: usize) -> PathBuf {
        self.blobs().join(self.name(number))
    }

    /// Its path below the blob directory.
    fn name(&self, number: usize) -> PathBuf {
        Layout::Bushy.path(self.keys[number])
    }

    /// The master's file of the blob with this number.
    fn master_file(&self, number: usize) -> PathBuf {
        let blobs = blobs_beside(&self.scene.master);
        blobs.join(self.layout.path(self.keys[number]))
    }

    fn directory(&self) -> BlobDirectory {
        BlobDirectory::open_any(&self.blobs()).expect("a blob directory")
    }

    /// The slave, as the library opens it.
    fn slave(&self) -> Slave {
        let paths = SlavePaths::new(&self.scene.slave).expect("a place for the slave");
        Slave::new(paths, None)
    }

    /// Appends entries for these blobs to the ledger. `state` gets the content of the master's
    /// file, which is empty if there is none.
    fn record(&self, keys: &[BlobKey], state: impl Fn(&[u8]) -> BlobState) {
        let slave = self.slave();
        let directory = self.directory();
        let mut ledger = BlobLedger::open_or_create(&slave, &directory).expect("the ledger");
        let blobs = blobs_beside(&self.scene.master);
        let entry = |key: &BlobKey| BlobEntry {
            key: *key,
            state: state(&fs::read(blobs.join(self.layout.path(*key))).unwrap_or_default()),
        };
        let entries: Vec<BlobEntry> = keys.iter().map(entry).collect();
        ledger.append(&slave, &entries).expect("an append");
    }

    fn verify(&self, options: &[&str]) -> Run {
        run(self.scene.verify(options).arg("--json"))
    }

    /// The report of a verification with these options and this exit code.
    #[track_caller]
    fn report(&self, options: &[&str], code: i32) -> Value {
        let report = self.verify(options).expect(code).report();
        assert_eq!(report["exit_code"], code, "{report}");
        report
    }
}

/// The entry of a blob that the master has.
fn present(bytes: &[u8]) -> BlobState {
    BlobState::Present {
        size: bytes.len() as u64,
        digest: (&Digest::of(bytes)).into(),
    }
}

/// The kinds of the findings in a report, with the names of their files.
fn findings(report: &Value) -> Vec<(String, PathBuf)> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    findings
        .map(|it| (text(&it["kind"]), text(&it["file"]).into()))
        .collect()
}

/// Changes a byte of a file, which ZODB has made read-only.
fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("a file");
}

/// Shortens a file to this length in bytes.
fn shorten(path: &Path, len: usize) {
    let bytes = fs::read(path).expect("a file");
    fs::write(path, &bytes[..len]).expect("a file");
}
