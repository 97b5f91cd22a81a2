//! The slave's end of a survey, before the master is looked at.

pub(crate) mod file;

pub(crate) use self::file::SlaveFile;

use self::file::{ScanStart, SlaveScan};
use crate::error::Error;
use crate::filestorage::{MAGIC_LEN, Tid};
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::plan::SlaveState;
use crate::slave::paths::SlavePaths;
use crate::slave::sidecar::{Fingerprint, Sidecar};

/// The slave, opened and compared with what the sidecar says of it.
#[derive(Debug)]
pub struct OpenedSlave(Option<(SlaveFile, FileStat, ScanStart)>);

impl OpenedSlave {
    /// Opens the slave for reading.
    pub fn open(paths: &SlavePaths, sidecar: &Sidecar) -> Result<Self, Error> {
        let Some((file, seen)) = file::open(paths)? else {
            return Ok(Self(None));
        };
        let start = file::start(&file, sidecar)?;
        Ok(Self(Some((file, seen, start))))
    }

    /// Whether no earlier pass spares reading it from its start.
    #[must_use]
    pub fn must_be_read(&self) -> bool {
        matches!(&self.0, Some((_, _, start)) if start.fingerprint.is_none())
    }

    /// Looks what it is, as long as `may_go_on` says so.
    pub fn look(
        self,
        sidecar: &Sidecar,
        check_cancelled: &dyn Fn() -> Result<(), Error>,
        monitor: &dyn Monitor,
    ) -> Result<SlaveSnapshot, Error> {
        let (look, opened) = match self.0 {
            None => (SlaveState::Missing.into(), None),
            Some((file, seen, start)) => (
                file::look(&file, start, sidecar, check_cancelled, monitor)?,
                Some((file, seen)),
            ),
        };
        let SlaveScan {
            slave,
            last_tid,
            coherent_up_to,
        } = look;
        let (file, seen) = opened.unzip();
        Ok(SlaveSnapshot {
            slave,
            last_tid,
            coherent_up_to,
            seen,
            file,
        })
    }
}

/// The slave as it was when it was looked at.
#[derive(Debug)]
pub struct SlaveSnapshot {
    /// What it is.
    pub slave: SlaveState,
    /// Its last tid, as far as it is one that can be read.
    pub last_tid: Option<Tid>,
    /// Where the next look may start to read, if this one read it all.
    pub coherent_up_to: Option<Fingerprint>,
    /// The file under its name; `None` if there is none.
    pub seen: Option<FileStat>,
    pub(crate) file: Option<SlaveFile>,
}

impl SlaveSnapshot {
    /// Its position in bytes, if it has one.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        match &self.slave {
            SlaveState::Storage(slave) => Some(slave.position),
            SlaveState::Short { magic: true, .. } => Some(MAGIC_LEN),
            _ => None,
        }
    }
}
