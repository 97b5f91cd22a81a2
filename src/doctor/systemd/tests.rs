use super::super::check::Level;
use super::*;
use crate::slave::paths::SlavePaths;

/// The checks with these files below the root, each with its content.
fn checks(files: &[(&str, &str)]) -> Vec<(&'static str, Level)> {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = content.replace("ROOT", &root.path().display().to_string());
        fs::write(path, content).unwrap();
    }
    let slave = root.path().join("var");
    fs::create_dir(&slave).unwrap();
    let slave = Slave::new(SlavePaths::new(&slave).unwrap(), None);
    let mut report = Report::default();
    check(root.path(), &slave, &mut report);
    let checks = report.checks.iter().map(|it| (it.check, it.level));
    checks.collect()
}

const ZEO: (&str, &str) = (
    "usr/lib/systemd/system/zeo.service",
    "[Service]\nExecStart=runzeo\n",
);

#[test]
fn without_units_nothing_is_checked() {
    assert_eq!(checks(&[]), []);
    let other = ("etc/systemd/system/cron.service", "");
    assert_eq!(checks(&[other]), []);
}

#[test]
fn a_unit_of_zeo_must_switch_syncing_off() {
    assert_eq!(checks(&[ZEO]), [("zeo-unit", Level::Warn)]);
    let drop_in = "etc/systemd/system/zeo.service.d/fssync.conf";
    for (content, level) in [
        (
            "[Service]\nExecStartPre=fssync off /srv/plone/var\n",
            Level::Ok,
        ),
        (
            "[Service]\nExecStartPre = \\\n -/usr/bin/fssync -q off\n",
            Level::Ok,
        ),
        (
            "[Service]\nExecStartPre=fssync on /srv/plone/var\n",
            Level::Warn,
        ),
        ("[Service]\n# ExecStartPre=fssync off /srv\n", Level::Warn),
        (
            "[Service]\nExecStartPre=fssync off /srv\nExecStartPre=\n",
            Level::Warn,
        ),
    ] {
        let found = checks(&[ZEO, (drop_in, content)]);
        assert_eq!(found, [("zeo-unit", level)], "{content}");
    }
}

#[test]
fn a_unit_of_fssync_must_be_allowed_to_write_the_slave() {
    let unit = "etc/systemd/system/fssync.service";
    for (content, level) in [
        ("ProtectSystem=strict\nReadWritePaths=ROOT/var\n", Level::Ok),
        ("ProtectSystem=strict\nReadWritePaths=/x -ROOT\n", Level::Ok),
        ("ProtectSystem=full\n", Level::Ok),
        (
            "ProtectSystem=strict\nReadWritePaths=ROOT/va\n",
            Level::Warn,
        ),
        ("ProtectSystem=strict\n", Level::Warn),
    ] {
        let found = checks(&[(unit, content)]);
        assert_eq!(found, [("unit-paths", level)], "{content}");
    }
}
