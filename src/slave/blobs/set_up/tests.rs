use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use super::*;
use crate::filestorage::Tid;
use crate::filestorage::blob::BlobKey;
use crate::plan::outcome::Exit;
use crate::slave::blobs::test_support::Site;

#[test]
fn a_new_directory_has_the_layout_of_zodb_and_an_id() {
    let site = Site::new();
    chown(site.slave.paths.directory(), Some(1234), Some(2345)).unwrap();
    fs::set_permissions(site.slave.paths.directory(), Permissions::from_mode(0o750)).unwrap();
    let made = BlobDirectory::set_up(&site.slave, &site.blobs, None).unwrap();
    assert_eq!(made.layout(), Layout::Bushy);
    assert_eq!(fs::read(site.blobs.join(".layout")).unwrap(), b"bushy");
    let stat = |name: &str| fs::metadata(site.blobs.join(name)).unwrap();
    for (name, mode) in [
        ("", 0o750),
        (".layout", 0o640),
        (".fssync", 0o700),
        (".fssync/tmp", 0o700),
        (".fssync/id", 0o600),
    ] {
        let found = stat(name);
        assert_eq!(found.mode() & 0o7777, mode, "{name}");
        assert_eq!((found.uid(), found.gid()), (1234, 2345), "{name}");
    }
    assert_eq!(made.id().len(), ID_LEN);
    let id = BlobDirectory::id_at(&site.blobs).unwrap();
    assert_eq!(id.as_deref(), Some(made.id()));
    BlobDirectory::open(&site.blobs, made.id()).unwrap();
    // The same directory again.
    let again = BlobDirectory::set_up(&site.slave, &site.blobs, Some(made.id())).unwrap();
    assert_eq!(again.id(), made.id());
    let other = Site::new();
    let made_there = BlobDirectory::set_up(&other.slave, &other.blobs, None).unwrap();
    assert_ne!(made_there.id(), made.id());
}

#[test]
fn a_directory_whose_parent_is_missing_is_not_created() {
    let site = Site::new();
    let path = site.blobs.join("missing/blobs");
    let error = BlobDirectory::set_up(&site.slave, &path, None).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
    assert!(!site.blobs.join("missing").exists());
}

#[test]
fn a_directory_that_was_seeded_is_adopted() {
    let site = Site::new();
    fs::create_dir_all(site.blobs.join("0x1234")).unwrap();
    fs::write(site.blobs.join(".layout"), "lawn\n").unwrap();
    fs::write(site.blobs.join("0x1234/0x07.blob"), "blob").unwrap();
    let made = BlobDirectory::set_up(&site.slave, &site.blobs, None).unwrap();
    assert_eq!(made.layout(), Layout::Lawn);
    assert_eq!(fs::read(site.blobs.join(".layout")).unwrap(), b"lawn\n");
    let key = BlobKey {
        oid: 0x1234,
        tid: Tid(7),
    };
    assert_eq!(made.stat(key).unwrap().unwrap().size, 4);
}

#[test]
fn each_state_that_a_crash_leaves_is_continued() {
    let states: [fn(&Site); 6] = [
        |site| fs::create_dir(site.blobs.with_file_name("blobs.fssync-new")).unwrap(),
        |site| fs::create_dir(&site.blobs).unwrap(),
        |site| {
            fs::create_dir(&site.blobs).unwrap();
            fs::write(site.blobs.join(NEW_FILE), "bus").unwrap();
        },
        |site| {
            fs::create_dir(&site.blobs).unwrap();
            fs::write(site.blobs.join(".layout"), "bushy").unwrap();
        },
        |site| {
            fs::create_dir_all(site.blobs.join(FSSYNC_DIRECTORY)).unwrap();
            fs::write(site.blobs.join(".layout"), "bushy").unwrap();
        },
        |site| {
            fs::create_dir_all(site.blobs.join(TMP)).unwrap();
            fs::write(site.blobs.join(".layout"), "bushy").unwrap();
            fs::write(site.blobs.join(FSSYNC_DIRECTORY).join(NEW_FILE), "01").unwrap();
        },
    ];
    for leave in states {
        let site = Site::new();
        leave(&site);
        let made = BlobDirectory::set_up(&site.slave, &site.blobs, None).unwrap();
        BlobDirectory::open(&site.blobs, made.id()).unwrap();
        assert_eq!(fs::read(site.blobs.join(".layout")).unwrap(), b"bushy");
        assert!(site.blobs.join(TMP).is_dir());
        let mut names: Vec<_> = fs::read_dir(&site.blobs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".fssync", ".layout"]);
        assert!(!site.blobs.with_file_name("blobs.fssync-new").exists());
    }
}

/// Creates a directory, and a part of the message that refuses it.
type Case = (fn(&Site), &'static str);

#[test]
fn other_directories_are_refused_before_anything_is_written() {
    let cases: [Case; 7] = [
        (
            |site| {
                fs::create_dir(&site.blobs).unwrap();
                fs::write(site.blobs.join(".layout"), "zeocache").unwrap();
            },
            "cache of a ZEO client",
        ),
        (
            |site| {
                fs::create_dir(&site.blobs).unwrap();
                fs::write(site.blobs.join(".layout"), "").unwrap();
            },
            "unknown layout \"\"",
        ),
        (
            |site| {
                fs::create_dir_all(site.blobs.join("tmp")).unwrap();
                fs::write(site.blobs.join(".hidden"), "").unwrap();
            },
            "contains tmp but no .layout",
        ),
        (
            |site| fs::write(&site.blobs, "").unwrap(),
            "is not a directory",
        ),
        (
            |site| symlink("missing", &site.blobs).unwrap(),
            "is a symbolic link",
        ),
        (
            |site| {
                fs::create_dir(&site.blobs).unwrap();
                fs::write(site.blobs.with_file_name("layout"), "bushy").unwrap();
                symlink("../layout", site.blobs.join(".layout")).unwrap();
            },
            "symbolic link",
        ),
        (
            |site| {
                fs::create_dir_all(site.blobs.with_file_name("other")).unwrap();
                fs::create_dir(&site.blobs).unwrap();
                fs::write(site.blobs.join(".layout"), "bushy").unwrap();
                symlink("../other", site.blobs.join(FSSYNC_DIRECTORY)).unwrap();
            },
            "symbolic link",
        ),
    ];
    for (n, (create, message)) in cases.into_iter().enumerate() {
        let site = Site::new();
        create(&site);
        let before = site.listing();
        let error = BlobDirectory::set_up(&site.slave, &site.blobs, None).unwrap_err();
        let text = error.display_chain();
        assert!(text.contains(message), "{text}");
        assert!(text.contains("blobs"), "{text}");
        let is_link = message == "symbolic link";
        let exit = if is_link { Exit::Failure } else { Exit::Usage };
        assert_eq!(error.exit(), exit, "{text}");
        assert_eq!(site.listing(), before, "case {n}");
    }
    let site = Site::new();
    let path = site.blobs.join("deeper");
    let error = BlobDirectory::set_up(&site.slave, &path, None).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
    assert!(!site.blobs.exists());
}

#[test]
fn another_directory_than_the_known_one_is_refused() {
    let site = Site::new();
    let id = "0123456789abcdef0123456789abcdef";
    let open = || BlobDirectory::open(&site.blobs, id).unwrap_err();
    let set_up = || BlobDirectory::set_up(&site.slave, &site.blobs, Some(id)).unwrap_err();
    let assert_moved = || {
        for error in [open(), set_up()] {
            assert!(matches!(error, Error::BlobsMoved { .. }), "{error}");
            assert_eq!(error.exit(), Exit::Failure);
            assert!(error.hint().unwrap().contains("mounted"));
        }
    };
    // The file system is not mounted: nothing, or an empty mount point.
    assert_moved();
    assert!(!site.blobs.exists());
    fs::create_dir(&site.blobs).unwrap();
    assert_moved();
    assert_eq!(fs::read_dir(&site.blobs).unwrap().count(), 0);
    // Somebody else's directory.
    BlobDirectory::set_up(&site.slave, &site.blobs, None).unwrap();
    assert_moved();
    fs::write(site.blobs.join(ID_FILE), id).unwrap();
    BlobDirectory::open(&site.blobs, id).unwrap();
    fs::remove_file(site.blobs.join(".layout")).unwrap();
    assert!(matches!(open(), Error::BlobsMoved { .. }));
}

#[test]
fn nothing_is_created_while_syncing_is_off() {
    let site = Site::new();
    site.switch_off();
    let set_up = || BlobDirectory::set_up(&site.slave, &site.blobs, None).unwrap_err();
    assert!(matches!(set_up(), Error::Off(_)));
    assert!(!site.blobs.exists());
    fs::create_dir(&site.blobs).unwrap();
    let before = site.listing();
    assert!(matches!(set_up(), Error::Off(_)));
    assert_eq!(site.listing(), before);
}

#[test]
fn a_directory_that_zodb_is_setting_up_is_in_use() {
    let states: [fn(&Site); 2] = [
        |site| fs::create_dir_all(site.blobs.join("tmp")).unwrap(),
        |site| {
            fs::create_dir_all(site.blobs.join("tmp")).unwrap();
            fs::write(site.blobs.join(".layout"), "").unwrap();
        },
    ];
    for make in states {
        let site = Site::new();
        make(&site);
        let set_up = || {
            BlobDirectory::check_set_up(&site.slave, &site.blobs, None)?;
            BlobDirectory::set_up(&site.slave, &site.blobs, None)
        };
        let lock = File::create(site.slave.paths.sibling(Sibling::ZodbLock)).unwrap();
        lock.lock().unwrap();
        let error = set_up().unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        lock.unlock().unwrap();
        assert_eq!(set_up().unwrap_err().exit(), Exit::Usage);
        fs::write(site.blobs.join(".layout"), "bushy").unwrap();
        set_up().unwrap();
    }
}
