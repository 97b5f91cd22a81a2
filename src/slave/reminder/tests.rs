//! When the file is written, and when it is not.

use std::fs;

use jiff::Timestamp;

use super::super::paths::SlavePaths;
use super::*;

fn slave(directory: &tempfile::TempDir) -> Slave {
    let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
    Slave::new(paths, None)
}

fn trouble(about: &str) -> Trouble {
    Trouble {
        exit_code: 10,
        about: vec![about.to_owned()],
        since: Timestamp::UNIX_EPOCH,
        reported: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn trouble_is_replaced_by_shorter_trouble_and_by_none() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    fs::write(slave.paths.sibling(Sibling::Sidecar), "").unwrap();
    assert_eq!(Reminder::load(&slave.paths).unwrap(), Reminder::Missing);
    for stored in [Some(trouble("a long text")), Some(trouble("")), None] {
        store(stored.as_ref(), &slave).unwrap();
        let loaded = Reminder::load(&slave.paths).unwrap();
        assert_eq!(loaded, Reminder::Stored(stored));
    }
}

#[test]
fn nothing_is_written_after_off_but_an_invalid_switch_does_not_prevent_it() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    let path = slave.paths.sibling(Sibling::Reported);
    fs::write(slave.paths.sibling(Sibling::Sidecar), "").unwrap();
    slave.switches.set(false, &slave.paths).unwrap();
    let switch = slave.paths.sibling(Sibling::Switch);
    // A full disk leaves the switch empty.
    for off in ["SYNCING=0\n", ""] {
        fs::write(&switch, off).unwrap();
        assert!(matches!(store(None, &slave), Err(Error::Off(_))), "{off:?}");
        assert!(!path.exists());
    }
    fs::write(&switch, "SYNCING=maybe\n").unwrap();
    store(None, &slave).unwrap();
    assert!(path.exists());
}

#[test]
fn nothing_is_created_for_a_name_that_no_pass_was_made_for() {
    let directory = tempfile::tempdir().unwrap();
    assert!(store(None, &slave(&directory)).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
