//! What happens in a week, and in what order.

use super::network::Cut;
use crate::rng::Rng;

/// Something that lasts for a while, during which the authors go on, if they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
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
pub enum PlannedAction {
    /// The master is packed, through ZEO.
    Pack,
    /// A person removes a file beside the slave.
    Remove(&'static str),
}

/// What fssync keeps beside the slave to be witness of what it left there.
pub const SIDECAR: &str = ".fssync";

/// One act after the other, each waited for until the slave has followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Trouble, and what is done in the midst of it.
    Trouble(Trouble, Vec<PlannedAction>),
    PlannedAction(PlannedAction),
    /// The first machine dies, its network before it perhaps; the second takes over, and
    /// hands back.
    Failover(Option<Cut>),
}

impl Trouble {
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

    /// Whether a action can be done in the midst of it. Without its witness, a slave that lags
    /// behind a pack is for a person to judge.
    fn lets(self, action: PlannedAction) -> bool {
        match action {
            PlannedAction::Pack => !matches!(self, Self::ZeoStopped | Self::ZeoKilled),
            PlannedAction::Remove(what) => what != SIDECAR,
        }
    }
}

/// A week: everything once, in an order of its own; the watch may be left alone.
pub fn week(rng: &mut Rng, spares_the_watch: bool) -> Vec<Act> {
    let mut troubles = Trouble::ALL.to_vec();
    troubles.retain(|trouble| !(spares_the_watch && trouble.is_the_watch()));
    rng.shuffle(&mut troubles);
    let mut acts: Vec<_> = troubles
        .into_iter()
        .map(|trouble| Act::Trouble(trouble, Vec::new()))
        .collect();
    let mut deeds = [".index", ".fssync-ledger", SIDECAR]
        .map(PlannedAction::Remove)
        .to_vec();
    deeds.push(PlannedAction::Pack);
    rng.shuffle(&mut deeds);
    for action in deeds {
        let at = rng.below(acts.len());
        match &mut acts[at] {
            Act::Trouble(trouble, within) if trouble.lets(action) => within.push(action),
            _ => acts.insert(at, Act::PlannedAction(action)),
        }
    }
    let cut = rng.one_of(&[None, Some(Cut::Broken), Some(Cut::Silent)]);
    acts.insert(rng.below(acts.len() + 1), Act::Failover(cut));
    acts
}
