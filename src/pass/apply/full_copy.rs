//! CopyProgress the whole master, and putting the copy in the slave's place.

use std::fs::File;

use jiff::Timestamp;

use super::replaced::{Replaced, Tense, succession};
use super::{Apply, note};
use crate::compare::digests::prove_equal;
use crate::compare::succession::Succession;
use crate::error::Error;
use crate::filestorage::index::builder::Builder;
use crate::filestorage::scan::{Event, Scanner, Visitor};
use crate::filestorage::{MAGIC_LEN, Magic, Tid};
use crate::io::progress::Monitor;
use crate::pass::reader::Feed;
use crate::pass::survey::Survey;
use crate::plan::outcome::Copied;
use crate::plan::{OldSlave, Reason};
use crate::slave::ledger::LedgerEntry;
use crate::slave::replace::{Replacement, SecondName};
use crate::slave::scan::scan_file;
use crate::slave::sidecar::{FullCopy, Sidecar};
use crate::upkeep;

/// A copy that an earlier pass has begun, as it is read again.
struct TakenUp<'a> {
    required_tid: Option<Tid>,
    /// Whether it has that transaction.
    holds: bool,
    builder: Builder,
    /// The join with the slave that it is to replace.
    join: Option<Succession<'a>>,
}

impl Visitor for TakenUp<'_> {
    fn event(&mut self, event: Event) {
        self.builder.take(event);
        if let Some(join) = &mut self.join {
            join.take(event, self.builder.index());
        }
        self.holds |=
            matches!(event, Event::Transaction(t) if Some(t.header.tid) == self.required_tid);
    }

    fn bytes(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(join) = &mut self.join {
            join.take_bytes(offset, bytes);
        }
    }
}

impl Apply<'_> {
    pub(super) fn full_copy(
        &self,
        survey: &Survey,
        (old, required_tid, reason): (OldSlave, Option<Tid>, Reason),
        sidecar: &mut Sidecar,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let master_stat = &survey.master_stat;
        let mut copy = Replacement::open(self.slave, master_stat.size, master_stat.mode)?;
        tracing::info!("full backup: {reason}");
        let mut run = || {
            let (mut feed, from) = self.take_up(survey, &mut copy, required_tid, monitor)?;
            self.note_begun(master_stat.size, from, sidecar);
            while let Some(piece) = feed.next(false)? {
                copy.write(piece)?;
                monitor.progress("copying", feed.position(), feed.size());
            }
            copy.truncate(feed.position())?;
            let replaced = self.judge(survey, (old, required_tid, reason), &mut feed);
            self.replace(survey, replaced?, &mut copy, &feed, monitor)?;
            if let Some(warning) = copy.warning() {
                monitor.warn(warning);
            }
            note(copied, &feed, from);
            self.warn_of_blobs(&feed, sidecar, monitor);
            sidecar.batch = None;
            sidecar.copy = None;
            sidecar.index = None;
            self.leave(
                survey,
                copy.file(),
                feed.position(),
                feed.last_tid(),
                sidecar,
            )?;
            let digests = copy.take_digests()?;
            self.keep(copy.file(), (digests, &mut feed), sidecar, monitor);
            feed.damage()
                .map_or(Ok(()), |damage| Err(self.damaged(damage)))
        };
        let result = run();
        if let Err(error) = &result {
            // A signal is no reason to begin again, as a kill is not.
            if self.slave.check_interrupted().is_err() {
                let (path, len) = (copy.path().display(), copy.written());
                tracing::info!("{path} keeps the {len} bytes that were copied, for the next pass");
            } else if !error.is_unreachable() {
                copy.discard();
            }
        }
        result
    }

    /// Notes that a copy is under way, for `fssync status`; the copy does not need it.
    fn note_begun(&self, size: u64, from: u64, sidecar: &mut Sidecar) {
        sidecar.copy = Some(FullCopy {
            since: Timestamp::now(),
            from,
            size,
        });
        upkeep::index::report(sidecar.store(&self.slave.paths));
    }

    /// Keeps what was made on the way, the digests and the index, once the new slave is
    /// noted: by the old one's sidecar, a pass that is killed here would leave one
    /// that looks changed.
    fn keep(
        &self,
        file: &File,
        (digests, feed): (Vec<LedgerEntry>, &mut Feed<'_>),
        sidecar: &mut Sidecar,
        monitor: &dyn Monitor,
    ) {
        let (index, position) = (feed.take_index(), feed.position());
        let stored = sidecar.store(&self.slave.paths).and_then(|()| {
            self.note_digests(file, digests);
            upkeep::index::store_built(self.slave, index, position, sidecar, monitor)
        });
        upkeep::index::report(stored);
    }

    /// Where to go on in a copy, and the feed from there: behind what an earlier
    /// pass has left of it, as far as that proves to be the master's, or at the
    /// start.
    fn take_up<'a>(
        &'a self,
        survey: &'a Survey,
        copy: &mut Replacement<'_>,
        required_tid: Option<Tid>,
        monitor: &dyn Monitor,
    ) -> Result<(Feed<'a>, u64), Error> {
        let mut scanner = Scanner::new(copy.written());
        let mut taken = TakenUp {
            required_tid,
            holds: false,
            builder: Builder::default(),
            join: succession(survey).filter(|_| copy.written() > 0),
        };
        let written = copy.written();
        let go_on = |offset| {
            monitor.progress("reading what there is", offset, written);
            self.slave.check_cancelled()
        };
        scan_file(copy.file(), copy.path(), &mut scanner, &go_on, &mut taken)?;
        let position = scanner.position();
        if copy.written() >= position
            && position > MAGIC_LEN
            && let Some(proven) =
                prove_equal(copy.file(), copy.path(), self.master, 0..position, monitor)?
        {
            tracing::info!("going on at {position} with the copy of an earlier pass");
            copy.resume(proven)?;
            let mut feed = self.feed(survey, position, scanner.last_tid());
            feed.watch_for(required_tid, taken.holds);
            feed.build(taken.builder);
            feed.join(taken.join);
            return Ok((feed, position));
        }
        drop(taken);
        copy.truncate(0)?;
        let magic = self.master.read(MAGIC_LEN as usize, 0).wait()?;
        if Magic::decode(&magic).is_none() {
            return Err(self.changed("its head is no FileStorage's any more"));
        }
        copy.write(&magic)?;
        let mut feed = self.feed(survey, MAGIC_LEN, None);
        feed.watch_for(required_tid, false);
        feed.build(Builder::default());
        feed.join(succession(survey));
        Ok((feed, 0))
    }

    /// Judges the old slave by a copy that has come by whole. Fails if the copy may not take its
    /// place.
    fn judge(
        &self,
        survey: &Survey,
        (old, required_tid, reason): (OldSlave, Option<Tid>, Reason),
        feed: &mut Feed<'_>,
    ) -> Result<Replaced, Error> {
        match feed.damage() {
            Some(damage) if !self.may_replace(old) => Err(self.damaged(damage)),
            None if required_tid.is_some() && !feed.has_seen() => {
                Err(self.changed("the slave's last transaction is no longer in it"))
            }
            _ => Replaced::judge(survey, (old, reason), feed),
        }
    }

    /// Puts a copy, which ends where the feed has ended, in the slave's place,
    /// once it is durable here and there, and still what the master has.
    fn replace(
        &self,
        survey: &Survey,
        replaced: Replaced,
        copy: &mut Replacement<'_>,
        feed: &Feed<'_>,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        copy.start_sync();
        let asked = self.ask_to_confirm(copy.file(), 0..feed.position(), feed)?;
        copy.sync()?;
        self.confirmed(asked)?;
        let keep_as = replaced.is_kept.then_some(SecondName {
            last_tid: survey.last_tid,
        });
        let kept_as = copy.install(survey.seen, keep_as)?;
        replaced.warn(
            Tense::Done,
            self.slave.paths.data(),
            kept_as.as_deref(),
            monitor,
        );
        Ok(())
    }
}
