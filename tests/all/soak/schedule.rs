//! What happens in a week, and in what order.

use super::network::Cut;
use crate::rng::Rng;

/// Something that lasts for a while, during which the authors go on, if they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// ZEO is stopped on the first machine.
    ZeoStopped,
    /// It is killed.
    ZeoKilled,
    /// The watch is asked to end.
    WatchEnded,
    /// It is killed.
    WatchKilled,
    Cut(Cut),
    /// Syncing is switched off with `fssync off`.
    SwitchedOff,
    /// The same with a bare `echo`.
    EchoedOff,
}

/// Something that is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The master is packed, through ZEO.
    Pack,
    /// A person removes a file beside the slave.
    Remove(&'static str),
}

/// What fssync keeps beside the slave to be witness of what it left there.
pub const SIDECAR: &str = ".fssync";

/// One event after the other, each waited for until the slave has followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Fault, and what is done in the midst of it.
    Fault(Fault, Vec<Operation>),
    Operation(Operation),
    /// The first machine dies, its network before it perhaps; the second takes over, and
    /// hands back.
    Failover(Option<Cut>),
}

impl Fault {
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

    fn is_the_watch(self) -> bool {
        matches!(self, Self::WatchEnded | Self::WatchKilled)
    }

    /// Whether an operation can be done in the midst of it. Without its witness, a slave that lags
    /// behind a pack is for a person to judge.
    fn allows(self, operation: Operation) -> bool {
        match operation {
            Operation::Pack => !matches!(self, Self::ZeoStopped | Self::ZeoKilled),
            Operation::Remove(what) => what != SIDECAR,
        }
    }
}

/// A week: everything once, in an order of its own; the watch may be left alone.
pub fn week(rng: &mut Rng, spares_the_watch: bool) -> Vec<Event> {
    let mut faults = Fault::ALL.to_vec();
    faults.retain(|fault| !(spares_the_watch && fault.is_the_watch()));
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
