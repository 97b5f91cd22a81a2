//! What a process finds, and what it is.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::support::{
    History, Scene, Zodb, append_killed_at_sync, fssync, replace, rewrite_end, run,
};

/// Where the calls are that something befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At the files of the slave.
    Slave,
    /// At the master, on a mounted path.
    Master,
    /// At the master, by the program that serves it.
    Agent,
}

/// What a process finds, and what it is.
pub struct Scenario {
    pub scene: fn(&mut Zodb) -> Scene,
    /// The program's arguments; see [`MASTER`] and [`SLAVE`].
    pub words: &'static [&'static str],
    pub side: Side,
    /// Whether the old slave must be kept.
    pub keeps_old: bool,
    /// How many bytes of the old slave are a tail that must be kept.
    pub tail_len: usize,
}

impl Scenario {
    /// The program's arguments, in a scene.
    pub fn arguments(&self, scene: &Scene) -> Vec<PathBuf> {
        let is_served = self.side == Side::Agent;
        let served = format!("first:{}", scene.master.display());
        let words = self.words.iter().map(|&word| match word {
            MASTER if is_served => (&served).into(),
            MASTER => scene.master.clone(),
            MASTERS_DIRECTORY => scene.master.parent().unwrap().to_owned(),
            SLAVE => scene.slave.clone(),
            word => word.into(),
        });
        words.collect()
    }

    /// Those with which it finds its master on a mounted path.
    pub fn in_peace(&self, scene: &Scene) -> Vec<PathBuf> {
        let side = Side::Master;
        Self { side, ..*self }.arguments(scene)
    }
}

/// What stands for the files.
const MASTERS_DIRECTORY: &str = "MASTER'S DIRECTORY";
const MASTER: &str = "MASTER";
const SLAVE: &str = "SLAVE";

pub const FIRST_COPY: Scenario = Scenario {
    scene: |_| {
        let scene = Scene::new();
        fs::write(&scene.master, &History::get().after).unwrap();
        scene
    },
    words: &[MASTER, SLAVE],
    side: Side::Slave,
    keeps_old: false,
    tail_len: 0,
};

pub const APPEND: Scenario = Scenario {
    scene: |_| {
        let scene = Scene::synced(History::get());
        rewrite_end(&scene.master, &History::get().after);
        scene
    },
    ..FIRST_COPY
};

/// That it is a start of the master's must be proven, since nobody has noted anything.
pub const APPEND_TO_A_SEED: Scenario = Scenario {
    scene: |zodb| {
        let scene = (FIRST_COPY.scene)(zodb);
        fs::write(&scene.slave, &History::get().before).unwrap();
        scene
    },
    ..FIRST_COPY
};

const TAIL_LEN: usize = 500;

pub const APPEND_BEHIND_A_FOREIGN_TAIL: Scenario = Scenario {
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

pub const APPEND_BEHIND_OUR_OWN_TAIL: Scenario = Scenario {
    scene: |_| append_killed_at_sync(2),
    ..FIRST_COPY
};

pub const FULL_COPY: Scenario = Scenario {
    scene: |zodb| {
        let scene = synced_with_index(zodb);
        replace(&scene.master, &History::get().packed);
        scene
    },
    ..FIRST_COPY
};

pub const FULL_COPY_AND_SET_ASIDE: Scenario = Scenario {
    scene: |zodb| {
        let scene = synced_with_index(zodb);
        replace(&scene.master, &History::get().packed_away);
        scene
    },
    keeps_old: true,
    ..FIRST_COPY
};

pub const FORCED_FULL_COPY: Scenario = Scenario {
    scene: |zodb| {
        let scene = Scene::synced(History::get());
        zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
        zodb.call(&json!({"cmd": "commit", "name": "s"}));
        zodb.call(&json!({"cmd": "close", "name": "s"}));
        scene
    },
    words: &["--full", MASTER, SLAVE],
    keeps_old: true,
    ..FIRST_COPY
};

pub const ANOTHER_INDEX: Scenario = Scenario {
    scene: synced_with_index,
    ..FIRST_COPY
};

pub const INDEX_THAT_IS_DUE: Scenario = Scenario {
    scene: |_| {
        let scene = Scene::synced(History::get());
        rewrite_end(&scene.master, &History::get().after);
        scene.expect("append");
        scene.make_index_due();
        scene
    },
    ..FIRST_COPY
};

pub const APPEND_FROM_A_MOUNT: Scenario = Scenario {
    side: Side::Master,
    ..APPEND
};

pub const FULL_COPY_FROM_A_MOUNT: Scenario = Scenario {
    words: &[MASTERS_DIRECTORY, SLAVE],
    side: Side::Master,
    ..FULL_COPY
};

pub const APPEND_FROM_AN_AGENT: Scenario = Scenario {
    side: Side::Agent,
    ..APPEND
};

pub const FULL_COPY_FROM_AN_AGENT: Scenario = Scenario {
    side: Side::Agent,
    ..FULL_COPY
};

pub const OFF: Scenario = Scenario {
    words: &["off", SLAVE],
    ..APPEND_BEHIND_OUR_OWN_TAIL
};

pub const ON: Scenario = Scenario {
    scene: |_| {
        let scene = Scene::synced(History::get());
        run(fssync().arg("off").arg(&scene.slave)).expect(0);
        scene
    },
    words: &["on", SLAVE],
    ..FIRST_COPY
};

pub const VERIFY: Scenario = Scenario {
    scene: synced_with_index,
    words: &["verify", SLAVE, "--against", MASTER],
    ..FIRST_COPY
};

pub const STATUS: Scenario = Scenario {
    words: &["status", SLAVE, "--against", MASTER],
    ..VERIFY
};

/// All of them.
pub const ALL: [&Scenario; 18] = [
    &FIRST_COPY,
    &APPEND,
    &APPEND_TO_A_SEED,
    &APPEND_BEHIND_A_FOREIGN_TAIL,
    &APPEND_BEHIND_OUR_OWN_TAIL,
    &FULL_COPY,
    &FULL_COPY_AND_SET_ASIDE,
    &FORCED_FULL_COPY,
    &ANOTHER_INDEX,
    &INDEX_THAT_IS_DUE,
    &APPEND_FROM_A_MOUNT,
    &FULL_COPY_FROM_A_MOUNT,
    &APPEND_FROM_AN_AGENT,
    &FULL_COPY_FROM_AN_AGENT,
    &OFF,
    &ON,
    &VERIFY,
    &STATUS,
];

/// ZODB had the slave open, and saved its index.
fn synced_with_index(zodb: &mut Zodb) -> Scene {
    let scene = Scene::synced(History::get());
    zodb.call(&json!({"cmd": "open", "name": "s", "path": scene.slave}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    assert!(scene.beside(".index").exists());
    scene
}

#[test]
fn the_passes_do_what_they_are_called() {
    let mut zodb = Zodb::start();
    for (scenario, action, kept) in [
        (&FIRST_COPY, "full-copy", None),
        (&APPEND, "append", None),
        (&APPEND_TO_A_SEED, "append", None),
        (&APPEND_BEHIND_A_FOREIGN_TAIL, "trim-append", Some(".tr0")),
        (&APPEND_BEHIND_OUR_OWN_TAIL, "trim-append", None),
        (&FULL_COPY, "full-copy", None),
        (&FULL_COPY_AND_SET_ASIDE, "full-copy", Some(".diverged-")),
        (&FORCED_FULL_COPY, "full-copy", Some(".diverged-")),
        (&ANOTHER_INDEX, "up-to-date", None),
        (&INDEX_THAT_IS_DUE, "up-to-date", None),
    ] {
        let scene = (scenario.scene)(&mut zodb);
        let mut command = fssync();
        command.arg("--json").args(scenario.arguments(&scene));
        let report = run(&mut command).expect(0).report();
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
