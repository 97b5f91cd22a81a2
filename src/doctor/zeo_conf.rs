//! Checks that ZEO opens the slave: otherwise a failover would serve another file.

use std::fs;
use std::path::{Path, PathBuf};

use super::check::{Check, Report};
use crate::config::storage_paths;
use crate::slave::step::Slave;

/// Checks the paths in a `zeo.conf`.
pub(super) fn check(zeo_conf: &Path, slave: &Slave, report: &mut Report) {
    report.add(match storage_paths(zeo_conf) {
        Ok(paths) => opens(zeo_conf, &paths, slave.paths.data()),
        Err(error) => Check::of_error("zeo-conf", &error),
    });
}

fn opens(zeo_conf: &Path, paths: &[PathBuf], slave: &Path) -> Check {
    let name = "zeo-conf";
    let zeo_conf = zeo_conf.display();
    let slave_path = resolved(slave);
    if paths.iter().any(|path| resolved(path) == slave_path) {
        return Check::ok(name, format!("{zeo_conf} opens {}", slave.display()));
    }
    let opened: Vec<_> = paths.iter().map(|it| it.display().to_string()).collect();
    let opened = match opened.join(", ") {
        none if none.is_empty() => "no FileStorage".to_owned(),
        some => some,
    };
    let seen = format!("{zeo_conf} opens {opened}, not {}", slave.display());
    let advice = "let ZEO on this machine open the slave, or name the file that it opens as SLAVE: \
                  at a failover, ZEO would serve another file";
    Check::fail(name, seen, advice)
}

/// A path without symbolic links. The file itself need not exist.
fn resolved(path: &Path) -> PathBuf {
    let directory = path.parent().and_then(|it| fs::canonicalize(it).ok());
    match (directory, path.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}
