//! Passes follow a master with blobs: after each pass, every blob that ZODB can load from the
//! slave is loaded and compared.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Blobs, Scene, Setup, Transport, Zodb, blobs_beside};

/// A master with blobs that is open as "m", and its slave.
struct Site {
    scene: Scene,
    setup: Setup,
    zodb: Zodb,
}

impl Site {
    /// The slave's blob directory has the layout `slave_layout`.
    fn new(setup: Setup, transport: Transport, layout: &str, slave_layout: &str) -> Self {
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

    fn call(&mut self, command: &Value) {
        self.zodb.call(command);
    }

    /// The blobs that ZODB can load from one of the files. They must have the bytes that were
    /// stored.
    fn load(&mut self, is_slave: bool) -> Value {
        let scene = &self.scene;
        let file = if is_slave {
            &scene.slave
        } else {
            &scene.master
        };
        let blobs = Blobs {
            file,
            directory: &blobs_beside(file),
            expected: None,
            journal: Some(&scene.directory.path().join("journal")),
        };
        let found = self.zodb.check_blobs(&blobs, self.setup);
        for list in ["different", "unknown"] {
            assert_eq!(found[list], json!([]), "{list}: {found}");
        }
        found
    }

    /// A pass must succeed. Afterwards the slave lacks only blobs that the master lacks.
    fn pass(&mut self) -> u64 {
        self.scene.pass(&[]).expect(0);
        let (master, slave) = (self.scene.master.clone(), self.scene.slave.clone());
        self.zodb.assert_in_sync(&master, &slave);
        let [theirs, ours] = [false, true].map(|is_slave| self.load(is_slave));
        let absent = theirs["missing"].as_array().expect("a list");
        for missing in ours["missing"].as_array().expect("a list") {
            assert!(absent.contains(missing), "{missing} is missing");
        }
        ours["blobs"].as_u64().expect("a number")
    }
}

/// Follows a history of creations, changes, deletions, undos, aborts and packs.
fn follow(setup: Setup, transport: Transport, layout: &str, slave_layout: &str) {
    let mut site = Site::new(setup, transport, layout, slave_layout);
    for _ in 0..4 {
        site.call(&json!({"cmd": "random", "name": "m", "count": 30}));
        site.pass();
        // A transaction that is aborted after its vote, with a pass in between.
        site.call(&json!({"cmd": "vote", "name": "m", "blobs": 2, "changes": 1}));
        site.pass();
        site.call(&json!({"cmd": "abort", "name": "m"}));
        site.call(&json!({"cmd": "commit", "name": "m", "blobs": 1, "blob_size": 70_000}));
        site.pass();
        // An undo and a redo of a creation.
        site.call(&json!({"cmd": "undo", "name": "m"}));
        site.pass();
        site.call(&json!({"cmd": "undo", "name": "m"}));
        site.pass();
        site.call(&json!({"cmd": "pack", "name": "m", "keep": 5}));
        let blobs = site.pass();
        assert!(blobs > 5, "{blobs} blobs");
    }
    assert_eq!(site.scene.expect("up-to-date")["blobs"], 0);
}

#[test]
fn of_a_filestorage_with_blob_dir() {
    follow(Setup::FileStorage, Transport::Path, "bushy", "bushy");
}

#[test]
fn of_a_blobstorage() {
    follow(Setup::Proxy, Transport::Path, "bushy", "lawn");
}

#[test]
fn of_a_filestorage_with_blob_dir_through_ssh() {
    follow(Setup::FileStorage, Transport::Ssh, "lawn", "bushy");
}

#[test]
fn of_a_blobstorage_through_ssh() {
    follow(Setup::Proxy, Transport::Ssh, "lawn", "lawn");
}
