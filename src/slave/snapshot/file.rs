//! Reads the slave: its state, its position, and whether it still matches the sidecar.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;

use crate::error::Error;
use crate::filestorage::backward::{Backward, Preceding, ReadAt};
use crate::filestorage::record::{MIN_TXN_LEN, TXN_HEADER_LEN};
use crate::filestorage::resync::zodb_truncates;
use crate::filestorage::scan::{Scanner, Tail};
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
            what: "it was truncated".to_owned(),
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

/// Opens the slave for reading; `None` if there is no file.
pub(crate) fn open(paths: &SlavePaths) -> Result<Option<(SlaveFile, FileStat)>, Error> {
    let Some(file) = open_if_exists(paths.data(), OpenMode::Read)? else {
        return Ok(None);
    };
    let (stat, protection) = protection::stat(&file).map_err(Error::io("stat", paths.data()))?;
    let file = SlaveFile {
        file,
        size: stat.size,
        paths: paths.clone(),
        protection,
    };
    Ok(Some((file, stat)))
}

/// How far the sidecar matches the slave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanStart {
    /// Whether the slave still has the bytes that the last pass left.
    pub(crate) continuity: Continuity,
    /// Position from which a scan can start; `None` for the start of the file.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// Compares the slave with the sidecar, to find where a scan can start. A fingerprint of the
/// sidecar is used only if the slave's bytes match it.
pub(crate) fn scan_start(file: &SlaveFile, sidecar: &Sidecar) -> Result<ScanStart, Error> {
    let continuity = match &sidecar.last_sync {
        None => Continuity::Unknown,
        Some(last) if matches(file, last.slave)? => {
            return Ok(ScanStart {
                continuity: Continuity::UpTo(last.slave.position),
                fingerprint: Some(last.slave),
            });
        }
        Some(_) => Continuity::Changed,
    };
    let fingerprint = match sidecar.coherent_up_to {
        Some(fingerprint) if matches(file, fingerprint)? => Some(fingerprint),
        _ => None,
    };
    Ok(ScanStart {
        continuity,
        fingerprint,
    })
}

/// Whether the slave matches a fingerprint: the digests are equal, and the transaction before
/// the position has the fingerprint's tid.
fn matches(file: &SlaveFile, fingerprint: Fingerprint) -> Result<bool, Error> {
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

/// The result of a scan of the slave.
#[derive(Clone, Debug)]
pub(crate) struct SlaveScan {
    pub(crate) slave: SlaveState,
    pub(crate) last_tid: Option<Tid>,
    /// Position from which the next scan can start, if this one read the whole slave.
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

/// Determines the state of the slave. Its position is found by a scan forwards: backwards from
/// its end, the later transactions of an unfinished batch would look committed.
pub(crate) fn scan(
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
    let check = |offset| {
        monitor.progress("reading the slave", offset, size);
        check_cancelled()
    };
    scan_file(&file.file, path, &mut scanner, &check, &mut |_| {})?;
    let (position, last_tid) = (scanner.position(), scanner.last_tid());
    let mut reader = file;
    let tail = match scanner.tail() {
        Tail::Clean => SlaveTail::None,
        // A record that the end of the file cuts off is a torn write, not damage.
        Tail::Damaged(damage) if !zodb_truncates(&mut reader, size, &damage)? => {
            return Ok(SlaveScan {
                slave: SlaveState::Damaged(damage),
                last_tid,
                coherent_up_to: None,
            });
        }
        _ => classify_tail(file, position, sidecar)?,
    };
    // If the sidecar does not vouch for the slave, save later passes from reading it all.
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

/// Whether the tail after the position is the start of our own unfinished batch.
fn classify_tail(file: &SlaveFile, position: u64, sidecar: &Sidecar) -> Result<SlaveTail, Error> {
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
