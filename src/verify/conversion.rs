//! Converts damage and flaws, as the scanner and the checker report them, into findings.

use super::finding::{Finding, Kind};
use crate::filestorage::TxnStatus;
use crate::filestorage::check::{Flaw, FlawKind};
use crate::filestorage::scan::{Cause, Damage, Record};

/// The finding for a flaw.
pub(super) fn of_flaw(flaw: Flaw) -> Finding {
    let (kind, expected, found) = match flaw.kind {
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

/// The finding for damage that makes ZODB fail.
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
            format!("the same length, {expected}, at its end"),
            found.to_string(),
        ),
        Cause::ExceedsTransaction(end) => (
            format!("data records that end with their transaction, at {end}"),
            "a data record that exceeds it".to_owned(),
        ),
        Cause::Tloc { expected, found } => (
            format!("the position of its transaction, {expected}"),
            found.to_string(),
        ),
        Cause::Version(len) => (
            "no version name".to_owned(),
            format!("a version name of {len} bytes"),
        ),
    };
    Finding::new(kind, damage.position, expected, found)
}

/// The finding for a transaction at offset `start` that is marked as unfinished, although whole
/// transactions follow.
pub(super) fn of_unfinished(start: u64) -> Finding {
    Finding::new(
        Kind::UnfinishedWithin,
        start,
        "a finished transaction, because whole transactions follow",
        "status 'c', at which ZODB truncates the file",
    )
}

/// The finding for a transaction at offset `start` that exceeds the file, although whole
/// transactions follow.
pub(super) fn of_length(start: u64) -> Finding {
    Finding::new(
        Kind::TransactionLength,
        start,
        "a record that fits within the file",
        "a length that exceeds it; ZODB truncates the file here",
    )
}

/// The finding for a tail on which ZODB fails, because it decodes the status before it checks the
/// length.
pub(super) fn of_tail(start: u64, status: u8) -> Finding {
    Finding::new(
        Kind::TransactionHeader,
        start,
        "the end of the file, or a transaction with an ASCII status",
        format!("status byte 0x{status:02x}, on which ZODB fails; the next pass truncates it"),
    )
}
