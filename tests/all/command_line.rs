//! Arguments: usage errors, the paths of master and slave, the subcommands and their help.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{History, Run, Scene, as_nobody, fssync, must, names, run};

/// A pass with these arguments.
fn typed(master: &Path, slave: &Path) -> Run {
    run(fssync().args([master, slave]))
}

/// Fails unless the run ended with a usage error that contains this text.
#[track_caller]
fn assert_usage(run: &Run, message: &str) {
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains(message), "{run:?}");
}

#[test]
fn the_slave_may_not_be_the_master_under_any_name() {
    let scene = Scene::with_master("commits");
    let master = fs::read(&scene.master).unwrap();
    let directory = scene.directory.path();
    symlink("master", directory.join("link")).unwrap();
    fs::hard_link(&scene.master, &scene.slave).unwrap();
    symlink(&scene.slave, directory.join("alias.fs")).unwrap();
    for (from, to) in [
        (scene.master.clone(), scene.master.clone()),
        (scene.master.clone(), scene.slave.clone()),
        (scene.master.clone(), directory.join("link/Data.fs")),
        (directory.join("link"), scene.master.clone()),
        (directory.join("master"), directory.join("link")),
        (directory.join("alias.fs"), scene.slave.clone()),
        (
            directory.join("master/../link/Data.fs"),
            scene.slave.clone(),
        ),
    ] {
        for options in [&[][..], &["--full"], &["--dry-run"]] {
            let run = run(fssync().args(options).args([&from, &to]));
            assert_usage(&run, "is the master itself");
        }
    }
    assert!(fs::read(&scene.master).unwrap() == master);
}

#[test]
fn the_name_of_a_storage_is_not_positional() {
    for words in [
        ["--storage", "site", "catalog"],
        ["--config", "/etc/site.toml", "catalog"],
    ] {
        let run = run(fssync().args(words));
        assert_usage(&run, "cannot be used with");
    }
}

#[test]
fn a_url_of_another_kind_is_not_a_master() {
    let scene = Scene::new();
    let run = typed(Path::new("https://master/Data.fs"), &scene.slave);
    assert_usage(
        &run,
        "write PATH, [user@]host:/path or ssh://[user@]host[:port]/path",
    );
    assert!(names(scene.slave.parent().unwrap()).is_empty());
}

#[test]
fn the_slave_must_be_a_regular_file_in_a_directory_that_exists() {
    let scene = Scene::with_master("commits");
    let directory = scene.directory.path();
    symlink("Data.fs", scene.slave.with_file_name("link.fs")).unwrap();
    symlink("nowhere", scene.slave.with_file_name("dangling.fs")).unwrap();
    symlink("circle.fs", scene.slave.with_file_name("circle.fs")).unwrap();
    let fifo = scene.slave.with_file_name("fifo.fs");
    must(Command::new("mkfifo").arg(&fifo));
    fs::create_dir_all(directory.join("deep/Data.fs")).unwrap();
    for (slave, message) in [
        ("slave/link.fs", "is a symbolic link"),
        ("slave/dangling.fs", "is a symbolic link"),
        ("slave/circle.fs", "is a symbolic link"),
        ("slave/fifo.fs", "is not a regular file"),
        ("deep", "is not a regular file"),
        ("missing/Data.fs", "directory that does not exist"),
        ("missing/deeper/Data.fs", "directory that does not exist"),
        ("/dev/null", "is not a regular file"),
    ] {
        assert_usage(&typed(&scene.master, &directory.join(slave)), message);
    }
    assert!(!directory.join("missing").exists(), "it is never created");
    let names = ["circle.fs", "dangling.fs", "fifo.fs", "link.fs"];
    assert_eq!(scene.beside_slave(), names);
}

/// Not a usage error: the slave may be accessible the next time.
#[test]
fn a_slave_that_cannot_be_accessed_is_a_failure() {
    let scene = Scene::with_master("commits");
    let hidden = scene.directory.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    let mut nobody = as_nobody(&scene);
    chown(&hidden, Some(0), Some(0)).unwrap();
    fs::set_permissions(&hidden, Permissions::from_mode(0o700)).unwrap();
    let link = scene.directory.path().join("link");
    symlink(hidden.join("var"), &link).unwrap();
    let failed = run(nobody.arg(&scene.master).arg(&link)).expect(1);
    assert!(failed.stderr.contains("Permission denied"), "{failed:?}");
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let scene = Scene::with_master("commits");
    let (master, slave) = (
        scene.master.to_str().unwrap(),
        scene.slave.to_str().unwrap(),
    );
    let wrong: &[&[&str]] = &[
        &["--no-such-option", master, slave],
        &[master],
        &[master, slave, slave],
        &["--timeout", "soon", master, slave],
        &["--timeout", "0", master, slave],
        &["--timeout", "-1", master, slave],
        &["--log-format", "xml", master, slave],
        &["--progress", "perhaps", master, slave],
        &["-q", "-v", master, slave],
        &["off"],
        &["on"],
        &["off", slave, slave],
        &["off", "--full", slave],
        &["off", "/no/such/directory/Data.fs"],
    ];
    for arguments in wrong {
        let run = run(fssync().args(*arguments));
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
        assert_ne!(run.stderr, "", "{arguments:?}");
        assert_eq!(run.stdout, "", "{arguments:?}");
    }
    assert_eq!(scene.beside_slave(), [""; 0]);
}

/// Otherwise it would be taken for a master.
#[test]
fn a_subcommand_after_options_is_a_usage_error() {
    let scene = Scene::synced(History::get());
    for verb in ["off", "on", "status", "verify", "serve", "help"] {
        let run = run(fssync().args(["-v", verb]).arg(&scene.slave)).expect(2);
        let first = format!("fssync {verb} [OPTIONS]");
        assert!(run.stderr.contains(&first), "{run:?}");
    }
    scene.expect("up-to-date");
    let options_behind = ["off", "-v", scene.slave.to_str().unwrap()];
    run(fssync().args(options_behind)).expect(0);
}

/// Otherwise the mistake would look as if syncing were off.
#[test]
fn a_mistyped_subcommand_is_a_usage_error_and_changes_nothing() {
    let scene = Scene::synced(History::get());
    let sidecar = fs::read(scene.beside(".fssync")).unwrap();
    for (typed, meant) in [
        ("of", "fssync off"),
        ("Off", "fssync off"),
        ("no", "fssync on"),
        ("stat", "fssync status"),
        ("verfiy", "fssync verify"),
        ("stop", "fssync off"),
        ("watch", "fssync --watch"),
    ] {
        for options in [&[][..], &["--watch"], &["-q"]] {
            let mut command = fssync();
            command.current_dir(scene.directory.path());
            let mistyped = run(command.args(options).arg(typed).arg(&scene.slave)).expect(2);
            assert!(mistyped.stderr.contains(meant), "{mistyped:?}");
            if options == ["-q"] {
                assert_eq!(mistyped.stderr.lines().count(), 1, "{mistyped:?}");
            }
        }
    }
    assert!(fs::read(scene.beside(".fssync")).unwrap() == sidecar);
    // A file may have such a name, and not every unknown word is a mistyped subcommand.
    fs::copy(&scene.master, scene.directory.path().join("of")).unwrap();
    for (master, code) in [("of", 0), ("./of", 0), ("./off", 12), ("elsewhere.fs", 12)] {
        let mut command = fssync();
        command.current_dir(scene.directory.path());
        run(command.arg(master).arg(&scene.slave)).expect(code);
    }
}

#[test]
fn help_is_a_subcommand() {
    let printed = |arguments: &[&str]| run(fssync().args(arguments)).expect(0).stdout;
    assert_eq!(printed(&["help"]), printed(&["--help"]));
    for verb in ["off", "on", "status", "verify", "serve"] {
        assert_eq!(printed(&["help", verb]), printed(&[verb, "--help"]));
    }
    run(fssync().args(["help", "of"])).expect(2);
}

#[test]
fn no_arguments_are_a_usage_error_and_help_is_not() {
    assert_eq!(run(&mut fssync()).code, 2);
    for arguments in [&["--help"][..], &["-h"], &["--version"], &["off", "--help"]] {
        let run = run(fssync().args(arguments));
        assert_eq!(run.code, 0, "{run:?}");
        assert_ne!(run.stdout, "");
    }
}

#[test]
fn a_directory_means_the_data_fs_in_it() {
    let scene = Scene::with_master("commits");
    let (master, slave) = (
        scene.master.parent().unwrap(),
        scene.slave.parent().unwrap(),
    );
    assert_eq!(typed(master, slave).code, 0);
    assert_eq!(
        fs::read(&scene.slave).unwrap(),
        fs::read(&scene.master).unwrap()
    );
    assert_eq!(typed(&scene.master, slave).code, 0);
    assert_eq!(typed(master, &scene.slave).code, 0);
    let mut here = fssync();
    assert_eq!(run(here.current_dir(slave).arg(master).arg(".")).code, 0);
    let mut here = fssync();
    assert_eq!(
        run(here.current_dir(slave).arg(master).arg("Data.fs")).code,
        0
    );
    fs::remove_file(&scene.master).unwrap();
    assert_eq!(
        typed(master, slave).code,
        12,
        "an empty directory has no Data.fs"
    );
}

#[test]
fn files_beside_a_slave_start_with_its_name() {
    let scene = Scene::with_master("commits");
    let slave = scene.slave.with_file_name("käse storage.fs");
    assert_eq!(typed(&scene.master, &slave).code, 0);
    assert!(
        names(slave.parent().unwrap())
            .iter()
            .all(|name| name.starts_with("käse storage.fs"))
    );
}
