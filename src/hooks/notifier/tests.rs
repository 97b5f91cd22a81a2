use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Event, StorageConfig};
use crate::plan::outcome::{Action, Copied, Exit};
use crate::slave::paths::{Sibling, SlavePaths};
use crate::source::CoveredNames;

/// A slave for which a pass was made, and a file to which hooks write.
struct Scene {
    directory: tempfile::TempDir,
    interrupted: Arc<AtomicBool>,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["site", "catalog"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("Data.fs.fssync"), "").unwrap();
        }
        Self {
            directory,
            interrupted: Arc::default(),
        }
    }

    fn slave(&self, name: &str) -> PathBuf {
        self.directory.path().join(name).join("Data.fs")
    }

    /// The lines that hooks have written.
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until hooks have written this many lines.
    fn wait_for_lines(&self, number: usize) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.lines().len() < number {
            assert!(Instant::now() < until, "{:?}", self.lines());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A process with this hook, which makes passes of two storages.
    fn start(&self, hooks: &[HookConfig]) -> Notifier {
        let storages = ["site", "catalog"].map(|name| NamedStorage {
            name: name.parse().unwrap(),
            storage: StorageConfig::of_slave(&self.slave(name)),
            covered: CoveredNames::default(),
        });
        let interrupted = Arc::clone(&self.interrupted);
        Notifier::start(Run::Watch, hooks, &[], &storages, interrupted)
    }

    /// A hook that reports all problems and recoveries with this script, in which `$LOG` is the
    /// file for its lines.
    fn hook(&self, script: &str) -> HookConfig {
        let log = self.directory.path().join("log");
        let script = format!("LOG={}; {script}", log.display());
        HookConfig {
            on: vec![Event::Diverged, Event::Failing, Event::InSync],
            command: vec!["sh".to_owned(), "-c".to_owned(), script],
            after: Duration::ZERO,
            repeat: None,
            timeout: Duration::from_secs(20),
        }
    }
}

const WRITE: &str = "echo $FSSYNC_STORAGE $FSSYNC_FROM $FSSYNC_TO >> $LOG";

fn passed(notifier: &Notifier, name: &str, exit: Exit) {
    let outcome = Outcome {
        action: Action::Error,
        exit,
        reason: "why".to_owned(),
        hint: None,
        copied: Copied::default(),
        warnings: Vec::new(),
    };
    notifier.passed(&name.parse().unwrap(), &outcome, Duration::from_secs(1));
}

#[test]
fn processes_know_what_earlier_ones_have_reported() {
    let scene = Scene::new();
    let hooks = [scene.hook(WRITE)];
    for exit in [
        Exit::Success,
        Exit::Diverged,
        Exit::Diverged,
        Exit::Busy,
        Exit::Success,
        Exit::Success,
    ] {
        let notifier = scene.start(&hooks);
        passed(&notifier, "site", exit);
        passed(&notifier, "catalog", Exit::Success);
        notifier.finish();
    }
    let expected = ["site in-sync diverged", "site diverged in-sync"];
    assert_eq!(scene.lines(), expected);
}

#[test]
fn each_storage_is_reported_by_the_same_hook_one_after_the_other() {
    let scene = Scene::new();
    let hooks = [scene.hook(&format!(
        "mkdir $LOG.lock && sleep 0.2 && rmdir $LOG.lock && {WRITE}"
    ))];
    let notifier = scene.start(&hooks);
    passed(&notifier, "site", Exit::Diverged);
    passed(&notifier, "catalog", Exit::Failure);
    notifier.finish();
    assert_eq!(scene.lines(), ["site diverged", "catalog failing"]);
}

#[test]
fn a_pass_does_not_wait_for_a_hook_that_hangs_and_the_end_waits_for_its_timeout() {
    let scene = Scene::new();
    let hook = HookConfig {
        timeout: Duration::from_secs(1),
        ..scene.hook("sleep 100")
    };
    let other = scene.hook(WRITE);
    let notifier = scene.start(&[hook, other]);
    let started = Instant::now();
    for _ in 0..50 {
        passed(&notifier, "site", Exit::Diverged);
        passed(&notifier, "site", Exit::Success);
    }
    let passes = started.elapsed();
    notifier.finish();
    assert!(passes < Duration::from_secs(20), "{passes:?}");
    let all = started.elapsed();
    assert!(all > Duration::from_secs(1), "{all:?}");
    assert!(all < Duration::from_secs(40), "{all:?}");
}

#[test]
fn a_hook_is_killed_on_a_signal() {
    let scene = Scene::new();
    let hook = HookConfig {
        timeout: Duration::from_secs(1000),
        ..scene.hook(&format!("{WRITE}; sleep 1000"))
    };
    let notifier = scene.start(&[hook]);
    passed(&notifier, "site", Exit::Diverged);
    scene.wait_for_lines(1);
    scene.interrupted.store(true, Ordering::Relaxed);
    notifier.finish();
    // The report has failed, so a later process repeats it.
    let record = fs::read_to_string(scene.slave("site").with_file_name("Data.fs.fssync-hooks"));
    assert!(record.unwrap().contains("\"failed\": true"));
}

#[test]
fn a_hook_that_is_due_does_not_run_and_nothing_is_recorded_while_syncing_is_off() {
    let scene = Scene::new();
    let notifier = scene.start(&[HookConfig {
        after: Duration::from_secs(2),
        ..scene.hook(WRITE)
    }]);
    passed(&notifier, "site", Exit::Diverged);
    let slave = scene.slave("site");
    let record = || fs::read(slave.with_file_name("Data.fs.fssync-hooks")).unwrap();
    let before = record();
    switch(&slave, false);
    thread::sleep(Duration::from_millis(2500));
    passed(&notifier, "site", Exit::Off);
    notifier.finish();
    assert_eq!(scene.lines(), [""; 0]);
    assert_eq!(record(), before);

    // The recovery of a problem that was not reported is not reported either.
    switch(&slave, true);
    let notifier = scene.start(&[scene.hook(WRITE)]);
    passed(&notifier, "site", Exit::Success);
    notifier.finish();
    assert_eq!(scene.lines(), [""; 0]);
}

#[test]
fn a_hook_runs_after_its_delay_although_no_other_pass_ends() {
    let scene = Scene::new();
    let notifier = scene.start(&[HookConfig {
        after: Duration::from_secs(1),
        repeat: Some(Duration::from_millis(300)),
        ..scene.hook(WRITE)
    }]);
    passed(&notifier, "site", Exit::Diverged);
    assert_eq!(scene.lines(), [""; 0]);
    scene.wait_for_lines(3);
    assert_eq!(
        scene.lines()[..2],
        ["site diverged", "site diverged diverged"]
    );
    notifier.finish();
}

#[test]
fn a_hook_runs_although_its_run_cannot_be_recorded() {
    let scene = Scene::new();
    let slave = scene.slave("site");
    fs::remove_dir_all(slave.parent().unwrap()).unwrap();
    let notifier = scene.start(&[scene.hook(WRITE)]);
    passed(&notifier, "site", Exit::Usage);
    scene.wait_for_lines(1);
    passed(&notifier, "site", Exit::Usage);
    passed(&notifier, "site", Exit::Success);
    notifier.finish();
    assert_eq!(scene.lines(), ["site failing", "site failing in-sync"]);
    assert!(!slave.parent().unwrap().exists());
}

#[test]
fn without_hooks_nothing_is_recorded() {
    let scene = Scene::new();
    let notifier = scene.start(&[]);
    passed(&notifier, "site", Exit::Diverged);
    notifier.finish();
    assert!(
        !scene
            .slave("site")
            .with_file_name("Data.fs.fssync-hooks")
            .exists()
    );
}

fn switch(slave: &Path, on: bool) {
    let content = if on { "SYNCING=1\n" } else { "SYNCING=0\n" };
    let paths = SlavePaths::new(slave).unwrap();
    fs::write(paths.sibling(Sibling::Switch), content).unwrap();
}
