//! Counts of all events, printed as a table at the end.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name.
#[derive(Debug, Default)]
pub struct Counts {
    sums: BTreeMap<String, u64>,
    largest: BTreeMap<String, u64>,
}

impl Counts {
    pub fn add(&mut self, name: &str, count: u64) {
        *self.sums.entry(name.to_owned()).or_default() += count;
    }

    pub fn one(&mut self, name: &str) {
        self.add(name, 1);
    }

    /// Keeps the largest value.
    pub fn largest(&mut self, name: &str, value: u64) {
        let kept = self.largest.entry(name.to_owned()).or_default();
        *kept = value.max(*kept);
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: Self) {
        for (name, count) in other.sums {
            self.add(&name, count);
        }
        for (name, value) in other.largest {
            self.largest(&name, value);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, number) in self.sums.iter().chain(&self.largest) {
            writeln!(f, "{number:>9}  {name}")?;
        }
        Ok(())
    }
}
