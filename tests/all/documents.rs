//! The documents: the tests and modules that they name exist, and their links lead somewhere. The
//! name of a test may be given in part.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::nfs;
use crate::support::{must, names, project};

/// The documents in `docs` that are about tests. All others are for administrators.
const ABOUT_TESTS: [&str; 2] = ["power-cuts.md", "proof.md"];

/// The paths of the README and of all pages for administrators, in the project.
pub fn for_administrators() -> Vec<String> {
    let pages = names(&project("docs")).into_iter();
    let pages = pages.filter(|name| !ABOUT_TESTS.contains(&name.as_str()));
    let pages = pages.map(|name| format!("docs/{name}"));
    std::iter::once("README.md".to_owned())
        .chain(pages)
        .collect()
}

/// The text of a file of the project.
fn text(path: &str) -> String {
    fs::read_to_string(project(path)).expect(path)
}

/// The names of all tests in this program.
fn tests() -> Vec<String> {
    let listed = must(
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--list", "--format=terse"]),
    );
    let text = String::from_utf8(listed.stdout).expect("UTF-8");
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// The names that a document quotes: with `::`, or of several words.
fn quoted(document: &str) -> BTreeSet<&str> {
    let is_name = |text: &&str| {
        let is_allowed = |c: char| c.is_ascii_lowercase() || "_:*…".contains(c);
        text.chars().all(is_allowed) && (text.contains("::") || text.contains('_'))
    };
    let prose = document.split("```").step_by(2);
    let quotes = prose.flat_map(|part| part.split('`').skip(1).step_by(2));
    quotes.filter(is_name).collect()
}

/// The names in the last column of a document's tables, each with the module that the head of
/// the column quotes.
fn proofs(document: &str) -> BTreeSet<(&str, &str)> {
    let mut found = BTreeSet::new();
    let mut module = None;
    for line in document.lines() {
        let Some(row) = line.strip_suffix('|') else {
            module = None;
            continue;
        };
        let names = quoted(row.rsplit('|').next().unwrap_or_default());
        match module {
            None => module = Some(names.first().copied().unwrap_or_default()),
            Some(module) => found.extend(names.into_iter().map(|name| (module, name))),
        }
    }
    found
}

/// Whether a name, or its part after one of its modules, starts with the first part of a
/// pattern and contains the other parts in their order.
fn fits(pattern: &str, name: &str) -> bool {
    let modules = name.match_indices("::").map(|(at, sign)| at + sign.len());
    let mut starts = std::iter::once(0).chain(modules);
    starts.any(|at| fits_at_start(pattern, &name[at..]))
}

/// The same for the name as a whole.
fn fits_at_start(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split(['*', '…']);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    parts.all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Whether the library has a module of this name.
fn is_module(name: &str) -> bool {
    let path = name.trim_end_matches("::").replace("::", "/");
    project(&format!("src/{path}.rs")).exists() || project(&format!("src/{path}")).is_dir()
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    let mut known = tests();
    known.extend(nfs::ALL.map(|(name, _)| name.to_owned()));
    let is_test = |name: &str| known.iter().any(|test| fits(name, test));
    for document in ABOUT_TESTS {
        let text = text(&format!("docs/{document}"));
        let quoted = quoted(&text);
        assert!(quoted.len() > 5, "{document}: {quoted:?}");
        for name in quoted {
            assert!(
                is_test(name) || is_module(name),
                "{document} names `{name}`"
            );
        }
        for (module, name) in proofs(&text) {
            let is_of_the_library = name.ends_with("::tests") && is_module(name);
            // It may be in another module, which the name then contains.
            let is_there = |test: &String| {
                let is_whole = !name.starts_with(['*', '…']) && fits_at_start(name, test);
                is_whole
                    || test
                        .strip_prefix(module)
                        .is_some_and(|rest| fits(name, rest))
            };
            let is_test = known.iter().any(is_there);
            assert!(is_test || is_of_the_library, "{document}: `{module}{name}`");
        }
    }
}

#[test]
fn a_name_that_does_not_exist_is_found() {
    let text = "`calls::an_append` `a_b…c` `Data.fs` `c`\n```sh\n`x::y`\n```\n";
    assert_eq!(quoted(text), BTreeSet::from(["a_b…c", "calls::an_append"]));
    let table = "| a | by (`m::`) |\n| --- | --- |\n| `c_d` | `a_b` and `x::y` |\nsee `e_f`\n";
    assert_eq!(
        proofs(table),
        BTreeSet::from([("m::", "a_b"), ("m::", "x::y")])
    );
    assert!(fits("calls::*kill*", "calls::an_append::is_killed"));
    assert!(!fits("calls::*kill*", "calls::an_append::fails"));
    assert!(!fits("…and_off", "and_on"));
    assert!(fits("a_copy", "x::a_copy_of_it") && !fits("a_copy", "x::not_a_copy"));
    assert!(is_module("slave::step") && !is_module("slave::stap"));
}

/// The targets of the links in a document, except addresses in the web.
fn links(document: &str) -> Vec<&str> {
    let targets = document.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchor that GitHub gives to a heading: lower case, hyphens for blanks, and no punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

/// The anchors of a document.
fn anchors(document: &str) -> BTreeSet<String> {
    let prose = document.split("```").step_by(2);
    let lines = prose.flat_map(str::lines).filter(|it| it.starts_with('#'));
    lines
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

#[test]
fn the_links_of_the_documents_lead_somewhere() {
    let tests = ABOUT_TESTS.map(|name| format!("docs/{name}"));
    let others = ["CONTRIBUTING.md", "fixtures/README.md"].map(str::to_owned);
    let documents = for_administrators().into_iter().chain(tests).chain(others);
    let mut followed = 0;
    for document in documents {
        let directory = project(&document).parent().expect("a directory").to_owned();
        for link in links(&text(&document)) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let path = match file {
                "" => project(&document),
                file => directory.join(file),
            };
            assert!(path.exists(), "{document}: {link}");
            if !part.is_empty() {
                let target = fs::read_to_string(&path).expect(link);
                assert!(anchors(&target).contains(part), "{document}: {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed}");
}

#[test]
fn headings_have_the_anchors_of_github() {
    let text = "# Failback: the first\n```\n# no heading\n```\n## `fssync off`, now\n";
    let expected = ["failback-the-first", "fssync-off-now"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
    assert_eq!(links("[a](b.md#c) [d](https://e)"), ["b.md#c"]);
}

#[test]
fn the_readme_is_short_and_names_the_required_rust_version() {
    let manifest = text("Cargo.toml");
    let lines = manifest.lines();
    let needed = lines.filter_map(|line| line.strip_prefix("rust-version = "));
    let needed: Vec<_> = needed.map(|version| version.trim_matches('"')).collect();
    let readme = text("README.md");
    let [version] = needed[..] else {
        panic!("{needed:?}");
    };
    assert!(
        readme.contains(&format!("Rust {version} or newer")),
        "{version}"
    );
    assert!(readme.contains("cargo install --locked"));
    assert!(readme.len() <= 8192, "it is short: {}", readme.len());
}
