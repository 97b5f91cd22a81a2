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

use targets::Target;

/// Runs a target; where it makes passes, while no process is started.
fn replay(target: &Target, what: &str, input: &[u8]) {
    // Told if it fails.
    println!("{what}");
    let _quiet = matches!(target.name, "beside" | "pass").then(without_forks);
    (target.run)(input);
}

#[test]
fn each_target_takes_its_seeds() {
    for target in &targets::TARGETS {
        let seeds = {
            let _quiet = without_forks();
            (target.seeds)()
        };
        assert!(seeds.len() > 4, "{}", target.name);
        for (n, seed) in seeds.iter().enumerate() {
            replay(target, &format!("seed {n} of {}", target.name), seed);
        }
    }
}

#[test]
fn what_was_found_is_found_no_more() {
    let kept = project("fixtures/hostile");
    let listed = fs::read_to_string(project("fixtures/README.md")).expect("the list");
    for name in names(&kept) {
        let target = targets::TARGETS.iter().find(|it| it.name == name);
        let target = target.unwrap_or_else(|| panic!("{name} is no target"));
        for input in names(&kept.join(&name)) {
            let path = kept.join(&name).join(&input);
            assert!(listed.contains(&format!("| `{name}/{input}` |")), "{input}");
            let bytes = fs::read(&path).expect("an input");
            replay(target, &path.display().to_string(), &bytes);
        }
    }
}

#[test]
fn there_is_a_program_of_each_target() {
    let programs = names(&project("fuzz/fuzz_targets"));
    let targets = targets::TARGETS.iter();
    assert!(targets.map(|it| format!("{}.rs", it.name)).eq(programs));
}
