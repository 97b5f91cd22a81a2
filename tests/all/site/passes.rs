//! Passes and verifications of several storages.

use std::fs;

use serde_json::json;

use super::support::{SiteScene, objects};
use crate::support::{fssync, project, run};

#[test]
fn a_pass_is_made_for_each_storage() {
    let site = SiteScene::of(&["site", "catalog", "archive"]);
    let passes = site.run(&["--json"]).expect(0);
    let reports = objects(&passes);
    let names: Vec<_> = reports.iter().map(|it| &it["storage"]).collect();
    assert_eq!(
        names,
        ["site", "catalog", "archive"],
        "the order of the file"
    );
    for report in &reports {
        assert_eq!(report["action"], "full-copy", "{report}");
    }
    for name in ["site", "catalog", "archive"] {
        site.assert_in_sync(name);
        let line = format!("site{{storage={name}}}: Finished syncing");
        assert!(passes.stderr.contains(&line), "{passes:?}");
    }
}

#[test]
fn the_configuration_is_found_by_the_environment() {
    let site = SiteScene::of(&["site"]);
    run(fssync().env("FSSYNC_CONFIG", site.config())).expect(0);
    site.assert_in_sync("site");
    // The option comes first.
    let mut command = fssync();
    command.env("FSSYNC_CONFIG", "/none").arg("--config");
    run(command.arg(site.config())).expect(0);
    // A path on the command line needs no configuration.
    let mut command = fssync();
    command.env("FSSYNC_CONFIG", "/none");
    run(command.args([site.master("site"), site.slave("site")])).expect(0);
}

#[test]
fn storages_are_chosen_by_name() {
    let site = SiteScene::of(&["site", "catalog", "archive"]);
    let chosen = ["--json", "--storage", "archive", "--storage=site"];
    let reports = objects(&site.run(&chosen).expect(0));
    let names: Vec<_> = reports.iter().map(|it| &it["storage"]).collect();
    assert_eq!(names, ["site", "archive"]);
    assert!(!site.slave("catalog").exists());
    let unknown = site.run(&["--storage", "none"]).expect(2);
    assert!(
        unknown
            .stderr
            .contains("has no storage none; it has site, catalog, archive"),
        "{unknown:?}"
    );
    let invalid = site.run(&["--storage", "../site"]).expect(2);
    assert!(
        invalid.stderr.contains("is not the name of a storage"),
        "{invalid:?}"
    );
    let both = site.run(&["--storage", "site", "/m", "/s"]).expect(2);
    assert!(both.stderr.contains("cannot be used with"), "{both:?}");
}

/// One storage for each outcome, in an order that is not that of severity.
#[test]
fn the_exit_code_is_the_most_severe_one_and_no_storage_hides_another() {
    let mut site = SiteScene::of(&["good", "off", "diverged", "damaged", "last"]);
    site.add("lost", "/none/Data.fs", "");
    site.run(&["--storage", "off"]).expect(0);
    site.run(&["off", "--storage", "off"]).expect(0);
    site.run(&["--storage", "diverged", "--storage", "damaged"])
        .expect(0);
    site.diverge("diverged");
    let mut master = fs::read(site.master("damaged")).unwrap();
    master.extend(b"not a transaction at all, but long enough for a header of one");
    fs::write(site.master("damaged"), master).unwrap();
    let reports = objects(&site.run(&["--json"]).expect(30));
    let codes: Vec<_> = reports
        .iter()
        .map(|it| (it["storage"].clone(), it["exit_code"].clone()))
        .collect();
    let expected = [
        ("good", 0),
        ("off", 10),
        ("diverged", 20),
        ("damaged", 30),
        ("last", 0),
        ("lost", 12),
    ];
    assert_eq!(
        codes,
        expected.map(|(name, code)| (json!(name), json!(code)))
    );
    for (names, code) in [
        (&["good", "last"][..], 0),
        (&["good", "off"], 10),
        (&["off", "lost"], 12),
        (&["lost", "diverged", "off"], 20),
    ] {
        let chosen = names.iter().flat_map(|name| ["--storage", name]);
        let quiet = site.run(&[&["-q"][..], &chosen.collect::<Vec<_>>()].concat());
        let failures = names.iter().filter(|it| ["lost", "diverged"].contains(it));
        let lines = quiet.stderr.lines().count();
        assert_eq!((quiet.code, lines), (code, failures.count()), "{quiet:?}");
    }
}

#[test]
fn a_full_copy_and_a_dry_run_are_of_all_storages() {
    let site = SiteScene::of(&["site", "catalog"]);
    let planned = objects(&site.run(&["-n", "--json"]).expect(0));
    assert!(
        planned.iter().all(|it| it["action"] == "full-copy"),
        "{planned:?}"
    );
    assert!(!site.slave("site").exists());
    site.run(&[]).expect(0);
    site.diverge("catalog");
    site.run(&[]).expect(20);
    let copies = objects(&site.run(&["--whole", "--json"]).expect(0));
    assert!(
        copies.iter().all(|it| it["action"] == "full-copy"),
        "{copies:?}"
    );
    site.assert_in_sync("catalog");
}

#[test]
fn options_of_the_command_line_override_those_of_the_file() {
    let mut site = SiteScene::of(&[]);
    let master = "nowhere:/srv/Data.fs";
    site.add("one", master, "rsh = 'false one'\n");
    site.append("[defaults]\nrsh = 'false two'\n");
    site.add("two", master, "");
    let logged = |options: &[&str]| site.run(&[&["-v"], options].concat()).expect(12).stderr;
    let from_file = logged(&[]);
    for rsh in ["false one", "false two"] {
        assert!(
            !from_file.contains("cannot be started"),
            "{rsh}: {from_file}"
        );
    }
    let overridden = logged(&["-e", "/none/ssh"]);
    assert_eq!(
        overridden.matches("/none/ssh").count() / 2,
        1,
        "{overridden}"
    );
}

#[test]
fn all_slaves_are_verified_and_compared_on_demand() {
    let site = SiteScene::of(&["site", "catalog"]);
    site.run(&[]).expect(0);
    let reports = objects(&site.run(&["verify", "--json"]).expect(0));
    for (report, name) in reports.iter().zip(["site", "catalog"]) {
        assert_eq!(report["storage"], name);
        assert_eq!(report["master"], json!(null));
    }
    let compared = objects(&site.run(&["verify", "--json", "--compare"]).expect(0));
    assert_eq!(
        compared[1]["master"],
        site.master("catalog").to_str().unwrap()
    );
    let text = site.run(&["verify"]).expect(0);
    for name in ["site", "catalog"] {
        assert!(
            text.stdout.contains(&format!("storage       {name}\n")),
            "{text:?}"
        );
    }
    let mut slave = fs::read(site.slave("catalog")).unwrap();
    slave[60] ^= 1;
    fs::write(site.slave("catalog"), slave).unwrap();
    let damaged = objects(&site.run(&["verify", "--json"]).expect(31));
    assert_eq!(
        (&damaged[0]["exit_code"], &damaged[1]["exit_code"]),
        (&json!(0), &json!(31))
    );
    fs::copy(project("fixtures/commits.fs"), site.slave("catalog")).unwrap();
    site.run(&["verify", "--storage", "site"]).expect(0);
}

#[test]
fn a_warning_names_no_storage_that_the_configuration_covers() {
    let mut site = SiteScene::of(&["site"]);
    let directory = site.at("site/master");
    for name in ["catalog.fs", "orphan.fs"] {
        fs::copy(project("fixtures/commits.fs"), directory.join(name)).unwrap();
    }
    let catalog = directory.join("catalog.fs").display().to_string();
    site.add("catalog", &catalog, "");
    let run = site.run(&[]).expect(0);
    let warnings: Vec<_> = (run.stderr.lines())
        .filter(|line| line.contains("are not copied"))
        .collect();
    assert_eq!(warnings.len(), 2, "{run:?}");
    for warning in warnings {
        assert!(warning.contains("orphan.fs"), "{warning}");
        assert!(!warning.contains("catalog.fs\","), "{warning}");
        assert!(!warning.contains("\"Data.fs\""), "{warning}");
    }
    let status = site.run(&["status", "--json"]);
    assert!(
        !status.stdout.contains("not copied: \\\"catalog.fs"),
        "{status:?}"
    );
}
