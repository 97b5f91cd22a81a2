//! The other end of a connection: its versions and its clock.

use std::fs;

use fssync::source::protocol::{self, MIN_VERSION, VERSION};

use super::{Checks, synced};
use crate::sshd::Sshd;
use crate::support::{Run, Scene, fssync, project, run, tool, write_program};

/// The version of this program, as `fssync --version` prints it.
const THIS: &str = concat!("fssync ", env!("CARGO_PKG_VERSION"));

/// The checks of a master through ssh, whose other end runs this program.
fn examine_remote(scene: &Scene, rsh: &str, remote_fssync: &str) -> Run {
    let mut command = fssync();
    command.args(["doctor", "--json", "-e", rsh, "--timeout", "20"]);
    command.args(["--remote-fssync", remote_fssync]);
    let master = Sshd::get().url(&scene.master);
    run(command.arg(master).arg(&scene.slave))
}

/// The checks of a master whose other end is this command.
fn examine_through(scene: &Scene, rsh: &str) -> Run {
    let mut command = fssync();
    command.args(["doctor", "--json", "-e", rsh, "--timeout", "20"]);
    let master = "host:/srv/plone/var/filestorage/Data.fs";
    run(command.arg(master).arg(&scene.slave))
}

/// sshd starts the other end with another clock.
#[test]
fn clocks_that_differ_are_found() {
    tool("faketime", "faketime");
    let scene = synced();
    for (shift, is_wrong) in [("+2h", true), ("-2h", true), ("+1s", false)] {
        let forced = format!(
            "command=\"DONT_FAKE_MONOTONIC=1 faketime -f {shift} sh -c \\\"$SSH_ORIGINAL_COMMAND\\\"\""
        );
        let rsh = Sshd::get().rsh(&forced);
        let run = examine_remote(&scene, &rsh, env!("CARGO_BIN_EXE_fssync"));
        let checks = Checks::of(&run.expect(0));
        if is_wrong {
            checks.expect("clock", "warn", "differ by ");
            checks.expect("clock", "warn", "synchronise the clocks");
        } else {
            checks.expect("clock", "ok", "");
        }
    }
}

#[test]
fn a_master_that_was_modified_in_the_future_is_found() {
    let scene = synced();
    let hour = std::time::Duration::from_secs(3600);
    let master = fs::File::options().write(true).open(&scene.master).unwrap();
    let later = std::time::SystemTime::now() + hour;
    master.set_modified(later).unwrap();
    let checks = super::examine(&scene, 0);
    checks.expect("clock", "warn", "in the future");
}

/// The two machines are not upgraded at the same moment.
#[test]
fn another_version_that_speaks_the_same_protocol_is_accepted() {
    let scene = synced();
    let other = scene.directory.path().join("fssync-0.0.9");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo fssync 0.0.9; exit; }}\nexec '{}' \"$@\"\n",
        env!("CARGO_BIN_EXE_fssync")
    );
    write_program(&other, script);
    let run = examine_remote(&scene, &Sshd::get().rsh(""), &other.display().to_string());
    let seen = format!("fssync 0.0.9 on the master, {THIS} here: they can work together");
    Checks::of(&run.expect(0)).expect("versions", "ok", &seen);
}

/// The other end answers as a real program of the previous version of the protocol did. doctor
/// looks at the master once more than the recorded pass, and its dry run does not read the magic.
#[test]
fn a_master_with_the_previous_version_of_the_protocol_passes() {
    let scene = Scene::new();
    let recorded = project(&format!("fixtures/protocol-{MIN_VERSION}/copy.txt"));
    let recorded = fs::read_to_string(recorded).unwrap();
    let frames = recorded.split_inclusive('\n');
    let look: String = frames
        .filter(|line| !line.contains(" hello "))
        .take(2)
        .collect();
    let transcript = scene.directory.path().join("transcript");
    let magic = "> J {\"Read\":{\"offset\":0,\"len\":4}}\n< J {\"Data\":4}\n< D 46533330\n";
    let replayed = recorded.replacen(&look, &look.repeat(2), 1);
    fs::write(&transcript, replayed.replace(magic, "")).unwrap();
    let program = project("tests/transcript.py");
    let rsh = format!(
        "python3 {} replay {}",
        program.display(),
        transcript.display()
    );
    let checks = Checks::of(&examine_through(&scene, &rsh).expect(0));
    checks.expect("master", "ok", "is a FileStorage");
    checks.expect("next-pass", "ok", "exit with 0");
}

#[test]
fn a_version_that_speaks_another_protocol_is_found() {
    for (version, advice) in [
        (MIN_VERSION - 1, "upgrade fssync on the master"),
        (VERSION + 1, "upgrade fssync on this machine"),
    ] {
        let scene = Scene::new();
        let hello = scene.directory.path().join("hello");
        fs::write(&hello, protocol::hello(version)).unwrap();
        let script = format!("cat {}; exec sleep 60", hello.display());
        let rsh = shlex::try_join(["sh", "-c", &script]).unwrap();
        let checks = Checks::of(&examine_through(&scene, &rsh).expect(12));
        checks.expect("master", "fail", "protocol mismatch");
        checks.expect("master", "fail", advice);
        assert!(!checks.has("connection"));
    }
}
