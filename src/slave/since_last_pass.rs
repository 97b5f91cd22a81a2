//! The slave alone, without its master: its last transaction, and the transactions that it has
//! beyond the last pass. Only reads.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::filestorage::backward::{Backward, Preceding, ReadAt};
use crate::filestorage::record::{MIN_TXN_LEN, TXN_HEADER_LEN};
use crate::filestorage::scan::{Event, Scanner};
use crate::filestorage::{MAGIC_LEN, Magic, Tid, TxnStatus};
use crate::plan::Continuity;
use crate::plan::switch_on::{Newer, SinceLastPass, TransactionRun};
use crate::slave::paths::SlavePaths;
use crate::slave::scan::scan_file;
use crate::slave::sidecar::Sidecar;
use crate::slave::snapshot::file::{ScanStart, SlaveFile, open, scan_start};

/// The end of a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveEnd {
    /// There is no slave.
    NoSlave,
    /// It has no transactions.
    Empty,
    /// The tid of its last complete transaction.
    Transaction(Tid),
    /// Unknown: the search took too long, or the slave is not a FileStorage.
    Unknown,
}

/// Finds the last transaction of the slave within `timeout`. Reads it from where the sidecar
/// vouches for it, or from its start.
pub fn slave_end(
    paths: &SlavePaths,
    sidecar: &Sidecar,
    timeout: Duration,
) -> Result<SlaveEnd, Error> {
    let started = Instant::now();
    let Some((file, _)) = open(paths)? else {
        return Ok(SlaveEnd::NoSlave);
    };
    if file.size == 0 {
        return Ok(SlaveEnd::Empty);
    }
    if !has_magic(&file)? {
        return Ok(SlaveEnd::Unknown);
    }
    let mut scanner = match scan_start(&file, sidecar)?.fingerprint {
        Some(fingerprint) => Scanner::resume(fingerprint.position, fingerprint.last_tid, file.size),
        None => Scanner::new(file.size),
    };
    let in_time = |_| match started.elapsed() {
        elapsed if elapsed > timeout => Err(Error::Interrupted),
        _ => Ok(()),
    };
    match scan_file(
        &file.file,
        paths.data(),
        &mut scanner,
        &in_time,
        &mut |_| {},
    ) {
        Err(Error::Interrupted) => Ok(SlaveEnd::Unknown),
        Err(error) => Err(error),
        Ok(()) => Ok(scanner
            .last_tid()
            .map_or(SlaveEnd::Empty, SlaveEnd::Transaction)),
    }
}

/// Compares the slave with the sidecar.
pub fn since_last_pass(paths: &SlavePaths, sidecar: &Sidecar) -> Result<SinceLastPass, Error> {
    let Some((file, _)) = open(paths)? else {
        return Ok(SinceLastPass::NoSlave);
    };
    if file.size < MAGIC_LEN + MIN_TXN_LEN {
        return Ok(SinceLastPass::NoSlave);
    }
    let ScanStart { continuity, .. } = scan_start(&file, sidecar)?;
    let left_tid = sidecar
        .last_sync
        .as_ref()
        .and_then(|left| left.slave.last_tid);
    Ok(match continuity {
        Continuity::Unknown => SinceLastPass::NotRecorded,
        Continuity::Changed => SinceLastPass::Changed {
            newer: newer(&file, left_tid)?,
        },
        Continuity::UpTo(position) => SinceLastPass::Beyond {
            run: beyond(&file, position, left_tid)?,
            begun: was_appended(&file, position, sidecar)?,
        },
    })
}

/// Finds the complete transactions from `position` on.
fn beyond(
    file: &SlaveFile,
    position: u64,
    last_tid: Option<Tid>,
) -> Result<Option<TransactionRun>, Error> {
    let mut scanner = Scanner::resume(position, last_tid, file.size);
    let mut run: Option<TransactionRun> = None;
    let path = file.paths.data();
    scan_file(&file.file, path, &mut scanner, &|_| Ok(()), &mut |event| {
        if let Event::Transaction(transaction) = event {
            let last = transaction.header.tid;
            run = Some(match run {
                None => TransactionRun {
                    count: 1,
                    first: last,
                    last,
                },
                Some(TransactionRun { count, first, .. }) => TransactionRun {
                    count: count + 1,
                    first,
                    last,
                },
            });
        }
    })?;
    Ok(run)
}

/// Whether the transaction at `position` is the first of the batch that, according to the
/// sidecar, was begun. The pass then finished the batch but did not record it.
fn was_appended(mut file: &SlaveFile, position: u64, sidecar: &Sidecar) -> Result<bool, Error> {
    let Some(batch) = &sidecar.batch else {
        return Ok(false);
    };
    if position + TXN_HEADER_LEN as u64 > file.size {
        return Ok(false);
    }
    let mut header = [0; TXN_HEADER_LEN];
    file.read_exact_at(&mut header, position)?;
    Ok(batch.begins_with(position, header))
}

/// Finds the transactions at the end that have a higher tid than `left_tid`, by a walk
/// backwards. Transactions after one with status `c` are not committed: they are dropped when
/// the walk reaches it.
fn newer(file: &SlaveFile, left_tid: Option<Tid>) -> Result<Newer, Error> {
    let mut backward = Backward::new(file, file.size);
    let mut run: Option<TransactionRun> = None;
    loop {
        let transaction = match backward.step()? {
            Preceding::Start => return Ok(Newer::Run(run)),
            Preceding::Incoherent => return Ok(Newer::Unknown),
            Preceding::Transaction(transaction) => transaction.header,
        };
        if Some(transaction.tid) <= left_tid {
            return Ok(Newer::Run(run));
        }
        let first = transaction.tid;
        run = match run {
            _ if transaction.status == TxnStatus::VOTED => None,
            None => Some(TransactionRun {
                count: 1,
                first,
                last: first,
            }),
            Some(TransactionRun { count, last, .. }) => Some(TransactionRun {
                count: count + 1,
                first,
                last,
            }),
        };
    }
}

fn has_magic(file: &SlaveFile) -> Result<bool, Error> {
    let mut magic = [0; MAGIC_LEN as usize];
    let got = file.read(&mut magic, 0)?;
    Ok(Magic::decode(&magic[..got]).is_some())
}
