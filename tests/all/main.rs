//! Tests of fssync against real parts: ZODB and ZEO from PyPI, real files, the
//! real binary.

#![allow(unreachable_pub, reason = "a test has no public interface")]

mod sshd;
mod support;

mod fixtures;
mod remote;
