//! A long run: the life of a site in weeks that take a minute.
//!
//! *The cast.* Two machines, which are directories. On the first, ZEO serves the master, and
//! three authors, each a process of its own, write to it all the time; they know the addresses
//! of both machines. On the second, a watch follows, over [ssh or a mount](network), and beside
//! it go [background](background): passes from cron, `status`, `verify`, a look at the slave.
//!
//! *The script.* Each [week](schedule) has everything once, in an order that a seed decides: packs,
//! restarts and deaths of either side, cuts of the network, the switch flipped, files removed;
//! and a failover, with the script that is shipped, and the failback of the README.
//!
//! *What must be so.* After each act, the slave follows again. At the end of each week, every
//! entry is where [the acks](acknowledged) say: in the file that is served or, where it was lost at a
//! failover, in the one that was set aside; the lost ones are the newest. The slave is the
//! master to the byte, `verify --against` proves it, and nothing is left over.
//!
//! One week is lived in `cargo test`. As long as is wanted, and with other rng:
//!
//! ```sh
//! FSSYNC_SOAK_MINUTES=30 FSSYNC_SOAK_SEED=7 cargo test --test all -- busy_site --nocapture
//! ```

mod acknowledged;
mod background;
mod counts;
mod failover;
mod network;
mod schedule;
mod site;
mod weekly_checks;

use std::time::{Duration, Instant};

use site::Site;

use crate::support::number;

/// Lives as many weeks as there is time for, one at least.
pub fn weeks_of_a_busy_site() {
    let minutes = number("FSSYNC_SOAK_MINUTES").unwrap_or(0) as u64;
    let seed = number("FSSYNC_SOAK_SEED").unwrap_or(1) as u64;
    let started = Instant::now();
    let mut site = Site::new(seed);
    loop {
        site.live_a_week();
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
