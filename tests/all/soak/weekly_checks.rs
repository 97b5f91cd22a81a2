//! The checks at the end of a week, when all processes have stopped.

use std::fs::{self, File};
use std::mem;
use std::path::Path;
use std::time::Duration;

use super::counts::Counts;
use super::site::Site;
use crate::ledger;
use crate::support::names;
use crate::zeo::{eventually, eventually_in_sync};

/// The memory that a watch may use, several times as much as it needs.
const MAX_MEMORY_KB: u64 = 64_000;

/// By how many handles the end of one week may differ from another.
const MAX_HANDLE_DIFFERENCE: u64 = 4;

impl Site {
    /// Stops everything, also the watch if this is the last week on its route, and checks the
    /// result.
    pub(super) fn end_week(&mut self, ends_the_watch: bool) {
        for author in &mut self.authors {
            author.stop();
        }
        self.collect_acks();
        let background = self.background.take().expect("background jobs");
        self.counts.merge(background.end());
        self.zeo.take().expect("it runs").stop();
        self.assert_equal();
        self.assert_accounted_for();
        self.assert_nothing_piles_up();
        self.measure_watch();
        if ends_the_watch {
            self.end_watch();
        }
        self.counts.one("weeks");
    }

    /// Ends the watch; returns all counts.
    pub fn end(mut self) -> Counts {
        if self.watch.is_some() {
            self.end_watch();
        }
        let ages = self.acks.ages_of_lost();
        let all = self.acks.acknowledged().count();
        let counts = &mut self.counts;
        counts.add("transactions: acknowledged", all as u64);
        counts.add("transactions: lost at failovers", ages.len() as u64);
        counts.add("transactions: replicated", (all - ages.len()) as u64);
        counts.add("transactions: aborted", self.acks.aborts);
        counts.add("transactions: failed", self.acks.failures);
        counts.add("authors restarted because they hung", self.hung);
        for age in ages {
            let age = Duration::try_from_secs_f64(age).unwrap_or_default();
            counts.largest(
                "ms of age of the oldest that was lost",
                age.as_millis() as u64,
            );
        }
        mem::take(counts)
    }

    /// Slave and master are equal, and the files beside the slave are correct.
    fn assert_equal(&mut self) {
        let scene = &self.machines.scene;
        eventually_in_sync(scene, &mut self.zodb);
        let proven = self.endpoints().verify_against().expect(0).report();
        assert_eq!(proven["against"]["verdict"], "equal", "{proven}");
        // It may have been removed a moment ago.
        eventually("an index", || scene.beside(".index").exists());
        self.zodb.assert_index(&scene.slave);
        ledger::assert_right(&scene.slave);
    }

    fn assert_accounted_for(&mut self) {
        let slave = self.machines.scene.slave.clone();
        let serials = self.serials(&slave);
        let errors = self.acks.errors_in_served(&serials);
        assert!(errors.is_empty(), "{errors:#?}");
        // All authors are restarted at each failover, and at the start of each week but the first.
        let restarts: u64 = self
            .authors
            .iter()
            .map(|author| u64::from(author.restarts))
            .sum();
        let expected = self.authors.len() as u64 * (2 * self.week + 1) + self.hung;
        assert_eq!(
            restarts, expected,
            "a client refused a server that has all transactions"
        );
    }

    /// The names beside the slave are documented. Slaves that were set aside can be opened, and
    /// the saved tails are those that ZEO had left. Both are removed.
    fn assert_nothing_piles_up(&mut self) {
        let scene = &self.machines.scene;
        scene.assert_documented_names();
        let mut cut = Vec::new();
        for name in scene.beside_slave() {
            let path = scene.slave.with_file_name(&name);
            if name.contains(".diverged-") {
                self.zodb.check(&path);
                self.counts.one("slaves set aside");
            } else if name.contains(".tr") {
                cut.push(fs::read(&path).expect("a file"));
                self.counts.one("tails that ZEO left and a pass saved");
            } else {
                continue;
            }
            fs::remove_file(path).expect("a file");
        }
        assert!(
            cut == mem::take(&mut self.tails),
            "{} saved tails are not those that ZEO left",
            cut.len()
        );
    }

    fn measure_watch(&mut self) {
        let pid = self.watch.as_ref().expect("it runs").pid();
        let handles = names(Path::new(&format!("/proc/{pid}/fd"))).len() as u64;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let memory = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let memory: u64 = memory.expect("its memory");
        assert!(memory < MAX_MEMORY_KB, "the watch used {memory} kB");
        let before = *self.handles.get_or_insert(handles);
        assert!(
            handles <= before + MAX_HANDLE_DIFFERENCE,
            "the watch has {handles} handles, and had {before}"
        );
        self.counts
            .largest("kB of memory that the watch used", memory);
        self.counts.largest("handles of the watch", handles);
    }

    /// Ends the watch; afterwards no process and no lock is left.
    fn end_watch(&mut self) {
        let watch = self.take_watch();
        let log = watch.log();
        assert_eq!(watch.end().0, 0, "{log}");
        let scene = &self.machines.scene;
        let directory = scene.directory.path().display().to_string();
        eventually("no process is left", || !is_named_by_any(&directory));
        for suffix in [".fssync-pass", ".fssync-step", ".lock"] {
            let lock = File::open(scene.beside(suffix)).expect("a lock file");
            lock.try_lock()
                .unwrap_or_else(|error| panic!("{suffix}: {error}"));
        }
    }
}

/// Whether the command line of any process contains this directory.
fn is_named_by_any(directory: &str) -> bool {
    names(Path::new("/proc")).iter().any(|process| {
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(directory)
    })
}
