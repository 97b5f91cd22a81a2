//! Hostile bytes: what the fuzz targets start from, and what they have found.
//!
//! The targets are `fuzz/src`; `fuzz/run` runs them with a fuzzer. An input that was found
//! lies under `fixtures/hostile/`, in the directory of its target, and is replayed here
//! for ever.

use std::fs;

use crate::support::{names, project, without_forks};

#[allow(dead_code, reason = "the fuzzer's part")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn each_target_takes_its_seeds() {
    let _quiet = without_forks();
    for target in &targets::TARGETS {
        let seeds = (target.seeds)();
        assert!(seeds.len() > 4, "{}", target.name);
        for (n, seed) in seeds.iter().enumerate() {
            println!("{} seed {n}", target.name);
            (target.run)(seed);
        }
    }
}
