//! Tests of fssync against real parts: ZODB and ZEO from PyPI, real files, the
//! real binary, a real sshd, real NFS.

#![allow(unreachable_pub, reason = "a test has no public interface")]

mod environment;
mod fuse;
mod guest;
mod machine;
mod sshd;
mod support;
mod watcher;
mod zeo;

mod bounds;
mod command_line;
mod contrib;
mod crash;
mod cuts;
mod digests;
mod divergence;
mod failover;
mod faults;
mod fixtures;
mod hostile;
mod index;
mod ledger;
mod life;
mod load;
mod nfs;
mod off;
mod on;
mod power;
mod regressions;
mod remote;
mod status;
mod steps;
mod switch;
mod upkeep;
mod verify;
mod verify_against;
mod watch;
mod watch_network;
