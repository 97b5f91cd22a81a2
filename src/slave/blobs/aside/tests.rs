use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};

use super::*;
use crate::slave::blobs::test_support::{Site, key};

const ASIDE: &str = ".fssync/aside-00000000000000ff";

/// Creates blobs as ZODB does.
fn create(directory: &BlobDirectory, keys: impl IntoIterator<Item = BlobKey>) {
    for key in keys {
        let path = directory.blob_path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, key.oid.to_be_bytes()).unwrap();
    }
}

fn set_aside(
    site: &Site,
    directory: &BlobDirectory,
    keys: impl IntoIterator<Item = BlobKey>,
) -> Result<BlobsAside, Error> {
    let mut aside = AsideLinker::begin(directory, &site.slave, BlobsOf::Slave(Some(Tid(0xff))))?;
    for key in keys {
        aside.add(key)?;
    }
    aside.finish()
}

fn result(site: &Site, files: u64, missing: u64) -> BlobsAside {
    BlobsAside {
        path: site.blobs.join(ASIDE),
        files,
        missing,
    }
}

#[test]
fn the_links_are_a_blob_directory_of_their_own() {
    for layout in ["bushy", "lawn"] {
        let site = Site::new();
        fs::create_dir(&site.blobs).unwrap();
        chown(&site.blobs, Some(1234), Some(2345)).unwrap();
        fs::write(site.blobs.join(".layout"), layout).unwrap();
        let directory = site.set_up();
        let keys = (0..GROUP_LEN as u64 + 3).map(|oid| key(oid, 7));
        create(&directory, keys.clone());
        // The last one is absent at the master, too.
        let wanted = keys.clone().chain([key(1 << 40, 7)]);
        let found = set_aside(&site, &directory, wanted).unwrap();
        assert_eq!(found, result(&site, GROUP_LEN as u64 + 3, 1));
        assert_eq!(
            fs::read_to_string(found.path.join(".layout")).unwrap(),
            layout
        );
        for key in keys {
            let path = found.path.join(directory.layout().path(key));
            let linked = fs::metadata(&path).unwrap();
            let original = fs::metadata(directory.blob_path(key)).unwrap();
            assert_eq!(linked.ino(), original.ino());
            assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().uid(), 1234);
        }
        let aside = fs::metadata(&found.path).unwrap();
        assert_eq!((aside.uid(), aside.gid()), (1234, 2345));
        let missing = directory.layout().directory(1 << 40);
        assert!(!found.path.join(missing).exists());
    }
}

#[test]
fn a_set_aside_that_was_killed_is_continued() {
    let site = Site::new();
    let directory = site.set_up();
    let keys = [key(1, 1), key(1, 2), key(2, 2)];
    create(&directory, keys);
    let mut killed =
        AsideLinker::begin(&directory, &site.slave, BlobsOf::Slave(Some(Tid(0xff)))).unwrap();
    killed.add(keys[0]).unwrap();
    killed.link_group().unwrap();
    killed.add(keys[1]).unwrap();
    drop(killed);
    let found = set_aside(&site, &directory, keys).unwrap();
    assert_eq!(found, result(&site, 3, 0));
    let again = set_aside(&site, &directory, keys).unwrap();
    assert_eq!(again, result(&site, 3, 0));
    // Without a blob there is a directory with a layout.
    let mut empty = AsideLinker::begin(&directory, &site.slave, BlobsOf::Slave(None)).unwrap();
    empty.link_group().unwrap();
    let path = site.blobs.join(".fssync/aside-0000000000000000");
    assert_eq!(empty.finish().unwrap().path, path);
    assert!(path.join(".layout").exists());
}

#[test]
fn a_file_that_was_set_aside_is_not_replaced() {
    let site = Site::new();
    let directory = site.set_up();
    create(&directory, [key(1, 1)]);
    set_aside(&site, &directory, [key(1, 1)]).unwrap();
    fs::remove_file(directory.blob_path(key(1, 1))).unwrap();
    create(&directory, [key(1, 1)]);
    let error = set_aside(&site, &directory, [key(1, 1)]).unwrap_err();
    assert!(
        error.display_chain().contains("move that directory away"),
        "{error}"
    );
}

#[test]
fn links_are_not_redirected() {
    let site = Site::new();
    let directory = site.set_up();
    create(&directory, [key(1, 1)]);
    let outside = site.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, site.blobs.join(ASIDE)).unwrap();
    set_aside(&site, &directory, [key(1, 1)]).unwrap_err();
    fs::remove_file(site.blobs.join(ASIDE)).unwrap();
    set_aside(&site, &directory, []).unwrap();
    symlink(&outside, site.blobs.join(ASIDE).join("0x00")).unwrap();
    set_aside(&site, &directory, [key(1, 1)]).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn nothing_is_linked_after_syncing_was_switched_off() {
    let site = Site::new();
    let directory = site.set_up();
    create(&directory, [key(1, 1)]);
    let mut aside = AsideLinker::begin(&directory, &site.slave, BlobsOf::Slave(None)).unwrap();
    aside.add(key(1, 1)).unwrap();
    site.switch_off();
    let before = site.listing();
    assert!(matches!(aside.finish(), Err(Error::Off(_))));
    assert!(matches!(
        set_aside(&site, &directory, []),
        Err(Error::Off(_))
    ));
    assert_eq!(site.listing(), before);
}
