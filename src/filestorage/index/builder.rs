//! An index from what a scan comes by.
//!
//! A transaction's data records come by before its end shows whether ZODB takes
//! it, and there may be millions of them. They go into the index at once: so
//! nothing is held beside it. Where a transaction is then damaged, or the scan
//! goes back to it, the index is spoiled, and there is none; it must be built
//! from a file that ends with a committed transaction. This happens in two
//! cases: a master is damaged, and its copy ends before the damage, or the scan
//! is told to go back to a boundary that it has passed. A voted transaction and
//! a torn one have no events at all.

use super::Index;
use crate::filestorage::MAGIC_LEN;
use crate::filestorage::scan::Event;

/// An index that grows.
#[derive(Clone, Debug)]
pub struct Builder {
    index: Index,
    /// Just past the last transaction that came by whole.
    position: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The index is that of the position.
    Whole,
    /// It has data records of the transaction behind it.
    Ahead,
    /// It has some that never were.
    Spoiled,
}

impl Default for Builder {
    /// An index of a file that is scanned from its start.
    fn default() -> Self {
        Self::resume(Index::default(), MAGIC_LEN)
    }
}

impl Builder {
    /// Goes on with the index that a file has at `position`.
    #[must_use]
    pub fn resume(index: Index, position: u64) -> Self {
        Self {
            index,
            position,
            state: State::Whole,
        }
    }

    /// Just past the last transaction that came by whole.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The index of all that came by, also of a transaction that is not whole yet; `None` if it
    /// was spoiled.
    #[must_use]
    pub fn index(&self) -> Option<&Index> {
        (self.state != State::Spoiled).then_some(&self.index)
    }

    /// Takes an event of a scan that goes on at [`position`](Self::position).
    /// Every one counts, as for ZODB's `read_index`: the last data record of an
    /// object is the current one, be it a back pointer of 0 that undoes the
    /// object's creation, and whatever its `prev` is.
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

    /// The index of [`position`](Self::position); `None` if it was spoiled.
    #[must_use]
    pub fn finish(self) -> Option<Index> {
        (self.state == State::Whole).then_some(self.index)
    }
}
