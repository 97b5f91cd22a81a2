//! The cost of a watch while nothing happens.

use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use crate::shared::command::text;
use crate::shared::place::Place;

/// The duration of the measurement.
pub(crate) const LENGTH: Duration = Duration::from_secs(10);

/// The resources that a process has used, in all its threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time.
    pub(crate) cpu: Duration,
    /// Number of times that it started to wait, and so had to be woken.
    pub(crate) waits: u64,
}

/// Prints the resources per second of this watch, of the program that connects for it, and of
/// `fssync serve`.
pub(crate) fn measure(place: &Place, watch: u32) -> io::Result<()> {
    let processes = related(place, watch)?;
    let usage =
        || -> io::Result<Vec<Usage>> { processes.iter().map(|(_, pid)| Usage::of(*pid)).collect() };
    let before = usage()?;
    thread::sleep(LENGTH);
    let after = usage()?;
    println!("\n  idle, over {} s", LENGTH.as_secs());
    for (((name, _), before), after) in processes.iter().zip(before).zip(after) {
        let cpu = (after.cpu.saturating_sub(before.cpu)).as_secs_f64() / LENGTH.as_secs_f64();
        let waits = (after.waits - before.waits) as f64 / LENGTH.as_secs_f64();
        println!(
            "  {name:<44} {:>8.3} ms of CPU per second ({:.3} %), {waits:.1} wake-ups per second",
            cpu * 1e3,
            cpu * 100.0
        );
    }
    Ok(())
}

impl Usage {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // The first number is the time on a processor, in nanoseconds.
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            let nanos = schedstat.split(' ').next().and_then(|it| it.parse().ok());
            sum.cpu += Duration::from_nanos(nanos.unwrap_or(0));
            let status = fs::read_to_string(task.join("status"))?;
            let waits = field(&status, "voluntary_ctxt_switches:");
            sum.waits += waits.and_then(|it| it.parse().ok()).unwrap_or(0);
        }
        Ok(sum)
    }
}

/// The watch, its children and the process that serves its master.
fn related(place: &Place, watch: u32) -> io::Result<Vec<(String, u32)>> {
    let mut found = vec![("fssync --watch".to_owned(), watch)];
    let own = fs::read_link(format!("/proc/{watch}/exe"))?;
    let served = text(&place.master);
    for process in fs::read_dir("/proc")? {
        let path = process?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Ok(pid) = name.parse::<u32>() else {
            continue;
        };
        // It may have ended.
        let Ok(status) = fs::read_to_string(path.join("status")) else {
            continue;
        };
        if field(&status, "PPid:") == Some(watch.to_string().as_str()) {
            found.push((field(&status, "Name:").unwrap_or("?").to_owned(), pid));
        } else if serves(&path, &own, &served) {
            found.push(("fssync serve".to_owned(), pid));
        }
    }
    Ok(found)
}

fn serves(process: &Path, program: &Path, served: &str) -> bool {
    let is_ours = fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program);
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    is_ours && words.any(|word| word == b"serve") && words.any(|word| word == served.as_bytes())
}

/// The value of a line in a file such as /proc/PID/status.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    lines.find_map(|line| line.strip_prefix(name).map(str::trim))
}
