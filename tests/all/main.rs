//! Tests of fssync against real parts: ZODB and ZEO from PyPI, real files, the
//! real binary, a real sshd, real NFS.

#![allow(unreachable_pub, reason = "a test has no public interface")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

mod crash;
mod environment;
mod fuse;
mod guest;
mod hanging_pass;
mod machine;
mod rng;
mod sshd;
mod support;
mod watcher;
mod zeo;

mod access;
mod between_steps;
mod bounds;
mod calls;
mod command_line;
mod connection;
mod contrib;
mod decision_table;
mod digests;
mod divergence;
mod documents;
mod failover;
mod failovers_under_load;
mod faults;
mod fixtures;
mod hostile;
mod index;
mod inodes;
mod interleavings;
mod ledger;
mod limits;
mod man_page;
mod messages;
mod mounts;
mod nfs;
mod off;
mod on;
mod operations;
mod pass_output;
mod paths;
mod power;
mod progress;
mod quiet;
mod regressions;
mod remote;
mod rewrites;
mod signals;
mod soak;
mod status;
mod surroundings;
mod switch;
mod switch_links;
mod tails;
mod upkeep;
mod verify;
mod verify_against;
mod watch;
mod watch_network;

/// What takes long and mostly waits is begun first: tests are, in the order of their
/// names.
#[test]
fn a_master_on_real_nfs() {
    nfs::all();
}

/// The same.
#[test]
fn a_busy_site_for_weeks() {
    soak::weeks_of_a_busy_site();
}
