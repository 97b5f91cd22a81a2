use super::super::paths::SlavePaths;
use super::*;

fn slave(directory: &tempfile::TempDir) -> Slave {
    let paths = SlavePaths::new(&directory.path().join("Data.fs")).unwrap();
    Slave::new(paths, None)
}

fn names(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|it| it.unwrap().file_name().display().to_string())
        .collect();
    names.sort();
    names
}

#[test]
fn a_probe_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    probe(&slave).unwrap();
    assert!(names(&directory).is_empty());
    // A killed probe has left its files, and passes have left the lock.
    for sibling in [Sibling::Probe, Sibling::ProbeNew, Sibling::StepLock] {
        fs::write(slave.paths.sibling(sibling), "").unwrap();
    }
    probe(&slave).unwrap();
    assert_eq!(names(&directory), ["Data.fs.fssync-step"]);
}

#[test]
fn nothing_is_probed_while_syncing_is_off() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    slave.switches.set(false, &slave.paths).unwrap();
    // Another process would notice a file that exists for a moment.
    fs::create_dir(slave.paths.sibling(Sibling::Probe)).unwrap();
    assert!(matches!(probe(&slave), Err(Error::Off(_))));
}

#[test]
fn an_operation_that_fails_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let slave = slave(&directory);
    fs::create_dir(slave.paths.sibling(Sibling::Probe)).unwrap();
    let error = probe(&slave).unwrap_err().to_string();
    assert!(error.contains("cannot remove"), "{error}");
    assert_eq!(names(&directory), ["Data.fs.fssync-probe"]);
}
