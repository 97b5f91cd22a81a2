//! Which transactions a slave must contain, by the slave and the master before the actor ran
//! (Laws 1 and 2).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use fssync::filestorage::MAGIC_LEN;
use fssync::filestorage::extract::extract;
use fssync::filestorage::scan::{Event, Scanner};

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
    /// The slave's transactions that must be set aside if it is rewound.
    pub own: Option<Own>,
}

/// Transactions that only the slave has, at its end.
#[derive(Debug)]
pub struct Own {
    /// Where they start, in bytes. Slave and master are the same up to there.
    pub fork: usize,
    /// The file that contains them once they are set aside.
    pub set_aside: Vec<u8>,
}

impl Own {
    /// The transactions of the slave after its common prefix with the master.
    pub fn of(slave: &[u8], slave_position: usize, master: &[u8]) -> Self {
        let differ = slave.iter().zip(master).position(|(a, b)| a != b);
        let equal = differ.unwrap_or(slave.len().min(master.len()));
        let mut fork = MAGIC_LEN as usize;
        let mut scanner = Scanner::new(slave_position as u64);
        scanner.feed(&slave[fork..slave_position], &mut |event| {
            if let Event::Transaction(transaction) = event
                && transaction.end as usize <= equal
            {
                fork = transaction.end as usize;
            }
        });
        let mut set_aside = Vec::new();
        let range = fork as u64..slave_position as u64;
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(slave).expect("its bytes");
        extract(&mut &file, range, &mut set_aside).expect("its last transactions");
        Self { fork, set_aside }
    }
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
            own: None,
        }
    }

    /// Checks the bytes of a slave in which ZODB finds this position, and the files in its
    /// directory. The slave must be one of these:
    ///
    /// 1. the old slave, unchanged;
    /// 2. the transactions of the old slave, followed by some of the master's;
    /// 3. all transactions of the master. The old slave is set aside if it must be;
    /// 4. if it is rewound: a prefix of the master that contains the common one. The slave's own
    ///    transactions are set aside.
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
        let own = self.own.as_ref();
        let is_rewound = own.is_some_and(|own| position >= own.fork);
        assert!(
            has_grown || is_rewound || position == self.master_position,
            "all transactions of the slave or of the master: {position} bytes"
        );
        let is_saved = |start: &str, saved: &[u8]| {
            let mut files = files.iter();
            files.any(|(name, bytes)| name.starts_with(start) && bytes == saved)
        };
        if self.keeps_slave {
            let kept = own.map_or(old, |own| &own.set_aside);
            assert!(is_saved("Data.fs.diverged-", kept), "set aside");
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
        own: None,
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
    let rewound = Before {
        slave: Some(b"FS30 ab c".to_vec()),
        slave_position: 9,
        own: Some(Own {
            fork: 7,
            set_aside: b"FS30 c".to_vec(),
        }),
        master: b"FS30 ab d e f".to_vec(),
        master_position: 13,
        may_be_empty: false,
        keeps_slave: true,
        tail_len: 0,
    };
    let saved: (&str, &[u8]) = ("Data.fs.diverged-0-1", b"FS30 c");
    for (slave, files, is_lost) in [
        (&b"FS30 ab c"[..], &[][..], false),
        (b"FS30 ab", &[saved], false),
        (b"FS30 ab d", &[saved], false),
        (b"FS30 ab", &[], true),
        (b"FS30", &[saved], true),
        (b"FS30 ab cd", &[saved], true),
    ] {
        assert_eq!(is_found(&rewound, slave, files), is_lost, "{slave:?}");
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
