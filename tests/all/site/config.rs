//! `fssync config check`, and commands without a usable configuration.

use std::fs;

use super::support::SiteScene;
use super::zeo::instance;
use crate::support::{Setup, fssync, run};

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

/// The instance is one that ZEO's own tool has made.
#[test]
fn a_configuration_is_made_from_the_zeo_conf_of_an_instance() {
    for setup in Setup::BOTH {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("zeo");
        let zeo_conf = instance(&home, setup).zeo_conf();
        let from_zeo = |master: &str| {
            let mut command = fssync();
            command.args(["config", "from-zeo"]).arg(&zeo_conf);
            run(command.args(["--master", master]))
        };
        let made = from_zeo("zope@first:").expect(0).stdout;
        let path = directory.path().join("fssync.toml");
        fs::write(&path, made).unwrap();
        let mut check = fssync();
        check.args(["config", "check", "--print", "--config"]);
        let printed = run(check.arg(&path)).expect(0).stdout;
        let site: toml::Table = toml::from_str(&printed).unwrap();
        let storages = site["storage"].as_table().unwrap();
        assert_eq!(storages.keys().collect::<Vec<_>>(), ["1", "catalog"]);
        let at = |name: &str| home.join(name).display().to_string();
        for (name, file) in [("1", "var/Data.fs"), ("catalog", "var/catalog.fs")] {
            let storage = &storages[name];
            assert_eq!(storage["slave"].as_str(), Some(&*at(file)));
            let master = format!("zope@first:{}", at(file));
            assert_eq!(storage["master"].as_str(), Some(&*master));
        }
        let blobs = &storages["1"]["blobs"];
        for end in ["master", "slave"] {
            assert_eq!(blobs[end].as_str(), Some(&*at("var/blobs")));
        }
        assert_eq!(storages["catalog"]["blobs"].as_bool(), Some(false));

        // A mistake is reported with its line, and nothing is printed.
        let text = fs::read_to_string(&zeo_conf).unwrap();
        fs::write(&zeo_conf, text + "<filestorage 2>\n  path $NOWHERE/x.fs\n").unwrap();
        let refused = from_zeo("zope@first:").expect(2);
        let lines = fs::read_to_string(&zeo_conf).unwrap().lines().count();
        let place = format!("{}, line {lines}: the variable NOWHERE", zeo_conf.display());
        assert!(refused.stderr.contains(&place), "{refused:?}");
        assert_eq!(refused.stdout, "");
    }
    let mut nothing = fssync();
    nothing.args(["config", "from-zeo", "/nowhere/zeo.conf"]);
    run(&mut nothing).expect(2);
    run(nothing.args(["--master", "first:"])).expect(2);
}
