//! Finding which transactions of a run differ, by halving it; pure.

use std::ops::Range;

use super::join::Txn;

/// Tells `found` of each transaction of a run whose bytes differ, in their order.
///
/// `is_equal` says whether a range has the same bytes on both ends. Where a half
/// is equal, and the whole is not, the other half differs without a question: one
/// transaction among n costs log2(n) of them, or twice as many.
pub(super) fn search<E>(
    run: &[Txn],
    is_equal: &mut impl FnMut(Range<u64>) -> Result<bool, E>,
    found: &mut impl FnMut(&Txn),
) -> Result<(), E> {
    differs(run, false, is_equal, found).map(drop)
}

/// Whether a run differs; that it does may be `known`.
fn differs<E>(
    run: &[Txn],
    known: bool,
    is_equal: &mut impl FnMut(Range<u64>) -> Result<bool, E>,
    found: &mut impl FnMut(&Txn),
) -> Result<bool, E> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(false);
    };
    if !known && is_equal(first.position..last.end)? {
        return Ok(false);
    }
    if run.len() == 1 {
        found(first);
        return Ok(true);
    }
    let (before, behind) = run.split_at(run.len() / 2);
    let differs_before = differs(before, false, is_equal, found)?;
    differs(behind, !differs_before, is_equal, found)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filestorage::{Status, Tid};
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::convert::Infallible;

    fn run(len: u64) -> Vec<Txn> {
        let txn = |n| Txn {
            position: n * 100,
            end: (n + 1) * 100,
            tid: Tid(n),
            status: Status::COMMITTED,
        };
        (0..len).map(txn).collect()
    }

    /// What is found where these differ, and how many questions it took.
    fn found(len: u64, differing: &[u64]) -> (Vec<u64>, u32) {
        let asked = Cell::new(0);
        let mut is_equal = |range: Range<u64>| -> Result<bool, Infallible> {
            asked.set(asked.get() + 1);
            Ok(!differing.iter().any(|n| range.contains(&(n * 100 + 50))))
        };
        let mut found = Vec::new();
        let Ok(()) = search(&run(len), &mut is_equal, &mut |txn| found.push(txn.tid.0));
        (found, asked.get())
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
