//! Which blob directory a source finds, and why it refuses others.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fssync::filestorage::blob::{LAYOUT_FILE, Layout};
use fssync::source::Error;
use fssync::source::blobs::{BlobEventKind, BlobsProblem};

use super::{Site, answers, key, make_blob_directory, want};
use crate::remote;
use crate::support::{Scene, project};

/// The blob directory that each transport finds, or the problem.
fn found(scene: &Scene, given: Option<&Path>) -> [Result<String, BlobsProblem>; 2] {
    remote::sources(scene).map(|mut source| {
        source.stat(&[]).expect("the master");
        let given = given.map(|it| it.to_str().expect("UTF-8"));
        match source.blob_root(given) {
            Ok(root) => Ok(root.directory),
            Err(error @ Error::Blobs { .. }) => {
                assert!(error.hint().is_some() && !error.is_transient());
                let Error::Blobs { problem, .. } = error else {
                    unreachable!()
                };
                Err(problem)
            }
            Err(error) => panic!("{error:?}"),
        }
    })
}

#[track_caller]
fn assert_found(scene: &Scene, given: Option<&Path>, expected: Result<&Path, &BlobsProblem>) {
    let text = expected.map(|path| path.display().to_string());
    for found in found(scene, given) {
        assert_eq!(
            found.as_ref().map(String::as_str),
            text.as_deref().map_err(|it| *it)
        );
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A site of Plone: `var/filestorage/Data.fs`. Returns `var` too.
fn plone() -> (Scene, PathBuf) {
    let mut scene = Scene::new();
    let var = scene.directory.path().join("master/var");
    fs::create_dir_all(var.join("filestorage")).expect("directories");
    scene.master = var.join("filestorage/Data.fs");
    fs::copy(project("fixtures/one.fs"), &scene.master).expect("a master");
    (scene, var)
}

#[test]
fn the_usual_directories_are_found() {
    for name in ["blobstorage", "blobs"] {
        let scene = Scene::with_master("one");
        let beside = scene.master.with_file_name(name);
        make_blob_directory(&beside, "lawn");
        assert_found(&scene, None, Ok(&beside));
    }
    let (mut scene, var) = plone();
    make_blob_directory(&var.join("blobstorage"), "bushy\n");
    // Not a usual place, as Data.fs is in `filestorage`.
    make_blob_directory(&var.join("filestorage/blobs"), "bushy");
    assert_found(&scene, None, Ok(&var.join("blobstorage")));
    // The master may be given as its directory, or through a link.
    scene.master = var.join("filestorage");
    assert_found(&scene, None, Ok(&var.join("blobstorage")));
    scene.master = var.join("link.fs");
    symlink("filestorage/Data.fs", &scene.master).expect("a link");
    assert_found(&scene, None, Ok(&var.join("blobstorage")));
}

#[test]
fn the_directories_of_a_link_and_of_its_target_both_count() {
    let (scene, var) = plone();
    let disk = scene.directory.path().join("disk");
    fs::create_dir(&disk).expect("a directory");
    fs::rename(&scene.master, disk.join("Data.fs")).expect("the file on another disk");
    // The server follows only relative links.
    symlink("../../../disk/Data.fs", &scene.master).expect("a link");
    make_blob_directory(&disk.join("blobs"), "bushy");
    assert_found(&scene, None, Ok(&disk.join("blobs")));
    make_blob_directory(&var.join("blobstorage"), "bushy");
    let both = [var.join("blobstorage"), disk.join("blobs")];
    let ambiguous = BlobsProblem::Ambiguous {
        found: both.iter().map(|path| text(path)).collect(),
    };
    assert_found(&scene, None, Err(&ambiguous));
    // Two names of one directory are not two directories.
    fs::remove_dir_all(disk.join("blobs")).expect("the directory");
    symlink("../master/var/blobstorage", disk.join("blobs")).expect("a link");
    assert_found(&scene, None, Ok(&var.join("blobstorage")));
}

#[test]
fn only_a_directory_with_a_layout_of_a_server_counts() {
    let scene = Scene::with_master("one");
    let usual = ["blobstorage", "blobs"].map(|name| scene.master.with_file_name(name));
    let not_found = BlobsProblem::NotFound {
        tried: usual.iter().map(|path| text(path)).collect(),
    };
    assert_found(&scene, None, Err(&not_found));
    fs::create_dir(&usual[0]).expect("a directory");
    fs::create_dir(usual[0].join("tmp")).expect("a directory that ZODB takes for a lawn");
    fs::write(&usual[1], b"").expect("a file");
    assert_found(&scene, None, Err(&not_found));
    fs::remove_file(&usual[1]).expect("the file");
    // A cache of a ZEO client is refused, unless there is another one.
    make_blob_directory(&usual[0], "zeocache\n");
    let unknown = BlobsProblem::UnknownLayout {
        directory: text(&usual[0]),
        layout: "zeocache".to_owned(),
    };
    assert_found(&scene, None, Err(&unknown));
    assert_found(&scene, Some(&usual[0]), Err(&unknown));
    make_blob_directory(&usual[1], "lawn");
    assert_found(&scene, None, Ok(&usual[1]));
    make_blob_directory(&usual[0], "bushy");
    let ambiguous = BlobsProblem::Ambiguous {
        found: usual.iter().map(|path| text(path)).collect(),
    };
    assert_found(&scene, None, Err(&ambiguous));
    assert_found(&scene, Some(&usual[1]), Ok(&usual[1]));
}

#[test]
fn a_given_directory_must_be_a_blob_directory() {
    let scene = Scene::with_master("one");
    let given = scene.directory.path().join("elsewhere");
    let directory = text(&given);
    let missing = BlobsProblem::Missing {
        directory: directory.clone(),
    };
    assert_found(&scene, Some(&given), Err(&missing));
    fs::create_dir(&given).expect("a directory");
    let no_layout = BlobsProblem::NoLayout {
        directory: directory.clone(),
    };
    assert_found(&scene, Some(&given), Err(&no_layout));
    fs::create_dir(given.join(LAYOUT_FILE)).expect("a directory in place of the file");
    assert_found(&scene, Some(&given), Err(&no_layout));
    fs::remove_dir(given.join(LAYOUT_FILE)).expect("the directory");
    for (layout, shown) in [("", ""), ("é \u{1b}[31m", "é \u{1b}[31m")] {
        make_blob_directory(&given, layout);
        let unknown = BlobsProblem::UnknownLayout {
            directory: directory.clone(),
            layout: shown.to_owned(),
        };
        assert_found(&scene, Some(&given), Err(&unknown));
        assert!(!unknown.to_string().contains('\u{1b}'), "{unknown}");
    }
    fs::write(given.join(LAYOUT_FILE), vec![b'x'; 1 << 20]).expect("a long layout");
    for found in found(&scene, Some(&given)) {
        let Err(BlobsProblem::UnknownLayout { layout, .. }) = found else {
            panic!("{found:?}");
        };
        assert!(layout.len() < 100);
    }
    make_blob_directory(&given, "bushy");
    assert_found(&scene, Some(&given), Ok(&given));
    // A path through a link, which leads to a served directory.
    let link = scene.directory.path().join("link");
    symlink("elsewhere", &link).expect("a link");
    assert_found(&scene, Some(&link), Ok(&link));
}

#[test]
fn the_id_of_a_slave_is_found() {
    let site = Site::new(Layout::Bushy);
    let ids = || {
        site.sources().map(|mut source| {
            let root = source.blob_root(None).expect("a blob directory");
            root.slave_id
        })
    };
    assert_eq!(ids(), [None, None]);
    let own = site.directory.join(".fssync");
    fs::create_dir(&own).expect("a directory");
    assert_eq!(ids(), [None, None]);
    fs::write(own.join("id"), "9f86d081\n").expect("an id");
    let id = Some("9f86d081".to_owned());
    assert_eq!(ids(), [id.clone(), id]);
    fs::write(own.join("id"), vec![0xff; 1 << 20]).expect("a long id");
    for id in ids() {
        assert!(id.expect("its start").len() <= 600);
    }
}

#[test]
fn a_directory_that_is_not_the_same_blob_directory_any_more_is_a_transient_error() {
    type Change = fn(&Site);
    let changes: [(&str, Change); 4] = [
        ("unmounted", |site| {
            fs::rename(&site.directory, site.directory.with_extension("away")).unwrap();
            fs::create_dir(&site.directory).unwrap();
        }),
        ("gone", |site| {
            fs::rename(&site.directory, site.directory.with_extension("away")).unwrap();
        }),
        ("without a layout", |site| {
            fs::remove_file(site.directory.join(LAYOUT_FILE)).unwrap();
        }),
        ("of another layout", |site| {
            fs::write(site.directory.join(LAYOUT_FILE), "lawn").unwrap();
        }),
    ];
    for (what, change) in changes {
        for n in 0..2 {
            let site = Site::new(Layout::Bushy);
            site.write(key(1, 1), b"a blob");
            let mut source = site.sources().into_iter().nth(n).expect("a source");
            let root = source.blob_root(None).expect("a blob directory");
            let all = answers(source.as_mut(), &root, &[want(key(1, 1))]).expect("answers");
            assert_eq!(all[0].bytes, b"a blob");
            change(&site);
            let wants = [want(key(1, 1)), want(key(2, 2))];
            let failed = answers(source.as_mut(), &root, &wants).expect_err(what);
            let directory = root.directory.clone();
            assert!(
                matches!(&failed, Error::Blobs { problem: BlobsProblem::Vanished { directory: it }, .. }
                    if *it == directory),
                "{what}: {failed:?}"
            );
            assert!(failed.is_transient() && failed.hint().is_some());
            let failed = source
                .blob_digests(&root, &[key(1, 1)], &|| {})
                .expect_err(what);
            assert!(failed.is_transient(), "{what}: {failed:?}");
            source
                .stat(&[])
                .expect("the connection can be used for other requests");
        }
    }
}

/// The directory loses its layout, or is replaced, after the first of many blobs was sent.
#[test]
fn no_blob_is_absent_once_the_layout_is_gone() {
    for n in 0..2 {
        let site = Site::new(Layout::Lawn);
        for oid in 0..1500 {
            site.write(key(oid, 1), &vec![1; 20_000]);
        }
        let mut source = site.sources().into_iter().nth(n).expect("a source");
        let root = source.blob_root(None).expect("a blob directory");
        // The last ones do not exist. The others are in the directory that is already open.
        let wants: Vec<_> = (0..1510).map(|oid| want(key(oid, 1))).collect();
        let events = std::sync::Mutex::new(Vec::new());
        let failed = source
            .blobs(&root, &wants, &|event| {
                let mut events = events.lock().expect("no panic");
                if events.is_empty() {
                    let away = site.directory.with_extension("away");
                    fs::rename(&site.directory, away).expect("unmounted");
                    fs::create_dir(&site.directory).expect("the mount point");
                }
                events.push(matches!(event.kind, BlobEventKind::Absent));
                std::ops::ControlFlow::Continue(())
            })
            .err();
        let is_vanished = matches!(
            failed,
            Some(Error::Blobs {
                problem: BlobsProblem::Vanished { .. },
                ..
            })
        );
        let events = events.into_inner().expect("no panic");
        assert!(is_vanished, "{failed:?}");
        assert!(!events.contains(&true));
    }
}
