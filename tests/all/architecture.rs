//! The structure and the language of `src`: modules depend in one direction, and comments are
//! in plain English.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::project;

/// The source files below a directory, sorted.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The modules at the top of `src`, except for the roots of the two crates.
fn modules() -> BTreeSet<String> {
    let files = fs::read_dir(project("src")).expect("src");
    let names = files.map(|it| {
        let path = it.expect("an entry").path();
        path.file_stem().expect("a name").display().to_string()
    });
    names
        .filter(|name| !["lib", "main"].contains(&name.as_str()))
        .collect()
}

/// The modules in the table of `src/lib.rs`, from top to bottom.
fn table() -> Vec<String> {
    let text = fs::read_to_string(project("src/lib.rs")).expect("lib.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let names = rows.filter_map(|row| {
        row.split('`')
            .nth(1)
            .filter(|_| row.starts_with(['`', '[']))
    });
    names.map(str::to_owned).collect()
}

/// The code of a file without comments and tests.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]\nmod tests {").next();
    let lines = production.unwrap_or_default().lines();
    let code = lines.map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// The names that follow `crate::` or `fssync::` in a path, those in braces included.
fn used(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "fssync::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                None => found.extend(first_word(rest)),
                Some(group) => found.extend(members(group)),
            }
        }
    }
    found
}

/// The first word of each member of a group, up to its closing brace.
fn members(group: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                found.extend(first_word(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

fn first_word(path: &str) -> Option<&str> {
    let path = path.trim_start();
    let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    Some(&path[..end.unwrap_or(path.len())]).filter(|word| !word.is_empty())
}

#[test]
fn a_module_uses_only_modules_below_it() {
    let table = table();
    let listed: BTreeSet<String> = table.iter().cloned().collect();
    assert_eq!(listed, modules(), "the table in src/lib.rs");
    let level = |name: &str| table.iter().position(|it| it == name);
    let mut upward = Vec::new();
    let mut count = 0;
    for path in sources(&project("src")) {
        let name = path.strip_prefix(project("src")).expect("below src");
        let name = name.display().to_string();
        let module = name.split('/').next().unwrap_or_default();
        let module = module.trim_end_matches(".rs");
        let Some(own) = level(module).filter(|_| !name.contains("tests")) else {
            continue;
        };
        let text = fs::read_to_string(&path).expect("a source file");
        for used in used(&code(&text)) {
            match level(used) {
                Some(other) if other < own => upward.push(format!("{name} uses {used}")),
                Some(_) => count += 1,
                None => {}
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
    assert!(count > 300, "only {count} uses were found");
}

#[test]
fn the_check_finds_modules_in_paths_and_groups() {
    let code = code(
        "use crate::plan::{Plan, Policy};\nuse crate::{io, slave::{lock, step}};\n\
         // crate::watch\nlet it = fssync::error::Error;\n#[cfg(test)]\nmod tests {\nuse crate::cli;",
    );
    let found: Vec<_> = used(&code).into_iter().collect();
    assert_eq!(found, ["error", "io", "plan", "slave"]);
}

/// Habits that make comments hard to read, and the largest allowed share of the documentation
/// lines in `src` that contain one of these words, in lines per thousand.
const HABITS: [(&[&str], usize); 4] = [
    (&["what"], 40),
    (&["lie", "lies", "lay", "lain"], 3),
    (&["tell", "tells", "told", "telling"], 6),
    (&["behind"], 6),
];

#[test]
fn comments_are_in_plain_english() {
    let files = sources(&project("src")).into_iter();
    let text: String = files
        .map(|path| fs::read_to_string(path).expect("a source file"))
        .collect();
    let lines = text.lines().map(str::trim_start);
    let lines: Vec<_> = lines
        .filter(|line| line.starts_with("///") || line.starts_with("//!"))
        .map(str::to_lowercase)
        .collect();
    assert!(lines.len() > 3000, "only {} lines were found", lines.len());
    for (words, limit) in HABITS {
        let is_habit = |word: &str| words.contains(&word);
        let has_habit = |line: &&String| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(is_habit)
        };
        let count = lines.iter().filter(has_habit).count();
        let allowed = limit * lines.len() / 1000;
        assert!(
            count <= allowed,
            "{words:?}: {count} lines, {allowed} allowed"
        );
    }
}
