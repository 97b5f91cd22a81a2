//! Which transactions a slave must contain, by the slave and the master before the actor ran
//! (Laws 1 and 2).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::Zodb;

/// A file of ZODB's without a transaction.
const WITHOUT_TRANSACTION: &[u8] = b"FS30";

/// A slave and its master before the actor runs.
#[derive(Debug, Default)]
pub struct Before {
    /// The bytes of the slave, if there is one.
    pub slave: Option<Vec<u8>>,
    /// The position that ZODB finds in the slave.
    pub slave_position: usize,
    /// The bytes of the master.
    pub master: Vec<u8>,
    /// The position that ZODB finds in the master.
    pub master_position: usize,
    /// Whether another program may create an empty slave.
    pub may_be_empty: bool,
    /// Whether the slave must be set aside if it is replaced.
    pub keeps_slave: bool,
    /// The length of the slave's tail that must be saved, in bytes.
    pub tail_len: usize,
}

impl Before {
    /// Reads both files; nothing must be kept or saved.
    pub fn of(slave: &Path, master: &Path, zodb: &mut Zodb) -> Self {
        let mut position = |path: &Path| {
            let found = zodb.check(path);
            found["position"].as_u64().expect("a position") as usize
        };
        let bytes = fs::read(slave).ok();
        Self {
            slave_position: bytes.as_ref().map_or(0, |_| position(slave)),
            slave: bytes,
            master: fs::read(master).expect("the master"),
            master_position: position(master),
            may_be_empty: false,
            keeps_slave: false,
            tail_len: 0,
        }
    }

    /// Checks the bytes of a slave in which ZODB finds this position, and the files in its
    /// directory. The slave must be one of these:
    ///
    /// 1. the old slave, unchanged;
    /// 2. the transactions of the old slave, followed by some of the master's;
    /// 3. all transactions of the master. The old slave is set aside if it must be.
    pub fn assert_sound(&self, slave: &[u8], position: usize, files: &BTreeMap<String, Vec<u8>>) {
        let is_old = match &self.slave {
            Some(old) => old == slave,
            None => self.may_be_empty && slave == WITHOUT_TRANSACTION,
        };
        if is_old {
            return;
        }
        let found = &slave[..position];
        assert!(self.master.starts_with(found), "a prefix of the master");
        let old = self.slave.as_deref().unwrap_or_default();
        let has_grown = !old.is_empty() && found.starts_with(&old[..self.slave_position]);
        assert!(
            has_grown || position == self.master_position,
            "all transactions of the slave or of the master: {position} bytes"
        );
        let is_saved = |start: &str, saved: &[u8]| {
            let mut files = files.iter();
            files.any(|(name, bytes)| name.starts_with(start) && bytes == saved)
        };
        if self.keeps_slave {
            assert!(is_saved("Data.fs.diverged-", old), "set aside");
        }
        // Once the tail is saved, a part of it may be overwritten.
        let tail = &old[old.len() - self.tail_len..];
        assert!(
            tail.is_empty() || is_saved("Data.fs.tr", tail),
            "the truncated tail is saved"
        );
    }
}

/// Whether the check fails for a slave that ends with a transaction.
fn is_found(before: &Before, slave: &[u8], files: &[(&str, &[u8])]) -> bool {
    let files = files.iter();
    let files = files.map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
    let files = files.collect();
    let check = || before.assert_sound(slave, slave.len(), &files);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
}

#[test]
fn lost_transactions_are_found() {
    let before = Before {
        slave: Some(b"FS30 ab c".to_vec()),
        slave_position: 7,
        master: b"FS30 ab d e f".to_vec(),
        master_position: 11,
        may_be_empty: false,
        keeps_slave: false,
        tail_len: 2,
    };
    let saved: (&str, &[u8]) = ("Data.fs.tr0", b" c");
    for (slave, files, is_lost) in [
        (&b"FS30 ab c"[..], &[][..], false),
        (b"FS30 ab d", &[saved], false),
        (b"FS30 ab d", &[], true),
        (b"FS30 ab", &[saved], false),
        (b"FS30", &[saved], true),
        (b"FS30 ab x", &[saved], true),
    ] {
        assert_eq!(is_found(&before, slave, files), is_lost, "{slave:?}");
    }
    let packed = Before {
        master: b"FS30 b d e f".to_vec(),
        master_position: 10,
        keeps_slave: true,
        tail_len: 0,
        ..before
    };
    let saved: (&str, &[u8]) = ("Data.fs.diverged-0", b"FS30 ab c");
    for (slave, files, is_lost) in [
        (&b"FS30 b d e"[..], &[saved][..], false),
        (b"FS30 b d e", &[], true),
        (b"FS30 b d", &[saved], true),
        (b"FS30", &[saved], true),
    ] {
        assert_eq!(is_found(&packed, slave, files), is_lost, "{slave:?}");
    }
    let first = Before {
        slave: None,
        slave_position: 0,
        keeps_slave: false,
        ..packed
    };
    for (slave, is_lost) in [(&b"FS30 b d e"[..], false), (b"FS30 b d", true)] {
        assert_eq!(is_found(&first, slave, &[]), is_lost, "{slave:?}");
    }
}
