//! The slave's end: what it is, where its transactions end, and whether it is
//! as the last pass left it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;

use crate::digest::Digest;
use crate::filestorage::backward::ReadAt;
use crate::filestorage::record::{MIN_TXN_LEN, TRAILER_LEN, TXN_HEADER_LEN, be_u64};
use crate::filestorage::scan::{self, Cause, Damage, Event, Scanner};
use crate::filestorage::{MAGIC_LEN, Magic, Tid};
use crate::monitor::Monitor;
use crate::plan::{Left, Slave, Storage, Tail};
use crate::read::{read_fully, scan_file};
use crate::slave::place::{self, Access, Place};
use crate::slave::sidecar::{Mark, Sidecar};
use crate::slave::step::Seen;
use crate::stop::Stop;

/// The slave, open for reading.
#[derive(Debug)]
pub(super) struct SlaveFile {
    pub(super) file: File,
    size: u64,
    pub(super) place: Place,
}

impl SlaveFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Stop> {
        read_fully(&self.file, buffer, offset).map_err(self.fail(offset))
    }

    pub(super) fn digest(&self, range: Range<u64>) -> Result<Option<Digest>, Stop> {
        let start = range.start;
        Digest::of_file(&self.file, range).map_err(self.fail(start))
    }

    fn fail(&self, offset: u64) -> impl FnOnce(io::Error) -> Stop + use<> {
        Stop::io(format!("read at {offset} in"), self.place.data())
    }
}

impl ReadAt for &SlaveFile {
    type Error = Stop;

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Stop> {
        if self.read(buffer, offset)? < buffer.len() {
            return Err(self.fail(offset)(ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }
}

/// The tid of the last committed transaction that the slave holds.
pub fn last_tid(
    place: &Place,
    sidecar: &Sidecar,
    monitor: &dyn Monitor,
) -> Result<Option<Tid>, Stop> {
    match open(place)? {
        None => Ok(None),
        Some((file, _)) => Ok(look(&file, sidecar, monitor)?.1),
    }
}

/// Opens the slave for reading; an empty one is as good as none, but seen.
pub(super) fn open(place: &Place) -> Result<Option<(SlaveFile, Seen)>, Stop> {
    let file = match place::open(place.data(), Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Stop::io("open", place.data())(error)),
    };
    let found = file.metadata().map_err(Stop::io("look at", place.data()))?;
    let file = SlaveFile {
        file,
        size: found.len(),
        place: place.clone(),
    };
    Ok(Some((file, Seen::of(&found))))
}

/// What the slave is, and its last tid. Its position is found walking forwards:
/// from its end, an unfinished batch would look committed.
pub(super) fn look(
    file: &SlaveFile,
    sidecar: &Sidecar,
    monitor: &dyn Monitor,
) -> Result<(Slave, Option<Tid>), Stop> {
    let size = file.size;
    if size == 0 {
        return Ok((Slave::Missing, None));
    }
    let mut magic = [0; MAGIC_LEN as usize];
    let got = file.read(&mut magic, 0)?;
    let has_magic = Magic::decode(&magic[..got]).is_some();
    if size < MAGIC_LEN + MIN_TXN_LEN {
        let magic = has_magic;
        return Ok((Slave::Short { size, magic }, None));
    }
    if !has_magic {
        return Ok((Slave::Foreign, None));
    }
    let (left, start) = look_at_left(file, sidecar)?;
    let mut scanner = match start {
        Some(mark) => Scanner::resume(mark.position, mark.last_tid, size),
        None => Scanner::new(size),
    };
    scan_file(&file.file, &mut scanner, &mut |event| {
        if let Event::Transaction(transaction) = event {
            monitor.progress("reading the slave", transaction.end, size);
        }
    })
    .map_err(file.fail(scanner.offset()))?;
    let (position, last_tid) = (scanner.position(), scanner.last_tid());
    let tail = match scanner.tail() {
        scan::Tail::Clean => Tail::None,
        scan::Tail::Damaged(damage) if !zodb_cuts(file, &damage)? => {
            return Ok((Slave::Damaged(damage), last_tid));
        }
        _ => look_at_tail(file, position, sidecar)?,
    };
    let storage = Storage {
        position,
        last_tid,
        tail,
        left,
    };
    Ok((Slave::Storage(storage), last_tid))
}

/// Whether the slave is what the last pass left, and up to where.
fn look_at_left(file: &SlaveFile, sidecar: &Sidecar) -> Result<(Left, Option<Mark>), Stop> {
    let Some(left) = &sidecar.left else {
        return Ok((Left::Unknown, None));
    };
    let mark = left.slave;
    if !(MAGIC_LEN..=file.size).contains(&mark.position) {
        return Ok((Left::Changed, None));
    }
    let found =
        Mark::of(&file.file, mark.position, mark.last_tid).map_err(file.fail(mark.position))?;
    Ok(if found == mark {
        (Left::UpTo(mark.position), Some(mark))
    } else {
        (Left::Changed, None)
    })
}

/// Whether ZODB takes this damage for what a crash left at the end of the file,
/// and cuts it: it does so for a header that cannot be, unless the last 8 bytes
/// of the file are the length of a transaction behind it.
fn zodb_cuts(file: &SlaveFile, damage: &Damage) -> Result<bool, Stop> {
    if !matches!(damage.cause, Cause::ShorterThanHeader { .. }) {
        return Ok(false);
    }
    let mut last = [0; TRAILER_LEN as usize];
    let mut reader = file;
    reader.read_exact_at(&mut last, file.size - TRAILER_LEN)?;
    let len = be_u64(&last);
    let start = file.size.checked_sub(len);
    Ok(start.is_none_or(|start| start < damage.position) || len < TXN_HEADER_LEN as u64)
}

fn look_at_tail(file: &SlaveFile, position: u64, sidecar: &Sidecar) -> Result<Tail, Stop> {
    let len = file.size - position;
    let mut start = vec![0; len.min(TXN_HEADER_LEN as u64) as usize];
    let got = file.read(&mut start, position)?;
    let ours = sidecar
        .batch
        .as_ref()
        .is_some_and(|batch| batch.left(position, &start[..got]));
    Ok(if ours {
        Tail::Ours(len)
    } else {
        Tail::Foreign(len)
    })
}
