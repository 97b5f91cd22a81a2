//! What a slave was before something befell it, and what it may be since (Laws 1 and 2).

use std::fs;
use std::path::Path;

use crate::support::Zodb;

/// What a file of ZODB's without a transaction has.
const WITHOUT_TRANSACTION: &[u8] = b"FS30";

/// A slave, and its master, before something befalls it.
#[derive(Debug, Default)]
pub struct Before {
    /// Its bytes, if it was there.
    pub slave: Option<Vec<u8>>,
    /// Where ZODB found its end.
    pub had: usize,
    /// The master's bytes.
    pub master: Vec<u8>,
    /// Where ZODB found the end of those.
    pub committed: usize,
    /// Whether another program may make one that is empty.
    pub may_be_empty: bool,
    /// Whether it must be kept.
    pub keeps_slave: bool,
    /// How many of its bytes are a tail that must be kept.
    pub tail_len: usize,
}

impl Before {
    /// What there is now.
    pub fn of(slave: &Path, master: &Path, zodb: &mut Zodb) -> Self {
        let mut position = |path: &Path| {
            let found = zodb.check(path);
            found["position"].as_u64().expect("a position") as usize
        };
        let bytes = fs::read(slave).ok();
        Self {
            had: bytes.as_ref().map_or(0, |_| position(slave)),
            slave: bytes,
            master: fs::read(master).expect("the master"),
            committed: position(master),
            may_be_empty: false,
            keeps_slave: false,
            tail_len: 0,
        }
    }

    /// Fails unless what ZODB finds in a slave up to `position` is what it may be: the old
    /// slave; or that, and the transactions of the master's that followed; or, in the
    /// place of an old one that is kept if it must be, all of the master's.
    pub fn assert_sound(&self, slave: &[u8], position: usize, beside: &[(String, Vec<u8>)]) {
        let is_old = match &self.slave {
            Some(old) => old == slave,
            None => self.may_be_empty && slave == WITHOUT_TRANSACTION,
        };
        if is_old {
            return;
        }
        let found = &slave[..position];
        assert!(self.master.starts_with(found), "a start of the master");
        let old = self.slave.as_deref().unwrap_or_default();
        let has_grown = !old.is_empty() && found.starts_with(&old[..self.had]);
        assert!(
            has_grown || position == self.committed,
            "what the slave had is there, or all that the master has: {position} bytes"
        );
        let is_kept = |start: &str, kept: &[u8]| {
            let mut files = beside.iter();
            files.any(|(name, bytes)| name.starts_with(start) && bytes == kept)
        };
        if self.keeps_slave {
            assert!(is_kept("Data.fs.diverged-", old), "set aside");
        }
        // What ZODB cuts anyway may be partly overwritten once it is kept.
        let tail = &old[old.len() - self.tail_len..];
        assert!(
            tail.is_empty() || is_kept("Data.fs.tr", tail),
            "the cut tail is kept"
        );
    }
}

/// Whether a slave is told of that has these bytes, and ends with a transaction.
fn is_told_of(before: &Before, slave: &[u8], beside: &[(&str, &[u8])]) -> bool {
    let beside: Vec<(String, Vec<u8>)> = beside
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
        .collect();
    let check = || before.assert_sound(slave, slave.len(), &beside);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
}

#[test]
fn what_is_lost_is_told_of() {
    let before = Before {
        slave: Some(b"FS30 ab c".to_vec()),
        had: 7,
        master: b"FS30 ab d e f".to_vec(),
        committed: 11,
        may_be_empty: false,
        keeps_slave: false,
        tail_len: 2,
    };
    let kept: (&str, &[u8]) = ("Data.fs.tr0", b" c");
    for (slave, beside, is_lost) in [
        (&b"FS30 ab c"[..], &[][..], false),
        (b"FS30 ab d", &[kept], false),
        (b"FS30 ab d", &[], true),
        (b"FS30 ab", &[kept], false),
        (b"FS30", &[kept], true),
        (b"FS30 ab x", &[kept], true),
    ] {
        assert_eq!(is_told_of(&before, slave, beside), is_lost, "{slave:?}");
    }
    let packed = Before {
        master: b"FS30 b d e f".to_vec(),
        committed: 10,
        keeps_slave: true,
        tail_len: 0,
        ..before
    };
    let kept: (&str, &[u8]) = ("Data.fs.diverged-0", b"FS30 ab c");
    for (slave, beside, is_lost) in [
        (&b"FS30 b d e"[..], &[kept][..], false),
        (b"FS30 b d e", &[], true),
        (b"FS30 b d", &[kept], true),
        (b"FS30", &[kept], true),
    ] {
        assert_eq!(is_told_of(&packed, slave, beside), is_lost, "{slave:?}");
    }
    let first = Before {
        slave: None,
        had: 0,
        keeps_slave: false,
        ..packed
    };
    for (slave, is_lost) in [(&b"FS30 b d e"[..], false), (b"FS30 b d", true)] {
        assert_eq!(is_told_of(&first, slave, &[]), is_lost, "{slave:?}");
    }
}
