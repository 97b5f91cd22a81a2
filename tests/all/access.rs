//! Access to the files that a pass creates: owner, mode, ACL and other extended attributes,
//! with and without a slave to copy them from.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};

use crate::support::{
    History, Run, Scene, Zodb, append_killed_at_sync, as_nobody, fssync, must, names, replace,
    require_root, rewrite_end, run, strace, tool,
};

/// The ACL of a file, as `getfacl` prints it.
fn acl(file: &Path) -> String {
    let printed = must(tool("getfacl", "acl").arg("-cpE").arg(file)).stdout;
    String::from_utf8(printed).unwrap()
}

fn set_acl(options: &[&str], file: &Path) {
    must(tool("setfacl", "acl").args(options).arg(file));
}

/// The names and values of a file's extended attributes, without ACLs.
fn attributes(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut buffer = vec![0; 65536];
    let len = listxattr(file, &mut buffer[..]).unwrap();
    let names = buffer[..len].split(|&byte| byte == 0);
    let mut found: Vec<_> = names
        .map(|name| String::from_utf8(name.to_owned()).unwrap())
        .filter(|name| !name.is_empty() && !name.starts_with("system."))
        .map(|name| {
            let mut value = vec![0; 65536];
            let len = getxattr(file, &*name, &mut value[..]).unwrap();
            value.truncate(len);
            (name, value)
        })
        .collect();
    found.sort();
    found
}

/// Removes all files beside the slave.
fn remove_beside(scene: &Scene) {
    for name in scene.beside_slave() {
        if name != "Data.fs" {
            fs::remove_file(scene.slave.with_file_name(name)).unwrap();
        }
    }
}

/// Full copies and appends that create every kind of file beside the slave.
fn create_all_files(scene: &Scene) {
    remove_beside(scene);
    rewrite_end(&scene.master, &History::get().after);
    scene.expect("append");
    let mut tail = History::get().after.clone();
    tail.extend(&b"a torn tail, which is kept"[..]);
    rewrite_end(&scene.slave, &tail);
    replace(&scene.master, &History::get().packed);
    scene.expect("full-copy");
    rewrite_end(
        &scene.slave,
        &[&History::get().packed[..], &b"torn"[..]].concat(),
    );
    let mut zodb = Zodb::start();
    zodb.call(&serde_json::json!({"cmd": "open", "name": "m", "path": scene.master}));
    zodb.call(&serde_json::json!({"cmd": "commit", "name": "m"}));
    zodb.call(&serde_json::json!({"cmd": "close", "name": "m"}));
    scene.expect("trim-append");
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    run(fssync().arg("on").arg(&scene.slave)).expect(0);
    for name in [
        ".fssync",
        ".fssync-pass",
        ".fssync-step",
        ".fssync-ledger",
        ".fssync-switch",
        ".index",
        ".lock",
        ".tr0",
    ] {
        assert!(scene.beside(name).exists(), "{name}");
    }
}

#[test]
fn created_files_get_the_slaves_acl() {
    let scene = Scene::synced(History::get());
    fs::set_permissions(&scene.slave, Permissions::from_mode(0o600)).unwrap();
    set_acl(&["-m", "u:daemon:r,g:mail:rw,m::r"], &scene.slave);
    let before = acl(&scene.slave);
    assert!(before.contains("group::---"), "{before}");
    create_all_files(&scene);
    for name in scene.beside_slave() {
        let its = acl(&scene.slave.with_file_name(&name));
        assert_eq!(its, before, "{name}");
    }
}

#[test]
fn a_default_acl_of_the_directory_grants_no_access() {
    let scene = Scene::synced(History::get());
    let directory = scene.slave.parent().unwrap();
    for mode in [0o600, 0o664] {
        replace(&scene.master, &History::get().before);
        replace(&scene.slave, &History::get().before);
        fs::set_permissions(&scene.slave, Permissions::from_mode(mode)).unwrap();
        set_acl(&["-b"], &scene.slave);
        let before = acl(&scene.slave);
        set_acl(&["-d", "-m", "u:daemon:rwx,g::rwx,o::rwx"], directory);
        create_all_files(&scene);
        for name in scene.beside_slave() {
            let its = acl(&scene.slave.with_file_name(&name));
            assert_eq!(its, before, "{name}");
        }
        set_acl(&["-k"], directory);
    }
}

#[test]
fn created_files_get_the_slaves_extended_attributes() {
    require_root();
    let scene = Scene::synced(History::get());
    let large = vec![b'x'; 2000];
    for (name, value) in [
        ("user.comment", &b"the site's"[..]),
        ("user.large", &large),
        ("security.fssync", b"a label"),
    ] {
        setxattr(&scene.slave, name, value, XattrFlags::empty()).unwrap();
    }
    let before = attributes(&scene.slave);
    assert!(before.len() >= 3, "{before:?}");
    create_all_files(&scene);
    for name in scene.beside_slave() {
        let its = attributes(&scene.slave.with_file_name(&name));
        assert_eq!(its, before, "{name}");
    }
}

/// A full copy during which every attempt to set an attribute fails.
fn copy_that_cannot_set_attributes(scene: &Scene, error: &str) -> Run {
    replace(&scene.master, &History::get().packed);
    let inject = format!("inject=fsetxattr:error={error}");
    let copy = scene.beside(".fssync-tmp");
    let mut command = strace(&["-e", &inject], &[copy]);
    run(command.arg("-q").args([&scene.master, &scene.slave])).expect(0)
}

#[test]
fn failing_to_set_an_acl_warns_and_grants_no_more_access() {
    for (entries, mode) in [
        ("u:daemon:r,m::r", 0o600),
        ("g::r,u:daemon:r,m::rw", 0o640),
        ("g::r,g:mail:-,o::r,m::r", 0o640),
    ] {
        for error in ["EOPNOTSUPP", "EPERM", "ENOSPC"] {
            let scene = Scene::synced(History::get());
            fs::set_permissions(&scene.slave, Permissions::from_mode(0o600)).unwrap();
            set_acl(&["-m", entries], &scene.slave);
            let copied = copy_that_cannot_set_attributes(&scene, error);
            let found = fs::metadata(&scene.slave).unwrap().mode() & 0o7777;
            assert_eq!(found, mode, "{entries}: {}", acl(&scene.slave));
            assert_eq!(copied.stderr.lines().count(), 1, "{copied:?}");
            assert!(
                copied.stderr.contains("system.posix_acl_access"),
                "{copied:?}"
            );
            assert!(fs::read(&scene.slave).unwrap() == History::get().packed);
            let next = run(&mut scene.command(&["-q"])).expect(0);
            assert_eq!(next.stderr, "", "the warning is printed once");
        }
    }
}

/// Some file systems set an attribute themselves, for example a label of SELinux.
#[test]
fn an_attribute_that_the_file_already_has_causes_no_warning() {
    require_root();
    let scene = Scene::synced(History::get());
    let (name, value) = ("user.label", b"a label");
    fs::write(scene.beside(".fssync-tmp"), "").unwrap();
    for file in [&scene.slave, &scene.beside(".fssync-tmp")] {
        setxattr(file, name, value, XattrFlags::empty()).unwrap();
    }
    let copied = copy_that_cannot_set_attributes(&scene, "EPERM");
    assert_eq!(copied.stderr, "");
    assert_eq!(attributes(&scene.slave).len(), 1);
}

/// A slave's directory that another user owns and this user may write.
fn make_directory_roots(scene: &Scene, gid: u32, mode: u32) {
    let directory = scene.slave.parent().unwrap();
    chown(directory, Some(0), Some(gid)).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_ordinary_user_creates_own_files_in_roots_directory() {
    // Like a volume that Kubernetes creates with fsGroup, and like an emptyDir.
    for (gid, mode) in [(65534, 0o2775), (0, 0o1777)] {
        let scene = Scene::with_master("commits");
        let program = as_nobody(&scene);
        let as_nobody = |words: &[&str]| {
            let mut command = Command::new(program.get_program());
            command.args(program.get_args()).args(words);
            run(command.arg(&scene.slave))
        };
        make_directory_roots(&scene, gid, mode);
        as_nobody(&["off", "--force"]).expect(0);
        as_nobody(&["on"]).expect(0);
        let master = scene.master.to_str().unwrap();
        as_nobody(&[master]).expect(0);
        as_nobody(&[master, "--full"]).expect(0);
        as_nobody(&["off"]).expect(0);
        for name in scene.beside_slave() {
            let found = fs::metadata(scene.slave.with_file_name(&name)).unwrap();
            assert_eq!(found.uid(), 65534, "{name}");
            assert_eq!(found.gid(), 65534, "{name}");
        }
    }
}

#[test]
fn a_group_with_write_access_can_sync_roots_slave() {
    for (owner, exit) in [(0, 0), (4242, 1)] {
        let scene = Scene::with_master("commits");
        let program = as_nobody(&scene);
        let commits = fs::read(&scene.master).unwrap();
        fs::write(&scene.slave, &commits[..1362]).unwrap();
        chown(&scene.slave, Some(owner), Some(65534)).unwrap();
        fs::set_permissions(&scene.slave, Permissions::from_mode(0o664)).unwrap();
        make_directory_roots(&scene, 65534, 0o2775);
        let master = scene.master.to_str().unwrap();
        for words in [&["off"][..], &["on"], &[master], &["--full", master]] {
            let mut command = Command::new(program.get_program());
            command.args(program.get_args()).args(words);
            run(command.arg(&scene.slave)).expect(exit);
        }
        let names = scene.beside_slave();
        assert_eq!(names.len() > 1, exit == 0, "{names:?}");
        for name in names {
            let found = fs::metadata(scene.slave.with_file_name(&name)).unwrap();
            assert_eq!(
                (found.gid(), found.mode() & 0o777),
                (65534, 0o664),
                "{name}"
            );
        }
    }
}

/// Root in a container without the capability to change owners.
#[test]
fn root_without_cap_chown_keeps_its_files() {
    require_root();
    let scene = Scene::with_master("commits");
    let directory = scene.slave.parent().unwrap();
    chown(directory, Some(4242), Some(4242)).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
    let mut command = tool("setpriv", "util-linux");
    command.args(["--bounding-set=-chown", "--inh-caps=-chown"]);
    command.arg(env!("CARGO_BIN_EXE_fssync"));
    run(command.args([&scene.master, &scene.slave])).expect(0);
    assert_eq!(fs::metadata(&scene.slave).unwrap().uid(), 0);
    assert!(names(directory).contains(&"Data.fs.index".to_owned()));
}

#[test]
fn writing_to_a_slave_with_hard_links_prints_a_warning() {
    let history = History::get();
    let warning = "has 1 other name (hard links)";
    let quiet = |scene: &Scene| run(&mut scene.command(&["-q"])).expect(0);
    let scene = Scene::synced(history);
    let snapshot = scene.directory.path().join("snapshot.fs");
    fs::hard_link(&scene.slave, &snapshot).unwrap();
    assert_eq!(quiet(&scene).stderr, "", "nothing is written");
    rewrite_end(&scene.master, &history.after);
    let appended = quiet(&scene);
    assert!(appended.stderr.contains(warning), "{appended:?}");
    assert_eq!(appended.stderr.lines().count(), 1, "{appended:?}");
    assert_eq!(quiet(&scene).stderr, "");
    // A full copy replaces the file; the snapshot is not changed.
    replace(&scene.master, &history.packed);
    assert_eq!(quiet(&scene).stderr, "");
    assert!(fs::read(&snapshot).unwrap() == history.after);

    let scene = append_killed_at_sync(2);
    fs::hard_link(&scene.slave, scene.beside(".snapshot")).unwrap();
    let cut = scene.pass(&[]).expect(0);
    assert!(cut.stderr.contains(warning), "{cut:?}");
}
