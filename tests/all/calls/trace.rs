//! Runs the actor of a case under `strace`, which logs its calls and injects faults.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fssync::filestorage::Tid;
use fssync::filestorage::blob::{LAYOUT_FILE, Layout};
use fssync::filestorage::scan::Scanner;

use crate::blobs::derived::on_disk;
use crate::crash::oracle::Case;
use crate::crash::scenario::Scenario;
use crate::support::{Run, Scene, Zodb, blobs_beside, fssync, run, strace, tool, write_program};

/// Which calls are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those on the slave's files.
    Slave,
    /// Those on the master, which is on a mounted path.
    Master,
    /// The same, if the master's directory is typed.
    MasterDirectory,
    /// Those on the master, by the program that serves it.
    Server,
}

/// An actor to be disturbed.
#[derive(Clone, Copy)]
pub struct Subject {
    pub scenario: &'static Scenario,
    pub target: Target,
}

impl Subject {
    /// The actor of a scenario, at the slave's files.
    pub const fn slave(scenario: &'static Scenario) -> Self {
        let target = Target::Slave;
        Self { scenario, target }
    }
}

/// The files beside a slave whose calls are traced.
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

/// The files beside a slave whose blobs are replicated.
const BLOB_SUFFIXES: [&str; 3] = [
    ".fssync-blobs",
    ".fssync-blobs-gone",
    ".fssync-blobs-gone-new",
];

/// The files and directories of fssync's in a blob directory.
const IN_BLOBS: [&str; 7] = [
    LAYOUT_FILE,
    ".fssync-new",
    ".fssync",
    ".fssync/id",
    ".fssync/.fssync-new",
    ".fssync/tmp",
    ".fssync/tmp/directory",
];

/// The file that `strace` writes.
const LOG: &str = "strace.log";

/// A case whose actor runs under `strace`.
pub struct TracedCase {
    pub case: Case,
    target: Target,
}

impl TracedCase {
    pub fn prepare(subject: Subject, zodb: &mut Zodb) -> Self {
        Self {
            case: Case::prepare(subject.scenario, zodb),
            target: subject.target,
        }
    }

    /// Runs the actor to its end; see [`Self::command`].
    pub fn run(&self, options: &[&str]) -> Run {
        run(&mut self.command(options))
    }

    /// The actor, traced with these options of `strace`; see [`Self::log`].
    pub fn command(&self, options: &[&str]) -> Command {
        let files = self.files();
        let log = self.case.scene.directory.path().join(LOG);
        let options = [&["-o", log.to_str().unwrap()], options].concat();
        let mut command = if self.target == Target::Server {
            let mut command = fssync();
            command.args(["--rsh", &self.traced_server(&options, &files)]);
            command.args(["--remote-fssync", env!("CARGO_BIN_EXE_fssync")]);
            command
        } else {
            strace(&options, &files)
        };
        command.args(self.arguments(self.target)).arg("-v");
        command
    }

    /// Runs the actor again, undisturbed; it reads the master on a mounted path.
    pub fn run_again(&self) -> Run {
        let target = match self.target {
            Target::Server => Target::Master,
            target => target,
        };
        run(fssync().args(self.arguments(target)))
    }

    /// The log of `strace`.
    pub fn log(&self) -> String {
        fs::read_to_string(self.case.scene.directory.path().join(LOG)).expect("a log")
    }

    fn arguments(&self, target: Target) -> Vec<OsString> {
        let scene = &self.case.scene;
        let master = match target {
            Target::Slave | Target::Master => scene.master.clone(),
            Target::MasterDirectory => scene.master.parent().unwrap().to_owned(),
            Target::Server => format!("first:{}", scene.master.display()).into(),
        };
        self.case.scenario.actor.arguments(scene, &master)
    }

    fn files(&self) -> Vec<PathBuf> {
        match self.target {
            Target::Slave => slave_files(&self.case.scene),
            _ => traced_files(&self.case.scene.master, &[""]),
        }
    }

    /// A remote shell to this machine, which traces the program that it starts.
    fn traced_server(&self, options: &[&str], files: &[PathBuf]) -> String {
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
        let path = self.case.scene.directory.path().join("traced");
        write_program(&path, script);
        path.display().to_string()
    }
}

/// The slave, the files beside it and their directory. If blobs are replicated, also everything
/// in the blob directory that fssync may create or change.
pub fn slave_files(scene: &Scene) -> Vec<PathBuf> {
    let mut files = traced_files(&scene.slave, &SUFFIXES);
    if scene.has_blobs {
        files.extend(traced_files(&scene.slave, &BLOB_SUFFIXES));
        files.extend(blob_files(scene));
    }
    files
}

/// The blob directory, and the paths in it of each blob that the master or the slave has. Each has
/// one more path if the slave is set aside.
fn blob_files(scene: &Scene) -> BTreeSet<PathBuf> {
    let directory = fs::canonicalize(scene.slave.parent().unwrap()).unwrap();
    let blobs = blobs_beside(&directory.join("Data.fs"));
    // The blob directory is created under another name.
    let new = directory.join("blobstorage.fssync-new");
    let mut files = BTreeSet::from([blobs.clone(), new]);
    files.extend(IN_BLOBS.iter().map(|it| blobs.join(it)));
    let of_both = [&scene.master, &scene.slave].map(|file| blobs_beside(file));
    let existing = of_both.iter().filter(|it| it.join(LAYOUT_FILE).exists());
    let aside = last_tid(&scene.slave).map(|tid| blobs.join(format!(".fssync/aside-{tid}")));
    files.extend(aside.iter().map(|it| it.join(LAYOUT_FILE)));
    for key in existing.flat_map(|it| on_disk(it)) {
        files.insert(blobs.join(format!(".fssync/tmp/{:016x}-{}", key.oid, key.tid)));
        // The slave's layout is the one of a new directory.
        let place = Layout::Bushy.path(key);
        for root in aside.iter().chain([&blobs]) {
            files.extend(place.ancestors().map(|it| root.join(it)));
        }
    }
    files
}

/// The last transaction of a file, after which its blobs are named if it is set aside.
fn last_tid(file: &Path) -> Option<Tid> {
    let bytes = fs::read(file).ok()?;
    let mut scanner = Scanner::new(bytes.len() as u64);
    scanner.feed(&bytes, &mut |_| {});
    scanner.last_tid()
}

fn traced_files(file: &Path, suffixes: &[&str]) -> Vec<PathBuf> {
    let directory = fs::canonicalize(file.parent().unwrap()).unwrap();
    let beside = |suffix| directory.join(format!("Data.fs{suffix}"));
    let mut files: Vec<PathBuf> = suffixes.iter().map(beside).collect();
    files.push(directory);
    files
}
