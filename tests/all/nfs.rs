//! Passes and watches on a master that is on real NFS, in an emulated virtual machine. There
//! is only one machine, so all scenarios are one test, which takes minutes and mostly waits.
//!
//! ```sh
//! FSSYNC_NFS=watch FSSYNC_NFS_ROUNDS=50 cargo test --test all -- real_nfs --nocapture
//! ```
//!
//! runs the scenarios with `watch` in their names, with long histories.

mod blobs;

use std::env;
use std::panic::catch_unwind;

use serde_json::json;

use self::blobs::{
    a_blob_in_a_directory_that_was_missing_is_found_at_once,
    a_blob_that_appears_within_a_second_is_found, a_blob_that_the_master_lacks_is_counted,
    blobs_are_replicated_with_their_transactions, blobs_that_only_the_user_of_zeo_may_read,
};
use crate::guest::Site;

macro_rules! named {
    ($($scenario:ident,)*) => { [$((stringify!($scenario), $scenario as fn()),)*] };
}

/// All scenarios in their order, with their names.
pub const ALL: [(&str, fn()); 17] = named![
    a_pass_replicates_each_operation_of_zodb,
    the_slave_is_a_prefix_during_fast_writes,
    a_status_change_within_a_clock_tick_is_seen,
    a_master_that_comes_back_is_found_at_once,
    a_master_that_is_put_back_from_a_backup_is_found_at_once,
    a_watch_follows_by_polling,
    a_watch_waits_for_a_missing_server,
    on_a_mount_that_hangs_passes_do_not_pile_up_and_off_works,
    a_full_copy_that_hangs_can_be_switched_off,
    a_master_that_is_replaced_during_a_full_copy_does_no_harm,
    the_master_is_not_written_even_on_a_writable_mount,
    doctor_judges_the_mounts,
    blobs_are_replicated_with_their_transactions,
    a_blob_in_a_directory_that_was_missing_is_found_at_once,
    a_blob_that_appears_within_a_second_is_found,
    a_blob_that_the_master_lacks_is_counted,
    blobs_that_only_the_user_of_zeo_may_read,
];

/// Runs all scenarios, or those that `FSSYNC_NFS` selects.
pub fn all() {
    let wanted = env::var("FSSYNC_NFS").unwrap_or_default();
    let chosen: Vec<_> = ALL
        .iter()
        .filter(|(name, _)| name.contains(&wanted))
        .collect();
    assert!(!chosen.is_empty(), "no scenario is called {wanted}");
    let mut failed = Vec::new();
    for (name, make) in chosen {
        eprintln!("nfs::{name}");
        if catch_unwind(make).is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

const VERSIONS: [&str; 2] = ["4.2", "3"];

/// Logged if a pass succeeded, and if it failed.
const FINISHED: &str = "Finished syncing";
const NOT_SYNCING: &str = "NOT SYNCING FROM MASTER";

/// Number of rounds of a random history.
fn rounds() -> u32 {
    env::var("FSSYNC_NFS_ROUNDS").map_or(3, |text| text.parse().expect("a number of rounds"))
}

fn a_pass_replicates_each_operation_of_zodb() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        for round in 0..rounds() {
            site.call(&json!({"cmd": "random", "name": "m", "count": 6, "pack": true}));
            if round % 3 == 2 {
                site.call(&json!({"cmd": "pack", "name": "m", "keep": 2}));
            }
            site.pass(&[]).expect(0);
            site.assert_in_sync();
            site.call(&json!({"cmd": "vote", "name": "m", "objects": 2}));
            site.pass(&[]).expect(0);
            site.assert_in_sync();
            let end = ["finish", "abort"][round as usize % 2];
            site.call(&json!({"cmd": end, "name": "m"}));
            site.pass(&[]).expect(0);
            site.assert_in_sync();
        }
    }
}

fn the_slave_is_a_prefix_during_fast_writes() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        for round in 0..rounds() {
            site.pass(&[]).expect(0);
            site.assert_in_sync();
            // The pack is at any moment of the pass, or outside.
            let pack_at = 10 + round * 17 % 60;
            site.call(&json!({"cmd": "write_fast", "name": "m", "pack_at": pack_at}));
            site.pass(&[]).expect(0);
            site.call(&json!({"cmd": "stop_writing"}));
            site.assert_prefix();
        }
    }
}

fn a_status_change_within_a_clock_tick_is_seen() {
    for version in VERSIONS {
        // Its clock ticks once a second, so all of this fits between two ticks.
        let mut site = Site::with_coarse_times(version);
        site.pass(&[]).expect(0);
        site.commit(2);
        let (master, mounted) = (site.master(), format!("{}/Data.fs", site.mounted));
        let command = json!({"cmd": "flip_within_a_tick", "path": master, "mounted": mounted});
        let shown = site.call(&command)["shown"].clone();
        // NFS 4 uses the change counter of an ext4 file.
        assert_eq!(shown, if version == "3" { "c" } else { " " });
        let report = site.pass(&[]).expect(0).report();
        assert_eq!(report["action"], "append", "{report}");
        site.assert_in_sync();
    }
}

fn a_master_that_comes_back_is_found_at_once() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        let (there, away) = (site.master(), format!("{}.away", site.master()));
        site.pass(&[]).expect(0);
        for mounted in [site.mounted.clone(), format!("{}/Data.fs", site.mounted)] {
            site.mounted = mounted;
            site.must(&["mv", &there, &away]);
            site.pass(&[]).expect(12);
            site.must(&["mv", &away, &there]);
            site.pass(&[]).expect(0);
        }
    }
}

fn a_master_that_is_put_back_from_a_backup_is_found_at_once() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        site.start("watch", &["--watch", "--interval", "0.5"]);
        site.expect_log("watch", &[FINISHED]);
        site.call(&json!({"cmd": "close", "name": "m"}));
        for script in [
            "cp -a $0/Data.fs $0/new && mv $0/new $0/Data.fs",
            "cp -a $0 $0.new && mv $0 $0.old && mv $0.new $0 && rm -r $0.old",
        ] {
            let directory = site.directory.clone();
            site.must(&["sh", "-c", script, &directory]);
            let master = site.master();
            site.call(&json!({"cmd": "open", "name": "m", "path": master}));
            site.commit(2);
            site.call(&json!({"cmd": "close", "name": "m"}));
            site.await_sync();
        }
    }
}

fn a_watch_follows_by_polling() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        site.start("watch", &["--watch", "--interval", "0.5"]);
        site.expect_log(
            "watch",
            &[FINISHED, "NFS (statfs type 0x6969)", "every 0.5 s"],
        );
        for command in [
            json!({"cmd": "commit", "name": "m", "objects": 9, "size": 30_000}),
            json!({"cmd": "undo", "name": "m"}),
            json!({"cmd": "pack", "name": "m", "keep": 2}),
            json!({"cmd": "commit", "name": "m"}),
            json!({"cmd": "pack", "name": "m", "keep": 1}),
        ] {
            site.call(&command);
            site.await_sync();
        }
        site.call(&json!({"cmd": "signal", "program": "watch", "name": "SIGTERM"}));
        let log = site.end_of("watch").expect(0).stderr;
        assert!(!log.contains(NOT_SYNCING), "{log}");
    }
}

fn a_watch_waits_for_a_missing_server() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        site.start("watch", &["--watch", "--interval", "0.5", "--timeout", "2"]);
        let mut log = vec![FINISHED];
        site.expect_log("watch", &log);
        for (begin, message, end) in [
            ("stop", "no answer from", "start"),
            // The error depends on the client's first request.
            ("withdraw", NOT_SYNCING, "export"),
            ("renumber", "Stale file handle", "export"),
            ("cut", "no answer from", "join"),
        ] {
            site.server(begin);
            log.push(message);
            site.expect_log("watch", &log);
            site.commit(2);
            site.server(end);
            log.push(FINISHED);
            site.expect_log("watch", &log);
            site.await_sync();
        }
    }
}

fn on_a_mount_that_hangs_passes_do_not_pile_up_and_off_works() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        site.pass(&[]).expect(0);
        site.commit(2);
        site.server("cut");
        site.pass(&["--timeout", "1"]).expect(12);
        site.start("hangs", &["--timeout", "60"]);
        site.await_pass();
        for _ in 0..4 {
            site.pass(&["--timeout", "1"]).expect(11);
            assert_eq!(site.running(), 1);
        }
        site.off();
        site.end_of("hangs").expect(10);
        assert_eq!(site.running(), 0);
        site.pass(&["--timeout", "1"]).expect(10);
        site.server("join");
        site.run_verb("on").expect(0);
        site.pass(&[]).expect(0);
        site.assert_in_sync();
    }
}

/// A large master, and a full copy that has started.
fn copying(version: &str) -> Site {
    let mut site = Site::with_master(version);
    site.pass(&[]).expect(0);
    for _ in 0..5 {
        site.call(&json!({"cmd": "commit", "name": "m", "objects": 5, "size": 1_000_000}));
    }
    let (master, copy) = (site.master(), format!("{}.copy", site.master()));
    site.must(&["cp", &master, &copy]);
    site.start("copy", &["--whole", "--timeout", "20"]);
    let temporary = format!("{}.fssync-tmp", site.slave);
    site.call(&json!({"cmd": "await_path", "path": temporary}));
    site
}

fn a_full_copy_that_hangs_can_be_switched_off() {
    for version in VERSIONS {
        let mut site = copying(version);
        site.server("cut");
        site.off();
        site.end_of("copy").expect(10);
        assert_eq!(site.running(), 0);
        site.server("join");
        site.run_verb("on").expect(0);
        site.pass(&[]).expect(0);
        site.assert_in_sync();
    }
}

fn a_master_that_is_replaced_during_a_full_copy_does_no_harm() {
    for version in VERSIONS {
        let mut site = copying(version);
        let (master, copy) = (site.master(), format!("{}.copy", site.master()));
        site.must(&["mv", &copy, &master]);
        site.call(&json!({"cmd": "close", "name": "m"}));
        site.end_of("copy").expect(0);
        site.assert_prefix();
        site.pass(&[]).expect(0);
        site.assert_in_sync();
    }
}

fn the_master_is_not_written_even_on_a_writable_mount() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        site.server("export-writable");
        site.mount_writable();
        let commit = json!({"cmd": "commit", "name": "m", "objects": 3});
        let pack = json!({"cmd": "pack", "name": "m", "keep": 1});
        for (command, options) in [
            (&commit, &[][..]),
            (&commit, &["--dry-run"]),
            (&commit, &[]),
            (&pack, &[]),
            (&commit, &["--full"]),
        ] {
            site.call(command);
            let listing = json!({"cmd": "listing", "directory": site.directory});
            let before = site.call(&listing);
            site.pass(options).expect(0);
            assert_eq!(site.call(&listing), before);
        }
        site.assert_in_sync();
    }
}

fn doctor_judges_the_mounts() {
    for version in VERSIONS {
        let mut site = Site::with_master(version);
        let directory = site.mounted.clone();
        site.expect_check("master-mount", "ok", "read-only and hard");
        for (options, seen) in [
            ("ro,soft", "with the option soft"),
            ("ro,softerr", "with the option soft"),
            ("hard", ", writable"),
        ] {
            site.server("export-writable");
            site.mounted.clone_from(&directory);
            site.mount(options);
            site.expect_check("master-mount", "warn", seen);
        }
        // The last mount can be written.
        site.slave = format!("{}/slave/Data.fs", site.mounted);
        site.mounted = directory;
        let slave = site.slave.trim_end_matches("/Data.fs").to_owned();
        site.must(&["mkdir", &slave]);
        site.expect_check("slave-file-system", "warn", "NFS");
    }
}
