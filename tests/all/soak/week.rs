//! The events of a week, in a random order.

use super::network::Cut;
use crate::rng::Rng;

/// A fault that lasts for a while. The authors continue to write if they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteFault {
    /// ZEO is stopped on the first machine.
    ZeoStopped,
    /// ZEO is killed.
    ZeoKilled,
    /// The watch gets a SIGTERM.
    WatchEnded,
    /// The watch is killed.
    WatchKilled,
    /// The network is cut.
    Cut(Cut),
    /// Syncing is switched off with `fssync off`.
    SwitchedOff,
    /// Syncing is switched off with a bare `echo`.
    EchoedOff,
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The master is packed, through ZEO.
    Pack,
    /// A person removes a file beside the slave.
    Remove(&'static str),
}

/// The file in which a pass records the slave's state.
pub const SIDECAR: &str = ".fssync";

/// An event. The next one begins when the slave has caught up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A fault, and the operations during it.
    Fault(SiteFault, Vec<Operation>),
    Operation(Operation),
    /// The first machine dies, possibly after its network. The second machine takes over, and
    /// the first one returns.
    Failover(Option<Cut>),
}

impl SiteFault {
    const ALL: [Self; 8] = [
        Self::ZeoStopped,
        Self::ZeoKilled,
        Self::WatchEnded,
        Self::WatchKilled,
        Self::Cut(Cut::Broken),
        Self::Cut(Cut::Silent),
        Self::SwitchedOff,
        Self::EchoedOff,
    ];

    fn concerns_the_watch(self) -> bool {
        matches!(self, Self::WatchEnded | Self::WatchKilled)
    }

    /// Whether an operation can take place during it. Without its sidecar, a slave whose master
    /// was packed in the meantime needs a decision by a person.
    fn allows(self, operation: Operation) -> bool {
        match operation {
            Operation::Pack => !matches!(self, Self::ZeoStopped | Self::ZeoKilled),
            Operation::Remove(what) => what != SIDECAR,
        }
    }
}

/// The events of a week: each one once, possibly without those that end the watch.
pub fn events(rng: &mut Rng, spares_the_watch: bool) -> Vec<Event> {
    let mut faults = SiteFault::ALL.to_vec();
    faults.retain(|fault| !(spares_the_watch && fault.concerns_the_watch()));
    rng.shuffle(&mut faults);
    let mut events: Vec<_> = faults
        .into_iter()
        .map(|fault| Event::Fault(fault, Vec::new()))
        .collect();
    let mut operations = [".index", ".fssync-ledger", SIDECAR]
        .map(Operation::Remove)
        .to_vec();
    operations.push(Operation::Pack);
    rng.shuffle(&mut operations);
    for operation in operations {
        let at = rng.below(events.len());
        match &mut events[at] {
            Event::Fault(fault, within) if fault.allows(operation) => within.push(operation),
            _ => events.insert(at, Event::Operation(operation)),
        }
    }
    let cut = rng.one_of(&[None, Some(Cut::Broken), Some(Cut::Silent)]);
    events.insert(rng.below(events.len() + 1), Event::Failover(cut));
    events
}
