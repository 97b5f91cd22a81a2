//! A site: several storages, and a configuration file that describes them.

use std::fmt::Write as _;
use std::fs::{self};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Run, fssync, names, project, run, write_program};

/// Storages, each with the directories `NAME/master` and `NAME/slave`.
pub struct SiteScene {
    pub directory: TempDir,
    text: String,
}

impl SiteScene {
    /// A site whose storages have these names. Each master is a copy of a fixture.
    pub fn of(names: &[&str]) -> Self {
        let mut site = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            text: String::new(),
        };
        for name in names {
            site.add(name, &site.master(name).display().to_string(), "");
            fs::copy(project("fixtures/commits.fs"), site.master(name)).expect("the fixture");
        }
        site
    }

    /// Adds a storage with further keys, and creates its directories.
    pub fn add(&mut self, name: &str, master: &str, keys: &str) {
        for side in ["master", "slave"] {
            fs::create_dir_all(self.at(name).join(side)).expect("a directory");
        }
        let slave = self.slave(name);
        let _ = writeln!(
            self.text,
            "[storage.{name}]\nmaster = '{master}'\nslave = '{}'\n{keys}",
            slave.display()
        );
        self.write();
    }

    /// Adds a storage whose master never responds: the program that connects to it hangs.
    pub fn add_hanging(&mut self, name: &str, timeout: u64) {
        let rsh = self.at("hangs");
        write_program(&rsh, "#!/bin/sh\ntouch $0.$$\nexec sleep 600\n");
        let keys = format!("rsh = '{}'\ntimeout = {timeout}\n", rsh.display());
        self.add(name, "nowhere:/srv/Data.fs", &keys);
    }

    /// The number of connections to masters that hang, since the start.
    pub fn hanging(&self) -> usize {
        let entries = names(self.directory.path());
        entries.iter().filter(|it| it.starts_with("hangs.")).count()
    }

    /// Adds text to the configuration file.
    pub fn append(&mut self, text: &str) {
        self.text += text;
        self.write();
    }

    fn write(&self) {
        fs::write(self.config(), &self.text).expect("fssync.toml");
    }

    pub fn config(&self) -> PathBuf {
        self.at("fssync.toml")
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn master(&self, name: &str) -> PathBuf {
        self.at(name).join("master/Data.fs")
    }

    pub fn slave(&self, name: &str) -> PathBuf {
        self.at(name).join("slave/Data.fs")
    }

    /// A file beside a slave.
    pub fn beside(&self, name: &str, suffix: &str) -> PathBuf {
        format!("{}{suffix}", self.slave(name).display()).into()
    }

    /// A command with this configuration file.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fssync();
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    /// A command with this configuration file, run to its end.
    pub fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// Fails unless the slave is equal to its master.
    #[track_caller]
    pub fn assert_in_sync(&self, name: &str) {
        let read = |path: &Path| fs::read(path).expect("a file");
        assert!(
            read(&self.slave(name)) == read(&self.master(name)),
            "{name} differs"
        );
    }

    /// Gives the slave a transaction that the master lacks.
    pub fn diverge(&self, name: &str) {
        fs::copy(project("fixtures/site.fs"), self.slave(name)).expect("the fixture");
    }
}

/// The objects that a command printed, one a line.
pub fn objects(run: &Run) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {run:?}"));
    run.stdout.lines().map(parse).collect()
}
