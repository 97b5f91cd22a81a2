//! Progress, for what takes long: a bar on a terminal, lines elsewhere if they
//! are asked for.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fssync::monitor::{Monitor, Silent};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

use super::args::{Common, Telling, When};
use super::terminal;

/// How long a pass may take before it is worth showing.
const SHOW_AFTER: Duration = Duration::from_millis(300);

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What a terminal shows, and from which width on, in columns; the widest fitting one is
/// taken.
const TEMPLATES: [(u16, &str); 2] = [
    (
        100,
        "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
    ),
    (0, "{wide_msg} {percent:>3}%, {eta} left"),
];

/// What shows the progress of what takes long.
pub(crate) fn monitor(telling: &Telling, common: &Common) -> Box<dyn Monitor> {
    let started = Instant::now();
    match (telling.progress, terminal::moves_cursor(&io::stderr())) {
        (When::Auto, true) if !common.quiet => Box::new(Bar {
            started,
            shown: Mutex::new(None),
        }),
        (When::Always, true) => Box::new(Bar {
            started,
            shown: Mutex::new(None),
        }),
        (When::Always, false) => Box::new(Lines {
            started,
            last: Mutex::new(started),
        }),
        _ => Box::new(Silent),
    }
}

struct Bar {
    started: Instant,
    shown: Mutex<Option<(&'static str, ProgressBar)>>,
}

impl Monitor for Bar {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        if self.started.elapsed() < SHOW_AFTER {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*shown, Some((doing, _)) if *doing == activity) {
            let bar = ProgressBar::new(total).with_message(activity);
            let width = terminal::width(io::stderr());
            let fitting = TEMPLATES.iter().find(|(least, _)| width >= *least);
            let template = fitting.map_or("{msg}", |(_, template)| template);
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            *shown = Some((activity, bar));
        }
        if let Some((_, bar)) = &*shown {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Ok(Some((_, bar))) = self.shown.get_mut() {
            bar.finish_and_clear();
        }
    }
}

struct Lines {
    started: Instant,
    last: Mutex<Instant>,
}

impl Monitor for Lines {
    fn progress(&self, activity: &'static str, done: u64, total: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < LINE_EVERY && done < total {
            return;
        }
        *last = Instant::now();
        let elapsed = self.started.elapsed();
        let rate = u128::from(done) * 1000 / elapsed.as_millis().max(1);
        let left = u128::from(total.saturating_sub(done)) / rate.max(1);
        // Nothing depends on whether anybody reads it.
        let _ = writeln!(
            io::stderr(),
            "{activity}: {} of {}, {}/s, {} left",
            HumanBytes(done),
            HumanBytes(total),
            HumanBytes(rate as u64),
            HumanDuration(Duration::from_secs(left as u64))
        );
    }
}
