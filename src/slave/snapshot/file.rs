//! The slave's end: what it is, where its transactions end, and whether it is
//! as the last pass left it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;

use crate::error::Error;
use crate::filestorage::backward::{Backward, Preceding, ReadAt};
use crate::filestorage::record::{MIN_TXN_LEN, TXN_HEADER_LEN};
use crate::filestorage::resync::zodb_truncates;
use crate::filestorage::scan::{self, Scanner};
use crate::filestorage::{MAGIC_LEN, Magic, Tid};
use crate::io::digest::Digest;
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::io::read::read_fully;
use crate::plan::{Continuity, SlaveState, SlaveTail, Storage};
use crate::slave::paths::{OpenMode, SlavePaths};
use crate::slave::protection::{self, Protection};
use crate::slave::scan::scan_file;
use crate::slave::sidecar::{Fingerprint, Sidecar};
use crate::slave::small_file::open_if_exists;

/// The slave, open for reading.
#[derive(Debug)]
pub(crate) struct SlaveFile {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) paths: SlavePaths,
    pub(crate) protection: Protection,
}

impl SlaveFile {
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        read_fully(&self.file, buffer, offset).map_err(self.fail(offset))
    }

    pub(crate) fn digest(&self, range: Range<u64>) -> Result<Option<Digest>, Error> {
        let start = range.start;
        Digest::of_file(&self.file, range).map_err(self.fail(start))
    }

    fn shrunk(&self) -> Error {
        Error::SlaveChanged {
            slave: self.paths.data().to_owned(),
            what: "it became shorter".to_owned(),
        }
    }

    fn fingerprint(&self, position: u64, last_tid: Option<Tid>) -> Result<Fingerprint, Error> {
        Fingerprint::of(&self.file, position, last_tid).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.shrunk(),
            _ => self.fail(position)(error),
        })
    }

    fn fail(&self, offset: u64) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("read at {offset} in"), self.paths.data())
    }
}

impl ReadAt for &SlaveFile {
    type Error = Error;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        if self.read(buffer, offset)? < buffer.len() {
            return Err(self.shrunk());
        }
        Ok(())
    }
}

/// Opens the slave for reading; an empty one is as good as none, but seen.
pub(crate) fn open(paths: &SlavePaths) -> Result<Option<(SlaveFile, FileStat)>, Error> {
    let Some(file) = open_if_exists(paths.data(), OpenMode::Read)? else {
        return Ok(None);
    };
    let (stat, protection) = protection::stat(&file).map_err(Error::io("look at", paths.data()))?;
    let file = SlaveFile {
        file,
        size: stat.size,
        paths: paths.clone(),
        protection,
    };
    Ok(Some((file, stat)))
}

/// What the sidecar is good for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanStart {
    /// Whether the slave is as it was left.
    pub(crate) continuity: Continuity,
    /// Where a scan may start.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// Whether the slave is what the last pass left, and from where on it must be
/// read: never is the sidecar believed where the slave's bytes say otherwise.
pub(crate) fn start(file: &SlaveFile, sidecar: &Sidecar) -> Result<ScanStart, Error> {
    let continuity = match &sidecar.last_sync {
        None => Continuity::Unknown,
        Some(left) if holds(file, left.slave)? => {
            return Ok(ScanStart {
                continuity: Continuity::UpTo(left.slave.position),
                fingerprint: Some(left.slave),
            });
        }
        Some(_) => Continuity::Changed,
    };
    let fingerprint = match sidecar.coherent_up_to {
        Some(fingerprint) if holds(file, fingerprint)? => Some(fingerprint),
        _ => None,
    };
    Ok(ScanStart {
        continuity,
        fingerprint,
    })
}

/// Whether a mark is the slave's: its digests, and a transaction of its last tid
/// that ends there.
fn holds(file: &SlaveFile, fingerprint: Fingerprint) -> Result<bool, Error> {
    if !(MAGIC_LEN..=file.size).contains(&fingerprint.position) {
        return Ok(false);
    }
    let found = file.fingerprint(fingerprint.position, fingerprint.last_tid)?;
    Ok(found == fingerprint
        && match Backward::new(file, fingerprint.position).step()? {
            Preceding::Start => fingerprint.last_tid.is_none(),
            Preceding::Transaction(last) => fingerprint.last_tid == Some(last.header.tid),
            Preceding::Incoherent => false,
        })
}

/// What the slave is, and its last tid.
#[derive(Clone, Debug)]
pub(crate) struct SlaveScan {
    pub(crate) slave: SlaveState,
    pub(crate) last_tid: Option<Tid>,
    /// Where another scan may start, if this one took long.
    pub(crate) coherent_up_to: Option<Fingerprint>,
}

impl From<SlaveState> for SlaveScan {
    fn from(slave: SlaveState) -> Self {
        Self {
            slave,
            last_tid: None,
            coherent_up_to: None,
        }
    }
}

/// Looks at the slave. Its position is found walking forwards: from its end, an
/// unfinished batch would look committed.
pub(crate) fn look(
    file: &SlaveFile,
    start: ScanStart,
    sidecar: &Sidecar,
    check_cancelled: &dyn Fn() -> Result<(), Error>,
    monitor: &dyn Monitor,
) -> Result<SlaveScan, Error> {
    let size = file.size;
    if size == 0 {
        return Ok(SlaveState::Missing.into());
    }
    let mut magic = [0; MAGIC_LEN as usize];
    let got = file.read(&mut magic, 0)?;
    let has_magic = Magic::decode(&magic[..got]).is_some();
    if size < MAGIC_LEN + MIN_TXN_LEN {
        let magic = has_magic;
        return Ok(SlaveState::Short { size, magic }.into());
    }
    if !has_magic {
        return Ok(SlaveState::Foreign.into());
    }
    let mut scanner = match start.fingerprint {
        Some(fingerprint) => Scanner::resume(fingerprint.position, fingerprint.last_tid, size),
        None => Scanner::new(size),
    };
    let path = file.paths.data();
    let go_on = |offset| {
        monitor.progress("reading the slave", offset, size);
        check_cancelled()
    };
    scan_file(&file.file, path, &mut scanner, &go_on, &mut |_| {})?;
    let (position, last_tid) = (scanner.position(), scanner.last_tid());
    let mut reader = file;
    let tail = match scanner.tail() {
        scan::Tail::Clean => SlaveTail::None,
        scan::Tail::Damaged(damage) if !zodb_truncates(&mut reader, size, &damage)? => {
            return Ok(SlaveScan {
                slave: SlaveState::Damaged(damage),
                last_tid,
                coherent_up_to: None,
            });
        }
        _ => look_at_tail(file, position, sidecar)?,
    };
    let fingerprint = match start.continuity {
        Continuity::UpTo(_) => None,
        Continuity::Unknown | Continuity::Changed => Some(file.fingerprint(position, last_tid)?),
    };
    let storage = Storage {
        position,
        last_tid,
        tail,
        continuity: start.continuity,
    };
    Ok(SlaveScan {
        slave: SlaveState::Storage(storage),
        last_tid,
        coherent_up_to: fingerprint,
    })
}

fn look_at_tail(file: &SlaveFile, position: u64, sidecar: &Sidecar) -> Result<SlaveTail, Error> {
    let len = file.size - position;
    let mut start = vec![0; len.min(TXN_HEADER_LEN as u64) as usize];
    let got = file.read(&mut start, position)?;
    let ours = sidecar
        .batch
        .as_ref()
        .is_some_and(|batch| batch.has_written(position, &start[..got]));
    Ok(if ours {
        SlaveTail::Ours(len)
    } else {
        SlaveTail::Foreign(len)
    })
}
