//! Rewinds that were killed, and what continues them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::crash::scenario::REWIND;
use crate::support::{History, Scene, Zodb, fssync, kill_at_sync, run, tracer};

/// A rewind that was killed before it synced the `c` of the first own transaction.
fn killed_after_its_mark(zodb: &mut Zodb) -> Scene {
    let scene = REWIND.scene();
    (REWIND.prepare)(&scene, zodb);
    kill_at_sync(&scene, &["--full"], 1);
    let before = History::get().before.len();
    let slave = fs::read(&scene.slave).expect("the slave");
    assert_eq!(slave[before + 16], b'c', "the mark");
    assert_eq!(zodb.check(&scene.slave)["position"], before);
    scene
}

/// Numbers of the calls that write the mark, sync it, and truncate.
fn order(log: &str) -> [Option<usize>; 3] {
    let mark = History::get().before.len() + 16;
    let nth = |text: &str, from: usize| {
        let mut lines = log.lines().enumerate().skip(from);
        lines.find(|(_, line)| line.contains(text)).map(|it| it.0)
    };
    let written = nth(&format!("\"c\", 1, {mark})"), 0);
    let synced = nth("fdatasync(", written.unwrap_or(0));
    [written, synced, nth("ftruncate(", 0)]
}

/// The mark may not be durable, and truncation without it can leave a header with zeros after it.
#[test]
fn the_mark_is_made_durable_before_the_truncation_continues() {
    type Continue = fn(&Scene) -> Command;
    let continued: [Continue; 3] = [
        |scene| scene.command(&[]),
        |scene| scene.command(&["--full"]),
        |scene| {
            let mut off = fssync();
            off.arg("off").arg(&scene.slave);
            off
        },
    ];
    let mut zodb = Zodb::start();
    for command in continued {
        let scene = killed_after_its_mark(&mut zodb);
        let output = scene.directory.path().join("calls");
        let slave = fs::canonicalize(&scene.slave).expect("the slave");
        let traced = "trace=pwrite64,fdatasync,fsync,ftruncate";
        let output_option = output.to_str().expect("UTF-8");
        let mut strace = tracer(&["-qq", "-o", output_option, "-e", traced], &[slave]);
        let command = command(&scene);
        run(strace.arg(command.get_program()).args(command.get_args())).expect(0);
        let log = fs::read_to_string(output).expect("the calls");
        let order = order(&log);
        assert!(order.iter().all(Option::is_some), "{order:?} {log}");
        assert!(order.is_sorted(), "{order:?} {log}");
        let found = zodb.check(&scene.slave);
        assert_eq!(found["position"], found["size"], "no tail");
    }
}

#[test]
fn a_pass_of_any_kind_finishes_a_rewind() {
    let mut zodb = Zodb::start();
    for options in [&[][..], &["--full"]] {
        let scene = killed_after_its_mark(&mut zodb);
        scene.pass(options).expect(0);
        zodb.assert_in_sync(&scene.master, &scene.slave);
        assert_eq!(set_aside(&scene).len(), 1);
        let names = scene.beside_slave();
        assert!(!names.iter().any(|name| name.contains(".tr")), "{names:?}");
    }
}

/// Before the mark, the slave has its own history: a person must decide again, and the same file is
/// used for the set-aside.
#[test]
fn a_rewind_that_was_killed_before_its_mark_is_repeated() {
    let mut zodb = Zodb::start();
    let scene = REWIND.scene();
    (REWIND.prepare)(&scene, &mut zodb);
    let old = fs::read(&scene.slave).unwrap();
    // The set-aside is left as by a pass that was killed.
    let killed = REWIND.scene();
    (REWIND.prepare)(&killed, &mut zodb);
    fs::write(&killed.slave, &old).unwrap();
    killed.pass(&["--full"]).expect(0);
    let [name] = &set_aside(&killed)[..] else {
        panic!("one set-aside")
    };
    fs::copy(
        killed.slave.with_file_name(name),
        scene.slave.with_file_name(name),
    )
    .unwrap();
    scene.pass(&[]).expect(20);
    scene.pass(&["--full"]).expect(0);
    assert_eq!(&set_aside(&scene)[..], std::slice::from_ref(name));
}

#[test]
fn a_set_aside_with_other_bytes_is_not_replaced() {
    let mut zodb = Zodb::start();
    let scene = REWIND.scene();
    (REWIND.prepare)(&scene, &mut zodb);
    let dry = scene.pass(&["--full", "--dry-run"]).expect(0).report();
    let path = Path::new(dry["set_aside"].as_str().expect("a path")).to_owned();
    fs::write(&path, "another file").unwrap();
    let report = scene.pass(&["--full"]).expect(0).report();
    assert_eq!(fs::read(&path).unwrap(), b"another file");
    let other = format!("{}.1", path.display());
    assert_eq!(report["set_aside"], other);
    assert_eq!(set_aside(&scene).len(), 2);
}

fn set_aside(scene: &Scene) -> Vec<String> {
    let mut names = scene.beside_slave();
    names.retain(|name| name.contains(".diverged-"));
    names
}
