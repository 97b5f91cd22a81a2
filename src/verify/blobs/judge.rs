//! Decides about one blob, from the state of its file at both ends and its entry in the ledger.

use super::Wanted;
use crate::io::digest::Digest;
use crate::slave::blobs::BlobState;
use crate::source::blobs::BlobDigest;

/// The file of the slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ours {
    /// It is not there.
    Missing,
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// It is there.
    Present {
        /// Size in bytes.
        size: u64,
        /// Digest; `None` if it was not computed.
        digest: Option<Digest>,
    },
}

/// The file of the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Theirs {
    /// The master was not asked.
    Unknown,
    /// It is not there.
    Missing,
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// It is there.
    Present(BlobDigest),
}

/// The decision about a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The file is as it should be. `is_compared`: with its entry in the ledger, or with the
    /// master.
    Sound {
        /// Whether it was compared.
        is_compared: bool,
    },
    /// The file is missing, which is legitimate.
    NotNeeded,
    /// The file is missing, because passes have not copied it yet.
    NotCopied,
    /// Neither end has the file.
    Absent,
    /// The file is missing, and must be there. `is_at_master`: the master has it.
    Missing {
        /// Whether the master has it; `false` also if it was not asked.
        is_at_master: bool,
    },
    /// The file cannot be read.
    Unreadable(String),
    /// The size is not the recorded one.
    OtherSize {
        /// Expected size in bytes.
        expected: u64,
        /// Actual size in bytes.
        found: u64,
    },
    /// The content is not the recorded one.
    OtherContent,
    /// The file differs from the master's. Nothing shows which of them has changed.
    UnlikeMaster {
        /// Size of the slave's file in bytes.
        ours: u64,
        /// Size of the master's file in bytes.
        theirs: u64,
    },
    /// The file is as the master sent it, and the master's has changed since.
    MasterChanged {
        /// Size of the master's file in bytes.
        theirs: u64,
    },
    /// The master's file is shorter. ZODB does not sync blobs, so a power cut of the master can
    /// have that effect.
    MasterShorter {
        /// Size of the slave's file in bytes.
        ours: u64,
        /// Size of the master's file in bytes.
        theirs: u64,
    },
    /// The file is sound, and only the slave has it.
    OnlyHere,
}

/// Decides about a blob.
pub(super) fn judge(wanted: &Wanted, ours: Ours, theirs: &Theirs) -> Judgement {
    match ours {
        Ours::Missing => judge_missing(wanted, theirs),
        Ours::Unreadable(why) => Judgement::Unreadable(why),
        Ours::Present { size, digest } => judge_file(wanted, size, digest, theirs),
    }
}

fn judge_missing(wanted: &Wanted, theirs: &Theirs) -> Judgement {
    let is_absent_there = match theirs {
        Theirs::Missing => true,
        Theirs::Present(_) | Theirs::Unreadable(_) => false,
        Theirs::Unknown => match wanted.entry {
            Some(BlobState::Absent) => true,
            // The slave had it, so the master did.
            Some(BlobState::Present { .. }) => false,
            None => wanted.is_optional,
        },
    };
    match (is_absent_there, wanted.is_optional) {
        (true, true) => Judgement::NotNeeded,
        (true, false) => Judgement::Absent,
        // An optional file is copied if the master has it.
        (false, _) if wanted.is_due => Judgement::Missing {
            is_at_master: *theirs != Theirs::Unknown,
        },
        (false, _) => Judgement::NotCopied,
    }
}

fn judge_file(wanted: &Wanted, size: u64, digest: Option<Digest>, theirs: &Theirs) -> Judgement {
    let recorded = match wanted.entry {
        Some(BlobState::Present { size, digest }) => Some((size, digest)),
        // The file came after the entry.
        Some(BlobState::Absent) | None => None,
    };
    // The ledger proves that the slave's own file has changed, whatever the master has now.
    if let Some((expected, recorded_digest)) = recorded {
        if size != expected {
            let found = size;
            return Judgement::OtherSize { expected, found };
        }
        if digest.is_some_and(|digest| !recorded_digest.is_of(&digest)) {
            return Judgement::OtherContent;
        }
    }
    let theirs = match theirs {
        Theirs::Unknown | Theirs::Unreadable(_) => {
            let is_compared = recorded.is_some();
            return Judgement::Sound { is_compared };
        }
        Theirs::Missing if wanted.is_optional => {
            let is_compared = recorded.is_some();
            return Judgement::Sound { is_compared };
        }
        Theirs::Missing => return Judgement::OnlyHere,
        Theirs::Present(theirs) => theirs,
    };
    let is_equal = theirs.size == size && digest.is_none_or(|digest| digest == theirs.digest);
    if is_equal {
        Judgement::Sound { is_compared: true }
    } else if theirs.size < size {
        Judgement::MasterShorter {
            ours: size,
            theirs: theirs.size,
        }
    } else if recorded.is_some() && digest.is_some() {
        Judgement::MasterChanged {
            theirs: theirs.size,
        }
    } else {
        Judgement::UnlikeMaster {
            ours: size,
            theirs: theirs.size,
        }
    }
}

#[cfg(test)]
mod tests;
