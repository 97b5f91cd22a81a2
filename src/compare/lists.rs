//! The transactions of either end, a list at a time.

use super::join::Queue;
use super::pair::FilePair;
use crate::error::Error;
use crate::error::retry::{self, REREAD_DELAYS};
use crate::filestorage::scan::{Scanner, Tail};
use crate::source::{FileId, MasterStat, Pending, Transactions};

/// Where the lists of one end come from.
pub(crate) trait TransactionLists {
    /// The list that starts at `from`, where the one before it ended.
    fn next(&mut self, from: u64) -> Result<Transactions, Error>;
}

/// Gets as much of a list as a step of the join needs.
pub(crate) fn fill_queue(
    queue: &mut Queue,
    lists: &mut impl TransactionLists,
) -> Result<(), Error> {
    while queue.wants_more() {
        let list = lists.next(queue.known())?;
        queue.add(&list);
    }
    Ok(())
}

/// The slave's.
pub(crate) struct SlaveLists<'a> {
    pair: FilePair<'a>,
    scanner: Scanner,
}

impl<'a> SlaveLists<'a> {
    /// From a position on, to `size`.
    pub(crate) fn new(pair: FilePair<'a>, from: u64, size: u64) -> Self {
        Self {
            pair,
            scanner: Scanner::resume(from, None, size),
        }
    }
}

impl TransactionLists for SlaveLists<'_> {
    fn next(&mut self, _: u64) -> Result<Transactions, Error> {
        let slave = self.pair.slave;
        Transactions::scan(&mut self.scanner, |buffer, at| {
            slave.read(buffer, at)?;
            Ok(buffer.len())
        })
    }
}

/// The master's, of which the next one is asked for ahead.
pub(crate) struct MasterLists<'a> {
    pair: FilePair<'a>,
    identity: FileId,
    size: u64,
    under_way: Option<Pending<Transactions>>,
    /// How far the scan over there came.
    reached: u64,
    /// How often something wrong was looked at again.
    looked_again: usize,
}

impl<'a> MasterLists<'a> {
    /// Of the file that was sighted, from a position on.
    pub(crate) fn new(pair: FilePair<'a>, master_stat: &MasterStat, from: u64) -> Self {
        Self {
            pair,
            identity: master_stat.identity.clone(),
            size: master_stat.size,
            under_way: Some(pair.master.transactions(from, master_stat.size)),
            reached: from,
            looked_again: 0,
        }
    }

    fn changed(&self, what: &'static str) -> Error {
        Error::MasterChanged {
            master: self.pair.master.name().to_owned(),
            what,
        }
    }

    /// Looks at the master once more; it may have grown.
    fn look_again(&mut self) -> Result<(), Error> {
        let master_stat = self.pair.master.stat(Vec::new())?;
        if master_stat.identity != self.identity {
            return Err(self.changed("there is another file under its name"));
        }
        self.size = master_stat.size;
        Ok(())
    }
}

impl TransactionLists for MasterLists<'_> {
    fn next(&mut self, from: u64) -> Result<Transactions, Error> {
        let answer = match self.under_way.take() {
            Some(answer) => answer,
            None => self.pair.master.transactions(from, self.size),
        };
        let mut list = answer.wait()?;
        if list.is_cut(self.size) {
            return Err(self.changed("it is shorter than it was"));
        }
        let known = list.entries.iter().fold(from, |at, entry| at + entry.len);
        match list.reached.end {
            Some(Tail::Damaged(_) | Tail::Torn) => {
                // As of a feed: it may be a write under way.
                if let Some(wait) = REREAD_DELAYS.get(self.looked_again) {
                    self.looked_again += 1;
                    retry::wait(*wait);
                    self.look_again()?;
                    self.reached = known;
                    list.reached.end = None;
                }
            }
            Some(Tail::Clean | Tail::Short | Tail::Voted) => {}
            None if list.reached.offset <= self.reached => {
                return Err(self.changed("it goes no further"));
            }
            None => {
                self.reached = list.reached.offset;
                self.under_way = Some(self.pair.master.transactions(known, self.size));
            }
        }
        Ok(list)
    }
}
