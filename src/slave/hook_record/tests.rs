use std::collections::BTreeMap;
use std::fs;

use super::super::paths::SlavePaths;
use super::*;

type Content = BTreeMap<String, u64>;

fn slave(directory: &tempfile::TempDir) -> Slave {
    let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
    Slave::new(paths, None)
}

fn increase(slave: &Slave) -> Result<u64, Error> {
    let content = update(slave, &Content::new(), |content| {
        *content.entry("a".to_owned()).or_default() += 1;
    })?;
    Ok(content["a"])
}

#[test]
fn a_record_is_kept_and_an_invalid_one_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    fs::write(slave.paths.sibling(Sibling::Sidecar), "").unwrap();
    assert_eq!(increase(&slave).unwrap(), 1);
    assert_eq!(increase(&slave).unwrap(), 2);
    let path = slave.paths.sibling(Sibling::Hooks);
    for invalid in ["", "{", "[]", &"[".repeat(300_000)] {
        fs::write(&path, invalid).unwrap();
        assert_eq!(increase(&slave).unwrap(), 1);
    }
}

#[test]
fn nothing_is_written_while_syncing_is_off() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    fs::write(slave.paths.sibling(Sibling::Sidecar), "").unwrap();
    slave.switches.set(false, &slave.paths).unwrap();
    assert!(matches!(increase(&slave), Err(Error::Off(_))));
    assert!(!slave.paths.sibling(Sibling::Hooks).exists());
}

#[test]
fn nothing_is_created_for_a_name_that_no_pass_was_made_for() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    assert!(increase(&slave).is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
