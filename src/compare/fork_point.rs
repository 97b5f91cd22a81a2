//! Compares the last transactions of slave and master by their tids, backwards from the ends of
//! the files. Only headers are read, and only back to the last common transaction.

use super::span::TransactionSpan;
use crate::error::Error;
use crate::filestorage::backward::{Backward, Preceding, ReadAt};
use crate::filestorage::scan::{Scanner, Transaction};
use crate::filestorage::{Tid, TxnStatus};
use crate::plan::{ForkComparison, MissingFromMaster, TransactionSummary};
use crate::slave::snapshot::SlaveFile;
use crate::source::Master;

/// Number of the slave's own transactions that are described by user and description.
const DESCRIBED: usize = 5;

/// Number of bytes per read if the whole master must be scanned.
const CHUNK_LEN: usize = 1024 * 1024;

/// Counts the master's transactions with a tid above `last`, from the end of the file.
pub(crate) fn newer(
    master: &Master,
    master_size: u64,
    last: Option<Tid>,
) -> Result<TransactionSpan, Error> {
    let end = find_end(master, master_size)?;
    let mut transactions = Backward::new(master, end);
    let mut ahead = TransactionSpan::default();
    while let Some(transaction) = step_back(&mut transactions)?
        && Some(transaction.header.tid) > last
    {
        let len = transaction.end - transaction.position;
        ahead.push_front(transaction.header.tid, len);
    }
    Ok(ahead)
}

/// Compares the last transactions by their tids. Goes back to the last common transaction that
/// ends at or before `from`.
pub(crate) fn compare(
    file: &SlaveFile,
    position: u64,
    from: u64,
    master: &Master,
    master_size: u64,
) -> Result<ForkComparison, Error> {
    let mut slave = Backward::new(file, position);
    let master_end = find_end(master, master_size)?;
    let mut master = Backward::new(master, master_end);
    let mut ours = step_back(&mut slave)?;
    let mut theirs = step_back(&mut master)?;
    let slave_last = ours.map(|last| last.header.tid);
    let mut comparison = ForkComparison {
        master_last: theirs.map(|last| last.header.tid),
        ..ForkComparison::default()
    };
    let mut has_others = false;
    let mut has_common = false;
    while let Some(transaction) = ours {
        let tid = transaction.header.tid;
        match theirs {
            // Only the master has this one: it is newer than the slave, or belongs to another
            // history.
            Some(other) if other.header.tid > tid => {
                let is_newer = Some(other.header.tid) > slave_last;
                comparison.is_packed |= is_newer && other.header.status == TxnStatus::PACKED;
                has_others |= !is_newer;
                theirs = step_back(&mut master)?;
                continue;
            }
            Some(other) if other.header.tid == tid => {
                // The first common transaction decides the relation of the two files.
                if !has_common {
                    has_common = true;
                    comparison.is_kin = !has_others;
                    comparison.is_packed |= other.header.status == TxnStatus::PACKED
                        && transaction.header.status != TxnStatus::PACKED;
                }
                if transaction.end <= from {
                    break;
                }
                theirs = step_back(&mut master)?;
            }
            // Only the slave has this one.
            _ => add(&mut comparison.missing, &mut slave, &transaction)?,
        }
        ours = step_back(&mut slave)?;
    }
    Ok(comparison)
}

/// Adds a transaction that the master lacks.
fn add(
    missing: &mut MissingFromMaster,
    slave: &mut Backward<&SlaveFile>,
    transaction: &Transaction,
) -> Result<(), Error> {
    let tid = transaction.header.tid;
    missing.count += 1;
    missing.first = Some(tid);
    if missing.last.len() < DESCRIBED {
        let (user, description) = slave.user_and_description(transaction)?;
        missing.last.push(TransactionSummary {
            tid,
            user,
            description,
        });
    }
    Ok(())
}

/// The transaction before. If the bytes there are not the end of a transaction, the result is
/// `None`, as at the start of the file; at worst, this makes the plan refuse.
fn step_back<R: ReadAt>(file: &mut Backward<R>) -> Result<Option<Transaction>, Error>
where
    Error: From<R::Error>,
{
    Ok(match file.step()? {
        Preceding::Transaction(transaction) => Some(transaction),
        Preceding::Start | Preceding::Incoherent => None,
    })
}

/// The end of the master's last committed transaction, in bytes. A vote in progress is excluded.
/// If the file does not end with a transaction, the whole file is scanned.
fn find_end(master: &Master, size: u64) -> Result<u64, Error> {
    match Backward::new(master, size).step()? {
        Preceding::Start => Ok(size),
        Preceding::Transaction(last) if last.header.status == TxnStatus::VOTED => Ok(last.position),
        Preceding::Transaction(last) => Ok(last.end),
        Preceding::Incoherent => {
            let mut scanner = Scanner::new(size);
            while scanner.stopped().is_none() && scanner.offset() < size {
                let bytes = master.read(CHUNK_LEN, scanner.offset()).wait()?;
                if bytes.is_empty() {
                    break;
                }
                scanner.feed(&bytes, &mut |_| {});
            }
            Ok(scanner.position())
        }
    }
}
