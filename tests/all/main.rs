//! Tests of fssync with the real parts: ZODB and ZEO from PyPI, real files, the real binary, a
//! real sshd, real NFS.

#![allow(unreachable_pub, reason = "a test has no public interface")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

// Shared by the tests: ZODB, ZEO, sshd, FUSE, machines, and the harnesses' common parts.
mod crash;
mod cron;
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

// What a pass does to the slave, whatever happened to the two files.
mod between_steps;
mod decision_table;
mod divergence;
mod inodes;
mod operations;
mod regressions;
mod rewind;
mod rewrites;
mod surroundings;
mod tails;
mod unreachable;

// Several storages.
mod site;

// Blobs.
mod blobs;

// The files beside the slave, and access to them.
mod access;
mod history;
mod index;
mod ledger;
mod upkeep;

// The command line and its output.
mod command_line;
mod hooks;
mod man_page;
mod messages;
mod pass_output;
mod paths;
mod progress;
mod quiet;
mod remind;

// The subcommands, the switches and the watch.
mod digests;
mod doctor;
mod metrics;
mod nagios;
mod off;
mod on;
mod status;
mod switch;
mod switch_links;
mod verify;
mod verify_against;
mod verify_blobs;
mod watch;
mod watch_network;

// The connection to the master.
mod connection;
mod master_blobs;
mod nfs;
mod remote;
mod versions;

// Errors, limits and signals.
mod bounds;
mod faults;
mod limits;
mod mounts;
mod signals;

// Crashes and concurrent processes, at each system call.
mod calls;
mod interleavings;
mod power;

// Whole sites: failover, failback, and weeks of writing.
mod contrib;
mod failover;
mod failovers_under_load;
mod soak;

// The structure of the code, the documents, the fixtures and the fuzz targets.
mod architecture;
mod documents;
mod fixtures;
mod hostile;

/// This test takes minutes and mostly waits, so it should start first. Tests start in the order
/// of their names.
#[test]
fn a_master_on_real_nfs() {
    nfs::all();
}

/// See above: this one takes long, too.
#[test]
fn a_busy_site_for_weeks() {
    soak::weeks_of_a_busy_site();
}
