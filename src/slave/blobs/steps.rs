//! Changes of the blob directory, in steps of limited length.

use std::time::{Duration, Instant};

use super::tree::Tree;
use crate::error::Error;
use crate::slave::step::{Slave, Step};

/// How long a step may last. A ZEO that starts during a step fails.
const STEP_LEN: Duration = Duration::from_millis(10);

/// Makes a change for each item, in steps. `check` is called at the start of each step.
pub(super) fn change_in_steps<T>(
    slave: &Slave,
    tree: &Tree,
    items: impl IntoIterator<Item = T>,
    check: impl Fn(&Step<'_>) -> Result<(), Error>,
    mut change: impl FnMut(T) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let step = take_step(slave, tree)?;
        check(&step)?;
        let started = Instant::now();
        // The elapsed time is read after a change, so that each step makes one at least.
        for item in items.by_ref() {
            change(item)?;
            if started.elapsed() >= STEP_LEN {
                break;
            }
        }
        drop(step);
    }
    Ok(())
}

/// Takes a step in which the blob directory may be changed.
pub(super) fn take_step<'a>(slave: &'a Slave, tree: &Tree) -> Result<Step<'a>, Error> {
    let step = slave.step()?;
    tree.check_in_place()?;
    Ok(step)
}
