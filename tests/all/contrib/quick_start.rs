//! The commands of the README, as an administrator would copy them.

use std::fs;

use serde_json::json;

use crate::blobs::derived::on_disk;
use crate::machine::Machine;
use crate::support::{Run, Scene, Setup, Zodb, blobs_beside, project};

/// The commands in a section of the README, without comments, except those of cargo.
fn commands(heading: &str) -> Vec<String> {
    let readme = fs::read_to_string(project("README.md")).unwrap();
    let (_, section) = readme.split_once(&format!("## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```").skip(1).step_by(2);
    let lines = blocks.flat_map(|block| block.lines().skip(1));
    let lines = lines.map(|line| line.split(" #").next().unwrap().trim().to_owned());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("cargo "))
        .collect()
}

/// Runs a command in a shell of this user.
fn as_user(machine: &Machine, user: &str, command: &str) -> Run {
    machine.run(&["runuser", "-u", user, "--", "sh", "-c", command])
}

#[test]
fn the_commands_of_the_readme_copy_a_site_and_start_zeo_on_the_copy() {
    let scene = Scene::plone();
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy"});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 3}));
    let machine = Machine::boot(&scene);
    // The second machine is new.
    let var = "/srv/plone/var";
    machine
        .run(&["rmdir", &format!("{var}/filestorage")])
        .expect(0);
    machine.run(&["chown", "root:root", var]).expect(0);
    machine.run(&["chmod", "755", var]).expect(0);

    let start = commands("Quick start");
    let [install, pass, status, cron] = &start[..] else {
        panic!("{start:?}");
    };
    as_user(&machine, "root", install).expect(0);
    let copied = as_user(&machine, "zope", pass).expect(0);
    assert!(copied.stderr.contains("and 3 blobs"), "{copied:?}");
    let lost = as_user(&machine, "zope", status).expect(0);
    assert!(lost.stdout.contains("nothing would be lost"), "{lost:?}");
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 1}));
    let words: Vec<_> = cron.splitn(7, ' ').collect();
    assert_eq!(words[..6], ["*", "*", "*", "*", "*", "zope"]);
    let quiet = as_user(&machine, "zope", words[6]).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    zodb.assert_in_sync(&scene.master, &scene.slave);
    let [originals, found] = [&scene.master, &scene.slave].map(|file| on_disk(&blobs_beside(file)));
    assert_eq!(found, originals);

    let failover = commands("The night of the failover");
    let [off, zeo] = &failover[..] else {
        panic!("{failover:?}");
    };
    let off = as_user(&machine, "root", off).expect(0);
    assert!(off.stdout.contains("syncing is off"), "{off:?}");
    as_user(&machine, "root", zeo).expect(0);
    let zeo = machine.run(&["systemctl", "status", "zeo"]);
    assert!(zeo.stdout.contains("active (running)"), "{zeo:?}");
    as_user(&machine, "zope", words[6]).expect(10);
}
