//! `fssync serve PATH...`: the master's end of a connection.

use std::io::{self, BufWriter};
use std::path::{self, PathBuf};

use fssync::io::pipe;
use fssync::plan::outcome::Exit;
use fssync::source::server;

pub(crate) fn run(paths: &[PathBuf]) -> Exit {
    let served = match paths
        .iter()
        .map(path::absolute)
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(paths) => paths,
        Err(error) => {
            tracing::error!("cannot tell where to find what to serve: {error}");
            return Exit::Usage;
        }
    };
    pipe::widen(io::stdout());
    let output = BufWriter::new(io::stdout().lock());
    match server::serve(&served, io::stdin().lock(), output) {
        Ok(()) => Exit::Success,
        Err(error) => {
            tracing::error!("fssync serve: {:#}", anyhow::Error::from(error));
            Exit::Failure
        }
    }
}
