//! Where a master is: what `PATH`, `[user@]host:/path` and
//! `ssh://[user@]host[:port]/path` mean.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::ssh::Target;
use crate::stop::Stop;

/// Where a master is.
#[derive(Debug, PartialEq, Eq)]
pub enum Location {
    /// On a mounted path.
    Path(PathBuf),
    /// On another machine.
    Remote(Remote),
}

/// A path on another machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Remote {
    /// `[user@]host`.
    host: String,
    port: Option<u16>,
    path: String,
}

/// Tells where a master is. A name with a colon before its first slash is on
/// another machine; a local file with such a name is written `./a:b`.
pub fn parse(master: &OsStr) -> Result<Location, Stop> {
    let Some(text) = master.to_str() else {
        return Ok(Location::Path(master.into()));
    };
    let (host, port, path) = if let Some(url) = text.strip_prefix("ssh://") {
        let (authority, path) = match url.find('/') {
            Some(slash) => url.split_at(slash),
            None => return Err(usage(text, "names no path")),
        };
        let (host, port) = split_port(authority).ok_or_else(|| usage(text, "has no valid port"))?;
        (host, port, path)
    } else {
        match text.split_once(':') {
            Some((host, path)) if !host.contains('/') => (host, None, path),
            _ => return Ok(Location::Path(master.into())),
        }
    };
    if !path.starts_with('/') {
        return Err(usage(text, "names no absolute path; write host:/path"));
    }
    // An address in brackets is called without them by ssh.
    let host = host.replace(['[', ']'], "");
    if !is_host(&host) {
        return Err(usage(text, "names no valid host"));
    }
    Ok(Location::Remote(Remote {
        host,
        port,
        path: path.to_owned(),
    }))
}

impl Remote {
    /// How to reach it: by `rsh`, a program with its arguments, which runs
    /// `remote_fssync` over there. Nothing of it is read by a shell here; over there,
    /// the path is quoted.
    pub fn target(&self, rsh: &str, remote_fssync: &str) -> Result<Target, Stop> {
        let mut program = shlex::split(rsh)
            .filter(|words| !words.is_empty())
            .ok_or_else(|| usage(rsh, "is no command that can be split into words"))?;
        if let Some(port) = self.port {
            program.extend(["-p".to_owned(), port.to_string()]);
        }
        program.push(self.host.clone());
        let path = shlex::try_quote(&self.path)
            .map_err(|_| usage(&self.path, "holds a character that no path has"))?;
        Ok(Target {
            program,
            command: format!("{remote_fssync} serve -- {path}"),
            path: self.path.clone(),
        })
    }
}

/// Splits `host:port`; the port is optional, and the host may be an IPv6
/// address in brackets.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((authority, None)),
    }
}

/// Whether the program that connects takes this for a host, and not for an
/// option.
fn is_host(host: &str) -> bool {
    let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
    let is_plain = |c: char| c.is_alphanumeric() || "-._@:%".contains(c);
    !name.is_empty()
        && !host.starts_with('-')
        && !name.starts_with('-')
        && host.chars().all(is_plain)
}

fn usage(what: &str, why: &str) -> Stop {
    Stop::Usage(format!("{what:?} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(host: &str, port: Option<u16>, path: &str) -> Location {
        Location::Remote(Remote {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    #[test]
    fn a_colon_before_the_first_slash_is_another_machine() {
        for path in ["/a:b", "./a:b", "Data.fs", "../x"] {
            assert_eq!(parse(path.as_ref()).unwrap(), Location::Path(path.into()));
        }
        for (text, expected) in [
            ("m:/d/Data.fs", remote("m", None, "/d/Data.fs")),
            (
                "zope@m.example:/d x",
                remote("zope@m.example", None, "/d x"),
            ),
            ("ssh://zope@m:2222/d", remote("zope@m", Some(2222), "/d")),
            ("ssh://m/d", remote("m", None, "/d")),
            ("ssh://[::1]/d", remote("::1", None, "/d")),
            ("ssh://[::1]:22/d", remote("::1", Some(22), "/d")),
        ] {
            assert_eq!(parse(text.as_ref()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_could_be_taken_for_an_option_or_a_command_is_refused() {
        for text in [
            "-oProxyCommand=x:/d",
            "zope@-oProxyCommand=x:/d",
            "ssh://[-F]x/d",
            "ssh://[-::1]:22/d",
            "zope@[-G]m:/d",
            "[]:/d",
            "ssh://-oProxyCommand=x/d",
            ":/d",
            "a b:/d",
            "a;b:/d",
            "m:relative",
            "ssh://m",
            "ssh://m:x/d",
            "ssh://m:99999/d",
            "ssh:///d",
        ] {
            assert!(parse(text.as_ref()).is_err(), "{text}");
        }
    }
}
