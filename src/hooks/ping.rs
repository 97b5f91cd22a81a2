//! Pings: which request a monitoring service gets, and when. No I/O.
//!
//! The requests are made by `curl`, which the administrator knows and configures (`~/.curlrc`,
//! proxies, certificates), as connections are made by ssh. Its options are written to its
//! standard input, since a URL often contains a secret and command lines are public.
//!
//! | style | a pass or a watch starts | in sync | a problem |
//! | --- | --- | --- | --- |
//! | `healthchecks` | `URL/start` | `URL` | `URL/fail`, with the reason as the body |
//! | `uptime-kuma` | | `URL?status=up&msg=...&ping=MS` | `URL?status=down&msg=...&ping=MS` |
//! | `plain` | | `URL` | |

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::config::{PingConfig, PingStyle};
use crate::io::process::Program;

/// How long a request may take. `curl` gets the first limit, and is killed at the second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const KILL_AFTER: Duration = Duration::from_secs(15);

/// The longest message in a request, in characters.
const MAX_MESSAGE_LEN: usize = 500;

/// A request to a monitoring service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ping {
    /// A single pass, or a watch, starts.
    Start,
    /// All storages on which syncing is on are in sync, or one of them is not.
    State {
        /// Whether they are in sync.
        is_up: bool,
        /// The state in one line.
        message: String,
        /// How long the passes took.
        elapsed: Duration,
    },
}

/// The last request about the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPing {
    /// When it was made.
    pub at: Instant,
    /// Whether all storages were in sync.
    pub is_up: bool,
    /// Whether it failed.
    pub has_failed: bool,
}

/// How long until the next request, if the state is this one and does not change: at once if it
/// has changed, regularly while all is in sync, and otherwise only until a request succeeds.
#[must_use]
pub fn due_in(
    every: Duration,
    last: Option<LastPing>,
    is_up: bool,
    now: Instant,
) -> Option<Duration> {
    match last {
        Some(last) if last.is_up == is_up => (is_up || last.has_failed)
            .then(|| every.saturating_sub(now.saturating_duration_since(last.at))),
        _ => Some(Duration::ZERO),
    }
}

/// The program that makes a request; `None` if the service gets none.
#[must_use]
pub fn program(config: &PingConfig, ping: &Ping) -> Option<Program> {
    let options = options(config, ping)?;
    Some(Program {
        command: ["curl", "--config", "-"].map(str::to_owned).to_vec(),
        variables: Vec::new(),
        input: options.into_bytes(),
        timeout: KILL_AFTER,
    })
}

/// The options of curl, one in each line.
fn options(config: &PingConfig, ping: &Ping) -> Option<String> {
    let (base, query) = split_query(&config.url);
    let mut options = format!(
        "silent\nshow-error\nfail\nmax-time = {}\noutput = /dev/null\nproto = \"=http,https\"\n",
        REQUEST_TIMEOUT.as_secs()
    );
    let mut add = |name: &str, value: &str| {
        let _ = writeln!(options, "{name} = {}", quoted(value));
    };
    match (config.style, ping) {
        (PingStyle::Healthchecks, Ping::Start) => add("url", &format!("{base}/start{query}")),
        (PingStyle::Healthchecks, Ping::State { is_up, message, .. }) => {
            let end = if *is_up { "" } else { "/fail" };
            add("url", &format!("{base}{end}{query}"));
            add("data-raw", &shortened(message));
        }
        (
            PingStyle::UptimeKuma,
            Ping::State {
                is_up,
                message,
                elapsed,
            },
        ) => {
            // The address that Uptime Kuma displays ends in an example of the query.
            add("url", base);
            let status = if *is_up { "up" } else { "down" };
            add("data-raw", &format!("status={status}"));
            add("data-urlencode", &format!("msg={}", shortened(message)));
            add("data-raw", &format!("ping={}", elapsed.as_millis()));
            options += "get\n";
        }
        (PingStyle::Plain, Ping::State { is_up: true, .. }) => add("url", &config.url),
        (PingStyle::UptimeKuma | PingStyle::Plain, _) => return None,
    }
    Some(options)
}

/// Splits an address before its query. The first part does not end in a slash.
fn split_query(url: &str) -> (&str, &str) {
    let at = url.find('?').unwrap_or(url.len());
    let (base, query) = url.split_at(at);
    (base.trim_end_matches('/'), query)
}

fn shortened(message: &str) -> String {
    message.chars().take(MAX_MESSAGE_LEN).collect()
}

/// A value in quotes, as curl reads it from a file of options. Control characters would end the
/// line.
fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
