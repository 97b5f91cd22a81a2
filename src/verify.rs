//! Whether a slave is sound: every transaction and data record, and the index.
//!
//! Nothing is locked, and [`verify`] writes nothing, so that a long verification keeps
//! neither ZEO from opening the slave nor a pass from writing it: bytes before a position do
//! not change. If another file is put in the slave's place meanwhile, the verification does
//! not count. [`Verified::note`] writes the result beside the slave.
//!
//! | part | duty |
//! | --- | --- |
//! | [`finding`] | what is wrong, and what to do |
//! | `fields` | single fields, by their positions |
//! | `lossy_reader` | bytes in windows, sectors that fail included |
//! | `walk` | the structure, and how it goes on behind damage |
//! | `conversion` | what the walk finds, as findings |
//! | `digests` | the bytes against the ledger |
//! | `index` | ZODB's index against the file |
//! | [`against`] | the slave against its master |
//!
//! What makes damage of a finding is argued in
//! [`filestorage::check`](crate::filestorage::check).

pub mod against;
mod conversion;
mod digests;
pub mod finding;
mod index;
mod lossy_reader;
mod walk;

use std::io::ErrorKind;
use std::path::PathBuf;

use jiff::Timestamp;

pub use self::digests::DigestState;
pub use self::index::IndexState;

use self::digests::DigestCheck;
use self::finding::{Finding, Severity};
use self::index::IndexCheck;
use self::lossy_reader::LossyReader;
use self::walk::{Walk, WalkInput};
use crate::error::Error;
use crate::error::retry::{self, MAX_ATTEMPTS, RETRY_DELAY};
use crate::filestorage::Tid;
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::plan::outcome::Exit;
use crate::slave::paths::{self, OpenMode, SlavePaths};
use crate::slave::presence::Presence;
use crate::slave::step::Slave;
use crate::slave::verification::Record;
use crate::source::FileId;

/// What came of a verification.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The slave's `Data.fs`.
    pub slave: PathBuf,
    /// Whether a pass was ever made for it.
    pub presence: Presence,
    /// What lies there.
    pub content: SlaveContent,
    /// Which file it was; `None` if there is none.
    pub seen: Option<FileStat>,
    /// The same, as it is recognised later.
    pub identity: Option<FileId>,
    /// The slave's size in bytes.
    pub size: u64,
    /// Up to where it is committed, as far as that can be told.
    pub position: u64,
    /// The tid of the last transaction that was found whole.
    pub last_tid: Option<Tid>,
    /// How many transactions were found whole.
    pub transactions: u64,
    /// How many data records they have.
    pub records: u64,
    /// How many objects.
    pub objects: u64,
    /// How many bytes of the slave were read.
    pub bytes: u64,
    /// What lies behind the position.
    pub unfinished: Option<UnfinishedTail>,
    /// What its digests say.
    pub digests: DigestState,
    /// What the index is good for.
    pub index: IndexState,
    /// How many findings are damage.
    pub damages: u64,
    /// How many of them are in `Data.fs` itself, which no pass mends.
    pub data_damages: u64,
    /// How many are not.
    pub blemishes: u64,
}

/// What lies under the slave's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveContent {
    /// No file, or an empty one.
    Missing,
    /// Fewer bytes than a transaction has.
    TooShort,
    /// No FileStorage.
    Foreign,
    /// A FileStorage.
    FileStorage,
}

/// What lies behind the last committed transaction: ZODB cuts it when it opens the
/// slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfinishedTail {
    /// How many bytes.
    pub bytes: u64,
    /// Whether it is of an append of ours.
    pub is_ours: bool,
}

impl Verified {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.content {
            SlaveContent::Missing | SlaveContent::TooShort => Exit::Failure,
            _ if self.damages > 0 => Exit::SlaveDamaged,
            _ => Exit::Success,
        }
    }

    /// Notes the result beside the slave, with the exit code and in one line, for `fssync
    /// status` and later passes; of a path for which no pass was made, nothing is noted.
    pub fn note(
        &self,
        paths: &SlavePaths,
        quick: bool,
        exit: Exit,
        verdict: &str,
    ) -> Result<(), Error> {
        let Some(file) = self.identity.clone() else {
            return Ok(());
        };
        if self.presence != Presence::Synced {
            return Ok(());
        }
        let record = Record {
            time: Timestamp::now(),
            file,
            quick,
            damages: self.data_damages,
            exit_code: exit as u8,
            verdict: verdict.to_owned(),
        };
        record.store(paths)
    }

    /// Where its last transaction ends; where that is not known, as it is damaged
    /// there, its size.
    fn end(&self) -> u64 {
        let unfinished = self.unfinished.map_or(0, |unfinished| unfinished.bytes);
        self.size.saturating_sub(unfinished)
    }

    fn nothing(paths: &SlavePaths, content: SlaveContent) -> Self {
        Self {
            slave: paths.data().to_owned(),
            presence: Presence::of(paths),
            content,
            seen: None,
            identity: None,
            size: 0,
            position: 0,
            last_tid: None,
            transactions: 0,
            records: 0,
            objects: 0,
            bytes: 0,
            unfinished: None,
            digests: DigestState::Unasked,
            index: IndexState::Unknown("there is no slave to compare it with".to_owned()),
            damages: 0,
            data_damages: 0,
            blemishes: 0,
        }
    }
}

/// Verifies a slave, or with `quick` its structure alone, for which pickles are passed
/// over. Tells each finding as it is found, most of them in the order of the file. Fails
/// where the slave cannot be looked at, or another file is put in its place meanwhile.
pub fn verify(
    slave: &Slave,
    quick: bool,
    monitor: &dyn Monitor,
    report: &mut dyn FnMut(&Finding),
) -> Result<Verified, Error> {
    let paths = &slave.paths;
    let (mut damages, mut data_damages, mut blemishes) = (0, 0, 0);
    let mut report = |finding: Finding| {
        let is_in_data = finding.kind.file() == finding::File::Data;
        match finding.kind.severity() {
            Severity::Damage => {
                damages += 1;
                data_damages += u64::from(is_in_data);
            }
            Severity::Blemish => blemishes += 1,
        }
        report(&finding);
    };
    let Some(opened) = open(paths)? else {
        return Ok(Verified::nothing(paths, SlaveContent::Missing));
    };
    let seen = Some(opened.seen);
    let identity = FileId::of(&opened.file).ok();
    let verified = opened.walk(slave, quick, monitor, &mut report)?;
    Ok(Verified {
        seen,
        identity,
        damages,
        data_damages,
        blemishes,
        ..verified
    })
}

/// The slave and what lies beside it, open for reading.
struct OpenFiles {
    file: std::fs::File,
    seen: FileStat,
    index: Option<IndexCheck>,
    digests: Option<DigestCheck>,
}

/// Opens all as it lies there at one moment; `None` if there is no slave.
fn open(paths: &SlavePaths) -> Result<Option<OpenFiles>, Error> {
    let path = paths.data();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let index = IndexCheck::open(paths)?;
        let file = match paths::open(path, OpenMode::Read) {
            Ok(file) => file,
            // Where ZODB packs what it serves, there is none for an instant.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if attempts == MAX_ATTEMPTS {
                    return Ok(None);
                }
                retry::wait(RETRY_DELAY);
                continue;
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        // Before the size is taken: it ends with bytes that are there by then.
        let digests = DigestCheck::open(paths, &file)?;
        let seen = FileStat::of(&file.metadata().map_err(Error::io("look at", path))?);
        let is_there = index.as_ref().is_none_or(IndexCheck::is_unchanged);
        if is_there || attempts == MAX_ATTEMPTS {
            return Ok(Some(OpenFiles {
                file,
                seen,
                index,
                digests,
            }));
        }
    }
}

impl OpenFiles {
    fn walk(
        self,
        slave: &Slave,
        quick: bool,
        monitor: &dyn Monitor,
        report: &mut dyn FnMut(Finding),
    ) -> Result<Verified, Error> {
        let (paths, size) = (&slave.paths, self.seen.size);
        let check_cancelled = || slave.check_interrupted();
        let digests_end = self.digests.as_ref().map(DigestCheck::end);
        let digests = self.digests.filter(|_| !quick);
        let reader = LossyReader::new(&self.file, digests, &check_cancelled);
        let input = WalkInput {
            paths,
            file: &self.file,
            size,
            quick,
            digests_end,
        };
        let mut walk = Walk::new(input, reader, self.index, monitor, report);
        let content = walk.content()?;
        if content != SlaveContent::FileStorage {
            return Ok(Verified {
                size,
                ..Verified::nothing(paths, content)
            });
        }
        let unfinished = walk.run()?;
        let verified = walk.finish(unfinished)?;
        check_counts(slave, self.seen, verified.position)?;
        Ok(verified)
    }
}

fn changed(slave: &Slave, what: &str) -> Error {
    Error::SlaveChanged {
        slave: slave.paths.data().to_owned(),
        what: what.to_owned(),
    }
}

/// Fails unless the slave is still the file that was verified, and has all that was.
fn check_counts(slave: &Slave, seen: FileStat, position: u64) -> Result<(), Error> {
    let changed = |what| Err(changed(slave, what));
    match slave.stat()? {
        Some(now) if !now.is_same_file(&seen) => changed("another file lies under its name"),
        Some(now) if now.size < position => changed("it became shorter"),
        Some(_) => Ok(()),
        None => changed("there is no file any more"),
    }
}
