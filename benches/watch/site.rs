//! The cost of one watch of many storages while nothing happens.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::idle::{LENGTH, Usage, field};
use crate::shared::generate::{Generator, MB};
use crate::shared::place::Place;

const STORAGES: usize = 20;

/// The target for the memory, in kB.
const MAX_MEMORY: u64 = 48 * 1024;

/// The target for the processor time, as a part of one processor.
const MAX_CPU: f64 = 0.003;

/// How long the slaves may take to be in sync.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn measure(directory: &Path) -> io::Result<()> {
    let mut text = String::new();
    let mut places = Vec::new();
    for number in 0..STORAGES {
        let place = Place::create(&directory.join(number.to_string()))?;
        Generator::create(&place.master)?.append(MB)?;
        let (master, slave) = (place.master.display(), place.slave.display());
        let _ = writeln!(
            text,
            "[storage.s{number}]\nmaster = '{master}'\nslave = '{slave}'"
        );
        places.push(place);
    }
    let config = directory.join("fssync.toml");
    fs::write(&config, text)?;
    let mut watch = Command::new(env!("CARGO_BIN_EXE_fssync"))
        .args(["--watch", "-q", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .spawn()?;
    let measured = wait_for(&places).and_then(|()| print(watch.id()));
    if let Some(pid) = Pid::from_raw(watch.id().cast_signed()) {
        kill_process(pid, Signal::TERM)?;
    }
    watch.wait()?;
    measured
}

/// Waits until all slaves are equal to their masters.
fn wait_for(places: &[Place]) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    let len = |path: &Path| path.metadata().map_or(0, |found| found.len());
    while places.iter().any(|it| len(&it.slave) != len(&it.master)) {
        if waited > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
    places.iter().try_for_each(Place::assert_equal)?;
    // The indexes are built after the passes.
    thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Prints the resources of the watch.
fn print(watch: u32) -> io::Result<()> {
    let before = Usage::of(watch)?;
    thread::sleep(LENGTH);
    let after = Usage::of(watch)?;
    let seconds = LENGTH.as_secs_f64();
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds;
    let waits = (after.waits - before.waits) as f64 / seconds;
    let status = fs::read_to_string(format!("/proc/{watch}/status"))?;
    let peak = field(&status, "VmHWM:").and_then(|it| it.split(' ').next()?.parse().ok());
    let peak: u64 = peak.unwrap_or(u64::MAX);
    let reached = |is_reached| if is_reached { "reached" } else { "MISSED" };
    println!("\none watch of {STORAGES} storages, idle, over {seconds} s");
    println!(
        "  {:.3} % of a processor, target <= {:.1} % {}, {waits:.1} wake-ups per second",
        cpu * 100.0,
        MAX_CPU * 100.0,
        reached(cpu <= MAX_CPU)
    );
    let target = reached(peak <= MAX_MEMORY);
    println!("  peak memory {peak} kB, target <= {MAX_MEMORY} kB {target}");
    Ok(())
}
