//! The text output about blobs.

use fssync::human::{bytes, count};
use fssync::verify::blobs::orphans::Orphans;
use fssync::verify::blobs::{BlobComparison, VerifiedBlobs};

use crate::cli::lines::{Emphasis, Lines};

/// Number of orphans that are printed. With `-v`, all of them are logged.
const MAX_PRINTED: usize = 20;

/// Adds the facts about the blobs.
pub(super) fn add_to(lines: &mut Lines, verified: &VerifiedBlobs) {
    let counts = &verified.counts;
    let directory = verified.directory.display().to_string();
    lines.add("blobs in", Emphasis::Plain, &directory);
    let files = format!("{}, {}", count(counts.files, "file"), bytes(counts.bytes));
    lines.add("blobs", Emphasis::Plain, &files);
    if counts.unchecked > 0 {
        let fact = format!(
            "{} not checked, because no digest is recorded",
            count(counts.unchecked, "file")
        );
        lines.add("", Emphasis::Warning, &fact);
    }
    if counts.not_copied > 0 {
        let fact = format!("{} not copied yet", count(counts.not_copied, "blob"));
        lines.add("", Emphasis::Warning, &fact);
    }
    if let Some(why) = &verified.early_stop {
        let fact = format!("only those of the first {} bytes: {why}", verified.position);
        lines.add("", Emphasis::Bad, &fact);
    }
    if let Some(against) = &verified.against {
        add_comparison(lines, against);
    }
    if let Some(orphans) = &verified.orphans {
        add_orphans(lines, orphans);
    }
}

fn add_comparison(lines: &mut Lines, against: &BlobComparison) {
    let equal = format!(
        "{} equal to the master's in {}, proven by digests",
        count(against.equal, "blob"),
        against.directory
    );
    lines.add("equal", Emphasis::Plain, &equal);
    if let Some(failure) = &against.failure {
        let fact = format!("not all of them: {}", failure.why);
        lines.add("compared", Emphasis::Bad, &fact);
        if let Some(hint) = &failure.hint {
            lines.add("", Emphasis::Plain, &format!("to do: {hint}"));
        }
    }
}

fn add_orphans(lines: &mut Lines, orphans: &Orphans) {
    let (emphasis, fact) = match orphans.count {
        0 => (Emphasis::Plain, "none".to_owned()),
        n => (
            Emphasis::Warning,
            format!(
                "{}, {}, to which the log does not refer",
                count(n, "file"),
                bytes(orphans.bytes)
            ),
        ),
    };
    lines.add("orphans", emphasis, &fact);
    let listed = orphans.listed().take(MAX_PRINTED);
    let printed = listed.len() as u64;
    for path in listed {
        lines.add("", Emphasis::Plain, &path.display().to_string());
    }
    let others = orphans.count - printed;
    if others > 0 {
        let fact = format!("and {others} more; -v logs all of them");
        lines.add("", Emphasis::Plain, &fact);
    }
    if orphans.unreadable_directories > 0 {
        let fact = format!(
            "not searched: directories that cannot be read: {}",
            orphans.unreadable_directories
        );
        lines.add("", Emphasis::Bad, &fact);
    }
}

/// The result of the comparison with the master in a few words; `None` if the blobs are equal, or
/// were not compared.
pub(super) fn verdict(verified: &VerifiedBlobs) -> Option<String> {
    let against = verified.against.as_ref()?;
    let damaged = against.master_damages();
    if damaged > 0 {
        let blobs = count(damaged, "blob");
        return Some(format!("the master has {blobs} DAMAGED"));
    }
    let failure = against.failure.as_ref()?;
    Some(format!(
        "blobs not compared with the master: {}",
        failure.why
    ))
}
