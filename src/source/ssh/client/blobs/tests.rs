use super::*;
use crate::filestorage::Tid;
use crate::filestorage::blob::Layout;
use crate::io::digest::Digest;
use crate::source::blobs::{
    BlobFailure, BlobStat, BlobsProblem, HaveBlob, MAX_PIECE_LEN, ReceivedPrefix,
};
use crate::source::ssh::client::ReadRange;
use std::io;

const KEY: BlobKey = BlobKey {
    tid: Tid(7),
    oid: 1,
};

const STAT: BlobStat = BlobStat {
    size: 10,
    modified: (5, 6),
    mode: 0o444,
};

/// A frame from the other end.
#[derive(Clone)]
enum Sent {
    Event(BlobEventKind),
    Reply(Reply),
    Data(usize),
}

fn root() -> BlobRoot {
    BlobRoot {
        directory: "/data/blobs".to_owned(),
        layout: Layout::Bushy,
        slave_id: None,
        file_system: None,
    }
}

fn wants() -> Vec<BlobWant> {
    let want = BlobWant {
        key: KEY,
        have: None,
        resume: None,
    };
    let have = HaveBlob {
        size: 10,
        modified: Some((5, 6)),
    };
    let resume = ReceivedPrefix {
        len: 4,
        digest: Digest::of(b"FS30"),
    };
    vec![
        BlobWant {
            resume: Some(resume),
            ..want.clone()
        },
        BlobWant {
            have: Some(have),
            ..want
        },
    ]
}

fn stream(sent: &[Sent]) -> Vec<u8> {
    let mut bytes = protocol::hello(protocol::VERSION).to_vec();
    for it in sent {
        let written = match it {
            Sent::Event(event) => protocol::write_message(&mut bytes, &Reply::Blob(event.clone())),
            Sent::Reply(reply) => protocol::write_message(&mut bytes, reply),
            Sent::Data(len) => protocol::write_data(&mut bytes, &vec![1; *len]),
        };
        written.unwrap();
    }
    bytes
}

/// Receives the answer to [`wants`]: the number of events and the result.
fn receive(sent: &[Sent]) -> (usize, Result<ControlFlow<()>, RequestError>) {
    let bytes = stream(sent);
    let mut client = Client::new(&bytes[..], io::sink(), protocol::VERSION);
    let mut count = 0;
    let result = client.blobs(&root(), &wants(), |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    (count, result)
}

use BlobEventKind::{Absent, Complete, Failed, File, Same, SameSize};
use Sent::{Data, Event};

fn file(from: u64) -> Sent {
    Event(File { stat: STAT, from })
}

#[test]
fn answers_in_the_order_of_the_wants_are_accepted() {
    let heartbeat = || Sent::Reply(Reply::Heartbeat);
    let digest = Digest::of(b"x");
    let failed = Failed {
        kind: BlobFailure::Changed,
        why: "it changed".to_owned(),
    };
    for sent in [
        vec![Event(Absent), Event(Same(STAT))],
        vec![heartbeat(), Event(Absent), heartbeat(), Event(Absent)],
        vec![
            file(0),
            Data(3),
            heartbeat(),
            Data(7),
            Event(Complete),
            Event(SameSize { stat: STAT, digest }),
        ],
        vec![file(4), Data(6), Event(Complete), Event(failed.clone())],
        vec![file(0), Data(3), Event(failed.clone()), Event(failed)],
    ] {
        let (count, result) = receive(&sent);
        let events = sent.iter().filter(|it| !matches!(it, Sent::Reply(_)));
        assert!(
            matches!(result, Ok(ControlFlow::Continue(()))),
            "{result:?}"
        );
        assert_eq!(count, events.count());
    }
}

#[test]
fn answers_that_violate_the_protocol_break_the_connection() {
    let digest = Digest::of(b"x");
    let other = BlobStat { size: 11, ..STAT };
    let (huge, time) = (u64::MAX, (5, 7));
    for (sent, accepted) in [
        (vec![Event(Complete)], 0),
        (vec![Data(1)], 0),
        (vec![Event(Same(STAT))], 0),
        (vec![Event(SameSize { stat: STAT, digest })], 0),
        (vec![Sent::Reply(Reply::Changed(true))], 0),
        (
            vec![Sent::Reply(Reply::BlobDigest(BlobDigestAnswer::Absent))],
            0,
        ),
        (vec![file(3)], 0),
        (vec![file(11)], 0),
        (vec![file(0), file(0)], 1),
        (vec![file(0), Event(Absent)], 1),
        (vec![file(0), Event(Complete)], 1),
        (vec![file(0), Data(9), Event(Complete)], 2),
        (vec![file(0), Data(11)], 1),
        (vec![file(0), Data(10), Data(1)], 2),
        (vec![file(4), Data(7)], 1),
        (vec![Event(Absent), Event(Same(other))], 1),
        (
            vec![
                Event(Absent),
                Event(Same(BlobStat {
                    modified: time,
                    ..STAT
                })),
            ],
            1,
        ),
        (
            vec![
                Event(Absent),
                Event(SameSize {
                    stat: other,
                    digest,
                }),
            ],
            1,
        ),
        (
            vec![
                Event(File {
                    stat: BlobStat { size: huge, ..STAT },
                    from: 0,
                }),
                Data(MAX_PIECE_LEN),
            ],
            2,
        ),
        (vec![], 0),
    ] {
        let (count, result) = receive(&sent);
        assert!(matches!(result, Err(RequestError::Broken(_))), "{result:?}");
        assert_eq!(count, accepted);
    }
}

#[test]
fn a_refusal_ends_the_answer() {
    let refused = Reply::Refused {
        why: "too many".to_owned(),
        is_transient: false,
    };
    let vanished = Reply::Blobs(BlobsProblem::Vanished {
        directory: "/data".to_owned(),
    });
    for before in [vec![], vec![Event(Absent)], vec![file(0), Data(5)]] {
        let mut sent = before.clone();
        sent.push(Sent::Reply(refused.clone()));
        let (count, result) = receive(&sent);
        assert!(
            matches!(result, Err(RequestError::Refused { .. })),
            "{result:?}"
        );
        assert_eq!(count, before.len());
        sent.pop();
        sent.push(Sent::Reply(vanished.clone()));
        let (_, result) = receive(&sent);
        assert!(matches!(result, Err(RequestError::Blobs(_))), "{result:?}");
    }
}

#[test]
fn special_bits_and_long_texts_are_cut() {
    let mode = u32::MAX;
    let why = "é".repeat(100_000);
    let kind = BlobFailure::Unreadable;
    let bytes = stream(&[
        Event(File {
            stat: BlobStat { mode, ..STAT },
            from: 0,
        }),
        Event(Failed { kind, why }),
    ]);
    let mut client = Client::new(&bytes[..], io::sink(), protocol::VERSION);
    let mut events = Vec::new();
    let _ = client.blobs(&root(), &wants()[..1], |event| {
        events.push(event.kind);
        ControlFlow::Continue(())
    });
    assert!(matches!(events[0], File { stat, .. } if stat.mode == PERMISSIONS));
    assert!(matches!(&events[1], Failed { why, .. } if why.chars().count() == MAX_WHY_LEN));
    let why = "é".repeat(100_000);
    let failed = BlobDigestAnswer::Failed { kind, why };
    let bytes = stream(&[Sent::Reply(Reply::BlobDigest(failed))]);
    let mut client = Client::new(&bytes[..], io::sink(), protocol::VERSION);
    let answers = client.blob_digests(&root(), &[wants()[0].key]).unwrap();
    assert!(
        matches!(&answers[..], [BlobDigestAnswer::Failed { why, .. }]
            if why.chars().count() == MAX_WHY_LEN)
    );
}

/// The bytes of the log that were read ahead arrive before the blobs.
#[test]
fn a_read_ahead_is_kept_while_blobs_arrive() {
    let data = |bytes: &[u8]| (Reply::Data(bytes.len() as u64), bytes.to_vec());
    let mut bytes = protocol::hello(protocol::VERSION).to_vec();
    for (reply, piece) in [data(b"abcd"), data(b"efgh")] {
        protocol::write_message(&mut bytes, &reply).unwrap();
        protocol::write_data(&mut bytes, &piece).unwrap();
    }
    protocol::write_message(&mut bytes, &Reply::Blob(Absent)).unwrap();
    protocol::write_message(&mut bytes, &Reply::Changed(true)).unwrap();
    let mut requests = Vec::new();
    let mut client = Client::new(&bytes[..], &mut requests, protocol::VERSION);
    let (mut buffer, ahead) = ([0; 4], ReadRange { offset: 4, len: 4 });
    assert_eq!(client.read(&mut buffer, 0, Some(ahead)).unwrap(), 4);
    let flow = client.blobs(&root(), &wants()[..1], |_| ControlFlow::Continue(()));
    assert!(flow.unwrap().is_continue());
    assert_eq!(client.read(&mut buffer, 4, None).unwrap(), 4);
    assert_eq!(&buffer, b"efgh");
    let wait = Request::Wait { timeout_ms: 1 };
    assert_eq!(client.ask(&wait).unwrap(), Reply::Changed(true));
    let reads = requests.windows(6).filter(|it| it == b"\"Read\"");
    assert_eq!(reads.count(), 2);
}
