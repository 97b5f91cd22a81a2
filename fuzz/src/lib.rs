//! What each fuzz target does with its input, and the inputs that it starts from.
//!
//! Nothing here knows of the fuzzer. So `cargo test` replays the seeds, and what was
//! found and kept (`tests/all/hostile.rs`), without one. A target fails by a panic, by
//! taking too long, or by taking too much memory; `fuzz/run` sees to the last two.
//!
//! | target | input |
//! | --- | --- |
//! | [`filestorage`] | a `Data.fs`, in memory |
//! | [`index`] | a `Data.fs.index` |
//! | [`verify`] | a slave |
//! | [`beside`] | what lies beside a slave |
//! | [`pass`] | what happens to a master and a slave, and passes between |
//! | [`serve`] | requests, as lines |
//! | [`replies`] | replies, as lines |
//! | [`command_line`] | what was typed |

pub mod beside;
pub mod command_line;
pub mod filestorage;
pub mod index;
pub mod input;
pub mod pass;
pub mod replies;
pub mod scene;
pub mod serve;
pub mod storage;
pub mod verify;

/// An input of some kilobytes costs no more memory than this, in bytes; more ends the
/// fuzzer, also where it is never touched.
#[cfg(fuzzing)]
#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 64 << 20);

/// A target.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// What it starts from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    target("beside", beside::run, beside::seeds),
    target("command_line", command_line::run, command_line::seeds),
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

/// Writes what a target starts from to the directory that `FSSYNC_FUZZ_SEEDS` names, if
/// it does.
///
/// # Panics
///
/// Where they cannot be written.
pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
    let Some(directory) = std::env::var_os("FSSYNC_FUZZ_SEEDS") else {
        return;
    };
    for (n, seed) in seeds().iter().enumerate() {
        let path = std::path::Path::new(&directory).join(format!("seed-{n}"));
        std::fs::write(path, seed).expect("a seed");
    }
}
