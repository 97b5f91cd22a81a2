//! Commands, and access to a master through a program that connects.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command and its arguments.
pub(crate) type Argv = Vec<String>;

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join(program).exists())
}

/// Runs a command; its standard error is shown.
pub(crate) fn must(argv: &Argv) -> io::Result<()> {
    let status = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{}: {status}", argv.join(" "))))
}

/// Waits until the file system of `directory` has written everything.
pub(crate) fn calm(directory: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(directory)?)?;
    Ok(())
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A command, whose words are separated by spaces, with paths as its last arguments.
pub(crate) fn argv(command: &str, paths: &[&PathBuf]) -> Argv {
    let words = command.split(' ').map(str::to_owned);
    words.chain(paths.iter().map(|path| text(path))).collect()
}

/// This machine, reached as if it were another one.
#[derive(Debug)]
pub(crate) struct Remote {
    /// The program that connects, with its arguments.
    pub(crate) program: String,
    pub(crate) host: String,
}

impl Remote {
    /// Parses the argument `ssh=PROGRAM... HOST`, without `ssh=`.
    pub(crate) fn parse(words: &str) -> Option<Self> {
        let (program, host) = words.rsplit_once(' ')?;
        Some(Self {
            program: program.to_owned(),
            host: host.to_owned(),
        })
    }

    /// The arguments with which fssync reads `master` through the program.
    pub(crate) fn arguments(&self, master: &Path) -> Argv {
        let fssync = env!("CARGO_BIN_EXE_fssync");
        let mut argv = ["-e", &self.program, "--remote-fssync", fssync]
            .map(String::from)
            .to_vec();
        argv.push(format!("{}:{}", self.host, text(master)));
        argv
    }
}
