//! Shows the progress of long operations: a bar on a terminal, or lines elsewhere if
//! `--progress=always` is given.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fssync::human::bytes;
use fssync::io::progress::{Monitor, Silent};
use fssync::io::rate::TransferRate;
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::args::ProgressMode;
use super::storage::Output;
use super::terminal;

/// How long an operation may take before its progress is shown.
const SHOW_AFTER: Duration = Duration::from_millis(300);

/// How often a line is printed without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The minimum width of a terminal for a bar, in columns.
const BAR_WIDTH: u16 = 100;

const WITH_BAR: &str = "{msg} [{bar:30}] {done}/{total}{prefix}";

const WITHOUT_BAR: &str = "{wide_msg} {percent:>3}%{prefix}";

/// A monitor that shows progress as the arguments choose.
pub(crate) fn monitor(output: Output) -> Box<dyn Monitor> {
    let started = Instant::now();
    let bar = || Bar {
        started,
        shown: Mutex::default(),
    };
    match (output.progress, terminal::moves_cursor(&io::stderr())) {
        (ProgressMode::Auto, true) if !output.quiet => Box::new(bar()),
        (ProgressMode::Always, true) => Box::new(bar()),
        (ProgressMode::Always, false) => Box::new(Lines {
            shown: Mutex::new((None, started)),
        }),
        _ => Box::new(Silent),
    }
}

/// The current activity, and where and when it began.
struct ActivityStart {
    activity: &'static str,
    from: u64,
    since: Instant,
}

impl ActivityStart {
    /// Updates the current activity, or begins another one, and returns the pace. `done` bytes
    /// are complete; at the begin, they are of an earlier, interrupted copy.
    fn update(
        activity_start: &mut Option<Self>,
        activity: &'static str,
        done: u64,
        total: u64,
    ) -> Option<TransferRate> {
        match activity_start {
            Some(activity_start)
                if activity_start.activity == activity && activity_start.from <= done =>
            {
                let rest = total.saturating_sub(done);
                TransferRate::of(
                    done - activity_start.from,
                    rest,
                    activity_start.since.elapsed(),
                )
            }
            _ => {
                *activity_start = Some(Self {
                    activity,
                    from: done,
                    since: Instant::now(),
                });
                None
            }
        }
    }
}

struct Bar {
    started: Instant,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    activity_start: Option<ActivityStart>,
    bar: Option<(&'static str, ProgressBar)>,
    has_room: bool,
}

impl Monitor for Bar {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = ActivityStart::update(&mut shown.activity_start, activity, done, total);
        if self.started.elapsed() < SHOW_AFTER {
            return;
        }
        if !matches!(&shown.bar, Some((doing, _)) if *doing == activity) {
            let bar = ProgressBar::new(total).with_message(activity);
            shown.has_room = terminal::width(io::stderr()) >= BAR_WIDTH;
            let template = if shown.has_room {
                WITH_BAR
            } else {
                WITHOUT_BAR
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(
                    style
                        .with_key("done", write_done)
                        .with_key("total", write_total),
                );
            }
            shown.bar = Some((activity, bar));
        }
        if let Some((_, bar)) = &shown.bar {
            bar.set_length(total);
            bar.set_prefix(rate.map_or_else(String::new, |rate| {
                let left = HumanDuration(rate.remaining);
                if shown.has_room {
                    format!(" {}/s, {left:#} left", bytes(rate.bytes_per_second))
                } else {
                    format!(", {left:#} left")
                }
            }));
            bar.set_position(done);
        }
    }
}

/// Writes how many bytes are done, as all sizes are written.
fn write_done(state: &ProgressState, to: &mut dyn fmt::Write) {
    let _ = to.write_str(&bytes(state.pos()));
}

/// Writes the number of all bytes.
fn write_total(state: &ProgressState, to: &mut dyn fmt::Write) {
    let _ = to.write_str(&bytes(state.len().unwrap_or_default()));
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Ok(Shown {
            bar: Some((_, bar)),
            ..
        }) = self.shown.get_mut()
        {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line from time to time. Contains the activity and the time of the last line.
struct Lines {
    shown: Mutex<(Option<ActivityStart>, Instant)>,
}

impl Monitor for Lines {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (activity_start, last) = &mut *shown;
        let rate = ActivityStart::update(activity_start, activity, done, total);
        if last.elapsed() < LINE_EVERY && done < total {
            return;
        }
        *last = Instant::now();
        let rate = rate.map_or_else(String::new, |rate| {
            let left = HumanDuration(rate.remaining);
            format!(", {}/s, {left} left", bytes(rate.bytes_per_second))
        });
        // fssync does not fail if nobody reads it.
        let _ = writeln!(
            io::stderr(),
            "{activity}: {} of {}{rate}",
            bytes(done),
            bytes(total),
        );
    }
}
