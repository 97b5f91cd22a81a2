//! Finding which transactions of a run differ, by halving it; pure.

use std::ops::Range;

use super::join::ListedTransaction;

/// Finds which transactions of a run differ.
pub(crate) struct Search<Q, F> {
    /// How many transactions to search for: once they are found, what else differs
    /// is not halved any more.
    pub(crate) room: usize,
    /// Says whether a range has the same bytes on both ends.
    pub(crate) is_equal: Q,
    /// Is told, in their order, of each transaction whose bytes differ; and, once
    /// there is no more room, of runs in which there is one or more.
    pub(crate) found: F,
}

impl<E, Q: FnMut(Range<u64>) -> Result<bool, E>, F: FnMut(&[ListedTransaction])> Search<Q, F> {
    /// Searches a run.
    ///
    /// Where a half is equal, and the whole is not, the other half differs without a
    /// question: one transaction among n costs log2(n) of them, or twice as many.
    pub(crate) fn run(mut self, run: &[ListedTransaction]) -> Result<(), E> {
        self.differs(run, false).map(drop)
    }

    /// Whether a run differs; that it does may be `known`.
    fn differs(&mut self, run: &[ListedTransaction], known: bool) -> Result<bool, E> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(false);
        };
        if !known && (self.is_equal)(first.position..last.end)? {
            return Ok(false);
        }
        if run.len() == 1 || self.room == 0 {
            self.room = self.room.saturating_sub(1);
            (self.found)(run);
            return Ok(true);
        }
        let (before, behind) = run.split_at(run.len() / 2);
        let differs_before = self.differs(before, false)?;
        self.differs(behind, !differs_before)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filestorage::{Tid, TxnStatus};
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::convert::Infallible;

    fn run(len: u64) -> Vec<ListedTransaction> {
        let txn = |n| ListedTransaction {
            position: n * 100,
            end: (n + 1) * 100,
            tid: Tid(n),
            status: TxnStatus::COMMITTED,
        };
        (0..len).map(txn).collect()
    }

    /// What is found where these differ, and how many questions it took.
    fn found_of(room: usize, len: u64, differing: &[u64]) -> (Vec<Vec<u64>>, u32) {
        let asked = Cell::new(0);
        let mut found = Vec::new();
        let search = Search {
            room,
            is_equal: |range: Range<u64>| -> Result<bool, Infallible> {
                asked.set(asked.get() + 1);
                Ok(!differing.iter().any(|n| range.contains(&(n * 100 + 50))))
            },
            found: |txns: &[ListedTransaction]| {
                found.push(txns.iter().map(|txn| txn.tid.0).collect());
            },
        };
        let Ok(()) = search.run(&run(len));
        (found, asked.get())
    }

    /// The same where there is room for all.
    fn found(len: u64, differing: &[u64]) -> (Vec<u64>, u32) {
        let (found, asked) = found_of(usize::MAX, len, differing);
        (found.concat(), asked)
    }

    #[test]
    fn once_enough_are_found_runs_are_told() {
        let all: Vec<u64> = (0..1024).collect();
        let (found, asked) = found_of(3, 1024, &all);
        assert_eq!(found[..3], [[0], [1], [2]]);
        assert_eq!(found.concat(), all);
        assert!(found.len() <= 13 && asked < 30, "{found:?} {asked}");
        let (found, asked) = found_of(0, 1024, &[7]);
        assert_eq!((found, asked), (vec![all], 1));
    }

    #[test]
    fn one_among_many_costs_few_questions() {
        assert_eq!(found(0, &[]), (vec![], 0));
        assert_eq!(found(1024, &[]), (vec![], 1));
        for at in [0, 1, 511, 1000, 1023] {
            let (found, asked) = found(1024, &[at]);
            assert_eq!(found, [at]);
            assert!((11..=21).contains(&asked), "{asked}");
        }
    }

    proptest! {
        #[test]
        fn each_that_differs_is_found_and_no_other(
            len in 1..200u64,
            at in proptest::collection::btree_set(0..200u64, 0..12),
        ) {
            let differing: Vec<_> = at.into_iter().filter(|at| *at < len).collect();
            prop_assert_eq!(found(len, &differing).0, differing);
        }
    }
}
