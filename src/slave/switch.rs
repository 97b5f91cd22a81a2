//! Whether syncing is on.
//!
//! A switch is a file with one line, `SYNCING=1` or `SYNCING=0`, as syncPozo
//! had it. Several are honoured, and any off wins:
//!
//! | file | where it is missing |
//! | --- | --- |
//! | the one named by `--status-file` | off: on a tmpfs it is gone after a reboot, and that must turn nothing on |
//! | `Data.fs.fssync-switch` beside the slave | not asked |
//! | `/var/run/fssync.status` | not asked |
//! | `/var/run/syncPozo.status` | not asked |
//!
//! A switch that cannot be read, or says anything but on, is off.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::owner::Owner;
use super::place::{Beside, Place};
use crate::stop::Stop;

const ON: &str = "SYNCING=1";
const OFF: &str = "SYNCING=0";

/// Switches of the whole machine.
const MACHINE_WIDE: [&str; 2] = ["/var/run/fssync.status", "/var/run/syncPozo.status"];

/// More than a switch has to say, in bytes.
const MAX_LEN: u64 = 64;

/// The switches that a slave obeys.
#[derive(Clone, Debug)]
pub struct Switches {
    named: Option<PathBuf>,
    found: Vec<PathBuf>,
    /// The one that `fssync off` and `fssync on` write.
    own: PathBuf,
}

impl Switches {
    /// The switches of the slave at `place`; `named` is that of
    /// `--status-file`.
    #[must_use]
    pub fn new(place: &Place, named: Option<PathBuf>) -> Self {
        let beside = place.beside(Beside::Switch);
        let own = named.clone().unwrap_or_else(|| beside.clone());
        let mut found = vec![beside];
        found.extend(MACHINE_WIDE.map(PathBuf::from));
        Self { named, found, own }
    }

    /// All that are asked, be they there or not.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.named.iter().chain(&self.found).map(PathBuf::as_path)
    }

    /// Fails with [`Stop::Off`] unless all switches say on.
    pub fn check(&self) -> Result<(), Stop> {
        match self.why_off() {
            Some(why) => Err(Stop::Off(format!("syncing is off: {why}"))),
            None => Ok(()),
        }
    }

    /// Which switch says off, and how; `None` if all say on.
    #[must_use]
    pub fn why_off(&self) -> Option<String> {
        let named = self.named.iter().map(|path| (path, true));
        let found = self.found.iter().map(|path| (path, false));
        named.chain(found).find_map(|(path, must_be_there)| {
            let why = match read(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    must_be_there.then(|| "is missing".to_owned())
                }
                said => judge(said),
            };
            why.map(|why| format!("{} {why}", path.display()))
        })
    }

    /// Whether the slave's own switch is there and says off.
    #[must_use]
    pub fn own_says_off(&self) -> bool {
        read(&self.own).is_ok_and(|said| judge(Ok(said)).is_some())
    }

    /// Writes the slave's own switch, durably; it never says on before it is to.
    /// Off needs no room on the disk: a switch that is empty is off, too.
    pub fn set(&self, on: bool, place: &Place) -> Result<&Path, Stop> {
        let path = self.own.as_path();
        let fail = |action| Stop::io(action, path);
        let file = if self.named.is_some() {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            options.open(path).map_err(fail("open"))?
        } else {
            Owner::open_or_create_for(place, path)?
        };
        match write(&file, if on { ON } else { OFF }) {
            Err(error) if is_full(&error) && !on => file.set_len(0),
            written => written,
        }
        .map_err(fail("write"))?;
        file.sync_all().map_err(fail("sync"))?;
        if self.named.is_none() {
            place.sync_directory()?;
        }
        Ok(path)
    }
}

/// Writes over what a switch says, which takes no new block of a full disk. What
/// a longer one said makes it say neither until it is cut.
fn write(file: &File, says: &str) -> io::Result<()> {
    let line = format!("{says}\n");
    file.write_all_at(line.as_bytes(), 0)?;
    file.set_len(line.len() as u64)
}

/// Whether the disk is full, or the owner's share of it.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn read(path: &Path) -> io::Result<String> {
    let mut said = String::new();
    // A FIFO is not waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    file.take(MAX_LEN).read_to_string(&mut said)?;
    Ok(said)
}

/// Why what a switch says is not on.
fn judge(said: io::Result<String>) -> Option<String> {
    match said {
        // More was not read, and may say something else.
        Ok(said) if said.len() as u64 == MAX_LEN => Some("says too much".to_owned()),
        Ok(said) if said.trim_end() == ON => None,
        Ok(said) if said.trim_end() == OFF => Some("says so".to_owned()),
        Ok(said) => Some(format!("says neither {ON} nor {OFF} but {said:?}")),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}
