//! Verifies a slave: every transaction and data record, the digests, and the index.
//!
//! [`verify`] takes no lock and writes nothing. So ZEO can open the slave, and a pass can append
//! to it, during a long verification: bytes before a position do not change. If the slave is
//! replaced meanwhile, the verification fails. Only [`Verified::record`] writes: it stores the
//! result beside the slave.
//!
//! | module | responsibility |
//! | --- | --- |
//! | [`finding`] | the kinds of faults, and advice |
//! | `lossy_reader` | reads the file in windows, and skips sectors that cannot be read |
//! | `walk` | checks the structure, and continues after damage |
//! | `conversion` | converts damage and flaws into findings |
//! | `digests` | compares the bytes with the ledger |
//! | `index` | compares ZODB's index with the file |
//! | [`blobs`] | verifies the files of the blobs to which the slave refers |
//! | [`against`] | compares the slave with its master |
//! | [`report`] | the findings to print, and the JSON object |
//!
//! [`filestorage::check`](crate::filestorage::check) explains which flaws are damage.

pub mod against;
pub mod blobs;
mod conversion;
mod digests;
pub mod finding;
mod index;
mod lossy_reader;
pub mod report;
mod walk;

use std::io::ErrorKind;
use std::path::PathBuf;

use jiff::Timestamp;

pub use self::digests::DigestState;
pub use self::index::IndexState;

use self::against::Attempt;
use self::blobs::VerifiedBlobs;
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

/// The result of a verification.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The slave's `Data.fs`.
    pub slave: PathBuf,
    /// Whether a pass was ever made for this path.
    pub presence: Presence,
    /// Content of the file.
    pub content: SlaveContent,
    /// State of the file when it was opened; `None` if there is no file.
    pub seen: Option<FileStat>,
    /// The identity by which later commands recognise the file; `None` if it is unknown.
    pub identity: Option<FileId>,
    /// Size of the slave in bytes.
    pub size: u64,
    /// End of the last committed transaction, in bytes.
    pub position: u64,
    /// The tid of the last whole transaction.
    pub last_tid: Option<Tid>,
    /// Number of whole transactions.
    pub transactions: u64,
    /// Number of data records in them.
    pub records: u64,
    /// Number of objects in them.
    pub objects: u64,
    /// Number of bytes that were read from the slave.
    pub bytes: u64,
    /// The tail after the position, if there is one.
    pub unfinished: Option<UnfinishedTail>,
    /// Result of the comparison with the ledger.
    pub digests: DigestState,
    /// State of the index.
    pub index: IndexState,
    /// Result of the verification of the blobs; `None` if they were not verified.
    pub blobs: Option<VerifiedBlobs>,
    /// Number of findings that are damage.
    pub damages: u64,
    /// Number of those in `Data.fs` itself, which no pass repairs.
    pub data_damages: u64,
    /// Number of those in blobs.
    pub blob_damages: u64,
    /// Number of findings that are blemishes.
    pub blemishes: u64,
}

/// Content of the slave's `Data.fs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveContent {
    /// No file, or an empty one.
    Missing,
    /// Too few bytes for a transaction.
    TooShort,
    /// Not a FileStorage.
    Foreign,
    /// A FileStorage.
    FileStorage,
}

/// Bytes after the last committed transaction, which ZODB truncates when it opens the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfinishedTail {
    /// Length in bytes.
    pub bytes: u64,
    /// Whether a pass wrote them, in an append that is in progress or was interrupted.
    pub is_ours: bool,
}

impl Verified {
    /// The exit code, without a comparison with the master.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.content {
            SlaveContent::Missing | SlaveContent::TooShort => Exit::Failure,
            _ if self.damages > 0 => Exit::SlaveDamaged,
            _ => Exit::Success,
        }
    }

    /// The exit code of a verification with a comparison. Damage of the slave comes first.
    #[must_use]
    pub fn exit_with(&self, attempt: Option<&Attempt>) -> Exit {
        let blobs = self
            .blobs
            .as_ref()
            .map_or(Exit::Success, VerifiedBlobs::exit);
        match (self.exit(), attempt.map_or(Exit::Success, Attempt::exit)) {
            (Exit::SlaveDamaged, _) => Exit::SlaveDamaged,
            (Exit::Success, Exit::Success) => blobs,
            (own, Exit::Success) => own,
            (_, compared) => compared,
        }
    }

    /// Records the result beside the slave, for `fssync status` and later passes. `verdict` is the
    /// result in one line. Writes nothing if no pass was ever made for this path.
    pub fn record(
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
            blob_damages: self.blob_damages,
            exit_code: exit as u8,
            verdict: verdict.to_owned(),
        };
        record.store(paths)
    }

    /// End of its last transaction, in bytes; the size of the file if the end is damaged.
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
            digests: DigestState::Skipped,
            blobs: None,
            index: IndexState::Unknown("there is no slave to compare it with".to_owned()),
            damages: 0,
            data_damages: 0,
            blob_damages: 0,
            blemishes: 0,
        }
    }
}

/// Verifies a slave; with `quick` only its structure and the index, without reading pickles.
/// Calls `report` for each finding, mostly in file order. Fails if the slave cannot be opened, or
/// is replaced or truncated meanwhile.
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
    let seen = Some(opened.stat);
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

/// The slave, its index and its ledger, open for reading.
struct OpenFiles {
    file: std::fs::File,
    stat: FileStat,
    index: Option<IndexCheck>,
    digests: Option<DigestCheck>,
}

/// Opens the slave and its index so that they belong together. Returns `None` if there is no slave.
fn open(paths: &SlavePaths) -> Result<Option<OpenFiles>, Error> {
    let path = paths.data();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let index = IndexCheck::open(paths)?;
        let file = match paths::open(path, OpenMode::Read) {
            Ok(file) => file,
            // While ZODB finishes a pack, there is no file for an instant.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if attempts == MAX_ATTEMPTS {
                    return Ok(None);
                }
                retry::wait(RETRY_DELAY);
                continue;
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        // The ledger is opened before the size is read, so that it has no digests after the size.
        let digests = DigestCheck::open(paths, &file)?;
        let stat = FileStat::of(&file.metadata().map_err(Error::io("look at", path))?);
        // If the index was replaced meanwhile, it may belong to a later state of the slave.
        let is_unchanged = index.as_ref().is_none_or(IndexCheck::is_unchanged);
        if is_unchanged || attempts == MAX_ATTEMPTS {
            return Ok(Some(OpenFiles {
                file,
                stat,
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
        let (paths, size) = (&slave.paths, self.stat.size);
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
        check_still_same(slave, self.stat, verified.position)?;
        Ok(verified)
    }
}

fn changed(slave: &Slave, what: &str) -> Error {
    Error::SlaveChanged {
        slave: slave.paths.data().to_owned(),
        what: what.to_owned(),
    }
}

/// Fails if the slave was replaced, or truncated before `position`, since it was opened.
fn check_still_same(slave: &Slave, seen: FileStat, position: u64) -> Result<(), Error> {
    let changed = |what| Err(changed(slave, what));
    match slave.stat()? {
        Some(now) if !now.is_same_file(&seen) => changed("another file has replaced it"),
        Some(now) if now.size < position => changed("it was truncated"),
        Some(_) => Ok(()),
        None => changed("it was removed"),
    }
}
