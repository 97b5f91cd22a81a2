//! Any lines as the replies of a master: the client continues, or returns an error, and never
//! gets more than it requested.
//!
//! The first line contains the requests, one per byte. The other lines are the replies: see
//! [`framed`](super::serve::framed). A line with `D` and a number is a data frame of that
//! length.

use std::io;
use std::sync::atomic::Ordering;

use fssync::filestorage::Tid;
use fssync::filestorage::scan::Tail;
use fssync::io::digest::Digest;
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
    let mut client = Client::new(&mut from, io::sink());
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
        None if line == b"hello" => protocol::hello().to_vec(),
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
        _ => {
            let path = "/data/Data.fs".to_owned();
            let ranges = vec![0..4, 4..len];
            client.ask(&Request::Stat { path, ranges }).is_ok()
        }
    }
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
    all.into_iter().map(|lines| lines.join(&b'\n')).collect()
}
