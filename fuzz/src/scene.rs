//! A master and a slave in their own directories, in memory if possible.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fssync::io::progress::Silent;
use fssync::pass::apply::Tuning;
use fssync::pass::blobs::BlobMode;
use fssync::pass::{self, Job, PassReport};
use fssync::plan::Policy;
use fssync::plan::outcome::Outcome;
use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Unrecorded;
use fssync::slave::step::Slave;
use fssync::source::path::MountedPath;
use fssync::source::{Deadline, Heartbeat, Master};
use tempfile::TempDir;

/// The two files.
pub struct Scene {
    directory: TempDir,
    /// The master.
    pub master: PathBuf,
    /// The slave.
    pub slave: PathBuf,
}

/// The options of a pass.
#[derive(Clone, Copy, Default)]
pub struct How {
    /// With `--full`.
    pub full: bool,
    /// With `--dry-run`.
    pub dry_run: bool,
}

/// A new directory, in memory if possible.
///
/// # Panics
///
/// If it cannot be created.
#[must_use]
pub fn directory() -> TempDir {
    let memory = Some(Path::new("/dev/shm")).filter(|it| it.is_dir());
    let directory = match memory {
        Some(memory) => tempfile::tempdir_in(memory),
        None => tempfile::tempdir(),
    };
    directory.expect("a directory")
}

impl Scene {
    /// Two empty directories.
    ///
    /// # Panics
    ///
    /// If they cannot be created.
    #[must_use]
    pub fn new() -> Self {
        let directory = directory();
        for side in ["master", "slave"] {
            fs::create_dir(directory.path().join(side)).expect("a directory");
        }
        Self {
            master: directory.path().join("master/Data.fs"),
            slave: directory.path().join("slave/Data.fs"),
            directory,
        }
    }

    /// The directory that contains both directories.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The slave, which need not exist.
    ///
    /// # Panics
    ///
    /// If it is not a regular file.
    #[must_use]
    pub fn slave(&self) -> Slave {
        let paths = SlavePaths::new(&self.slave).expect("a place");
        Slave::new(paths, None)
    }

    /// The master, on a mounted path.
    #[must_use]
    pub fn master(&self) -> Master {
        let patience = Deadline::new(Duration::from_secs(60), Heartbeat::default(), || false);
        let path = self.master.clone();
        let open =
            move || -> Box<dyn fssync::source::Source> { Box::new(MountedPath::new(path.clone())) };
        Master::new("the master".to_owned(), patience, Box::new(open))
    }

    /// Makes a pass with small chunks and batches.
    #[must_use]
    pub fn pass(&self, how: How) -> Outcome {
        self.report(how).outcome
    }

    /// The same, with all that the pass reports.
    #[must_use]
    pub fn report(&self, how: How) -> PassReport {
        let job = Job {
            master: self.master(),
            location: None,
            slave: self.slave(),
            policy: Policy {
                full: how.full,
                whole: false,
            },
            tuning: Tuning {
                chunk_len: 500,
                batch_len: 1500,
                ..Tuning::default()
            },
            blobs: BlobMode::Unset,
            dry_run: how.dry_run,
            note_every: Duration::ZERO,
            index_waits: false,
            unrecorded: Unrecorded::default(),
        };
        pass::run(&job, &Silent)
    }

    /// The files in the slave's directory: their names after `Data.fs`, and their bytes.
    ///
    /// # Panics
    ///
    /// If they cannot be read.
    #[must_use]
    pub fn beside_slave(&self) -> Vec<(String, Vec<u8>)> {
        let directory = self.slave.parent().expect("a directory");
        let entries = fs::read_dir(directory).expect("a directory");
        let files = entries.map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            let suffix = name.strip_prefix("Data.fs").expect("a name of ours");
            (suffix.to_owned(), fs::read(entry.path()).expect("a file"))
        });
        files.collect()
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

/// A file's bytes; empty if it does not exist.
#[must_use]
pub fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// The short ones among the fixtures, by name.
///
/// # Panics
///
/// If they cannot be read.
#[must_use]
pub fn fixtures() -> Vec<(String, Vec<u8>)> {
    const LONGEST: u64 = 4000;
    let entries = fs::read_dir(fixtures_directory()).expect("the fixtures");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a fixture"))
        .filter(|entry| entry.metadata().is_ok_and(|found| found.len() <= LONGEST))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "fs"))
        .collect();
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("a name").to_owned();
        (name, fs::read(path).expect("a fixture"))
    };
    paths.into_iter().map(named).collect()
}

/// The directory of the fixtures, relative to the crate that is built.
#[must_use]
pub fn fixtures_directory() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = if built.ends_with("fuzz") {
        built.parent().unwrap_or(built)
    } else {
        built
    };
    project.join("fixtures")
}
