//! Any lines as the input of `fssync serve`: it ends, replies once to each request, with the
//! right kind of reply, and opens only the paths that it serves.
//!
//! A line that starts like a JSON message becomes a frame with the right length. Other lines
//! are sent unchanged. So a mutated message is still a frame.

use std::fs;
use std::path::Path;

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{BlobKey, Layout};
use fssync::io::digest::Digest;
use fssync::source::blobs::{BlobEventKind, BlobWant, HaveBlob, ReceivedPrefix};
use fssync::source::protocol::{self, HELLO_LEN, Kind, Reply, Request};
use fssync::source::server::serve;

use super::scene::{bytes, fixtures_directory};

/// The served directory, as it is called in inputs.
const SERVED: &str = "/data";

/// The most bytes that are read at once. No file has more.
const MAX_READ: u64 = 1 << 20;

/// Sends the input to `fssync serve`.
///
/// # Panics
///
/// If a reply is not the expected one.
pub fn run(input: &[u8]) {
    let mut requests = Vec::new();
    let mut frames = protocol::hello(protocol::VERSION).to_vec();
    let mut is_sound = true;
    for line in input.split(|&byte| byte == b'\n') {
        match serde_json::from_slice::<Request>(line) {
            Ok(request) => {
                let request = localized(request);
                is_sound &= protocol::write_message(&mut frames, &request).is_ok();
                if is_sound {
                    requests.push(Some(request));
                }
            }
            Err(_) if line.is_empty() => {}
            Err(error) => {
                let is_unknown = error.is_data() && is_message(line);
                is_sound &= is_unknown && line.len() <= Kind::Message.max_len();
                frames.extend(framed(line));
                if is_sound {
                    requests.push(None);
                }
            }
        }
    }
    let mut output = Vec::new();
    let served = serve(&[fixtures_directory()], &frames[..], &mut output);
    assert_eq!(served.is_ok(), is_sound, "{served:?}");
    let mut replies = &output[HELLO_LEN..];
    for request in &requests {
        match request {
            Some(request) => check_answer(request, &mut replies),
            // A request of a later version.
            None => assert!(matches!(next_reply(&mut replies), Reply::Refused { .. })),
        }
    }
    assert!(!is_sound || replies.is_empty(), "there is no other reply");
}

/// The bytes that a line stands for.
#[must_use]
pub fn framed(line: &[u8]) -> Vec<u8> {
    let len = (line.len() as u32).to_be_bytes();
    if is_message(line) {
        [b"J", &len[..], line].concat()
    } else {
        line.to_vec()
    }
}

/// Whether a line stands for a message.
fn is_message(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'{' | b'"'))
}

/// The request with the real path of the served directory, and without long waits.
fn localized(request: Request) -> Request {
    match request {
        Request::Stat { path, ranges } => Request::Stat {
            path: local(path),
            ranges,
        },
        Request::BlobRoot { given } => Request::BlobRoot {
            given: given.map(local),
        },
        Request::Blobs {
            directory,
            layout,
            wants,
        } => Request::Blobs {
            directory: local(directory),
            layout,
            wants,
        },
        Request::BlobDigests {
            directory,
            layout,
            keys,
        } => Request::BlobDigests {
            directory: local(directory),
            layout,
            keys,
        },
        Request::Read { offset, len } => Request::Read {
            offset,
            len: len.min(MAX_READ),
        },
        Request::Wait { .. } => Request::Wait { timeout_ms: 0 },
        other => other,
    }
}

/// The real path of a file in the served directory.
fn local(path: String) -> String {
    match path.strip_prefix(SERVED) {
        Some(below) => format!("{}{below}", fixtures_directory().display()),
        None => path,
    }
}

/// Receives and checks the reply to a request.
fn check_answer(request: &Request, replies: &mut &[u8]) {
    if matches!(request, Request::Read { len: 0, .. }) {
        // There is no reply: all 0 bytes were sent.
        return;
    }
    match request {
        Request::Blobs { wants, .. } => return check_blobs(wants, replies),
        Request::BlobDigests { keys, .. } => return check_blob_digests(keys.len(), replies),
        _ => {}
    }
    match (request, next_reply(replies)) {
        (_, Reply::Refused { why, .. }) => assert!(!why.is_empty()),
        (Request::BlobRoot { given }, Reply::BlobRoot(root)) => {
            // As paths: the reply may lack a doubled slash.
            let is_given = |given: &String| Path::new(given) == Path::new(&root.directory);
            assert!(given.as_ref().is_none_or(is_given));
            assert_served(&root.directory);
        }
        (Request::BlobRoot { .. }, Reply::Blobs(problem)) => {
            assert!(!problem.to_string().is_empty());
        }
        (Request::Stat { path, ranges }, Reply::Stat { digests, .. }) => {
            assert_eq!(digests.len(), ranges.len());
            assert_served(path);
        }
        (Request::Digest(_) | Request::Confirm(_), Reply::Digest(_))
        | (Request::Surroundings, Reply::Surroundings(_))
        | (Request::Wait { .. }, Reply::Changed(_)) => {}
        (Request::Read { len, .. }, Reply::Data(first)) => check_data(*len, first, replies),
        (Request::Transactions { .. }, Reply::Transactions { len, .. }) => {
            if len > 0 {
                assert_eq!(take_data(replies), len);
            }
        }
        (request, reply) => panic!("{reply:?} to {request:?}"),
    }
}

fn next_reply(replies: &mut &[u8]) -> Reply {
    loop {
        match protocol::read_message::<Reply>(replies).expect("a reply") {
            Some(Reply::Heartbeat) => {}
            reply => return reply.expect("an answer to each request"),
        }
    }
}

fn assert_served(path: &str) {
    let is_below = Path::new(path).starts_with(fixtures_directory());
    assert!(is_below && !path.contains(".."), "{path} is not served");
}

/// Receives the events of wanted blobs, in the order of the request.
fn check_blobs(wants: &[BlobWant], replies: &mut &[u8]) {
    for want in wants {
        let mut left = match next_reply(replies) {
            // No other blob of the request is answered.
            Reply::Refused { .. } | Reply::Blobs(_) => return,
            Reply::Blob(BlobEventKind::File { stat, from }) => {
                let is_prefix = |prefix: ReceivedPrefix| prefix.len == from && from <= stat.size;
                assert!(from == 0 || want.resume.is_some_and(is_prefix));
                stat.size - from
            }
            Reply::Blob(event) => {
                assert!(event.is_final() && event != BlobEventKind::Complete);
                continue;
            }
            reply => panic!("{reply:?} about {want:?}"),
        };
        while left > 0 {
            left -= take_data(replies);
        }
        assert_eq!(next_reply(replies), Reply::Blob(BlobEventKind::Complete));
    }
}

/// Receives this number of digests.
fn check_blob_digests(count: usize, replies: &mut &[u8]) {
    for _ in 0..count {
        match next_reply(replies) {
            Reply::BlobDigest(_) => {}
            Reply::Refused { .. } | Reply::Blobs(_) => return,
            reply => panic!("{reply:?} instead of a digest"),
        }
    }
}

/// Receives the chunks of a read; the first one was announced.
fn check_data(wanted: u64, first: u64, replies: &mut &[u8]) {
    let (mut got, mut announced) = (0, first);
    while announced > 0 {
        assert_eq!(take_data(replies), announced);
        got += announced;
        assert!(got <= wanted);
        if got == wanted {
            return;
        }
        announced = match protocol::read_message::<Reply>(replies) {
            Ok(Some(Reply::Data(next))) => next,
            // A directory, or an offset beyond the end.
            Ok(Some(Reply::Refused { .. })) => return,
            other => panic!("{other:?}"),
        };
    }
}

fn take_data(replies: &mut &[u8]) -> u64 {
    let mut buffer = vec![0; protocol::MAX_DATA_LEN];
    protocol::read_data(replies, &mut buffer).expect("bytes") as u64
}

/// The keys of the blobs below a bushy blob directory, and one without a file.
fn blob_keys(root: &Path) -> Vec<BlobKey> {
    let mut keys = vec![BlobKey {
        tid: Tid(1),
        oid: 1,
    }];
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(name) = path.strip_prefix(root) {
                keys.extend(Layout::Bushy.key(name));
            }
        }
    }
    keys.sort();
    keys
}

/// Requests of passes, and invalid ones.
///
/// # Panics
///
/// Never: they are messages.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let path = |name: &str| format!("{SERVED}/{name}");
    let size = bytes(&fixtures_directory().join("undo.fs")).len() as u64;
    let look = |name: &str| Request::Stat {
        path: path(name),
        ranges: vec![0..size.min(4096), size.saturating_sub(100)..size],
    };
    let read = |offset, len| Request::Read { offset, len };
    let from = |from| Request::Transactions { from, size };
    let root = |given: &str| Request::BlobRoot {
        given: Some(path(given)),
    };
    let plone = "plone/var/blobstorage";
    let keys = blob_keys(&fixtures_directory().join(plone));
    let wants = |have, resume| {
        let want = |&key| BlobWant { key, have, resume };
        Request::Blobs {
            directory: path(plone),
            layout: Layout::Bushy,
            wants: keys.iter().map(want).collect(),
        }
    };
    let have = |size, modified| Some(HaveBlob { size, modified });
    let digests = |name: &str, layout| Request::BlobDigests {
        directory: path(name),
        layout,
        keys: keys.clone(),
    };
    let digest = Digest::of(b"");
    let conversations = [
        vec![look("undo.fs"), read(4, 100), read(size, 10)],
        vec![look("undo.fs"), Request::Confirm(0..size), read(0, 1 << 19)],
        vec![look("undo.fs"), from(4), from(697), from(5)],
        vec![look("undo.fs"), Request::Surroundings],
        vec![look("../src/lib.rs")],
        vec![
            look("undo.fs"),
            Request::Wait { timeout_ms: 1000 },
            look("undo.fs"),
        ],
        vec![Request::Digest(0..u64::MAX), look("")],
        vec![
            look("plone/var/filestorage/Data.fs"),
            Request::BlobRoot { given: None },
            wants(None, None),
        ],
        vec![
            root(plone),
            wants(have(2936, None), None),
            wants(have(2936, Some((1, 2))), None),
            wants(None, Some(ReceivedPrefix { len: 0, digest })),
            digests(plone, Layout::Bushy),
        ],
        vec![
            root(""),
            root("/plone/var//blobstorage/"),
            root("../src"),
            digests(plone, Layout::Lawn),
            digests("..", Layout::Bushy),
        ],
        vec![look("empty.fs"), look("nothing"), look("undo.fs/x")],
    ];
    let line = |request| serde_json::to_vec(&request).expect("a message");
    conversations
        .into_iter()
        .map(|requests| {
            let lines: Vec<_> = requests.into_iter().map(line).collect();
            lines.join(&b'\n')
        })
        .chain([b"D\0\0\0\x04FS30".to_vec(), b"{\"Look\":".to_vec()])
        .chain([b"{\"Digest\":{\"start\":7,\"end\":3}}".to_vec()])
        .chain([b"{\"Later\":1}\n\"Surroundings\"".to_vec()])
        .collect()
}
