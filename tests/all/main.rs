//! Tests of fssync against real parts: ZODB and ZEO from PyPI, real files, the
//! real binary.

#![allow(unreachable_pub, reason = "a test has no public interface")]

mod support;

mod fixtures;
mod crash;
mod command_line;
mod faults;
mod steps;
mod switch;
mod cuts;
mod divergence;
mod life;
