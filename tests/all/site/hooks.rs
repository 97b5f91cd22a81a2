//! Passes and watches that run hooks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::SiteScene;
use crate::cron::{Cron, three_times_a_minute};
use crate::support::{fssync, run, spawn, tool, wait_for, wait_for_minutes, write_program};

/// A site with one storage in sync, and a hook with this script. `$OUT` is a path for its output.
fn site(script: &str, keys: &str) -> SiteScene {
    let mut site = SiteScene::of(&["site"]);
    site.run(&[]).expect(0);
    let script = format!("OUT={}; {script}", out(&site).display()).replace('$', "$$");
    site.append(&format!(
        "[[hook]]\non = [\"diverged\", \"unreachable\", \"failing\", \"in-sync\"]\n\
         command = [\"sh\", \"-c\", '''{script}''']\n{keys}\n"
    ));
    site
}

fn out(site: &SiteScene) -> PathBuf {
    site.at("out")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of a variable in the output of `env`.
fn variable<'a>(env: &'a str, name: &str) -> &'a str {
    let prefix = format!("FSSYNC_{name}=");
    let value = env.lines().find_map(|line| line.strip_prefix(&prefix));
    value.unwrap_or_else(|| panic!("no {prefix} in {env}"))
}

/// Whether the process exists whose id a hook has written to this file.
fn is_running(pid: &Path) -> bool {
    let pid = read(pid).trim().to_owned();
    let stat = read(Path::new(&format!("/proc/{pid}/stat")));
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Starts a command whose output is not read.
fn start(site: &SiteScene, arguments: &[&str]) -> Child {
    let log = File::create(site.at("log")).unwrap();
    let mut command = site.command(arguments);
    spawn(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log),
    )
}

#[test]
fn a_hook_gets_the_outcome_in_its_environment_and_on_its_input() {
    let site = site("env > $OUT.env; cat > $OUT.json; echo >> $OUT", "");
    site.diverge("site");
    let pass = site.run(&["--json"]).expect(20);
    let env = read(&site.at("out.env"));
    let report: Value = serde_json::from_str(&pass.stdout).unwrap();
    for (name, expected) in [
        ("EVENT", "diverged"),
        ("STORAGE", "site"),
        ("FROM", ""),
        ("TO", "diverged"),
        ("EXIT_CODE", "20"),
        ("REASON", report["reason"].as_str().unwrap()),
        ("MASTER", &site.master("site").display().to_string()),
        ("SLAVE", &site.slave("site").display().to_string()),
        ("POSITION", &report["position"].to_string()),
        ("LAST_TID", report["last_tid"].as_str().unwrap()),
    ] {
        assert_eq!(variable(&env, name), expected, "{name}");
    }
    assert!(variable(&env, "HINT").contains("--full"), "{env}");
    let since = variable(&env, "SINCE");
    assert!(since.parse::<jiff::Timestamp>().is_ok(), "{since}");
    let mut input: Value = serde_json::from_str(&read(&site.at("out.json"))).unwrap();
    assert_eq!(input["storage"], "site");
    // The two were printed by different means.
    input["elapsed_seconds"] = report["elapsed_seconds"].clone();
    assert_eq!(input, report);

    // The same outcome is reported once, and so is the recovery.
    site.run(&[]).expect(20);
    assert_eq!(read(&out(&site)).len(), 1);
    site.run(&["--full"]).expect(0);
    site.run(&[]).expect(0);
    assert_eq!(read(&out(&site)).len(), 2);
    let env = read(&site.at("out.env"));
    assert_eq!(variable(&env, "FROM"), "diverged");
    assert_eq!(variable(&env, "TO"), "in-sync");
}

#[test]
fn a_hook_that_hangs_delays_neither_the_next_pass_nor_off() {
    let site = site("echo $$ > $OUT; exec sleep 600", "timeout = 20");
    site.diverge("site");
    let started = Instant::now();
    let mut first = start(&site, &[]);
    wait_for("hook", || !read(&out(&site)).is_empty());
    // Not 11: the pass lock is free. The hook has been started once, so this pass does not wait.
    site.run(&[]).expect(20);
    site.run(&["off"]).expect(0);
    site.run(&["status", "--local"]);
    assert!(is_running(&out(&site)), "the hook still runs");
    let record = site.beside("site", ".fssync-hooks");
    let before = fs::metadata(&record).unwrap().modified().unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(20));
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(20), "{waited:?}");
    assert!(!is_running(&out(&site)), "the hook was killed");
    let log = read(&site.at("log"));
    assert!(log.contains("was killed after 20 s"), "{log}");
    // It ended after off.
    assert_eq!(fs::metadata(&record).unwrap().modified().unwrap(), before);
}

/// The process that it has left in the background keeps its output open.
#[test]
fn a_hook_that_forks_delays_nothing_and_its_child_lives_on() {
    let site = site(
        "sleep 600 & echo $! > $OUT; echo in the background; exit 0",
        "timeout = 60",
    );
    site.diverge("site");
    let started = Instant::now();
    let pass = site.run(&["-v"]).expect(20);
    assert!(started.elapsed() < Duration::from_secs(30), "{pass:?}");
    assert!(is_running(&out(&site)), "it is not fssync's to kill");
    // The report counts as made.
    assert!(!pass.stderr.contains("the hook sh, which"), "{pass:?}");
    fs::write(site.at("before"), read(&out(&site))).unwrap();
    site.run(&[]).expect(20);
    assert_eq!(read(&out(&site)), read(&site.at("before")));
    let pid = read(&out(&site)).trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// A hook that hangs is killed with all processes that it has started.
#[test]
fn the_children_of_a_hook_that_hangs_are_killed_with_it() {
    let site = site(
        "for n in 1 2 3; do (echo $(exec sh -c 'echo $PPID') > $OUT.$n; sleep 600) & done; wait",
        "timeout = 5",
    );
    site.diverge("site");
    let pass = site.run(&["-q"]).expect(20);
    assert!(pass.stderr.contains("was killed after 5 s"), "{pass:?}");
    for n in 1..=3 {
        let child = site.at(&format!("out.{n}"));
        assert!(!read(&child).is_empty());
        wait_for("the end of the child", || !is_running(&child));
    }
}

/// cron's own daemon makes the passes of all storages, with its few environment variables.
#[test]
fn cron_runs_a_hook_once_for_an_outage_and_once_for_its_end() {
    let site = site("env > $OUT.$FSSYNC_EVENT; echo $FSSYNC_EVENT >> $OUT", "");
    let [passes, away] = ["passes", "away"].map(|name| site.at(name));
    let pass = format!(
        "{} -q --remind 1h --timeout 1 --config {}",
        env!("CARGO_BIN_EXE_fssync"),
        site.config().display()
    );
    fs::rename(site.master("site"), &away).unwrap();
    let table = "MAILTO=admin\n".to_owned() + &three_times_a_minute(&pass, &passes);
    let cron = Cron::start(site.directory.path(), &table);
    let count = |code: &str| read(&passes).lines().filter(|it| *it == code).count();
    wait_for_minutes(3, "passes of an outage", || count("12") >= 2);
    assert_eq!(read(&out(&site)), "unreachable\n");
    fs::rename(&away, site.master("site")).unwrap();
    wait_for_minutes(3, "passes in sync", || count("0") >= 2);
    assert_eq!(read(&out(&site)), "unreachable\nin-sync\n");
    let env = read(&site.at("out.in-sync"));
    assert_eq!(variable(&env, "FROM"), "unreachable");
    assert!(
        env.contains("SHELL=/bin/sh\n") && !env.contains("CARGO"),
        "{env}"
    );
    // One mail when it begins, one when it ends.
    let mails = cron.mails();
    assert_eq!(mails.len(), 2, "{mails:?}");
    assert!(!mails.concat().contains("hook"), "{mails:?}");
}

#[test]
fn a_hook_that_fails_changes_no_exit_code_and_is_logged() {
    let site = site("echo no such mailbox >&2; exit 3", "");
    site.diverge("site");
    let pass = site.run(&["-q"]).expect(20);
    let expected = "site: the hook sh, which reports diverged, ended with exit code 3: no such \
                    mailbox";
    assert!(pass.stderr.contains(expected), "{pass:?}");
    // It is not repeated at once.
    assert!(!site.run(&["-q"]).expect(20).stderr.contains("hook"));

    let mut site = SiteScene::of(&["site"]);
    site.append("[[hook]]\non = [\"unreachable\"]\ncommand = [\"/nowhere/hook\"]\n");
    site.run(&[]).expect(0);
    fs::remove_file(site.master("site")).unwrap();
    let pass = site.run(&["-q"]).expect(12);
    assert!(pass.stderr.contains("the hook /nowhere/hook"), "{pass:?}");
    assert!(pass.stderr.contains("cannot be started"), "{pass:?}");
}

#[test]
fn only_passes_run_hooks_and_only_those_of_the_configuration_file() {
    let site = site("echo >> $OUT", "");
    site.diverge("site");
    for arguments in [
        &["--dry-run"][..],
        &["off"],
        &["on", "--force"],
        &["status"],
        &["verify"],
        &["doctor"],
        &["config", "check"],
    ] {
        site.run(arguments);
    }
    let mut paths = fssync();
    run(paths.args([site.master("site"), site.slave("site")])).expect(20);
    assert!(!out(&site).exists());
    assert!(!site.beside("site", ".fssync-hooks").exists());
    site.run(&[]).expect(20);
    assert!(out(&site).exists());
}

#[test]
fn a_watch_runs_hooks_and_ends_at_once_on_a_signal() {
    let site = site("echo $$ > $OUT; exec sleep 600", "timeout = 600");
    let mut watch = start(&site, &["--watch"]);
    let log = site.at("log");
    wait_for("pass", || read(&log).contains("Finished syncing"));
    site.diverge("site");
    wait_for("hook", || !read(&out(&site)).is_empty());
    assert!(is_running(&out(&site)));
    let pid = Pid::from_child(&watch);
    kill_process(pid, Signal::TERM).unwrap();
    let started = Instant::now();
    assert_eq!(watch.wait().unwrap().code(), Some(20));
    assert!(started.elapsed() < Duration::from_secs(60));
    wait_for("end of the hook", || !is_running(&out(&site)));
}

#[test]
fn a_watch_reads_its_hooks_again_and_each_storage_is_reported() {
    let mut site = SiteScene::of(&["site", "catalog"]);
    let mut watch = start(&site, &["--watch"]);
    let log = site.at("log");
    wait_for("passes", || {
        read(&log).matches("Finished syncing").count() == 2
    });
    let out = site.at("out");
    site.append(&format!(
        "[[hook]]\non = [\"diverged\"]\ncommand = [\"sh\", \"-c\", \
         'echo $$FSSYNC_STORAGE >> {}']\n",
        out.display()
    ));
    let pid = Pid::from_child(&watch);
    kill_process(pid, Signal::HUP).unwrap();
    wait_for("reload", || read(&log).contains("read again"));
    for name in ["site", "catalog"] {
        site.diverge(name);
    }
    wait_for("hooks", || read(&out).lines().count() == 2);
    assert!(read(&out).contains("site\n") && read(&out).contains("catalog\n"));
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(20));
}

#[test]
fn the_first_process_of_a_container_learns_how_its_hooks_ended() {
    let mut site = site("echo >> $OUT; exit 3", "repeat = 0.2");
    let rsh = site.at("connects");
    let program = env!("CARGO_BIN_EXE_fssync");
    write_program(&rsh, format!("#!/bin/sh\nexec '{program}' serve /\n"));
    let master = format!("here:{}", site.master("site").display());
    let keys = format!("rsh = '{}'\n", rsh.display());
    // While a watch waits for an answer of a master, it reaps many times a second.
    site.add("remote", &master, &keys);
    site.diverge("site");
    let log = site.at("log");
    let mut command = tool("unshare", "util-linux");
    command.args(["-p", "-f", "--kill-child", program, "--watch", "--config"]);
    command
        .arg(site.config())
        .stderr(File::create(&log).unwrap());
    let mut watch = spawn(&mut command);
    let failures = || read(&log).matches("ended with exit code 3").count();
    let runs = || read(&out(&site)).lines().count();
    wait_for("hooks", || runs() > 8);
    // The log may lag by the last runs.
    wait_for("failures", || failures() + 2 >= runs());
    watch.kill().unwrap();
    watch.wait().unwrap();
}
