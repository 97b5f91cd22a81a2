//! Metrics: the text, the textfile, node_exporter, the alert rules and the dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::faults::Mount;
use crate::site::support::SiteScene;
use crate::support::{
    Holder, Scene, fssync, must, names, packaged, project, require_root, run, spawn, tool,
    wait_for, wait_for_minutes,
};
use crate::watcher::Watcher;

/// All metrics with the labels of `operations`, in the order of their names.
const METRICS: [&str; 19] = [
    "fssync_blobs_missing",
    "fssync_build_info",
    "fssync_copied_blobs_total",
    "fssync_copied_bytes_total",
    "fssync_copied_transactions_total",
    "fssync_index_scan_bytes",
    "fssync_last_in_sync_timestamp_seconds",
    "fssync_last_pass_duration_seconds",
    "fssync_last_pass_exit_code",
    "fssync_last_pass_timestamp_seconds",
    "fssync_last_transaction_timestamp_seconds",
    "fssync_last_verify_timestamp_seconds",
    "fssync_passes_total",
    "fssync_position_bytes",
    "fssync_set_aside_bytes",
    "fssync_state",
    "fssync_storage_info",
    "fssync_syncing_enabled",
    "node_textfile_mtime_seconds",
];

/// The metrics of the scene's slave.
fn metrics(scene: &Scene) -> String {
    run(&mut scene.status(&["--prometheus"])).expect(0).stdout
}

/// The value of a metric with these labels.
fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with(series) && line[series.len()..].starts_with(' '));
    line.map(|line| line[series.len() + 1..].parse().expect("a number"))
}

fn series_of(text: &str, state: &str) -> Option<f64> {
    let start = format!("fssync_state{{state=\"{state}\"");
    let line = text.lines().find(|line| line.starts_with(&start))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The one state whose value is 1.
fn state(text: &str) -> String {
    let is_current = |line: &&str| line.starts_with("fssync_state{") && line.ends_with(" 1");
    let current: Vec<_> = text.lines().filter(is_current).collect();
    assert_eq!(current.len(), 1, "{text}");
    current[0].split('"').nth(1).unwrap().to_owned()
}

#[track_caller]
fn check_with_promtool(text: &str) {
    let promtool = packaged("prometheus", "usr/bin/promtool");
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]);
    let mut checking = spawn(command.stdin(Stdio::piped()).stderr(Stdio::piped()));
    let mut input = checking.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = checking.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{complaints}{text}"
    );
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let scene = Scene::with_master("commits");
    check_with_promtool(&metrics(&scene));
    scene.pass(&[]).expect(0);
    run(&mut scene.verify(&[])).expect(0);
    let text = metrics(&scene);
    check_with_promtool(&text);
    let size = fs::metadata(&scene.slave).unwrap().len();
    let of = |name: &str| format!("{name}{{storage=\"slave\"}}");
    #[allow(clippy::cast_precision_loss, reason = "a small file")]
    let expected = size as f64;
    assert_eq!(value(&text, &of("fssync_position_bytes")), Some(expected));
    assert_eq!(value(&text, &of("fssync_last_pass_exit_code")), Some(0.0));
    assert_eq!(value(&text, &of("fssync_syncing_enabled")), Some(1.0));
    assert_eq!(
        value(&text, &of("fssync_copied_transactions_total")),
        Some(8.0)
    );
    let copied = "fssync_copied_bytes_total{action=\"full-copy\",storage=\"slave\"}";
    assert_eq!(value(&text, copied), Some(expected));
    let passes = "fssync_passes_total{exit_code=\"0\",storage=\"slave\"}";
    assert_eq!(value(&text, passes), Some(1.0));
    assert!(
        text.contains(&format!("master=\"{}\"", scene.master.display())),
        "{text}"
    );
    // A timestamp after the value would make node_exporter ignore the file.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let after = line.rsplit('}').next().unwrap();
        assert_eq!(after.split_whitespace().count(), 1, "{line}");
    }
}

#[test]
fn the_state_is_that_of_the_slave_the_switches_or_the_last_pass() {
    let scene = Scene::with_master("commits");
    assert_eq!(state(&metrics(&scene)), "no-slave");
    scene.pass(&[]).expect(0);
    assert_eq!(state(&metrics(&scene)), "in-sync");
    assert_eq!(series_of(&metrics(&scene), "off"), Some(0.0));
    let zeo = Holder::of(&scene.beside(".lock"));
    assert_eq!(state(&metrics(&scene)), "in-use");
    run(fssync().arg("off").arg("-q").arg(&scene.slave));
    assert_eq!(state(&metrics(&scene)), "serving");
    drop(zeo);
    assert_eq!(state(&metrics(&scene)), "off");
    fs::remove_file(scene.beside(".fssync-switch")).unwrap();
    let away = scene.directory.path().join("away");
    fs::rename(&scene.master, &away).unwrap();
    scene.pass(&["--timeout", "0.1"]).expect(12);
    assert_eq!(state(&metrics(&scene)), "unreachable");
    fs::rename(&away, &scene.master).unwrap();
    let mut bytes = fs::read(&scene.slave).unwrap();
    bytes[4] ^= 1;
    fs::write(&scene.slave, &bytes).unwrap();
    scene.pass(&[]).expect(20);
    let text = metrics(&scene);
    assert!(
        ["diverged", "slave-damaged"].contains(&state(&text).as_str()),
        "{text}"
    );
    check_with_promtool(&text);
}

/// A value with quotes, backslashes and line feeds in it.
#[test]
fn labels_are_escaped() {
    let scene = Scene::with_master("commits");
    scene.pass(&[]).expect(0);
    scene.edit_sidecar(|sidecar| sidecar["master"] = json!("a\"b\\c\nd"));
    let text = metrics(&scene);
    assert!(text.contains(r#"master="a\"b\\c\nd""#), "{text}");
    check_with_promtool(&text);
}

#[test]
fn node_exporter_serves_the_textfiles() {
    let scene = Scene::with_master("commits");
    let other = scene.directory.path().join("other/filestorage");
    fs::create_dir_all(&other).unwrap();
    let directory = scene.directory.path().join("node-exporter");
    fs::create_dir(&directory).unwrap();
    let option = |name: &str| format!("--textfile={}/{name}", directory.display());
    run(&mut scene.command(&["-q", &option("fssync.prom")])).expect(0);
    let mut second = fssync();
    second
        .arg(option("fssync-other.prom"))
        .arg(&scene.master)
        .arg(&other);
    run(&mut second).expect(0);
    assert_eq!(names(&directory), ["fssync-other.prom", "fssync.prom"]);
    let mode = fs::metadata(directory.join("fssync.prom"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o644);

    let exporter = packaged(
        "prometheus-node-exporter",
        "usr/bin/prometheus-node-exporter",
    );
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let log = scene.directory.path().join("log");
    let mut command = Command::new(exporter);
    command
        .args(["--collector.disable-defaults", "--collector.textfile"])
        .arg(format!(
            "--collector.textfile.directory={}",
            directory.display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .stderr(fs::File::create(&log).unwrap());
    let mut process = spawn(&mut command);
    wait_for("node_exporter", || TcpStream::connect(address).is_ok());
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut scraped = String::new();
    connection.read_to_string(&mut scraped).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    for storage in ["slave", "other"] {
        let series = format!("fssync_syncing_enabled{{storage=\"{storage}\"}}");
        assert_eq!(value(&scraped, &series), Some(1.0), "{scraped}");
    }
    assert!(
        scraped.contains("# TYPE fssync_passes_total counter"),
        "{scraped}"
    );
    assert_eq!(
        value(&scraped, "node_textfile_scrape_error"),
        Some(0.0),
        "{scraped}"
    );
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("level=error"), "{log}");
}

#[test]
fn a_textfile_of_a_site_always_has_all_storages() {
    let mut site = SiteScene::of(&["catalog", "site"]);
    let textfile = site.at("fssync.prom");
    site.append(&format!("[metrics]\ntextfile = '{}'\n", textfile.display()));
    let text = || fs::read_to_string(&textfile).unwrap();
    site.run(&["--storage", "site"]).expect(0);
    assert_eq!(
        value(&text(), "fssync_syncing_enabled{storage=\"catalog\"}"),
        Some(1.0)
    );
    assert_eq!(
        value(&text(), "fssync_last_pass_exit_code{storage=\"site\"}"),
        Some(0.0)
    );
    assert_eq!(
        value(&text(), "fssync_last_pass_exit_code{storage=\"catalog\"}"),
        None
    );
    site.run(&[]).expect(0);
    assert_eq!(
        value(&text(), "fssync_last_pass_exit_code{storage=\"catalog\"}"),
        Some(0.0)
    );
    check_with_promtool(&text());
    assert!(text().contains("fssync_build_info"));
    let printed = site.run(&["status", "--prometheus"]).expect(0).stdout;
    assert_eq!(printed.lines().count(), text().lines().count());
    // A dry run writes nothing.
    fs::remove_file(&textfile).unwrap();
    site.run(&["-n"]).expect(0);
    assert!(!textfile.exists());
}

#[test]
fn a_watch_writes_the_textfile_after_passes_and_once_a_minute() {
    let scene = Scene::with_master("commits");
    let textfile = scene.directory.path().join("fssync.prom");
    let option = format!("--textfile={}", textfile.display());
    let _watcher = Watcher::start(&scene, &[&option, "--interval", "86400"]);
    let text = || fs::read_to_string(&textfile).unwrap_or_default();
    wait_for("metrics of the first pass", || {
        value(&text(), "fssync_last_pass_exit_code{storage=\"slave\"}") == Some(0.0)
    });
    fs::remove_file(&textfile).unwrap();
    wait_for_minutes(2, "metrics of an idle watch", || textfile.exists());
}

/// The exit code and the output on standard output stay the same, and the pass is not delayed.
#[test]
fn a_textfile_that_cannot_be_written_is_a_warning() {
    require_root();
    let scene = Scene::with_master("commits");
    let root = scene.directory.path();
    let (full, small) = (root.join("full"), root.join("small"));
    fs::create_dir(&full).unwrap();
    fs::create_dir_all(small.join("fssync.prom")).unwrap();
    let disk = Mount::new(
        &["-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "tmpfs"],
        &full,
    );
    fs::write(full.join("filler"), vec![1; 4096]).unwrap();
    for path in [
        root.join("missing/fssync.prom"),
        full.join("fssync.prom"),
        small.join("fssync.prom"),
        Path::new("/proc/fssync.prom").to_owned(),
    ] {
        let option = format!("--textfile={}", path.display());
        let pass = scene.pass(&[&option]).expect(0);
        let warnings = pass.stderr.matches("no metrics: cannot write").count();
        assert_eq!(warnings, 1, "{pass:?}");
        let quiet = run(&mut scene.command(&["-q", &option])).expect(0);
        assert_eq!(quiet.stderr, "");
    }
    assert_eq!(names(&small), ["fssync.prom"]);
    drop(disk);
    let option = format!("--textfile={}", root.join("missing/fssync.prom").display());
    let mut watcher = Watcher::start(&scene, &[&option, "--interval", "0.1"]);
    watcher.expect("no metrics: cannot write");
    fs::create_dir(root.join("missing")).unwrap();
    let mut zodb = crate::support::Zodb::start();
    zodb.call(&json!({"cmd": "open", "name": "m", "path": scene.master}));
    zodb.call(&json!({"cmd": "commit", "name": "m"}));
    watcher.expect("is written again");
    assert_eq!(
        watcher.log().matches("no metrics").count(),
        1,
        "{}",
        watcher.log()
    );
}

/// Somebody may read the metrics from a FIFO by mistake.
#[test]
fn another_file_in_the_place_of_the_textfile_is_not_replaced() {
    let scene = Scene::with_master("commits");
    let fifo = scene.directory.path().join("fifo.prom");
    must(tool("mkfifo", "coreutils").arg(&fifo));
    let device = Path::new("/dev/full").to_owned();
    for path in [fifo, device, scene.master.clone(), scene.slave.clone()] {
        let option = format!("--textfile={}", path.display());
        let pass = scene.pass(&[&option]).expect(0);
        let why = format!("no metrics: cannot write {}: it exists", path.display());
        assert!(pass.stderr.contains(&why), "{pass:?}");
        let is_file = fs::metadata(&path).unwrap().is_file();
        assert_eq!(is_file, path.ends_with("Data.fs"), "{path:?}");
    }
    let log = |path| fs::read(path).unwrap();
    assert_eq!(log(&scene.master), log(&scene.slave));
    assert!(log(&scene.slave).starts_with(b"FS"));
}

#[test]
fn promtool_tests_the_alert_rules() {
    let promtool = packaged("prometheus", "usr/bin/promtool");
    let rules = project("contrib/prometheus");
    for arguments in [
        ["check", "rules", "fssync.rules.yml"],
        ["test", "rules", "fssync.rules.test.yml"],
    ] {
        must(Command::new(&promtool).current_dir(&rules).args(arguments));
    }
}

/// The words in a text that start like a metric.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    words
        .filter(|word| word.starts_with("fssync_") || word.starts_with("node_textfile_"))
        .collect()
}

#[test]
fn rules_dashboard_and_page_use_only_metrics_that_exist() {
    let dashboard = fs::read_to_string(project("contrib/grafana/fssync.json")).unwrap();
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);
    let rules = fs::read_to_string(project("contrib/prometheus/fssync.rules.yml")).unwrap();
    let page = fs::read_to_string(project("docs/monitoring.md")).unwrap();
    let known = BTreeSet::from(METRICS);
    for text in [&dashboard, &rules, &page] {
        let used = metrics_in(text);
        assert!(used.is_subset(&known), "{:?}", used.difference(&known));
    }
    assert_eq!(metrics_in(&page), known, "the page describes each metric");
    let source = fs::read_to_string(project("src/metrics/exposition.rs")).unwrap();
    let mut written = metrics_in(&source);
    written.insert("node_textfile_mtime_seconds");
    assert_eq!(written, known);
}
