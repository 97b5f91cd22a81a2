//! The real ZODB, which commits to the master.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::clock::Moment;
use crate::environment;

/// A transaction of the master.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    /// When its status was in the file, before the sync.
    pub(crate) visible: Moment,
    /// When `tpc_finish` had returned.
    pub(crate) returned: Moment,
    /// The position after it.
    pub(crate) position: u64,
}

/// A Python with ZODB.
#[derive(Debug)]
pub(crate) struct Python(PathBuf);

impl Python {
    /// The Python of the tests' virtual environment.
    pub(crate) fn get() -> Self {
        Self(environment::python(environment::REQUIREMENTS, |command| {
            let status = command.status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "{command:?} failed"
            );
        }))
    }

    /// Commits `count` small transactions to the file, one per `pace`. Each of them creates a
    /// blob if there is a blob directory.
    pub(crate) fn commit(
        &self,
        path: &Path,
        blobs: Option<&Path>,
        count: u32,
        pace: Duration,
    ) -> io::Result<Vec<Commit>> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(&self.0)
            .arg(project.join("benches/watch/writer.py"))
            .arg(path)
            .args([count.to_string(), pace.as_secs_f64().to_string()])
            .args(blobs)
            .env("PYTHONPATH", project.join("tests/zodb"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other("ZODB cannot commit"));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let commits = text.lines().map(|line| {
            let mut numbers = line.split(' ').map_while(|word| word.parse().ok());
            Some(Commit {
                visible: Moment(numbers.next()?),
                returned: Moment(numbers.next()?),
                position: numbers.next()?.cast_unsigned(),
            })
        });
        commits
            .collect::<Option<_>>()
            .ok_or_else(|| io::Error::other("the writer prints something else"))
    }
}
