//! The arguments that all comparisons have.

use super::command::Remote;

/// `[NAME=N...] [rounds=N] ["ssh=PROGRAM... HOST"] [NAME...]`.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    rounds: Option<usize>,
    /// This machine, reached through a program that connects.
    pub(crate) ssh: Option<Remote>,
    names: Vec<String>,
}

impl Arguments {
    /// Parses the arguments of this program. `set` gets each other number with its name. A number
    /// without a name has the name `default`.
    pub(crate) fn parse(default: &str, mut set: impl FnMut(&str, u64)) -> Self {
        let mut arguments = Self::default();
        // cargo adds --bench.
        for argument in std::env::args().skip(1).filter(|it| !it.starts_with('-')) {
            let number = |text: &str| text.parse().expect("a number after =");
            match argument.split_once('=') {
                Some(("ssh", words)) => arguments.ssh = Remote::parse(words),
                Some(("rounds", text)) => arguments.rounds = Some(number(text) as usize),
                Some((name, text)) => set(name, number(text)),
                None => match argument.parse() {
                    Ok(number) => set(default, number),
                    Err(_) => arguments.names.push(argument),
                },
            }
        }
        arguments
    }

    /// Whether the measurement `what` is wanted: all are, or one of the names is a part of it.
    pub(crate) fn wants(&self, what: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| what.contains(name.as_str()))
    }

    /// The number of rounds.
    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual).max(1)
    }
}
