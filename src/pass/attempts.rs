//! Attempts a pass again if a file changed meanwhile.

use jiff::Timestamp;

use super::apply::Apply;
use super::blobs::{BlobMode, BlobWork};
use super::start::{check_first_pass, interruption};
use super::survey::Survey;
use super::{Job, blobs, surroundings};
use crate::blobs::{absent, catch_up, digests};
use crate::error::Error;
use crate::error::retry::Retry;
use crate::filestorage::{MAGIC_LEN, Magic};
use crate::io::flock;
use crate::io::progress::Monitor;
use crate::plan::outcome::Copied;
use crate::plan::{OldSlave, Plan, PlannedAction, Policy};
use crate::slave::blobs::Leftovers;
use crate::slave::paths::Sibling;
use crate::slave::replace;
use crate::slave::sidecar::Sidecar;
use crate::slave::step::Slave;
use crate::source::{FileSystem, Master};
use crate::upkeep;

/// A pass and all its attempts.
pub(super) struct Attempts<'a> {
    pub(super) job: &'a Job,
    pub(super) monitor: &'a dyn Monitor,
    pub(super) sidecar: Sidecar,
    pub(super) copied: Copied,
    pub(super) retry: Retry,
    /// Whether the checks of a first pass were made, or are not due.
    pub(super) is_checked: bool,
    /// Whether the master's surroundings were read.
    pub(super) has_checked_surroundings: bool,
    /// The options that affect the decisions. After a rewind, the rest is that of a usual pass.
    pub(super) policy: Policy,
    /// When the last survey began.
    pub(super) surveyed_at: Option<Timestamp>,
    /// The master's file system.
    pub(super) file_system: Option<FileSystem>,
    /// The blobs, if the pass copies them.
    pub(super) blobs: BlobWork,
    /// The last plan, even if it could not be carried out.
    pub(super) plan: Option<Plan>,
}

impl Attempts<'_> {
    pub(super) fn run_with_retries(&mut self) -> Result<Plan, Error> {
        loop {
            match self.attempt() {
                // A switch ended a wait for the master: start over, unless syncing is still off.
                Err(Error::Interrupted) => {
                    let cause = interruption(&self.job.slave)?;
                    self.retry.wait_after(cause)?;
                }
                Err(error) => self.retry.wait_if_transient(error)?,
                done => return done,
            }
        }
    }

    fn attempt(&mut self) -> Result<Plan, Error> {
        let Self { job, monitor, .. } = *self;
        let slave = &job.slave;
        if !self.is_checked {
            check_first_pass(job, &self.sidecar)?;
            self.is_checked = true;
        }
        blobs::check_is_decided(job, &self.sidecar)?;
        self.surveyed_at = Some(Timestamp::now());
        let mut survey = Survey::make(slave, &job.master, &self.sidecar, monitor)?;
        self.retry.master_answered();
        self.file_system = Some(survey.master_stat.file_system);
        if survey.coherent_up_to.is_some() {
            self.sidecar.coherent_up_to = survey.coherent_up_to;
        }
        if !survey.has_continuity() {
            // The index may belong to a file that somebody has replaced.
            self.sidecar.index = None;
        }
        self.copied.position = survey.position;
        self.copied.last_tid = survey.last_tid;
        let plan = survey.decide(self.policy, slave, &job.master, monitor)?;
        tracing::debug!("plan: {plan:?}");
        self.check_surroundings(&survey);
        self.plan = Some(plan);
        if is_first_copy(&plan) && !job.dry_run && blobs::check(job, &self.sidecar, &survey)? {
            // Without a Data.fs, a ZEO that is started too early would empty the blob directory,
            // and remove the id that the sidecar then contains.
            install_magic(slave, &job.master, &survey)?;
            return self.attempt();
        }
        self.blobs.open = blobs::open(job, &mut self.sidecar, &survey)?;
        if self.blobs.must_recheck
            && let Some(state) = &mut self.sidecar.blobs
        {
            state.recheck();
            self.blobs.must_recheck = false;
        }
        let apply = Apply {
            slave,
            master: &job.master,
            blobs: self.blobs.open.as_ref(),
            declines_blobs: job.blobs == BlobMode::Off,
            policy: self.policy,
            tuning: job.tuning,
            monitor,
        };
        let mut copied = Copied::default();
        let result = if job.dry_run {
            check_not_in_use(slave, &plan)
                .and_then(|()| slave.paths.check_is_writable())
                .and_then(|()| apply.dry_run(&plan, &survey, &mut copied))
                .inspect(|()| {
                    if !matches!(job.blobs, BlobMode::On(_)) {
                        copied.blobs = 0;
                    }
                })
        } else {
            apply
                .run(&plan, &mut survey, &mut self.sidecar, &mut copied)
                .and_then(|()| match plan.action {
                    PlannedAction::Rewind(_) => Ok(()),
                    _ => self.catch_up_on_blobs(&survey, &mut copied),
                })
        };
        self.copied.add(copied);
        if let (Ok(()), PlannedAction::Rewind(_), false) = (&result, plan.action, job.dry_run) {
            // The slave is a prefix of the master now, as the sidecar describes it.
            self.policy = Policy::default();
            return self.attempt();
        }
        result.map(|()| plan)
    }

    /// Fetches blobs of transactions that were copied without them, for a limited time.
    fn catch_up_on_blobs(&mut self, survey: &Survey, copied: &mut Copied) -> Result<(), Error> {
        let Self { job, monitor, .. } = *self;
        let Some(open) = &self.blobs.open else {
            return Ok(());
        };
        let ends = open.ends(&job.slave, &job.master, &survey.master_stat);
        let budget = job.budget(catch_up::PASS_BUDGET, catch_up::WATCH_BUDGET);
        let digest_budget = job.budget(digests::PASS_BUDGET, digests::WATCH_BUDGET);
        let is_unproven = open.is_unproven;
        let before = blobs::complete(&self.sidecar);
        let fetched = catch_up::catch_up(ends, &mut self.sidecar, is_unproven, budget, monitor)?;
        // Without progress, the next pass would fail to make any, too.
        self.blobs.are_due =
            blobs::are_due(&self.sidecar) && blobs::complete(&self.sidecar) > before;
        let found = absent::ask_again(ends, &mut self.sidecar, monitor)?;
        let asked = digests::complete(ends, &mut self.sidecar, digest_budget, monitor);
        upkeep::report_blob_digests(asked);
        copied.blobs += fetched.received.files + found.received.files;
        copied.blob_bytes += fetched.received.bytes + found.received.bytes;
        copied.blobs_absent += fetched.absent;
        if copied.blobs > 0 && !blobs::are_due(&self.sidecar) {
            // Parts that an earlier pass kept belong to blobs that nobody refers to any more.
            open.directory.clean_tmp(&job.slave, Leftovers::All)?;
        }
        Ok(())
    }

    /// Reads the surroundings of the master, and warns of problems there, if it is another file
    /// than at the last pass, or with `--full`.
    fn check_surroundings(&mut self, survey: &Survey) {
        let left = self.sidecar.last_sync.as_ref();
        let is_known = left.is_some_and(|left| left.master == survey.master_stat.identity);
        if self.has_checked_surroundings || (is_known && !self.job.policy.full) {
            return;
        }
        self.has_checked_surroundings = true;
        let Self { job, monitor, .. } = *self;
        surroundings::report(&job.slave, &job.master, &mut self.sidecar.reported, monitor);
    }
}

/// Whether there is no slave yet.
fn is_first_copy(plan: &Plan) -> bool {
    matches!(plan.action, PlannedAction::FullCopy(copy) if copy.old == OldSlave::None)
}

/// Puts a slave without transactions in place, before the blob directory is set up.
fn install_magic(slave: &Slave, master: &Master, survey: &Survey) -> Result<(), Error> {
    let magic = master.read(MAGIC_LEN as usize, 0).wait()?;
    let Some(magic) = magic
        .first_chunk()
        .filter(|it| Magic::decode(*it).is_some())
    else {
        return Err(Error::MasterChanged {
            master: master.name().to_owned(),
            what: "it is no longer a FileStorage",
        });
    };
    replace::install_empty(slave, survey.seen, magic, survey.master_stat.mode)
}

/// Fails in a dry run if another program has opened the slave, as the first write of the pass
/// would.
fn check_not_in_use(slave: &Slave, plan: &Plan) -> Result<(), Error> {
    match flock::holder(&slave.paths.sibling(Sibling::ZodbLock)) {
        pid @ Some(_) if plan.action != PlannedAction::Nothing => Err(Error::InUse {
            slave: slave.paths.data().to_owned(),
            pid,
        }),
        _ => Ok(()),
    }
}
