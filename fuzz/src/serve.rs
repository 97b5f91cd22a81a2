//! Any lines as the input of `fssync serve`: it ends, replies once to each request, with the
//! right kind of reply, and opens only the paths that it serves.
//!
//! A line that starts like a JSON message becomes a frame with the right length. Other lines
//! are sent unchanged. So a mutated message is still a frame.

use std::path::Path;

use fssync::source::protocol::{self, HELLO_LEN, Reply, Request};
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
    let mut frames = protocol::hello().to_vec();
    let mut is_sound = true;
    for line in input.split(|&byte| byte == b'\n') {
        match serde_json::from_slice::<Request>(line) {
            Ok(request) => {
                let request = localized(request);
                is_sound &= protocol::write_message(&mut frames, &request).is_ok();
                if is_sound {
                    requests.push(request);
                }
            }
            Err(_) if line.is_empty() => {}
            Err(_) => {
                is_sound = false;
                frames.extend(framed(line));
            }
        }
    }
    let mut output = Vec::new();
    let served = serve(&[fixtures_directory()], &frames[..], &mut output);
    assert_eq!(served.is_ok(), is_sound, "{served:?}");
    let mut replies = &output[HELLO_LEN..];
    for request in &requests {
        check_answer(request, &mut replies);
    }
    assert!(!is_sound || replies.is_empty(), "there is no other reply");
}

/// The bytes that a line stands for.
#[must_use]
pub fn framed(line: &[u8]) -> Vec<u8> {
    let is_message = matches!(line.first(), Some(b'{' | b'"'));
    let len = (line.len() as u32).to_be_bytes();
    if is_message {
        [b"J", &len[..], line].concat()
    } else {
        line.to_vec()
    }
}

/// The request with the real path of the served directory, and without long waits.
fn localized(request: Request) -> Request {
    match request {
        Request::Stat { path, ranges } => Request::Stat {
            path: match path.strip_prefix(SERVED) {
                Some(below) => format!("{}{below}", fixtures_directory().display()),
                None => path,
            },
            ranges,
        },
        Request::Read { offset, len } => Request::Read {
            offset,
            len: len.min(MAX_READ),
        },
        Request::Wait { .. } => Request::Wait { timeout_ms: 0 },
        other => other,
    }
}

/// Receives and checks the reply to a request.
fn check_answer(request: &Request, replies: &mut &[u8]) {
    if matches!(request, Request::Read { len: 0, .. }) {
        // There is no reply: all 0 bytes were sent.
        return;
    }
    let reply = loop {
        match protocol::read_message::<Reply>(replies).expect("a reply") {
            Some(Reply::Heartbeat) => {}
            reply => break reply.expect("an answer to each request"),
        }
    };
    match (request, reply) {
        (_, Reply::Refused { why, .. }) => assert!(!why.is_empty()),
        (Request::Stat { path, ranges }, Reply::Stat { digests, .. }) => {
            assert_eq!(digests.len(), ranges.len());
            let is_below = Path::new(path).starts_with(fixtures_directory());
            assert!(is_below && !path.contains(".."), "{path} is not served");
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
        .collect()
}
