//! The checks after a pass and after a comparison.

use std::collections::BTreeSet;

use fssync::filestorage::scan::Tail;
use fssync::filestorage::{Magic, Tid, TxnStatus};
use fssync::io::progress::Silent;
use fssync::plan::outcome::{Exit, Outcome};
use fssync::verify::finding::{Finding, Kind};
use fssync::verify::{against, verify};

use super::super::scene::{How, bytes};
use super::super::storage::Scanned;
use super::World;

impl World {
    /// Makes a pass, and checks the laws.
    pub(super) fn pass(&mut self, how: How) {
        let master = bytes(&self.scene.master);
        let slave = bytes(&self.scene.slave);
        let kept = self.all_tids();
        let outcome = self.scene.pass(how);
        let theirs = Scanned::of(&master, usize::MAX);
        if Magic::decode(&master).is_some() {
            self.seen.extend(theirs.tids());
        }
        assert!(
            bytes(&self.scene.master) == master,
            "the master is unchanged"
        );
        let newest = Scanned::of(&slave, usize::MAX).transactions().pop();
        let is_older = newest.is_some_and(|it| theirs.tids().contains(&it.header.tid));
        let may_go = if is_older { &self.seen } else { &theirs.tids() };
        let mut own: BTreeSet<_> = kept.difference(may_go).copied().collect();
        // No pack drops a transaction that is newer than one that it left unpacked.
        let unpacked = theirs.transactions().into_iter();
        let unpacked = unpacked.filter(|it| it.header.status != TxnStatus::PACKED);
        if let Some(oldest) = unpacked.map(|it| it.header.tid).min() {
            let gone = kept.difference(&theirs.tids()).copied().collect::<Vec<_>>();
            own.extend(gone.into_iter().filter(|tid| *tid > oldest));
        }
        let lost: Vec<_> = own.difference(&self.all_tids()).copied().collect();
        assert!(lost.is_empty(), "{outcome:?} has lost {lost:?}");
        self.check_names(&outcome);
        let after = bytes(&self.scene.slave);
        let prefix = &master[..(theirs.position as usize).min(master.len())];
        match outcome.exit {
            _ if how.dry_run => assert!(after == slave, "a dry run: {outcome:?}"),
            Exit::Success => {
                let ours = Scanned::of(&after, usize::MAX);
                assert!(after[..ours.position as usize] == *prefix, "{outcome:?}");
                assert!(ours.can_be_cut() && theirs.is_opened(), "{outcome:?}");
                if ours.tail == Tail::Clean {
                    self.check_beside(&outcome);
                }
            }
            Exit::MasterDamaged => {
                assert!(after == slave || after == prefix, "{outcome:?}");
                assert!(!theirs.is_opened(), "{outcome:?}");
            }
            Exit::Unreachable | Exit::Diverged | Exit::SlaveDamaged => {
                assert!(after == slave, "{outcome:?}");
            }
            other => panic!("{other:?}: {outcome:?}"),
        }
    }

    /// The committed transactions of the slave and of the files that were set aside.
    fn all_tids(&self) -> BTreeSet<Tid> {
        let files = self.scene.beside_slave().into_iter();
        files
            .filter(|(suffix, bytes)| {
                let is_kept = suffix.is_empty() || suffix.starts_with(".diverged-");
                is_kept && Magic::decode(bytes).is_some()
            })
            .flat_map(|(_, bytes)| Scanned::of(&bytes, usize::MAX).tids())
            .collect()
    }

    fn check_names(&self, outcome: &Outcome) {
        for (suffix, _) in self.scene.beside_slave() {
            let is_tmp = suffix == ".fssync-tmp";
            assert!(!is_tmp || outcome.exit == Exit::Unreachable, "{outcome:?}");
            let known = ["", ".fssync", ".fssync-ledger", ".index", ".lock"];
            let locks = [".fssync-pass", ".fssync-step", ".fssync-tmp"];
            let is_known = known.contains(&&*suffix) || locks.contains(&&*suffix);
            let piles_up = suffix.starts_with(".diverged-") || suffix.starts_with(".tr");
            assert!(is_known || piles_up, "{suffix}: {outcome:?}");
        }
    }

    /// After a pass that succeeded, another pass does nothing, and the files beside the slave
    /// are right.
    fn check_beside(&self, outcome: &Outcome) {
        let report = self.scene.report(How::default());
        let again = &report.outcome;
        let is_idle = again.exit == Exit::Success && again.copied.transactions == 0;
        assert!(is_idle, "{outcome:?}, then {again:?}");
        assert_eq!((&report.record_error, report.index_is_due), (&None, false));
        let check = &mut |finding: &Finding| {
            use Kind::{BackPointer, DataTid, OddStatus, PreviousPointer, TidReduction};
            let masters = [
                DataTid,
                OddStatus,
                PreviousPointer,
                TidReduction,
                BackPointer,
            ];
            assert!(
                masters.contains(&finding.kind),
                "{finding:?} after {outcome:?}"
            );
        };
        let verified = verify(&self.scene.slave(), false, &Silent, check);
        let verified = verified.expect("it can be read");
        if verified.transactions > 0 {
            let compared = fssync::verify::DigestState::Compared(verified.position);
            assert_eq!(verified.digests, compared, "{outcome:?}");
        }
    }

    /// Compares the slave with the master, like `fssync verify --against`.
    pub(super) fn compare(&self) {
        let (slave, master) = (self.scene.slave(), self.scene.master());
        let before = self.scene.beside_slave().len();
        if against::check(&slave, &master).is_err() {
            return;
        }
        let verified = verify(&slave, false, &Silent, &mut |_| {}).expect("it can be read");
        let compared = against::compare(&slave, &verified, &master, &Silent);
        if let Some(compared) = compared.expect("it can be compared") {
            let (ours, theirs) = (bytes(&self.scene.slave), bytes(&self.scene.master));
            let end = compared.slave_end.min(compared.master_size) as usize;
            assert!(compared.equal_bytes <= end as u64, "{compared:?}");
            let is_sound = verified.damages == 0 && compared.early_stop.is_none();
            if is_sound && ours[..end] == theirs[..end] {
                assert_eq!(compared.equal_bytes, end as u64, "{compared:?}");
            }
        }
        assert_eq!(self.scene.beside_slave().len(), before);
    }
}
