//! The state of the slave at the start of a survey, and how it compares with the sidecar.
//! Only reads.

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

/// The slave, opened and compared with the sidecar.
#[derive(Debug)]
pub struct OpenedSlave(Option<(SlaveFile, FileStat, ScanStart)>);

impl OpenedSlave {
    /// Opens the slave for reading.
    pub fn open(paths: &SlavePaths, sidecar: &Sidecar) -> Result<Self, Error> {
        let Some((file, seen)) = file::open(paths)? else {
            return Ok(Self(None));
        };
        let start = file::scan_start(&file, sidecar)?;
        Ok(Self(Some((file, seen, start))))
    }

    /// Whether the slave must be read from its start, because the sidecar does not match it.
    #[must_use]
    pub fn must_be_read(&self) -> bool {
        matches!(&self.0, Some((_, _, start)) if start.fingerprint.is_none())
    }

    /// Determines the state of the slave. Reads it from where the sidecar vouches for it, until
    /// `check_cancelled` fails.
    pub fn scan(
        self,
        sidecar: &Sidecar,
        check_cancelled: &dyn Fn() -> Result<(), Error>,
        monitor: &dyn Monitor,
    ) -> Result<SlaveSnapshot, Error> {
        let (scan, opened) = match self.0 {
            None => (SlaveState::Missing.into(), None),
            Some((file, seen, start)) => (
                file::scan(&file, start, sidecar, check_cancelled, monitor)?,
                Some((file, seen)),
            ),
        };
        let SlaveScan {
            slave,
            last_tid,
            coherent_up_to,
        } = scan;
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

/// The state of the slave at one moment.
#[derive(Debug)]
pub struct SlaveSnapshot {
    /// State of the slave.
    pub slave: SlaveState,
    /// Tid of the last transaction that could be read.
    pub last_tid: Option<Tid>,
    /// Position from which the next scan can start, if this scan read the whole slave.
    pub coherent_up_to: Option<Fingerprint>,
    /// The file; `None` if there is none.
    pub seen: Option<FileStat>,
    pub(crate) file: Option<SlaveFile>,
}

impl SlaveSnapshot {
    /// Position of the slave in bytes; `None` if it is not a FileStorage.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        match &self.slave {
            SlaveState::Storage(slave) => Some(slave.position),
            SlaveState::Short { magic: true, .. } => Some(MAGIC_LEN),
            _ => None,
        }
    }
}
