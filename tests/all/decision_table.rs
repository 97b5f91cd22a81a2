//! The decision table: its rows, and the exit code and action of a pass in each.

use std::fs;

use serde_json::{Value, json};

use crate::support::{History, Holder, Scene, Zodb, replace, rewrite_end, snapshot};

/// A row of the decision table, as a scene.
pub struct Row {
    pub name: &'static str,
    set: fn(&Scene, &mut Zodb) -> Option<Holder>,
    pub options: &'static [&'static str],
    pub code: i32,
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
    row("another pass is running", 11, "busy", |scene, _| {
        Some(Holder::of(&scene.beside(".fssync-pass")))
    }),
    row("a missing master", 12, "unreachable", |scene, _| {
        fs::remove_file(&scene.master).unwrap();
        None
    }),
    row("an empty master", 12, "unreachable", |scene, _| {
        fs::write(&scene.master, "").unwrap();
        None
    }),
    row(
        "a master of another format",
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
    row("a slave of another format", 31, "refuse", |scene, _| {
        fs::write(&scene.slave, vec![b'x'; 1000]).unwrap();
        None
    }),
    row(
        "a slave with an invalid record",
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
    row("new transactions", 0, "append", |scene, _| {
        rewrite_end(&scene.master, &History::get().after);
        None
    }),
    row("new transactions, no sidecar", 0, "append", |scene, _| {
        rewrite_end(&scene.master, &History::get().after);
        remove_sidecar(scene);
        None
    }),
    row(
        "new transactions in another file",
        0,
        "append",
        |scene, _| {
            replace(&scene.master, &History::get().after);
            None
        },
    ),
    row(
        "new transactions, and a foreign tail",
        0,
        "trim-append",
        |scene, _| {
            let history = History::get();
            rewrite_end(&scene.master, &history.after);
            let tail = &history.voted[history.after.len()..][..100];
            fs::write(&scene.slave, [&history.before, tail].concat()).unwrap();
            None
        },
    ),
    row(
        "new transactions, and an append that no sidecar records",
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
        "a slave that has grown, no sidecar",
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
        "a slave that was changed at its end",
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
    row(
        "a pack that dropped the slave's last transaction",
        0,
        "full-copy",
        |scene, _| {
            replace(&scene.master, &History::get().packed_away);
            None
        },
    ),
    row("a pack, no sidecar", 20, "refuse", |scene, _| {
        replace(&scene.master, &History::get().packed);
        remove_sidecar(scene);
        None
    }),
    row(
        "a damaged master with new transactions before the damage",
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
        "a damaged master without new transactions before the damage",
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
        options: &["--whole"],
        ..row("a forced copy", 0, "full-copy", |_, _| None)
    },
    Row {
        options: &["--full"],
        ..row("a prefix, with --full", 0, "append", |scene, _| {
            rewrite_end(&scene.master, &History::get().after);
            None
        })
    },
    Row {
        options: &["--full"],
        ..row("a rewind", 0, "rewind", |scene, zodb| {
            grow(scene, zodb);
            rewrite_end(&scene.master, &History::get().after);
            None
        })
    },
    Row {
        options: &["--full"],
        ..row(
            "a rewind to the end of a master that is older",
            0,
            "rewind",
            |scene, zodb| {
                grow(scene, zodb);
                None
            },
        )
    },
    Row {
        options: &["--whole"],
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
        options: &["--whole"],
        ..row(
            "a forced copy over a slave in use",
            13,
            "refuse",
            |scene, _| Some(Holder::of(&scene.beside(".lock"))),
        )
    },
    Row {
        options: &["--whole"],
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
            "a forced copy over a file of another format",
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
