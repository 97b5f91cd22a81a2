use super::super::check::Level;
use super::*;

#[test]
fn mounts_that_cause_trouble_are_reported() {
    for (kind, options, level, text) in [
        ("ext4", "rw", Level::Ok, ""),
        ("nfs4", "ro,hard", Level::Ok, ""),
        ("nfs", "rw,hard", Level::Warn, "ro,hard"),
        ("nfs4", "ro,soft", Level::Warn, "ro,hard"),
        ("nfs4", "ro,softerr", Level::Warn, "ro,hard"),
        ("fuse.sshfs", "ro", Level::Warn, "through ssh"),
    ] {
        let check = mounted(&Mount {
            point: "/mnt".into(),
            kind: kind.to_owned(),
            options: options.split(',').map(str::to_owned).collect(),
        });
        assert_eq!(check.level, level, "{check:?}");
        assert!(check.advice.contains(text), "{check:?}");
    }
}
