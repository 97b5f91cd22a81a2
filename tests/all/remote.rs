//! A master on another machine: a real sshd, connections that break and hang, and other ends
//! that are not fssync or send wrong data. `operations.rs` and `divergence.rs` run with both
//! transports, and show that every decision is the same as on a mounted path.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fssync::filestorage::scan::Tail;
use fssync::source::blobs::BlobEventKind;
use fssync::source::path::MountedPath;
use fssync::source::protocol::{self, HELLO_LEN, MAX_DATA_LEN, Reply, Request};
use fssync::source::server;
use fssync::source::ssh::{Process, Ssh, Target};
use fssync::source::{self, Heartbeat, Reached, Source, Transactions};
use serde_json::json;

use crate::sshd::Sshd;
use crate::support::{Run, Scene, Zodb, fssync, must, project, run, sparse_master, write_program};

const BINARY: &str = env!("CARGO_BIN_EXE_fssync");

/// One pass from `master` through the program `rsh`.
fn pass(scene: &Scene, master: &str, rsh: &str, options: &[&str]) -> Run {
    run(fssync()
        .args(["--json", "-vv", "--remote-fssync", BINARY, "-e", rsh])
        .args(options)
        .arg(master)
        .arg(&scene.slave))
}

/// A script for `-e`, which gets the host as `$1` and the command as `$2`.
fn script(scene: &Scene, name: &str, text: &str) -> String {
    let path = scene.directory.path().join(name);
    write_program(&path, format!("#!/bin/sh\n{text}\n"));
    path.to_str().expect("UTF-8").to_owned()
}

/// A pass from the scene's master through a script.
fn pass_through(scene: &Scene, text: &str, options: &[&str]) -> Run {
    let rsh = script(scene, "rsh", text);
    let master = format!("host:{}", scene.master.display());
    pass(scene, &master, &rsh, options)
}

/// A pass through a link that forwards `limit` bytes, and then behaves as `then` says; see
/// `tests/link.py`.
fn pass_over(scene: &Scene, limit: usize, then: &str, timeout: &str) -> Run {
    let link = project("tests/link.py");
    let rsh = format!("python3 {} {limit} {then}", link.display());
    let master = format!("host:{}", scene.master.display());
    pass(scene, &master, &rsh, &["--timeout", timeout])
}

fn round_trips(run: &Run) -> usize {
    run.stderr.matches("round trip ").count()
}

#[test]
fn nothing_new_costs_one_round_trip() {
    let scene = Scene::with_master("voted");
    let (sshd, master) = (Sshd::get(), scene.master.clone());
    let (rsh, url) = (sshd.rsh(""), sshd.url(&master));
    pass(&scene, &url, &rsh, &[]).expect(0);
    let with_a_vote = pass(&scene, &url, &rsh, &[]).expect(0);
    assert_eq!(with_a_vote.report()["action"], "up-to-date");
    assert_eq!(round_trips(&with_a_vote), 2);
    fs::copy(project("fixtures/commits.fs"), &master).expect("the master without its vote");
    let run = pass(&scene, &url, &rsh, &[]).expect(0);
    assert_eq!(
        (run.report()["action"].as_str(), round_trips(&run)),
        (Some("up-to-date"), 1)
    );
}

#[test]
fn proving_a_prefix_sends_no_bytes() {
    let scene = Scene::with_master("big-record");
    let (sshd, rsh) = (Sshd::get(), Sshd::get().rsh(""));
    let url = sshd.url(&scene.master);
    fs::copy(&scene.master, &scene.slave).expect("a slave seeded by hand");
    let run = pass(&scene, &url, &rsh, &[]).expect(0);
    assert!(run.stderr.contains("Digest("), "{run:?}");
    assert!(!run.stderr.contains("Read {"), "{run:?}");
}

#[test]
fn a_forced_command_serves_only_its_own_paths() {
    let scene = Scene::with_master("commits");
    let served = scene.master.parent().expect("a directory").display();
    let rsh = Sshd::get().rsh(&format!("command=\"{BINARY} serve {served}\",restrict"));
    pass(&scene, &Sshd::get().url(&scene.master), &rsh, &[]).expect(0);
    let other = Scene::with_master("commits");
    let refused = pass(&scene, &Sshd::get().url(&other.master), &rsh, &[]).expect(12);
    assert!(refused.stderr.contains("is not served here"), "{refused:?}");
}

#[test]
fn paths_with_quotes_and_semicolons_inject_nothing() {
    let scene = Scene::new();
    let witness = scene.directory.path().join("witness");
    let name = format!(
        "it's a \"$(touch {})\"; touch x; `y` & é",
        witness.display().to_string().replace('/', "_")
    );
    let directory = scene.directory.path().join(&name);
    fs::create_dir(&directory).expect("a directory with an odd name");
    let master = directory.join("Data.fs");
    fs::copy(project("fixtures/one.fs"), &master).expect("a master");
    let url = Sshd::get().url(&master);
    pass(&scene, &url, &Sshd::get().rsh(""), &[]).expect(0);
    assert!(!witness.exists());
    let through = script(&scene, "sh-rsh", "shift; exec sh -c \"$*\"");
    fs::remove_file(&scene.slave).expect("the slave");
    pass(&scene, &format!("host:{}", master.display()), &through, &[]).expect(0);
}

#[test]
fn a_host_that_looks_like_an_option_is_refused() {
    let scene = Scene::new();
    let witness = scene.directory.path().join("witness");
    let option = "-oProxyCommand=touch${IFS}witness:/x";
    for master in [option, "ssh://-oProxyCommand=id/x"] {
        let run = run(fssync()
            .current_dir(scene.directory.path())
            .args(["--", master])
            .arg(&scene.slave));
        assert_eq!(run.code, 2, "{run:?}");
    }
    assert!(!witness.exists());
}

/// The script asks the real ssh for the host and user that it would connect to.
#[test]
fn ssh_is_given_every_host_that_it_accepts() {
    let scene = Scene::with_master("one");
    let text = format!(
        "ssh -F none -G \"$@\" > {}/config; exec sh -c \"$(eval echo \\$$#)\"",
        scene.directory.path().display()
    );
    crate::support::tool("ssh", "openssh-client");
    let rsh = script(&scene, "rsh", &text);
    let path = scene.master.display();
    for (given, hostname, user, port) in [
        ("[::1]:", "::1", "root", "22"),
        ("zope@[fe80::1%lo]:", "fe80::1%lo", "zope", "22"),
        ("ssh://zope@[::1]:2222", "::1", "zope", "2222"),
        ("ssh://host:", "host", "root", "22"),
        ("user+tag@host:", "host", "user+tag", "22"),
        ("DOM\\user@host:", "host", "DOM\\user", "22"),
        (
            "joe@corp.example@my_alias:",
            "my_alias",
            "joe@corp.example",
            "22",
        ),
    ] {
        pass(&scene, &format!("{given}{path}"), &rsh, &[]).expect(0);
        let config = fs::read_to_string(scene.directory.path().join("config")).expect("a file");
        let value = |key: &str| {
            let line = config.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{given}: {config}")).trim()
        };
        assert_eq!(
            (value("hostname "), value("user "), value("port ")),
            (hostname, user, port),
            "{given}"
        );
    }
}

#[test]
fn output_that_is_not_from_fssync_is_shown_and_explained() {
    let scene = Scene::with_master("commits");
    for (text, message, hint) in [
        (
            "echo 'Welcome to plone1'; exec sh -c \"$2\"",
            "Welcome to plone1",
            "silence",
        ),
        (
            "exec no-such-fssync serve",
            "exit code 127",
            "--remote-fssync",
        ),
        (
            "echo 'Permission denied (publickey).' >&2; exit 255",
            "publickey",
            "by hand",
        ),
        (
            "printf 'fssync\\000\\011'",
            "version 9",
            "upgrade fssync on this machine",
        ),
        ("yes", "received \"y\\ny", "not fssync serve"),
        (
            "printf 'fssync\\000\\005J\\377\\377\\377\\377'",
            "no valid frame",
            "next pass",
        ),
        (
            "printf 'fssync\\000\\005J\\000\\000\\000\\002{}'",
            "no valid message",
            "next pass",
        ),
        ("exit 0", "ended before fssync answered", "login shell"),
        ("exit 1", "exit code 1", "login shell"),
        ("exit 126", "exit code 126", "cannot be executed"),
        ("printf 'fss'", "received \"fss\"", "not fssync serve"),
        (
            "printf 'fssync\\000\\005'; exit 1",
            "the connection ended",
            "next pass",
        ),
    ] {
        let run = pass_through(&scene, text, &["--timeout", "5"]).expect(12);
        assert!(
            run.stderr.contains(message) && run.stderr.contains(hint),
            "{text}: {run:?}"
        );
        assert!(!scene.slave.exists());
    }
}

/// A real sshd runs another command than the requested one.
#[test]
fn an_account_that_runs_another_command_is_explained() {
    let scene = Scene::with_master("one");
    let sshd = Sshd::get();
    for (command, message) in [
        (
            "internal-sftp",
            "limited to another command, such as internal-sftp",
        ),
        ("/usr/lib/openssh/sftp-server", "no fssync answered there"),
        ("/bin/false", "no fssync answered there"),
        (
            "/usr/sbin/nologin",
            "This account is currently not available",
        ),
    ] {
        let rsh = sshd.rsh(&format!("command=\"{command}\""));
        let url = sshd.url(&scene.master);
        let run = pass(&scene, &url, &rsh, &[]).expect(12);
        assert!(run.stderr.contains(message), "{command}: {run:?}");
        assert!(
            !run.stderr.contains("the connection broke"),
            "{command}: {run:?}"
        );
    }
}

#[test]
fn a_missing_program_makes_the_master_unreachable() {
    let scene = Scene::with_master("one");
    let run = pass(&scene, "host:/x", "/no/such/program", &[]).expect(12);
    assert!(
        run.stderr.contains("/no/such/program cannot be started"),
        "{run:?}"
    );
    pass(&scene, "host:/x", "'", &[]).expect(2);
}

#[test]
fn errors_of_the_program_are_logged() {
    let scene = Scene::with_master("one");
    let run = pass_through(
        &scene,
        "echo 'host key changed' >&2; exec sh -c \"$2\"",
        &[],
    )
    .expect(0);
    assert!(run.stderr.contains("host key changed"), "{run:?}");
}

#[test]
fn a_connection_cut_after_any_number_of_bytes_loses_nothing() {
    let scene = Scene::with_master("commits");
    let mut zodb = Zodb::start();
    let whole = fs::read(&scene.master).expect("the master");
    for cut in (0..3200).step_by(97) {
        let run = pass_over(&scene, cut, "cut", "5");
        assert!([0, 12].contains(&run.code), "{cut}: {run:?}");
        if scene.slave.exists() {
            assert_eq!(run.code, 0, "{cut}: {run:?}");
            assert!(fs::read(&scene.slave).expect("the slave") == whole, "{cut}");
            fs::remove_file(&scene.slave).expect("the slave");
        }
    }
    pass_through(&scene, "exec sh -c \"$2\"", &[]).expect(0);
    zodb.assert_in_sync(&scene.master, &scene.slave);
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 9, "size": 400}));
    for cut in (0..6000).step_by(211) {
        let run = pass_over(&scene, cut, "cut", "5");
        assert!([0, 12].contains(&run.code), "{cut}: {run:?}");
        zodb.assert_prefix(&scene.master, &scene.slave);
    }
    pass_through(&scene, "exec sh -c \"$2\"", &[]).expect(0);
    zodb.assert_in_sync(&scene.master, &scene.slave);
}

#[test]
fn an_end_that_hangs_at_any_stage_is_unreachable_after_the_timeout() {
    let scene = Scene::with_master("commits");
    for stage in [0, 4, 8, 30, 400, 1500, 2400] {
        let started = Instant::now();
        let run = pass_over(&scene, stage, "hang", "0.5").expect(12);
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "{stage}: {run:?}"
        );
        assert!(run.stderr.contains("no answer from"), "{stage}: {run:?}");
        assert!(!scene.slave.exists());
    }
}

/// A master of several megabytes.
fn large_master(scene: &Scene, zodb: &mut Zodb) {
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master, "create": true}));
    for _ in 0..12 {
        let command = json!({"cmd": "commit", "name": "m", "objects": 20, "size": 50_000});
        zodb.call(&command);
    }
}

#[test]
fn a_broken_full_copy_is_resumed() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    large_master(&scene, &mut zodb);
    pass_over(&scene, 9_000_000, "cut", "5").expect(12);
    assert!(!scene.slave.exists());
    let run = pass_through(&scene, "exec sh -c \"$2\"", &[]).expect(0);
    assert!(run.stderr.contains("resuming the copy"), "{run:?}");
    let size = fs::metadata(&scene.master).expect("the master").len();
    let copied = run.report()["bytes"].as_u64().expect("bytes");
    assert!(
        copied < size - 1_000_000,
        "{copied} of {size} bytes were copied again"
    );
    zodb.assert_in_sync(&scene.master, &scene.slave);
}

#[test]
fn a_broken_copy_is_not_resumed_if_the_master_was_packed() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    large_master(&scene, &mut zodb);
    pass_over(&scene, 9_000_000, "cut", "5").expect(12);
    zodb.call(&json!({"cmd": "pack", "name": "m"}));
    let run = pass_through(&scene, "exec sh -c \"$2\"", &[]).expect(0);
    assert!(!run.stderr.contains("resuming the copy"), "{run:?}");
    zodb.assert_in_sync(&scene.master, &scene.slave);
}

#[test]
fn a_slow_connection_does_not_time_out() {
    let scene = Scene::with_master("big-record");
    let started = Instant::now();
    pass_over(&scene, 0, "slow", "1").expect(0);
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "it took longer than the timeout"
    );
}

#[test]
fn a_slow_answer_is_preceded_by_heartbeats() {
    let scene = Scene::new();
    sparse_master(&scene.master, 3 << 30);
    let size = fs::metadata(&scene.master).expect("the master").len();
    let served = scene.master.parent().expect("a directory").to_owned();
    let digests = [Request::Digest(0..size), Request::Confirm(0..size)];
    let replies = ask(
        &[served],
        &[&[look(&scene.master)][..], &digests[..]].concat(),
    );
    let heartbeats = replies
        .iter()
        .filter(|reply| **reply == Reply::Heartbeat)
        .count();
    assert!(heartbeats > 0, "{replies:?}");
    assert!(
        matches!(replies.last(), Some(Reply::Digest(Some(_)))),
        "{replies:?}"
    );
}

#[test]
fn heartbeats_extend_the_wait() {
    let scene = Scene::new();
    let mut heartbeat = Vec::new();
    protocol::write_message(&mut heartbeat, &Reply::Heartbeat).expect("a heartbeat");
    let mut refused = Vec::new();
    let (why, is_transient) = ("refused by the test".to_owned(), false);
    protocol::write_message(&mut refused, &Reply::Refused { why, is_transient }).expect("a reply");
    for (name, bytes) in [
        ("hello", &protocol::hello(protocol::VERSION)[..]),
        ("heartbeat", &heartbeat),
        ("refused", &refused),
    ] {
        fs::write(scene.directory.path().join(name), bytes).expect("a file");
    }
    let text = format!(
        "cd {}; cat hello; for n in 1 2 3 4 5; do cat heartbeat; sleep 0.3; done; cat refused",
        scene.directory.path().display()
    );
    let run = pass_through(&scene, &text, &["--timeout", "0.8"]).expect(12);
    assert!(run.stderr.contains("refused by the test"), "{run:?}");
}

/// The replies of `fssync serve` to these requests, in order.
pub fn ask(paths: &[PathBuf], requests: &[Request]) -> Vec<Reply> {
    let mut input = protocol::hello(protocol::VERSION).to_vec();
    for request in requests {
        protocol::write_message(&mut input, request).expect("a request");
    }
    let mut output = Vec::new();
    server::serve(paths, input.as_slice(), &mut output).expect("the agent");
    let mut from = &output[HELLO_LEN..];
    let mut replies = Vec::new();
    while let Some(reply) = protocol::read_message(&mut from).expect("a reply") {
        let mut left = match reply {
            Reply::Data(len) | Reply::Transactions { len, .. } => len,
            Reply::Blob(BlobEventKind::File { stat, from }) => stat.size - from,
            _ => 0,
        };
        let mut data = vec![0; MAX_DATA_LEN];
        while left > 0 {
            left -= protocol::read_data(&mut from, &mut data).expect("its bytes") as u64;
        }
        replies.push(reply);
    }
    replies
}

pub fn look(path: &Path) -> Request {
    Request::Stat {
        path: path.to_str().expect("UTF-8").to_owned(),
        ranges: Vec::new(),
    }
}

#[test]
fn serve_opens_only_the_paths_that_it_serves() {
    let scene = Scene::with_master("one");
    let outside = Scene::with_master("one");
    let served = scene.master.parent().expect("a directory").to_owned();
    let inside = |name: &str| served.join(name);
    symlink(&outside.master, inside("absolute")).expect("a link");
    symlink(
        "../../../../../../../../../../etc/passwd",
        inside("relative"),
    )
    .expect("a link");
    symlink("Data.fs", inside("within")).expect("a link");
    symlink(
        outside.master.parent().expect("a directory"),
        inside("directory"),
    )
    .expect("a link");
    fs::write(inside("secret"), "root:x:0:0").expect("another file");
    must(std::process::Command::new("mkfifo").arg(inside("fifo")));
    fs::create_dir(inside("empty")).expect("a directory");
    for name in ["Data.fs", "within", ""] {
        let replies = ask(std::slice::from_ref(&served), &[look(&inside(name))]);
        assert!(
            matches!(replies[..], [Reply::Stat { .. }]),
            "{name}: {replies:?}"
        );
    }
    for path in [
        inside("absolute"),
        inside("relative"),
        inside("directory/Data.fs"),
        inside("../slave/../master/Data.fs"),
        inside("secret"),
        inside("fifo"),
        inside("empty"),
        outside.master.clone(),
        PathBuf::from("/etc/passwd"),
        PathBuf::from("/dev/zero"),
        PathBuf::from("/proc/self/mem"),
    ] {
        let read = Request::Read { offset: 0, len: 10 };
        let replies = ask(std::slice::from_ref(&served), &[look(&path), read]);
        assert!(
            replies
                .iter()
                .all(|reply| matches!(reply, Reply::Refused { .. })),
            "{}: {replies:?}",
            path.display()
        );
    }
}

#[test]
fn serve_ends_with_its_input_and_requires_a_path() {
    let scene = Scene::with_master("one");
    let served = scene.master.parent().expect("a directory");
    run(fssync().arg("serve")).expect(2);
    let before = crate::support::names(served);
    let started = Instant::now();
    let silent = run(fssync().arg("serve").arg(served));
    assert_eq!(silent.code, 1, "no hello came: {silent:?}");
    assert!(started.elapsed() < Duration::from_secs(2));
    let mut process = fssync()
        .arg("serve")
        .arg(served)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("serve");
    let mut input = process.stdin.take().expect("its input");
    input
        .write_all(&protocol::hello(protocol::VERSION))
        .expect("a hello");
    drop(input);
    assert!(process.wait().expect("its end").success());
    assert_eq!(
        crate::support::names(served),
        before,
        "nothing is created on the master"
    );
}

/// A source for the scene's master, for each transport.
pub fn sources(scene: &Scene) -> [Box<dyn Source>; 2] {
    [
        Box::new(MountedPath::new(scene.master.clone())),
        Box::new(ssh(target(scene), Heartbeat::default())),
    ]
}

/// The command that connects to the scene's master. All files of the scene are served.
pub fn target(scene: &Scene) -> Target {
    let quick = Sshd::get().quick_rsh().split(' ').map(str::to_owned);
    let url = Sshd::get().url(&scene.master);
    let port = url.split([':', '/']).nth(4).expect("the port").to_owned();
    Target {
        program: quick
            .chain(["-p".to_owned(), port, "root@127.0.0.1".to_owned()])
            .collect(),
        command: format!("{BINARY} serve {}", scene.directory.path().display()),
        path: scene.master.display().to_string(),
    }
}

/// A source that connects with this command.
pub fn ssh(target: Target, heartbeat: Heartbeat) -> Ssh {
    Ssh::new(
        "the master".to_owned(),
        target,
        heartbeat,
        Process::default(),
    )
}

/// Everything that a source lists from a position on, and the tail after it.
fn listed(source: &mut dyn Source, from: u64, size: u64) -> (Vec<(u64, String, u64)>, Tail) {
    let (mut at, mut found) = (from, Vec::new());
    loop {
        let list = source.transactions(at, size).expect("a list");
        for entry in &list.entries {
            found.push((at, entry.tid.to_string(), entry.len));
            at += entry.len;
        }
        if let Some(end) = list.reached.end {
            return (found, end);
        }
    }
}

#[test]
fn transactions_are_listed_over_each_transport_as_zodb_lists_them() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master, "create": true}));
    for size in [10, 70_000, 10, 0, 300] {
        zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 2, "size": size}));
    }
    zodb.call(&json!({"cmd": "vote", "name": "m", "objects": 2, "size": 50_000}));
    let size = fs::metadata(&scene.master).expect("the master").len();
    let by_zodb = zodb.call(&json!({"cmd": "transactions", "path": scene.master}));
    let expected: Vec<_> = by_zodb["transactions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| {
            let position = found["pos"].as_u64().expect("a position");
            let tid = found["tid"].as_str().expect("a tid");
            (
                position,
                tid.to_owned(),
                found["tlen"].as_u64().expect("a length") + 8,
            )
        })
        .collect();
    let boundary = expected[3].0;
    for mut source in sources(&scene) {
        assert!(source.transactions(4, size).is_err(), "there was no survey");
        source.stat(&[]).expect("a sight");
        let voted = Tail::Voted;
        assert_eq!(listed(&mut *source, 4, size), (expected.clone(), voted));
        let rest = expected[3..].to_vec();
        assert_eq!(listed(&mut *source, boundary, size), (rest, voted));
        let before = expected[..3].to_vec();
        assert_eq!(listed(&mut *source, 4, boundary), (before, Tail::Clean));
        for from in [5, 1000, size - 3, size, size + 1, u64::MAX] {
            listed(&mut *source, from, size);
        }
        for beyond in [size + 1, u64::MAX >> 1] {
            let (found, end) = listed(&mut *source, 4, beyond);
            assert_eq!((found, end), (expected.clone(), voted));
        }
    }
}

#[test]
fn an_invalid_list_is_refused() {
    let entry = |tid: u64, len: u64| [&tid.to_be_bytes()[..], &len.to_be_bytes(), b" "].concat();
    let good = [entry(1, 40), entry(2, 60)].concat();
    let whole = (
        good.len() as u64,
        Reached {
            offset: 104,
            end: Some(Tail::Clean),
        },
    );
    let up_to = |offset| (good.len() as u64, Reached { offset, end: None });
    for (what, (len, reached), bytes) in [
        ("a list", whole, good.clone()),
        (
            "longer than announced",
            whole,
            [entry(0, 40), good.clone()].concat(),
        ),
        ("shorter than announced", whole, entry(1, 40)),
        ("not a whole entry", (16, whole.1), good[..16].to_vec()),
        (
            "too short for a transaction",
            whole,
            [entry(1, 40), entry(2, 0)].concat(),
        ),
        (
            "beyond the size of the file",
            whole,
            [entry(1, u64::MAX), entry(2, 50)].concat(),
        ),
        ("beyond the announced offset", up_to(103), good.clone()),
        ("an offset beyond the size", up_to(201), good.clone()),
    ] {
        let scene = Scene::with_master("one");
        let mut reply = protocol::hello(protocol::VERSION).to_vec();
        let sight = &ask(std::slice::from_ref(&scene.master), &[look(&scene.master)])[0];
        protocol::write_message(&mut reply, sight).expect("a sight");
        protocol::write_message(&mut reply, &Reply::Transactions { len, reached })
            .expect("a reply");
        protocol::write_data(&mut reply, &bytes).expect("a list");
        let canned = scene.directory.path().join("reply");
        fs::write(&canned, reply).expect("a file");
        let text = format!("cat {}; exec sleep 60", canned.display());
        let target = Target {
            program: vec![script(&scene, "rsh", &text)],
            command: String::new(),
            path: scene.master.display().to_string(),
        };
        let mut source = Ssh::new(
            "m".to_owned(),
            target,
            Heartbeat::default(),
            Process::default(),
        );
        source.stat(&[]).expect("a sight");
        let list: Result<Transactions, source::Error> = source.transactions(4, 200);
        assert_eq!(list.is_ok(), what == "a list", "{what}: {list:?}");
    }
}

#[test]
fn serve_lists_nothing_before_a_survey() {
    let scene = Scene::with_master("one");
    let list = |from, size| Request::Transactions { from, size };
    let requests = [
        list(4, 100),
        look(&scene.master),
        list(u64::MAX, u64::MAX),
        list(0, u64::MAX),
    ];
    let replies = ask(std::slice::from_ref(&scene.master), &requests);
    assert!(matches!(replies[0], Reply::Refused { .. }), "{replies:?}");
    assert!(
        matches!(replies[2], Reply::Transactions { len: 0, .. }),
        "{replies:?}"
    );
    assert_eq!(replies.len(), 4, "{replies:?}");
}
