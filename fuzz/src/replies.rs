//! Any lines as the replies of a master: the client continues, or returns an error, and never
//! gets more than it requested.
//!
//! The first line contains the requests, one per byte. The other lines are the replies: see
//! [`framed`](super::serve::framed). A line with `D` and a number is a data frame of that
//! length.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{BlobKey, Layout};
use fssync::filestorage::scan::Tail;
use fssync::io::digest::Digest;
use fssync::source::blobs::{
    BlobDigest, BlobDigestAnswer, BlobEvent, BlobEventKind, BlobFailure, BlobRoot, BlobStat,
    BlobWant, BlobsProblem, HaveBlob, ReceivedPrefix,
};
use fssync::source::protocol::{self, Reply, Request};
use fssync::source::ssh::client::{Client, ReadRange};
use fssync::source::{FileId, FileSystem, MAX_LIST_LEN, Named, Reached};

use super::serve::framed;

/// The most requests.
const MAX_ASKED: usize = 40;

/// Sends the requests of the first line, and receives the other lines as replies.
///
/// # Panics
///
/// If a reply contains more than was requested.
pub fn run(input: &[u8]) {
    let mut lines = input.split(|&byte| byte == b'\n');
    let asked = lines.next().unwrap_or_default();
    let answers: Vec<u8> = lines.flat_map(received).collect();
    let mut from = &answers[..];
    let mut client = Client::new(&mut from, io::sink(), protocol::VERSION);
    let is_greeted = client.is_greeted();
    for &question in asked.iter().take(MAX_ASKED) {
        let is_answered = ask(&mut client, question);
        assert!(!is_answered || is_greeted.load(Ordering::Relaxed));
    }
}

/// The bytes that a line stands for.
fn received(line: &[u8]) -> Vec<u8> {
    let is_number = |text: &str| text.parse::<u32>().ok();
    let len = line.strip_prefix(b"D").map(str::from_utf8);
    match len.and_then(Result::ok).and_then(is_number) {
        Some(len) => {
            let data = vec![0; (len as usize).min(MAX_LIST_LEN + 1)];
            [b"D", &len.to_be_bytes()[..], &data].concat()
        }
        None if line == b"hello" => protocol::hello(protocol::VERSION).to_vec(),
        None => framed(line),
    }
}

/// Sends a request; returns whether there was a reply.
fn ask<R: io::Read, W: io::Write>(client: &mut Client<R, W>, question: u8) -> bool {
    let scale = u64::from(question >> 4);
    let len = scale * scale * 2500;
    match question & 0xf {
        0..4 => {
            let mut buffer = vec![0; len as usize];
            let ahead = (question & 1 == 1).then_some(ReadRange { offset: len, len });
            let read = client.read(&mut buffer, 0, ahead);
            read.is_ok_and(|got| got <= buffer.len() && got > 0)
        }
        4..8 => {
            let (from, size) = (4 + scale, 1 << (4 * scale));
            let Ok(list) = client.transactions(from, size) else {
                return false;
            };
            let lens = list.entries.iter().map(|entry| entry.len);
            let end = from + lens.sum::<u64>();
            assert!(end <= list.reached.offset && list.reached.offset <= size.max(from));
            true
        }
        8 => client.ask(&Request::Wait { timeout_ms: 1 }).is_ok(),
        10 => client.ask(&Request::Surroundings).is_ok(),
        9 => client.ask(&Request::Digest(0..len)).is_ok(),
        11 => client.ask(&Request::BlobRoot { given: None }).is_ok(),
        12 => ask_for_blobs(client, len),
        13 => {
            let keys = vec![BLOB; question as usize >> 4];
            let digests = client.blob_digests(&blob_root(), &keys);
            digests.is_ok_and(|digests| {
                assert_eq!(digests.len(), keys.len());
                !digests.is_empty()
            })
        }
        _ => {
            let path = "/data/Data.fs".to_owned();
            let ranges = vec![0..4, 4..len];
            client.ask(&Request::Stat { path, ranges }).is_ok()
        }
    }
}

/// A blob.
const BLOB: BlobKey = BlobKey {
    tid: Tid(7),
    oid: 1,
};

fn blob_root() -> BlobRoot {
    BlobRoot {
        directory: "/data/blobstorage".to_owned(),
        layout: Layout::Bushy,
        slave_id: None,
        file_system: None,
    }
}

/// Requests three blobs, of which the slave has a part of `len` bytes, or a file of that size.
/// Returns whether there was a reply.
fn ask_for_blobs<R: io::Read, W: io::Write>(client: &mut Client<R, W>, len: u64) -> bool {
    let (size, modified) = (len, Some((len.cast_signed(), 5)));
    let want = |has_file: bool, has_part: bool| BlobWant {
        key: BLOB,
        have: has_file.then_some(HaveBlob { size, modified }),
        resume: has_part.then_some(ReceivedPrefix {
            len,
            digest: Digest::of(b"x"),
        }),
    };
    let wants = [want(false, false), want(true, false), want(true, true)];
    let mut left = [None; 3];
    let mut is_final = [false; 3];
    let answered = client.blobs(&blob_root(), &wants, |BlobEvent { index, kind }| {
        assert!(!is_final[index] && is_final[..index].iter().all(|&it| it));
        is_final[index] = kind.is_final();
        match kind {
            BlobEventKind::File { stat, from } => left[index] = Some(stat.size - from),
            BlobEventKind::Data(bytes) => {
                let left = left[index].as_mut().expect("its size");
                *left = left.checked_sub(bytes.len() as u64).expect("not more");
            }
            BlobEventKind::Complete => assert_eq!(left[index], Some(0)),
            BlobEventKind::Same(stat) | BlobEventKind::SameSize { stat, .. } => {
                assert!(wants[index].have.is_some() && stat.size == size);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert!(answered.is_err() || is_final == [true; 3]);
    is_final[0]
}

/// Replies of `fssync serve`, and invalid ones.
///
/// # Panics
///
/// Never: they are messages.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let sight = Reply::Stat {
        identity: FileId {
            inode: 7,
            birth: "2026-01-02T03:04:05.678Z".parse().ok(),
        },
        size: 3279,
        modified: (1_700_000_000, 5),
        mode: 0o644,
        file_system: FileSystem(0xef53),
        named: Named::default(),
        digests: vec![Some(Digest::of(b"x")), None],
    };
    let end = Some(Tail::Clean);
    let list = Reply::Transactions {
        len: 34,
        reached: Reached { offset: 1000, end },
    };
    let refused = Reply::Refused {
        why: "not served".to_owned(),
        is_transient: true,
    };
    let line = |reply: &Reply| serde_json::to_vec(reply).expect("a message");
    let entry = |tid: Tid, len: u64| [&tid.0.to_be_bytes()[..], &len.to_be_bytes(), b" "].concat();
    let raw_list = [entry(Tid(2), 100), entry(Tid(3), 50)].concat();
    let raw = [b"D\0\0\0\x22", &raw_list[..]].concat();
    let hello = b"hello".to_vec();
    let all: [&[Vec<u8>]; 6] = [
        &[b"\xaa".to_vec(), hello.clone(), line(&sight)],
        &[
            b"\x30\x30".to_vec(),
            hello.clone(),
            line(&Reply::Heartbeat),
            line(&Reply::Data(9)),
            b"D9".to_vec(),
            line(&Reply::Data(0)),
        ],
        &[b"\xa4\x45".to_vec(), hello.clone(), line(&list), raw],
        &[
            b"\x18\x19\x1a".to_vec(),
            hello.clone(),
            line(&Reply::Changed(true)),
            line(&Reply::Digest(None)),
            line(&refused),
        ],
        &[
            b"\x41\x40\x1a".to_vec(),
            hello.clone(),
            line(&Reply::Data(40_000)),
            b"D40000".to_vec(),
            line(&Reply::Changed(false)),
        ],
        &[
            b"\x1a".to_vec(),
            b"Welcome to plone1!".to_vec(),
            line(&Reply::Data(3)),
        ],
    ];
    let joined = all.into_iter().map(|lines| lines.join(&b'\n'));
    joined.chain(blob_seeds()).collect()
}

/// Replies about blobs.
fn blob_seeds() -> Vec<Vec<u8>> {
    let line = |reply: &Reply| serde_json::to_vec(reply).expect("a message");
    let hello = b"hello".to_vec();
    let stat = BlobStat {
        size: 9,
        modified: (40_000, 5),
        mode: 0o444,
    };
    let blob = |event| line(&Reply::Blob(event));
    let digest = Digest::of(b"x");
    let failed = BlobEventKind::Failed {
        kind: BlobFailure::Denied,
        why: "Permission denied".to_owned(),
    };
    let no_layout = BlobsProblem::NoLayout {
        directory: "/data".to_owned(),
    };
    let all: [&[Vec<u8>]; 3] = [
        &[
            b"\x0c".to_vec(),
            hello.clone(),
            blob(BlobEventKind::File { stat, from: 0 }),
            b"D4".to_vec(),
            line(&Reply::Heartbeat),
            b"D5".to_vec(),
            blob(BlobEventKind::Complete),
            blob(BlobEventKind::Absent),
            blob(failed),
        ],
        &[
            b"\x4c".to_vec(),
            hello.clone(),
            blob(BlobEventKind::Absent),
            blob(BlobEventKind::Same(BlobStat {
                size: 40_000,
                ..stat
            })),
            blob(BlobEventKind::SameSize {
                stat: BlobStat {
                    size: 40_000,
                    ..stat
                },
                digest,
            }),
        ],
        &[
            b"\x1b\x2d\x0b".to_vec(),
            hello.clone(),
            line(&Reply::BlobRoot(blob_root())),
            line(&Reply::BlobDigest(BlobDigestAnswer::Absent)),
            line(&Reply::BlobDigest(BlobDigestAnswer::Digested(BlobDigest {
                size: 9,
                digest,
            }))),
            line(&Reply::BlobDigest(BlobDigestAnswer::Failed {
                kind: BlobFailure::Unreadable,
                why: "why".to_owned(),
            })),
            line(&Reply::Blobs(no_layout)),
        ],
    ];
    all.into_iter().map(|lines| lines.join(&b'\n')).collect()
}
