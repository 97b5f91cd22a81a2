//! Progress: the bar on a terminal, and lines elsewhere.

use std::fs;
use std::process::Command;

use crate::support::{Scene, append_sparse, fssync, project, python, run, sparse_master};

/// The output on standard error of a pass that copies a large file.
fn printed(on_terminal: bool, options: &[&str]) -> String {
    printed_on(on_terminal.then_some(("xterm", 100)), options)
}

/// The same on a terminal of this type and width in columns, if there is one.
fn printed_on(terminal: Option<(&str, u16)>, options: &[&str]) -> String {
    let scene = Scene::new();
    sparse_master(&scene.master, 1 << 30);
    let mut command = fssync();
    if let Some((kind, columns)) = terminal {
        let pty =
            "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let sized = format!("stty rows 24 columns {columns} && exec \"$@\"");
        command = Command::new(python());
        command.args(["-c", pty, "sh", "-c", &sized, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_fssync"));
        command.env("TERM", kind).env_remove("NO_COLOR");
    }
    let run = run(command.args(options).args([&scene.master, &scene.slave]));
    assert_eq!(run.code, 0, "{run:?}");
    run.stdout + &run.stderr
}

#[test]
fn a_progress_bar_is_drawn_on_a_terminal() {
    let printed = printed(true, &[]);
    assert!(printed.contains("copying ["), "{printed:?}");
    assert!(printed.contains("1.0 GiB"), "{printed:?}");
}

/// The lines that a terminal shows: without escape sequences, each up to the point where the
/// next text starts at the beginning of the line.
fn shown_lines(printed: &str) -> Vec<String> {
    let is_text = |part: &str| !part.trim().is_empty();
    let mut lines = Vec::new();
    for line in printed.split(['\r', '\n']) {
        let mut text = String::new();
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\x1b' => while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
                c => text.push(c),
            }
        }
        lines.extend(is_text(&text).then_some(text));
    }
    lines
}

#[test]
fn progress_fits_a_terminal_of_40_columns() {
    let printed = printed_on(Some(("xterm", 40)), &[]);
    let lines = shown_lines(&printed);
    let bars: Vec<_> = lines
        .iter()
        .filter(|it| it.starts_with("copying") && it.contains('%'))
        .collect();
    assert!(
        bars.iter().any(|line| line.starts_with("copying")),
        "{printed:?}"
    );
    for line in bars {
        assert!(line.chars().count() <= 40, "{line:?}");
    }
}

#[test]
fn a_dumb_terminal_gets_neither_colours_nor_a_bar() {
    for options in [&[][..], &["--progress", "always"]] {
        let printed = printed_on(Some(("dumb", 80)), options);
        assert!(!printed.contains('\x1b'), "{printed:?}");
        let has_lines = printed.contains("copying: 1.0 GiB of 1.0 GiB");
        assert_eq!(has_lines, !options.is_empty(), "{printed:?}");
    }
}

#[test]
fn a_single_transaction_is_counted_in_the_singular() {
    let scene = Scene::new();
    sparse_master(&scene.master, 1 << 20);
    let log = scene.pass(&[]).expect(0).stderr;
    assert!(log.contains("copied 1 transaction, 1.0 MiB in"), "{log}");
}

#[test]
fn no_bar_is_drawn_on_a_terminal_with_progress_never() {
    let printed = printed(true, &["--progress", "never"]);
    assert!(!printed.contains("copying"), "{printed:?}");
    assert!(printed.contains("Finished syncing"));
}

#[test]
fn no_bar_is_drawn_without_a_terminal() {
    let printed = printed(false, &[]);
    assert!(!printed.contains("copying"), "{printed:?}");
    assert!(printed.contains("Finished syncing"));
}

#[test]
fn progress_always_prints_lines_without_a_terminal() {
    let printed = printed(false, &["--progress", "always"]);
    assert!(
        printed.contains("copying: 1.0 GiB of 1.0 GiB"),
        "{printed:?}"
    );
}

#[test]
fn the_speed_of_a_resumed_copy_counts_only_new_bytes() {
    let scene = Scene::new();
    sparse_master(&scene.master, 1 << 30);
    fs::copy(&scene.master, scene.beside(".fssync-tmp")).unwrap();
    append_sparse(&scene.master, 3 << 19, 0x0500_0000_0000_0000);
    // About 100 kB/s.
    let rsh = format!("python3 {} 0 slow", project("tests/link.py").display());
    let mut copy = fssync();
    copy.args(["--progress", "always", "--remote-fssync"]);
    copy.args([env!("CARGO_BIN_EXE_fssync"), "-e", &rsh]);
    copy.arg(format!("host:{}", scene.master.display()))
        .arg(&scene.slave);
    let log = run(&mut copy).expect(0).stderr;
    let is_progress = |line: &&str| line.starts_with("copying: ") && line.contains("/s, ");
    let line = log.lines().find(is_progress).expect(&log);
    assert!(line.contains("KiB/s"), "{log}");
}
