//! Passes that copy blobs, in turn with other programs on the same files:
//!
//! ```text
//! cargo bench --bench blobs [-- [blobs=N] [size=BYTES] [records=N] [commits=N] [rounds=N]
//!                               ["ssh=PROGRAM... HOST"] [NAME...]]
//! ```
//!
//! A `NAME` is a part of the name of a measurement:
//!
//! - `first copy`, durable: `cp -a` and `rsync -a`, both with `sync -f`. With a program that
//!   connects to this machine, such as `ssh=ssh -p 2222 root@127.0.0.1`, also `ssh`: through it,
//!   and with tar.
//! - `nothing new`, `one new` and `many new` (1,000): `rsync -a`, and for new blobs `sync -f`.
//! - `records`: nothing new in a log with `records` blobs (10,000,000).
//! - `watch`: the delay of `fssync --watch` for `commits` transactions (400) of the real ZODB
//!   with a blob each.
//! - `recognition`: a scan of a log in this process, with and without recognition of blobs.
//!
//! The site has `blobs` blobs (20,000) of `size` bytes (16,384), in the layout of a new blob
//! directory. The files are below `target/tmp`; they take three times the size of the site, two
//! sizes more for each round of a first copy, and about 1.5 GB for `records`. Everything is in the
//! page cache. The speed of a disk depends on the machine and the moment: compare only the ratio of
//! two medians of the same run.

#![allow(clippy::disallowed_methods, reason = "a measurement may panic")]
#![allow(
    clippy::cast_precision_loss,
    reason = "the measured numbers are small enough"
)]

#[path = "../watch/clock.rs"]
mod clock;
mod copies;
#[path = "../../tests/all/environment.rs"]
#[allow(unreachable_pub, reason = "the tests share it")]
mod environment;
#[path = "../watch/floor.rs"]
mod floor;
#[path = "../watch/follower.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod follower;
mod latency;
#[path = "../watch/python.rs"]
mod python;
mod recognition;
mod records;
#[path = "../shared/mod.rs"]
mod shared;
mod site;

use std::io;
use std::time::Instant;

use shared::arguments::Arguments;
use shared::command::has;
use shared::place::temporary;
use shared::table;
use shared::times::show;
use site::Site;

struct Options {
    blobs: u64,
    blob_len: usize,
    records: u64,
    commits: u32,
    arguments: Arguments,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            blobs: 20_000,
            blob_len: 16 * 1024,
            records: 10_000_000,
            commits: 400,
            arguments: Arguments::default(),
        };
        options.arguments = Arguments::parse("blobs", |name, number| match name {
            "blobs" => options.blobs = number,
            "size" => options.blob_len = number as usize,
            "records" => options.records = number,
            "commits" => options.commits = number as u32,
            _ => panic!("unknown option {name}"),
        });
        options
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if !has("rsync") {
        println!("rsync is not installed: its comparisons are skipped");
    }
    let directory = temporary("blobs-")?;
    let site = |name| Site::create(&directory.path().join(name), options.blob_len);
    let mut rows = Vec::new();
    if copies::NAMES
        .iter()
        .any(|name| options.arguments.wants(name))
    {
        let site = site("site")?;
        let started = Instant::now();
        site.commit(options.blobs)?;
        println!(
            "{} blobs of {} bytes, made in {}",
            options.blobs,
            options.blob_len,
            show(started.elapsed())
        );
        copies::compare(&options, &site, &mut rows)?;
    }
    if options.arguments.wants("records") {
        rows.push(records::nothing_new(&options, &site("records")?)?);
    }
    if !rows.is_empty() {
        table::print(&rows);
    }
    if options.arguments.wants("recognition") {
        recognition::measure(&options, directory.path())?;
    }
    if options.arguments.wants("watch") {
        latency::measure(&options, &site("watch")?)?;
    }
    Ok(())
}
