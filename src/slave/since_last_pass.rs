//! The slave alone, no master asked: what it ends with, and what it holds beyond
//! what the last pass left.

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
use crate::slave::snapshot::file::{ScanStart, SlaveFile, open, start};

/// What a slave ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveEnd {
    /// There is no slave.
    NoSlave,
    /// It holds no transaction.
    Empty,
    /// Its last whole transaction.
    Transaction(Tid),
    /// It takes longer to find out, or it is no FileStorage.
    Unknown,
}

/// What the slave ends with, as far as this can be found out in a time: read on
/// from where an earlier pass vouches for it, or else from its start.
pub fn slave_end(
    paths: &SlavePaths,
    sidecar: &Sidecar,
    patience: Duration,
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
    let mut scanner = match start(&file, sidecar)?.fingerprint {
        Some(fingerprint) => Scanner::resume(fingerprint.position, fingerprint.last_tid, file.size),
        None => Scanner::new(file.size),
    };
    let in_time = |_| match started.elapsed() {
        elapsed if elapsed > patience => Err(Error::Interrupted),
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

/// Compares the slave with what the sidecar says about it.
pub fn since_last_pass(paths: &SlavePaths, sidecar: &Sidecar) -> Result<SinceLastPass, Error> {
    let Some((file, _)) = open(paths)? else {
        return Ok(SinceLastPass::NoSlave);
    };
    if file.size < MAGIC_LEN + MIN_TXN_LEN {
        return Ok(SinceLastPass::NoSlave);
    }
    let ScanStart { continuity, .. } = start(&file, sidecar)?;
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

/// The whole transactions from `position` on.
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

/// Whether the transaction at `position` is the first of the batch that the
/// sidecar knows as begun, finished.
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

/// The transactions at the end with a higher tid than `left_tid`. What lies
/// behind a `c` is not committed; a walk that goes on to `left_tid` comes by it.
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
