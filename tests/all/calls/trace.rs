//! A process that is about to be disturbed, and the checks of what it leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::crash::oracle::Before;
use crate::crash::scenario::{Scenario, Side};
use crate::ledger;
use crate::support::{Run, Scene, Zodb, fssync, run, strace, tool};

/// What may lie beside a slave and is looked at when it is checked.
const SUFFIXES: [&str; 11] = [
    "",
    ".fssync",
    ".fssync-new",
    ".fssync-ledger",
    ".fssync-switch",
    ".fssync-tmp",
    ".fssync-pass",
    ".fssync-step",
    ".lock",
    ".index",
    ".tr0",
];

/// What `strace` writes to.
const LOG: &str = "strace.log";

pub struct Stage<'a> {
    scenario: &'a Scenario,
    pub scene: Scene,
    pub before: Before,
    /// The bytes of all that lay beside the slave.
    lay_there: Vec<(String, Vec<u8>)>,
}

impl<'a> Stage<'a> {
    pub fn set(scenario: &'a Scenario, zodb: &mut Zodb) -> Self {
        let scene = (scenario.scene)(zodb);
        let before = Before {
            keeps_slave: scenario.keeps_old,
            tail_len: scenario.tail_len,
            ..Before::of(&scene.slave, &scene.master, zodb)
        };
        let mut stage = Self {
            scenario,
            scene,
            before,
            lay_there: Vec::new(),
        };
        stage.lay_there = stage.lies_there();
        stage
    }

    fn lies_there(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.scene.beside_slave().into_iter();
        let bytes = |name: &String| fs::read(self.scene.slave.with_file_name(name)).unwrap();
        names
            .map(|name| (bytes(&name), name))
            .map(|(bytes, name)| (name, bytes))
            .collect()
    }

    /// The process, run to its end; see [`Self::traced`].
    pub fn run(&self, options: &[&str]) -> Run {
        run(&mut self.traced(options))
    }

    /// The process, traced with these options of `strace`'s at the files of one side; see
    /// [`Self::log`].
    pub fn traced(&self, options: &[&str]) -> Command {
        let files = self.files();
        let log = self.scene.directory.path().join(LOG);
        let options = [&["-o", log.to_str().unwrap()], options].concat();
        let options = options.as_slice();
        let mut command = match self.scenario.side {
            Side::Slave | Side::Master => strace(options, &files),
            Side::Agent => {
                let mut command = fssync();
                command.args(["--rsh", &self.traced_agent(options, &files)]);
                command.args(["--remote-fssync", env!("CARGO_BIN_EXE_fssync")]);
                command
            }
        };
        command.args(self.scenario.arguments(&self.scene));
        command.arg("-v");
        command
    }

    /// The process, with nothing befalling it.
    pub fn run_in_peace(&self) -> Run {
        run(fssync().args(self.scenario.in_peace(&self.scene)))
    }

    /// What `strace` has said of the process.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scene.directory.path().join(LOG)).expect("its log")
    }

    /// The files of one side, and their directory.
    pub fn files(&self) -> Vec<PathBuf> {
        let (file, suffixes) = match self.scenario.side {
            Side::Slave => (&self.scene.slave, &SUFFIXES[..]),
            Side::Master | Side::Agent => (&self.scene.master, &SUFFIXES[..1]),
        };
        let directory = fs::canonicalize(file.parent().unwrap()).unwrap();
        let beside = |suffix| directory.join(format!("Data.fs{suffix}"));
        let mut files: Vec<PathBuf> = suffixes.iter().map(beside).collect();
        files.push(directory);
        files
    }

    /// A remote shell to this very machine, which traces what it runs.
    fn traced_agent(&self, options: &[&str], files: &[PathBuf]) -> String {
        drop(tool("strace", "strace"));
        let quoted = |text: &str| format!("'{text}'");
        let mut words = vec!["exec strace -f -qq -A".to_owned()];
        words.extend(options.iter().map(|option| quoted(option)));
        let paths = files.iter().map(|file| format!("-P '{}'", file.display()));
        words.extend(paths);
        let script = format!(
            "#!/bin/sh\nfor command; do :; done\neval \"{} $command\"\n",
            words.join(" ")
        );
        let path = self.scene.directory.path().join("traced");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    /// ZODB opens what is there, and nothing that was there is lost.
    pub fn assert_sound(&self, zodb: &mut Zodb) {
        let scene = &self.scene;
        scene.assert_documented_names();
        if !scene.slave.exists() {
            let was_there = self.before.slave.is_some();
            assert!(!was_there, "a slave that was there is there");
            return;
        }
        let found = zodb.check(&scene.slave);
        let opened = zodb.call(&json!({"cmd": "check_open", "path": scene.slave}));
        assert_eq!(opened["position"], found["position"]);
        zodb.assert_index(&scene.slave);
        ledger::assert_right(&scene.slave);
        let position = found["position"].as_u64().unwrap() as usize;
        let slave = fs::read(&scene.slave).unwrap();
        self.before
            .assert_sound(&slave, position, &self.lies_there());
    }

    /// A tail is kept once, and only if it was cut.
    pub fn assert_no_spare_copy(&self) {
        let slave = fs::read(&self.scene.slave).ok();
        let was_cut = slave != self.before.slave && self.scenario.tail_len > 0;
        let names = self.scene.beside_slave();
        let copies = names.iter().filter(|name| name.contains(".tr"));
        assert_eq!(copies.count(), usize::from(was_cut), "{names:?}");
    }

    /// Nothing that was under way lies beside the slave.
    pub fn assert_tidy(&self) {
        for suffix in [".fssync-tmp", ".fssync-new"] {
            assert!(
                !self.scene.beside(suffix).exists(),
                "{suffix} is left behind"
            );
        }
    }

    /// Nothing was touched beside the slave, but for the result of a verification.
    pub fn assert_untouched(&self) {
        let mut lies_there = self.lies_there();
        lies_there.retain(|(name, _)| !name.contains(".fssync-verified"));
        let names = |all: &[(String, Vec<u8>)]| -> Vec<String> {
            all.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&lies_there), names(&self.lay_there));
        assert!(lies_there == self.lay_there, "written to");
    }

    /// The next pass succeeds, and the one after it has nothing to do.
    pub fn assert_heals(&self, zodb: &mut Zodb) {
        let scene = &self.scene;
        self.run_in_peace().expect(0);
        self.assert_sound(zodb);
        zodb.assert_in_sync(&scene.master, &scene.slave);
        scene.expect("up-to-date");
        zodb.assert_index(&scene.slave).expect("an index");
        ledger::assert_whole(&scene.slave);
        self.assert_tidy();
    }
}
