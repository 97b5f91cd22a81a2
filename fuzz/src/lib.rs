//! The fuzz targets and their seeds.
//!
//! Nothing here depends on the fuzzer, so `cargo test` replays the seeds and the kept inputs
//! without it (`tests/all/hostile.rs`). A target fails if it panics, takes too long, or takes
//! too much memory; `fuzz/run` sets the last two limits.
//!
//! | target | input |
//! | --- | --- |
//! | [`filestorage`] | a `Data.fs`, in memory |
//! | [`index`] | a `Data.fs.index` |
//! | [`verify`] | a slave |
//! | [`beside`] | the files beside a slave |
//! | [`pass`] | events at a master and a slave, with passes in between |
//! | [`serve`] | requests, as lines |
//! | [`replies`] | replies, as lines |
//! | [`blobs`] | the start of a data record, or a `Data.fs` with blobs |
//! | [`command_line`] | a command line |
//! | [`config`] | an `fssync.toml`, or a `zeo.conf` |

pub mod beside;
pub mod blobs;
pub mod command_line;
pub mod config;
pub mod filestorage;
pub mod index;
pub mod input;
pub mod pass;
pub mod replies;
pub mod scene;
pub mod serve;
pub mod storage;
pub mod verify;

/// An input of some kilobytes must not allocate more than this, in bytes. More ends the
/// fuzzer, even if the memory is never used.
#[cfg(fuzzing)]
#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 64 << 20);

/// A target.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Runs the target with an input.
    pub run: fn(&[u8]),
    /// The inputs that the fuzzer starts from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    target("beside", beside::run, beside::seeds),
    target("blobs", blobs::run, blobs::seeds),
    target("command_line", command_line::run, command_line::seeds),
    target("config", config::run, config::seeds),
    target("filestorage", filestorage::run, filestorage::seeds),
    target("index", index::run, index::seeds),
    target("pass", pass::run, pass::seeds),
    target("replies", replies::run, replies::seeds),
    target("serve", serve::run, serve::seeds),
    target("verify", verify::run, verify::seeds),
];

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// Writes the seeds of a target to the directory in `FSSYNC_FUZZ_SEEDS`, if it is set.
///
/// # Panics
///
/// If they cannot be written.
pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(directory) = std::env::var_os("FSSYNC_FUZZ_SEEDS") else {
        return;
    };
    for (n, seed) in seeds().iter().enumerate() {
        let path = std::path::Path::new(&directory).join(format!("seed-{n}"));
        std::fs::write(path, seed).expect("a seed");
    }
}
