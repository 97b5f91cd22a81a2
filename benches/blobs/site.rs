//! A master with blobs, and the directories of its copies.

use std::cell::RefCell;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fssync::filestorage::blob::{BlobKey, LAYOUT_FILE, Layout};
use tempfile::TempDir;

use crate::shared::command::{Argv, argv, calm, must, text};
use crate::shared::generate::Generator;
use crate::shared::place::Place;

/// The name of both blob directories, which fssync finds beside `Data.fs`.
const BLOBS: &str = "blobstorage";

/// The number of blobs of a transaction.
const PER_TRANSACTION: u64 = 4;

/// A master with blobs, its slave, and the copy that another program makes.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) place: Place,
    /// The directory of the other program's copy.
    pub(crate) peer: PathBuf,
    generator: RefCell<Generator>,
    /// The content of every blob, except for its first bytes.
    content: Vec<u8>,
}

impl Site {
    /// Creates a master without transactions, whose blobs will have `blob_len` bytes.
    pub(crate) fn create(directory: &Path, blob_len: usize) -> io::Result<Self> {
        let place = Place::create(directory)?;
        let mut content = vec![0; blob_len];
        rustix::rand::getrandom(&mut content, rustix::rand::GetRandomFlags::empty())?;
        let site = Self {
            generator: RefCell::new(Generator::create(&place.master)?),
            peer: directory.join("peer"),
            place,
            content,
        };
        fs::create_dir(site.master_blobs())?;
        fs::write(
            site.master_blobs().join(LAYOUT_FILE),
            Layout::Bushy.as_str(),
        )?;
        Ok(site)
    }

    /// Commits `count` new blobs to the master, and syncs.
    pub(crate) fn commit(&self, count: u64) -> io::Result<()> {
        let blobs = self.master_blobs();
        let make_file = |key| self.make_file(&blobs, key);
        let mut generator = self.generator.borrow_mut();
        generator.append_blobs(count, PER_TRANSACTION, make_file)?;
        calm(&self.place.directory)
    }

    /// Commits `count` new blobs, in transactions of `per_transaction`, without their files.
    pub(crate) fn commit_without_files(&self, count: u64, per_transaction: u64) -> io::Result<()> {
        let mut generator = self.generator.borrow_mut();
        generator.append_blobs(count, per_transaction, |_| Ok(()))
    }

    fn make_file(&self, blobs: &Path, key: BlobKey) -> io::Result<()> {
        let path = blobs.join(Layout::Bushy.path(key));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = File::create_new(path)?;
        let number = key.oid.to_be_bytes();
        let number = &number[..number.len().min(self.content.len())];
        file.write_all(number)?;
        file.write_all(&self.content[number.len()..])?;
        // As ZODB does.
        file.set_permissions(Permissions::from_mode(0o444))
    }

    /// The end of the master's log, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.generator.borrow().position()
    }

    pub(crate) fn master_blobs(&self) -> PathBuf {
        self.place.directory.join("master").join(BLOBS)
    }

    pub(crate) fn slave_blobs(&self) -> PathBuf {
        self.place.directory.join("slave").join(BLOBS)
    }

    /// Whether the slave has the whole log of the master.
    pub(crate) fn is_followed(&self) -> io::Result<bool> {
        Ok(self.place.slave.metadata()?.len() == self.position())
    }

    /// Puts both copies away, so that the next ones are first copies. They are removed at the end
    /// of the benchmark: for minutes after a removal, ext4 skips the removed inodes one by one
    /// whenever it creates a file (`recently_deleted` in fs/ext4/ialloc.c). That took half of the
    /// processor time of a copy.
    pub(crate) fn put_copies_away(&self) -> io::Result<()> {
        for directory in [&self.place.directory.join("slave"), &self.peer] {
            if directory.exists() {
                let away = TempDir::with_prefix_in("earlier-", &self.place.directory)?.keep();
                fs::rename(directory, away)?;
            }
            fs::create_dir(directory)?;
        }
        calm(&self.place.directory)
    }

    /// Fails if the slave differs from the master: a time counts only if the work was done.
    pub(crate) fn assert_equal(&self) -> io::Result<()> {
        self.place.assert_equal()?;
        let directories = [&self.master_blobs(), &self.slave_blobs()];
        must(&argv("diff -r -q -x .fssync -x tmp", &directories))
    }

    /// A pass with these options, as cron would run it.
    pub(crate) fn pass(&self, options: &[&str]) -> Argv {
        let mut pass = argv(env!("CARGO_BIN_EXE_fssync"), &[]);
        pass.push("-q".to_owned());
        pass.extend(options.iter().map(|&option| option.to_owned()));
        pass.extend([&self.place.master, &self.place.slave].map(|path| text(path)));
        pass
    }
}
