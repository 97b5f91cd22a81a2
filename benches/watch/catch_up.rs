//! How fast a watch that was stopped catches up with its master.

use std::io;
use std::time::{Duration, Instant};

use crate::clock::Moment;
use crate::follower::Follower;
use crate::shared::command::{Remote, calm, must, text};
use crate::shared::generate::{Generator, MB};
use crate::shared::place::Place;
use crate::shared::times::{Times, verdict};

const ROUNDS: u32 = 3;

/// Ten times the 35 MB/s of zc.zrs.
const MIN_SPEED: f64 = 350.0;

/// The target on slower disks: a part of dd's speed.
const MIN_PART: f64 = 0.8;

/// Appends `megabytes` to the master while a watch is stopped. Prints how long the watch takes
/// to catch up, and how long dd takes to write the same bytes; through `remote`, also a dd
/// that reads through it.
pub(crate) fn measure(place: &Place, remote: Option<&Remote>, megabytes: u32) -> io::Result<()> {
    println!("\n  catching up {megabytes} MB");
    let mut generator = Generator::create(&place.master)?;
    generator.append(MB)?;
    let follower = Follower::start(place, remote, &[])?;
    follower.wait_for(generator.position())?;
    let (mut written, mut through, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let position = generator.position();
        follower.pause()?;
        generator.append(u64::from(megabytes) * MB)?;
        // The order changes in each round.
        for turn in 0..3 {
            calm(&place.directory)?;
            match ((round + turn) % 3, remote) {
                (0, _) => written.push(dd(place, position)?),
                (1, Some(remote)) => through.push(dd_through(place, remote, position)?),
                (1, None) => {}
                _ => ours.push(catch_up(&follower, generator.position())?),
            }
        }
        place.assert_equal()?;
    }
    let speeds = Speeds {
        megabytes: megabytes.into(),
        disk: Times::of(written),
    };
    speeds.print("dd conv=fsync", speeds.disk);
    if !through.is_empty() {
        speeds.print("PROGRAM HOST dd, and sync", Times::of(through));
    }
    let ours = Times::of(ours);
    speeds.print("fssync --watch", ours);
    speeds.judge(ours);
    Ok(())
}

/// Continues the watch until it reaches `position`.
fn catch_up(follower: &Follower, position: u64) -> io::Result<Duration> {
    let started = Moment::now();
    follower.resume()?;
    let reports = follower.wait_for(position)?;
    let end = reports.last().map_or(started, |last| last.at);
    Ok(Duration::from_nanos(end.after(started).unsigned_abs()))
}

/// Appends the master's bytes from `position` on to a file that grows like the slave. Many
/// disks are faster if the space was used before.
fn dd(place: &Place, position: u64) -> io::Result<Duration> {
    let to = text(&place.directory.join("dd"));
    let from = dd_from(place, position);
    time(&format!("{from} of='{to}' oflag=append conv=notrunc,fsync"))
}

/// The same through a program that connects.
fn dd_through(place: &Place, remote: &Remote, position: u64) -> io::Result<Duration> {
    let to = text(&place.directory.join("dd-through"));
    let Remote { program, host } = remote;
    let from = dd_from(place, position);
    time(&format!(
        "{program} {host} \"{from}\" >> '{to}' && sync '{to}'"
    ))
}

fn dd_from(place: &Place, position: u64) -> String {
    let from = text(&place.master);
    format!("dd bs=1M status=none if='{from}' iflag=skip_bytes skip={position}")
}

/// The time of a shell command.
fn time(command: &str) -> io::Result<Duration> {
    let argv = ["sh", "-c", command].map(String::from).to_vec();
    let started = Instant::now();
    must(&argv)?;
    Ok(started.elapsed())
}

/// The compared speeds.
struct Speeds {
    megabytes: f64,
    /// The times of the disk alone.
    disk: Times,
}

impl Speeds {
    fn of(&self, times: Times) -> f64 {
        self.megabytes / times.median.as_secs_f64()
    }

    fn print(&self, name: &str, times: Times) {
        println!(
            "  {name:<44} {:>26} ms {:>6.0} MB/s, {:.2} of dd's",
            times.in_short(),
            self.of(times),
            self.of(times) / self.of(self.disk),
        );
    }

    fn judge(&self, ours: Times) {
        let speed = self.of(ours);
        let part = speed / self.of(self.disk);
        println!(
            "  target: >= {MIN_SPEED} MB/s (zc.zrs: 35) or >= {MIN_PART} of dd's {}",
            verdict(Some(speed >= MIN_SPEED || part >= MIN_PART))
        );
    }
}
