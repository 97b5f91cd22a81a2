//! A pass that is killed, and a call of its that fails, at every call that
//! changes something beside the slave: `strace` sees to that.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::ledger;
use crate::support::{
    History, Run, Scene, Zodb, append_killed_at_sync, replace, rewrite_end, run, strace,
};

/// The calls by which something is created, written, renamed or made durable;
/// those that this machine's architecture lacks are passed over.
const CALLS: &str = "?pwrite64,?write,?ftruncate,?rename,?renameat,?renameat2,?link,?linkat,\
                     ?unlink,?unlinkat,?fsync,?fdatasync,?fchmod,?fchown,?openat";

/// What a pass finds.
pub struct Situation {
    pub scene: fn(&mut Zodb) -> Scene,
    pub options: &'static [&'static str],
    /// Whether the old slave must be kept.
    pub keeps_old: bool,
    /// How many bytes of the old slave are a tail that must be kept.
    pub tail_len: usize,
}

pub const FIRST_COPY: Situation = Situation {
    scene: |_| {
        let scene = Scene::new();
        fs::write(&scene.master, &History::get().after).unwrap();
        scene
    },
    options: &[],
    keeps_old: false,
    tail_len: 0,
};

pub const APPEND: Situation = Situation {
    scene: |_| {
        let scene = Scene::synced(History::get());
        rewrite_end(&scene.master, &History::get().after);
        scene
    },
    ..FIRST_COPY
};

const TAIL_LEN: usize = 500;

const APPEND_BEHIND_A_FOREIGN_TAIL: Situation = Situation {
    scene: |zodb| {
        let history = History::get();
        let scene = (APPEND.scene)(zodb);
        let vote = &history.voted[history.after.len()..][..TAIL_LEN];
        fs::write(&scene.slave, [&history.before, vote].concat()).unwrap();
        scene
    },
    tail_len: TAIL_LEN,
    ..FIRST_COPY
};

pub const APPEND_BEHIND_OUR_OWN_TAIL: Situation = Situation {
    scene: |_| append_killed_at_sync(2),
    ..FIRST_COPY
};

const FULL_COPY: Situation = Situation {
    scene: |zodb| {
        let scene = synced_with_index(zodb);
        replace(&scene.master, &History::get().packed);
        scene
    },
    ..FIRST_COPY
};

pub const FULL_COPY_AND_SET_ASIDE: Situation = Situation {
    scene: |zodb| {
        let scene = synced_with_index(zodb);
        replace(&scene.master, &History::get().packed_away);
        scene
    },
    keeps_old: true,
    ..FIRST_COPY
};

const FORCED_FULL_COPY: Situation = Situation {
    scene: |zodb| {
        let scene = Scene::synced(History::get());
        zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
        zodb.call(&json!({"cmd": "commit", "name": "s"}));
        zodb.call(&json!({"cmd": "close", "name": "s"}));
        scene
    },
    options: &["--full"],
    keeps_old: true,
    ..FIRST_COPY
};

const ANOTHER_INDEX: Situation = Situation {
    scene: synced_with_index,
    ..FIRST_COPY
};

const INDEX_THAT_IS_DUE: Situation = Situation {
    scene: |_| {
        let scene = Scene::synced(History::get());
        rewrite_end(&scene.master, &History::get().after);
        scene.expect("append");
        scene.make_index_due();
        scene
    },
    ..FIRST_COPY
};

/// ZODB had the slave open, and saved its index.
fn synced_with_index(zodb: &mut Zodb) -> Scene {
    let scene = Scene::synced(History::get());
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    assert!(scene.beside(".index").exists());
    scene
}

/// A pass that is about to be disturbed, and what it must not lose.
pub struct Stage<'a> {
    situation: &'a Situation,
    pub scene: Scene,
    pub old: Option<Vec<u8>>,
}

impl<'a> Stage<'a> {
    pub fn set(situation: &'a Situation, zodb: &mut Zodb) -> Self {
        let scene = (situation.scene)(zodb);
        let old = fs::read(&scene.slave).ok();
        Self {
            situation,
            scene,
            old,
        }
    }

    /// The slave's directory and the files in it.
    pub fn files(&self) -> Vec<PathBuf> {
        let directory = fs::canonicalize(self.scene.slave.parent().unwrap()).unwrap();
        let suffixes = [
            "",
            ".fssync",
            ".fssync-new",
            ".fssync-ledger",
            ".fssync-tmp",
            ".fssync-pass",
            ".fssync-step",
            ".lock",
            ".index",
            ".tr0",
        ];
        let mut files: Vec<PathBuf> = suffixes
            .iter()
            .map(|suffix| directory.join(format!("Data.fs{suffix}")))
            .collect();
        files.push(directory);
        files
    }

    /// One pass under `strace`, which looks at these files.
    fn pass(&self, options: &[&str]) -> Run {
        let mut command = strace(options, &self.files());
        command.args(self.situation.options);
        run(command.args([&self.scene.master, &self.scene.slave]))
    }

    /// ZODB opens what is there, and nothing that was there is lost.
    pub fn assert_sound(&self, zodb: &mut Zodb) {
        let scene = &self.scene;
        scene.assert_documented_names();
        if !scene.slave.exists() {
            assert!(self.old.is_none(), "a slave that was there is there");
            return;
        }
        let found = zodb.check(&scene.slave);
        let opened = zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
        assert_eq!(opened["position"], found["position"]);
        zodb.assert_index(&scene.slave);
        ledger::assert_right(&scene.slave);
        let position = found["position"].as_u64().unwrap() as usize;
        let (slave, master) = (
            fs::read(&scene.slave).unwrap(),
            fs::read(&scene.master).unwrap(),
        );
        let is_start_of = |whole: &[u8]| whole.get(..position) == Some(&slave[..position]);
        let is_old = self.old.as_ref().is_some_and(|old| *old == slave);
        assert!(is_old || is_start_of(&master), "a prefix of the master");
        let least = match &self.old {
            Some(old) if is_start_of(old) => History::get().before.len(),
            _ => 0,
        };
        assert!(position >= least, "what the slave had is there");
        if let Some(old) = &self.old {
            self.assert_kept(old, &slave);
        }
    }

    fn assert_kept(&self, old: &[u8], slave: &[u8]) {
        let has = |start: &str, bytes: &[u8]| {
            let mut beside = self.scene.beside_slave().into_iter();
            beside.any(|name| {
                name.starts_with(start)
                    && fs::read(self.scene.slave.with_file_name(name)).unwrap() == bytes
            })
        };
        if self.situation.keeps_old {
            assert!(slave == old || has("Data.fs.diverged-", old), "set aside");
        }
        let tail = &old[old.len() - self.situation.tail_len..];
        if !tail.is_empty() {
            assert!(
                slave == old || has("Data.fs.tr", tail),
                "the cut tail is kept"
            );
        }
    }

    /// The next pass succeeds, and the one after it has nothing to do.
    pub fn assert_heals(&self, zodb: &mut Zodb) {
        let scene = &self.scene;
        scene.pass(self.situation.options).expect(0);
        self.assert_sound(zodb);
        zodb.assert_in_sync(&scene.master, &scene.slave);
        scene.expect("up-to-date");
        zodb.assert_index(&scene.slave).expect("an index");
        ledger::assert_whole(&scene.slave);
        assert!(!scene.beside(".fssync-tmp").exists());
        assert!(!scene.beside(".fssync-new").exists());
    }
}

/// How often each call is made, by the thread that makes it most often: that is
/// how `strace` counts.
fn calls(situation: &Situation, zodb: &mut Zodb) -> BTreeMap<String, u32> {
    let stage = Stage::set(situation, zodb);
    let log = stage.scene.directory.path().join("log");
    let trace = format!("trace={CALLS}");
    stage
        .pass(&["-o", log.to_str().unwrap(), "-e", &trace])
        .expect(0);
    let text = fs::read_to_string(log).unwrap();
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.contains("resumed>")) {
        let (thread, rest) = line.split_once(' ').expect("a thread and its call");
        // A thread that the end of the process meets in a call has `???` there.
        let call = rest.trim_start().split_once('(');
        if let Some((call, _)) = call.filter(|(call, _)| !call.contains('?')) {
            *counts.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in counts {
        let entry = most.entry(call.to_owned()).or_insert(0);
        *entry = count.max(*entry);
    }
    most
}

/// The pass is killed before every call.
fn kill_at_every_call(situation: &Situation) {
    let mut zodb = Zodb::start();
    let calls = calls(situation, &mut zodb);
    let total: u32 = calls.values().sum();
    assert!(total > 10, "{calls:?}");
    for (call, count) in calls {
        for nth in 1..=count {
            eprintln!("killed at {call} {nth}");
            let stage = Stage::set(situation, &mut zodb);
            let kill = format!("inject={call}:signal=SIGKILL:when={nth}");
            assert_ne!(stage.pass(&["-e", &kill]).code, 0);
            stage.assert_sound(&mut zodb);
            stage.assert_heals(&mut zodb);
        }
    }
}

/// Every call fails once: all of them, or those that are named.
fn fail_at_every_call(situation: &Situation, error: &str, which: &[&str]) {
    let mut zodb = Zodb::start();
    let mut calls = calls(situation, &mut zodb);
    calls.retain(|call, _| which.is_empty() || which.contains(&call.as_str()));
    assert!(!calls.is_empty());
    for (call, count) in calls {
        for nth in 1..=count {
            eprintln!("{call} {nth} fails with {error}");
            let stage = Stage::set(situation, &mut zodb);
            let fail = format!("inject={call}:error={error}:when={nth}");
            let run = stage.pass(&["-e", &fail]);
            assert_documented(&stage, &run);
            stage.assert_sound(&mut zodb);
            stage.assert_heals(&mut zodb);
        }
    }
}

/// The exit code is one that the failure of a call at the slave may have, and
/// the file is named.
fn assert_documented(stage: &Stage<'_>, run: &Run) {
    // A sidecar that cannot be read is none; that may cost a refusal.
    let lost_witness = run.stderr.contains("Data.fs.fssync is passed over");
    match run.code {
        0 => {}
        20 if lost_witness => {}
        1 => {
            let directory = stage.scene.slave.parent().unwrap();
            assert!(run.stderr.contains(directory.to_str().unwrap()), "{run:?}");
            let line = run.stderr.lines().last().unwrap();
            assert!(line.contains("NOT SYNCING FROM MASTER"), "{run:?}");
            assert!(line.contains("os error"), "the cause: {run:?}");
        }
        _ => panic!("{run:?}"),
    }
}

macro_rules! disturbed {
    ($($name:ident: $situation:ident;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn survives_being_killed_at_every_call() {
                kill_at_every_call(&$situation);
            }

            #[test]
            fn survives_an_io_error_of_every_call() {
                fail_at_every_call(&$situation, "EIO", &[]);
            }

            #[test]
            fn survives_a_full_disk_at_every_write() {
                fail_at_every_call(&$situation, "ENOSPC", &["pwrite64", "write"]);
            }
        }
    )* };
}

disturbed! {
    a_first_copy: FIRST_COPY;
    an_append: APPEND;
    an_append_behind_a_foreign_tail: APPEND_BEHIND_A_FOREIGN_TAIL;
    an_append_behind_our_own_tail: APPEND_BEHIND_OUR_OWN_TAIL;
    a_full_copy: FULL_COPY;
    a_full_copy_that_sets_the_old_slave_aside: FULL_COPY_AND_SET_ASIDE;
    a_forced_full_copy: FORCED_FULL_COPY;
    an_index_made_anew: ANOTHER_INDEX;
    an_index_that_is_extended: INDEX_THAT_IS_DUE;
}

#[test]
fn the_situations_are_what_they_are_called() {
    let mut zodb = Zodb::start();
    for (situation, action, kept) in [
        (&FIRST_COPY, "full-copy", None),
        (&APPEND, "append", None),
        (&APPEND_BEHIND_A_FOREIGN_TAIL, "trim-append", Some(".tr0")),
        (&APPEND_BEHIND_OUR_OWN_TAIL, "trim-append", None),
        (&FULL_COPY, "full-copy", None),
        (&FULL_COPY_AND_SET_ASIDE, "full-copy", Some(".diverged-")),
        (&FORCED_FULL_COPY, "full-copy", Some(".diverged-")),
        (&ANOTHER_INDEX, "up-to-date", None),
        (&INDEX_THAT_IS_DUE, "up-to-date", None),
    ] {
        let scene = (situation.scene)(&mut zodb);
        let report = scene.pass(situation.options).expect(0).report();
        assert_eq!(report["action"], action, "{report}");
        let names = scene.beside_slave();
        let mut extra = names
            .iter()
            .filter(|name| name.contains(".tr") || name.contains(".diverged-"));
        let found = extra.next().map(String::as_str);
        assert_eq!(found.is_some(), kept.is_some(), "{names:?}");
        assert!(
            found.is_none_or(|name| name.contains(kept.unwrap())),
            "{names:?}"
        );
        assert_eq!(extra.next(), None);
    }
    let scene = (INDEX_THAT_IS_DUE.scene)(&mut zodb);
    let (before, after) = (&History::get().before, &History::get().after);
    let covered = zodb.assert_index(&scene.slave);
    assert_eq!(covered, Some(before.len() as u64));
    scene.expect("up-to-date");
    let covered = zodb.assert_index(&scene.slave);
    assert_eq!(covered, Some(after.len() as u64));
}
