//! The kinds of findings: their names, severities, files, and advice.

use serde::{Serialize, Serializer};

use super::{File, Severity};

/// Declares the kinds, the list of all of them, and their names.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The kinds of findings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name in reports and in the manual.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// The file is not a FileStorage.
    Magic = "magic",
    /// The header of a transaction is invalid.
    TransactionHeader = "transaction-header",
    /// The two lengths of a transaction differ, or exceed the file.
    TransactionLength = "transaction-length",
    /// A transaction is marked as unfinished, although whole transactions follow.
    UnfinishedWithin = "unfinished-within",
    /// A data record does not fit into its transaction.
    DataRecord = "data-record",
    /// The tid of a data record is not that of its transaction.
    DataTid = "data-tid",
    /// A back pointer does not lead to an earlier data record of the object.
    BackPointer = "back-pointer",
    /// Bytes cannot be read from the disk.
    Unreadable = "unreadable",
    /// A data record does not point to the previous record of its object.
    PreviousPointer = "previous-pointer",
    /// A tid is not higher than the one before it.
    TidReduction = "tid-reduction",
    /// ZODB does not write transactions of this status.
    OddStatus = "odd-status",
    /// The file is shorter than the last pass left it.
    Shortened = "shortened",
    /// Bytes differ from those that the master sent.
    Digest = "digest",
    /// The file ends before bytes that were committed and durable.
    Lost = "lost",
    /// The ledger is damaged, so some bytes have no digest.
    Ledger = "ledger",
    /// The index is wrong about an object.
    IndexObject = "index-object",
    /// The index is of a position that is not one of the file, and ZODB would use it or fail on
    /// it.
    IndexPosition = "index-position",
    /// The index has a form that fssync does not know; ZODB may know it.
    IndexForm = "index-form",
    /// The file of a blob is missing.
    BlobMissing = "blob-missing",
    /// The file of a blob differs from the one that the master sent, or has.
    BlobDifferent = "blob-different",
    /// The file of a blob cannot be read, or is not a regular file.
    BlobUnreadable = "blob-unreadable",
    /// Blobs of which the master does not have the files either.
    BlobAbsent = "blob-absent",
    /// The master's file of a blob is shorter than the slave's.
    MasterBlobShorter = "master-blob-shorter",
    /// The master's file of a blob has changed since the master sent it.
    MasterBlobDifferent = "master-blob-different",
    /// The master's file of a blob cannot be read, or is not a regular file.
    MasterBlobUnreadable = "master-blob-unreadable",
    /// The master's file of a blob is missing, and the slave has it.
    MasterBlobMissing = "master-blob-missing",
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Kind {
    /// Severity of this kind.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::PreviousPointer
            | Self::TidReduction
            | Self::OddStatus
            | Self::Shortened
            | Self::Ledger
            | Self::IndexForm
            | Self::BlobAbsent
            | Self::MasterBlobShorter
            | Self::MasterBlobDifferent
            | Self::MasterBlobUnreadable
            | Self::MasterBlobMissing => Severity::Blemish,
            _ => Severity::Damage,
        }
    }

    /// The file that contains this kind of fault.
    #[must_use]
    pub fn file(self) -> File {
        match self {
            Self::IndexObject | Self::IndexPosition | Self::IndexForm => File::Index,
            Self::Ledger => File::Ledger,
            Self::BlobMissing
            | Self::BlobDifferent
            | Self::BlobUnreadable
            | Self::BlobAbsent
            | Self::MasterBlobShorter
            | Self::MasterBlobDifferent
            | Self::MasterBlobUnreadable
            | Self::MasterBlobMissing => File::Blob,
            _ => File::Data,
        }
    }

    /// The recommended action.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Magic => {
                "find out which file this is, and move it away; the next pass then creates a slave"
            }
            Self::TransactionHeader
            | Self::TransactionLength
            | Self::UnfinishedWithin
            | Self::DataRecord
            | Self::DataTid
            | Self::BackPointer => {
                "check whether the master has it too; if not, replace the slave with \
                 `fssync --full`, and check the disk and the memory"
            }
            Self::Digest => {
                "run `fssync verify --against MASTER` to find the transactions that differ; \
                 replace the slave with `fssync --full`, and check the disk and the memory"
            }
            Self::Lost => {
                "another program truncated the slave: replace it with `fssync --full`, and find \
                 that program"
            }
            Self::Ledger => {
                "remove the ledger: the next passes rebuild it from digests of the master"
            }
            Self::Unreadable => {
                "the disk fails: move the slave to another disk with `fssync --full`"
            }
            Self::PreviousPointer | Self::TidReduction | Self::OddStatus => {
                "nothing, if the master has it too: ZODB opens the file in spite of it"
            }
            Self::Shortened => {
                "nothing, if ZODB packed the slave; otherwise another program truncated it, and \
                 the next pass appends the missing transactions"
            }
            Self::IndexObject | Self::IndexPosition | Self::IndexForm => {
                "remove the index: the next pass rebuilds it; until then, ZODB reads the whole \
                 file when it opens it"
            }
            Self::BlobMissing | Self::BlobDifferent => {
                "fetch it from the master with `fssync --recheck-blobs`; if more blobs are wrong, \
                 check the disk"
            }
            Self::BlobUnreadable => {
                "if the disk fails, move the blobs to another disk; otherwise, move the file away, \
                 and fetch it from the master with `fssync --recheck-blobs`"
            }
            Self::BlobAbsent => {
                "nothing, if ZODB packed the master as a <blobstorage>: it removes the files of \
                 some old revisions; otherwise, restore them on the master from a backup"
            }
            Self::MasterBlobShorter => {
                "copy the slave's file to the master: ZODB does not sync blobs, so the master \
                 probably lost the end of the file in a power cut"
            }
            Self::MasterBlobDifferent => {
                "copy the slave's file to the master, and check the master's disk and memory"
            }
            Self::MasterBlobUnreadable => {
                "check the master's disk; replace the file there by the slave's, or by that of a \
                 backup"
            }
            Self::MasterBlobMissing => {
                "nothing, if the master was packed since the last pass, or is a <blobstorage>; \
                 otherwise, copy the slave's file to the master"
            }
        }
    }
}
