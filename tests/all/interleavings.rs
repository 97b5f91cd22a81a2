//! Two of everything on one slave, interleaved call by call.
//!
//! Real processes stop behind each of their system calls that concern the slave
//! ([`process`]); a schedule ([`schedule`]) says who goes on when, and what came of it is
//! checked ([`checks`]). In the schedules with one preemption, one of the processes makes
//! its first calls, then the others go to their ends, then it goes on. Random ones have
//! two to five turns.
//!
//! Each test makes a share of the schedules, the same at each run. All those with one
//! preemption, and as many random ones as are named:
//!
//! ```sh
//! FSSYNC_INTERLEAVINGS=200 cargo test --test all -- interleavings:: --nocapture
//! ```
//!
//! `FSSYNC_INTERLEAVINGS_SEED` has others chosen. What fails says its schedule, such as
//! `a12 b3`; `FSSYNC_INTERLEAVINGS_ONLY='a12 b3'` makes the test of that name play it alone.

mod call;
mod checks;
mod mistakes;
pub mod process;
mod schedule;
mod scheduler;
mod steps;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use self::checks::{Checks, SlaveState};
use self::process::Process;
use self::schedule::Schedule;
use self::scheduler::{Scheduler, listing};
use crate::calls::trace::Stage;
use crate::crash::actor::{Actor, Race, Session};
use crate::crash::scenario;
use crate::rng::Rng;
use crate::support::Zodb;
use crate::support::number;

/// How many schedules of either kind a test has, unless it is said.
const SHARE: usize = 3;

/// Where plays are ran and checked.
struct Harness {
    zodb: Zodb,
    actor_zodb: Arc<Mutex<Zodb>>,
}

impl Harness {
    fn open() -> Self {
        Self {
            zodb: Zodb::start(),
            actor_zodb: Arc::new(Mutex::new(Zodb::start())),
        }
    }

    /// Plays by a schedule and checks; returns how many calls each process has made.
    fn run(&mut self, race: &Race<'_>, schedule: &Schedule) -> Vec<usize> {
        let mut stage = Stage::set(race.scenario, &mut self.zodb);
        let is_zodb = |actor: &Actor| matches!(actor.stands_for(), Actor::Zodb(..));
        stage.before.may_be_empty = race.actors.iter().any(is_zodb);
        let mut files = stage.files();
        files.extend([".fssync-switch", ".index.index_tmp"].map(|it| stage.scene.beside(it)));
        let start = |(who, actor): (usize, &Actor)| {
            let output = stage.scene.directory.path().join(format!("said-{who}"));
            let task = actor.task(&stage, &self.actor_zodb);
            (Process::new(task, &files, output), actor.behind())
        };
        let processes = race.actors.iter().enumerate().map(start).collect();
        let mut scheduler = Scheduler::new(processes, || SlaveState::now(&stage.scene));
        let ran = catch_unwind(AssertUnwindSafe(|| scheduler.run(schedule)));
        let events = listing(&scheduler.events);
        let checked = ran.and_then(|()| {
            let trace = scheduler.trace();
            let mut checks = Checks {
                race,
                stage: &stage,
                trace: &trace,
                zodb: &mut self.zodb,
                actor_zodb: &self.actor_zodb,
            };
            catch_unwind(AssertUnwindSafe(|| checks.check())).map(|()| trace.lens)
        });
        checked.unwrap_or_else(|panic| {
            eprintln!("{events}{:?} by the schedule '{schedule}'", race.actors);
            resume_unwind(panic)
        })
    }
}

/// Plays by a share of the schedules, or all, or one.
fn run(name: &str, race: &Race<'_>) {
    let mut harness = Harness::open();
    if let Ok(only) = env::var("FSSYNC_INTERLEAVINGS_ONLY") {
        harness.run(race, &only.parse().expect("a schedule"));
        return;
    }
    let mut lens = vec![0; race.actors.len()];
    let mut schedules = 0;
    // One after the other, in each order.
    for who in 0..lens.len() {
        let made = harness.run(race, &Schedule::of_one(who, 0));
        lens = lens.iter().zip(made).map(|(a, b)| b.max(*a)).collect();
        schedules += 1;
    }
    assert!(lens.iter().all(|&len| len > 2), "they stop: {lens:?}");
    let seed = number("FSSYNC_INTERLEAVINGS_SEED").unwrap_or(1) as u64;
    let mut rng = Rng::new(seed);
    let wanted = number("FSSYNC_INTERLEAVINGS");
    let ones = lens.iter().enumerate().flat_map(|(who, &len)| {
        let chosen: Vec<usize> = match wanted {
            Some(_) => (1..=len).collect(),
            None => (0..SHARE).map(|_| 1 + rng.below(len)).collect(),
        };
        chosen
            .into_iter()
            .map(move |calls| Schedule::of_one(who, calls))
    });
    let ones: Vec<Schedule> = ones.collect();
    let random = (0..wanted.unwrap_or(SHARE)).map(|_| Schedule::random(&mut rng, &lens));
    for schedule in ones.into_iter().chain(random) {
        harness.run(race, &schedule);
        schedules += 1;
    }
    println!("{name}: {schedules} schedules, of {lens:?} calls");
}

use crate::crash::actor::Actor::{Echo, Off, On, Status, Verify, Watch};
use crate::crash::actor::Session::{CommitAndClose, CommitAndStay, OpenAndClose, StayOpen};

const PASS: Actor = Actor::Pass(&[]);
const FULL: Actor = Actor::Pass(&["--full"]);
const BATCHES: Actor = Actor::PassInBatches;

/// ZODB beside a pass.
const fn zodb(session: Session) -> Actor {
    Actor::Zodb(session, None)
}

/// ZODB that begins when one of the cast has ended.
const fn zodb_behind(before: usize) -> Actor {
    Actor::Zodb(Session::CommitAndStay, Some(before))
}

macro_rules! races {
    ($($scenario:ident as $module:ident { $($name:ident: [$($actor:expr),+];)+ })+) => { $(
        mod $module {
            use super::*;

            $(
                #[test]
                fn $name() {
                    let race = Race { scenario: &scenario::$scenario, actors: &[$($actor),+] };
                    super::run(concat!(stringify!($module), "::", stringify!($name)), &race);
                }
            )+
        }
    )+ };
}

races! {
    APPEND as an_append {
        and_a_pass: [PASS, PASS];
        and_a_full_copy: [PASS, FULL];
        and_a_watch: [PASS, Watch];
        and_off: [PASS, Off];
        in_batches_and_off: [BATCHES, Off];
        of_a_watch_and_a_watch: [Watch, Watch];
        of_a_watch_and_off: [Watch, Off];
        of_a_watch_and_a_zodb_that_commits_and_goes: [Watch, zodb(CommitAndClose)];
        in_batches_and_off_and_on_behind_it: [BATCHES, Off, On(Some(1))];
        and_an_echo: [PASS, Echo];
        in_batches_and_an_echo: [BATCHES, Echo];
        and_a_zodb_that_looks: [PASS, zodb(OpenAndClose)];
        in_batches_and_one_without_the_pass_lock: [BATCHES, Actor::PassWithoutLock];
        in_batches_and_a_zodb_that_looks: [BATCHES, zodb(OpenAndClose)];
        and_a_zodb_that_stays: [PASS, zodb(StayOpen)];
        in_batches_and_a_zodb_that_serves: [BATCHES, zodb(CommitAndStay)];
        in_batches_and_a_zodb_that_commits_and_goes: [BATCHES, zodb(CommitAndClose)];
        and_verify: [BATCHES, Verify];
        and_status: [BATCHES, Status];
        and_off_and_a_zodb_behind_it: [BATCHES, Off, zodb_behind(1)];
        and_an_echo_and_a_zodb_behind_it: [BATCHES, Echo, zodb_behind(1)];
    }
    APPEND_BEHIND_A_FOREIGN_TAIL as a_foreign_tail {
        and_a_zodb_that_looks: [PASS, zodb(OpenAndClose)];
    }
    FULL_COPY_AND_SET_ASIDE as a_full_copy {
        and_a_pass: [PASS, PASS];
        and_a_full_copy: [PASS, FULL];
        and_a_watch: [PASS, Watch];
        and_off: [PASS, Off];
        and_an_echo: [PASS, Echo];
        and_a_zodb_that_looks: [PASS, zodb(OpenAndClose)];
        and_a_zodb_that_stays: [PASS, zodb(StayOpen)];
        and_a_zodb_that_serves: [PASS, zodb(CommitAndStay)];
        and_a_zodb_that_commits_and_goes: [PASS, zodb(CommitAndClose)];
        and_verify: [PASS, Verify];
        and_status: [PASS, Status];
        and_off_and_a_zodb_behind_it: [PASS, Off, zodb_behind(1)];
    }
    FIRST_COPY as a_first_copy {
        and_a_pass: [PASS, PASS];
        and_off: [PASS, Off];
        and_a_zodb_that_serves: [PASS, zodb(CommitAndStay)];
    }
    APPEND_BEHIND_OUR_OWN_TAIL as an_unfinished_tail {
        and_off_and_off: [Off, Off];
        and_off_and_on: [Off, On(None)];
        and_off_and_zodb: [Off, zodb(CommitAndStay)];
        and_a_pass_and_off: [PASS, Off];
        and_a_pass_and_a_zodb_that_looks: [PASS, zodb(OpenAndClose)];
        and_two_offs_and_a_zodb_behind_the_first: [Off, Off, zodb_behind(0)];
        and_status_and_zodb: [Status, zodb(CommitAndStay)];
        and_verify_and_zodb: [Verify, zodb(CommitAndStay)];
    }
}
