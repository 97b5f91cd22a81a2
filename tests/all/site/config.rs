//! `fssync config check`, and commands without a usable configuration.

use std::fs;

use super::support::SiteScene;
use crate::support::{fssync, run};

#[test]
fn a_configuration_is_checked_and_printed() {
    let mut site = SiteScene::of(&["site", "catalog"]);
    site.append("[defaults]\ntimeout = 7\n");
    let checked = site.run(&["config", "check"]).expect(0);
    let expected = format!("{}: 2 storages, no error\n", site.config().display());
    assert_eq!(checked.stdout, expected);
    let printed = site.run(&["config", "check", "--print"]).expect(0).stdout;
    assert_eq!(printed.matches("timeout = 7.0\n").count(), 2, "{printed}");
    // The printed file gives the same configuration.
    let other = site.at("other.toml");
    fs::write(&other, &printed).unwrap();
    let mut again = fssync();
    again
        .args(["config", "check", "--print", "--config"])
        .arg(&other);
    assert_eq!(run(&mut again).expect(0).stdout, printed);
    assert_eq!(site.run(&["config", "check", "-q"]).expect(0).stdout, "");
}

#[test]
fn every_command_refuses_a_file_with_a_mistake_and_changes_nothing() {
    let mut site = SiteScene::of(&["site"]);
    site.append("slaves = 1\n");
    for command in [
        &[][..],
        &["--watch"],
        &["--full"],
        &["off"],
        &["on"],
        &["status"],
        &["verify"],
        &["config", "check"],
    ] {
        let refused = site.run(&[command, &["-q"]].concat()).expect(2);
        let place = format!(
            "{}: line 5, column 1: unknown field `slaves`",
            site.config().display()
        );
        assert!(refused.stderr.contains(&place), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    }
    assert_eq!(fs::read_dir(site.at("site/slave")).unwrap().count(), 0);
}

#[test]
fn without_paths_and_configuration_the_error_names_both_ways() {
    for command in [
        &[][..],
        &["off"],
        &["on"],
        &["status"],
        &["verify"],
        &["config", "check"],
    ] {
        let mut fssync = fssync();
        let refused = run(fssync.args(command).env_remove("FSSYNC_CONFIG")).expect(2);
        for way in ["on the command line", "/etc/fssync/fssync.toml", "--config"] {
            assert!(refused.stderr.contains(way), "{command:?}: {refused:?}");
        }
    }
    let half = run(fssync().arg("/srv/master")).expect(2);
    assert!(half.stderr.contains("<SLAVE>"), "{half:?}");
    run(fssync().args(["--config", "/none/fssync.toml"])).expect(2);
    run(fssync().args(["--config", "/"])).expect(2);
}
