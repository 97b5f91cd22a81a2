//! `fssync serve PATH...`: the server at the master's end of a connection.

use std::io::{self, BufWriter};
use std::path::{self, PathBuf};

use fssync::io::pipe;
use fssync::plan::outcome::Exit;
use fssync::source::server;

use super::log::End;

pub(crate) fn run(paths: &[PathBuf]) -> Result<Exit, End> {
    let absolute = paths.iter().map(path::absolute);
    let served = absolute.collect::<Result<Vec<_>, _>>().map_err(|error| {
        let line = format!("fssync serve: cannot make PATH absolute: {error}");
        End::failed(Exit::Usage, line)
    })?;
    pipe::widen(io::stdout());
    let output = BufWriter::new(io::stdout().lock());
    server::serve(&served, io::stdin().lock(), output)
        .map_err(|error| anyhow::Error::from(error).context("fssync serve"))?;
    Ok(Exit::Success)
}
