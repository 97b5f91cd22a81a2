//! What the three harnesses share: [`crate::calls`] makes single system calls fail,
//! [`crate::power`] cuts the power, and [`crate::interleavings`] runs several processes on one
//! slave. Their vocabulary:
//!
//! - An [`actor`] is a process that works on a master and a slave: a pass, a watch, `fssync
//!   off`, ZODB and so on.
//! - A [`scenario`] is a way to prepare master and slave, together with the actor that then
//!   runs.
//! - A fault disturbs the actor: it is killed, a call fails, the power is cut. The scheduler of
//!   `interleavings` disturbs it with other actors.
//! - The [`oracle`] checks the slave after a fault, and that the next pass repairs it.

pub mod actor;
mod before;
pub mod oracle;
pub mod scenario;
