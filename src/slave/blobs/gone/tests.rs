use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::slave::blobs::BlobDirectory;
use crate::slave::blobs::test_support::{Site, key};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(secs).unwrap()
}

fn add(site: &Site, secs: i64, keys: impl IntoIterator<Item = BlobKey>) {
    let mut writer = GoneWriter::new(&site.slave, at(secs));
    for key in keys {
        writer.add(key).unwrap();
    }
    writer.finish().unwrap();
}

/// Creates blobs as ZODB does.
fn create(directory: &BlobDirectory, keys: impl IntoIterator<Item = BlobKey>) {
    for key in keys {
        let path = directory.blob_path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "content").unwrap();
    }
}

fn limits(secs: i64) -> RemovalLimits {
    RemovalLimits {
        now: at(secs),
        keep: Duration::from_secs(100),
        budget: Duration::from_secs(60),
    }
}

/// Removes blobs to which a log without blobs does not refer.
fn remove(site: &Site, directory: &BlobDirectory, limits: RemovalLimits) -> Removed {
    let removed = directory.remove_gone(&site.slave, limits, |_| Ok(HashSet::new()));
    removed.unwrap()
}

fn list(site: &Site) -> PathBuf {
    site.slave.paths.sibling(Sibling::BlobsGone)
}

fn removed(files: u64, left: u64) -> Removed {
    Removed {
        files,
        bytes: files * 7,
        left,
    }
}

#[test]
fn an_entry_has_a_check() {
    let blob = GoneBlob {
        key: key(0x0102, 0x0304),
        since: 0x0506,
    };
    let entry = blob.encode();
    let oid = [0, 0, 0, 0, 0, 0, 1, 2];
    let tid = [0, 0, 0, 0, 0, 0, 3, 4];
    let since = [0, 0, 0, 0, 0, 0, 5, 6];
    assert_eq!(entry[..24], [oid, tid, since].concat());
    assert_eq!(GoneBlob::decode(&entry), Some(blob));
    for n in 0..ENTRY_LEN {
        let mut other = entry;
        other[n] ^= 1;
        assert_eq!(GoneBlob::decode(&other), None, "{n}");
    }
    assert_eq!(GoneBlob::decode(&[0; ENTRY_LEN]), None);
}

#[test]
fn blobs_are_removed_when_they_are_due() {
    let site = Site::new();
    let directory = site.set_up();
    let (old, new) = ([key(1, 1), key(0x1_0000, 2)], [key(1, 3)]);
    let kept = key(0x1_0001, 9);
    create(&directory, old.into_iter().chain(new).chain([kept]));
    assert_eq!(remove(&site, &directory, limits(2000)), removed(0, 0));
    add(&site, 1000, old);
    add(&site, 1050, new);
    assert_eq!(remove(&site, &directory, limits(1099)), removed(0, 3));
    assert_eq!(remove(&site, &directory, limits(1100)), removed(2, 1));
    let exists = |key| directory.stat(key).unwrap().is_some();
    assert!(!exists(old[0]) && !exists(old[1]) && exists(new[0]) && exists(kept));
    assert_eq!(fs::metadata(list(&site)).unwrap().len(), 32);
    // The second oid has no blob left, so its directory is gone.
    assert!(
        !site
            .blobs
            .join("0x00/0x00/0x00/0x00/0x00/0x01/0x00/0x00")
            .exists()
    );
    assert!(
        site.blobs
            .join("0x00/0x00/0x00/0x00/0x00/0x01/0x00/0x01")
            .exists()
    );
    assert_eq!(remove(&site, &directory, limits(1150)), removed(1, 0));
    assert!(!list(&site).exists() && exists(kept));
    // The directories that contain the last blob of all remain.
    add(&site, 1000, [kept]);
    assert_eq!(remove(&site, &directory, limits(1150)), removed(1, 0));
    assert_eq!(site.names(""), [".fssync", ".layout"]);
}

#[test]
fn a_blob_to_which_the_log_refers_is_not_removed() {
    let site = Site::new();
    let directory = site.set_up();
    let keys = [key(1, 9), key(2, 3), key(1, 9), key(3, 5)];
    create(&directory, keys);
    add(&site, 0, keys);
    let referenced = HashSet::from([key(2, 3)]);
    let mut asked = Vec::new();
    let found = directory.remove_gone(&site.slave, limits(100), |keys| {
        asked.extend_from_slice(keys);
        Ok(referenced.clone())
    });
    assert_eq!(found.unwrap(), removed(2, 0));
    assert_eq!(asked, [key(2, 3), key(3, 5), key(1, 9)]);
    assert!(directory.stat(key(2, 3)).unwrap().is_some());
    assert!(!list(&site).exists());
}

#[test]
fn nothing_is_removed_if_the_log_changes_meanwhile() {
    let site = Site::new();
    let directory = site.set_up();
    create(&directory, [key(1, 1)]);
    add(&site, 0, [key(1, 1)]);
    let data = site.slave.paths.data();
    let found = directory.remove_gone(&site.slave, limits(100), |_| {
        fs::write(data, "FS30 and a transaction").unwrap();
        Ok(HashSet::new())
    });
    assert!(matches!(found, Err(Error::SlaveChanged { .. })));
    fs::remove_file(data).unwrap();
    assert_eq!(remove(&site, &directory, limits(100)), removed(0, 1));
    assert!(directory.stat(key(1, 1)).unwrap().is_some());
}

#[test]
fn a_removal_that_was_killed_is_repeated() {
    let site = Site::new();
    let directory = site.set_up();
    let keys: Vec<_> = (0..50).map(|oid| key(oid, 1)).collect();
    create(&directory, keys.clone());
    add(&site, 0, keys.clone());
    // Some files and directories are gone, but the list is still the old one; a new list was
    // being written.
    for &key in &keys[..20] {
        directory.remove_blob(key).unwrap();
    }
    let path = directory.blob_path(keys[20]);
    fs::remove_file(path).unwrap();
    fs::write(site.slave.paths.sibling(Sibling::BlobsGoneNew), "torn").unwrap();
    assert_eq!(remove(&site, &directory, limits(100)), removed(29, 0));
    assert_eq!(site.names(""), [".fssync", ".layout"]);
}

#[test]
fn a_removal_continues_where_the_last_one_ended() {
    let site = Site::new();
    let directory = site.set_up();
    let keys: Vec<_> = (0..300).map(|tid| key(1, 300 - tid)).collect();
    create(&directory, keys.clone());
    add(&site, 0, keys.clone());
    add(&site, 5, [key(2, 1)]);
    // A damaged entry, which is skipped.
    let mut bytes = fs::read(list(&site)).unwrap();
    bytes[10 * 32] ^= 1;
    fs::write(list(&site), bytes).unwrap();
    let short = RemovalLimits {
        budget: Duration::ZERO,
        ..limits(100)
    };
    assert_eq!(remove(&site, &directory, short), removed(256, 44));
    assert_eq!(remove(&site, &directory, short), removed(43, 1));
    assert!(directory.stat(keys[10]).unwrap().is_some());
    assert_eq!(remove(&site, &directory, short), removed(0, 1));
}

#[test]
fn torn_and_damaged_entries_are_skipped() {
    let site = Site::new();
    let directory = site.set_up();
    create(&directory, [key(1, 1), key(2, 2), key(3, 3)]);
    add(&site, 0, [key(1, 1)]);
    let mut bytes = fs::read(list(&site)).unwrap();
    bytes.extend([0; 45]);
    fs::write(list(&site), bytes).unwrap();
    // The entry is written over the torn one.
    add(&site, 0, [key(2, 2)]);
    assert_eq!(fs::metadata(list(&site)).unwrap().len(), 96);
    assert_eq!(remove(&site, &directory, limits(100)), removed(2, 0));
    // Invalid entries alone do not remain for ever.
    fs::write(list(&site), [7; 64]).unwrap();
    assert_eq!(remove(&site, &directory, limits(100)), removed(0, 0));
    assert!(!list(&site).exists());
}

#[test]
fn a_long_list_is_read_in_blocks() {
    let site = Site::new();
    let directory = site.set_up();
    let count = 3 * BLOCK_LEN as u64 / ENTRY_LEN as u64 + 5;
    add(&site, 0, (0..count).map(|tid| key(1, tid)));
    let opened = GoneList::open(&site.slave.paths).unwrap().unwrap();
    assert_eq!(opened.len(), count);
    add(&site, 1000, (0..count).map(|tid| key(2, tid)));
    let mut asked = 0;
    let found = directory.remove_gone(&site.slave, limits(100), |keys| {
        asked += keys.len() as u64;
        Ok(HashSet::new())
    });
    assert_eq!((found.unwrap(), asked), (removed(0, count), count));
    let rest = remove(&site, &directory, limits(1000 + 100));
    assert_eq!(rest, removed(0, 0));
}

#[test]
fn nothing_is_removed_after_syncing_was_switched_off() {
    let site = Site::new();
    let directory = site.set_up();
    create(&directory, [key(1, 1)]);
    add(&site, 0, [key(1, 1)]);
    let before = fs::read(list(&site)).unwrap();
    let found = directory.remove_gone(&site.slave, limits(100), |_| {
        site.switch_off();
        Ok(HashSet::new())
    });
    assert!(matches!(found, Err(Error::Off(_))));
    assert!(directory.stat(key(1, 1)).unwrap().is_some());
    assert_eq!(fs::read(list(&site)).unwrap(), before);
    let mut writer = GoneWriter::new(&site.slave, at(0));
    writer.add(key(1, 2)).unwrap();
    assert!(matches!(writer.finish(), Err(Error::Off(_))));
    assert_eq!(fs::read(list(&site)).unwrap(), before);
}

#[test]
fn a_symbolic_link_does_not_redirect_a_removal() {
    let site = Site::new();
    let directory = site.set_up();
    let outside = site.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("0x01.blob"), "not ours").unwrap();
    let path = directory.blob_path(key(1, 1));
    let parent = path.parent().unwrap();
    fs::create_dir_all(parent.parent().unwrap()).unwrap();
    symlink(&outside, parent).unwrap();
    add(&site, 0, [key(1, 1)]);
    let found = directory.remove_gone(&site.slave, limits(100), |_| Ok(HashSet::new()));
    assert!(found.unwrap_err().to_string().contains("0x01"));
    assert!(outside.join("0x01.blob").exists());
}

#[test]
fn a_clock_that_went_back_keeps_blobs_longer() {
    let site = Site::new();
    let directory = site.set_up();
    create(&directory, [key(1, 1)]);
    add(&site, i64::from(u32::MAX), [key(1, 1)]);
    let early = RemovalLimits {
        keep: WEEK,
        ..limits(1000)
    };
    assert_eq!(remove(&site, &directory, early), removed(0, 1));
    let endless = RemovalLimits {
        keep: Duration::MAX,
        ..limits(1000)
    };
    assert_eq!(remove(&site, &directory, endless), removed(0, 1));
}
