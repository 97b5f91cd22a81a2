//! Two machines with different versions of fssync. The transcripts in `fixtures/protocol-4` come
//! from a real program of version 4 of the protocol, at both ends; see `fixtures/README.md`.

use std::fs;
use std::path::Path;

use fssync::source::protocol::{self, HELLO_LEN, Kind, MIN_VERSION, Reply, Request, VERSION};
use fssync::source::server;
use serde_json::Value;

use crate::support::{Run, Scene, fssync, project, run};

/// The old version that the transcripts contain.
const OLD: u16 = 4;

/// The path of the master in the transcripts.
const MASTER: &str = "/srv/plone/var/filestorage/Data.fs";

/// The transcripts, in the order in which they were recorded, and the master's fixture.
const TRANSCRIPTS: [(&str, &str); 5] = [
    ("copy", "unpacked"),
    ("append", "unpacked"),
    ("pack", "packed-gc"),
    ("verify", "packed-gc"),
    ("watch", "packed-gc"),
];

/// A frame, without its header.
#[derive(Debug)]
enum Frame {
    Message(Value),
    Data(Vec<u8>),
}

fn transcript(name: &str) -> String {
    let path = project(&format!("fixtures/protocol-{OLD}/{name}.txt"));
    fs::read_to_string(path).expect("a transcript")
}

/// The frames of a transcript that one end has sent, without its hello.
fn frames<'a>(text: &'a str, direction: &str) -> Vec<(&'a str, &'a str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(direction));
    let frames = lines.map(|line| line.trim_start().split_once(' ').expect("a frame"));
    frames.filter(|(kind, _)| *kind != "hello").collect()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).expect("digits"), 16);
    digits.map(|pair| byte(pair).expect("digits")).collect()
}

fn framed(kind: u8, content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u32).to_be_bytes();
    [&[kind], &len[..], content].concat()
}

/// Splits the output of a server into its frames.
fn split(mut output: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = output {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        assert!(len <= Kind::Message.max_len());
        let (content, rest) = rest.split_at(len);
        frames.push(match kind {
            b'J' => Frame::Message(serde_json::from_slice(content).expect("JSON")),
            _ => Frame::Data(content.to_vec()),
        });
        output = rest;
    }
    frames
}

/// Whether a value has everything that the old version had. It may have more fields.
fn includes(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => old.iter().all(|(key, old)| {
            // These depend on the file.
            let is_open = ["identity", "modified", "mode", "file_system"].contains(&key.as_str());
            let new = new.get(key);
            new.is_some_and(|new| is_open || includes(new, old))
        }),
        (new, old) => new == old,
    }
}

/// The replies of this version to the requests of an old slave.
#[test]
fn an_old_slave_gets_the_replies_of_an_old_master() {
    for (name, fixture) in TRANSCRIPTS {
        let text = transcript(name);
        let scene = Scene::with_master(fixture);
        let master = scene.master.display().to_string();
        let expected = frames(&text, "<");
        let sight: Value = serde_json::from_str(expected[0].1).expect("JSON");
        let size = sight["Sight"]["size"].as_u64().expect("a size");
        let file = fs::File::options().write(true).open(&scene.master);
        file.expect("the master").set_len(size).expect("a cut");

        let mut input = protocol::hello(OLD).to_vec();
        for (kind, request) in frames(&text, ">") {
            assert_eq!(kind, "J");
            input.extend(framed(b'J', request.replace(MASTER, &master).as_bytes()));
        }
        let mut output = Vec::new();
        let paths = [scene.master.clone()];
        server::serve(&paths, input.as_slice(), &mut output).expect("answers");
        assert_eq!(output[..HELLO_LEN], protocol::hello(OLD));
        let found = split(&output[HELLO_LEN..]);
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (found, (kind, old)) in found.iter().zip(expected) {
            match found {
                Frame::Message(new) => {
                    let old = serde_json::from_str(old).expect("JSON");
                    assert!(kind == "J" && includes(new, &old), "{name}: {new}: {old}");
                }
                Frame::Data(new) => assert!(kind == "D" && *new == bytes(old), "{name}"),
            }
        }
    }
}

/// `fssync` with a program that connects and answers as in a transcript.
fn with_old_master(scene: &Scene, name: &str, words: &[&str]) -> Run {
    let program = project("tests/transcript.py");
    let recorded = project(&format!("fixtures/protocol-{OLD}/{name}.txt"));
    let rsh = format!(
        "python3 {} replay {}",
        program.display(),
        recorded.display()
    );
    let mut command = fssync();
    command.args(words).args(["-e", &rsh]);
    let master = format!("host:{MASTER}");
    match words.first() {
        Some(&"verify") => command.arg(&scene.slave).args(["--against", &master]),
        _ => command.arg(master).arg(&scene.slave),
    };
    run(&mut command)
}

/// The replies of an old master to the requests of this version.
#[test]
fn a_slave_follows_an_old_master() {
    let scene = Scene::new();
    // The rest is a watch, which would not end with its transcript.
    for (name, fixture) in &TRANSCRIPTS[..4] {
        let words: &[&str] = if *name == "verify" { &["verify"] } else { &[] };
        let run = with_old_master(&scene, name, words).expect(0);
        let whole = fs::read(project(&format!("fixtures/{fixture}.fs"))).expect("the fixture");
        let slave = fs::read(&scene.slave).expect("the slave");
        match *name {
            "copy" => assert!(slave.len() > 4 && whole.starts_with(&slave), "{run:?}"),
            _ => assert!(slave == whole, "{name}: {run:?}"),
        }
    }
}

#[test]
fn blobs_of_an_old_master_wait_for_its_upgrade() {
    let scene = Scene::new().with_blobs();
    let run = with_old_master(&scene, "copy", &["--blobs"]).expect(12);
    assert!(
        run.stderr
            .contains("version 4 of the protocol, which has no blobs"),
        "{run:?}"
    );
    assert!(
        run.stderr.contains("upgrade fssync on the master"),
        "{run:?}"
    );
    assert!(
        !scene.slave.exists(),
        "no transaction comes without its blobs"
    );
}

/// A pass through a shell script as the program that connects.
fn pass_through(scene: &Scene, script: &str) -> Run {
    let rsh = shlex::try_join(["sh", "-c", script]).expect("words");
    let mut command = fssync();
    command.args(["-e", &rsh, &format!("host:{MASTER}")]);
    run(command.arg(&scene.slave))
}

#[test]
fn a_master_that_does_not_know_an_option_is_too_old() {
    let scene = Scene::new();
    let script = "echo \"error: unexpected argument '--blobs' found\" >&2; exit 2";
    let run = pass_through(&scene, script).expect(12);
    for words in ["unexpected argument '--blobs'", "upgrade it there"] {
        assert!(run.stderr.contains(words), "{run:?}");
    }
}

#[test]
fn versions_that_are_too_far_apart_name_the_end_to_upgrade() {
    let upgrades = [
        (MIN_VERSION - 1, "upgrade fssync on the master"),
        (VERSION + 1, "upgrade fssync on this machine"),
    ];
    for (version, advice) in upgrades {
        let scene = Scene::new();
        let hello = scene.directory.path().join("hello");
        fs::write(&hello, protocol::hello(version)).expect("a file");
        let script = format!("cat {}; exec sleep 60", hello.display());
        let run = pass_through(&scene, &script).expect(12);
        let mismatch = format!("the other end speaks version {version}, this end versions 4 and 5");
        for words in [&*mismatch, advice] {
            assert!(run.stderr.contains(words), "{run:?}");
        }
        assert!(!scene.slave.exists());
    }
}

/// The output of `fssync serve`, and whether it ended without an error.
fn serve(path: &Path, version: u16, messages: &[&str]) -> (Vec<u8>, bool) {
    let mut input = protocol::hello(version).to_vec();
    for message in messages {
        input.extend(framed(b'J', message.as_bytes()));
    }
    let mut output = Vec::new();
    let served = server::serve(&[path.to_owned()], input.as_slice(), &mut output);
    (output, served.is_ok())
}

#[test]
fn serve_answers_in_the_lower_version() {
    let scene = Scene::with_master("one");
    for (offered, answered, is_accepted) in [
        (MIN_VERSION - 1, VERSION, false),
        (MIN_VERSION, MIN_VERSION, true),
        (VERSION, VERSION, true),
        (VERSION + 1, VERSION, true),
        (u16::MAX, VERSION, true),
    ] {
        let (output, is_ok) = serve(&scene.master, offered, &[]);
        assert_eq!(
            (&output[..], is_ok),
            (&protocol::hello(answered)[..], is_accepted)
        );
    }
}

#[test]
fn an_unknown_request_is_refused_and_the_next_one_is_answered() {
    let scene = Scene::with_master("one");
    let look = Request::Stat {
        path: scene.master.display().to_string(),
        ranges: Vec::new(),
    };
    let mut look = serde_json::to_value(&look).expect("JSON");
    look["Look"]["later"] = Value::Bool(true);
    let messages = ["{\"Later\":{\"a\":[1]}}", "\"Later\"", &look.to_string()];
    let (output, is_ok) = serve(&scene.master, VERSION + 1, &messages);
    assert!(is_ok);
    let mut replies = &output[HELLO_LEN..];
    for _ in 0..2 {
        let reply = protocol::read_message(&mut replies).expect("a reply");
        let Some(Reply::Refused { why, is_transient }) = reply else {
            panic!("{reply:?}");
        };
        assert!(
            why.contains("does not know the request") && !is_transient,
            "{why}"
        );
    }
    let reply = protocol::read_message(&mut replies).expect("a reply");
    assert!(
        matches!(reply, Some(Reply::Stat { size: 1.., .. })),
        "{reply:?}"
    );
}
