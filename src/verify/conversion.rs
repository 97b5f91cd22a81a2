//! What a scan and the checker find, told as findings.

use super::finding::{Finding, Kind};
use crate::filestorage::TxnStatus;
use crate::filestorage::check::{Flaw, FlawKind};
use crate::filestorage::scan::{Cause, Damage, Record};

/// A flaw, in words.
pub(super) fn of_flaw(flaw: Flaw) -> Finding {
    let (kind, expected, found) = match flaw.what {
        FlawKind::TidReduction(last) => (
            Kind::TidReduction,
            format!("a tid above {last}"),
            flaw.tid.to_string(),
        ),
        FlawKind::OddStatus(TxnStatus(byte)) => (
            Kind::OddStatus,
            "status ' ', 'p' or 'u'".to_owned(),
            format!("'{}'", byte.escape_ascii()),
        ),
        FlawKind::DataTid(found) => (
            Kind::DataTid,
            format!("tid {}", flaw.tid),
            found.to_string(),
        ),
        FlawKind::Prev { expected, found } => (
            Kind::PreviousPointer,
            format!("previous record at {expected}"),
            found.to_string(),
        ),
        FlawKind::BackPointer(found) => (
            Kind::BackPointer,
            "a pointer to an earlier data record of the object".to_owned(),
            found.to_string(),
        ),
    };
    Finding {
        tid: Some(flaw.tid),
        oid: flaw.oid,
        ..Finding::new(kind, flaw.position, expected, found)
    }
}

/// What makes ZODB panic, in words.
pub(super) fn of_damage(damage: &Damage) -> Finding {
    let kind = match (damage.record, damage.cause) {
        (Record::Data, _) => Kind::DataRecord,
        (_, Cause::RedundantLength { .. }) => Kind::TransactionLength,
        _ => Kind::TransactionHeader,
    };
    let (expected, found) = match damage.cause {
        Cause::Status(byte) => ("an ASCII status".to_owned(), format!("byte 0x{byte:02x}")),
        Cause::ShorterThanHeader { tlen, header_len } => (
            format!("a length of at least {header_len}"),
            tlen.to_string(),
        ),
        Cause::RedundantLength { expected, found } => (
            format!("length {expected} at its end too"),
            found.to_string(),
        ),
        Cause::ExceedsTransaction(end) => (
            format!("data records that end with their transaction, at {end}"),
            "one that does not".to_owned(),
        ),
        Cause::Tloc { expected, found } => (
            format!("the position of its transaction, {expected}"),
            found.to_string(),
        ),
        Cause::Version(len) => ("no version name".to_owned(), format!("one of {len} bytes")),
    };
    Finding::new(kind, damage.position, expected, found)
}

/// A transaction at `start` that is marked as unfinished, in words.
pub(super) fn of_unfinished(start: u64) -> Finding {
    Finding::new(
        Kind::UnfinishedWithin,
        start,
        "a finished transaction, as whole ones follow",
        "status 'c': ZODB cuts the file here",
    )
}

/// A transaction at `start` that reaches past the end of the file, though more
/// follows, in words.
pub(super) fn of_length(start: u64) -> Finding {
    Finding::new(
        Kind::TransactionLength,
        start,
        "a length that ends in the file",
        "one that ends behind it: ZODB cuts the file here",
    )
}

/// A tail on which ZODB fails, in words: it looks at the status before the length.
pub(super) fn of_tail(start: u64, status: u8) -> Finding {
    Finding::new(
        Kind::TransactionHeader,
        start,
        "the end of the file, or a transaction with an ASCII status",
        format!("byte 0x{status:02x}, on which ZODB fails; the next pass cuts it"),
    )
}
