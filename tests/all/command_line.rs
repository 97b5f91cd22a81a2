//! Arguments and output: usage errors, `--json`, log lines, `-q`, `--dry-run`, progress, and
//! the man page.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    History, Holder, Run, Scene, Transport, Zodb, append_sparse, as_nobody, fssync, must, names,
    project, python, replace, rewrite_end, run, sparse_master, spawn, tool,
};

/// A pass with these arguments.
fn typed(master: &Path, slave: &Path) -> Run {
    run(fssync().args([master, slave]))
}

/// Fails unless the run ended with a usage error that contains this text.
#[track_caller]
fn assert_usage(run: &Run, said: &str) {
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains(said), "{run:?}");
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
fn the_slave_must_be_a_regular_file_in_a_directory_that_exists() {
    let scene = Scene::with_master("commits");
    let directory = scene.directory.path();
    symlink("Data.fs", scene.slave.with_file_name("link.fs")).unwrap();
    symlink("nowhere", scene.slave.with_file_name("dangling.fs")).unwrap();
    symlink("circle.fs", scene.slave.with_file_name("circle.fs")).unwrap();
    let fifo = scene.slave.with_file_name("fifo.fs");
    must(Command::new("mkfifo").arg(&fifo));
    fs::create_dir_all(directory.join("deep/Data.fs")).unwrap();
    for (slave, said) in [
        ("slave/link.fs", "is a symbolic link"),
        ("slave/dangling.fs", "is a symbolic link"),
        ("slave/circle.fs", "is a symbolic link"),
        ("slave/fifo.fs", "is not a regular file"),
        ("deep", "is not a regular file"),
        ("missing/Data.fs", "directory that does not exist"),
        ("missing/deeper/Data.fs", "directory that does not exist"),
        ("/dev/null", "is not a regular file"),
    ] {
        assert_usage(&typed(&scene.master, &directory.join(slave)), said);
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
    let said = |arguments: &[&str]| run(fssync().args(arguments)).expect(0).stdout;
    assert_eq!(said(&["help"]), said(&["--help"]));
    for verb in ["off", "on", "status", "verify", "serve"] {
        assert_eq!(said(&["help", verb]), said(&[verb, "--help"]));
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

/// A row of the decision table, as a scene.
pub struct Row {
    pub name: &'static str,
    set: fn(&Scene, &mut Zodb) -> Option<Holder>,
    pub options: &'static [&'static str],
    code: i32,
    pub action: &'static str,
}

const fn row(
    name: &'static str,
    code: i32,
    action: &'static str,
    set: fn(&Scene, &mut Zodb) -> Option<Holder>,
) -> Row {
    Row {
        name,
        set,
        options: &[],
        code,
        action,
    }
}

/// Commits a transaction in the slave.
pub fn grow(scene: &Scene, zodb: &mut Zodb) {
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "commit", "name": "s", "user": "me", "description": "mine"}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
}

pub fn remove_sidecar(scene: &Scene) {
    fs::remove_file(scene.beside(".fssync")).unwrap();
}

fn damaged() -> Vec<u8> {
    let history = History::get();
    let mut bytes = history.after.clone();
    // The length of the transaction after the slave's position.
    let at = history.before.len() + 8;
    bytes[at..at + 8].copy_from_slice(&[0xff; 8]);
    bytes
}

/// Each row starts with a slave in sync with `before`.
const ROWS: &[Row] = &[
    row("syncing is off", 10, "off", |scene, _| {
        fs::write(scene.beside(".fssync-switch"), "SYNCING=0\n").unwrap();
        None
    }),
    row("another pass", 11, "busy", |scene, _| {
        Some(Holder::of(&scene.beside(".fssync-pass")))
    }),
    row("no master", 12, "unreachable", |scene, _| {
        fs::remove_file(&scene.master).unwrap();
        None
    }),
    row("an empty master", 12, "unreachable", |scene, _| {
        fs::write(&scene.master, "").unwrap();
        None
    }),
    row(
        "a master that is something else",
        12,
        "unreachable",
        |scene, _| {
            fs::write(&scene.master, "SQLite format 3, or whatever").unwrap();
            None
        },
    ),
    row("an append to a slave in use", 13, "refuse", |scene, _| {
        rewrite_end(&scene.master, &History::get().after);
        Some(Holder::of(&scene.beside(".lock")))
    }),
    row(
        "nothing new for a slave in use",
        0,
        "up-to-date",
        |scene, _| Some(Holder::of(&scene.beside(".lock"))),
    ),
    row("no slave", 0, "full-copy", |scene, _| {
        for name in scene.beside_slave() {
            fs::remove_file(scene.slave.with_file_name(name)).unwrap();
        }
        None
    }),
    row("an empty slave", 0, "full-copy", |scene, _| {
        fs::write(&scene.slave, "").unwrap();
        None
    }),
    row("a slave of a few bytes", 0, "full-copy", |scene, _| {
        fs::write(&scene.slave, &History::get().before[..20]).unwrap();
        None
    }),
    row(
        "a slave that is something else",
        31,
        "refuse",
        |scene, _| {
            fs::write(&scene.slave, vec![b'x'; 1000]).unwrap();
            None
        },
    ),
    row(
        "a slave with a record that ZODB refuses",
        31,
        "refuse",
        |scene, _| {
            let mut bytes = damaged();
            bytes[History::get().before.len() + 8..][..8].copy_from_slice(&60u64.to_be_bytes());
            fs::write(&scene.slave, bytes).unwrap();
            None
        },
    ),
    row("nothing new", 0, "up-to-date", |_, _| None),
    row("a vote under way", 0, "up-to-date", |scene, _| {
        let history = History::get();
        let mut bytes = history.before.clone();
        bytes.extend(&history.voted[history.after.len()..]);
        rewrite_end(&scene.master, &bytes);
        None
    }),
    row("more", 0, "append", |scene, _| {
        rewrite_end(&scene.master, &History::get().after);
        None
    }),
    row("more, and no sidecar", 0, "append", |scene, _| {
        rewrite_end(&scene.master, &History::get().after);
        remove_sidecar(scene);
        None
    }),
    row("more, in another file", 0, "append", |scene, _| {
        replace(&scene.master, &History::get().after);
        None
    }),
    row("more, and a foreign tail", 0, "trim-append", |scene, _| {
        let history = History::get();
        rewrite_end(&scene.master, &history.after);
        let tail = &history.voted[history.after.len()..][..100];
        fs::write(&scene.slave, [&history.before, tail].concat()).unwrap();
        None
    }),
    row(
        "more, and an append of which no sidecar knows",
        0,
        "append",
        |scene, _| {
            rewrite_end(&scene.master, &History::get().after);
            let sidecar = fs::read(scene.beside(".fssync")).unwrap();
            let grown = History::get().after.clone();
            scene.pass(&[]).expect(0);
            fs::write(scene.beside(".fssync"), sidecar).unwrap();
            replace_slave_end(scene, &grown);
            None
        },
    ),
    row("a slave that has grown", 20, "refuse", |scene, zodb| {
        grow(scene, zodb);
        rewrite_end(&scene.master, &History::get().after);
        None
    }),
    row(
        "a slave that has grown, of which no sidecar knows",
        20,
        "refuse",
        |scene, zodb| {
            grow(scene, zodb);
            rewrite_end(&scene.master, &History::get().after);
            remove_sidecar(scene);
            None
        },
    ),
    row(
        "a slave that is not as it was left",
        20,
        "refuse",
        |scene, _| {
            let mut bytes = History::get().before.clone();
            let at = bytes.len() - 20;
            bytes[at] ^= 1;
            fs::write(&scene.slave, bytes).unwrap();
            None
        },
    ),
    row(
        "a master that has fallen behind",
        20,
        "refuse",
        |scene, _| {
            let old = fs::read(&scene.master).unwrap();
            rewrite_end(&scene.master, &History::get().after);
            scene.pass(&[]).expect(0);
            replace(&scene.master, &old);
            None
        },
    ),
    row("a pack", 0, "full-copy", |scene, _| {
        replace(&scene.master, &History::get().packed);
        None
    }),
    row("a pack ahead of the slave", 0, "full-copy", |scene, _| {
        replace(&scene.master, &History::get().packed_away);
        None
    }),
    row("a pack, and no sidecar", 20, "refuse", |scene, _| {
        replace(&scene.master, &History::get().packed);
        remove_sidecar(scene);
        None
    }),
    row(
        "a damaged master with something before the damage",
        30,
        "append",
        |scene, _| {
            let history = History::get();
            let mut bytes = history.after.clone();
            let len = bytes.len();
            bytes[len - 8..].copy_from_slice(&[0; 8]);
            rewrite_end(&scene.master, &bytes);
            None
        },
    ),
    row(
        "a damaged master with nothing before the damage",
        30,
        "error",
        |scene, _| {
            rewrite_end(&scene.master, &damaged());
            None
        },
    ),
    row(
        "a damaged master that was packed",
        30,
        "error",
        |scene, _| {
            let mut bytes = History::get().packed.clone();
            let len = bytes.len();
            bytes[len - 8..].copy_from_slice(&[0; 8]);
            replace(&scene.master, &bytes);
            None
        },
    ),
    row(
        "a damaged master and no slave",
        30,
        "full-copy",
        |scene, _| {
            fs::remove_file(&scene.slave).unwrap();
            remove_sidecar(scene);
            rewrite_end(&scene.master, &damaged());
            None
        },
    ),
    row("a slave that is the master", 2, "error", |scene, _| {
        fs::remove_file(&scene.slave).unwrap();
        fs::hard_link(&scene.master, &scene.slave).unwrap();
        None
    }),
    Row {
        options: &["--full"],
        ..row("a forced copy", 0, "full-copy", |_, _| None)
    },
    Row {
        options: &["--full"],
        ..row(
            "a forced copy over a slave that has grown",
            0,
            "full-copy",
            |scene, zodb| {
                grow(scene, zodb);
                None
            },
        )
    },
    Row {
        options: &["--full"],
        ..row(
            "a forced copy over a slave in use",
            13,
            "refuse",
            |scene, _| Some(Holder::of(&scene.beside(".lock"))),
        )
    },
    Row {
        options: &["--full"],
        ..row(
            "a forced copy of a damaged master",
            30,
            "full-copy",
            |scene, _| {
                rewrite_end(&scene.master, &damaged());
                None
            },
        )
    },
    Row {
        options: &["--full"],
        ..row(
            "a forced copy over something else",
            0,
            "full-copy",
            |scene, _| {
                fs::write(&scene.slave, vec![b'x'; 1000]).unwrap();
                None
            },
        )
    },
];

/// The slave gets all of this except its last transaction.
fn replace_slave_end(scene: &Scene, whole: &[u8]) {
    let last = u64::from_be_bytes(whole[whole.len() - 8..].try_into().unwrap()) as usize + 8;
    rewrite_end(&scene.slave, &whole[..whole.len() - last]);
}

/// Sets up each row's scene, and calls `act` with it.
pub fn for_every_row(mut act: impl FnMut(&Row, &Scene)) {
    let mut zodb = Zodb::start();
    for row in ROWS {
        let scene = Scene::synced(History::get());
        let _holder = (row.set)(&scene, &mut zodb);
        act(row, &scene);
    }
}

#[test]
fn each_row_of_the_decision_table_has_its_exit_code_and_action() {
    for_every_row(|row, scene| {
        let run = scene.pass(row.options);
        assert_eq!(run.code, row.code, "{}: {run:?}", row.name);
        let report = run.report();
        assert_eq!(report["exit_code"], row.code, "{}", row.name);
        assert_eq!(report["action"], row.action, "{}: {report}", row.name);
    });
}

/// Everything that a change in a directory could affect.
pub fn snapshot(directory: &Path) -> Vec<impl PartialEq + use<>> {
    let mut paths = vec![directory.to_owned()];
    paths.extend(
        names(directory)
            .into_iter()
            .map(|name| directory.join(name)),
    );
    paths.iter().map(|path| snapshot_of(path)).collect()
}

/// The same for one file or directory, without its content.
pub fn snapshot_of(path: &Path) -> impl PartialEq + use<> {
    let found = fs::symlink_metadata(path).unwrap();
    let times = [
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ];
    let bytes = if found.is_file() {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    let name = path.display().to_string();
    (name, found.ino(), found.mode(), times, bytes)
}

#[test]
fn a_dry_run_predicts_the_pass_and_changes_nothing() {
    for_every_row(|row, scene| {
        let directory = scene.slave.parent().unwrap();
        let before = snapshot(directory);
        let options = [&["--dry-run"], row.options].concat();
        let predicted = scene.pass(&options);
        assert!(snapshot(directory) == before, "{}: {predicted:?}", row.name);
        let done = scene.pass(row.options);
        assert_eq!(
            predicted.code, done.code,
            "{}: {predicted:?} {done:?}",
            row.name
        );
        let (predicted, done) = (predicted.report(), done.report());
        for key in ["action", "exit_code", "reason", "transactions", "bytes"] {
            assert_eq!(
                predicted[key], done[key],
                "{}: {predicted} {done}",
                row.name
            );
        }
    });
}

#[test]
fn the_report_has_exactly_the_documented_keys() {
    for_every_row(|row, scene| {
        let run = scene.pass(row.options);
        assert_eq!(run.stdout.lines().count(), 1, "{}: {run:?}", row.name);
        let report = run.report();
        let keys: BTreeSet<&str> = report
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let expected = [
            "storage",
            "master",
            "slave",
            "action",
            "reason",
            "exit_code",
            "position",
            "last_tid",
            "transactions",
            "bytes",
            "elapsed_seconds",
            "warnings",
        ];
        assert_eq!(keys, BTreeSet::from(expected), "{}", row.name);
        assert_eq!(report["master"], scene.master.to_str().unwrap());
        assert_eq!(report["slave"], scene.slave.to_str().unwrap());
        assert!(report["elapsed_seconds"].as_f64().unwrap() > 0.0);
        let warnings = report["warnings"].as_array().unwrap();
        for warning in warnings {
            assert!(run.stderr.contains(warning.as_str().unwrap()), "{run:?}");
        }
        let is_kept = |name: &String| name.starts_with("Data.fs.diverged-");
        let is_set_aside = scene.beside_slave().iter().any(is_kept);
        assert_eq!(!warnings.is_empty(), is_set_aside, "{}: {report}", row.name);
        assert!(
            report["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
        for key in ["transactions", "bytes"] {
            let is_copy = ["append", "trim-append", "full-copy"].contains(&row.action);
            assert_eq!(report[key].as_u64().unwrap() > 0, is_copy, "{report}");
        }
    });
}

#[test]
fn quiet_prints_one_line_if_a_person_must_know_and_nothing_otherwise() {
    for_every_row(|row, scene| {
        let mut command = fssync();
        command
            .arg("-q")
            .args(row.options)
            .args([&scene.master, &scene.slave]);
        let run = run(&mut command);
        assert_eq!(run.code, row.code, "{}: {run:?}", row.name);
        assert_eq!(run.stdout, "", "{}", row.name);
        let is_kept = |name: &String| name.starts_with("Data.fs.diverged-");
        let is_set_aside = scene.beside_slave().iter().any(is_kept);
        let lines = usize::from(is_set_aside || ![0, 10, 11].contains(&row.code));
        assert_eq!(run.stderr.lines().count(), lines, "{}: {run:?}", row.name);
        let warns = run.stderr.contains("the old slave is kept as");
        assert_eq!(warns, is_set_aside, "{}: {run:?}", row.name);
    });
}

#[test]
fn the_log_keeps_the_phrases_of_sync_pozo() {
    for_every_row(|row, scene| {
        let run = scene.pass(row.options);
        let log = &run.stderr;
        let has = |phrase| log.contains(phrase);
        assert!(has("Start syncing"), "{}: {log}", row.name);
        assert_eq!(
            has("Finished syncing"),
            row.code == 0,
            "{}: {log}",
            row.name
        );
        assert_eq!(
            has("NOT SYNCING FROM MASTER"),
            row.code != 0,
            "{}: {log}",
            row.name
        );
        let reason = run.report()["reason"].as_str().unwrap().to_owned();
        assert!(log.contains(&reason), "{}: {log}", row.name);
        if row.action == "full-copy" {
            assert!(has("full backup"), "{}: {log}", row.name);
        }
        if row.name == "a slave that has grown" {
            assert!(has("has grown since last syncing"), "{log}");
        }
    });
}

#[test]
fn log_lines_start_with_a_timestamp() {
    let scene = Scene::with_master("commits");
    let log = scene.pass(&[]).expect(0).stderr;
    assert!(log.lines().count() >= 2);
    for line in log.lines() {
        let stamp = line.split(' ').next().unwrap();
        assert!(stamp.ends_with('Z') && stamp.contains('T'), "{line}");
    }
}

#[test]
fn log_lines_are_json_if_requested() {
    for_every_row(|row, scene| {
        let options = [&["--log-format", "json"], row.options].concat();
        let run = scene.pass(&options);
        assert!(run.stderr.lines().count() >= 2, "{}: {run:?}", row.name);
        for line in run.stderr.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            for key in ["timestamp", "level", "message"] {
                assert!(line[key].is_string(), "{}: {line}", row.name);
            }
        }
    });
}

#[test]
fn verbose_does_not_log_each_request_of_a_copy() {
    let scene = Scene::new().over(Transport::Ssh);
    sparse_master(&scene.master, 64 << 20);
    let lines = |option: &str| {
        let copy = scene.pass(&[option, "--full"]).expect(0);
        copy.stderr.lines().count()
    };
    assert!(lines("-v") < 30);
    assert!(lines("-vv") > 60);
}

#[test]
fn verbose_logs_more_lines() {
    let lines = |option: &str| {
        let scene = Scene::with_master("commits");
        scene.pass(&[option]).expect(0).stderr.lines().count()
    };
    assert!(lines("-v") > lines("--progress=never"));
}

#[test]
fn a_pass_waits_for_a_missing_master_as_long_as_a_pack_may_take() {
    let scene = Scene::synced(History::get());
    fs::remove_file(&scene.master).unwrap();
    let started = Instant::now();
    scene.pass(&[]).expect(12);
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_secs(1), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

#[test]
fn a_master_that_comes_back_within_a_second_is_found() {
    let scene = Scene::synced(History::get());
    fs::remove_file(&scene.master).unwrap();
    let mut pass = spawn(fssync().args([&scene.master, &scene.slave]));
    std::thread::sleep(Duration::from_millis(600));
    fs::write(&scene.master, &History::get().after).unwrap();
    assert_eq!(pass.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read(&scene.slave).unwrap(), History::get().after);
}

/// The output on standard error of a pass that copies a large file.
fn printed(on_terminal: bool, options: &[&str]) -> String {
    printed_on(on_terminal.then_some(("xterm", 100)), options)
}

/// The same on a terminal of this type and width in columns, if there is one.
fn printed_on(terminal: Option<(&str, u16)>, options: &[&str]) -> String {
    let scene = Scene::new();
    sparse_master(&scene.master, 1 << 30);
    let mut command = fssync();
    if let Some((kind, columns)) = terminal {
        let pty =
            "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let sized = format!("stty rows 24 columns {columns} && exec \"$@\"");
        command = Command::new(python());
        command.args(["-c", pty, "sh", "-c", &sized, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_fssync"));
        command.env("TERM", kind).env_remove("NO_COLOR");
    }
    let run = run(command.args(options).args([&scene.master, &scene.slave]));
    assert_eq!(run.code, 0, "{run:?}");
    run.stdout + &run.stderr
}

#[test]
fn a_progress_bar_is_drawn_on_a_terminal() {
    let printed = printed(true, &[]);
    assert!(printed.contains("copying ["), "{printed:?}");
    assert!(printed.contains("1.00 GiB"), "{printed:?}");
}

/// The lines that a terminal shows: without escape sequences, each up to the point where the
/// next text starts at the beginning of the line.
fn shown_lines(printed: &str) -> Vec<String> {
    let is_text = |part: &str| !part.trim().is_empty();
    let mut lines = Vec::new();
    for line in printed.split(['\r', '\n']) {
        let mut text = String::new();
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\x1b' => while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
                c => text.push(c),
            }
        }
        lines.extend(is_text(&text).then_some(text));
    }
    lines
}

#[test]
fn progress_fits_a_terminal_of_40_columns() {
    let printed = printed_on(Some(("xterm", 40)), &[]);
    let lines = shown_lines(&printed);
    let bars: Vec<_> = lines
        .iter()
        .filter(|it| it.starts_with("copying") && it.contains('%'))
        .collect();
    assert!(
        bars.iter().any(|line| line.starts_with("copying")),
        "{printed:?}"
    );
    for line in bars {
        assert!(line.chars().count() <= 40, "{line:?}");
    }
}

#[test]
fn a_dumb_terminal_gets_neither_colours_nor_a_bar() {
    for options in [&[][..], &["--progress", "always"]] {
        let printed = printed_on(Some(("dumb", 80)), options);
        assert!(!printed.contains('\x1b'), "{printed:?}");
        let has_lines = printed.contains("copying: 1.00 GiB of 1.00 GiB");
        assert_eq!(has_lines, !options.is_empty(), "{printed:?}");
    }
}

#[test]
fn a_single_transaction_is_counted_in_the_singular() {
    let scene = Scene::new();
    sparse_master(&scene.master, 1 << 20);
    let log = scene.pass(&[]).expect(0).stderr;
    assert!(log.contains("copied 1 transaction, 1.0 MiB in"), "{log}");
}

#[test]
fn no_bar_is_drawn_on_a_terminal_with_progress_never() {
    let printed = printed(true, &["--progress", "never"]);
    assert!(!printed.contains("copying"), "{printed:?}");
    assert!(printed.contains("Finished syncing"));
}

#[test]
fn no_bar_is_drawn_without_a_terminal() {
    let printed = printed(false, &[]);
    assert!(!printed.contains("copying"), "{printed:?}");
    assert!(printed.contains("Finished syncing"));
}

#[test]
fn progress_always_prints_lines_without_a_terminal() {
    let printed = printed(false, &["--progress", "always"]);
    assert!(
        printed.contains("copying: 1.00 GiB of 1.00 GiB"),
        "{printed:?}"
    );
}

#[test]
fn the_speed_of_a_resumed_copy_counts_only_new_bytes() {
    let scene = Scene::new();
    sparse_master(&scene.master, 1 << 30);
    fs::copy(&scene.master, scene.beside(".fssync-tmp")).unwrap();
    append_sparse(&scene.master, 3 << 19, 0x0500_0000_0000_0000);
    // About 100 kB/s.
    let rsh = format!("python3 {} 0 slow", project("tests/link.py").display());
    let mut copy = fssync();
    copy.args(["--progress", "always", "--remote-fssync"]);
    copy.args([env!("CARGO_BIN_EXE_fssync"), "-e", &rsh]);
    copy.arg(format!("host:{}", scene.master.display()))
        .arg(&scene.slave);
    let log = run(&mut copy).expect(0).stderr;
    let is_progress = |line: &&str| line.starts_with("copying: ") && line.contains("/s, ");
    let line = log.lines().find(is_progress).expect(&log);
    assert!(line.contains("KiB/s"), "{log}");
}

/// The text of a man page without its markup.
fn without_roff(source: &str) -> String {
    let mut text = source.to_owned();
    for font in ["\\fB", "\\fI", "\\fR", "\\fP", "\\&", "\\|", "\\/"] {
        text = text.replace(font, "");
    }
    text = text.replace("\\(hy", "-").replace("\\-", "-");
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with(".\\\"")) {
        let fonts = [".BR ", ".BI ", ".B ", ".IR ", ".I ", ".RB ", ".IP "];
        let macro_name = fonts.iter().find(|name| line.starts_with(*name));
        let is_alternating = macro_name.is_some_and(|name| name.len() == 4 && *name != ".IP ");
        let rest = macro_name.map_or(line, |name| &line[name.len()..]);
        lines.push(if is_alternating {
            joined(rest)
        } else {
            rest.replace('"', "")
        });
    }
    lines.join("\n")
}

/// The arguments of a macro that sets them in alternating fonts, without the spaces between
/// them.
fn joined(arguments: &str) -> String {
    let mut quoted = false;
    arguments
        .chars()
        .filter(|c| {
            quoted ^= *c == '"';
            *c != '"' && (*c != ' ' || quoted)
        })
        .collect()
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..]
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '-');
        if !is_word && name.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.insert(name.trim_end_matches('-').to_owned());
        }
    }
    found
}

/// The help of the program and its subcommands.
fn help() -> String {
    [
        &["--help"][..],
        &["off", "--help"],
        &["on", "--help"],
        &["status", "--help"],
        &["serve", "--help"],
    ]
    .into_iter()
    .map(|arguments| run(fssync().args(arguments)).expect(0).stdout)
    .collect()
}

pub fn man_page() -> String {
    let path = project("man/fssync.1");
    let source = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    without_roff(&source)
}

#[test]
fn the_man_page_names_every_option_and_no_other() {
    let typed = options(&help());
    assert!(
        typed.contains("full") && typed.contains("status-file"),
        "{typed:?}"
    );
    assert_eq!(options(&man_page()), typed);
}

/// The numbers at the start of a line, or after a semicolon or colon.
fn leading_numbers(text: &str) -> BTreeSet<u8> {
    text.split(['\n', ';', ':'])
        .filter_map(|part| part.split_whitespace().next()?.parse().ok())
        .collect()
}

#[test]
fn the_man_page_names_every_exit_code_and_no_other() {
    let help = help().split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, codes) = help.split_once("Exit codes: ").expect("exit codes");
    let codes = leading_numbers(&format!("; {codes}"));
    let known = [0, 1, 2, 10, 11, 12, 13, 14, 20, 30, 31];
    assert_eq!(codes, BTreeSet::from(known));
    let page = man_page();
    let (_, section) = page
        .split_once(".SH EXIT")
        .expect("a section on exit codes");
    let section = section.split(".SH").next().unwrap();
    assert_eq!(leading_numbers(section), codes);
}

#[test]
fn the_man_page_is_formatted_without_a_warning() {
    let page = project("man/fssync.1");
    let run = run(tool("man", "man-db")
        .args(["--warnings=all", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
        .arg(page));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

/// The names under which a pass reports that it sets the slave aside.
fn aside(report: &Value, verb: &str) -> Vec<String> {
    let marker = format!("the old slave {verb} kept as ");
    let warnings = report["warnings"].as_array().expect("warnings").iter();
    warnings
        .filter_map(|warning| warning.as_str()?.strip_prefix(&marker))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_dry_run_names_the_file_that_the_slave_would_be_kept_as() {
    let mut kept = 0;
    for_every_row(|row, scene| {
        let dry = scene.pass(&[row.options, &["-n"]].concat()).report();
        let planned = aside(&dry, "would be");
        let pass = scene.pass(row.options).report();
        assert_eq!(planned, aside(&pass, "is"), "{}: {dry} {pass}", row.name);
        kept += planned.len();
    });
    assert!(kept >= 3, "{kept} slaves are set aside");
}

#[test]
fn a_refusal_asks_first_whether_the_arguments_are_swapped() {
    let history = History::get();
    let mut zodb = Zodb::start();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    // The live master is given as the slave, and its copy as the master. Without the sidecar,
    // nothing shows which is the copy.
    remove_sidecar(&scene);
    let swapped = run(fssync().arg(&scene.slave).arg(&scene.master)).expect(20);
    let hint = swapped.stderr.find("swapped").expect("a question");
    let full = swapped.stderr.find("--full").expect("advice");
    assert!(hint < full, "{swapped:?}");
    assert_eq!(fs::read(&scene.master).unwrap(), history.after);
    zodb.check(&scene.master);
}
