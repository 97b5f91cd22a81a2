//! Hostile bytes: the seeds of the fuzz targets, and the inputs that found bugs.
//!
//! The targets are in `fuzz/src`, and `fuzz/run` runs them with a fuzzer. An input that
//! found a bug is kept in `fixtures/hostile/`, in the directory of its target, and is replayed
//! in each test run.

use std::fs;

use crate::support::{names, project, without_forks};

#[allow(dead_code, reason = "used by the fuzzer")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use targets::Target;

/// Runs a target. No process is started meanwhile if the target makes passes.
fn replay(target: &Target, what: &str, input: &[u8]) {
    // Shown if the test fails.
    println!("{what}");
    let _quiet = matches!(target.name, "beside" | "pass").then(without_forks);
    (target.run)(input);
}

#[test]
fn each_target_accepts_its_seeds() {
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
fn fixed_bugs_stay_fixed() {
    let kept = project("fixtures/hostile");
    let listed = fs::read_to_string(project("fixtures/README.md")).expect("the list");
    for name in names(&kept) {
        let target = targets::TARGETS.iter().find(|it| it.name == name);
        let target = target.unwrap_or_else(|| panic!("{name} is not a target"));
        for input in names(&kept.join(&name)) {
            let path = kept.join(&name).join(&input);
            assert!(listed.contains(&format!("| `{name}/{input}` |")), "{input}");
            let bytes = fs::read(&path).expect("an input");
            replay(target, &path.display().to_string(), &bytes);
        }
    }
}

#[test]
fn each_target_has_a_program() {
    let programs = names(&project("fuzz/fuzz_targets"));
    let targets = targets::TARGETS.iter();
    assert!(targets.map(|it| format!("{}.rs", it.name)).eq(programs));
}
