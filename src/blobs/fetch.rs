//! Fetches wanted blobs, group by group.
//!
//! A group is fetched in rounds. In each round the master is asked for the blobs that are
//! still open:
//!
//! 1. *The slave has no file:* the content arrives and is staged.
//! 2. *The slave has a file of the same size and time:* it is kept. If only the size is the
//!    same, the digests decide; a different file is requested again in the next round.
//! 3. *The master has no file, but the slave has one:* it is kept. A power cut can take a blob
//!    from the master, because ZODB does not sync blobs.
//! 4. *Neither has a file:* if the master's blobs are on NFS, it is asked again for a second, since its
//!    client may not see a new file yet. Then the log decides. If another file has the name of
//!    the master's log, a pack has removed the blob, and the pass starts over. Otherwise the
//!    blob is *absent*. That can be legitimate: a pack of `<blobstorage>` removes blobs to
//!    which only back pointers refer. So the pass counts it, warns, and goes on.
//!
//! After the last round the whole group is made durable at once.

use std::mem;
use std::path::Path;
use std::time::Duration;

use super::receive::{Received, Receiver};
use super::request::{Request, State};
use crate::error::Error;
use crate::error::retry;
use crate::filestorage::blob::{BlobKey, BlobReference};
use crate::human::count;
use crate::io::progress::Monitor;
use crate::slave::blobs::{BlobDirectory, BlobEntry, BlobGroup, BlobLedger, BlobState, Leftovers};
use crate::slave::step::Slave;
use crate::source::blobs::{BlobRoot, HaveBlob};
use crate::source::{Master, MasterStat};

/// How many blobs become durable together, if transactions wait for them.
pub const GROUP_LEN: usize = 512;

/// How many blobs become durable together, if no transaction becomes visible meanwhile.
pub const LARGE_GROUP_LEN: usize = 5000;

/// The delays before a master with blobs on NFS is asked again for absent blobs.
const NETWORK_DELAYS: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(300),
    Duration::from_millis(600),
];

/// If this many first blobs are all absent, the master's blob directory is the wrong one.
const MANY: usize = 20;

/// The two ends between which blobs are copied.
#[derive(Clone, Copy, Debug)]
pub struct BlobEnds<'a> {
    /// The slave.
    pub slave: &'a Slave,
    /// Its blob directory.
    pub directory: &'a BlobDirectory,
    /// The master.
    pub master: &'a Master,
    /// The master's log, as the pass has found it.
    pub master_stat: &'a MasterStat,
    /// The master's blob directory, if the user has named it.
    pub master_directory: Option<&'a str>,
}

impl BlobEnds<'_> {
    /// Those of the blobs that the slave does not have.
    pub(super) fn missing(
        &self,
        keys: impl IntoIterator<Item = BlobKey>,
    ) -> Result<Vec<BlobKey>, Error> {
        let mut missing = Vec::new();
        for key in keys {
            self.slave.check_cancelled()?;
            if self.directory.stat(key)?.is_none() {
                missing.push(key);
            }
        }
        Ok(missing)
    }
}

/// Number of blobs that a [`BlobFetcher`] has handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Number of blobs that the slave has.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Those of them whose content was received.
    pub received: Received,
    /// Number of blobs that neither end has.
    pub absent: u64,
    /// Number of blobs that were recognised by their size and time, so the ledger may lack their
    /// digests.
    pub undigested: u64,
}

impl Fetched {
    /// Adds the numbers of a later call.
    pub fn add(&mut self, later: Self) {
        self.files += later.files;
        self.bytes += later.bytes;
        self.received.files += later.received.files;
        self.received.bytes += later.received.bytes;
        self.absent += later.absent;
        self.undigested += later.undigested;
    }
}

/// Fetches the blobs of one log.
pub struct BlobFetcher<'a> {
    ends: BlobEnds<'a>,
    monitor: &'a dyn Monitor,
    /// The master's blob directory, once it was asked for.
    root: Option<BlobRoot>,
    /// Whether blobs that are there are compared by their digests, even if their times agree.
    compares_digests: bool,
    /// Whether temporary files of earlier passes were removed.
    is_clean: bool,
    /// Whether no blob was found at the master yet, so that its directory may be the wrong one.
    is_unproven: bool,
    group_len: usize,
    batch_len: usize,
    wanted: Vec<BlobReference>,
    fetched: Fetched,
    /// The ledger of digests, once there was one to record.
    ledger: Option<BlobLedger>,
}

impl<'a> BlobFetcher<'a> {
    /// Prepares to fetch blobs in groups of this length. Connects to nothing.
    #[must_use]
    pub fn new(ends: BlobEnds<'a>, group_len: usize, monitor: &'a dyn Monitor) -> Self {
        Self {
            ends,
            monitor,
            root: None,
            compares_digests: false,
            is_clean: false,
            is_unproven: false,
            group_len,
            batch_len: usize::MAX,
            wanted: Vec::new(),
            fetched: Fetched::default(),
            ledger: None,
        }
    }

    /// Places this many received blobs of a group at once while others are being received.
    #[must_use]
    pub fn in_batches(self, batch_len: usize) -> Self {
        Self { batch_len, ..self }
    }

    /// With `true`: compares blobs that are there by their digests, even if their times agree.
    #[must_use]
    pub fn comparing_digests(self, compares_digests: bool) -> Self {
        Self {
            compares_digests,
            ..self
        }
    }

    /// With `true`: fails if the master has none of the first blobs.
    #[must_use]
    pub fn unproven(self, is_unproven: bool) -> Self {
        Self {
            is_unproven,
            ..self
        }
    }

    /// Adds a blob. Fetches all of them once there are enough for a group.
    pub fn want(&mut self, reference: BlobReference) -> Result<(), Error> {
        self.wanted.push(reference);
        if self.wanted.len() >= self.group_len {
            self.fetch()?;
        }
        Ok(())
    }

    /// Fetches the blobs that were added. They are durable when it returns.
    pub fn fetch(&mut self) -> Result<(), Error> {
        let mut wanted = mem::take(&mut self.wanted);
        if wanted.is_empty() {
            return Ok(());
        }
        // A pass that was killed wanted some of these blobs, so its leftovers are found here. A pass
        // with nothing new need not look.
        if !self.is_clean {
            self.ends
                .directory
                .clean_tmp(self.ends.slave, Leftovers::Small)?;
            self.is_clean = true;
        }
        // A log whose tids decrease may refer to a blob twice. The file is needed if one of the
        // references needs it.
        wanted.sort_unstable_by_key(|it| (it.key, it.is_optional));
        wanted.dedup_by_key(|it| it.key);
        let mut group = BlobGroup::new(self.ends.directory, self.ends.slave);
        group.place_in_batches(self.batch_len);
        let fetched = self.fetch_group(wanted, &mut group);
        if fetched.as_ref().is_err_and(Error::is_unreachable) {
            group.keep_large();
        }
        fetched
    }

    /// The numbers since the last call.
    pub fn take_fetched(&mut self) -> Fetched {
        mem::take(&mut self.fetched)
    }

    /// The master's blob directory. Asks the master at the first call.
    pub fn root(&mut self) -> Result<&BlobRoot, Error> {
        let root = match self.root.take() {
            Some(root) => root,
            None => find_root(&self.ends)?,
        };
        Ok(self.root.insert(root))
    }

    fn fetch_group(
        &mut self,
        wanted: Vec<BlobReference>,
        group: &mut BlobGroup<'a>,
    ) -> Result<(), Error> {
        let root = self.root()?.clone();
        let requests = wanted.into_iter().map(|it| self.request(it, group));
        let mut requests = requests.collect::<Result<Vec<_>, _>>()?;
        group.place_meanwhile(requests.len(), |group| {
            self.receive_all(&root, &mut requests, group)
        })?;
        self.judge_absent(&root, &requests)?;
        for request in &requests {
            let size = match (&request.state, request.have) {
                (State::Done(size), _) => *size,
                (State::Absent, Some(have)) => {
                    group.found(request.key());
                    have.size
                }
                _ => continue,
            };
            self.fetched.files += 1;
            self.fetched.bytes += size;
            self.fetched.undigested += u64::from(request.have.is_some());
        }
        let placed = group.place()?;
        let entries = placed.iter().map(BlobEntry::from);
        let absent = requests.iter().filter(|it| it.is_missed()).map(absent);
        self.record(&entries.chain(absent).collect::<Vec<_>>());
        Ok(())
    }

    /// Asks the master in rounds, until it need not be asked again.
    fn receive_all(
        &mut self,
        root: &BlobRoot,
        requests: &mut [Request],
        group: &mut BlobGroup<'a>,
    ) -> Result<(), Error> {
        let mut delays = self.delays(root).iter();
        loop {
            self.receive_open(root, requests, group)?;
            let is_settled = self.compare_digests(requests, group)?;
            if is_settled && !is_asked_again(requests, &mut delays) {
                return Ok(());
            }
        }
    }

    /// Appends entries to the blob ledger. The ledger is only needed by `fssync verify`, so a
    /// failure does not end the pass.
    fn record(&mut self, entries: &[BlobEntry]) {
        let BlobEnds {
            slave, directory, ..
        } = self.ends;
        if entries.is_empty() {
            return;
        }
        let opened = match self.ledger.take() {
            Some(ledger) => Ok(ledger),
            None => BlobLedger::open_or_create(slave, directory),
        };
        let recorded = opened.and_then(|mut ledger| {
            ledger.append(slave, entries)?;
            self.ledger = Some(ledger);
            Ok(())
        });
        if let Err(error) = recorded {
            let why = error.display_chain();
            tracing::warn!("cannot record digests of blobs: {why}");
        }
    }

    /// The request for a blob, with the file that the slave has.
    fn request(
        &self,
        reference: BlobReference,
        group: &mut BlobGroup<'a>,
    ) -> Result<Request, Error> {
        let key = reference.key;
        let mut request = Request::new(reference);
        let found = self.ends.directory.stat(key)?;
        request.have = found.map(|found| HaveBlob {
            size: found.size,
            modified: (!self.compares_digests).then_some(found.modified),
        });
        if request.have.is_none() {
            request.received = group.leftover(key)?;
        }
        Ok(request)
    }

    /// Asks the master for all open requests, and stages the blobs that arrive.
    fn receive_open(
        &mut self,
        root: &BlobRoot,
        requests: &mut [Request],
        group: &mut BlobGroup<'a>,
    ) -> Result<(), Error> {
        let mut receiver = Receiver {
            master: self.ends.master,
            root,
            group,
            received: &mut self.fetched.received,
            monitor: self.monitor,
        };
        let is_open = |request: &&mut Request| matches!(request.state, State::Open);
        let mut open: Vec<_> = requests.iter_mut().filter(is_open).collect();
        if open.is_empty() {
            return Ok(());
        }
        receiver.receive(&mut open)
    }

    /// Compares files of the same size by their digests. Returns false if some differ: then their
    /// content must be requested.
    fn compare_digests(
        &self,
        requests: &mut [Request],
        group: &mut BlobGroup<'a>,
    ) -> Result<bool, Error> {
        let BlobEnds {
            directory, slave, ..
        } = self.ends;
        let mut are_equal = true;
        for request in requests {
            let State::Compare(stat, theirs) = request.state else {
                continue;
            };
            let key = request.key();
            let ours = directory.digest(key, &|| slave.check_cancelled())?;
            if ours == Some(theirs) {
                group.adopt(key, &stat, theirs);
                request.state = State::Done(stat.size);
            } else {
                request.request_content();
                are_equal = false;
            }
        }
        Ok(are_equal)
    }

    /// The delays before the master is asked again for absent blobs.
    fn delays(&self, root: &BlobRoot) -> &'static [Duration] {
        // Blobs are often on a NAS, and the log on a local disk.
        let of_log = self.ends.master_stat.file_system;
        if root.file_system.unwrap_or(of_log).is_network() {
            &NETWORK_DELAYS
        } else {
            &[]
        }
    }

    /// Decides about the blobs that neither end has.
    fn judge_absent(&mut self, root: &BlobRoot, requests: &[Request]) -> Result<(), Error> {
        let BlobEnds {
            master,
            master_stat,
            ..
        } = self.ends;
        let missed = requests.iter().filter(|request| request.is_missed());
        let absent: Vec<BlobKey> = missed.map(Request::key).collect();
        let Some(&first) = absent.first() else {
            self.is_unproven = false;
            return Ok(());
        };
        if master.stat(Vec::new())?.identity != master_stat.identity {
            return Err(Error::MasterChanged {
                master: master.name().to_owned(),
                what: "it was packed while blobs were copied",
            });
        }
        let directory = &root.directory;
        let number = absent.len();
        if self.is_unproven && number == requests.len() && number >= MANY {
            return Err(Error::Usage(format!(
                "{directory}, the master's blob directory, has none of the first {number} blobs \
                 that {} refers to: name the right directory with --master-blobs",
                master.name()
            )));
        }
        self.is_unproven = false;
        self.fetched.absent += number as u64;
        self.monitor.warn(format!(
            "{directory}: the master lacks {}, the first is {}; if a pack has not removed them, \
             its site cannot show them either",
            count(number as u64, "blob"),
            root.layout.path(first).display(),
        ));
        Ok(())
    }
}

/// The entry of the blob ledger for a blob that neither end has.
fn absent(request: &Request) -> BlobEntry {
    BlobEntry {
        key: request.key(),
        state: BlobState::Absent,
    }
}

/// Finds the master's blob directory, and makes sure that it is not the slave's.
fn find_root(ends: &BlobEnds<'_>) -> Result<BlobRoot, Error> {
    let given = ends.master_directory.map(str::to_owned);
    let root = ends.master.blob_root(given)?;
    if root.slave_id.as_deref() == Some(ends.directory.id()) {
        return Err(are_one_directory(&root, ends.directory.path()));
    }
    Ok(root)
}

/// The error if the slave's blob directory is the master's.
pub(crate) fn are_one_directory(root: &BlobRoot, slave: &Path) -> Error {
    Error::Usage(format!(
        "the blob directories of master and slave, {} and {}, are the same directory: name \
         another one with --slave-blobs",
        root.directory,
        slave.display()
    ))
}

/// Opens the requests for missing blobs again, after a delay, if there is a delay left. Returns
/// whether the master must be asked again.
fn is_asked_again<'d>(
    requests: &mut [Request],
    delays: &mut impl Iterator<Item = &'d Duration>,
) -> bool {
    let missed = requests.iter_mut().filter(|request| request.is_missed());
    let mut missed = missed.peekable();
    if missed.peek().is_none() {
        return false;
    }
    let Some(delay) = delays.next() else {
        return false;
    };
    for request in missed {
        request.state = State::Open;
    }
    retry::wait(*delay);
    true
}
