//! The meaning of a path that is given for the slave: a directory, a file, or a path for which
//! no pass was ever made.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Run, Scene, Transport, fssync, must, names, require_root, run, tool};

/// A pass with the scene's transport, from and to these paths.
fn pass(scene: &Scene, options: &[&str], master: &Path, slave: impl Into<OsString>) -> Run {
    let mut command = scene.command(options);
    let program = PathBuf::from(command.get_program());
    let mut words: Vec<OsString> = command.get_args().map(OsString::from).collect();
    words.truncate(words.len() - 2);
    command = Command::new(program);
    command.args(words).arg(scene.typed(master));
    run(command.arg(slave.into()))
}

/// The same names, as directories and as files, at both ends.
struct Case {
    scene: Scene,
    root: PathBuf,
}

impl Case {
    /// The master is `Data.fs` in the directory `var`, and there is a copy called `Storage`.
    fn new(transport: Transport) -> Self {
        let scene = Scene::with_master("commits").over(transport);
        let root = scene.directory.path().join("copy");
        fs::create_dir(&root).unwrap();
        let masters = scene.directory.path().join("var");
        fs::rename(scene.master.parent().unwrap(), &masters).unwrap();
        fs::copy(masters.join("Data.fs"), masters.join("Storage")).unwrap();
        Self { scene, root }
    }

    fn master(&self, name: &str) -> PathBuf {
        self.scene.directory.path().join(name)
    }

    /// Fails unless a pass exits with 2 and creates nothing.
    #[track_caller]
    fn assert_refused(&self, master: &str, slave: &str, says: &str) {
        let slave = self.root.join(slave);
        let refused = pass(&self.scene, &["-q"], &self.master(master), &slave).expect(2);
        assert!(refused.stderr.contains(says), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        assert_eq!(names(&self.root), [""; 0], "nothing is created");
    }
}

#[test]
fn a_missing_directory_is_not_mistaken_for_a_file() {
    for transport in Transport::BOTH {
        let case = Case::new(transport);
        for master in ["var", "var/Data.fs", "var/Storage"] {
            for slave in ["var", "vra", "data", "Data.fs.d", "Data"] {
                case.assert_refused(master, slave, "create the directory");
            }
            for slave in ["var/", "Data.fs/", "Data.fs/.", "var/..", "var/."] {
                case.assert_refused(master, slave, "create the directory");
            }
            case.assert_refused(master, "var/Data.fs", "does not exist");
        }
        case.assert_refused("var", "Data.fs", "the master is a directory");
        case.assert_refused("var/", "site.fs", "the master is a directory");
    }
}

#[test]
fn a_file_is_created_if_the_name_looks_like_a_file() {
    for transport in Transport::BOTH {
        for (master, slave) in [
            ("var/Data.fs", "Data.fs"),
            ("var/Data.fs", "site.fs"),
            ("var/Storage", "Data.fs"),
            ("var/Storage", "Storage"),
        ] {
            let case = Case::new(transport);
            let slave = case.root.join(slave);
            for _ in 0..2 {
                pass(&case.scene, &["-q"], &case.master(master), &slave).expect(0);
            }
            let bytes = fs::read(case.master(master)).unwrap();
            assert!(fs::read(&slave).unwrap() == bytes, "{slave:?}");
            // `off` must find this name again, even without the slave.
            fs::remove_file(&slave).unwrap();
            run(fssync().arg("off").arg(&slave)).expect(0);
        }
    }
}

#[test]
fn a_slave_that_existed_is_copied_again_from_a_file_or_a_directory() {
    let case = Case::new(Transport::Path);
    let slave = case.root.join("site.fs");
    pass(&case.scene, &["-q"], &case.master("var/Data.fs"), &slave).expect(0);
    pass(&case.scene, &["-q"], &case.master("var"), &slave).expect(0);
    fs::remove_file(&slave).unwrap();
    pass(&case.scene, &["-q"], &case.master("var"), &slave).expect(0);
}

#[test]
fn a_directory_is_recognised_in_every_spelling() {
    for slave in ["copy", "copy/", "copy/.", "./copy", "copy/../copy/"] {
        let case = Case::new(Transport::Path);
        let mut command = fssync();
        command.current_dir(case.scene.directory.path());
        run(command.args(["-q", "var", slave])).expect(0);
        assert!(case.root.join("Data.fs").exists(), "{slave}");
    }
    let case = Case::new(Transport::Path);
    let mut command = fssync();
    run(command.current_dir(&case.root).args(["-q", "../var", "."])).expect(0);
    assert!(case.root.join("Data.fs").exists());
    let mut relative = fssync();
    relative.current_dir(case.scene.directory.path());
    run(relative.args(["-q", "var", "vra"])).expect(2);
    assert!(!case.master("vra").exists());
}

#[test]
fn a_dangling_link_is_refused() {
    let case = Case::new(Transport::Path);
    for name in ["var", "Data.fs"] {
        let link = case.master(&format!("link-{name}"));
        symlink(case.root.join(name), &link).unwrap();
        let refused = pass(&case.scene, &["-q"], &case.master("var"), &link).expect(2);
        assert!(
            refused
                .stderr
                .contains("a symbolic link to a file that does not exist"),
            "{refused:?}"
        );
        assert_eq!(names(&case.root), [""; 0]);
    }
}

/// A cron job and a watch whose slave's disk is not mounted.
#[test]
fn nothing_is_copied_to_the_mount_point_of_an_unmounted_disk() {
    require_root();
    let case = Case::new(Transport::Path);
    let slave = case.root.join("var");
    must(
        tool("mount", "mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&case.root),
    );
    fs::create_dir(&slave).unwrap();
    let mounted = pass(&case.scene, &["-q"], &case.master("var"), &slave);
    must(Command::new("umount").arg(&case.root));
    mounted.expect(0);
    case.assert_refused("var", "var", "mount its file system");
    pass(&case.scene, &["--watch", "-q"], &case.master("var"), &slave).expect(2);
    for verb in ["off", "on", "status", "verify"] {
        let refused = run(fssync().arg(verb).arg(&slave)).expect(2);
        assert!(
            refused.stderr.contains("create the directory"),
            "{refused:?}"
        );
    }
    run(fssync().args(["off", "--force"]).arg(&slave)).expect(2);
    assert_eq!(names(&case.root), [""; 0]);
}

/// A master that is unreachable does not show whether the slave is a file or a directory. No
/// file may be created, because the next `off` would take it as a sign of a slave.
#[test]
fn no_file_is_created_while_the_master_is_missing() {
    let case = Case::new(Transport::Path);
    pass(
        &case.scene,
        &[],
        &case.master("lost/var"),
        case.root.join("var"),
    )
    .expect(12);
    assert_eq!(names(&case.root), [""; 0]);
}

#[test]
fn off_of_a_path_without_a_slave_is_an_error() {
    let scene = Scene::with_master("commits");
    let directory = scene.slave.parent().unwrap();
    let log = directory.join("zeo.log");
    fs::write(&log, "a log").unwrap();
    let before = names(directory);
    for path in [directory, &scene.slave, &log, &directory.join("Other.fs")] {
        let refused = run(fssync().arg("off").arg(path)).expect(2);
        assert!(
            refused.stderr.contains("no pass was ever made"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("--force"), "{refused:?}");
        assert_eq!(refused.stdout, "", "it must not report that syncing is off");
    }
    let named = scene.directory.path().join("switch");
    let mut off = fssync();
    off.args(["off", "--status-file"]).arg(&named);
    run(off.arg(directory)).expect(2);
    assert!(!named.exists());
    assert_eq!(names(directory), before, "no switch is written");

    run(fssync().args(["off", "--force"]).arg(directory)).expect(0);
    scene.pass(&[]).expect(10);
}

#[test]
fn off_recognises_a_slave_by_any_file_of_a_pass() {
    let synced = Scene::with_master("commits");
    synced.expect("full-copy");
    let names = [".fssync", ".fssync-pass", ".fssync-tmp", ""];
    for left in names {
        let scene = Scene::with_master("commits");
        if left == ".fssync-tmp" {
            fs::write(scene.beside(left), "FS30").unwrap();
        } else {
            fs::copy(synced.beside(left), scene.beside(left)).unwrap();
        }
        let off = run(fssync().arg("off").arg(&scene.slave)).expect(0);
        let warns = off.stdout.contains("no pass was ever made");
        assert_eq!(warns, left.is_empty(), "{left}: {off:?}");
    }
}

#[test]
fn a_path_without_a_slave_is_reported() {
    let scene = Scene::with_master("commits");
    for (verb, code) in [("status", 1), ("verify", 1), ("on", 0)] {
        let run = run(fssync().arg(verb).arg(&scene.slave)).expect(code);
        assert!(run.stdout.contains("no pass was ever made"), "{run:?}");
    }
    let quiet = run(fssync().args(["on", "-q"]).arg(&scene.slave)).expect(0);
    assert_eq!((&*quiet.stdout, &*quiet.stderr), ("", ""));
    let scene = Scene::with_master("commits");
    fs::copy(&scene.master, &scene.slave).unwrap();
    for verb in ["status", "verify"] {
        let run = run(fssync().arg(verb).arg(&scene.slave)).expect(0);
        assert!(run.stdout.contains("no pass was ever made"), "{run:?}");
    }
    scene.expect("up-to-date");
    for verb in ["status", "verify", "on"] {
        let run = run(fssync().arg(verb).arg(&scene.slave)).expect(0);
        assert!(!run.stdout.contains("no pass was ever made"), "{run:?}");
    }
}

/// Otherwise a pass would create a second copy, and `fssync off` would not switch the real one off.
#[test]
fn a_directory_around_the_usual_one_is_refused_with_a_hint() {
    let scene = Scene::with_master("commits");
    let var = scene.directory.path().join("site/var");
    let usual = var.join("filestorage/Data.fs");
    fs::create_dir_all(usual.parent().unwrap()).unwrap();
    let pass = |slave: &Path| run(fssync().arg(&scene.master).arg(slave));
    pass(&usual).expect(0);
    for around in [&var, &scene.directory.path().join("site")] {
        let hint = format!("but {}: name its directory", usual.display());
        let refused = pass(around).expect(2);
        assert!(refused.stderr.contains(&hint), "{refused:?}");
        for verb in ["off", "on", "status", "verify"] {
            let refused = run(fssync().arg(verb).arg(around)).expect(2);
            assert!(refused.stderr.contains(&hint), "{refused:?}");
        }
    }
    assert_eq!(names(&var), ["filestorage"]);
    let master = run(fssync().arg(&var).arg(&scene.slave)).expect(12);
    assert!(master.stderr.contains("filestorage/Data.fs"), "{master:?}");
    // A file of its own is accepted, and then its directory is, too.
    pass(&var.join("Data.fs")).expect(0);
    pass(&var).expect(0);
}
