//! The order of writes of a first copy with many blobs: another thread places batches of them while
//! the next ones are received. `strace` records the calls of all threads.

use std::collections::HashMap;
use std::fs;

use super::scale;
use crate::support::{must, tool};

/// More than two batches.
const BLOBS: usize = 3000;

const CALLS: &str = "trace=utimensat,syncfs,fsync,rename,renameat,renameat2";

/// A call that has succeeded.
#[derive(Debug)]
struct Call {
    /// The lines of the log at which it began and ended.
    began: usize,
    ended: usize,
    text: String,
}

impl Call {
    fn is_before(&self, other: &Self) -> bool {
        self.ended < other.began
    }

    /// The name of the blob in `.fssync/tmp`, if it is being received or placed.
    fn blob(&self) -> Option<&str> {
        if self.text.starts_with("utimensat(") {
            let (_, name) = self.text.split_once(".fssync/tmp/")?;
            return name.split_once('>').map(|(name, _)| name);
        }
        let is_place = self.text.starts_with("renameat2(") && self.text.contains(".blob\"");
        is_place.then(|| self.text.split('"').nth(1)).flatten()
    }

    /// Whether it makes a file or directory durable whose path ends like this.
    fn syncs(&self, path: &str) -> bool {
        self.text.starts_with("syncfs(")
            || self.text.starts_with("fsync(") && self.text.contains(&format!("{path}>"))
    }
}

/// The calls that have succeeded, in the order of their ends.
fn calls(log: &str) -> Vec<Call> {
    let mut unfinished = HashMap::new();
    let mut calls = Vec::new();
    for (ended, line) in log.lines().enumerate() {
        let (thread, rest) = line.split_once(' ').expect("a thread and its call");
        let rest = rest.trim_start();
        if let Some(text) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (ended, text.trim_end()));
            continue;
        }
        let (began, text) = match rest.split_once(" resumed>") {
            Some((_, end)) => {
                let (began, text) = unfinished.remove(thread).expect("its begin");
                (began, format!("{text}{end}"))
            }
            None => (ended, rest.to_owned()),
        };
        if text.ends_with(" = 0") {
            calls.push(Call { began, ended, text });
        }
    }
    calls
}

#[test]
fn each_blob_is_durable_before_its_name_and_each_name_before_the_log() {
    let scene = scale::site(BLOBS, 1);
    let log = scene.directory.path().join("strace.log");
    let pass = scene.command(&["--blobs"]);
    let mut strace = tool("strace", "strace");
    strace
        .args(["-f", "-y", "-qq", "-e", CALLS, "-o"])
        .arg(&log);
    must(strace.arg(pass.get_program()).args(pass.get_args()));

    let calls = calls(&fs::read_to_string(log).expect("the log"));
    let is_log = |call: &&Call| call.text.starts_with("rename") && call.text.contains("Data.fs\"");
    let log = calls.iter().rfind(is_log).expect("the log is installed");
    let of_blobs = calls.iter().filter_map(|call| Some((call.blob()?, call)));
    let (received, placed): (HashMap<_, _>, HashMap<_, _>) =
        of_blobs.partition(|(_, call)| call.text.starts_with("utimensat("));
    assert_eq!((received.len(), placed.len()), (BLOBS, BLOBS));

    let syncs: Vec<&Call> = calls
        .iter()
        .filter(|call| call.text.contains("sync"))
        .collect();
    let is_synced = |path: &str, after: &Call, before: &Call| {
        let is_between = |call: &&&Call| after.is_before(call) && call.is_before(before);
        syncs.iter().filter(is_between).any(|call| call.syncs(path))
    };
    for (name, placed) in &placed {
        let path = format!(".fssync/tmp/{name}");
        assert!(is_synced(&path, received[name], placed), "{placed:?}");
        let directory = placed.text.split(['<', '>']).nth(3).expect("a directory");
        assert!(is_synced(directory, placed, log), "{placed:?}");
    }
    let first_placed = placed.values().map(|call| call.began).min();
    let last_received = received.values().map(|call| call.ended).max();
    assert!(first_placed < last_received, "nothing was placed meanwhile");
}
