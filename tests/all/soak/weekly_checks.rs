//! The end of a week: all is quiet, and everything is counted.

use std::fs::{self, File};
use std::mem;
use std::path::Path;
use std::time::Duration;

use super::counts::Counts;
use super::site::Site;
use crate::ledger;
use crate::support::names;
use crate::zeo::{eventually, eventually_in_sync};

/// What a watch may take: some times what it takes.
const MAX_MEMORY_KB: u64 = 64_000;

/// How many handles a watch may have more at the end of one week than of another.
const HANDLES_OF_CHANCE: u64 = 4;

impl Site {
    /// Everybody stops, the watch too if it is its last week on this way; all must be as it
    /// should.
    pub(super) fn end_week(&mut self, ends_the_watch: bool) {
        for author in &mut self.authors {
            author.stop();
        }
        self.take_in();
        let background = self.background.take().expect("they are made");
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

    /// Ends what is left; returns what happened.
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
        counts.add("authors restarted since they hung", self.hung);
        for age in ages {
            let age = Duration::try_from_secs_f64(age).unwrap_or_default();
            counts.largest(
                "ms of age of the oldest that was lost",
                age.as_millis() as u64,
            );
        }
        mem::take(counts)
    }

    /// The slave is the master, to the byte, and as sound as can be proven.
    fn assert_equal(&mut self) {
        let scene = &self.machines.scene;
        eventually_in_sync(scene, &mut self.zodb);
        let proven = self.endpoints().verify_against().expect(0).report();
        assert_eq!(proven["against"]["verdict"], "equal", "{proven}");
        // Somebody may have removed it, a moment ago.
        eventually("an index", || scene.beside(".index").exists());
        self.zodb.assert_index(&scene.slave);
        ledger::assert_right(&scene.slave);
    }

    fn assert_accounted_for(&mut self) {
        let slave = self.machines.scene.slave.clone();
        let serials = self.serials(&slave);
        let errors = self.acks.errors_in_served(&serials);
        assert!(errors.is_empty(), "{errors:#?}");
        // All are restarted at a failover, and at the start of all weeks but the first.
        let restarts: u64 = self
            .authors
            .iter()
            .map(|author| u64::from(author.restarts))
            .sum();
        let expected = self.authors.len() as u64 * (2 * self.week + 1) + self.hung;
        assert_eq!(
            restarts, expected,
            "a server was refused that lacks nothing"
        );
    }

    /// The names beside the slave are documented. What was set aside can be opened, what was
    /// cut is what ZEO had left there and nothing else; both are put away.
    fn assert_nothing_piles_up(&mut self) {
        let scene = &self.machines.scene;
        scene.assert_documented_names();
        let mut cut = Vec::new();
        for name in scene.beside_slave() {
            let path = scene.slave.with_file_name(&name);
            if name.contains(".diverged-") {
                self.zodb.check(&path);
                self.counts.one("slaves that were set aside");
            } else if name.contains(".tr") {
                cut.push(fs::read(&path).expect("it is there"));
                self.counts.one("tails that ZEO left and a pass kept");
            } else {
                continue;
            }
            fs::remove_file(path).expect("it is there");
        }
        assert!(
            cut == mem::take(&mut self.tails),
            "there are {} cut tails, and others than ZEO left",
            cut.len()
        );
    }

    fn measure_watch(&mut self) {
        let pid = self.watch.as_ref().expect("it runs").pid();
        let handles = names(Path::new(&format!("/proc/{pid}/fd"))).len() as u64;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let memory = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let memory: u64 = memory.expect("how much memory it took");
        assert!(memory < MAX_MEMORY_KB, "the watch took {memory} kB");
        let before = *self.handles.get_or_insert(handles);
        assert!(
            handles <= before + HANDLES_OF_CHANCE,
            "the watch has {handles} handles, and had {before}"
        );
        self.counts.largest("kB of memory the watch took", memory);
        self.counts.largest("handles of the watch", handles);
    }

    /// Ends the watch: no process and no lock is left.
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

/// Whether a process was given something that lies there.
fn is_named_by_any(directory: &str) -> bool {
    names(Path::new("/proc")).iter().any(|process| {
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(directory)
    })
}
