//! Root, and runs as another user.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Scene, must, tool, write_program};

/// Fails if the test does not run as root.
#[track_caller]
pub fn require_root() {
    let uid = rustix::process::getuid();
    assert!(
        uid.is_root(),
        "this test must run as root: it mounts, or changes owners"
    );
}

/// A command that runs the program as user and group 65534, who become the owners of the
/// scene.
pub fn as_nobody(scene: &Scene) -> Command {
    let program = own(scene, 65534);
    let mut command = tool("setpriv", "util-linux");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(program);
    command
}

/// Gives the scene to this user and to the group of the same number. Returns a copy of the
/// program that they may run.
pub fn own(scene: &Scene, uid: u32) -> PathBuf {
    require_root();
    let program = scene.directory.path().join("fssync");
    let content = fs::read(env!("CARGO_BIN_EXE_fssync")).expect("the program");
    write_program(&program, content);
    let owner = format!("{uid}:{uid}");
    must(
        Command::new("chown")
            .args(["-R", &owner])
            .arg(scene.directory.path()),
    );
    program
}
