//! The slave's blob directory. Only this module writes there.
//!
//! | module | responsibility |
//! | --- | --- |
//! | `locate` | finds the path of the blob directory |
//! | `set_up` | creates the blob directory, or adopts one |
//! | `directory` | an open blob directory: its layout, its id, and the blobs in it |
//! | `tree` | opens everything below the blob directory, without following symbolic links |
//! | `ownership` | owner and mode of new files and directories |
//! | `tmp` | the temporary files of blobs that are being received |
//! | `group` | receives blobs and places them |
//! | `aside` | a second name for the blobs of a slave that is set aside |
//! | `gone` | blobs that the log no longer refers to, and their removal |
//! | `ledger` | sizes and digests of the blobs |
//! | `walk` | finds all blob files |
//! | `touched`, `whole_sync` | the directories that must be synced; syncs of the whole file system |
//! | `synced` | directories that need not be synced again |
//! | `rename` | a rename that replaces nothing |
//! | `steps` | changes in steps of limited length |
//!
//! # Order of writes
//!
//! The blobs of a batch of transactions are durable before the batch becomes visible
//! ([`append`](super::append)). The phases count on from its phase 1, in which the header of the
//! batch was written. A [`BlobGroup`] carries out phases 2 to 5.
//!
//! 2. *Receive:* write each blob to `.fssync/tmp/<oid>-<tid>`; set its owner, mode and time of
//!    modification.
//! 3. *Sync:* sync each of these files.
//! 4. *Place:* in steps, create missing directories and move each file into place.
//! 5. *Sync the names:* sync each directory that contains such a file, and all directories above
//!    it up to the blob directory. Sync the files and directories of found blobs as well.
//! 6. *Commit:* sync the log and write the true status of the batch, as `append` does.
//!
//! If many blobs are wanted, batches of them pass through 3 and 4 in another thread while the next
//! ones are received. 5 follows once for all of them, and 6 after it, so each blob is durable before
//! it gets its name, and each name before the log refers to it.
//!
//! From 64 files on, one sync of the whole file system replaces the syncs of 3, or those of 5, if
//! it can be trusted (`whole_sync`). A directory that this process has synced before is synced again
//! only if it has changed (`synced`).
//!
//! # State after a crash (Law 7)
//!
//! A killed process and a power cut differ here: after a kill, all writes are there, but some
//! may not be durable yet.
//!
//! | crash | left | the next pass |
//! | --- | --- | --- |
//! | in phase 2 or 3 | temporary files; the batch is not visible | removes them; large ones are resumed if they prove to be the start of the master's file |
//! | in phase 4 or 5 | some blobs in place, perhaps without durable names; the batch is not visible | finds them and syncs them, or receives them again |
//! | in phase 6 | all blobs, durable | finds the batch visible or not |
//!
//! 1. *A blob in place is complete.* Its content, owner, mode and time are durable (3) before it
//!    gets its name (4). If the rename came first, a power cut could leave a file of the right size
//!    with other bytes, and a comparison of sizes would not find it.
//! 2. *A visible transaction has its blobs.* Their names are durable (5) before the batch is
//!    committed (6).
//! 3. *A pass was killed in phase 4 or 5.* Its blobs are in place but perhaps not durable. The next
//!    pass syncs each blob that it finds, the directory of the blob, and all directories above.
//!    It cannot know which of them the killed pass had created.
//! 4. *A sync fails.* A temporary file whose sync failed is removed and never gets a name. The pass
//!    stops, so the batch does not become visible.
//! 5. *A directory is created.* If this process is ZEO's user, or root for a blob directory of root,
//!    the directory has the right owner from the start. Otherwise it is created under a temporary
//!    name and gets its owner and mode there. So a kill leaves no directory that ZEO's user cannot
//!    use. Neither does a power cut if the file system keeps changes of metadata in their order, as
//!    ext4 with a journal, XFS and Btrfs do. Other file systems may keep the new name and lose owner
//!    and mode, until the directory is synced (5). No visible transaction needs the directory then,
//!    but later passes use it as it is. A sync before each rename would prevent that, but it takes
//!    milliseconds for each new directory, during which the step keeps ZODB from opening the slave.
//! 6. *Another file is in the place of a blob.* It gets a second name in `.fssync/replaced`,
//!    durably, before the blob replaces it. No moment is without a file, and no file is deleted.
//! 7. *The reception ends early, or a batch cannot be placed.* The other thread has ended before the
//!    pass ends. Batches that it has placed are found as in 3; temporary files are removed.
//! 8. *The disk is full.* The write, the creation of a directory or the rename fails. The group
//!    removes its temporary files.
//!
//! # After `fssync off` has returned (Law 4)
//!
//! Files and directories that ZODB can open are created, replaced, linked and removed in steps
//! only, so the argument of [`step`](super::step) applies: a step ends before `off` returns, or it
//! finds the switch off and changes nothing. That is the case in each thread, since each takes its
//! own steps. Outside of steps, a pass may write and remove files in `.fssync/tmp`, which ZODB never
//! opens, and sync files. It reads the switches once for a blob of one piece, and before each further
//! piece, only to end soon.
//!
//! Nothing below the blob directory is opened through a symbolic link (`tree`): a user who may
//! write there cannot redirect a process of root to files elsewhere.

mod aside;
mod directory;
mod gone;
mod group;
mod ledger;
mod locate;
mod ownership;
mod rename;
mod set_up;
mod steps;
mod synced;
mod tmp;
mod touched;
mod tree;
mod walk;
mod whole_sync;

#[cfg(test)]
mod test_support;

pub use self::aside::{AsideLinker, BlobsAside, BlobsOf};
pub use self::directory::{BlobDirectory, PlacedBlob};
pub use self::gone::{GoneList, GoneWriter, RemovalLimits, Removed};
pub use self::group::{BlobGroup, BlobRecord, StagedBlob};
pub use self::ledger::{BlobEntries, BlobEntry, BlobLedger, BlobState, ShortDigest};
pub use self::synced::SyncedDirectories;
pub use self::tmp::Leftovers;
pub use self::walk::BlobVisitor;
