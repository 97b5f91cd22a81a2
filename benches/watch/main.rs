//! The delay of `fssync --watch`, and its cost:
//!
//! ```text
//! cargo bench --bench watch [-- [commits=N] [MB] ["ssh=PROGRAM... HOST"] [NAME...]]
//! ```
//!
//! The real ZODB commits `N` small transactions (1000), one every 10 ms, and a tenth as many,
//! one every 100 ms. The delay of a commit is the time from its end to the first report that
//! the slave has it durably. It may be negative, since both machines sync at the same time.
//! `MB` is the amount that is committed while the watch is stopped (1000). A `NAME` is a part
//! of the name of a measurement: `latency`, `idle`, `catch-up`, `site`. The last one is about one
//! watch of 20 storages. Everything else is done with a local master and, with a program that connects to this machine, such as `ssh=ssh -p 2222
//! root@127.0.0.1`, also through that. The files (about 9 times `MB`, through a program 12
//! times) are below `target/tmp`. The speed of a disk depends on the machine and the moment:
//! compare only measurements of the same run.

#![allow(clippy::disallowed_methods, reason = "a measurement may panic")]
#![allow(
    clippy::cast_precision_loss,
    reason = "the measured numbers are small enough"
)]

mod catch_up;
mod clock;
#[path = "../../tests/all/environment.rs"]
#[allow(unreachable_pub, reason = "the tests share it")]
mod environment;
mod floor;
mod follower;
mod idle;
mod latency;
mod python;
#[path = "../shared/mod.rs"]
mod shared;
mod site;

use std::io;
use std::path::Path;
use std::time::Duration;

use follower::Follower;
use python::Python;
use shared::command::Remote;
use shared::generate::{Generator, MB};
use shared::place::{Place, temporary};

struct Options {
    commits: u32,
    megabytes: u32,
    ssh: Option<Remote>,
    names: Vec<String>,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            commits: 1000,
            megabytes: 1000,
            ssh: None,
            names: Vec::new(),
        };
        // cargo adds --bench.
        for argument in std::env::args().skip(1).filter(|it| !it.starts_with('-')) {
            if let Ok(megabytes) = argument.parse() {
                options.megabytes = megabytes;
            } else if let Some(Ok(commits)) = argument.strip_prefix("commits=").map(str::parse) {
                options.commits = commits;
            } else if let Some(words) = argument.strip_prefix("ssh=") {
                options.ssh = Remote::parse(words);
            } else {
                options.names.push(argument);
            }
        }
        options
    }

    fn wants(&self, what: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| what.contains(name.as_str()))
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let python = Python::get();
    let directory = temporary("watch-")?;
    if options.wants("site") {
        site::measure(&directory.path().join("site"))?;
    }
    if !["latency", "idle", "catch-up"]
        .iter()
        .any(|name| options.wants(name))
    {
        return Ok(());
    }
    follow(&options, &python, &directory.path().join("local"), None)?;
    if let Some(remote) = &options.ssh {
        let directory = directory.path().join("ssh");
        follow(&options, &python, &directory, Some(remote))?;
    }
    Ok(())
}

fn follow(
    options: &Options,
    python: &Python,
    directory: &Path,
    remote: Option<&Remote>,
) -> io::Result<()> {
    match remote {
        None => println!("\na local master"),
        Some(remote) => println!("\na master through {} {}", remote.program, remote.host),
    }
    if options.wants("latency") || options.wants("idle") {
        let place = Place::create(&directory.join("latency"))?;
        let mut generator = Generator::create(&place.master)?;
        generator.append(MB)?;
        let follower = Follower::start(&place, remote, &[])?;
        follower.wait_for(generator.position())?;
        if options.wants("latency") {
            let quick = (options.commits, Duration::from_millis(10));
            let slow = (options.commits.div_ceil(10), Duration::from_millis(100));
            for commits in [quick, slow] {
                latency::measure(&place, &follower, python, commits, remote.is_none())?;
            }
            place.assert_equal()?;
        }
        if options.wants("idle") {
            idle::measure(&place, follower.pid())?;
        }
    }
    if options.wants("catch-up") {
        let place = Place::create(&directory.join("catch-up"))?;
        catch_up::measure(&place, remote, options.megabytes)?;
    }
    Ok(())
}
