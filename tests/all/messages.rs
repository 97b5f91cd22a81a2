//! The files that a message names, so that the next step is clear.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use crate::support::{History, Scene, Transport, as_nobody, run};

/// The argument is often a directory.
#[test]
fn a_directory_without_a_data_fs_is_reported_with_the_missing_file() {
    for transport in Transport::BOTH {
        let mut scene = Scene::new().over(transport);
        let directory = scene.master.parent().unwrap().to_owned();
        scene.master = directory.clone();
        let missing = format!(
            "cannot open {}: No such file",
            directory.join("Data.fs").display()
        );
        let reason = |scene: &Scene| {
            let report = scene.pass(&[]).expect(12).report();
            report["reason"].as_str().unwrap().to_owned()
        };
        let message = reason(&scene);
        assert!(
            message.contains(&missing) && !message.contains("there is"),
            "{message}"
        );
        for below in ["var/filestorage", "filestorage"] {
            let below = directory.join(below);
            fs::create_dir_all(&below).unwrap();
            let file = below.join("Data.fs");
            fs::write(&file, &History::get().before).unwrap();
            let message = reason(&scene);
            let there = format!("there is {}: name that as the master", file.display());
            assert!(
                message.contains(&missing) && message.contains(&there),
                "{message}"
            );
        }
        scene.master = directory.join("no/such");
        let message = reason(&scene);
        let missing = format!("cannot open {}: No such", scene.master.display());
        assert!(message.contains(&missing), "{message}");
    }
}

#[test]
fn a_directory_with_an_unreadable_data_fs_is_reported_with_the_file() {
    let scene = Scene::with_master("commits");
    let mut nobody = as_nobody(&scene);
    chown(&scene.master, Some(0), Some(0)).unwrap();
    fs::set_permissions(&scene.master, Permissions::from_mode(0o600)).unwrap();
    let closed = run(nobody.arg(scene.master.parent().unwrap()).arg(&scene.slave)).expect(12);
    let message = format!("cannot open {}: Permission denied", scene.master.display());
    assert!(closed.stderr.contains(&message), "{closed:?}");
}
