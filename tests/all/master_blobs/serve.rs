//! `fssync serve` sends only the blobs of served directories, and only to requests that it can
//! answer.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fssync::filestorage::blob::{LAYOUT_FILE, Layout};
use fssync::source::blobs::{
    BlobDigest, BlobDigestAnswer, BlobEventKind, BlobFailure, BlobRoot, BlobsProblem, HaveBlob,
    MAX_WANTS,
};
use fssync::source::protocol::{Reply, Request};
use fssync::source::ssh::{Process, Ssh, Target};
use fssync::source::{Error, FileSystem, Heartbeat, Source};

use super::{Site, answers, key, want};
use crate::remote::{ask, look};
use crate::sshd::Sshd;
use crate::support::{as_nobody, measured};

const BINARY: &str = env!("CARGO_BIN_EXE_fssync");

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The file system of a directory, by the type that `statfs` returns.
fn file_system(directory: &Path) -> FileSystem {
    let found = rustix::fs::statfs(directory).expect("a directory");
    FileSystem(found.f_type.cast_unsigned())
}

/// Requests for everything about one blob of a directory.
fn requests(directory: &Path) -> [Request; 3] {
    let directory = text(directory);
    [
        Request::BlobRoot {
            given: Some(directory.clone()),
        },
        Request::Blobs {
            directory: directory.clone(),
            layout: Layout::Lawn,
            wants: vec![want(key(1, 1))],
        },
        Request::BlobDigests {
            directory,
            layout: Layout::Lawn,
            keys: vec![key(1, 1)],
        },
    ]
}

/// A source that talks to the program `fssync` with these arguments.
fn source(program: &[&str], arguments: &str) -> Ssh {
    let target = Target {
        program: [program, &["sh", "-c"]]
            .concat()
            .iter()
            .map(|&it| it.to_owned())
            .collect(),
        command: format!("exec {arguments}"),
        path: String::new(),
    };
    Ssh::new(
        "m".to_owned(),
        target,
        Heartbeat::default(),
        Process::default(),
    )
}

#[test]
fn only_blobs_at_or_below_a_served_path_are_sent() {
    let site = Site::new(Layout::Lawn);
    site.write(key(1, 1), b"a blob");
    let outside = Site::new(Layout::Lawn);
    outside.write(key(1, 1), b"secret");
    let var = site.scene.master.parent().expect("a directory").to_owned();
    symlink(&outside.directory, var.join("out")).expect("a link");
    symlink("blobstorage", var.join("within")).expect("a link");
    let link = site.scene.directory.path().join("link");
    symlink(&var, &link).expect("a link");
    let master = site.scene.master.clone();
    let blobs = site.directory.clone();
    let up = var.join("..").join("master/blobstorage");
    for (served, directory, is_sent) in [
        (vec![var.clone()], blobs.clone(), true),
        (vec![master.clone(), blobs.clone()], blobs.clone(), true),
        (vec![var.clone()], var.join("within"), true),
        // A served path may be a link. The blobs are then found beside its target.
        (vec![link.clone()], blobs.clone(), true),
        (vec![link.clone()], link.join("blobstorage"), true),
        (vec![master.clone()], blobs.clone(), false),
        (vec![var.clone()], outside.directory.clone(), false),
        (vec![var.clone()], var.join("out"), false),
        (vec![var.clone()], up, false),
        (vec![blobs.clone()], blobs.join("../blobstorage"), false),
        (vec![var.clone()], PathBuf::from("blobstorage"), false),
        (vec![var.clone()], PathBuf::new(), false),
        (vec![var.clone()], PathBuf::from("/"), false),
    ] {
        let not_served = Reply::Blobs(BlobsProblem::NotServed {
            directories: vec![text(&directory)],
        });
        let replies = ask(&served, &requests(&directory));
        if is_sent {
            assert!(
                matches!(
                    replies[..],
                    [
                        Reply::BlobRoot(_),
                        Reply::Blob(BlobEventKind::File { .. }),
                        Reply::Blob(BlobEventKind::Complete),
                        Reply::BlobDigest(BlobDigestAnswer::Digested(BlobDigest { size: 6, .. })),
                    ]
                ),
                "{directory:?}: {replies:?}"
            );
        } else {
            let expected = [not_served.clone(), not_served.clone(), not_served];
            assert_eq!(replies, expected, "{served:?}");
        }
    }
}

#[test]
fn the_usual_directories_must_be_served_too() {
    let site = Site::new(Layout::Lawn);
    let master = &site.scene.master;
    let find = [look(master), Request::BlobRoot { given: None }];
    let usual = ["blobstorage", "blobs"].map(|name| text(&master.with_file_name(name)));
    let replies = ask(std::slice::from_ref(master), &find);
    let not_served = BlobsProblem::NotServed {
        directories: usual.to_vec(),
    };
    assert_eq!(replies[1], Reply::Blobs(not_served));
    let replies = ask(&[master.clone(), site.directory.clone()], &find);
    let found = BlobRoot {
        directory: text(&site.directory),
        layout: Layout::Lawn,
        slave_id: None,
        file_system: Some(file_system(&site.directory)),
    };
    assert_eq!(replies[1], Reply::BlobRoot(found.clone()));
    let before_a_stat = ask(std::slice::from_ref(master), &find[1..]);
    assert!(matches!(before_a_stat[..], [Reply::Refused { .. }]));

    // Without a forced command, the program serves them with --blobs.
    let path = text(master);
    for (option, is_found) in [("", false), ("--blobs", true)] {
        let target = Target {
            program: vec!["sh".to_owned(), "-c".to_owned()],
            command: format!("exec {BINARY} serve {option} -- {path}"),
            path: path.clone(),
        };
        let (heartbeat, process) = (Heartbeat::default(), Process::default());
        let mut source = Ssh::new("m".to_owned(), target, heartbeat, process);
        source.stat(&[]).expect("the master");
        let root = source.blob_root(None);
        assert_eq!(root.is_ok(), is_found, "{root:?}");
        if let Ok(root) = root {
            assert_eq!(root, found);
        }
    }
}

#[test]
fn blobs_are_sent_through_a_forced_command() {
    let site = Site::new(Layout::Bushy);
    site.write(key(7, 9), b"a blob");
    let var = site.scene.master.parent().expect("a directory").display();
    let rsh = Sshd::get().rsh(&format!("command=\"{BINARY} serve {var}\",restrict"));
    let url = Sshd::get().url(&site.scene.master);
    let port = url.split([':', '/']).nth(4).expect("the port");
    let program = format!("{rsh} -p {port} root@127.0.0.1");
    let target = Target {
        program: program.split(' ').map(str::to_owned).collect(),
        command: "ignored".to_owned(),
        path: text(&site.scene.master),
    };
    let (heartbeat, process) = (Heartbeat::default(), Process::default());
    let mut source = Ssh::new("m".to_owned(), target, heartbeat, process);
    source.stat(&[]).expect("the master");
    let root = source.blob_root(None).expect("a blob directory");
    let all = answers(&mut source, &root, &[want(key(7, 9))]).expect("answers");
    assert_eq!(all[0].bytes, b"a blob");
}

#[test]
fn a_request_for_too_many_blobs_is_refused() {
    let site = Site::new(Layout::Lawn);
    let directory = text(&site.directory);
    let served = [site.directory.clone()];
    for (count, replies) in [(MAX_WANTS, MAX_WANTS), (MAX_WANTS + 1, 1)] {
        let wants = vec![want(key(1, 1)); count];
        let keys = vec![key(1, 1); count];
        let (layout, directory) = (Layout::Lawn, directory.clone());
        let blobs = ask(
            &served,
            &[Request::Blobs {
                directory: directory.clone(),
                layout,
                wants,
            }],
        );
        let digests = ask(
            &served,
            &[Request::BlobDigests {
                directory,
                layout,
                keys,
            }],
        );
        assert_eq!((blobs.len(), digests.len()), (replies, replies));
        let is_refused = matches!(blobs[0], Reply::Refused { .. });
        assert_eq!(is_refused, count > MAX_WANTS);
    }
}

#[test]
fn blobs_that_the_reader_may_not_read_are_denied() {
    let site = Site::new(Layout::Lawn);
    for oid in 1..=3 {
        site.write(key(oid, 1), b"a blob");
    }
    let nobody = as_nobody(&site.scene);
    let mut program = vec![nobody.get_program()];
    program.extend(nobody.get_args());
    let program: Vec<_> = program
        .iter()
        .map(|it| it.to_str().expect("UTF-8"))
        .collect();
    let (fssync, as_nobody) = program.split_last().expect("a program");
    let var = site.scene.master.parent().expect("a directory");
    let mut source = source(as_nobody, &format!("{fssync} serve {}", var.display()));
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    set_mode(&site.path(key(1, 1)), 0);
    set_mode(site.path(key(2, 1)).parent().expect("a directory"), 0);
    let root = source
        .blob_root(Some(&text(&site.directory)))
        .expect("a blob directory");
    let wants: Vec<_> = (1..=4).map(|oid| want(key(oid, 1))).collect();
    let all = answers(&mut source, &root, &wants).expect("answers");
    for denied in &all[..2] {
        assert!(
            matches!(&denied.events[..], [BlobEventKind::Failed { kind: BlobFailure::Denied, why }]
                if why.ends_with("/0x01.blob")),
            "{denied:?}"
        );
    }
    let keys: Vec<_> = wants.iter().map(|want| want.key).collect();
    let digests = source.blob_digests(&root, &keys, &|| {}).expect("answers");
    for (denied, answer) in all.iter().zip(&digests[..2]) {
        assert!(
            matches!((&denied.events[..], answer),
                ([BlobEventKind::Failed { kind, why }],
                    BlobDigestAnswer::Failed { kind: same, why: text })
                    if (kind, why) == (same, text)),
            "{answer:?}"
        );
    }
    assert!(matches!(digests[2], BlobDigestAnswer::Digested(_)));
    assert_eq!(digests[3], BlobDigestAnswer::Absent);
    assert_eq!(all[2].bytes, b"a blob");
    assert_eq!(all[3].events, [BlobEventKind::Absent]);
    let mut assert_denied = |path: &Path| {
        let failed = source
            .blob_root(Some(&root.directory))
            .expect_err("it is denied");
        assert!(
            matches!(&failed, Error::Blobs { problem: BlobsProblem::Denied { path: it }, .. }
                if *it == text(path)),
            "{failed:?}"
        );
        assert!(failed.hint().expect("a hint").contains("ZEO"));
    };
    let own = site.directory.join(".fssync");
    fs::create_dir(&own).expect("a directory");
    set_mode(&own, 0o700);
    assert_denied(&own);
    set_mode(&site.directory.join(LAYOUT_FILE), 0);
    assert_denied(&site.directory.join(LAYOUT_FILE));
    set_mode(&site.directory, 0);
    assert_denied(&site.directory);
}

#[test]
fn heartbeats_precede_the_digest_of_a_huge_blob() {
    let site = Site::new(Layout::Lawn);
    site.write(key(1, 1), b"");
    let len = 3 << 30;
    let file = File::create(site.path(key(1, 1))).expect("a blob");
    file.set_len(len).expect("its size");
    let [_, _, digest] = requests(&site.directory);
    let same_size = Request::Blobs {
        directory: text(&site.directory),
        layout: Layout::Lawn,
        wants: vec![fssync::source::blobs::BlobWant {
            have: Some(HaveBlob {
                size: len,
                modified: None,
            }),
            ..want(key(1, 1))
        }],
    };
    for request in [digest, same_size] {
        let replies = ask(std::slice::from_ref(&site.directory), &[request]);
        let (last, heartbeats) = replies.split_last().expect("replies");
        let is_digest = matches!(
            last,
            Reply::BlobDigest(BlobDigestAnswer::Digested(_))
                | Reply::Blob(BlobEventKind::SameSize { .. })
        );
        assert!(is_digest && !heartbeats.is_empty(), "{replies:?}");
        assert!(heartbeats.iter().all(|it| *it == Reply::Heartbeat));
    }
}

#[test]
fn a_huge_blob_takes_little_memory_on_the_master() {
    let site = Site::new(Layout::Lawn);
    site.write(key(1, 1), b"");
    let file = File::create(site.path(key(1, 1))).expect("a blob");
    file.set_len(1 << 30).expect("its size");
    let mut input = fssync::source::protocol::hello(fssync::source::protocol::VERSION).to_vec();
    let [_, blobs, _] = requests(&site.directory);
    fssync::source::protocol::write_message(&mut input, &blobs).expect("a request");
    let asked = site.scene.directory.path().join("input");
    fs::write(&asked, input).expect("a file");
    let mut serve = Command::new("sh");
    let script = format!(
        "exec {BINARY} serve {} < {} | wc -c",
        site.directory.display(),
        asked.display()
    );
    let (run, taken) = measured(serve.args(["-c", &script]));
    let sent: u64 = run.stdout.trim().parse().expect("a number");
    assert!(sent > 1 << 30, "{run:?}");
    assert!(taken.memory < 32 << 20, "{taken:?}");
}
