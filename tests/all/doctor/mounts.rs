//! Real mounts of the master and of the slave. For NFS, see `nfs`.

use std::process::Command;

use super::{Checks, command, examine_after, shown, synced};
use crate::sshd::Sshd;
use crate::support::{must, run, tool, wait_for};

#[test]
fn a_master_that_is_mounted_with_sshfs_is_found() {
    tool("sshfs", "sshfs");
    let mut scene = synced();
    let mount = scene.directory.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let directory = scene.master.parent().unwrap();
    let sshd = Sshd::get();
    let mut words = shlex::split(&sshd.rsh("")).unwrap();
    words[0] = format!("ssh_command={}", words[0]);
    let mut sshfs = Command::new("sshfs");
    sshfs.args(["-p", &sshd.port().to_string(), "-o", &words.join(" ")]);
    sshfs.arg(format!("root@127.0.0.1:{}", directory.display()));
    must(sshfs.arg(&mount));
    scene.master = mount.join("Data.fs");
    wait_for("the mount", || scene.master.exists());
    let checks = run(&mut command(&scene));
    must(Command::new("umount").arg("-l").arg(&mount));
    let checks = Checks::of(&checks.expect(0));
    checks.expect("master-mount", "warn", "mounted as fuse.sshfs");
    checks.expect("master-mount", "warn", "read the master through ssh");
}

#[test]
fn a_slave_that_is_mounted_read_only_is_found() {
    let scene = synced();
    let directory = shown(scene.slave.parent().unwrap());
    let script =
        format!("mount --bind {directory} {directory}; mount -o remount,bind,ro {directory}");
    let checks = Checks::of(&examine_after(&scene, &script).expect(2));
    checks.expect("slave", "fail", "Read-only file system");
    checks.expect("slave-directory", "fail", "");
    checks.expect("slave-file-system", "fail", "Read-only file system");
}
