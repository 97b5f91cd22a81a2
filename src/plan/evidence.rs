//! The differences between a copy of the whole master and the slave that it is to replace.

use crate::filestorage::Tid;
use crate::plan::switch_on::TransactionRun;

/// The result of joining the old slave's transactions with those of the copy; see
/// [`compare::succession`](crate::compare::succession).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The old slave's transactions that the copy lacks, or of which it lacks a data record.
    pub missing: Option<TransactionRun>,
    /// Those of them that a pack cannot have dropped.
    pub unexplained: Option<TransactionRun>,
    /// Those of them that are newer than all transactions that are known to be packed. A pack
    /// explains them only if its time was later than any transaction that it kept.
    pub doubtful: Option<TransactionRun>,
    /// Transactions that both have, but with other data in the copy.
    pub altered: Option<TransactionRun>,
    /// Whether the master was packed since the slave was copied.
    pub is_packed: bool,
    /// Whether the copy has a transaction that the slave lacks, no newer than the slave's last.
    pub has_others: bool,
    /// Why the two could not be compared to the end, if so.
    pub failure: Option<ComparisonFailure>,
}

/// Why an old slave could not be compared with a copy. The greatest one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComparisonFailure {
    /// The two could not be joined: the tids are not in ascending order, the copy has no index to
    /// look up objects in, or too many objects were suspect at a time.
    Disorder,
    /// It could not be read to its end.
    Unreadable,
}

/// The data that would be lost if the old slave were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Transactions that the master lacks, and that no pack explains.
    Transactions(TransactionRun),
    /// Transactions that have other data in the master.
    Altered(TransactionRun),
    /// Transactions that the master lacks, and that a pack may explain.
    Doubtful(TransactionRun),
    /// Unknown, as the slave could not be read to its end.
    Unknown,
}

impl Evidence {
    /// The data that would be lost with the old slave; `None` if a pack explains all that the copy
    /// lacks.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        if self.failure == Some(ComparisonFailure::Unreadable) {
            return Some(Loss::Unknown);
        }
        // A master that has transactions of its own is not just a packed copy of the slave, and
        // without a complete comparison nothing is explained.
        let is_pack = self.is_packed && !self.has_others && self.failure.is_none();
        let lost = if is_pack {
            self.unexplained
        } else {
            self.missing
        };
        let altered = self.altered.map(Loss::Altered);
        let doubtful = self.doubtful.map(Loss::Doubtful);
        lost.map(Loss::Transactions).or(altered).or(doubtful)
    }
}

/// The run with one more transaction at its end, unless that is its last one already.
#[must_use]
pub fn extended(run: Option<TransactionRun>, tid: Tid) -> TransactionRun {
    match run {
        None => TransactionRun {
            count: 1,
            first: tid,
            last: tid,
        },
        Some(run) if run.last == tid => run,
        Some(TransactionRun { count, first, .. }) => TransactionRun {
            count: count + 1,
            first,
            last: tid,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TransactionRun = TransactionRun {
        count: 1,
        first: Tid(7),
        last: Tid(7),
    };
    const THREE: TransactionRun = TransactionRun {
        count: 3,
        first: Tid(5),
        last: Tid(7),
    };

    /// A pack that dropped three transactions.
    const PACK: Evidence = Evidence {
        missing: Some(THREE),
        unexplained: None,
        doubtful: None,
        altered: None,
        is_packed: true,
        has_others: false,
        failure: None,
    };

    #[test]
    fn nothing_is_lost_if_the_copy_lacks_nothing_or_a_pack_explains_it() {
        for evidence in [
            PACK,
            Evidence {
                missing: None,
                ..PACK
            },
            Evidence {
                missing: None,
                is_packed: false,
                has_others: true,
                failure: Some(ComparisonFailure::Disorder),
                ..PACK
            },
        ] {
            assert_eq!(evidence.loss(), None, "{evidence:?}");
        }
    }

    #[test]
    fn without_a_proven_pack_all_that_is_missing_is_lost() {
        for evidence in [
            Evidence {
                is_packed: false,
                ..PACK
            },
            Evidence {
                has_others: true,
                ..PACK
            },
            Evidence {
                failure: Some(ComparisonFailure::Disorder),
                ..PACK
            },
        ] {
            let lost = Some(Loss::Transactions(THREE));
            assert_eq!(evidence.loss(), lost, "{evidence:?}");
        }
    }

    #[test]
    fn a_pack_does_not_explain_everything() {
        let evidence = Evidence {
            unexplained: Some(ONE),
            ..PACK
        };
        assert_eq!(evidence.loss(), Some(Loss::Transactions(ONE)));
        let doubtful = Evidence {
            doubtful: Some(ONE),
            ..PACK
        };
        assert_eq!(doubtful.loss(), Some(Loss::Doubtful(ONE)));
        let altered = Evidence {
            altered: Some(ONE),
            doubtful: Some(THREE),
            missing: None,
            ..PACK
        };
        assert_eq!(altered.loss(), Some(Loss::Altered(ONE)));
        let both = Evidence {
            doubtful: Some(ONE),
            altered: Some(THREE),
            ..evidence
        };
        assert_eq!(both.loss(), Some(Loss::Transactions(ONE)));
    }

    #[test]
    fn a_slave_that_cannot_be_read_may_hold_anything() {
        let evidence = Evidence {
            missing: None,
            failure: Some(ComparisonFailure::Unreadable),
            ..PACK
        };
        assert_eq!(evidence.loss(), Some(Loss::Unknown));
    }

    #[test]
    fn a_transaction_counts_once_in_a_run() {
        let run = [5, 6, 6, 7]
            .into_iter()
            .fold(None, |run, tid| Some(extended(run, Tid(tid))));
        assert_eq!(run, Some(THREE));
    }
}
