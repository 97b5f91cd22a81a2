//! The answers about single blobs.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use fssync::filestorage::blob::{BlobKey, Layout};
use fssync::io::digest::Digest;
use fssync::source::Source;
use fssync::source::blobs::{
    BlobDigest, BlobDigestAnswer, BlobEvent, BlobEventKind, BlobFailure, BlobRoot, BlobStat,
    BlobWant, HaveBlob, MAX_PIECE_LEN, MAX_WANTS, ReceivedPrefix,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Answer, Site, answers, content, key, prefix_digest, want};
use crate::support::project;

const LAYOUTS: [Layout; 2] = [Layout::Bushy, Layout::Lawn];

/// The state of a file, as a blob has it.
fn stat(path: &Path) -> BlobStat {
    let found = fs::metadata(path).expect("a blob");
    BlobStat {
        size: found.len(),
        modified: (found.mtime(), found.mtime_nsec().cast_unsigned() as u32),
        mode: found.mode() & 0o7777,
    }
}

/// Requests one blob.
fn answer(source: &mut dyn Source, root: &BlobRoot, want: BlobWant) -> Answer {
    let mut all = answers(source, root, &[want]).expect("an answer");
    all.remove(0)
}

/// The kind of a failure, if the answer is one.
fn failure(answer: &Answer) -> (BlobFailure, &str) {
    match answer.events.last() {
        Some(BlobEventKind::Failed { kind, why }) => (*kind, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_blobs_of_a_site_of_zodb_are_found_and_sent_over_each_transport() {
    let site = Site::new(Layout::Bushy);
    let real = project("fixtures/plone/var/blobstorage");
    let mut files = Vec::new();
    let mut directories = vec![real.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&real).expect("below").to_owned();
            if path.is_dir() {
                directories.push(path);
            } else if let Some(key) = Layout::Bushy.key(&name) {
                let bytes = fs::read(path).expect("a blob");
                site.write(key, &bytes);
                files.push((key, bytes));
            }
        }
    }
    assert!(files.len() >= 5, "{files:?}");
    let wants: Vec<_> = files.iter().map(|(key, _)| want(*key)).collect();
    let keys: Vec<_> = files.iter().map(|(key, _)| *key).collect();
    for mut source in site.sources() {
        let root = source.blob_root(None).expect("a blob directory");
        let all = answers(source.as_mut(), &root, &wants).expect("answers");
        for (answer, (key, bytes)) in all.iter().zip(&files) {
            assert_eq!(answer.bytes, *bytes, "{key:?}");
        }
        let digests = source.blob_digests(&root, &keys, &|| {}).expect("digests");
        for (digest, (_, bytes)) in digests.iter().zip(&files) {
            let expected = BlobDigest {
                size: bytes.len() as u64,
                digest: Digest::of(bytes),
            };
            assert_eq!(*digest, BlobDigestAnswer::Digested(expected));
        }
    }
}

#[test]
fn each_blob_is_sent_unless_the_slave_has_it_over_each_transport() {
    for layout in LAYOUTS {
        let site = Site::new(layout);
        let bytes = content(MAX_PIECE_LEN + 1000);
        let (large, empty) = (key(0x1234, 0x03a1_0000_0000_00ff), key(1, 7));
        site.write(large, &bytes);
        site.write(empty, b"");
        fs::set_permissions(site.path(large), fs::Permissions::from_mode(0o444)).expect("a mode");
        let stat_of = |key: BlobKey| stat(&site.path(key));
        let (there, len) = (stat_of(large), bytes.len() as u64);
        let have = |size, modified| BlobWant {
            have: Some(HaveBlob { size, modified }),
            ..want(large)
        };
        let resume = |len: u64, digest| BlobWant {
            resume: Some(ReceivedPrefix { len, digest }),
            ..want(large)
        };
        let whole = Digest::of(&bytes);
        let file = |stat, from| vec![BlobEventKind::File { stat, from }, BlobEventKind::Complete];
        let same_size = || {
            vec![BlobEventKind::SameSize {
                stat: there,
                digest: whole,
            }]
        };
        let later = Some((there.modified.0, there.modified.1 ^ 1));
        let cut = 300_000_usize.min(bytes.len() - 1);
        let cases = [
            (want(large), file(there, 0), &bytes[..]),
            (want(empty), file(stat_of(empty), 0), b""),
            (want(key(0x1234, 8)), vec![BlobEventKind::Absent], b""),
            (want(key(0x99, 7)), vec![BlobEventKind::Absent], b""),
            (
                have(len, Some(there.modified)),
                vec![BlobEventKind::Same(there)],
                b"",
            ),
            (have(len, later), same_size(), b""),
            (have(len, None), same_size(), b""),
            (have(len - 1, Some(there.modified)), file(there, 0), &bytes),
            (have(0, None), file(there, 0), &bytes),
            (
                resume(100, prefix_digest(&bytes, 100)),
                file(there, 100),
                &bytes[100..],
            ),
            (
                resume(cut as u64, prefix_digest(&bytes, cut)),
                file(there, cut as u64),
                &bytes[cut..],
            ),
            (resume(len, whole), file(there, len), b""),
            (resume(100, whole), file(there, 0), &bytes),
            (resume(len + 1, whole), file(there, 0), &bytes),
            (resume(u64::MAX, whole), file(there, 0), &bytes),
            (resume(0, Digest::of(b"")), file(there, 0), &bytes),
        ];
        let wants: Vec<_> = cases.iter().map(|(want, ..)| want.clone()).collect();
        for mut source in site.sources() {
            let root = source.blob_root(None).expect("a blob directory");
            assert_eq!(root.layout, layout);
            let found = answers(source.as_mut(), &root, &wants).expect("answers");
            for (answer, (want, events, bytes)) in found.iter().zip(&cases) {
                assert_eq!(answer.events, *events, "{want:?}");
                assert!(answer.bytes == *bytes, "{want:?}");
            }
            assert_eq!(found[0].pieces, 2);
            let keys = [large, key(5, 5), empty];
            let digests = source.blob_digests(&root, &keys, &|| {}).expect("digests");
            let of = |bytes: &[u8]| {
                BlobDigestAnswer::Digested(BlobDigest {
                    size: bytes.len() as u64,
                    digest: Digest::of(bytes),
                })
            };
            let expected = [of(&bytes), BlobDigestAnswer::Absent, of(b"")];
            assert_eq!(digests, expected);
        }
    }
}

#[test]
fn times_before_1970_and_all_permission_bits_are_sent() {
    let site = Site::new(Layout::Lawn);
    site.write(key(1, 1), b"x");
    let path = site.path(key(1, 1));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).expect("a mode");
    let early = UNIX_EPOCH - Duration::from_millis(1500);
    let file = File::options().write(true).open(&path).expect("a blob");
    file.set_modified(early).expect("a time");
    for mut source in site.sources() {
        let root = source.blob_root(None).expect("a blob directory");
        let found = answer(source.as_mut(), &root, want(key(1, 1)));
        let expected = BlobStat {
            size: 1,
            modified: (-2, 500_000_000),
            mode: 0o6755,
        };
        let sent = BlobEventKind::File {
            stat: expected,
            from: 0,
        };
        assert_eq!(found.events[0], sent);
    }
}

#[test]
fn other_kinds_of_files_in_place_of_a_blob_are_failures() {
    let site = Site::new(Layout::Lawn);
    let outside = site.scene.directory.path().join("secret");
    fs::write(&outside, b"secret").expect("a file");
    let place = |n: u64| {
        site.write(key(n, 1), b"");
        let path = site.path(key(n, 1));
        fs::remove_file(&path).expect("the blob");
        path
    };
    fs::create_dir(place(1)).expect("a directory");
    symlink(&outside, place(2)).expect("a link");
    symlink("nothing", place(3)).expect("a link");
    mknodat(CWD, place(4), FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a FIFO");
    // A file, and a link, in place of an object's directory.
    fs::write(site.directory.join("0x05"), b"").expect("a file");
    site.write(key(6, 1), b"a blob");
    symlink("0x06", site.directory.join("0x07")).expect("a link");
    for mut source in site.sources() {
        let root = source.blob_root(None).expect("a blob directory");
        let wants: Vec<_> = (1..=7).map(|n| want(key(n, 1))).collect();
        let found = answers(source.as_mut(), &root, &wants).expect("answers");
        for (n, answer) in found.iter().enumerate().filter(|(n, _)| *n != 5) {
            let (kind, why) = failure(answer);
            assert_eq!(kind, BlobFailure::Unreadable, "{n}: {why}");
            assert!(why.contains("blobstorage/0x"), "{n}: {why}");
            assert_eq!(answer.bytes, b"", "{n}");
        }
        assert_eq!(found[5].bytes, b"a blob");
        let keys: Vec<_> = (1..=7).map(|n| key(n, 1)).collect();
        let digests = source.blob_digests(&root, &keys, &|| {}).expect("answers");
        for (n, answer) in digests.iter().enumerate() {
            let kind = match answer {
                BlobDigestAnswer::Failed { kind, .. } => Some(*kind),
                _ => None,
            };
            let expected = (n != 5).then_some(BlobFailure::Unreadable);
            assert_eq!(kind, expected, "{n}: {answer:?}");
        }
    }
}

#[test]
fn any_key_is_only_the_name_of_a_blob() {
    for layout in LAYOUTS {
        let site = Site::new(layout);
        let numbers = [0, 1, 0x2e2e, 0x2f, u64::MAX, 1 << 63];
        let keys = numbers
            .iter()
            .flat_map(|&oid| numbers.map(|tid| key(oid, tid)));
        let wants: Vec<_> = keys.map(want).collect();
        for mut source in site.sources() {
            let root = source.blob_root(None).expect("a blob directory");
            let found = answers(source.as_mut(), &root, &wants).expect("answers");
            assert!(found.iter().all(|it| it.events == [BlobEventKind::Absent]));
        }
    }
}

#[test]
fn more_blobs_than_fit_into_one_request_to_the_server_are_sent() {
    let site = Site::new(Layout::Lawn);
    let count = MAX_WANTS as u64 + 10;
    for n in (0..count).step_by(3) {
        site.write(key(n, 1), &n.to_be_bytes());
    }
    let digest = Digest::of(b"x");
    let wants: Vec<_> = (0..count)
        .map(|n| BlobWant {
            // The longest possible wants: their request must fit into a frame.
            key: key(n, 1),
            have: Some(HaveBlob {
                size: u64::MAX,
                modified: Some((i64::MIN, u32::MAX)),
            }),
            resume: Some(ReceivedPrefix {
                len: u64::MAX,
                digest,
            }),
        })
        .collect();
    for mut source in site.sources() {
        let root = source.blob_root(None).expect("a blob directory");
        let found = answers(source.as_mut(), &root, &wants).expect("answers");
        for (n, answer) in (0..count).zip(&found) {
            if n % 3 == 0 {
                assert_eq!(answer.bytes, n.to_be_bytes(), "{n}");
            } else {
                assert_eq!(answer.events, [BlobEventKind::Absent], "{n}");
            }
        }
        let keys: Vec<_> = (0..count).map(|n| key(n, 1)).collect();
        let digests = source.blob_digests(&root, &keys, &|| {}).expect("digests");
        let there = digests.iter().map(|it| *it != BlobDigestAnswer::Absent);
        assert!(there.eq((0..count).map(|n| n % 3 == 0)));
    }
}

/// Cuts, or extends, a blob of 64 MiB once its first bytes have arrived.
fn changed_while_read(change: impl Fn(&File) + Sync) {
    const LEN: u64 = 64 << 20;
    let site = Site::new(Layout::Lawn);
    site.write(key(1, 1), b"");
    let blob = site.path(key(1, 1));
    for mut source in site.sources() {
        let file = File::create(&blob).expect("a blob");
        file.set_len(LEN).expect("its size");
        let root = source.blob_root(None).expect("a blob directory");
        let is_changed = AtomicBool::new(false);
        let last = std::sync::Mutex::new(None);
        let sink = |event: BlobEvent| {
            let is_data = matches!(event.kind, BlobEventKind::Data(_));
            if is_data && !is_changed.swap(true, Ordering::Relaxed) {
                change(&file);
            }
            *last.lock().expect("no panic") = Some(event.kind);
            ControlFlow::Continue(())
        };
        source
            .blobs(&root, &[want(key(1, 1))], &sink)
            .expect("an answer");
        let last = last.into_inner().expect("no panic");
        assert!(
            matches!(&last, Some(BlobEventKind::Failed { kind: BlobFailure::Changed, why })
                if why.contains("changed while it was read")),
            "{last:?}"
        );
        // The connection can be used for other requests.
        source.stat(&[]).expect("the master");
    }
}

#[test]
fn a_blob_that_shrinks_grows_or_is_written_while_it_is_sent_is_a_failure() {
    changed_while_read(|file| file.set_len(1 << 20).expect("a shorter blob"));
    changed_while_read(|file| file.set_len(65 << 20).expect("a longer blob"));
    changed_while_read(|file| {
        file.write_all_at(b"x", 63 << 20).expect("a write");
        file.set_modified(UNIX_EPOCH).expect("a time");
    });
}
