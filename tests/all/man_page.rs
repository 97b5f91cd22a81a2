//! The man page agrees with the program.

use std::collections::BTreeSet;
use std::fs;

use crate::documents::for_administrators;
use crate::support::{fssync, project, run, tool};

/// The text of a man page without its markup.
fn without_roff(source: &str) -> String {
    let mut text = source.to_owned();
    for font in ["\\fB", "\\fI", "\\fR", "\\fP", "\\&", "\\|", "\\/"] {
        text = text.replace(font, "");
    }
    text = text.replace("\\(hy", "-").replace("\\-", "-");
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with(".\\\"")) {
        let fonts = [".BR ", ".BI ", ".B ", ".IR ", ".I ", ".RB ", ".IP "];
        let macro_name = fonts.iter().find(|name| line.starts_with(*name));
        let is_alternating = macro_name.is_some_and(|name| name.len() == 4 && *name != ".IP ");
        let rest = macro_name.map_or(line, |name| &line[name.len()..]);
        lines.push(if is_alternating {
            joined(rest)
        } else {
            rest.replace('"', "")
        });
    }
    lines.join("\n")
}

/// The arguments of a macro that sets them in alternating fonts, without the spaces between
/// them.
fn joined(arguments: &str) -> String {
    let mut quoted = false;
    arguments
        .chars()
        .filter(|c| {
            quoted ^= *c == '"';
            *c != '"' && (*c != ' ' || quoted)
        })
        .collect()
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..]
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '-');
        if !is_word && name.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.insert(name.trim_end_matches('-').to_owned());
        }
    }
    found
}

/// The help of the program and its subcommands.
fn help() -> String {
    [
        &["--help"][..],
        &["off", "--help"],
        &["on", "--help"],
        &["status", "--help"],
        &["verify", "--help"],
        &["doctor", "--help"],
        &["config", "check", "--help"],
        &["config", "from-zeo", "--help"],
        &["serve", "--help"],
    ]
    .into_iter()
    .map(|arguments| run(fssync().args(arguments)).expect(0).stdout)
    .collect()
}

pub fn man_page() -> String {
    let path = project("man/fssync.1");
    let source = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    without_roff(&source)
}

#[test]
fn the_man_page_names_every_option_and_no_other() {
    let typed = options(&help());
    assert!(
        typed.contains("full") && typed.contains("status-file"),
        "{typed:?}"
    );
    assert_eq!(options(&man_page()), typed);
}

#[test]
fn the_commands_of_the_documents_have_only_options_that_exist() {
    let typed = options(&help());
    let mut used = BTreeSet::new();
    for document in for_administrators() {
        let text = fs::read_to_string(project(&document)).expect(&document);
        let code = text.split("```").skip(1).step_by(2);
        let commands = code.flat_map(str::lines).filter(|line| {
            let words = [" fssync ", "fssync "];
            (line.contains(words[0]) || line.starts_with(words[1])) && !line.contains("rsync ")
        });
        let found: BTreeSet<_> = commands.flat_map(options).collect();
        let unknown: Vec<_> = found.difference(&typed).collect();
        assert!(unknown.is_empty(), "{document}: {unknown:?}");
        used.extend(found);
    }
    assert!(used.len() > 10, "{used:?}");
}

/// The numbers at the start of a line, or after a semicolon or colon.
fn leading_numbers(text: &str) -> BTreeSet<u8> {
    text.split(['\n', ';', ':'])
        .filter_map(|part| part.split_whitespace().next()?.parse().ok())
        .collect()
}

#[test]
fn the_man_page_names_every_exit_code_and_no_other() {
    let help = help().split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, codes) = help.split_once("Exit codes: ").expect("exit codes");
    let codes = leading_numbers(&format!("; {codes}"));
    let known = [0, 1, 2, 10, 11, 12, 13, 14, 20, 30, 31];
    assert_eq!(codes, BTreeSet::from(known));
    let page = man_page();
    let (_, section) = page
        .split_once(".SH EXIT")
        .expect("a section on exit codes");
    let section = section.split(".SH").next().unwrap();
    assert_eq!(leading_numbers(section), codes);
}

#[test]
fn the_man_page_is_formatted_without_a_warning() {
    let page = project("man/fssync.1");
    let run = run(tool("man", "man-db")
        .args(["--warnings=all", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
        .arg(page));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}
