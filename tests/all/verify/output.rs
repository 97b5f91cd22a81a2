//! The output of findings: text, JSON, exit codes.

use std::collections::BTreeSet;
use std::fs;

use fssync::verify::finding::{Kind, Severity};
use serde_json::json;

use super::{number, scene_of, sound, txns};
use crate::man_page::man_page;
use crate::support::{Scene, Zodb, fssync, project, run};

#[test]
fn findings_are_printed_as_text() {
    let all = txns(sound());
    let mut bytes = sound().to_vec();
    bytes[all[3].record() + 15] ^= 1;
    bytes[all[6].start() + 16] = 0x1b;
    let scene = scene_of(&bytes);
    let printed = run(&mut scene.verify(&[])).expect(31);
    let tid = all[3].found.header.tid;
    let found = tid.0 ^ 1;
    let lines: Vec<_> = printed.stdout.lines().collect();
    let at = all[3].record();
    let oid = number(&bytes, at);
    let line = format!(
        "DAMAGE        Data.fs at {at}, tid {}, oid {oid:016x}",
        tid.with_time()
    );
    let position = lines.iter().position(|it| **it == line);
    let position = position.unwrap_or_else(|| panic!("{line}: {}", printed.stdout));
    assert_eq!(
        lines[position + 1].trim(),
        format!("expected tid {tid}, found {found:016x}")
    );
    assert!(lines[position + 2].trim().starts_with("to do: "));
    assert_eq!(*lines.last().unwrap(), "DAMAGED: 1 finding");
    assert!(
        printed.stdout.contains("blemish       Data.fs at "),
        "{}",
        printed.stdout
    );
    assert!(!printed.stdout.contains('\x1b'), "{}", printed.stdout);
    // One line for cron, and no output if all is well.
    let quiet = run(&mut scene.verify(&["-q"])).expect(31);
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.lines().count()),
        ("", 1),
        "{quiet:?}"
    );
    let quiet = run(&mut scene_of(sound()).verify(&["-q"])).expect(0);
    assert_eq!((quiet.stdout, quiet.stderr), (String::new(), String::new()));
}

#[test]
fn a_file_name_cannot_send_escape_sequences_to_the_terminal() {
    let scene = Scene::new();
    let slave = scene.slave.with_file_name("Data\x1b[31m.fs");
    let mut bytes = sound().to_vec();
    bytes[16] = b'c';
    fs::write(&slave, bytes).unwrap();
    let printed = run(fssync().arg("verify").arg(&slave)).expect(31);
    assert!(
        printed.stdout.contains("Data?[31m.fs") && !printed.stdout.contains('\x1b'),
        "{printed:?}"
    );
}

#[test]
fn the_first_of_many_findings_are_printed_and_all_are_counted() {
    let scene = Scene::new();
    let mut zodb = Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.slave, "create": true}));
    zodb.call(&json!({"cmd": "commit", "name": "m", "objects": 300, "size": 10}));
    zodb.call(&json!({"cmd": "close", "name": "m"}));
    fs::remove_file(scene.beside(".index")).unwrap();
    let mut bytes = fs::read(&scene.slave).unwrap();
    for at in &txns(&bytes)[0].stored {
        bytes[*at as usize + 8] ^= 1;
    }
    fs::write(&scene.slave, bytes).unwrap();
    let report = run(&mut scene.verify(&["--json"])).expect(31).report();
    assert_eq!(report["damages"], 300);
    assert_eq!(report["counts"], json!({"data-tid": 300}));
    assert_eq!(report["findings"].as_array().unwrap().len(), 100);
    let printed = run(&mut scene.verify(&[])).expect(31);
    assert!(
        printed.stdout.contains("and 200 more of the kind data-tid"),
        "{printed:?}"
    );
}

#[test]
fn the_report_always_has_the_same_keys_and_the_man_page_names_them_and_all_kinds() {
    let mut bytes = sound().to_vec();
    bytes[txns(sound())[4].end() - 1] ^= 1;
    let mut keys = BTreeSet::new();
    let mut shapes = BTreeSet::new();
    for bytes in [sound(), &bytes, b"", &[b'x'; 100]] {
        let run = run(&mut scene_of(bytes).verify(&["--json"]));
        assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
        let report = run.report();
        assert_eq!(report["exit_code"], run.code);
        let found: BTreeSet<_> = report.as_object().unwrap().keys().cloned().collect();
        for finding in report["findings"].as_array().unwrap() {
            keys.extend(finding.as_object().unwrap().keys().cloned());
            let kind = finding["kind"].as_str().unwrap();
            assert!(Kind::ALL.iter().any(|it| it.as_str() == kind), "{kind}");
        }
        keys.extend(found.clone());
        shapes.insert(found);
    }
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    let page = man_page();
    let (_, section) = page.split_once(".SH VERIFY").expect("a section on verify");
    let section = section.split(".SH").next().unwrap();
    let named: BTreeSet<String> = section
        .split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != '-')
        .map(str::to_owned)
        .collect();
    let source = fs::read_to_string(project("man/fssync.1")).unwrap();
    let page_of = |heading: &str| {
        let (_, page) = source.split_once(heading).expect(heading);
        page.split(".SS").next().unwrap().replace('\\', "")
    };
    let damage = page_of(".SS Kinds of damage");
    let blemishes = page_of(".SS Kinds of blemishes");
    for kind in Kind::ALL {
        let page = match kind.severity() {
            Severity::Damage => &damage,
            Severity::Blemish => &blemishes,
        };
        let entry = format!(".TP\n.B {}\n", kind.as_str());
        assert_eq!(page.matches(&entry).count(), 1, "{entry}");
    }
    for key in keys {
        assert!(named.contains(&key), "{key} is not in the man page");
    }
}

#[test]
fn invalid_arguments_are_usage_errors() {
    let scene = scene_of(sound());
    let slave = scene.slave.to_str().unwrap();
    for arguments in [
        &["verify"][..],
        &["verify", slave, slave],
        &["verify", "--full", slave],
        &["verify", "/no/such/directory/Data.fs"],
    ] {
        let run = run(fssync().args(arguments));
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert_ne!(run.stderr, "", "{arguments:?}");
    }
}
