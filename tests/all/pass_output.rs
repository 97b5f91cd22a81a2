//! The output of a pass: `--json`, log lines, `-q` and `-v`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::decision_table::for_every_row;
use crate::support::{Scene, Transport, fssync, run, sparse_master};

#[test]
fn the_report_has_exactly_the_documented_keys() {
    for_every_row(|row, scene| {
        let run = scene.pass(row.options);
        assert_eq!(run.stdout.lines().count(), 1, "{}: {run:?}", row.name);
        let report = run.report();
        let keys: BTreeSet<&str> = report
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let expected = [
            "storage",
            "master",
            "slave",
            "action",
            "reason",
            "exit_code",
            "position",
            "last_tid",
            "transactions",
            "bytes",
            "blobs",
            "blob_bytes",
            "blobs_absent",
            "own_transactions",
            "set_aside",
            "elapsed_seconds",
            "warnings",
        ];
        assert_eq!(keys, BTreeSet::from(expected), "{}", row.name);
        assert_eq!(report["master"], scene.master.to_str().unwrap());
        assert_eq!(report["slave"], scene.slave.to_str().unwrap());
        assert!(report["elapsed_seconds"].as_f64().unwrap() > 0.0);
        let warnings = report["warnings"].as_array().unwrap();
        for warning in warnings {
            assert!(run.stderr.contains(warning.as_str().unwrap()), "{run:?}");
        }
        let is_kept = |name: &String| name.starts_with("Data.fs.diverged-");
        let is_set_aside = scene.beside_slave().iter().any(is_kept);
        assert_eq!(!warnings.is_empty(), is_set_aside, "{}: {report}", row.name);
        assert!(
            report["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
        let is_rewind = row.action == "rewind";
        let own = report["own_transactions"].as_u64().unwrap();
        assert_eq!(own > 0, is_rewind, "{report}");
        for key in ["transactions", "bytes"] {
            // After a rewind, the master may have nothing new.
            if is_rewind {
                continue;
            }
            let is_copy = ["append", "trim-append", "full-copy"].contains(&row.action);
            assert_eq!(report[key].as_u64().unwrap() > 0, is_copy, "{report}");
        }
    });
}

#[test]
fn quiet_prints_one_line_if_a_person_must_know_and_nothing_otherwise() {
    for_every_row(|row, scene| {
        let mut command = fssync();
        command
            .arg("-q")
            .args(row.options)
            .args([&scene.master, &scene.slave]);
        let run = run(&mut command);
        assert_eq!(run.code, row.code, "{}: {run:?}", row.name);
        assert_eq!(run.stdout, "", "{}", row.name);
        let is_kept = |name: &String| name.starts_with("Data.fs.diverged-");
        let is_set_aside = scene.beside_slave().iter().any(is_kept);
        let lines = usize::from(is_set_aside || ![0, 10, 11].contains(&row.code));
        assert_eq!(run.stderr.lines().count(), lines, "{}: {run:?}", row.name);
        let kept = ["the old slave is kept as", "are set aside in"];
        let warns = kept.iter().any(|text| run.stderr.contains(text));
        assert_eq!(warns, is_set_aside, "{}: {run:?}", row.name);
    });
}

#[test]
fn the_log_keeps_the_phrases_of_sync_pozo() {
    for_every_row(|row, scene| {
        let run = scene.pass(row.options);
        let log = &run.stderr;
        let has = |phrase| log.contains(phrase);
        assert!(has("Start syncing"), "{}: {log}", row.name);
        assert_eq!(
            has("Finished syncing"),
            row.code == 0,
            "{}: {log}",
            row.name
        );
        assert_eq!(
            has("NOT SYNCING FROM MASTER"),
            row.code != 0,
            "{}: {log}",
            row.name
        );
        let reason = run.report()["reason"].as_str().unwrap().to_owned();
        assert!(log.contains(&reason), "{}: {log}", row.name);
        if row.action == "full-copy" {
            assert!(has("full backup"), "{}: {log}", row.name);
        }
        if row.name == "a slave that has grown" {
            assert!(has("has grown since last syncing"), "{log}");
        }
    });
}

#[test]
fn log_lines_start_with_a_timestamp() {
    let scene = Scene::with_master("commits");
    let log = scene.pass(&[]).expect(0).stderr;
    assert!(log.lines().count() >= 2);
    for line in log.lines() {
        let stamp = line.split(' ').next().unwrap();
        assert!(stamp.ends_with('Z') && stamp.contains('T'), "{line}");
    }
}

#[test]
fn log_lines_are_json_if_requested() {
    for_every_row(|row, scene| {
        let options = [&["--log-format", "json"], row.options].concat();
        let run = scene.pass(&options);
        assert!(run.stderr.lines().count() >= 2, "{}: {run:?}", row.name);
        for line in run.stderr.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            for key in ["timestamp", "level", "message"] {
                assert!(line[key].is_string(), "{}: {line}", row.name);
            }
        }
    });
}

#[test]
fn verbose_does_not_log_each_request_of_a_copy() {
    let scene = Scene::new().over(Transport::Ssh);
    sparse_master(&scene.master, 64 << 20);
    let lines = |option: &str| {
        let copy = scene.pass(&[option, "--whole"]).expect(0);
        copy.stderr.lines().count()
    };
    assert!(lines("-v") < 30);
    assert!(lines("-vv") > 60);
}

#[test]
fn verbose_logs_more_lines() {
    let lines = |option: &str| {
        let scene = Scene::with_master("commits");
        scene.pass(&[option]).expect(0).stderr.lines().count()
    };
    assert!(lines("-v") > lines("--progress=never"));
}
