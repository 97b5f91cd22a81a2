//! The disk of the slave's blobs is full, in bytes or in inodes.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::site::Site;
use crate::faults::Mount;
use crate::support::{Setup, Transport, blobs_beside, must};

/// A site whose slave has its blobs on a disk of its own, with these options of tmpfs. The mount
/// must be dropped first.
fn on_a_small_disk(options: &str) -> (Mount, Site) {
    let site = Site::bushy(Setup::FileStorage, Transport::Path);
    let arguments = ["-t", "tmpfs", "-o", options, "tmpfs"];
    let directory = blobs_beside(&site.scene.slave);
    let disk = Mount::new(&arguments, &directory);
    fs::write(directory.join(".layout"), "bushy").unwrap();
    (disk, site)
}

/// The disk grows to these options of tmpfs.
fn grow(site: &Site, options: &str) {
    let mut mount = Command::new("mount");
    mount.args(["-o", &format!("remount,{options}")]);
    must(mount.arg(blobs_beside(&site.scene.slave)));
}

/// Two passes fail, and lose nothing. The next one, on a larger disk, finds the blobs that are
/// in place.
#[track_caller]
fn fails_then_goes_on(site: &mut Site, grown: &str) {
    let before = fs::read(&site.scene.slave).unwrap_or_default();
    let keys = site.slave_keys();
    for _ in 0..2 {
        let run = site.scene.pass(&[]).expect(1);
        assert!(run.stderr.contains("No space left on device"), "{run:?}");
        let directory = blobs_beside(&site.scene.slave);
        assert!(run.stderr.contains(directory.to_str().unwrap()), "{run:?}");
        let slave = fs::read(&site.scene.slave).unwrap();
        assert!(slave.starts_with(&before), "{run:?}");
        site.assert_nothing_missing();
        assert!(site.slave_keys().is_superset(&keys), "none is removed");
    }
    site.scene.assert_documented_names();
    grow(site, grown);
    site.pass(&[]);
    assert_eq!(site.slave_keys(), site.master_keys());
}

#[test]
fn a_first_copy_that_fills_the_disk_is_continued() {
    let (_disk, mut site) = on_a_small_disk("size=1m");
    for _ in 0..6 {
        site.commit("m", &json!({"blobs": 2, "blob_size": 200_000}));
    }
    fails_then_goes_on(&mut site, "size=16m");
}

#[test]
fn a_first_copy_without_inodes_is_continued() {
    let (_disk, mut site) = on_a_small_disk("size=16m,nr_inodes=40");
    for _ in 0..6 {
        site.commit("m", &json!({"blobs": 8}));
    }
    fails_then_goes_on(&mut site, "nr_inodes=10000");
}

#[test]
fn an_append_that_fills_the_disk_is_continued() {
    let (_disk, mut site) = on_a_small_disk("size=1m");
    site.commit("m", &json!({"blobs": 2, "blob_size": 100_000}));
    site.pass(&[]);
    for _ in 0..3 {
        site.commit("m", &json!({"blobs": 2, "blob_size": 300_000}));
    }
    fails_then_goes_on(&mut site, "size=16m");
}

#[test]
fn an_append_without_inodes_is_continued() {
    let (_disk, mut site) = on_a_small_disk("size=16m,nr_inodes=60");
    site.commit("m", &json!({"blobs": 8}));
    site.pass(&[]);
    for _ in 0..6 {
        site.commit("m", &json!({"blobs": 8}));
    }
    fails_then_goes_on(&mut site, "nr_inodes=10000");
}
