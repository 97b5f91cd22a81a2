//! Reports invalid arguments, and recognises mistyped subcommands.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use fssync::plan::outcome::Exit;
use strsim::damerau_levenshtein;

use super::Args;

/// Words that somebody may type instead of a subcommand or an option.
const MEANT: [(&str, &str); 13] = [
    ("stop", "off"),
    ("disable", "off"),
    ("pause", "off"),
    ("start", "on"),
    ("enable", "on"),
    ("resume", "on"),
    ("check", "verify"),
    ("fsck", "verify"),
    ("info", "status"),
    ("watch", "--watch"),
    ("follow", "--watch"),
    ("full", "--full"),
    ("version", "--version"),
];

/// The exit code of a plugin of Nagios that has no result.
const NAGIOS_UNKNOWN: u8 = 3;

impl Args {
    /// Parses the arguments of this process. Otherwise prints help or an error, and returns the
    /// exit code. With `--quiet` an error is one line.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            // Nagios would take the exit code of a usage error for a critical result.
            if error.use_stderr() && env::args_os().any(|word| word == "--nagios") {
                let line = first_paragraph(&error.to_string()).replace('|', "/");
                let _ = writeln!(io::stdout(), "FSSYNC UNKNOWN - {line}");
                return ExitCode::from(NAGIOS_UNKNOWN);
            }
            // fssync does not fail differently if nobody reads it.
            let _ = if error.use_stderr() && env::args_os().skip(1).any(|word| is_quiet(&word)) {
                let line = first_paragraph(&error.to_string());
                writeln!(io::stderr(), "{line}")
            } else {
                error.print()
            };
            if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Success.into()
            }
        })
    }
}

/// Whether a word is `--quiet`, or short options with `-q` among them.
fn is_quiet(word: &OsStr) -> bool {
    match word.as_encoded_bytes() {
        b"--quiet" => true,
        [b'-', options @ ..] => !options.starts_with(b"-") && options.contains(&b'q'),
        _ => false,
    }
}

/// The first paragraph of an error, on one line: without advice and usage.
fn first_paragraph(error: &str) -> String {
    let what = error.split("\n\n").next().unwrap_or_default();
    what.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Refuses a master that is a subcommand after its options, or a mistyped one. Otherwise
/// `fssync -q off SLAVE`, for example, would report a missing master and leave syncing on.
pub(super) fn master(given: OsString) -> Result<OsString, String> {
    let Some(word) = given.to_str().filter(|word| !word.contains(['/', ':'])) else {
        return Ok(given);
    };
    let verbs: Vec<String> = Args::command()
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .chain(["help".to_owned()])
        .collect();
    if verbs.iter().any(|verb| verb == word) {
        return Err(format!(
            "write `fssync {word} [OPTIONS] ...`, or `./{word}` for a file of that name"
        ));
    }
    if Path::new(word).symlink_metadata().is_ok() {
        return Ok(given);
    }
    match meant(word, &verbs) {
        Some(meant) => Err(format!(
            "there is no such file: did you mean `fssync {meant}`? (for a file of that name, \
             write `./{word}`)"
        )),
        None => Ok(given),
    }
}

/// The subcommand or the option that a word resembles.
fn meant(word: &str, verbs: &[String]) -> Option<String> {
    let word = word.trim_matches('-').to_lowercase();
    let other = MEANT.iter().find(|(name, _)| *name == word);
    if let Some((_, meant)) = other {
        return Some((*meant).to_owned());
    }
    let abbreviates = |verb: &&String| word.len() > 2 && verb.starts_with(&word);
    let distance = |verb: &String| damerau_levenshtein(&word, verb);
    // Two letters of a short verb are most of it.
    let resembles = |verb: &&String| distance(verb) <= if verb.len() > 3 { 2 } else { 1 };
    let nearest = verbs.iter().min_by_key(|verb| distance(verb));
    verbs
        .iter()
        .find(abbreviates)
        .or(nearest.filter(resembles))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_resembles_a_subcommand_is_a_mistake() {
        let verbs = ["off", "on", "status", "verify", "serve", "help"].map(str::to_owned);
        for (word, expected) in [
            ("of", Some("off")),
            ("fof", Some("off")),
            ("offf", Some("off")),
            ("OFF", Some("off")),
            ("no", Some("on")),
            ("onn", Some("on")),
            ("stat", Some("status")),
            ("staus", Some("status")),
            ("statsu", Some("status")),
            ("ver", Some("verify")),
            ("verfiy", Some("verify")),
            ("server", Some("serve")),
            ("halp", Some("help")),
            ("stop", Some("off")),
            ("start", Some("on")),
            ("watch", Some("--watch")),
            ("master", None),
            ("Data.fs", None),
            ("var", None),
            ("plone", None),
            ("db", None),
            ("zodb", None),
            ("", None),
        ] {
            assert_eq!(meant(word, &verbs).as_deref(), expected, "{word}");
        }
    }
}
