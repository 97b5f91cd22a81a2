//! Switching several storages off and on.

use std::fs;
use std::time::{Duration, Instant};

use super::support::SiteScene;
use crate::support::{Holder, project, wait_for};

/// The names of 20 storages.
fn twenty() -> Vec<String> {
    (0..20).map(|n| format!("s{n}")).collect()
}

#[test]
fn all_storages_are_switched_off_and_on() {
    let mut site = SiteScene::of(&["site", "catalog"]);
    site.run(&[]).expect(0);
    // No pass was ever made for this one. The path is that of later passes, too.
    site.add("new", "/none/Data.fs", "");
    let off = site.run(&["off"]).expect(0);
    for name in ["site", "catalog", "new"] {
        let switch = format!("{}.fssync-switch", site.slave(name).display());
        let line = format!("{name}: syncing is off ({switch})\n");
        assert!(off.stdout.contains(&line), "{off:?}");
        assert_eq!(fs::read_to_string(switch).unwrap(), "SYNCING=0\n");
    }
    site.run(&["-q"]).expect(10);
    let on = site.run(&["on", "--storage", "catalog"]).expect(0);
    assert!(on.stdout.starts_with("catalog: syncing is on ("), "{on:?}");
    site.run(&["--storage", "catalog"]).expect(0);
    site.run(&["--storage", "site"]).expect(10);
    assert_eq!(site.run(&["on", "-q"]).expect(0).stdout, "");
    site.run(&["--storage", "site"]).expect(0);
}

/// A cluster manager runs `fssync off` with an environment of its own.
#[test]
fn off_needs_only_the_slaves_of_a_configuration_file() {
    let mut site = SiteScene::of(&["one", "two"]);
    site.run(&[]).expect(0);
    let slave = site.slave("one").display().to_string();
    site.append(&format!(
        "[storage.mistaken]\nmaster = '/srv/${{FSSYNC_UNSET_}}'\nslave = '{slave}'\n\
         rsh = 'ssh -i ${{FSSYNC_UNSET_}}/key'\n\
         [metrics]\ntextfile = '${{FSSYNC_UNSET_}}'\n\
         [[hook]]\non = ['failing']\ncommand = ['${{FSSYNC_UNSET_}}']\n\
         [[ping]]\nurl = '${{FSSYNC_UNSET_}}'\n"
    ));
    let refused = site.run(&[]).expect(2);
    assert!(refused.stderr.contains("FSSYNC_UNSET_"), "{refused:?}");
    site.run(&["off"]).expect(0);
    for name in ["one", "two"] {
        let switch = site.beside(name, ".fssync-switch");
        assert_eq!(fs::read_to_string(switch).unwrap(), "SYNCING=0\n");
    }
    site.run(&["on"]).expect(2);
    site.append("[storage.three]\nmaster = 'm'\nslave = '${FSSYNC_UNSET_}'\n");
    let refused = site.run(&["off"]).expect(2);
    assert!(refused.stderr.contains("line "), "{refused:?}");
}

#[test]
fn a_storage_that_cannot_be_switched_does_not_keep_the_others_on() {
    let site = SiteScene::of(&["one", "two", "three"]);
    site.run(&[]).expect(0);
    fs::rename(site.at("two"), site.at("unmounted")).unwrap();
    let off = site.run(&["off"]).expect(2);
    assert!(off.stderr.contains("site{storage=two}"), "{off:?}");
    for name in ["one", "three"] {
        assert!(
            off.stdout.contains(&format!("{name}: syncing is off")),
            "{off:?}"
        );
    }
    site.run(&["--storage", "one", "--storage", "three"])
        .expect(10);
    fs::rename(site.at("unmounted"), site.at("two")).unwrap();
    // Syncing stays off for a storage that is in use, and the others are switched on.
    let holder = Holder::of(&site.beside("one", ".lock"));
    let on = site.run(&["on"]).expect(13);
    assert!(on.stderr.contains(&holder.pid().to_string()), "{on:?}");
    site.run(&["--storage", "two", "--storage", "three"])
        .expect(0);
    site.run(&["--storage", "one"]).expect(10);
}

/// Passes of all of them hang.
#[test]
fn twenty_storages_are_fenced_within_a_second() {
    let names = twenty();
    let mut site = SiteScene::of(&[]);
    for name in &names {
        site.add_hanging(name, 60);
        fs::copy(project("fixtures/commits.fs"), site.slave(name)).unwrap();
    }
    let passes: Vec<_> = names
        .iter()
        .map(|name| {
            let mut command = site.command(&["-q", "--storage", name]);
            command.spawn().expect("a pass")
        })
        .collect();
    wait_for("passes that hang", || site.hanging() == names.len());
    let started = Instant::now();
    site.run(&["off"]).expect(0);
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    for mut pass in passes {
        assert_eq!(pass.wait().unwrap().code(), Some(10));
    }
}

#[test]
fn a_blocked_step_delays_only_its_own_storage() {
    let site = SiteScene::of(&["one", "two", "three"]);
    site.run(&[]).expect(0);
    let holder = Holder::of(&site.beside("one", ".fssync-step"));
    let mut off = site.command(&["off", "-q"]).spawn().expect("off");
    for name in ["two", "three"] {
        let switch = site.beside(name, ".fssync-switch");
        wait_for("the other storages are off", || {
            fs::read_to_string(&switch).is_ok_and(|it| it == "SYNCING=0\n")
        });
    }
    assert!(off.try_wait().unwrap().is_none(), "it waits for the step");
    drop(holder);
    assert!(off.wait().unwrap().success());
}
