//! `fssync config`: checks the configuration file, or makes one from a `zeo.conf`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use fssync::config::{Site, from_zeo};
use fssync::human::count;
use fssync::plan::outcome::Exit;

use super::args::ConfigVerb;
use super::log::End;
use super::storage;

pub(crate) fn run(verb: &ConfigVerb, quiet: bool) -> Result<Exit, End> {
    match verb {
        ConfigVerb::Check { config, print } => check(config.as_deref(), *print, quiet),
        ConfigVerb::FromZeo { zeo_conf, master } => print_text(&from_zeo(zeo_conf, master)?),
    }
}

fn check(config: Option<&Path>, print: bool, quiet: bool) -> Result<Exit, End> {
    let site = Site::load(&storage::find_config(config)?)?;
    let text = if print {
        site.to_toml()
    } else {
        let storages = count(site.storages.len() as u64, "storage");
        format!("{}: {storages}, no error\n", site.path.display())
    };
    if quiet && !print {
        return Ok(Exit::Success);
    }
    print_text(&text)
}

fn print_text(text: &str) -> Result<Exit, End> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .context("cannot print the configuration")?;
    Ok(Exit::Success)
}
