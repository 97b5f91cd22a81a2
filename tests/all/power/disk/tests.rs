//! Which data the model keeps and loses.

use super::*;

const META: Meta = Meta {
    mode: 0o600,
    uid: 0,
    gid: 0,
    modified: 0,
};

const SYNC_ROOT: Op = Op::SyncDirectory { node: ROOT };

/// The place of a path whose directory exists.
fn place(disk: &Disk, path: &str) -> Place {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = match directory {
        "" => ROOT,
        _ => disk.named(directory).expect("a directory"),
    };
    let name = name.to_owned();
    Place { directory, name }
}

fn create_as(disk: &mut Disk, path: &str, kind: Kind) -> Node {
    let (node, inode) = disk.next_numbers(|_| false);
    disk.apply(&Op::Create {
        place: place(disk, path),
        node,
        inode,
        meta: META,
        kind,
    });
    node
}

fn create(disk: &mut Disk, path: &str) -> Node {
    create_as(disk, path, Kind::File)
}

fn write(disk: &mut Disk, node: Node, offset: usize, bytes: &[u8]) {
    disk.apply(&Op::Write {
        node,
        offset,
        bytes: bytes.to_vec(),
    });
}

fn rename(disk: &mut Disk, from: &str, to: &str) {
    disk.apply(&Op::Rename {
        from: place(disk, from),
        to: place(disk, to),
    });
}

/// A disk with a durable file "a" of these bytes.
fn with_a(bytes: &[u8]) -> (Disk, Node) {
    let mut disk = Disk::default();
    let node = create(&mut disk, "a");
    write(&mut disk, node, 0, bytes);
    disk.apply(&Op::Sync {
        node,
        metadata: false,
    });
    disk.apply(&SYNC_ROOT);
    (disk, node)
}

/// The contents that random power cuts leave under a name.
fn outcomes(disk: &Disk, name: &str, names: Names, bytes: Bytes) -> BTreeSet<Option<Vec<u8>>> {
    let mut rng = Rng::new(1);
    (0..500)
        .map(|_| {
            disk.cut(names, bytes, &mut rng)
                .read(name)
                .map(<[u8]>::to_vec)
        })
        .collect()
}

fn set<T: Ord, const N: usize>(items: [T; N]) -> BTreeSet<T> {
    items.into_iter().collect()
}

#[test]
fn synced_data_is_kept_and_other_data_may_be_lost() {
    let (mut disk, node) = with_a(b"old");
    let any = outcomes(&disk, "a", Names::Any, Bytes::Any);
    assert_eq!(any, set([Some(b"old".to_vec())]));
    write(&mut disk, node, 0, b"new");
    write(&mut disk, node, 3, b"er");
    let any = outcomes(&disk, "a", Names::Any, Bytes::Any);
    let may_be = ["old", "new", "newer", "old\0\0", "new\0\0"];
    assert_eq!(any, may_be.map(|it| Some(it.as_bytes().to_vec())).into());
}

#[test]
fn sectors_and_the_size_are_kept_or_lost_independently() {
    let (mut disk, node) = with_a(&[1; SECTOR_LEN]);
    write(&mut disk, node, 0, &[2; 3 * SECTOR_LEN]);
    let torn = outcomes(&disk, "a", Names::Lost, Bytes::Torn(SECTOR_LEN));
    let sectors = |parts: &[u8]| Some(parts.iter().flat_map(|&part| [part; SECTOR_LEN]).collect());
    let expected: BTreeSet<Option<Vec<u8>>> = set([
        sectors(&[1]),
        sectors(&[2]),
        sectors(&[1, 0, 0]),
        sectors(&[1, 0, 2]),
        sectors(&[1, 2, 0]),
        sectors(&[1, 2, 2]),
        sectors(&[2, 0, 0]),
        sectors(&[2, 0, 2]),
        sectors(&[2, 2, 0]),
        sectors(&[2, 2, 2]),
    ]);
    assert_eq!(torn, expected);
    let pages = outcomes(&disk, "a", Names::Lost, Bytes::Torn(PAGE_LEN));
    let expected = set([
        sectors(&[1]),
        sectors(&[2]),
        sectors(&[1, 0, 0]),
        sectors(&[2, 2, 2]),
    ]);
    assert_eq!(pages, expected);
}

#[test]
fn a_truncation_may_be_lost() {
    let (mut disk, node) = with_a(b"long");
    disk.apply(&Op::SetLen { node, len: 1 });
    let any = outcomes(&disk, "a", Names::Any, Bytes::InOrder);
    assert_eq!(any, set([Some(b"long".to_vec()), Some(b"l".to_vec())]));
}

#[test]
fn a_name_becomes_durable_with_the_directory_and_not_with_the_file() {
    let (mut disk, _) = with_a(b"old");
    let node = create(&mut disk, "b");
    write(&mut disk, node, 0, b"new");
    disk.apply(&Op::Sync {
        node,
        metadata: true,
    });
    rename(&mut disk, "b", "a");
    let of_a = outcomes(&disk, "a", Names::Any, Bytes::Any);
    assert_eq!(of_a, set([Some(b"old".to_vec()), Some(b"new".to_vec())]));
    let of_b = outcomes(&disk, "b", Names::Any, Bytes::Any);
    assert_eq!(of_b, set([None, Some(b"new".to_vec())]));
    disk.apply(&SYNC_ROOT);
    let of_a = outcomes(&disk, "a", Names::Any, Bytes::Any);
    assert_eq!(of_a, set([Some(b"new".to_vec())]));
}

#[test]
fn a_journal_keeps_the_first_changes_of_names() {
    let (mut disk, _) = with_a(b"a");
    for name in ["b", "c"] {
        create(&mut disk, name);
    }
    let count = |names| {
        let mut rng = Rng::new(1);
        let cuts = (0..100).map(|_| disk.cut(names, Bytes::Kept, &mut rng));
        cuts.map(|cut| {
            let paths = cut.tree().paths().into_iter();
            paths.map(|(path, _)| path).collect::<String>()
        })
        .collect::<BTreeSet<_>>()
    };
    let owned = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
    assert_eq!(count(Names::Journal), owned(&["a", "ab", "abc"]));
    assert_eq!(count(Names::Any), owned(&["a", "ab", "ac", "abc"]));
}

#[test]
fn only_fsync_makes_owner_and_mode_durable() {
    let (mut disk, node) = with_a(b"a");
    disk.apply(&Op::SetMeta {
        node,
        meta: Meta {
            mode: 0o644,
            ..META
        },
    });
    let modes = |disk: &Disk| {
        let mut rng = Rng::new(1);
        let cuts = (0..100).map(|_| disk.cut(Names::Any, Bytes::Any, &mut rng));
        cuts.map(|cut| cut.file(node).unwrap().meta().mode)
            .collect::<BTreeSet<_>>()
    };
    let sync = |metadata| Op::Sync { node, metadata };
    disk.apply(&sync(false));
    assert_eq!(modes(&disk), set([0o600, 0o644]));
    disk.apply(&sync(true));
    assert_eq!(modes(&disk), set([0o644]));
}

#[test]
fn the_number_of_an_inode_is_used_again_once_its_file_is_durably_removed() {
    let (mut disk, node) = with_a(b"a");
    let inode = disk.file(node).unwrap().inode;
    disk.apply(&Op::Unlink {
        place: place(&disk, "a"),
    });
    assert_ne!(disk.next_numbers(|_| false).1, inode);
    disk.apply(&SYNC_ROOT);
    assert_ne!(disk.next_numbers(|open| open == node).1, inode);
    assert_eq!(disk.next_numbers(|_| false).1, inode);
}

#[test]
fn pages_of_a_failed_sync_are_not_written_by_the_next_one() {
    let (mut disk, node) = with_a(&[1; 2 * PAGE_LEN]);
    write(&mut disk, node, 0, b"lost");
    disk.apply(&Op::FailedSync { node });
    write(&mut disk, node, PAGE_LEN, b"kept");
    disk.apply(&Op::Sync {
        node,
        metadata: false,
    });
    assert_eq!(&disk.read("a").unwrap()[..4], b"lost");
    let cut = disk.cut(Names::Lost, Bytes::Lost, &mut Rng::new(1));
    assert_eq!(&cut.read("a").unwrap()[..4], [1; 4]);
    assert_eq!(&cut.read("a").unwrap()[PAGE_LEN..][..4], b"kept");
    write(&mut disk, node, 1, b"OST");
    disk.apply(&Op::Sync {
        node,
        metadata: false,
    });
    let cut = disk.cut(Names::Lost, Bytes::Lost, &mut Rng::new(1));
    assert_eq!(&cut.read("a").unwrap()[..4], b"lOST");
}

#[test]
fn a_name_is_lost_with_each_directory_above_it_that_is_not_durable() {
    let (mut disk, _) = with_a(b"a");
    let outer = create_as(&mut disk, "d", Kind::Directory);
    let inner = create_as(&mut disk, "d/e", Kind::Directory);
    let node = create(&mut disk, "d/e/f");
    write(&mut disk, node, 0, b"f");
    disk.apply(&Op::Sync {
        node,
        metadata: true,
    });
    let sync = |node| Op::SyncDirectory { node };
    let left = |disk: &Disk| outcomes(disk, "d/e/f", Names::Any, Bytes::Any);
    let both = set([None, Some(b"f".to_vec())]);
    for node in [inner, outer] {
        disk.apply(&sync(node));
        assert_eq!(left(&disk), both);
    }
    disk.apply(&SYNC_ROOT);
    assert_eq!(left(&disk), set([Some(b"f".to_vec())]));
}

#[test]
fn a_rename_to_another_directory_is_durable_once_that_one_is_synced() {
    let (mut disk, a) = with_a(b"a");
    let other = create_as(&mut disk, "d", Kind::Directory);
    disk.apply(&SYNC_ROOT);
    rename(&mut disk, "a", "d/a");
    disk.apply(&SYNC_ROOT);
    let places = |disk: &Disk| -> BTreeSet<Vec<String>> {
        let mut rng = Rng::new(1);
        let cuts = (0..100).map(|_| disk.cut(Names::Any, Bytes::Any, &mut rng));
        cuts.map(|cut| {
            let paths = cut.tree().paths().into_iter();
            paths.filter(|it| it.1 == a).map(|(path, _)| path).collect()
        })
        .collect()
    };
    assert_eq!(
        places(&disk),
        set([vec!["a".to_owned()], vec!["d/a".to_owned()]])
    );
    // The old name is used again, and that is durable before the rename is.
    create(&mut disk, "a");
    disk.apply(&SYNC_ROOT);
    let of_a = outcomes(&disk, "a", Names::Any, Bytes::Any);
    assert_eq!(of_a, set([Some(Vec::new())]));
    disk.apply(&Op::SyncDirectory { node: other });
    assert_eq!(places(&disk), set([vec!["d/a".to_owned()]]));
}

#[test]
fn a_durable_rename_makes_the_creation_of_its_file_durable() {
    let (mut disk, _) = with_a(b"a");
    let other = create_as(&mut disk, "d", Kind::Directory);
    disk.apply(&SYNC_ROOT);
    create(&mut disk, "new");
    rename(&mut disk, "new", "d/new");
    disk.apply(&Op::SyncDirectory { node: other });
    for names in [Names::Lost, Names::Kept, Names::Any] {
        let old = outcomes(&disk, "new", names, Bytes::Kept);
        assert_eq!(old, set([None]), "{names:?}");
        let new = outcomes(&disk, "d/new", names, Bytes::Kept);
        assert_eq!(new, set([Some(Vec::new())]), "{names:?}");
    }
}
