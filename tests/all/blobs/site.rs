//! A master with blobs that the real ZODB has open, and its slave.

use std::collections::BTreeSet;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};

use fssync::filestorage::blob::BlobKey;
use serde_json::{Value, json};

use super::derived::on_disk;
use crate::support::{Blobs, Scene, Setup, Transport, Zodb, blobs_beside, fssync, run};

/// A master with blobs that is open as "m", and its slave.
pub struct Site {
    pub scene: Scene,
    pub setup: Setup,
    pub zodb: Zodb,
}

impl Site {
    /// The blob directories have these layouts.
    pub fn new(setup: Setup, transport: Transport, layout: &str, slave_layout: &str) -> Self {
        let scene = Scene::new().with_blobs().over(transport);
        let directory = blobs_beside(&scene.slave);
        fs::create_dir(&directory).expect("the slave's blob directory");
        fs::write(directory.join(".layout"), slave_layout).expect(".layout");
        let mut zodb = Zodb::start();
        let journal = scene.directory.path().join("journal");
        let options = json!({"create": true, "layout": layout, "seed": 7, "journal": journal});
        zodb.open_with_blobs(&scene.master, setup, &options);
        Self { scene, setup, zodb }
    }

    /// Both blob directories are bushy.
    pub fn bushy(setup: Setup, transport: Transport) -> Self {
        Self::new(setup, transport, "bushy", "bushy")
    }

    /// The file with the digests of all blobs.
    pub fn journal(&self) -> PathBuf {
        self.scene.directory.path().join("journal")
    }

    pub fn call(&mut self, command: &Value) -> Value {
        self.zodb.call(command)
    }

    /// Commits a transaction to the open storage `name`. `what` has the parameters.
    pub fn commit(&mut self, name: &str, what: &Value) {
        let mut command = json!({"cmd": "commit", "name": name, "objects": 0});
        let what = what.as_object().expect("what").clone();
        command.as_object_mut().expect("a command").extend(what);
        self.call(&command);
    }

    /// The blob files of the master.
    pub fn master_keys(&self) -> BTreeSet<BlobKey> {
        on_disk(&blobs_beside(&self.scene.master))
    }

    /// The blob files of the slave.
    pub fn slave_keys(&self) -> BTreeSet<BlobKey> {
        on_disk(&blobs_beside(&self.scene.slave))
    }

    /// The blobs that ZODB can load from one of the files. They must have the bytes that were
    /// stored.
    #[track_caller]
    pub fn load(&mut self, is_slave: bool) -> Value {
        let file = if is_slave {
            self.scene.slave.clone()
        } else {
            self.scene.master.clone()
        };
        self.load_from(&file, &blobs_beside(&file))
    }

    /// The same for any file with a blob directory.
    #[track_caller]
    pub fn load_from(&mut self, file: &Path, directory: &Path) -> Value {
        let blobs = Blobs {
            file,
            directory,
            expected: None,
            journal: Some(&self.journal()),
        };
        let found = self.zodb.check_blobs(&blobs, self.setup);
        for list in ["different", "unknown"] {
            assert_eq!(found[list], json!([]), "{list}: {found}");
        }
        found
    }

    /// A pass with these options must succeed; returns its report. Afterwards the slave lacks
    /// only blobs that the master lacks.
    #[track_caller]
    pub fn pass(&mut self, options: &[&str]) -> Value {
        let report = self.scene.pass(options).expect(0).report();
        self.assert_in_sync();
        report
    }

    /// Fails unless the slave has the master's log, and each blob that ZODB can load there.
    /// Returns the number of blobs that ZODB can load from the slave.
    #[track_caller]
    pub fn assert_in_sync(&mut self) -> u64 {
        let (master, slave) = (self.scene.master.clone(), self.scene.slave.clone());
        self.zodb.assert_in_sync(&master, &slave);
        let [theirs, ours] = [false, true].map(|is_slave| self.load(is_slave));
        let absent = theirs["missing"].as_array().expect("a list");
        for missing in ours["missing"].as_array().expect("a list") {
            assert!(absent.contains(missing), "{missing} is missing");
        }
        ours["blobs"].as_u64().expect("a number")
    }

    /// Fails unless the slave has the blobs of all its transactions, whether or not it is in sync.
    #[track_caller]
    pub fn assert_nothing_missing(&mut self) -> u64 {
        let found = self.load(true);
        assert_eq!(found["missing"], json!([]), "{found}");
        found["blobs"].as_u64().expect("a number")
    }

    /// Switches syncing off, and opens the slave as "s".
    pub fn fail_over(&mut self) {
        run(fssync().arg("off").arg(&self.scene.slave)).expect(0);
        let slave = &self.scene.slave;
        let open = json!({"cmd": "open", "name": "s", "path": slave, "seed": 8,
            "blobs": blobs_beside(slave), "setup": self.setup.as_str(),
            "journal": self.journal()});
        self.call(&open);
    }

    /// Closes the slave.
    pub fn close_slave(&mut self) {
        self.call(&json!({"cmd": "close", "name": "s"}));
    }

    /// Switches syncing on again.
    pub fn switch_on(&self) {
        run(fssync().args(["on", "--force"]).arg(&self.scene.slave)).expect(0);
    }

    /// The master becomes the slave, and the slave the master.
    pub fn change_roles(&mut self) {
        mem::swap(&mut self.scene.master, &mut self.scene.slave);
    }
}
