//! Finds the transactions of a run that differ, by halving the run. This module is pure: the
//! caller compares the ranges.

use std::ops::Range;

use super::join::ListedTransaction;

/// A search for the transactions that differ.
pub(crate) struct Search<Q, F> {
    /// Number of transactions to find. After that, runs that differ are not halved any more.
    pub(crate) limit: usize,
    /// Compares a range: whether it has the same bytes in both files.
    pub(crate) is_equal: Q,
    /// Called for each transaction that differs, in file order; after the limit, for each run
    /// that contains at least one.
    pub(crate) found: F,
}

impl<E, Q: FnMut(Range<u64>) -> Result<bool, E>, F: FnMut(&[ListedTransaction])> Search<Q, F> {
    /// Searches a run.
    ///
    /// If a run differs and its first half is equal, the second half differs and need not be
    /// compared as a whole. So one transaction among n costs between log2(n) and 2 log2(n)
    /// comparisons.
    pub(crate) fn run(mut self, run: &[ListedTransaction]) -> Result<(), E> {
        self.differs(run, false).map(drop)
    }

    /// Whether a run differs. If that is `known`, the run is not compared as a whole.
    fn differs(&mut self, run: &[ListedTransaction], known: bool) -> Result<bool, E> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(false);
        };
        if !known && (self.is_equal)(first.position..last.end)? {
            return Ok(false);
        }
        if run.len() == 1 || self.limit == 0 {
            self.limit = self.limit.saturating_sub(1);
            (self.found)(run);
            return Ok(true);
        }
        let (first, second) = run.split_at(run.len() / 2);
        let first_differs = self.differs(first, false)?;
        self.differs(second, !first_differs)?;
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

    /// The runs that a search finds if these transactions differ, and the number of comparisons.
    fn found_of(limit: usize, len: u64, differing: &[u64]) -> (Vec<Vec<u64>>, u32) {
        let asked = Cell::new(0);
        let mut found = Vec::new();
        let search = Search {
            limit,
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

    /// The same without a limit.
    fn found(len: u64, differing: &[u64]) -> (Vec<u64>, u32) {
        let (found, asked) = found_of(usize::MAX, len, differing);
        (found.concat(), asked)
    }

    #[test]
    fn after_the_limit_whole_runs_are_reported() {
        let all: Vec<u64> = (0..1024).collect();
        let (found, asked) = found_of(3, 1024, &all);
        assert_eq!(found[..3], [[0], [1], [2]]);
        assert_eq!(found.concat(), all);
        assert!(found.len() <= 13 && asked < 30, "{found:?} {asked}");
        let (found, asked) = found_of(0, 1024, &[7]);
        assert_eq!((found, asked), (vec![all], 1));
    }

    #[test]
    fn one_among_many_costs_few_comparisons() {
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
        fn exactly_the_transactions_that_differ_are_found(
            len in 1..200u64,
            at in proptest::collection::btree_set(0..200u64, 0..12),
        ) {
            let differing: Vec<_> = at.into_iter().filter(|at| *at < len).collect();
            prop_assert_eq!(found(len, &differing).0, differing);
        }
    }
}
