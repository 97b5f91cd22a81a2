//! Compares `Data.fs.index` with the file. ZODB trusts the index after it has looked up five
//! objects, so a wrong index is dangerous.
//!
//! When the walk reaches the position of the index, the index is compared byte by byte with the
//! one that ZODB would save there. This needs no memory besides the walk's own index. Only if the
//! two differ, the index is read object by object.
//!
//! A wrong index is damage if ZODB would use it. It is not if ZODB would ignore it and read the
//! whole file.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek, Write};
use std::path::PathBuf;

use super::finding::{Finding, Kind};
use crate::error::Error;
use crate::filestorage::check::Checker;
use crate::filestorage::index::Index;
use crate::filestorage::index::pickle::{self, IndexEntry};
use crate::filestorage::index::sanity::{CheckedRecord, MIN_POSITION, checked_records};
use crate::io::file_stat::FileStat;
use crate::slave::fields::FieldReader;
use crate::slave::paths::{OpenMode, Sibling, SlavePaths};
use crate::slave::small_file::open_if_exists;
use crate::source::display_chain;

const BUFFER_LEN: usize = 256 * 1024;

/// State of the index beside the slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// There is no index.
    Missing,
    /// It is the index of the file up to this position, in bytes.
    Sound(u64),
    /// It is wrong, and ZODB would use it.
    Wrong,
    /// ZODB ignores it, or may do so, for this reason.
    Unused(String),
    /// It could not be compared, for this reason.
    Unknown(String),
}

/// The slave, as far as the index is compared with it.
#[derive(Clone, Copy)]
pub(super) struct SlaveData<'a> {
    /// Reads its fields.
    pub(super) fields: FieldReader<'a>,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// The comparison of the index with the slave.
pub(super) struct IndexCheck {
    path: PathBuf,
    file: File,
    /// State of the index when it was opened.
    stat: FileStat,
    /// Position of the slave up to which it is an index, in bytes; `None` if it cannot be decoded,
    /// or was compared already.
    position: Option<u64>,
    state: IndexState,
}

impl IndexCheck {
    /// Opens the index, if there is one.
    pub(super) fn open(paths: &SlavePaths) -> Result<Option<Self>, Error> {
        let path = paths.sibling(Sibling::ZodbIndex);
        let Some(file) = open_if_exists(&path, OpenMode::Read)? else {
            return Ok(None);
        };
        let stat = FileStat::of(&file.metadata().map_err(Error::io("look at", &path))?);
        let (position, why) = match pickle::Reader::open(&file) {
            Ok(reader) => (Some(reader.position()), String::new()),
            Err(error) => (None, display_chain(&error)),
        };
        Ok(Some(Self {
            path,
            file,
            stat,
            position,
            state: IndexState::Unused(why),
        }))
    }

    /// Whether the same file is still beside the slave.
    pub(super) fn is_unchanged(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| FileStat::of(&found) == self.stat)
    }

    /// The position at which it is to be compared, in bytes; `None` after it was compared.
    pub(super) fn position(&self) -> Option<u64> {
        self.position
    }

    /// Compares it with the index of a walk that has reached its position.
    pub(super) fn compare(
        &mut self,
        walked: &Checker,
        slave: SlaveData<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<(), Error> {
        let Some(position) = self.position.take() else {
            return Ok(());
        };
        let Some(index) = walked.index() else {
            let why = "the slave is damaged before the position of the index";
            self.state = IndexState::Unknown(why.to_owned());
            return Ok(());
        };
        self.state = match twice(|| self.is_same(index, position)) {
            Ok(true) => IndexState::Sound(position),
            Ok(false) => self.judge(position, Some(index), slave, report)?,
            Err(error) => unused(display_chain(&pickle::Error::Io(error))),
        };
        Ok(())
    }

    /// Its state, at the end of the walk.
    pub(super) fn finish(
        mut self,
        slave: SlaveData<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<IndexState, Error> {
        if let Some(position) = self.position.take() {
            self.state = self.judge(position, None, slave, report)?;
        }
        Ok(self.state)
    }

    /// Whether its bytes are those that ZODB would save. ZODB does not save an empty index.
    fn is_same(&self, index: &Index, position: u64) -> io::Result<bool> {
        if index.is_empty() {
            return Ok(false);
        }
        let mut comparing = Comparing {
            from: BufReader::with_capacity(BUFFER_LEN, self.rewound()?),
            buffer: Vec::new(),
            differs: false,
        };
        match index.write(position, &mut comparing) {
            Ok(()) => match comparing.from.read_exact(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(true),
                read => read.map(|()| false),
            },
            Err(_) if comparing.differs => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The state of an index that is not the right one. `index` is the right one at its position;
    /// `None` if no transaction ends there.
    fn judge(
        &self,
        position: u64,
        index: Option<&Index>,
        slave: SlaveData<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<IndexState, Error> {
        if position < MIN_POSITION {
            return Ok(unused("its position is too small"));
        }
        if position > slave.size {
            return Ok(unused("its position is after the end of the slave"));
        }
        // Would ZODB use it? ZODB looks up the last objects before its position.
        let records = checked_records(slave.fields, slave.size, position)?;
        let is_used = match twice(|| self.has(&records)) {
            Ok(has) => has && !records.is_empty(),
            Err(pickle::Error::Foreign { offset, what }) => {
                report(Finding::new(
                    Kind::IndexForm,
                    offset,
                    "an index in the form of ZODB 5 and 6",
                    what,
                ));
                let why = "its form is unknown to fssync; ZODB may know it";
                return Ok(unused(why));
            }
            Err(error) => return Ok(unused(display_chain(&error))),
        };
        let is_fatal = index.is_some_and(Index::is_empty);
        if !is_used && !is_fatal {
            let why = "it is wrong about objects that ZODB looks up";
            return Ok(unused(why));
        }
        if !self.is_unchanged() {
            let why = "it was replaced during the verification";
            return Ok(IndexState::Unknown(why.to_owned()));
        }
        match index {
            Some(_) if is_fatal => report(Finding::new(
                Kind::IndexPosition,
                0,
                "no index, because there is no data record before its position",
                format!("position {position}, on which ZODB fails when it opens the file"),
            )),
            Some(index) => {
                let mut has_reported = false;
                let all = self.report_objects(index, &mut |finding| {
                    has_reported = true;
                    report(finding);
                });
                if let Err(error) = all
                    && !has_reported
                {
                    return Ok(unused(display_chain(&error)));
                }
            }
            None => report(Finding::new(
                Kind::IndexPosition,
                0,
                "a position at which a transaction ends",
                position.to_string(),
            )),
        }
        Ok(IndexState::Wrong)
    }

    /// Whether ZODB finds these objects at these positions in the index. Fails if it does not have
    /// ZODB's form to its end.
    fn has(&self, records: &[CheckedRecord]) -> Result<bool, pickle::Error> {
        let mut found = vec![None; records.len()];
        let mut reader = pickle::Reader::open(self.rewound().map_err(pickle::Error::Io)?)?;
        while let Some(bucket) = reader.next()? {
            for (record, found) in records.iter().zip(&mut found) {
                if bucket.holds(record.oid) {
                    *found = bucket.get(record.oid);
                }
            }
        }
        let expected = records.iter().map(|record| Some(record.position));
        Ok(expected.eq(found))
    }

    /// Reports each object about which the two differ. Both are sorted by oid.
    fn report_objects(
        &self,
        index: &Index,
        report: &mut dyn FnMut(Finding),
    ) -> Result<(), pickle::Error> {
        let mut report = |oid, expected: Option<u64>, found: Option<u64>, offset| {
            let describe = |position: Option<u64>| match position {
                Some(position) => format!("its data record at {position}"),
                None => "no data record".to_owned(),
            };
            report(Finding {
                oid: Some(oid),
                ..Finding::new(
                    Kind::IndexObject,
                    offset,
                    describe(expected),
                    describe(found),
                )
            });
        };
        let mut reader = pickle::Reader::open(self.rewound().map_err(pickle::Error::Io)?)?;
        let mut ours = index.iter().peekable();
        let mut least = 0;
        while let Some(bucket) = reader.next()? {
            for IndexEntry {
                oid,
                position,
                offset,
            } in bucket.entries()
            {
                if oid < least {
                    // It is not in order, so that a search does not find it.
                    report(oid, index.get(oid), None, offset);
                    continue;
                }
                least = oid.saturating_add(1);
                while let Some((missing, at)) = ours.next_if(|(ours, _)| *ours < oid) {
                    report(missing, Some(at), None, offset);
                }
                let expected = ours.next_if(|(ours, _)| *ours == oid).map(|(_, at)| at);
                if expected != Some(position) {
                    report(oid, expected, Some(position), offset);
                }
            }
        }
        for (missing, at) in ours {
            report(missing, Some(at), None, reader.offset());
        }
        Ok(())
    }

    fn rewound(&self) -> io::Result<&File> {
        let mut file = &self.file;
        file.rewind()?;
        Ok(file)
    }
}

/// Retries once if a read fails.
fn twice<T, E>(read: impl Fn() -> Result<T, E>) -> Result<T, E> {
    read().or_else(|_| read())
}

/// The state of an index that ZODB ignores, or may ignore.
fn unused(why: impl Into<String>) -> IndexState {
    IndexState::Unused(why.into())
}

/// A writer that compares the written bytes with a file, and fails at the first difference.
struct Comparing<R> {
    from: R,
    buffer: Vec<u8>,
    differs: bool,
}

impl<R: Read> Write for Comparing<R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.resize(bytes.len(), 0);
        match self.from.read_exact(&mut self.buffer) {
            Ok(()) => self.differs = self.buffer != bytes,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => self.differs = true,
            Err(error) => return Err(error),
        }
        if self.differs {
            return Err(io::Error::other("it differs"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
