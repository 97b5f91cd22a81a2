//! What was found, for eyes: a fact a line, the findings, and the verdict in the
//! last line.

use std::fmt::Write;

use clap::builder::styling::{AnsiColor, Color, Style};
use fssync::filestorage::Tid;
use fssync::verify::finding::{Finding, Severity};
use fssync::verify::{Content, DigestState, IndexState, Unfinished, Verified};
use fssync::words::bytes;

use super::against::Against;
use super::report::Findings;

/// Where the facts start.
const WIDTH: usize = 14;

pub(super) const PLAIN: Style = Style::new();
const GOOD: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
pub(super) const MIND: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));
pub(super) const BAD: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));

/// Lines that grow.
pub(super) struct Lines {
    text: String,
    coloured: bool,
}

impl Lines {
    /// The lines of a verification.
    pub(super) fn of(
        verified: &Verified,
        findings: &Findings,
        against: &Against,
        coloured: bool,
    ) -> String {
        let mut lines = Self {
            text: String::new(),
            coloured,
        };
        lines.add("slave", PLAIN, &verified.slave.display().to_string());
        if verified.content == Content::Storage {
            lines.facts(verified);
        }
        lines.findings(findings);
        against.add_to(&mut lines);
        let style = match against.exit(verified) as u8 {
            0 if verified.blemishes == 0 => GOOD,
            0 => MIND,
            _ => BAD,
        };
        lines.text.push('\n');
        lines.push(style.bold(), &verdict(verified, against));
        lines.text.push('\n');
        lines.text
    }

    fn facts(&mut self, verified: &Verified) {
        let checked = format!(
            "{} transactions, {} data records, {} objects",
            verified.transactions, verified.records, verified.objects
        );
        self.add("whole", PLAIN, &checked);
        self.add("read", PLAIN, &bytes(verified.bytes));
        let position = format!("{} ({})", verified.position, bytes(verified.position));
        self.add("position", PLAIN, &position);
        let last = verified.last_tid.map_or("none".to_owned(), Tid::with_time);
        self.add("last tid", PLAIN, &last);
        let unfinished = match verified.unfinished {
            None => "nothing".to_owned(),
            Some(Unfinished {
                bytes: len,
                is_ours,
            }) => {
                let of = if is_ours { " of an append" } else { "" };
                format!("{}{of}, which ZODB cuts", bytes(len))
            }
        };
        self.add("unfinished", PLAIN, &unfinished);
        let (style, digests) = match verified.digests {
            DigestState::Unasked => (PLAIN, "not compared".to_owned()),
            DigestState::NoLedger => (MIND, "there is no ledger of this file".to_owned()),
            DigestState::Compared(len) if len >= verified.position => {
                (PLAIN, "of all bytes compared".to_owned())
            }
            DigestState::Compared(len) => {
                let without = bytes(verified.position - len);
                (
                    MIND,
                    format!("of {} compared, {without} have none", bytes(len)),
                )
            }
        };
        self.add("digests", style, &digests);
        let (style, index) = match &verified.index {
            IndexState::Missing => (MIND, "missing".to_owned()),
            IndexState::Sound(at) => (PLAIN, format!("sound, of position {at}")),
            IndexState::Wrong => (BAD, "WRONG, and ZODB would use it".to_owned()),
            IndexState::Unused(why) => (MIND, format!("not used by ZODB: {why}")),
            IndexState::Unknown(why) => (MIND, format!("not compared: {why}")),
        };
        self.add("index", style, &index);
    }

    fn findings(&mut self, findings: &Findings) {
        let mut advised = None;
        for finding in findings.kept() {
            self.finding(finding, findings);
            if advised != Some(finding.kind) {
                self.add("", PLAIN, &format!("to do: {}", finding.kind.advice()));
            }
            advised = Some(finding.kind);
        }
        for (kind, count) in findings.left_out() {
            let name = serde_json::to_value(kind).unwrap_or_default();
            let name = name.as_str().unwrap_or_default();
            self.add("", PLAIN, &format!("and {count} more of the kind {name}"));
        }
    }

    fn finding(&mut self, finding: &Finding, findings: &Findings) {
        let (what, style) = match finding.kind.severity() {
            Severity::Damage => ("DAMAGE", BAD),
            Severity::Blemish => ("blemish", MIND),
        };
        let mut place = format!(
            "{} at {}",
            findings.name(finding.kind.file()),
            finding.position
        );
        if let Some(end) = finding.end {
            let _ = write!(place, " to {end}");
        }
        if let Some(tid) = finding.tid {
            let _ = write!(place, ", tid {}", tid.with_time());
        }
        if let Some(oid) = finding.oid {
            let _ = write!(place, ", oid {oid:016x}");
        }
        let Finding {
            expected, found, ..
        } = finding;
        self.text.push('\n');
        self.add(what, style, &place);
        self.add("", PLAIN, &format!("expected {expected}, found {found}"));
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn add(&mut self, what: &str, style: Style, fact: &str) {
        let _ = write!(self.text, "{what:WIDTH$}");
        self.push(style, fact);
        self.text.push('\n');
    }

    fn push(&mut self, style: Style, fact: &str) {
        let style = if self.coloured { style } else { PLAIN };
        // What a file says cannot steer the terminal.
        let fact: String = fact
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        let _ = write!(self.text, "{style}{fact}{style:#}");
    }
}

/// What came of it, in a line.
pub(super) fn verdict(verified: &Verified, against: &Against) -> String {
    let own = own_verdict(verified);
    match against.verdict() {
        None => own,
        Some(verdict) => format!("{own}; {verdict}"),
    }
}

fn own_verdict(verified: &Verified) -> String {
    match verified.content {
        Content::Missing => "there is no such file, or it is empty".to_owned(),
        Content::Short => "it holds no whole transaction".to_owned(),
        Content::Foreign => "it is no FileStorage".to_owned(),
        Content::Storage => match (verified.damages, verified.blemishes) {
            (0, 0) => "sound".to_owned(),
            (0, 1) => "sound, but for 1 blemish".to_owned(),
            (0, n) => format!("sound, but for {n} blemishes"),
            (1, _) => "DAMAGED: 1 finding".to_owned(),
            (n, _) => format!("DAMAGED: {n} findings"),
        },
    }
}
