//! Builds an index from the events of a scan.
//!
//! A scan reports the data records of a transaction before its end shows whether ZODB accepts
//! it. There may be millions of them, so they are added to the index at once instead of being
//! buffered. If the transaction then turns out to be damaged, or the scan goes back to its
//! start, the index contains wrong records and cannot be used. It must then be built again,
//! from a file that ends with a committed transaction. This happens in two cases:
//!
//! 1. The master is damaged, and the copy ends before the damage.
//! 2. The scan goes back to a boundary, after it has read some records of the next transaction.
//!
//! Voted and torn transactions are harmless: they cause no events.

use super::Index;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::scan::Event;

/// An index under construction.
#[derive(Clone, Debug)]
pub struct Builder {
    index: Index,
    /// End of the last complete transaction.
    position: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The index matches the position.
    Whole,
    /// The index also has data records of the next transaction.
    Ahead,
    /// The index has data records of a transaction that was not completed.
    Spoiled,
}

impl Default for Builder {
    /// The empty index, for a scan from the start of the file.
    fn default() -> Self {
        Self::resume(Index::default(), MAGIC_LEN)
    }
}

impl Builder {
    /// Continues with the index of `position`.
    #[must_use]
    pub fn resume(index: Index, position: u64) -> Self {
        Self {
            index,
            position,
            state: State::Whole,
        }
    }

    /// End of the last complete transaction.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The index of all records so far, including those of an incomplete transaction. `None` if
    /// it is spoiled.
    #[must_use]
    pub fn index(&self) -> Option<&Index> {
        (self.state != State::Spoiled).then_some(&self.index)
    }

    /// Takes an event of a scan that continues at [`position`](Self::position). As in ZODB's
    /// `read_index`, the last data record of an object is the current one, whatever its `prev`
    /// is, and even if its back pointer of 0 undoes the creation of the object.
    pub fn take(&mut self, event: Event) {
        match (event, self.state) {
            (Event::Begun { .. }, State::Ahead) => self.state = State::Spoiled,
            (
                Event::Record {
                    header, position, ..
                },
                State::Whole | State::Ahead,
            ) => {
                self.index.insert(header.oid, position);
                self.state = State::Ahead;
            }
            (Event::Transaction(transaction), State::Whole | State::Ahead) => {
                self.position = transaction.end;
                self.state = State::Whole;
            }
            (_, State::Spoiled) | (Event::Begun { .. } | Event::Blemish { .. }, _) => {}
        }
    }

    /// The index of [`position`](Self::position). `None` if it is spoiled, or if a transaction
    /// is incomplete.
    #[must_use]
    pub fn finish(self) -> Option<Index> {
        (self.state == State::Whole).then_some(self.index)
    }
}
