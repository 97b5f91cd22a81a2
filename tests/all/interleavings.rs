//! Several processes on one slave, interleaved call by call.
//!
//! Real processes stop after each system call that they make on the slave's files ([`process`]).
//! A [`schedule`] decides which one continues, and the [`scheduler`] carries it out. Then the
//! result is checked ([`checks`]), and every single call ([`steps`]). In some schedules one
//! process is preempted once: it makes its first calls, the others run to their ends, and then
//! it continues. Random schedules have two to five turns.
//!
//! Each test makes a fixed sample of the schedules, the same in each run. All schedules with one
//! preemption, and 200 random ones:
//!
//! ```sh
//! FSSYNC_INTERLEAVINGS=200 cargo test --test all -- interleavings:: --nocapture
//! ```
//!
//! `FSSYNC_INTERLEAVINGS_SEED` selects others. A failing test prints its schedule, such as `a12
//! b3`; `FSSYNC_INTERLEAVINGS_ONLY='a12 b3'` runs only this one.

mod call;
mod checks;
mod mistakes;
mod process;
mod schedule;
mod scheduler;
mod steps;

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use self::checks::{Checks, ObservedSlave};
use self::process::{Process, Task};
use self::schedule::Schedule;
use self::scheduler::{Scheduler, Start, list};
use crate::calls::trace::slave_files;
use crate::crash::actor::{Actor, Batches, Session, journal_of_session};
use crate::crash::oracle::Case;
use crate::crash::scenario::{self, Scenario};
use crate::rng::Rng;
use crate::support::{BlobHistory, Zodb, number};

/// How many schedules of either kind a test has, unless `FSSYNC_INTERLEAVINGS` is set.
const SAMPLE: usize = 3;

/// The same with blobs, which ZODB loads after each schedule.
const SAMPLE_WITH_BLOBS: usize = 2;

/// Actors that work on one slave at the same time.
struct Race<'a> {
    scenario: &'static Scenario,
    actors: &'a [Entrant],
}

/// An actor of a race.
#[derive(Clone, Copy, Debug)]
struct Entrant {
    actor: Actor,
    /// The number of the actor that must have ended before this one starts.
    after: Option<usize>,
}

impl Entrant {
    const fn new(actor: Actor) -> Self {
        let after = None;
        Self { actor, after }
    }

    const fn after(self, other: usize) -> Self {
        let after = Some(other);
        Self { after, ..self }
    }
}

/// Runs races.
struct Harness {
    /// For the checks.
    zodb: Zodb,
    /// For the actor that is ZODB.
    actor_zodb: Arc<Mutex<Zodb>>,
}

impl Harness {
    fn start() -> Self {
        Self {
            zodb: Zodb::start(),
            actor_zodb: Arc::new(Mutex::new(Zodb::start())),
        }
    }

    /// Runs a race by a schedule and checks the result. Returns the number of calls of each
    /// process.
    fn run(&mut self, race: &Race<'_>, schedule: &Schedule) -> Vec<usize> {
        let mut case = Case::prepare(race.scenario, &mut self.zodb);
        let is_zodb = |it: &Entrant| matches!(it.actor.stands_for(), Actor::Zodb(_));
        case.before.may_be_empty |= race.actors.iter().any(is_zodb);
        if race.scenario.has_blobs {
            // ZODB adds the blobs that it commits.
            fs::copy(
                BlobHistory::get().journal(),
                journal_of_session(&case.scene),
            )
            .expect("a copy of the journal");
        }
        let mut files = slave_files(&case.scene);
        files.push(case.scene.beside(".index.index_tmp"));
        let start = |(who, entrant): (usize, &Entrant)| {
            let output = case.scene.directory.path().join(format!("output-{who}"));
            let task = Task::of(entrant.actor, &case.scene, &self.actor_zodb);
            Start {
                process: Process::new(task, &files, output),
                after: entrant.after,
            }
        };
        let starts = race.actors.iter().enumerate().map(start).collect();
        let mut scheduler = Scheduler::new(starts, || ObservedSlave::now(&case.scene));
        let ran = catch_unwind(AssertUnwindSafe(|| scheduler.run(schedule)));
        let events = list(&scheduler.events);
        let checked = ran.and_then(|()| {
            let trace = scheduler.trace();
            let mut checks = Checks {
                race,
                case: &case,
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

/// Runs a race by a sample of the schedules, or all, or one.
fn run(name: &str, race: &Race<'_>) {
    let mut harness = Harness::start();
    if let Ok(only) = env::var("FSSYNC_INTERLEAVINGS_ONLY") {
        harness.run(race, &only.parse().expect("a schedule"));
        return;
    }
    let mut lens = vec![0; race.actors.len()];
    let mut schedules = 0;
    // One process after the other, in each order.
    for who in 0..lens.len() {
        let made = harness.run(race, &Schedule::of_one(who, 0));
        lens = lens.iter().zip(made).map(|(a, b)| b.max(*a)).collect();
        schedules += 1;
    }
    assert!(lens.iter().all(|&len| len > 2), "they stop: {lens:?}");
    let seed = number("FSSYNC_INTERLEAVINGS_SEED").unwrap_or(1) as u64;
    let mut rng = Rng::new(seed);
    let wanted = number("FSSYNC_INTERLEAVINGS");
    let sample = if race.scenario.has_blobs {
        SAMPLE_WITH_BLOBS
    } else {
        SAMPLE
    };
    let preempted = lens.iter().enumerate().flat_map(|(who, &len)| {
        let chosen: Vec<usize> = match wanted {
            Some(_) => (1..=len).collect(),
            None => (0..sample).map(|_| 1 + rng.below(len)).collect(),
        };
        chosen
            .into_iter()
            .map(move |calls| Schedule::of_one(who, calls))
    });
    let preempted: Vec<Schedule> = preempted.collect();
    let random = (0..wanted.unwrap_or(sample)).map(|_| Schedule::random(&mut rng, &lens));
    for schedule in preempted.into_iter().chain(random) {
        harness.run(race, &schedule);
        schedules += 1;
    }
    println!("{name}: {schedules} schedules, of {lens:?} calls");
}

const PASS: Entrant = Entrant::new(Actor::Pass(&[]));
const WHOLE: Entrant = Entrant::new(Actor::Pass(&["--whole"]));
/// A pass that rewinds the slave.
const REWINDS: Entrant = Entrant::new(scenario::REWIND.actor);
/// A pass that also removes the blobs to which the log does not refer.
const REMOVES: Entrant = Entrant::new(scenario::REMOVAL_OF_BLOBS.actor);
const BATCHES: Entrant = Entrant::new(Actor::PassInBatches(Batches::SMALL));
const WITHOUT_LOCK: Entrant = Entrant::new(Actor::PassWithoutLock);
const WATCH: Entrant = Entrant::new(Actor::Watch);
const OFF: Entrant = Entrant::new(Actor::Off);
const ON: Entrant = Entrant::new(Actor::On);
const ECHO: Entrant = Entrant::new(Actor::Echo);
const VERIFY: Entrant = Entrant::new(Actor::Verify);
const STATUS: Entrant = Entrant::new(Actor::Status);
/// ZODB opens the slave and closes it.
const OPENS: Entrant = Entrant::new(Actor::Zodb(Session::OpenAndClose));
/// ZODB opens the slave and keeps it open.
const STAYS: Entrant = Entrant::new(Actor::Zodb(Session::StayOpen));
/// ZODB opens the slave, commits to it and keeps it open.
const SERVES: Entrant = Entrant::new(Actor::Zodb(Session::CommitAndStay));
/// ZODB opens the slave, commits to it and closes it.
const COMMITS: Entrant = Entrant::new(Actor::Zodb(Session::CommitAndClose));

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
        and_a_full_copy: [PASS, WHOLE];
        and_a_watch: [PASS, WATCH];
        and_off: [PASS, OFF];
        in_batches_and_off: [BATCHES, OFF];
        of_a_watch_and_a_watch: [WATCH, WATCH];
        of_a_watch_and_off: [WATCH, OFF];
        of_a_watch_and_a_zodb_that_commits_and_closes: [WATCH, COMMITS];
        in_batches_and_off_and_then_on: [BATCHES, OFF, ON.after(1)];
        and_an_echo: [PASS, ECHO];
        in_batches_and_an_echo: [BATCHES, ECHO];
        and_a_zodb_that_opens_and_closes: [PASS, OPENS];
        in_batches_and_one_without_the_pass_lock: [BATCHES, WITHOUT_LOCK];
        in_batches_and_a_zodb_that_opens_and_closes: [BATCHES, OPENS];
        and_a_zodb_that_stays: [PASS, STAYS];
        in_batches_and_a_zodb_that_serves: [BATCHES, SERVES];
        in_batches_and_a_zodb_that_commits_and_closes: [BATCHES, COMMITS];
        and_verify: [BATCHES, VERIFY];
        and_status: [BATCHES, STATUS];
        and_off_and_then_zodb: [BATCHES, OFF, SERVES.after(1)];
        and_an_echo_and_then_zodb: [BATCHES, ECHO, SERVES.after(1)];
    }
    APPEND_AFTER_A_FOREIGN_TAIL as a_foreign_tail {
        and_a_zodb_that_opens_and_closes: [PASS, OPENS];
        and_a_pass: [PASS, PASS];
    }
    FULL_COPY_AND_SET_ASIDE as a_full_copy {
        and_a_pass: [PASS, PASS];
        and_a_full_copy: [PASS, WHOLE];
        and_a_watch: [PASS, WATCH];
        and_off: [PASS, OFF];
        and_an_echo: [PASS, ECHO];
        and_a_zodb_that_opens_and_closes: [PASS, OPENS];
        and_a_zodb_that_stays: [PASS, STAYS];
        and_a_zodb_that_serves: [PASS, SERVES];
        and_a_zodb_that_commits_and_closes: [PASS, COMMITS];
        and_verify: [PASS, VERIFY];
        and_status: [PASS, STATUS];
        and_off_and_then_zodb: [PASS, OFF, SERVES.after(1)];
    }
    REWIND as a_rewind {
        and_a_rewind: [REWINDS, REWINDS];
        and_off: [REWINDS, OFF];
        and_an_echo: [REWINDS, ECHO];
        and_a_zodb_that_opens_and_closes: [REWINDS, OPENS];
        and_a_zodb_that_stays: [REWINDS, STAYS];
        and_verify: [REWINDS, VERIFY];
        and_status: [REWINDS, STATUS];
        and_off_and_then_zodb: [REWINDS, OFF, SERVES.after(1)];
    }
    FIRST_COPY as a_first_copy {
        and_a_pass: [PASS, PASS];
        and_off: [PASS, OFF];
        and_a_zodb_that_serves: [PASS, SERVES];
    }
    SEED as a_slave_seeded_by_hand {
        and_a_pass: [PASS, PASS];
        and_off: [PASS, OFF];
    }
    APPEND_AFTER_OUR_OWN_TAIL as an_unfinished_tail {
        and_off_and_off: [OFF, OFF];
        and_off_and_on: [OFF, ON];
        and_off_and_zodb: [OFF, SERVES];
        and_a_pass_and_off: [PASS, OFF];
        and_a_pass_and_a_zodb_that_opens_and_closes: [PASS, OPENS];
        and_two_offs_and_zodb_after_the_first: [OFF, OFF, SERVES.after(0)];
        and_status_and_zodb: [STATUS, SERVES];
        and_verify_and_zodb: [VERIFY, SERVES];
    }
    APPEND_WITH_BLOBS as an_append_with_blobs {
        and_a_pass: [PASS, PASS];
        and_off: [PASS, OFF];
        and_off_and_then_zodb: [PASS, OFF, SERVES.after(1)];
        and_a_zodb_that_opens_and_closes: [PASS, OPENS];
        and_a_zodb_that_stays: [PASS, STAYS];
        and_a_zodb_that_commits_and_closes: [PASS, COMMITS];
    }
    FIRST_COPY_WITH_BLOBS as a_first_copy_with_blobs {
        and_a_pass: [PASS, PASS];
        and_off: [PASS, OFF];
        and_off_and_then_zodb: [PASS, OFF, SERVES.after(1)];
        and_a_zodb_that_opens_and_closes: [PASS, OPENS];
        and_a_zodb_that_serves: [PASS, SERVES];
    }
    FULL_COPY_WITH_BLOBS_AND_SET_ASIDE as a_full_copy_with_blobs {
        and_a_pass: [PASS, PASS];
        and_off: [PASS, OFF];
        and_off_and_then_zodb: [PASS, OFF, SERVES.after(1)];
        and_a_zodb_that_opens_and_closes: [PASS, OPENS];
        and_a_zodb_that_stays: [PASS, STAYS];
        and_a_zodb_that_commits_and_closes: [PASS, COMMITS];
    }
    REMOVAL_OF_BLOBS as a_removal_of_blobs {
        and_a_pass: [REMOVES, PASS];
        and_off: [REMOVES, OFF];
        and_a_zodb_that_stays: [REMOVES, STAYS];
        and_a_zodb_that_commits_and_closes: [REMOVES, COMMITS];
    }
    INDEX_UPDATE as an_index_update {
        and_a_pass: [PASS, PASS];
        and_off: [PASS, OFF];
        and_a_zodb_that_serves: [PASS, SERVES];
    }
}
