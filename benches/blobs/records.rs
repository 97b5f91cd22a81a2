//! Passes over a log with very many blob records. Their files do not exist, and the sidecar
//! records that they do: a pass that looked at a single one of them would report it as absent.

use std::io;

use fssync::slave::paths::SlavePaths;
use fssync::slave::sidecar::Sidecar;

use crate::Options;
use crate::copies::MAX_NOTHING_NEW;
use crate::shared::command::{calm, must};
use crate::shared::contest::{Contender, Contest, Row, Target};
use crate::site::Site;

/// The number of blobs of a transaction.
const PER_TRANSACTION: u64 = 100;

/// Measures a pass that finds nothing new.
pub(crate) fn nothing_new(options: &Options, site: &Site) -> io::Result<Row> {
    // With real blobs, the first pass sets up the slave's blob directory.
    site.commit(1)?;
    must(&site.pass(&["--blobs"]))?;
    site.commit_without_files(options.records, PER_TRANSACTION)?;
    must(&site.pass(&["--no-blobs"]))?;
    let paths = SlavePaths::new(&site.place.slave).map_err(io::Error::other)?;
    let mut sidecar = Sidecar::load(&paths).map_err(io::Error::other)?;
    let Some(state) = &mut sidecar.blobs else {
        return Err(io::Error::other("the sidecar does not contain blobs"));
    };
    state.is_on = true;
    state.complete_at(site.position(), true);
    state.add(options.records, 0, 0);
    sidecar.store(&paths).map_err(io::Error::other)?;
    let contest = Contest {
        work: format!("nothing new, {} records of blobs", options.records),
        peer: None,
        fssync: Contender {
            name: "fssync",
            prepare: Box::new(|| Ok(())),
            commands: vec![site.pass(&["--blobs"])],
        },
        rounds: options.arguments.rounds(15),
        target: Target::Within(MAX_NOTHING_NEW),
    };
    calm(&site.place.directory)?;
    contest.run(&site.place.directory)
}
