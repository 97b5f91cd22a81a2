//! Reading both ends: what [`plan::decide`](crate::plan::decide) decides by.
//!
//! Nothing is decided here and nothing is written. What costs more than a few
//! kilobytes is read only when the plan asks for it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::iter;
use std::ops::Range;

use crate::digest::Digest;
use crate::filestorage::backward::{Backward, Preceding, ReadAt};
use crate::filestorage::record::{MIN_TXN_LEN, TRAILER_LEN, TXN_HEADER_LEN, be_u64};
use crate::filestorage::scan::{self, Cause, Damage, Scanner, Transaction};
use crate::filestorage::{MAGIC_LEN, Magic, Status, Tid, TxnHeader};
use crate::monitor::Monitor;
use crate::plan::{
    Comparison, Described, Facts, Lacking, Left, Master, Next, Question, Slave, Storage, Tail,
};
use crate::read::read_fully;
use crate::slave::place::{self, Access, Place};
use crate::slave::sidecar::{self, Mark, Sidecar};
use crate::slave::step::Seen;
use crate::source::{self, Sight};
use crate::stop::Stop;

/// How many bytes are read at once.
const PIECE_LEN: u64 = 1024 * 1024;

/// How many bytes are digested between two signs of life.
const PROOF_LEN: u64 = 64 * 1024 * 1024;

/// How many of the slave's own transactions are described.
const DESCRIBED: usize = 5;

/// What was seen, and the handles to see more.
#[derive(Debug)]
pub struct Survey {
    /// What is decided by.
    pub facts: Facts,
    /// The master.
    pub sight: Sight,
    /// The file under the slave's name; `None` if there is none.
    pub seen: Option<Seen>,
    /// The slave's last tid, as far as it is one that can be read.
    pub last_tid: Option<Tid>,
    /// The slave's position in bytes, if it has one.
    pub position: Option<u64>,
    file: Option<SlaveFile>,
}

/// The slave, open for reading.
#[derive(Debug)]
struct SlaveFile {
    file: File,
    size: u64,
    place: Place,
}

impl SlaveFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Stop> {
        read_fully(&self.file, buffer, offset).map_err(self.fail(offset))
    }

    fn digest(&self, range: Range<u64>) -> Result<Option<Digest>, Stop> {
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

impl Survey {
    /// Looks at both ends.
    pub fn make(
        place: &Place,
        master: &source::Master,
        sidecar: &Sidecar,
        monitor: &dyn Monitor,
    ) -> Result<Self, Stop> {
        let file = open(place)?;
        let (slave, last_tid) = match &file {
            None => (Slave::Missing, None),
            Some((file, _)) => look_at_slave(file, sidecar, monitor)?,
        };
        let ranges = match &slave {
            Slave::Short { size, .. } => iter::once(0..*size).collect(),
            Slave::Storage(slave) => {
                vec![sidecar::head(slave.position), sidecar::tail(slave.position)]
            }
            _ => Vec::new(),
        };
        let sight = master.look(ranges.clone())?;
        place.check_is_not(sight.local)?;
        let (file, seen) = file.unzip();
        let mut matches = None;
        let compared = ranges.iter().all(|range| range.end <= sight.size);
        if let (Some(file), true, false) = (&file, compared, ranges.is_empty()) {
            let ours: Vec<_> = ranges
                .into_iter()
                .map(|range| file.digest(range))
                .collect::<Result<_, _>>()?;
            matches = Some(ours == sight.digests);
        }
        let position = match &slave {
            Slave::Storage(slave) => Some(slave.position),
            Slave::Short { magic: true, .. } => Some(MAGIC_LEN),
            _ => None,
        };
        let same_file = sidecar
            .left
            .as_ref()
            .is_some_and(|left| left.master == sight.identity);
        let next = match position {
            Some(position) if matches == Some(true) => look_ahead(master, sight.size, position)?,
            _ => Next::End,
        };
        let facts = Facts {
            slave,
            master: Master {
                size: sight.size,
                same_file,
                matches,
                next,
            },
            prefix_equal: None,
            comparison: None,
        };
        Ok(Self {
            facts,
            sight,
            seen,
            last_tid,
            position,
            file,
        })
    }

    /// The slave, open for reading, if there is one.
    #[must_use]
    pub fn slave_file(&self) -> Option<&File> {
        self.file.as_ref().map(|slave| &slave.file)
    }

    /// Answers a question of the plan's.
    pub fn answer(
        &mut self,
        question: Question,
        master: &source::Master,
        monitor: &dyn Monitor,
    ) -> Result<(), Stop> {
        let (Some(file), Some(position)) = (&self.file, self.position) else {
            return Ok(());
        };
        match question {
            Question::Prefix { from } => {
                tracing::info!(
                    "comparing the slave with the master, bytes {from} to {position}: \
                     no earlier pass vouches for them"
                );
                let equal = is_equal(file, master, from..position, monitor)?;
                self.facts.prefix_equal = Some(equal);
            }
            Question::Compare { from } => {
                let comparison = compare(file, position, from, master, self.sight.size)?;
                self.facts.comparison = Some(comparison);
            }
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
        Some((file, _)) => Ok(look_at_slave(&file, sidecar, monitor)?.1),
    }
}

/// Opens the slave for reading; an empty one is as good as none, but seen.
fn open(place: &Place) -> Result<Option<(SlaveFile, Seen)>, Stop> {
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
fn look_at_slave(
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
    let mut buffer = vec![0; PIECE_LEN.min(size - scanner.offset()) as usize];
    while scanner.stopped().is_none() && scanner.offset() < size {
        let got = file.read(&mut buffer, scanner.offset())?;
        if got == 0 {
            break;
        }
        scanner.feed(&buffer[..got], &mut |_| {});
        monitor.progress("reading the slave", scanner.offset(), size);
    }
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

/// What lies in the master at the slave's position.
fn look_ahead(master: &source::Master, size: u64, position: u64) -> Result<Next, Stop> {
    if size <= position {
        return Ok(Next::End);
    }
    let bytes = master.read(TXN_HEADER_LEN, position).wait()?;
    Ok(match bytes.first_chunk::<TXN_HEADER_LEN>() {
        None => Next::Unfinished,
        Some(bytes) if TxnHeader::decode(bytes).status == Status::VOTED => Next::Unfinished,
        Some(_) => Next::Finished,
    })
}

/// Whether a range has the same bytes on both ends, digested in pieces so that
/// each answer comes in time.
fn is_equal(
    file: &SlaveFile,
    master: &source::Master,
    range: Range<u64>,
    monitor: &dyn Monitor,
) -> Result<bool, Stop> {
    let mut at = range.start;
    while at < range.end {
        let piece = at..range.end.min(at + PROOF_LEN);
        at = piece.end;
        let theirs = master.digest(piece.clone());
        let ours = file.digest(piece)?;
        let theirs = theirs.wait()?;
        if ours.is_none() || ours != theirs {
            return Ok(false);
        }
        monitor.progress("comparing", at - range.start, range.end - range.start);
    }
    Ok(true)
}

/// Compares the last transactions by their tids, both files from their ends, to
/// the first transaction before `from` that both have.
fn compare(
    file: &SlaveFile,
    position: u64,
    from: u64,
    master: &source::Master,
    master_size: u64,
) -> Result<Comparison, Stop> {
    let mut slave = Backward::new(file, position);
    let master_end = find_end(master, master_size)?;
    let mut master = Backward::new(master, master_end);
    let mut ours = step_back(&mut slave)?;
    let mut theirs = step_back(&mut master)?;
    let slave_last = ours.map(|last| last.header.tid);
    let mut comparison = Comparison {
        master_last: theirs.map(|last| last.header.tid),
        ..Comparison::default()
    };
    while let Some(transaction) = ours {
        let tid = transaction.header.tid;
        match theirs {
            Some(other) if other.header.tid > tid => {
                comparison.packed_above |=
                    other.header.status == Status::PACKED && Some(other.header.tid) > slave_last;
                theirs = step_back(&mut master)?;
                continue;
            }
            Some(other) if other.header.tid == tid => {
                if transaction.end <= from {
                    break;
                }
                theirs = step_back(&mut master)?;
            }
            _ => add(&mut comparison.lacking, &mut slave, &transaction)?,
        }
        ours = step_back(&mut slave)?;
    }
    Ok(comparison)
}

fn add(
    lacking: &mut Lacking,
    slave: &mut Backward<&SlaveFile>,
    transaction: &Transaction,
) -> Result<(), Stop> {
    let tid = transaction.header.tid;
    lacking.count += 1;
    lacking.first = Some(tid);
    if lacking.last.len() < DESCRIBED {
        let (user, description) = slave.user_and_description(transaction)?;
        lacking.last.push(Described {
            tid,
            user,
            description,
        });
    }
    Ok(())
}

/// The transaction before; where the file is incoherent, none is taken to be
/// there, which at worst makes the plan refuse.
fn step_back<R: ReadAt>(file: &mut Backward<R>) -> Result<Option<Transaction>, Stop>
where
    Stop: From<R::Error>,
{
    Ok(match file.step()? {
        Preceding::Transaction(transaction) => Some(transaction),
        Preceding::Start | Preceding::Incoherent => None,
    })
}

/// The master's position, from its end: before a vote that is under way. Where
/// the end is torn, the whole file is walked.
fn find_end(master: &source::Master, size: u64) -> Result<u64, Stop> {
    match Backward::new(master, size).step()? {
        Preceding::Start => Ok(size),
        Preceding::Transaction(last) if last.header.status == Status::VOTED => Ok(last.position),
        Preceding::Transaction(last) => Ok(last.end),
        Preceding::Incoherent => {
            let mut scanner = Scanner::new(size);
            while scanner.stopped().is_none() && scanner.offset() < size {
                let bytes = master.read(PIECE_LEN as usize, scanner.offset()).wait()?;
                if bytes.is_empty() {
                    break;
                }
                scanner.feed(&bytes, &mut |_| {});
            }
            Ok(scanner.position())
        }
    }
}
