//! `Data.fs.index` against the file: ZODB believes it, and looks up five objects
//! and no more.
//!
//! The index is compared when the walk is where it is of, byte by byte with what
//! ZODB would save there; so nothing is held beside the walk's own. Only where the two differ
//! is it read object by object.
//!
//! An index that is not the file's is damage where ZODB would use it, and none where
//! it passes it over and reads the whole file.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek, Write};
use std::path::PathBuf;

use super::finding::{Finding, Kind};
use crate::error::Error;
use crate::filestorage::check::Checker;
use crate::filestorage::index::Index;
use crate::filestorage::index::pickle::{self, IndexEntry};
use crate::filestorage::index::sanity::{MIN_POSITION, witnesses};
use crate::io::file_stat::FileStat;
use crate::slave::fields::FieldReader;
use crate::slave::paths::{self, OpenMode, Sibling, SlavePaths};
use crate::source::display_chain;

const BUFFER_LEN: usize = 256 * 1024;

/// What the index beside the slave is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// There is none.
    Missing,
    /// It is that of the file, at this position.
    Sound(u64),
    /// ZODB would use it, and it is wrong.
    Wrong,
    /// ZODB passes it over, or may do so: why.
    Unused(String),
    /// It could not be compared: why.
    Unknown(String),
}

/// The index that lies beside the slave.
pub(super) struct IndexCheck {
    path: PathBuf,
    file: File,
    /// Which file it is.
    seen: FileStat,
    /// The position that it is of, if it tells one, until it was compared.
    fingerprint: Option<u64>,
    state: IndexState,
}

impl IndexCheck {
    /// Opens the index, if there is one.
    pub(super) fn open(paths: &SlavePaths) -> Result<Option<Self>, Error> {
        let path = paths.sibling(Sibling::ZodbIndex);
        let file = match paths::open(&path, OpenMode::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        let seen = FileStat::of(&file.metadata().map_err(Error::io("look at", &path))?);
        let (position, why) = match pickle::Reader::open(&file) {
            Ok(reader) => (Some(reader.position()), String::new()),
            Err(error) => (None, display_chain(&error)),
        };
        Ok(Some(Self {
            path,
            file,
            seen,
            fingerprint: position,
            state: IndexState::Unused(why),
        }))
    }

    /// Whether it still lies beside the slave.
    pub(super) fn is_unchanged(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| FileStat::of(&found) == self.seen)
    }

    /// The position where it is to be compared, unless it was.
    pub(super) fn fingerprint(&self) -> Option<u64> {
        self.fingerprint
    }

    /// Compares it with that of the walk, which is where it is of. `size` is the
    /// slave's.
    pub(super) fn compare(
        &mut self,
        (walked, size): (&Checker, u64),
        fields: FieldReader<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<(), Error> {
        let Some(position) = self.fingerprint.take() else {
            return Ok(());
        };
        let Some(index) = walked.index() else {
            let why = "the file is damaged before the position that it is of";
            self.state = IndexState::Unknown(why.to_owned());
            return Ok(());
        };
        self.state = match twice(|| self.is_same(index, position)) {
            Ok(true) => IndexState::Sound(position),
            Ok(false) => self.judge((Some(index), position, size), fields, report)?,
            Err(error) => unused(display_chain(&pickle::Error::Io(error))),
        };
        Ok(())
    }

    /// What it is good for, once the walk is over.
    pub(super) fn finish(
        mut self,
        size: u64,
        fields: FieldReader<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<IndexState, Error> {
        if let Some(position) = self.fingerprint.take() {
            self.state = self.judge((None, position, size), fields, report)?;
        }
        Ok(self.state)
    }

    /// Whether its bytes are those that ZODB would save, which are none for an empty
    /// index.
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

    /// What an index is good for that is not the file's. `index` is the file's, at
    /// its position, if a transaction ends there.
    fn judge(
        &self,
        (index, position, size): (Option<&Index>, u64, u64),
        fields: FieldReader<'_>,
        report: &mut dyn FnMut(Finding),
    ) -> Result<IndexState, Error> {
        if position < MIN_POSITION {
            return Ok(unused("it is of too small a position"));
        }
        if position > size {
            return Ok(unused("it is of a position behind the end of the file"));
        }
        let witnesses = witnesses(fields, size, position)?;
        let is_used = match twice(|| self.has(&witnesses)) {
            Ok(has) => has && !witnesses.is_empty(),
            Err(pickle::Error::Foreign { offset, what }) => {
                report(Finding::new(
                    Kind::IndexForm,
                    offset,
                    "an index in the form of ZODB 5 and 6",
                    what,
                ));
                let why = "it is in a form that fssync does not know; ZODB may know it";
                return Ok(unused(why));
            }
            Err(error) => return Ok(unused(display_chain(&error))),
        };
        let is_fatal = index.is_some_and(Index::is_empty);
        if !is_used && !is_fatal {
            let why = "its first objects are not where the file has them";
            return Ok(unused(why));
        }
        if !self.is_unchanged() {
            let why = "another one was put in its place meanwhile";
            return Ok(IndexState::Unknown(why.to_owned()));
        }
        match index {
            Some(_) if is_fatal => report(Finding::new(
                Kind::IndexPosition,
                0,
                "no index, as there is no data record before its position",
                format!("position {position}: ZODB fails on it, and does not open the file"),
            )),
            Some(index) => {
                let mut told = false;
                let all = self.report_objects(index, &mut |finding| {
                    told = true;
                    report(finding);
                });
                if let Err(error) = all
                    && !told
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

    /// Whether ZODB finds all these objects at these positions by it. It must be in
    /// ZODB's form to its end.
    fn has(&self, witnesses: &[(u64, u64)]) -> Result<bool, pickle::Error> {
        let mut found = vec![None; witnesses.len()];
        let mut reader = pickle::Reader::open(self.rewound().map_err(pickle::Error::Io)?)?;
        while let Some(bucket) = reader.next()? {
            for ((oid, _), found) in witnesses.iter().zip(&mut found) {
                if bucket.holds(*oid) {
                    *found = bucket.get(*oid);
                }
            }
        }
        let expected = witnesses.iter().map(|&(_, position)| Some(position));
        Ok(expected.eq(found))
    }

    /// Tells of each object at which the two differ.
    fn report_objects(
        &self,
        index: &Index,
        report: &mut dyn FnMut(Finding),
    ) -> Result<(), pickle::Error> {
        let mut report = |oid, expected: Option<u64>, found: Option<u64>, offset| {
            let said = |position: Option<u64>| match position {
                Some(position) => format!("its data record at {position}"),
                None => "no data record".to_owned(),
            };
            report(Finding {
                oid: Some(oid),
                ..Finding::new(Kind::IndexObject, offset, said(expected), said(found))
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
                    // In a wrong place, where a search does not find it.
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

/// Reads once more where a read has failed.
fn twice<T, E>(read: impl Fn() -> Result<T, E>) -> Result<T, E> {
    read().or_else(|_| read())
}

/// What an index is that ZODB passes over, or may pass over.
fn unused(why: impl Into<String>) -> IndexState {
    IndexState::Unused(why.into())
}

/// Compares what is written with a file; a difference is an error.
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
