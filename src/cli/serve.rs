//! `fssync serve [--blobs] PATH...`: the server at the master's end of a connection.

use std::io::{self, BufWriter};
use std::path::{self, PathBuf};

use fssync::io::pipe;
use fssync::plan::outcome::Exit;
use fssync::source::{blobs, server};

use super::log::End;

pub(crate) fn run(paths: &[PathBuf], with_blobs: bool) -> Result<Exit, End> {
    let absolute = paths.iter().map(path::absolute);
    let mut served = absolute.collect::<Result<Vec<_>, _>>().map_err(|error| {
        let line = format!("fssync serve: cannot make PATH absolute: {error}");
        End::failed(Exit::Usage, line)
    })?;
    if with_blobs {
        // A path without any has none to serve. A request that needs it reports why.
        let usual = paths.iter().flat_map(|path| blobs::usual_directories(path));
        served.extend(usual.flatten().collect::<Vec<_>>());
    }
    pipe::widen(io::stdout());
    let output = BufWriter::new(io::stdout().lock());
    server::serve(&served, io::stdin().lock(), output)
        .map_err(|error| anyhow::Error::from(error).context("fssync serve"))?;
    Ok(Exit::Success)
}
