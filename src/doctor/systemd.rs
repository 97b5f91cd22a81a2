//! Checks the units of systemd, if there are any: that ZEO's unit switches syncing off before it
//! starts ZEO, and that fssync's units may write the slave.
//!
//! The files are read, with their drop-ins, as `systemctl cat` would display them. A unit is one
//! of ZEO if its name contains `zeo`, and one of fssync if its name starts with `fssync`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, absolute};

use super::check::{Check, Report};
use crate::slave::step::Slave;

/// The directories of units, those with priority last.
const DIRECTORIES: [&str; 5] = [
    "lib/systemd/system",
    "usr/lib/systemd/system",
    "usr/local/lib/systemd/system",
    "run/systemd/system",
    "etc/systemd/system",
];

/// The largest file that is read, in bytes.
const MAX_LEN: u64 = 1024 * 1024;

/// Checks the units below `root`.
pub(super) fn check(root: &Path, slave: &Slave, report: &mut Report) {
    let units = units(root);
    let zeo: Vec<_> = units
        .iter()
        .filter(|(name, _)| name.contains("zeo") && !name.starts_with("fssync"))
        .collect();
    if !zeo.is_empty() {
        report.add(zeo_units(&zeo));
    }
    let own: Vec<_> = units
        .iter()
        .filter(|(name, _)| name.starts_with("fssync"))
        .collect();
    let directory = absolute(slave.paths.directory());
    if let Ok(directory) = directory
        && !own.is_empty()
    {
        report.add(own_units(&own, &directory));
    }
}

/// A unit: its name, and the lines of its file and of its drop-ins.
type Unit<'a> = (&'a String, &'a Vec<String>);

fn zeo_units(units: &[Unit<'_>]) -> Check {
    let name = "zeo-unit";
    let switches_off = |lines: &[String]| {
        let commands = values(lines, "ExecStartPre");
        commands.iter().any(|command| {
            command.contains("fssync") && command.split_whitespace().any(|word| word == "off")
        })
    };
    match units.iter().find(|(_, lines)| !switches_off(lines)) {
        None => Check::ok(name, "ZEO is started only after `fssync off`"),
        Some((unit, _)) => {
            let seen = format!("{unit} starts ZEO without `fssync off`");
            let advice = format!(
                "add ExecStartPre=fssync off SLAVE in /etc/systemd/system/{unit}.d/fssync.conf, \
                 so that nobody starts ZEO here while passes write the slave"
            );
            Check::warn(name, seen, advice)
        }
    }
}

fn own_units(units: &[Unit<'_>], directory: &Path) -> Check {
    let name = "unit-paths";
    let may_write = |lines: &[String]| {
        let is_strict = values(lines, "ProtectSystem")
            .last()
            .is_some_and(|it| it == "strict");
        let paths = values(lines, "ReadWritePaths");
        let mut paths = paths.iter().flat_map(|value| value.split_whitespace());
        !is_strict || paths.any(|path| directory.starts_with(path.trim_start_matches(['-', '+'])))
    };
    if let Some((unit, _)) = units.iter().find(|(_, lines)| may_write(lines)) {
        return Check::ok(name, format!("{unit} may write {}", directory.display()));
    }
    let names: Vec<_> = units.iter().map(|(name, _)| name.as_str()).collect();
    let directory = directory.display();
    let seen = format!("{} may not write {directory}", names.join(", "));
    let advice = format!("add ReadWritePaths={directory} to the unit that makes the passes");
    Check::warn(name, seen, advice)
}

/// The values of a key, in their order. An empty value discards those before it.
fn values(lines: &[String], key: &str) -> Vec<String> {
    let mut values = Vec::new();
    for line in lines {
        let Some((found, value)) = line.split_once('=') else {
            continue;
        };
        if found.trim() != key {
            continue;
        }
        match value.trim() {
            "" => values.clear(),
            value => values.push(value.to_owned()),
        }
    }
    values
}

/// The services of ZEO and of fssync.
fn units(root: &Path) -> BTreeMap<String, Vec<String>> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut drop_ins: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for directory in DIRECTORIES.map(|it| root.join(it)) {
        for name in names(&directory) {
            if !(name.contains("zeo") || name.starts_with("fssync")) {
                continue;
            }
            let path = directory.join(&name);
            if name.ends_with(".service") {
                files.insert(name, lines(&path));
            } else if let Some(unit) = name.strip_suffix(".service.d") {
                let added = drop_ins.entry(format!("{unit}.service")).or_default();
                for drop_in in names(&path) {
                    let path = path.join(drop_in);
                    if path.extension().is_some_and(|it| it == "conf") {
                        added.extend(lines(&path));
                    }
                }
            }
        }
    }
    for (name, lines) in &mut files {
        lines.extend(drop_ins.remove(name).unwrap_or_default());
    }
    files
}

/// The names in a directory, sorted; none if it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The lines of a file; none if it cannot be read.
fn lines(path: &Path) -> Vec<String> {
    let is_small = fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() <= MAX_LEN);
    let text = is_small.then(|| fs::read_to_string(path).ok()).flatten();
    let text = text.unwrap_or_default().replace("\\\n", " ");
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
