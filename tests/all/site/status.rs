//! The status of several storages: the table, the document, and the exit code.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::SiteScene;
use crate::support::{fssync, project, run, tool};

/// One storage in each of several states.
fn mixed() -> SiteScene {
    let mut site = SiteScene::of(&["site", "catalog", "department-of-long-names", "off"]);
    site.run(&[]).expect(0);
    site.run(&["off", "--storage", "off"]).expect(0);
    site.diverge("catalog");
    site.add_hanging("lost", 2);
    fs::copy(project("fixtures/commits.fs"), site.slave("lost")).expect("the fixture");
    site.add("new", "/none/Data.fs", "");
    site
}

#[test]
fn a_table_has_a_row_for_each_storage() {
    let status = mixed().run(&["status"]).expect(20);
    let lines: Vec<_> = status.stdout.lines().collect();
    let cells: Vec<(&str, &str)> = lines[1..7]
        .iter()
        .map(|line| {
            let (name, rest) = line.split_once(' ').expect("cells");
            (name, rest.trim_start().split("  ").next().expect("a state"))
        })
        .collect();
    let expected = [
        ("site", "in sync"),
        ("catalog", "diverged"),
        ("department-of-long-names", "in sync"),
        ("off", "off"),
        ("lost", "unreachable"),
        ("new", "no slave"),
    ];
    assert_eq!(cells, expected, "{}", status.stdout);
    for line in &lines[..7] {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(lines[0].split_whitespace().next(), Some("STORAGE"));
    for trouble in ["catalog: ", "lost: ", "new: "] {
        assert!(
            lines[8..].iter().any(|line| line.starts_with(trouble)),
            "{lines:?}"
        );
    }
    let last = lines.last().expect("a verdict");
    assert!(
        last.starts_with("If you failed over now: 3 of 6 storages would lose nothing"),
        "{last}"
    );
    assert!(!status.stdout.contains('\u{1b}'), "no colours in a file");
}

#[test]
fn the_document_has_an_object_for_each_storage() {
    let site = mixed();
    fs::rename(site.at("off"), site.at("unmounted")).unwrap();
    let status = site.run(&["status", "--json"]).expect(2).report();
    assert_eq!(status["config"], site.config().to_str().unwrap());
    assert_eq!(
        (&status["exit_code"], &status["in_sync"]),
        (&json!(2), &json!(2))
    );
    let summary = status["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("2 of 6 in sync; catalog: diverged"),
        "{summary}"
    );
    let storages = status["storages"].as_array().unwrap();
    let get = |key: &str| {
        storages
            .iter()
            .map(|it| it[key].clone())
            .collect::<Vec<_>>()
    };
    let names = [
        "site",
        "catalog",
        "department-of-long-names",
        "off",
        "lost",
        "new",
    ];
    assert_eq!(get("storage"), names);
    let words = [
        "in-sync",
        "diverged",
        "in-sync",
        "",
        "unreachable",
        "no-slave",
    ];
    let words = words.map(|it| {
        if it.is_empty() {
            json!(null)
        } else {
            json!(it)
        }
    });
    assert_eq!(get("replication"), words);
    assert_eq!(get("exit_code"), [0, 20, 0, 2, 12, 1]);
    let error = storages[3]["error"].as_str().unwrap();
    assert!(error.contains("does not exist"), "{error}");
}

#[test]
fn one_storage_has_its_facts_and_a_quiet_status_one_line() {
    let site = mixed();
    let one = site.run(&["status", "--storage", "site"]).expect(0);
    assert!(one.stdout.starts_with("slave         "), "{one:?}");
    let quiet = site.run(&["status", "-q"]).expect(20);
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.lines().count()),
        ("", 1)
    );
    for name in ["catalog: ", "lost: ", "new: "] {
        assert!(quiet.stderr.contains(name), "{quiet:?}");
    }
    let healthy = ["status", "-q", "--storage", "site", "--storage", "off"];
    assert_eq!(site.run(&healthy).expect(0).stderr, "");
}

#[test]
fn an_outdated_slave_is_found_among_several() {
    let site = SiteScene::of(&["site", "catalog"]);
    site.run(&[]).expect(0);
    site.run(&["status", "--max-age", "3600"]).expect(0);
    let sidecar = site.beside("catalog", ".fssync");
    let text = fs::read_to_string(&sidecar).unwrap();
    let mut content: serde_json::Value = serde_json::from_str(&text).unwrap();
    content["in_sync"] = json!("2020-01-01T00:00:00Z");
    fs::write(&sidecar, content.to_string()).unwrap();
    fs::remove_file(site.master("catalog")).unwrap();
    site.run(&["status", "--max-age", "3600"]).expect(14);
    site.run(&["status", "--max-age", "3600", "--storage", "site"])
        .expect(0);
}

#[test]
fn masters_that_hang_delay_the_status_only_once() {
    let mut site = SiteScene::of(&["site"]);
    site.run(&[]).expect(0);
    for n in 0..8 {
        let name = format!("lost{n}");
        site.add_hanging(&name, 60);
        fs::copy(project("fixtures/commits.fs"), site.slave(&name)).unwrap();
    }
    let started = Instant::now();
    let status = site.run(&["status", "--json"]).expect(12).report();
    // The limit of a status is 5 s for each master, and not 60 s.
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert_eq!(status["storages"].as_array().unwrap().len(), 9);
}

/// In a real terminal, of 80 columns, with colours.
#[test]
fn the_table_fits_into_a_terminal_and_is_coloured_there() {
    let site = mixed();
    let screen = site.at("screen");
    let line = format!(
        "{} status --config {} > /dev/tty; tput sgr0",
        env!("CARGO_BIN_EXE_fssync"),
        site.config().display()
    );
    let mut script = tool("script", "bsdutils");
    script
        .args(["-qec", &format!("stty cols 80; {line}")])
        .arg(&screen);
    run(script.env("TERM", "xterm"));
    let shown = fs::read_to_string(&screen).unwrap();
    assert!(shown.contains("\u{1b}[32m"), "green: {shown}");
    let plain = run(fssync().args(["status", "--config"]).arg(site.config())).stdout;
    let header = plain.lines().next().unwrap();
    assert!(shown.contains(header), "{shown}\n{header}");
}
