//! Carrying a plan out: bytes from the master, in durable order into the slave.
//!
//! The order within a batch and within a full copy is argued where it is kept,
//! in [`slave::append`](crate::slave::append) and
//! [`slave::replace`](crate::slave::replace). Here the master's pieces are led
//! there, and compared with the master once more before they become visible.

use std::fs::File;
use std::ops::Range;

use crate::digest::Digest;
use crate::feed::Feed;
use crate::filestorage::record::STATUS_OFFSET;
use crate::filestorage::scan::{Event, Scanner};
use crate::filestorage::{MAGIC_LEN, Magic, Tid};
use crate::monitor::Monitor;
use crate::outcome::Copied;
use crate::plan::{Deed, Old, Plan, Policy, Tail};
use crate::proof::is_equal;
use crate::read::scan_file;
use crate::slave::append::Append;
use crate::slave::replace::{Aside, Replacement, clean_up};
use crate::slave::sidecar::{Left, Mark, Sidecar};
use crate::slave::step::Slave;
use crate::source::Master;
use crate::stop::{MasterDamage, Stop};
use crate::survey::Survey;

/// How much of the end of a batch or a copy is compared with the master again,
/// in bytes. Only what the master wrote while it was read can differ.
const CONFIRM_LEN: u64 = 16 * 1024 * 1024;

/// Sizes that trade memory and latency for throughput.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How many bytes are read at once, and written in a step; at least a
    /// transaction header's.
    pub chunk_len: usize,
    /// After how many bytes a batch is finished at the next boundary.
    pub batch_len: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            chunk_len: 1024 * 1024,
            batch_len: 128 * 1024 * 1024,
        }
    }
}

/// What a plan is carried out with.
#[derive(Debug)]
pub struct Apply<'a> {
    /// The slave.
    pub slave: &'a Slave,
    /// The master.
    pub master: &'a Master,
    /// What was wanted.
    pub policy: Policy,
    /// Sizes.
    pub tuning: Tuning,
}

impl Apply<'_> {
    /// Carries out `plan`, made from `survey`. What was copied is kept in
    /// `copied`, also where the rest fails.
    pub fn carry_out(
        &self,
        plan: &Plan,
        survey: &Survey,
        sidecar: &mut Sidecar,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Stop> {
        if !matches!(plan.deed, Deed::FullCopy { .. }) {
            clean_up(self.slave)?;
        }
        match plan.deed {
            Deed::Nothing => self.vouch(survey, sidecar),
            Deed::Append {
                from,
                last_tid,
                trim,
            } => self.append(survey, (from, last_tid, trim), sidecar, copied, monitor),
            Deed::FullCopy { old, must_hold } => {
                self.full_copy(survey, (old, must_hold), sidecar, copied, monitor)
            }
        }
    }

    /// Reads what carrying out `plan` would read, checks it, and writes
    /// nothing.
    pub fn rehearse(
        &self,
        plan: &Plan,
        survey: &Survey,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Stop> {
        let (from, last_tid, old) = match plan.deed {
            Deed::Nothing => return Ok(()),
            Deed::Append { from, last_tid, .. } => (from, last_tid, None),
            Deed::FullCopy { old, .. } => (MAGIC_LEN, None, Some(old)),
        };
        let mut feed = self.feed(survey, from, last_tid);
        while feed.next(false)?.is_some() {
            monitor.progress("reading", feed.position(), feed.size());
        }
        if let Some(damage) = feed.damage()
            && old.is_some_and(|old| !self.may_replace(old))
        {
            return Err(self.damaged(damage));
        }
        let start = if old.is_some() { 0 } else { from };
        note(copied, &feed, start);
        feed.damage()
            .map_or(Ok(()), |damage| Err(self.damaged(damage)))
    }

    /// Nothing to copy, but the slave was found to be the master's prefix: the
    /// sidecar may say so.
    fn vouch(&self, survey: &Survey, sidecar: &mut Sidecar) -> Result<(), Stop> {
        let (Some(position), Some(file)) = (survey.position, survey.slave_file()) else {
            return Ok(());
        };
        let known = sidecar.left.as_ref().is_some_and(|left| {
            left.slave.position == position && left.master == survey.sight.identity
        });
        if known {
            return Ok(());
        }
        // What was found equal may be somebody's copy, or a batch whose last
        // sync failed.
        file.sync_data()
            .map_err(Stop::io("sync", self.slave.place.data()))?;
        self.leave(survey, file, position, survey.last_tid, sidecar)
    }

    fn append(
        &self,
        survey: &Survey,
        (from, last_tid, trim): (u64, Option<Tid>, Tail),
        sidecar: &mut Sidecar,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Stop> {
        let Some(seen) = survey.seen else {
            return Ok(());
        };
        let mut feed = self.feed(survey, from, last_tid);
        let mut append = Append::open(self.slave, seen, from, trim)?;
        let mut batches = || {
            loop {
                let is_full = append.batch_len() >= self.tuning.batch_len;
                let Some(piece) = feed.next(is_full)? else {
                    break;
                };
                append.write(piece, sidecar)?;
                monitor.progress("appending", feed.position() - from, feed.size() - from);
                if feed.is_at_boundary() && append.batch_len() >= self.tuning.batch_len {
                    self.finish_batch(&mut append, &feed, survey, sidecar)?;
                    note(copied, &feed, from);
                }
            }
            if append.shorten(feed.position())? {
                self.finish_batch(&mut append, &feed, survey, sidecar)?;
                note(copied, &feed, from);
            }
            Ok(())
        };
        if let Err(stop) = batches() {
            append.cut_back();
            return Err(stop);
        }
        feed.damage()
            .map_or(Ok(()), |damage| Err(self.damaged(damage)))
    }

    /// Makes what was appended visible, once it is durable here and there, and
    /// still what the master has.
    fn finish_batch(
        &self,
        append: &mut Append<'_>,
        feed: &Feed<'_>,
        survey: &Survey,
        sidecar: &mut Sidecar,
    ) -> Result<(), Stop> {
        append.start_to_settle();
        // The slave's first status is a mark still.
        let start = append.position() + STATUS_OFFSET + 1;
        self.confirm(append.file(), start..feed.position(), feed)?;
        append.settle()?;
        append.finish()?;
        sidecar.batch = None;
        self.leave(
            survey,
            append.file(),
            feed.position(),
            feed.last_tid(),
            sidecar,
        )
    }

    fn full_copy(
        &self,
        survey: &Survey,
        (old, must_hold): (Old, Option<Tid>),
        sidecar: &mut Sidecar,
        copied: &mut Copied,
        monitor: &dyn Monitor,
    ) -> Result<(), Stop> {
        let sight = &survey.sight;
        let mut copy = Replacement::open(self.slave, sight.size, sight.mode)?;
        let mut run = || {
            let (mut feed, from) = self.take_up(survey, &mut copy, must_hold, monitor)?;
            while let Some(piece) = feed.next(false)? {
                copy.write(piece)?;
                monitor.progress("copying", feed.position(), feed.size());
            }
            copy.truncate(feed.position())?;
            self.replace(survey, (old, must_hold), &mut copy, &feed)?;
            note(copied, &feed, from);
            sidecar.batch = None;
            self.leave(
                survey,
                copy.file(),
                feed.position(),
                feed.last_tid(),
                sidecar,
            )?;
            feed.damage()
                .map_or(Ok(()), |damage| Err(self.damaged(damage)))
        };
        let result = run();
        if let Err(stop) = &result
            && !stop.is_masters_absence()
        {
            copy.discard();
        }
        result
    }

    /// Where to go on in a copy, and the feed from there: behind what an earlier pass has left of it, as
    /// far as that proves to be the master's, or at the start.
    fn take_up(
        &self,
        survey: &Survey,
        copy: &mut Replacement<'_>,
        must_hold: Option<Tid>,
        monitor: &dyn Monitor,
    ) -> Result<(Feed<'_>, u64), Stop> {
        let mut scanner = Scanner::new(copy.written());
        let mut holds = false;
        let go_on = || self.slave.check_may_go_on();
        scan_file(
            copy.file(),
            copy.path(),
            &mut scanner,
            &go_on,
            &mut |event| {
                holds |= matches!(event, Event::Transaction(t) if Some(t.header.tid) == must_hold);
            },
        )?;
        let position = scanner.position();
        if copy.written() >= position
            && position > MAGIC_LEN
            && is_equal(copy.file(), copy.path(), self.master, 0..position, monitor)?
        {
            tracing::info!("going on at {position} with the copy of an earlier pass");
            copy.truncate(position)?;
            let mut feed = self.feed(survey, position, scanner.last_tid());
            feed.watch_for(must_hold, holds);
            return Ok((feed, position));
        }
        copy.truncate(0)?;
        let magic = self.master.read(MAGIC_LEN as usize, 0).wait()?;
        if Magic::decode(&magic).is_none() {
            return Err(self.changed("its head is no FileStorage's any more"));
        }
        copy.write(&magic)?;
        let mut feed = self.feed(survey, MAGIC_LEN, None);
        feed.watch_for(must_hold, false);
        Ok((feed, 0))
    }

    /// Puts a copy, which ends where the feed has ended, in the slave's place,
    /// once it is durable here and there, and still what the master has.
    fn replace(
        &self,
        survey: &Survey,
        (old, must_hold): (Old, Option<Tid>),
        copy: &mut Replacement<'_>,
        feed: &Feed<'_>,
    ) -> Result<(), Stop> {
        let keep = match feed.damage() {
            Some(damage) if !self.may_replace(old) => return Err(self.damaged(damage)),
            Some(_) => old != Old::None,
            None if must_hold.is_some() && !feed.has_seen() => {
                return Err(self.changed("the slave's last transaction is no longer in it"));
            }
            None => old == Old::SetAside,
        };
        copy.start_to_settle();
        self.confirm(copy.file(), 0..feed.position(), feed)?;
        copy.settle()?;
        let aside = keep.then_some(Aside {
            last_tid: survey.last_tid,
        });
        if let Some(name) = copy.install(survey.seen, aside)? {
            tracing::warn!("the old slave is kept as {}", name.display());
        }
        Ok(())
    }

    /// Whether the undamaged start of a damaged master may take the slave's
    /// place.
    fn may_replace(&self, old: Old) -> bool {
        old == Old::None || self.policy.full
    }

    fn feed(&self, survey: &Survey, from: u64, last_tid: Option<Tid>) -> Feed<'_> {
        let chunk_len = self.tuning.chunk_len;
        Feed::new(self.master, &survey.sight, from, last_tid, chunk_len)
    }

    /// Compares what was copied, as far as the master may have been writing it
    /// while it was read, with the master as it stands now: the end, and the
    /// start of the last transaction.
    fn confirm(&self, file: &File, copied: Range<u64>, feed: &Feed<'_>) -> Result<(), Stop> {
        let end = copied.end.saturating_sub(CONFIRM_LEN).max(copied.start);
        self.confirm_range(file, end..copied.end)?;
        let last = feed.last_start().max(copied.start);
        if last < end {
            self.confirm_range(file, last..end.min(last + CONFIRM_LEN))?;
        }
        Ok(())
    }

    fn confirm_range(&self, file: &File, range: Range<u64>) -> Result<(), Stop> {
        let theirs = self.master.confirm(range.clone());
        let ours =
            Digest::of_file(file, range).map_err(Stop::io("read back", self.slave.place.data()))?;
        if ours.is_none() || ours != theirs.wait()? {
            return Err(self.changed("its last transactions are others than were read"));
        }
        Ok(())
    }

    /// Notes in the sidecar what the slave is now.
    fn leave(
        &self,
        survey: &Survey,
        file: &File,
        position: u64,
        last_tid: Option<Tid>,
        sidecar: &mut Sidecar,
    ) -> Result<(), Stop> {
        let slave = Mark::of(file, position, last_tid)
            .map_err(Stop::io("read back", self.slave.place.data()))?;
        sidecar.scanned = None;
        sidecar.left = Some(Left {
            master: survey.sight.identity.clone(),
            slave,
        });
        sidecar.store(&self.slave.place)
    }

    fn damaged(&self, damage: MasterDamage) -> Stop {
        Stop::MasterDamaged {
            master: self.master.name().to_owned(),
            damage,
        }
    }

    fn changed(&self, what: &'static str) -> Stop {
        Stop::MasterChanged {
            master: self.master.name().to_owned(),
            what,
        }
    }
}

fn note(copied: &mut Copied, feed: &Feed<'_>, from: u64) {
    *copied = Copied {
        position: Some(feed.position()),
        last_tid: feed.last_tid(),
        transactions: feed.transactions(),
        bytes: feed.position() - from,
    };
}
