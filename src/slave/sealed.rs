//! Records with a check, of which the ledgers consist.
//!
//! | offset | size | contents |
//! | --- | --- | --- |
//! | 0 | 48 | the body |
//! | 48 | 16 | the check: the start of the BLAKE3 digest of the body and the record's number (8, big-endian) |
//!
//! The check finds a record that is torn, damaged, or in the place of another record.

/// Length of a record in bytes.
pub(super) const RECORD_LEN: usize = 64;

/// Length of its body in bytes.
pub(super) const BODY_LEN: usize = RECORD_LEN - CHECK_LEN;

const CHECK_LEN: usize = 16;

/// A record.
pub(super) type Record = [u8; RECORD_LEN];

/// Adds the check to the body of a record.
pub(super) fn seal(body: [u8; BODY_LEN], number: u64) -> Record {
    let mut record = [0; RECORD_LEN];
    record[..BODY_LEN].copy_from_slice(&body);
    record[BODY_LEN..].copy_from_slice(&check(&body, number));
    record
}

/// The body of a record; `None` if the check fails.
pub(super) fn unseal(record: &Record, number: u64) -> Option<&[u8; BODY_LEN]> {
    let (body, found) = record.split_first_chunk()?;
    (*found == check(body, number)).then_some(body)
}

fn check(body: &[u8; BODY_LEN], number: u64) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body).update(&number.to_be_bytes());
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_LEN]);
    check
}
