//! The commands of `docs/blobs.md`, as an administrator would copy them.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Blobs, Scene, Setup, Zodb, fssync, must, project, run};

/// The lines of the first block of code after this heading.
fn commands(heading: &str) -> Vec<String> {
    let page = fs::read_to_string(project("docs/blobs.md")).expect("the page");
    let (_, section) = page.split_once(heading).expect("the heading");
    let block = section.split("```sh\n").nth(1).expect("a block");
    let (lines, _) = block.split_once("```").expect("its end");
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn a_slave_that_was_set_aside_is_opened_with_all_its_blobs() {
    let scene = Scene::new();
    let journal = scene.directory.path().join("journal");
    let mut zodb = Zodb::start();
    let options = json!({"create": true, "layout": "bushy", "journal": journal});
    zodb.open_with_blobs(&scene.master, Setup::FileStorage, &options);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 3, "blob_size": 1000}));
    scene.pass(&["--blobs"]).expect(0);

    // A failover: the slave gets transactions of its own, with blobs.
    run(fssync().arg("off").arg(&scene.slave)).expect(0);
    let blobs = scene.slave.with_file_name("blobstorage");
    zodb.call(
        &json!({"cmd": "open", "name": "s", "path": scene.slave, "blobs": blobs,
        "setup": Setup::FileStorage.as_str(), "journal": journal}),
    );
    zodb.call(&json!({"cmd": "commit", "name": "s", "blobs": 2, "changes": 1}));
    zodb.call(&json!({"cmd": "close", "name": "s"}));
    run(fssync().args(["on", "--force"]).arg(&scene.slave)).expect(0);
    zodb.call(&json!({"cmd": "commit", "name": "m", "blobs": 1}));
    scene.pass(&["--whole", "--blobs"]).expect(0);

    let prefix = "Data.fs.diverged-";
    let names = scene.beside_slave();
    let tid = names.iter().find_map(|name| name.strip_prefix(prefix));
    let tid = tid.expect("the old slave was set aside");
    let aside = scene.directory.path().join("aside");
    let slave = scene.slave.parent().unwrap().to_str().unwrap();
    let commands = commands("## A slave that was set aside\n");
    let example = commands.iter().find_map(|command| {
        let (_, name) = command.split_once(prefix)?;
        name.split(' ').next()
    });
    let example = example.expect("the tid of the page").to_owned();
    for command in commands {
        let command = command
            .replace(&example, tid)
            .replace("/srv/plone/var/filestorage", slave)
            .replace("/srv/plone/var", slave)
            .replace("/srv/plone/aside", aside.to_str().unwrap());
        must(Command::new("sh").args(["-c", &command]));
    }
    let opened = Blobs {
        file: &aside.join("Data.fs"),
        directory: &aside.join("blobstorage"),
        expected: None,
        journal: Some(&journal),
    };
    assert_eq!(zodb.assert_blobs(&opened, Setup::FileStorage), 6);
    let current = Blobs {
        file: &scene.slave,
        directory: &blobs,
        ..opened
    };
    assert_eq!(zodb.assert_blobs(&current, Setup::FileStorage), 4);
    let status = run(&mut scene.status(&["--json"])).expect(0).report();
    assert_eq!(status["blobs_complete"], true, "{status}");
    assert_eq!(status["blobs_to_remove"], Value::from(3), "{status}");
}
