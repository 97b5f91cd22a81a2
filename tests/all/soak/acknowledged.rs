//! A ledger of the transactions that were acknowledged to the authors: which entries must be in
//! a file.
//!
//! Entering an entry is acknowledged with a tid; so is undoing it. An entry is in a file if the
//! file contains the transaction that entered it, but not one that has undone it. An attempt
//! that was never answered may have been committed or not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::zeo::Acknowledged;

/// The attempts that concern an entry.
#[derive(Debug, Default)]
struct Entry {
    entered: Attempt,
    undone: Attempt,
    /// Voted and aborted: such an entry is never committed.
    vetoed: Attempt,
}

/// An attempt, and its result.
#[derive(Debug, Default)]
enum Attempt {
    #[default]
    NotMade,
    Unanswered,
    Acknowledged(Acknowledged),
}

/// A failover: the transactions of the first machine after `end` were lost.
#[derive(Clone, Debug)]
pub struct Failover {
    /// The last transaction on the second machine, as `fssync off` printed it.
    pub end: String,
    /// The last transaction on the first machine.
    pub dead: String,
    /// When the first machine died, in seconds since 1970.
    pub killed: f64,
}

impl Failover {
    fn has_lost(&self, tid: &str) -> bool {
        *self.end < *tid && *tid <= *self.dead
    }
}

/// All attempts and failovers.
#[derive(Debug, Default)]
pub struct AckLedger {
    entries: BTreeMap<String, Entry>,
    /// The last attempt of each author: its kind, and the entry's serial number.
    tried: BTreeMap<usize, (String, String)>,
    failovers: Vec<Failover>,
    pub failures: u64,
    pub aborts: u64,
}

impl AckLedger {
    /// Takes the next lines that an author has printed.
    pub fn take(&mut self, author: usize, said: impl IntoIterator<Item = Value>) {
        for line in said {
            if let Some(what) = line["tries"].as_str() {
                let serial = line["serial"].as_str().expect("a serial number");
                let entry = self.entries.entry(serial.to_owned()).or_default();
                *entry.attempt(what) = Attempt::Unanswered;
                let tried = (what.to_owned(), serial.to_owned());
                self.tried.insert(author, tried);
            } else if let Some(done) = Acknowledged::said(&line) {
                let (what, serial) = &self.tried[&author];
                let entry = self.entries.get_mut(serial).expect("an attempt");
                *entry.attempt(what) = Attempt::Acknowledged(done);
            }
            self.aborts += u64::from(line["aborted"] == true);
            self.failures += u64::from(line["failed"].is_string());
        }
    }

    pub fn fail_over(&mut self, failover: Failover) {
        self.failovers.push(failover);
    }

    /// All acknowledged transactions.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Acknowledged> {
        self.entries
            .values()
            .flat_map(|entry| [&entry.entered, &entry.undone])
            .filter_map(|attempt| match attempt {
                Attempt::Acknowledged(done) => Some(done),
                _ => None,
            })
    }

    /// The age of each acknowledged transaction that was lost, in seconds, when the first
    /// machine died.
    pub fn ages_of_lost(&self) -> Vec<f64> {
        let lost_in = |one: &&Failover, done: &Acknowledged| one.has_lost(&done.tid);
        self.acknowledged()
            .filter_map(|done| {
                let failover = self.failovers.iter().find(|one| lost_in(one, done))?;
                Some(failover.killed - done.time)
            })
            .collect()
    }

    /// The errors in the entries of the file that is served.
    pub fn errors_in_served(&self, serials: &[String]) -> Vec<String> {
        self.errors(serials, |tid| {
            !self.failovers.iter().any(|one| one.has_lost(tid))
        })
    }

    /// The errors in the entries of the file that the first machine had at the last failover.
    pub fn errors_in_dead(&self, serials: &[String]) -> Vec<String> {
        let (last, before) = self.failovers.split_last().expect("a failover");
        self.errors(serials, |tid| {
            *tid <= *last.dead && !before.iter().any(|one| one.has_lost(tid))
        })
    }

    /// The errors in the entries of a file; `has` decides which transactions it contains.
    fn errors(&self, serials: &[String], has: impl Fn(&str) -> bool) -> Vec<String> {
        let found: BTreeSet<_> = serials.iter().map(String::as_str).collect();
        let mut errors = Vec::new();
        for serial in &found {
            if !self.entries.contains_key(*serial) {
                errors.push(format!("{serial} was never tried, and is there"));
            }
        }
        for (serial, entry) in &self.entries {
            let is_there = found.contains(serial.as_str());
            if entry.is_expected(&has).is_some_and(|it| it != is_there) {
                let is = if is_there { "there" } else { "missing" };
                errors.push(format!("{serial} is {is}: {entry:?}"));
            }
        }
        errors
    }
}

impl Entry {
    fn attempt(&mut self, what: &str) -> &mut Attempt {
        match what {
            "enter" => &mut self.entered,
            "undo" => &mut self.undone,
            "abort" => &mut self.vetoed,
            _ => panic!("an author tries to {what}"),
        }
    }

    /// Whether it must be in a file, if that is known.
    fn is_expected(&self, has: impl Fn(&str) -> bool) -> Option<bool> {
        if !matches!(self.vetoed, Attempt::NotMade) {
            return Some(false);
        }
        let entered = self.entered.happened(&has)?;
        if !entered {
            return Some(false);
        }
        Some(!self.undone.happened(&has)?)
    }
}

impl Attempt {
    /// Whether it was committed and is in a file, if that is known.
    fn happened(&self, has: impl Fn(&str) -> bool) -> Option<bool> {
        match self {
            Self::NotMade => Some(false),
            Self::Unanswered => None,
            Self::Acknowledged(done) => Some(has(&done.tid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A ledger of the entries `a` to `g`, with a failover after tid 3; the last tid was 5.
    fn acks() -> AckLedger {
        let tries = |what: &str, serial: &str| json!({"tries": what, "serial": serial});
        let done = |tid: u32| json!({"acknowledged": format!("{tid}"), "time": f64::from(tid)});
        let mut acks = AckLedger::default();
        acks.take(
            0,
            [
                tries("enter", "a"),
                done(1),
                tries("enter", "b"),
                done(2),
                tries("undo", "b"),
                done(3),
                tries("enter", "c"),
                done(4),
                tries("undo", "a"),
                done(5),
                tries("enter", "d"),
                json!({"failed": "Disconnected"}),
                tries("abort", "e"),
                json!({"aborted": true}),
                tries("enter", "f"),
                done(6),
                tries("undo", "f"),
                json!({"failed": "Disconnected"}),
                tries("enter", "g"),
                done(7),
            ],
        );
        acks.fail_over(Failover {
            end: "3".to_owned(),
            dead: "5".to_owned(),
            killed: 5.5,
        });
        acks
    }

    fn served(serials: &[&str]) -> Vec<String> {
        let serials: Vec<_> = serials.iter().map(|&serial| serial.to_owned()).collect();
        acks().errors_in_served(&serials)
    }

    #[test]
    fn correct_entries_lead_to_no_errors() {
        assert!(served(&["a", "g"]).is_empty());
        assert!(served(&["a", "d", "f", "g"]).is_empty(), "not known");
        assert!(acks().errors_in_dead(&["c".to_owned()]).is_empty());
        assert_eq!(acks().ages_of_lost(), [0.5, 1.5], "in any order");
        assert_eq!((acks().failures, acks().aborts), (2, 1));
    }

    #[test]
    fn missing_and_surplus_entries_are_reported() {
        for (serials, reported) in [
            (&["a"][..], "g is missing"),
            (&["g"], "a is missing"),
            (&["a", "b", "g"], "b is there"),
            (&["a", "c", "g"], "c is there"),
            (&["a", "e", "g"], "e is there"),
            (&["a", "g", "x"], "x was never tried"),
        ] {
            let errors = served(serials);
            assert!(
                matches!(&errors[..], [one] if one.contains(reported)),
                "{errors:?}"
            );
        }
        let errors = acks().errors_in_dead(&["a".to_owned(), "c".to_owned()]);
        assert!(
            matches!(&errors[..], [one] if one.contains("a is there")),
            "{errors:?}"
        );
        let errors = acks().errors_in_dead(&[]);
        assert!(
            matches!(&errors[..], [one] if one.contains("c is missing")),
            "{errors:?}"
        );
    }
}
