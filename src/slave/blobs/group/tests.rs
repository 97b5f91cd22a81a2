use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::slave::blobs::test_support::{Site, key, stat_of};
use crate::slave::blobs::tmp::MIN_RESUMED_LEN;
use crate::slave::blobs::{BlobDirectory, Leftovers};

/// Receives a blob with this content.
fn receive(group: &mut BlobGroup<'_>, key: BlobKey, content: &[u8]) {
    let mut blob = group.stage(key, stat_of(content), 0).unwrap();
    for piece in content.chunks(1000) {
        blob.write(piece).unwrap();
    }
    group.finish(blob).unwrap();
}

fn place_one(directory: &BlobDirectory, slave: &Slave, key: BlobKey, content: &[u8]) {
    let mut group = BlobGroup::new(directory, slave);
    receive(&mut group, key, content);
    group.place().unwrap();
}

#[test]
fn blobs_get_the_bytes_the_mode_and_the_time_of_the_master() {
    let site = Site::new();
    fs::create_dir(&site.blobs).unwrap();
    chown(&site.blobs, Some(1234), Some(2345)).unwrap();
    fs::set_permissions(&site.blobs, Permissions::from_mode(0o2750)).unwrap();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    let (one, other) = (key(0x1234, 0x03a1_0000_0000_00ff), key(0x1235, 7));
    // Two blobs are received at the same time.
    let contents = [vec![7; 5000], Vec::new()];
    let mut first = group.stage(one, stat_of(&contents[0]), 0).unwrap();
    first.write(&contents[0][..10]).unwrap();
    receive(&mut group, other, &contents[1]);
    first.write(&contents[0][10..]).unwrap();
    assert_eq!(first.received(), 5000);
    group.finish(first).unwrap();
    assert!(directory.stat(one).unwrap().is_none());
    let records = group.place().unwrap();
    let of = |key, content: &[u8]| BlobRecord {
        key,
        size: content.len() as u64,
        digest: Digest::of(content),
    };
    assert_eq!(records, [of(other, &contents[1]), of(one, &contents[0])]);
    assert!(group.is_empty());
    for (key, content) in [(one, &contents[0]), (other, &contents[1])] {
        assert_eq!(&fs::read(directory.blob_path(key)).unwrap(), content);
        let placed = directory.stat(key).unwrap().unwrap();
        assert!(placed.is_like(&stat_of(content)), "{placed:?}");
        let digest = directory.digest(key, &|| Ok(())).unwrap();
        assert_eq!(digest, Some(Digest::of(content)));
        let found = fs::metadata(directory.blob_path(key)).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o444);
        assert_eq!((found.uid(), found.gid()), (1234, 2345));
    }
    let parents = "0x00/0x00/0x00/0x00/0x00/0x00/0x12/0x34";
    for above in Path::new(parents).ancestors() {
        let found = fs::metadata(site.blobs.join(above)).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o2750, "{above:?}");
        assert_eq!((found.uid(), found.gid()), (1234, 2345), "{above:?}");
    }
    assert!(site.names(".fssync/tmp").is_empty());
}

#[test]
fn a_blob_is_readable_for_those_who_may_read_the_directory() {
    for (master, root, expected) in [
        (0o400, 0o755, 0o444),
        (0o400, 0o750, 0o440),
        (0o400, 0o700, 0o400),
        (0o100_644, 0o700, 0o444),
        (0o6777, 0o700, 0o444),
        (0, 0o700, 0o400),
    ] {
        let site = Site::new();
        fs::create_dir(&site.blobs).unwrap();
        fs::set_permissions(&site.blobs, Permissions::from_mode(root)).unwrap();
        let directory = site.set_up();
        let mut group = BlobGroup::new(&directory, &site.slave);
        let stat = BlobStat {
            mode: master,
            ..stat_of(b"")
        };
        let blob = group.stage(key(1, 2), stat, 0).unwrap();
        group.finish(blob).unwrap();
        group.place().unwrap();
        let found = fs::metadata(directory.blob_path(key(1, 2))).unwrap();
        assert_eq!(found.mode() & 0o7777, expected, "{master:o} {root:o}");
    }
}

#[test]
fn a_killed_pass_is_repeated_from_each_point() {
    let contents = [b"one".as_slice(), b"other"];
    let keys = [key(0x100, 1), key(0x101, 2)];
    // The number of blobs that are received, then the number of those that are placed, before the
    // process is killed. A group that is forgotten cleans nothing, as after a kill.
    for (received, placed) in [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)] {
        let site = Site::new();
        let directory = site.set_up();
        let mut killed = BlobGroup::new(&directory, &site.slave);
        for n in 0..received {
            receive(&mut killed, keys[n], contents[n]);
        }
        let mut finished = std::mem::take(&mut killed.finished);
        finished.truncate(placed);
        let tmp = Arc::clone(killed.tmp().unwrap());
        killed.placer.place(&tmp, finished).unwrap();
        std::mem::forget(killed);
        let directory = BlobDirectory::open(&site.blobs, directory.id()).unwrap();
        directory.clean_tmp(&site.slave, Leftovers::Small).unwrap();
        assert!(site.names(".fssync/tmp").is_empty());
        let mut group = BlobGroup::new(&directory, &site.slave);
        for (key, content) in keys.into_iter().zip(contents) {
            match directory.stat(key).unwrap() {
                Some(found) if found.is_like(&stat_of(content)) => group.found(key),
                found => {
                    assert_eq!(found, None);
                    receive(&mut group, key, content);
                }
            }
        }
        assert_eq!(group.len(), 2);
        assert_eq!(group.place().unwrap().len(), 2 - placed);
        for (key, content) in keys.into_iter().zip(contents) {
            assert_eq!(fs::read(directory.blob_path(key)).unwrap(), content);
        }
        assert!(site.names(".fssync").iter().all(|name| name != "replaced"));
    }
}

#[test]
fn a_directory_that_a_killed_pass_was_creating_is_used() {
    let site = Site::new();
    fs::create_dir(&site.blobs).unwrap();
    chown(&site.blobs, Some(1234), Some(2345)).unwrap();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    receive(&mut group, key(1, 2), b"content");
    let left = site.blobs.join(".fssync/tmp/directory");
    fs::create_dir(&left).unwrap();
    fs::set_permissions(&left, Permissions::from_mode(0o700)).unwrap();
    group.place().unwrap();
    let parent = site.blobs.join("0x00");
    assert_eq!(fs::metadata(parent).unwrap().mode() & 0o7777, 0o755);
    assert!(site.names(".fssync/tmp").is_empty());
    fs::create_dir(&left).unwrap();
    directory.clean_tmp(&site.slave, Leftovers::Small).unwrap();
    assert!(site.names(".fssync/tmp").is_empty());
}

#[test]
fn directories_get_the_mode_and_the_group_of_the_blob_directory() {
    // In a blob directory of this user, they are created in place.
    for (user, mode) in [(0, 0o777), (0, 0o2770), (1234, 0o777)] {
        let site = Site::new();
        fs::create_dir(&site.blobs).unwrap();
        chown(&site.blobs, Some(user), Some(2345)).unwrap();
        fs::set_permissions(&site.blobs, Permissions::from_mode(mode)).unwrap();
        let directory = site.set_up();
        place_one(&directory, &site.slave, key(1, 2), b"content");
        let leaf = directory.layout().directory(1);
        for above in leaf.ancestors() {
            let found = fs::metadata(site.blobs.join(above)).unwrap();
            assert_eq!(found.mode() & 0o7777, mode, "{above:?}");
            assert_eq!((found.uid(), found.gid()), (user, 2345), "{above:?}");
        }
    }
}

#[test]
fn another_file_in_the_place_of_a_blob_is_kept() {
    let site = Site::new();
    let directory = site.set_up();
    place_one(&directory, &site.slave, key(1, 2), b"first");
    let old = fs::metadata(directory.blob_path(key(1, 2))).unwrap();
    place_one(&directory, &site.slave, key(1, 2), b"second");
    place_one(&directory, &site.slave, key(1, 2), b"third");
    assert_eq!(fs::read(directory.blob_path(key(1, 2))).unwrap(), b"third");
    let name = "0000000000000001-0000000000000002";
    let names = [name.to_owned(), format!("{name}.1")];
    assert_eq!(site.names(".fssync/replaced"), names);
    let kept = |name: &str| site.blobs.join(".fssync/replaced").join(name);
    assert_eq!(fs::read(kept(&names[0])).unwrap(), b"first");
    assert_eq!(fs::read(kept(&names[1])).unwrap(), b"second");
    assert_eq!(fs::metadata(kept(&names[0])).unwrap().ino(), old.ino());
    // A pass that was killed after the link does not keep the file twice.
    fs::hard_link(directory.blob_path(key(1, 2)), kept(&format!("{name}.2"))).unwrap();
    place_one(&directory, &site.slave, key(1, 2), b"fourth");
    assert_eq!(site.names(".fssync/replaced").len(), 3);
    assert_eq!(fs::read(kept(&format!("{name}.2"))).unwrap(), b"third");
}

#[test]
fn an_adopted_blob_gets_the_time_of_the_master() {
    let site = Site::new();
    let directory = site.set_up();
    let path = directory.blob_path(key(1, 2));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "content").unwrap();
    let stat = stat_of(b"content");
    assert!(!directory.stat(key(1, 2)).unwrap().unwrap().is_like(&stat));
    let mut group = BlobGroup::new(&directory, &site.slave);
    let digest = Digest::of(b"content");
    group.adopt(key(1, 2), &stat, digest);
    let records = group.place().unwrap();
    let expected = BlobRecord {
        key: key(1, 2),
        size: 7,
        digest,
    };
    assert_eq!(records, [expected]);
    assert!(directory.stat(key(1, 2)).unwrap().unwrap().is_like(&stat));
    // A blob that disappears is reported, and a new survey may succeed.
    group.found(key(1, 2));
    fs::remove_file(&path).unwrap();
    assert!(group.place().unwrap_err().is_transient());
}

#[test]
fn symbolic_links_are_refused_at_each_level() {
    for layout in ["bushy", "lawn"] {
        for level in 0.. {
            let site = Site::new();
            fs::create_dir(&site.blobs).unwrap();
            fs::write(site.blobs.join(".layout"), layout).unwrap();
            let directory = site.set_up();
            let outside = site.directory.path().join("outside");
            fs::create_dir(&outside).unwrap();
            let relative = directory.layout().path(key(0x1234, 2));
            let Some(link) = relative.ancestors().nth(level) else {
                unreachable!("the root comes first");
            };
            if link.as_os_str().is_empty() {
                break;
            }
            let link = site.blobs.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let target = if level == 0 {
                outside.join("file")
            } else {
                outside.clone()
            };
            symlink(target, &link).unwrap();
            let path = directory.blob_path(key(0x1234, 2)).display().to_string();
            for error in [
                directory.stat(key(0x1234, 2)).unwrap_err(),
                directory.open_blob(key(0x1234, 2)).unwrap_err(),
            ] {
                assert!(error.to_string().contains(&path), "{error}");
            }
            let mut group = BlobGroup::new(&directory, &site.slave);
            receive(&mut group, key(0x1234, 2), b"content");
            group.place().unwrap_err();
            drop(group);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "level {level}");
            assert!(site.names(".fssync/tmp").is_empty());
        }
    }
}

#[test]
fn symbolic_links_in_our_own_directory_are_refused() {
    for relative in [".fssync", ".fssync/tmp", ".fssync/replaced"] {
        let site = Site::new();
        let directory = site.set_up();
        place_one(&directory, &site.slave, key(1, 2), b"first");
        let outside = site.directory.path().join("outside");
        let moved = site.blobs.join(relative);
        if moved.exists() {
            fs::rename(&moved, &outside).unwrap();
        } else {
            fs::create_dir(&outside).unwrap();
        }
        symlink(&outside, &moved).unwrap();
        let before = site.listing();
        let mut group = BlobGroup::new(&directory, &site.slave);
        match group.stage(key(1, 2), stat_of(b""), 0) {
            Err(_) => {}
            Ok(blob) => {
                group.finish(blob).unwrap();
                group.place().unwrap_err();
            }
        }
        drop(group);
        assert_eq!(site.listing(), before, "{relative}");
    }
}

type Link = fn(&Path, &Path) -> std::io::Result<()>;

#[test]
fn a_link_in_place_of_a_temporary_file_is_not_followed() {
    let site = Site::new();
    let directory = site.set_up();
    let victim = site.directory.path().join("victim");
    fs::write(&victim, vec![1; MIN_RESUMED_LEN as usize]).unwrap();
    let tmp = site.blobs.join(".fssync/tmp").join(tmp_name(key(1, 2)));
    let links: [Link; 2] = [
        |from, to| symlink(from, to),
        |from, to| fs::hard_link(from, to),
    ];
    for link in links {
        link(&victim, &tmp).unwrap();
        let mut group = BlobGroup::new(&directory, &site.slave);
        assert_eq!(group.leftover(key(1, 2)).unwrap(), None);
        receive(&mut group, key(1, 2), b"content");
        drop(group);
        let found = fs::read(&victim).unwrap();
        assert!(found.len() == MIN_RESUMED_LEN as usize && found.iter().all(|&it| it == 1));
    }
}

#[test]
fn a_large_part_is_resumed_after_a_signal() {
    let content: Vec<u8> = (0..MIN_RESUMED_LEN + 5000)
        .map(|n| (n / 251) as u8)
        .collect();
    let (large, small) = (key(1, 2), key(3, 4));
    let cut = MIN_RESUMED_LEN as usize + 10;
    let site = Site::new();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    let mut blob = group.stage(large, stat_of(&content), 0).unwrap();
    blob.write(&content[..cut]).unwrap();
    receive(&mut group, small, b"small");
    site.slave.interrupted.store(true, Ordering::Relaxed);
    assert!(matches!(blob.write(b"x").unwrap_err(), Error::Interrupted));
    drop(blob);
    drop(group);
    site.slave.interrupted.store(false, Ordering::Relaxed);
    assert_eq!(site.names(".fssync/tmp"), [tmp_name(large)]);

    directory.clean_tmp(&site.slave, Leftovers::Small).unwrap();
    let mut group = BlobGroup::new(&directory, &site.slave);
    let prefix = ReceivedPrefix {
        len: cut as u64,
        digest: Digest::of(&content[..cut]),
    };
    assert_eq!(group.leftover(large).unwrap(), Some(prefix));
    assert_eq!(group.leftover(small).unwrap(), None);
    let mut blob = group.stage(large, stat_of(&content), cut as u64).unwrap();
    blob.write(&content[cut..]).unwrap();
    group.finish(blob).unwrap();
    let records = group.place().unwrap();
    assert_eq!(records[0].digest, Digest::of(&content));
    assert_eq!(fs::read(directory.blob_path(large)).unwrap(), content);
}

#[test]
fn a_part_that_differs_is_received_again() {
    let site = Site::new();
    let directory = site.set_up();
    let tmp = site.blobs.join(".fssync/tmp").join(tmp_name(key(1, 2)));
    fs::write(&tmp, vec![1; MIN_RESUMED_LEN as usize]).unwrap();
    let mut group = BlobGroup::new(&directory, &site.slave);
    assert!(group.leftover(key(1, 2)).unwrap().is_some());
    receive(&mut group, key(1, 2), b"content");
    group.place().unwrap();
    assert_eq!(
        fs::read(directory.blob_path(key(1, 2))).unwrap(),
        b"content"
    );
    // Only a part that was digested may be resumed.
    let stat = BlobStat {
        size: 2 * MIN_RESUMED_LEN,
        ..stat_of(b"")
    };
    fs::write(&tmp, vec![1; MIN_RESUMED_LEN as usize]).unwrap();
    assert!(group.stage(key(1, 2), stat, MIN_RESUMED_LEN).is_err());
    directory.clean_tmp(&site.slave, Leftovers::All).unwrap();
    assert!(site.names(".fssync/tmp").is_empty());
}

#[test]
fn large_parts_stay_only_if_they_can_be_resumed() {
    for keeps in [false, true] {
        let site = Site::new();
        let directory = site.set_up();
        let mut group = BlobGroup::new(&directory, &site.slave);
        let content = vec![0; MIN_RESUMED_LEN as usize];
        receive(&mut group, key(1, 2), &content);
        receive(&mut group, key(3, 4), b"small");
        if keeps {
            group.keep_large();
        }
        drop(group);
        assert_eq!(site.names(".fssync/tmp").len(), usize::from(keeps));
    }
}

#[test]
fn a_blob_of_another_length_is_not_placed() {
    let site = Site::new();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    let mut blob = group.stage(key(1, 2), stat_of(b"content"), 0).unwrap();
    blob.write(b"cont").unwrap();
    let error = blob.write(b"more than that").unwrap_err().display_chain();
    assert!(error.contains("its size is 7 bytes"), "{error}");
    let error = group.finish(blob).unwrap_err().display_chain();
    assert!(error.contains("4 bytes were received"), "{error}");
    // The next attempt begins again.
    receive(&mut group, key(1, 2), b"content");
    group.place().unwrap();
    assert_eq!(
        fs::read(directory.blob_path(key(1, 2))).unwrap(),
        b"content"
    );
}

#[test]
fn nothing_is_placed_after_syncing_was_switched_off() {
    let site = Site::new();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    receive(&mut group, key(1, 2), b"content");
    let mut blob = group.stage(key(1, 3), stat_of(b"content"), 0).unwrap();
    blob.write(b"con").unwrap();
    site.switch_off();
    assert!(matches!(blob.write(b"tent"), Err(Error::Off(_))));
    assert!(matches!(group.place(), Err(Error::Off(_))));
    assert!(matches!(
        group.stage(key(5, 6), stat_of(b""), 0),
        Err(Error::Off(_))
    ));
    drop(blob);
    drop(group);
    assert_eq!(site.names(""), [".fssync", ".layout"]);
    assert!(site.names(".fssync/tmp").is_empty());
}

#[test]
fn hostile_states_of_the_master_do_no_harm() {
    let site = Site::new();
    let directory = site.set_up();
    for (n, modified) in [(i64::MAX, u32::MAX), (i64::MIN, 0), (0, (1 << 30) - 1)]
        .into_iter()
        .enumerate()
    {
        let mut group = BlobGroup::new(&directory, &site.slave);
        let stat = BlobStat {
            size: 1,
            modified,
            mode: u32::MAX,
        };
        let mut blob = group.stage(key(1, n as u64), stat, 0).unwrap();
        blob.write(b"x").unwrap();
        group.finish(blob).unwrap();
        group.place().unwrap();
        let found = fs::metadata(directory.blob_path(key(1, n as u64))).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o444);
    }
    let mut group = BlobGroup::new(&directory, &site.slave);
    let stat = BlobStat {
        size: u64::MAX,
        ..stat_of(b"")
    };
    let blob = group.stage(key(7, 7), stat, 0).unwrap();
    assert!(group.finish(blob).is_err());
}

#[test]
fn more_blobs_than_open_files_are_placed() {
    let site = Site::new();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    group.max_open = 3;
    let count = 10;
    for oid in 0..count {
        receive(&mut group, key(oid, 1), &oid.to_be_bytes());
    }
    assert_eq!(group.synced, 9);
    assert_eq!(group.place().unwrap().len() as u64, count);
    for oid in 0..count {
        let found = fs::read(directory.blob_path(key(oid, 1))).unwrap();
        assert_eq!(found, oid.to_be_bytes());
    }
}

/// Waits until a blob is in place.
fn wait_for(directory: &BlobDirectory, key: BlobKey) {
    let started = Instant::now();
    while directory.stat(key).unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "{key:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn batches_are_placed_while_others_are_received() {
    let site = Site::new();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    group.max_open = 8;
    let count = 11;
    group
        .place_meanwhile(count, |group| {
            for oid in 0..count as u64 {
                receive(group, key(oid, 1), &oid.to_be_bytes());
            }
            // Two batches of four are complete. The last three blobs wait for `place`.
            wait_for(&directory, key(7, 1));
            assert!(directory.stat(key(8, 1)).unwrap().is_none());
            Ok(())
        })
        .unwrap();
    assert_eq!(group.len(), count);
    let records = group.place().unwrap();
    let keys: Vec<BlobKey> = records.iter().map(|record| record.key).collect();
    let expected: Vec<BlobKey> = (0..count as u64).map(|oid| key(oid, 1)).collect();
    assert_eq!(keys, expected);
    for key in keys {
        let found = fs::read(directory.blob_path(key)).unwrap();
        assert_eq!(found, key.oid.to_be_bytes());
    }
    assert!(group.is_empty());
    assert!(site.names(".fssync/tmp").is_empty());
}

#[test]
fn the_error_of_a_batch_ends_the_reception() {
    let site = Site::new();
    let directory = site.set_up();
    let mut group = BlobGroup::new(&directory, &site.slave);
    group.max_open = 4;
    let stat = stat_of(b"");
    let mut started = Vec::new();
    // Their switches are read now, so that only the thread finds syncing off.
    for oid in 0..100 {
        started.push(group.stage(key(oid, 1), stat, 0).unwrap());
    }
    site.switch_off();
    let count = started.len();
    let mut finished = 0;
    let result = group.place_meanwhile(count, |group| {
        for blob in started {
            group.finish(blob)?;
            finished += 1;
        }
        Ok(())
    });
    assert!(matches!(result, Err(Error::Off(_))), "{result:?}");
    assert!(finished < count);
    drop(group);
    assert_eq!(site.names(""), [".fssync", ".layout"]);
    assert!(site.names(".fssync/tmp").is_empty());
}

#[test]
fn a_reception_that_fails_leaves_complete_batches_in_place() {
    let site = Site::new();
    let directory = site.set_up();
    let content = b"content";
    for panics in [false, true] {
        let mut group = BlobGroup::new(&directory, &site.slave);
        group.max_open = 8;
        let place = || {
            group.place_meanwhile(100, |group| {
                for oid in 0..5 {
                    receive(group, key(oid, u64::from(panics)), content);
                }
                assert!(!panics, "the thread ends nevertheless");
                Err(Error::Interrupted)
            })
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(place)) {
            Ok(result) => assert!(matches!(result, Err(Error::Interrupted))),
            Err(_) => assert!(panics),
        }
        drop(group);
        for oid in 0..5 {
            let found = directory.stat(key(oid, u64::from(panics))).unwrap();
            assert_eq!(found.is_some(), oid < 4, "{oid}");
        }
        assert!(site.names(".fssync/tmp").is_empty());
    }
}

/// A small file system, until it is dropped.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(options: &str, at: &Path) -> Self {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .status();
        assert!(
            mounted.unwrap().success(),
            "this test must run as root: it mounts"
        );
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_reported_and_the_next_pass_continues() {
    // No room for the bytes, then no room for another directory.
    for (options, content) in [("size=64k", 200_000), ("size=4m,nr_inodes=10", 10)] {
        let site = Site::new();
        let disk = Tmpfs::mount(options, &site.blobs);
        let directory = site.set_up();
        let mut group = BlobGroup::new(&directory, &site.slave);
        let content = vec![7; content];
        let mut blob = group.stage(key(1, 2), stat_of(&content), 0).unwrap();
        let result = blob.write(&content).and_then(|()| {
            group.finish(blob)?;
            group.place()
        });
        let error = result.unwrap_err();
        let is_full = |source: &std::io::Error| source.kind() == ErrorKind::StorageFull;
        assert!(
            matches!(&error, Error::Io { source, .. } if is_full(source)),
            "{error:?}"
        );
        assert!(error.to_string().contains("blobs/"), "{error}");
        drop(group);
        directory.clean_tmp(&site.slave, Leftovers::Small).unwrap();
        assert!(site.names(".fssync/tmp").is_empty());
        assert!(directory.stat(key(1, 2)).unwrap().is_none());
        // With more room, the next pass continues.
        let bigger = ["-o", "remount,size=8m,nr_inodes=1000"];
        let mut remount = Command::new("mount");
        assert!(
            remount
                .args(bigger)
                .arg(&disk.0)
                .status()
                .unwrap()
                .success()
        );
        place_one(&directory, &site.slave, key(1, 2), &content);
        assert_eq!(fs::read(directory.blob_path(key(1, 2))).unwrap(), content);
    }
}
