//! A requested comparison, whether it succeeded or not.

use super::{Comparison, compare};
use crate::error::Error;
use crate::io::progress::Monitor;
use crate::plan::outcome::Exit;
use crate::slave::step::Slave;
use crate::source::Master;
use crate::verify::Verified;

/// A comparison that was requested with `--against`.
#[derive(Debug)]
pub struct Attempt {
    /// The master, as it was given.
    pub master: String,
    /// The result; `None` if the slave has nothing to compare.
    pub result: Result<Option<Comparison>, Error>,
}

impl Attempt {
    /// Compares a slave that was verified with its master.
    pub fn make(
        slave: &Slave,
        verified: &Verified,
        master: &Master,
        monitor: &dyn Monitor,
    ) -> Self {
        Self {
            master: master.name().to_owned(),
            result: compare(slave, verified, master, monitor),
        }
    }

    /// The comparison, if it succeeded.
    #[must_use]
    pub fn comparison(&self) -> Option<&Comparison> {
        self.result.as_ref().ok()?.as_ref()
    }

    /// The exit code of the comparison alone.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.result {
            Ok(Some(comparison)) => comparison.exit(),
            Ok(None) => Exit::Success,
            Err(error) => error.exit(),
        }
    }
}
