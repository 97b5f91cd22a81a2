//! A long run: weeks in the life of a site, each of which takes a minute.
//!
//! The actors: there are two machines, which are directories. On the first, ZEO serves the
//! master, and three authors, each a process of its own, write all the time; they know the
//! addresses of both machines. On the second, a watch follows over [ssh or a mount](network), and
//! passes from cron, `status` and `verify` run in the [background].
//!
//! The [schedule](week): each week has all events once, in an order that depends on a seed: packs,
//! restarts and crashes of either side, network failures, switching off and on, removed files,
//! and a [failover] with the script that is shipped, followed by the failback of
//! `docs/failover.md`.
//!
//! The [oracle](weekly_checks): after each event, the slave catches up. At the end of each week,
//! every [acknowledged] entry is in the file that is served. The only exceptions are the newest
//! ones at a failover; they are in the file that was set aside. Slave and master are equal, and
//! no other file, process or lock is left.
//!
//! `cargo test` runs one week. A longer run with another seed:
//!
//! ```sh
//! FSSYNC_SOAK_MINUTES=30 FSSYNC_SOAK_SEED=7 cargo test --test all -- busy_site --nocapture
//! ```

mod acknowledged;
mod background;
mod counts;
mod failover;
mod network;
mod site;
mod week;
mod weekly_checks;

use std::time::{Duration, Instant};

use site::Site;

use crate::support::number;

/// Runs weeks until the time is up, at least one.
pub fn weeks_of_a_busy_site() {
    let minutes = number("FSSYNC_SOAK_MINUTES").unwrap_or(0) as u64;
    let seed = number("FSSYNC_SOAK_SEED").unwrap_or(1) as u64;
    let started = Instant::now();
    let mut site = Site::new(seed);
    loop {
        site.run_week();
        if started.elapsed() >= Duration::from_secs(60 * minutes) {
            break;
        }
    }
    eprintln!(
        "soak with seed {seed}, {:.0?}:\n{}",
        started.elapsed(),
        site.end()
    );
}
