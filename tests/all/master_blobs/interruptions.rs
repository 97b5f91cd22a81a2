//! The stream of blobs to a pass: its end, its memory, slow receivers and masters that hang.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fssync::filestorage::blob::Layout;
use fssync::source::blobs::{BlobEventKind, BlobRoot};
use fssync::source::path::MountedPath;
use fssync::source::{BlobStream, Deadline, Error, Heartbeat, Master, Source};

use super::{Site, key, want};
use crate::fuse::Served;
use crate::remote;
use crate::support::Transport;

/// The timeout of a master whose answer a test waits for in vain.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The timeout of a master that must answer, also on a busy machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// A master of a site over this transport, and the number of sources that were opened.
fn master(site: &Site, transport: Transport, timeout: Duration) -> (Master, Arc<AtomicUsize>) {
    let heartbeat = Heartbeat::default();
    let deadline = Deadline::new(timeout, heartbeat.clone(), || false);
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let (scene, path) = (remote::target(&site.scene), site.scene.master.clone());
    let open = move || -> Box<dyn Source> {
        count.fetch_add(1, Ordering::Relaxed);
        match transport {
            Transport::Path => Box::new(MountedPath::new(path.clone())),
            Transport::Ssh => Box::new(remote::ssh(scene.clone(), heartbeat.clone())),
        }
    };
    (
        Master::new("m".to_owned(), deadline, Box::new(open)),
        opened,
    )
}

/// A site with one huge blob, and a few small ones.
fn site() -> Site {
    let site = Site::new(Layout::Bushy);
    site.write(key(1, 1), b"");
    let file = File::create(site.path(key(1, 1))).expect("a blob");
    file.set_len(8 << 30).expect("its size");
    for oid in 2..50 {
        site.write(key(oid, 1), &[oid as u8; 5000]);
    }
    site
}

fn root(site: &Site, master: &Master) -> BlobRoot {
    let given = site.directory.display().to_string();
    master.blob_root(Some(given)).expect("a blob directory")
}

/// Receives events until the end. Returns the number of blobs that were complete.
fn complete(mut stream: BlobStream) -> Result<usize, Error> {
    let mut count = 0;
    while let Some(event) = stream.next()? {
        count += usize::from(event.kind == BlobEventKind::Complete);
    }
    assert!(stream.next()?.is_none());
    Ok(count)
}

#[test]
fn a_stream_that_is_dropped_early_ends_the_request() {
    let site = site();
    for transport in Transport::BOTH {
        let (master, opened) = master(&site, transport, LONG_TIMEOUT);
        let root = root(&site, &master);
        for events in [0, 1, 20] {
            let mut stream = master.blobs(root.clone(), vec![want(key(1, 1)); 4]);
            for _ in 0..events {
                assert!(stream.next().expect("an event").is_some());
            }
            let started = Instant::now();
            drop(stream);
            master.stat(Vec::new()).expect("the master answers");
            assert!(started.elapsed() < Duration::from_secs(30), "{transport:?}");
        }
        let few = (2..50).map(|oid| want(key(oid, 1))).collect();
        assert_eq!(complete(master.blobs(root, few)).expect("an end"), 48);
        assert_eq!(opened.load(Ordering::Relaxed), 1, "{transport:?}");
    }
}

#[test]
fn a_slow_receiver_is_not_a_silent_master() {
    const SIZE: u64 = 64 << 20;
    let site = Site::new(Layout::Lawn);
    site.write(key(1, 1), b"");
    let file = File::create(site.path(key(1, 1))).expect("a blob");
    file.set_len(SIZE).expect("its size");
    for transport in Transport::BOTH {
        let (master, opened) = master(&site, transport, TIMEOUT);
        master.stat(Vec::new()).expect("the master");
        let root = root(&site, &master);
        let mut stream = master.blobs(root, vec![want(key(1, 1))]);
        assert!(stream.next().expect("an event").is_some());
        thread::sleep(2 * TIMEOUT);
        // The thread of the source waits for the receiver. It does not hang.
        let next = master.read(4, 0);
        let mut received = 0;
        while let Some(event) = stream.next().expect("an event") {
            if let BlobEventKind::Data(bytes) = event.kind {
                received += bytes.len() as u64;
            }
        }
        assert_eq!(received, SIZE);
        assert_eq!(&next.wait().expect("the magic")[..], b"FS30");
        assert_eq!(opened.load(Ordering::Relaxed), 1, "{transport:?}");
    }
}

#[test]
fn a_master_that_hangs_in_a_blob_is_abandoned() {
    const HANGS_AT: u64 = 5 << 20;
    let site = Site::new(Layout::Lawn);
    site.write(key(1, 1), &vec![7; 8 << 20]);
    for oid in 2..20 {
        site.write(key(oid, 1), b"a blob");
    }
    let served = Served::directory(site.scene.master.parent().expect("a directory"));
    let (path, is_mounted_again) = (served.file("Data.fs"), Arc::new(AtomicBool::new(false)));
    let (mounted, local) = (Arc::clone(&is_mounted_again), site.scene.master.clone());
    let open = move || -> Box<dyn Source> {
        let is_local = mounted.load(Ordering::Relaxed);
        let path = if is_local { &local } else { &path };
        Box::new(MountedPath::new(path.clone()))
    };
    let deadline = Deadline::new(TIMEOUT, Heartbeat::default(), || false);
    let master = Master::new("m".to_owned(), deadline, Box::new(open));
    master.stat(Vec::new()).expect("the master");
    let root = master.blob_root(None).expect("a blob directory");
    assert!(
        root.directory
            .starts_with(served.file("").to_str().expect("UTF-8"))
    );
    let silence = served.silence_at(HANGS_AT);
    let wants: Vec<_> = (1..20).map(|oid| want(key(oid, 1))).collect();
    let started = Instant::now();
    let late = complete(master.blobs(root.clone(), wants.clone()));
    assert!(matches!(late, Err(Error::TimedOut { .. })), "{late:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
    // The next request goes to another thread. Its path works again.
    is_mounted_again.store(true, Ordering::Relaxed);
    let local = BlobRoot {
        directory: site.directory.display().to_string(),
        ..root
    };
    assert_eq!(complete(master.blobs(local, wants)).expect("an end"), 19);
    drop(silence);
}

#[test]
fn an_interruption_ends_the_wait_for_a_blob() {
    let site = site();
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_interrupted);
    let deadline = Deadline::new(TIMEOUT, Heartbeat::default(), move || {
        flag.load(Ordering::Relaxed)
    });
    let path = site.scene.master.clone();
    let open = move || -> Box<dyn Source> { Box::new(MountedPath::new(path.clone())) };
    let master = Master::new("m".to_owned(), deadline, Box::new(open));
    let root = root(&site, &master);
    let mut stream = master.blobs(root, vec![want(key(1, 1))]);
    assert!(stream.next().expect("an event").is_some());
    is_interrupted.store(true, Ordering::Relaxed);
    let started = Instant::now();
    loop {
        match stream.next() {
            Ok(event) => assert!(event.is_some()),
            Err(error) => {
                assert!(matches!(error, Error::Interrupted), "{error:?}");
                break;
            }
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}
