//! Failover and failback, with the script that is shipped and the steps of
//! `docs/failover.md`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use fssync::filestorage::MAGIC_LEN;
use serde_json::{Value, json};

use super::acknowledged::Failover;
use super::background::Disturbance;
use super::network::Cut;
use super::site::Site;
use crate::failover::{copy_back, now};
use crate::zeo::{Client, eventually};

impl Site {
    /// The first machine dies, possibly after its network. The second machine takes over, and
    /// the first one returns.
    pub(super) fn fail_over_and_back(&mut self, cut: Option<Cut>) {
        if let Some(how) = cut {
            self.cut(how);
            self.pause();
        }
        self.fail_over();
        self.authors_write();
        self.pause();
        self.fail_back();
        if cut.is_some() {
            self.heal();
        }
        let on = self.endpoints().verb("on", &["--force"]).expect(0);
        assert!(on.stdout.starts_with("syncing is on"), "{on:?}");
        self.disturbances.end(Disturbance::Off);
        self.wait_for_slave();
        self.disturbances.end(Disturbance::Served);
    }

    /// The first machine dies, and the second one takes over.
    fn fail_over(&mut self) {
        let killed = now();
        drop(self.zeo.take());
        let seen = self.background.as_ref().expect("background jobs").seen();
        self.disturbances.begin(Disturbance::Off);
        self.disturbances.begin(Disturbance::Served);
        let started = self.machines.script("start").expect(0);
        let printed = started.stdout.split_once("ends with transaction ");
        let end = printed.unwrap_or_else(|| panic!("{started:?}")).1[..16].to_owned();
        let dead = self.assert_taken_over_at(&end);
        assert!(
            seen <= end,
            "{seen} was replicated, the slave ends with {end}"
        );
        eventually("ZEO listens on the second machine", || {
            self.machines.second.listens()
        });
        self.authors.iter_mut().for_each(Client::restart);
        self.acks.fail_over(Failover { end, dead, killed });
        self.counts.one("failovers");
    }

    /// Fails unless the slave is the dead master up to the slave's last transaction. Returns
    /// the master's last transaction.
    fn assert_taken_over_at(&mut self, end: &str) -> String {
        let scene = &self.machines.scene;
        let path = &scene.master;
        let answer = self
            .zodb
            .call(&json!({"cmd": "transactions", "path": path}));
        let all = answer["transactions"].as_array().expect("transactions");
        let last = all.iter().find(|one| one["tid"] == end);
        let last = last.unwrap_or_else(|| panic!("the dead master has no {end}"));
        let number = |key: &str| last[key].as_u64().expect("a number") as usize;
        let position = number("pos") + number("tlen") + 8;
        let (master, slave) = (fs::read(path).unwrap(), fs::read(&scene.slave).unwrap());
        assert!(slave.len() >= position && slave[..position] == master[..position]);
        let tid = |one: &Value| one["tid"].as_str().expect("a tid").to_owned();
        tid(all.last().expect("transactions"))
    }

    /// The first machine is back: the steps of `docs/failover.md`, until clients write
    /// there again.
    fn fail_back(&mut self) {
        self.machines.script("stop").expect(0);
        let status = self.machines.script("status").expect(3);
        assert_eq!(status.stdout, "stopped\n");
        self.note_tail();
        let scene = &self.machines.scene;
        let dead = scene.directory.path().join("dead");
        fs::copy(&scene.master, &dead).expect("a copy");
        // Without lost transactions, nothing is kept.
        let kept = copy_back(scene);
        self.zeo = Some(self.machines.first.start());
        self.authors_write();
        if let Some(kept) = kept {
            self.assert_kept(&kept, &dead);
            fs::remove_file(kept).expect("it was kept");
        }
        let serials = self.serials(&dead);
        let errors = self.acks.errors_in_dead(&serials);
        assert!(errors.is_empty(), "in {}: {errors:#?}", dead.display());
        fs::remove_file(dead).expect("a copy");
        self.counts.one("failbacks");
    }

    /// Fails unless a file that the failback has set aside contains the dead master, or its last
    /// transactions.
    fn assert_kept(&mut self, kept: &Path, dead: &Path) {
        let name = kept.file_name().and_then(OsStr::to_str).expect("a name");
        let end = self.zodb.check(dead)["position"].as_u64();
        let end = end.expect("a position");
        let start = match name.matches('-').count() {
            1 => MAGIC_LEN,
            _ => end - (fs::metadata(kept).expect("a file").len() - MAGIC_LEN),
        };
        self.zodb
            .call(&json!({"cmd": "compare_set_aside", "path": kept, "old": dead, "start": start}));
    }

    /// Records the tail that ZEO has left in the slave if it was stopped after a vote: a pass
    /// saves and truncates it.
    fn note_tail(&mut self) {
        let slave = &self.machines.scene.slave;
        let position = self.zodb.check(slave)["position"].as_u64();
        let bytes = fs::read(slave).expect("the slave");
        let tail = &bytes[position.expect("a position") as usize..];
        if !tail.is_empty() {
            self.tails.push(tail.to_owned());
        }
    }
}
