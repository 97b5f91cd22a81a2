//! Reads both ends for [`plan::decide`](crate::plan::decide).
//!
//! A survey writes nothing, and leaves all decisions to the plan. It reads a few kilobytes of
//! each end, and more only if the plan asks for that, in [`Survey::decide`].

use std::cell::RefCell;
use std::fs::File;
use std::iter;

use crate::compare::digests::prove_equal;
use crate::compare::fork::ForkSearch;
use crate::compare::fork_point::{compare, newer};
use crate::compare::span::TransactionSpan;
use crate::error::Error;
use crate::filestorage::record::TXN_HEADER_LEN;
use crate::filestorage::{Tid, TxnHeader, TxnStatus};
use crate::io::file_stat::FileStat;
use crate::io::progress::Monitor;
use crate::io::read::AlignedBuf;
use crate::plan::{
    CommonBytes, Continuity, Decision, MasterState, Next, Observation, Plan, Policy, Question,
    SlaveState, decide,
};
use crate::slave::ledger::LedgerEntry;
use crate::slave::paths::SlavePaths;
use crate::slave::sidecar::{self, Fingerprint, Sidecar};
use crate::slave::snapshot::{OpenedSlave, SlaveFile, SlaveSnapshot};
use crate::slave::step;
use crate::source::{self, FileId, MasterStat};

/// How many bytes are read of the master at the slave's position.
const AHEAD_LEN: u64 = 64 * 1024;

/// The state of both ends, and the handles to read more of them.
#[derive(Debug)]
pub struct Survey {
    /// The facts for the plan.
    pub observation: Observation,
    /// The master's file.
    pub master_stat: MasterStat,
    /// The slave's file; `None` if there is none.
    pub seen: Option<FileStat>,
    /// The tid of the slave's last transaction, if it can be read.
    pub last_tid: Option<Tid>,
    /// The slave's position in bytes, if it has one.
    pub position: Option<u64>,
    /// A fingerprint of the slave from which the next survey may scan, if this one had to scan all
    /// of it.
    pub coherent_up_to: Option<Fingerprint>,
    /// The digests of the bytes that this survey has compared and found equal.
    pub proven: Vec<LedgerEntry>,
    /// The master's file at the last pass, if that is recorded.
    read_last: Option<FileId>,
    /// The master's first bytes at the slave's position.
    ahead: RefCell<Option<AlignedBuf>>,
    file: Option<SlaveFile>,
}

impl Survey {
    /// Surveys both ends.
    pub fn make(
        of: &step::Slave,
        master: &source::Master,
        sidecar: &Sidecar,
        monitor: &dyn Monitor,
    ) -> Result<Self, Error> {
        let paths = &of.paths;
        let opened = OpenedSlave::open(paths, sidecar)?;
        if opened.must_be_read() {
            // To scan the whole slave takes long, and is useless if the master is unreachable.
            master.stat(Vec::new())?;
        }
        let sample = opened.scan(sidecar, &|| of.check_cancelled(), monitor)?;
        Self::of(sample, paths, master, sidecar)
    }

    /// Surveys the master, for a slave that was sampled before.
    pub fn of(
        sample: SlaveSnapshot,
        paths: &SlavePaths,
        master: &source::Master,
        sidecar: &Sidecar,
    ) -> Result<Self, Error> {
        if let Some(file) = &sample.file {
            file.protection.check(paths)?;
        }
        let position = sample.position();
        let SlaveSnapshot {
            slave,
            last_tid,
            coherent_up_to,
            seen,
            file,
        } = sample;
        // Only ranges that decide: all of a short slave, else its first and its last bytes.
        let ranges = match &slave {
            SlaveState::Short { size, .. } => iter::once(0..*size).collect(),
            SlaveState::Storage(slave) => {
                vec![
                    sidecar::first_bytes(slave.position),
                    sidecar::last_bytes(slave.position),
                ]
            }
            _ => Vec::new(),
        };
        let master_stat = master.stat(ranges.clone())?;
        paths.check_is_not(master_stat.local)?;
        // A missing slave that no pass has made may be a mistake in the name.
        if seen.is_none() && sidecar.last_sync.is_none() {
            paths.check_kind(master_stat.named.is_directory)?;
        }
        // The digests of a shorter master are `None`, so there is nothing to compare.
        let master_reaches = ranges.iter().all(|range| range.end <= master_stat.size);
        let matches = match &file {
            Some(file) if master_reaches && !ranges.is_empty() => {
                let ours = ranges.into_iter().map(|range| file.digest(range));
                Some(ours.collect::<Result<Vec<_>, _>>()? == master_stat.digests)
            }
            _ => None,
        };
        let read_last = sidecar.last_sync.as_ref().map(|left| left.master.clone());
        let same_file = read_last.as_ref() == Some(&master_stat.identity);
        // The next record only matters if the slave can be appended to.
        let (next, ahead) = match position {
            Some(position) if matches == Some(true) => {
                read_ahead(master, master_stat.size, position)?
            }
            _ => (Next::End, None),
        };
        let observation = Observation {
            slave,
            master: MasterState {
                same_file,
                matches,
                next,
                was_damaged: sidecar.master_was_damaged,
                was_refused: sidecar.was_refused,
            },
            prefix_equal: None,
            comparison: None,
            common: None,
        };
        Ok(Self {
            observation,
            master_stat,
            seen,
            last_tid,
            position,
            coherent_up_to,
            proven: Vec::new(),
            read_last,
            ahead: RefCell::new(ahead),
            file,
        })
    }

    /// Whether the slave is unchanged since the last pass, or has only grown.
    #[must_use]
    pub fn has_continuity(&self) -> bool {
        let SlaveState::Storage(slave) = &self.observation.slave else {
            return false;
        };
        matches!(slave.continuity, Continuity::UpTo(_))
    }

    /// The slave, open for reading; `None` if it is missing.
    #[must_use]
    pub fn slave_file(&self) -> Option<&File> {
        self.file.as_ref().map(|slave| &slave.file)
    }

    /// The master's first bytes at the slave's position, if they were read. They can be taken
    /// once.
    #[must_use]
    pub fn take_read_ahead(&self) -> Option<AlignedBuf> {
        self.ahead.take()
    }

    /// Lets the plan decide, and answers its questions.
    pub fn decide(
        &mut self,
        policy: Policy,
        of: &step::Slave,
        master: &source::Master,
        monitor: &dyn Monitor,
    ) -> Result<Plan, Error> {
        loop {
            match decide(&self.observation, policy) {
                Decision::Do(plan) => return Ok(plan),
                Decision::Refuse(refusal) => return Err(Error::Refused(refusal)),
                Decision::Ask(question) => self.answer(question, of, master, monitor)?,
            }
        }
    }

    /// The master's transactions that are newer than the slave's last, counted from the master's
    /// end. The bytes before them may differ from the slave's.
    pub fn newer(&self, master: &source::Master) -> Result<TransactionSpan, Error> {
        newer(master, self.master_stat.size, self.last_tid)
    }

    /// Why the slave has to be compared with the master, for a person.
    fn why_unproven(&self) -> String {
        let continuity = match &self.observation.slave {
            SlaveState::Storage(slave) => slave.continuity,
            _ => Continuity::Unknown,
        };
        let MasterStat {
            identity: now,
            file_system,
            ..
        } = &self.master_stat;
        match (continuity, &self.read_last) {
            (Continuity::Unknown, _) | (_, None) => "no pass has recorded the slave".to_owned(),
            (Continuity::Changed, _) => "the slave was changed since the last pass".to_owned(),
            (Continuity::UpTo(_), Some(last)) if last == now => {
                "the last pass had not copied them".to_owned()
            }
            (Continuity::UpTo(_), Some(last)) => {
                let how = if last.inode == now.inode {
                    "it was created again with the same inode number".to_owned()
                } else {
                    format!(
                        "its inode number changed from {} to {}",
                        last.inode, now.inode
                    )
                };
                let why = if file_system.renumbers_inodes() {
                    format!(
                        "; on {file_system}, such as sshfs, each mount may change it: name the \
                         master as host:/path to avoid this"
                    )
                } else {
                    String::new()
                };
                format!("the master is another file than at the last pass, as {how}{why}")
            }
        }
    }

    /// Answers a question of the plan.
    fn answer(
        &mut self,
        question: Question,
        of: &step::Slave,
        master: &source::Master,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let (Some(file), Some(position)) = (&self.file, self.position) else {
            return Ok(());
        };
        match question {
            Question::Prefix { from } => {
                tracing::info!(
                    "comparing the slave with the master, bytes {from} to {position}: {}",
                    self.why_unproven()
                );
                let proven = prove_equal(
                    &file.file,
                    file.paths.data(),
                    master,
                    from..position,
                    monitor,
                )?;
                self.observation.prefix_equal = Some(proven.is_some());
                self.proven = proven.unwrap_or_default();
            }
            Question::Compare { from } => {
                let comparison = compare(file, position, from, master, self.master_stat.size)?;
                self.observation.comparison = Some(comparison);
            }
            Question::Fork => {
                tracing::info!("comparing the slave with the master, bytes 0 to {position}");
                let search = ForkSearch {
                    file,
                    position,
                    master,
                    master_stat: &self.master_stat,
                    check_cancelled: &|| of.check_cancelled(),
                    monitor,
                };
                let found = search.run()?;
                if let CommonBytes::NoFork(why) = found.common {
                    tracing::info!("the slave is copied as a whole: {why}");
                }
                self.observation.common = Some(found.common);
                self.proven = found.proven;
            }
        }
        Ok(())
    }
}

/// The master's record at the slave's position, and its first bytes. A small transaction is
/// complete in them, so that it need not be read again.
fn read_ahead(
    master: &source::Master,
    size: u64,
    position: u64,
) -> Result<(Next, Option<AlignedBuf>), Error> {
    if size <= position {
        return Ok((Next::End, None));
    }
    let len = (size - position).min(AHEAD_LEN) as usize;
    let bytes = master.read(len, position).wait()?;
    Ok(match bytes.first_chunk::<TXN_HEADER_LEN>() {
        None => (Next::Unfinished, None),
        // The bytes of an unfinished transaction are outdated once it is finished.
        Some(header) if TxnHeader::decode(header).status == TxnStatus::VOTED => {
            (Next::Unfinished, None)
        }
        Some(_) => (Next::Finished, Some(bytes)),
    })
}
