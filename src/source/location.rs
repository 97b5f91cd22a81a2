//! Parses the location of a master: `PATH`, `[user@]host:/path` or
//! `ssh://[user@]host[:port]/path`.
//!
//! The rules for a host are those of OpenSSH: it is a name, an alias from the configuration
//! of ssh, or an address. An IPv6 address is in brackets. Nothing is decoded except the `%25`
//! before the zone of an IPv6 address in a URL (RFC 6874).

use std::ffi::OsStr;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use super::ssh::Target;

/// The text is not a valid location, or not a valid command to connect with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct Error {
    /// The text, or its invalid part.
    text: String,
    problem: &'static str,
}

/// The location of a master.
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

/// The blob directory that `fssync serve` serves besides the path of the master. A forced
/// command names its own paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedBlobs<'a> {
    /// None.
    None,
    /// The usual ones of the master's `Data.fs`.
    Usual,
    /// The one with this path.
    At(&'a str),
}

/// Parses a location. A name with a colon before its first slash is on another machine; a
/// local file with such a name can be given as `./a:b`.
pub fn parse(master: &OsStr) -> Result<Location, Error> {
    let Some(text) = master.to_str() else {
        return Ok(Location::Path(master.into()));
    };
    let is_remote = text
        .find([':', '/'])
        .is_some_and(|at| text[at..].starts_with(':'));
    if !is_remote {
        return Ok(Location::Path(master.into()));
    }
    let remote = match strip_scheme(text) {
        Some(rest) => parse_url(rest),
        None if is_url(text) => Err(NOT_SSH),
        None => parse_host_and_path(text),
    };
    remote.map(Location::Remote).map_err(|why| error(text, why))
}

/// The rest of a text that starts with `ssh://`.
fn strip_scheme(text: &str) -> Option<&str> {
    const SCHEME: &str = "ssh://";
    let start = text.get(..SCHEME.len())?;
    start
        .eq_ignore_ascii_case(SCHEME)
        .then(|| &text[SCHEME.len()..])
}

/// Whether a text starts with a scheme and `://` (RFC 3986). Without this check, `https` would be
/// taken for the name of a host.
fn is_url(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    text.split_once("://")
        .is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(is_allowed))
}

/// Parses `[user@]host[:port]/path`.
fn parse_url(text: &str) -> Result<Remote, &'static str> {
    let (authority, path) = text.split_at(text.find('/').ok_or("names no path")?);
    let (user, address) = split_user(authority);
    if is_bare_ipv6(address) {
        return Err(BARE_IPV6);
    }
    if user.is_some_and(|user| user.contains(':')) {
        return Err("contains a password; ssh takes a key, or asks for it");
    }
    let (host, port) = match split_at_colon(address) {
        None => (address, None),
        Some((host, "")) => (host, None),
        Some((host, port)) => {
            let port = port.parse().ok().filter(|&port| port != 0);
            (host, Some(port.ok_or("has no valid port")?))
        }
    };
    Ok(Remote {
        host: host_for_ssh(user, &host.replace("%25", "%"))?,
        port,
        path: path.to_owned(),
    })
}

/// Parses `[user@]host:/path`.
fn parse_host_and_path(text: &str) -> Result<Remote, &'static str> {
    let (user_and_host, path) = split_at_colon(text).ok_or(NO_HOST)?;
    if !path.starts_with('/') {
        let address = text
            .split_once(":/")
            .map(|(before, _)| split_user(before).1);
        return Err(match address {
            Some(address) if is_bare_ipv6(address) => BARE_IPV6,
            _ => "names no absolute path; write host:/path",
        });
    }
    let (user, host) = split_user(user_and_host);
    Ok(Remote {
        host: host_for_ssh(user, host)?,
        port: None,
        path: path.to_owned(),
    })
}

impl Location {
    /// The path on its machine.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Remote(remote) => Path::new(&remote.path),
        }
    }

    /// Whether both are on the same machine, as far as their texts show.
    #[must_use]
    pub fn is_on_same_machine(&self, other: &Self) -> bool {
        let machine = |it: &Self| match it {
            Self::Path(_) => None,
            Self::Remote(Remote { host, port, .. }) => Some((split_user(host).1.to_owned(), *port)),
        };
        machine(self) == machine(other)
    }

    /// The last component of the path, unless it is `..` or the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&OsStr> {
        self.path().file_name()
    }
}

impl Remote {
    /// The command that connects to this master: the program `rsh` with its arguments, which
    /// runs `remote_fssync` on the other machine. No local shell reads it. The paths are quoted
    /// for the shell of the other machine.
    pub fn target(
        &self,
        rsh: &str,
        remote_fssync: &str,
        blobs: ServedBlobs<'_>,
    ) -> Result<Target, Error> {
        let mut program = shlex::split(rsh)
            .filter(|words| !words.is_empty())
            .ok_or_else(|| error(rsh, "is not a valid command line"))?;
        if let Some(port) = self.port {
            program.extend(["-p".to_owned(), port.to_string()]);
        }
        program.push(self.host.clone());
        let quoted =
            |path| shlex::try_quote(path).map_err(|_| error(path, "contains a null character"));
        let path = quoted(&self.path)?;
        Ok(Target {
            program,
            command: match blobs {
                ServedBlobs::None => format!("{remote_fssync} serve -- {path}"),
                ServedBlobs::Usual => format!("{remote_fssync} serve --blobs -- {path}"),
                ServedBlobs::At(directory) => {
                    format!("{remote_fssync} serve -- {path} {}", quoted(directory)?)
                }
            },
            path: self.path.clone(),
        })
    }
}

const NOT_SSH: &str = "is a URL, but not one of ssh; write PATH, [user@]host:/path or \
                       ssh://[user@]host[:port]/path";

const NO_HOST: &str = "names no valid host";

const BARE_IPV6: &str = "names an IPv6 address without brackets; write [address]";

/// Splits `user@host`; a user's name may contain an `@`.
fn split_user(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, text),
    }
}

/// Splits a text at its first colon that is not in brackets.
fn split_at_colon(text: &str) -> Option<(&str, &str)> {
    let first = text.find([':', '['])?;
    let in_brackets = match text[first..].strip_prefix('[') {
        Some(_) => text[first..].find(']')?,
        None => 0,
    };
    let colon = first + in_brackets + text[first + in_brackets..].find(':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

/// Whether this is an IPv6 address, with or without a zone.
fn is_bare_ipv6(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

/// The host as an argument for ssh. The rules are those of OpenSSH's `valid_hostname` and
/// `valid_ruser`, and slightly stricter: a wrapper must not take the argument for an option,
/// and a shell must not take it for a command.
fn host_for_ssh(user: Option<&str>, host: &str) -> Result<String, &'static str> {
    let in_brackets = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let name = in_brackets.unwrap_or(host);
    let is_plain = |text: &str, excluded: &str| {
        let is_allowed = |c: char| !c.is_whitespace() && !c.is_control() && !excluded.contains(c);
        !text.is_empty() && !text.starts_with('-') && text.chars().all(is_allowed)
    };
    let is_host =
        is_plain(name, "'`\"$\\;&<>|(){}[],/@") && (in_brackets.is_some() || !name.contains(':'));
    if !is_host {
        return Err(NO_HOST);
    }
    let Some(user) = user else {
        return Ok(name.to_owned());
    };
    if !is_plain(user, "'`\"$;&<>|(){}/:") || user.ends_with('\\') {
        return Err("names no valid user");
    }
    Ok(format!("{user}@{name}"))
}

fn error(text: &str, problem: &'static str) -> Error {
    Error {
        text: text.to_owned(),
        problem,
    }
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
    fn a_colon_before_the_first_slash_means_another_machine() {
        for path in ["/a:b", "./a:b", "Data.fs", "../x", "a[1]/b:c", "ssh/x"] {
            assert_eq!(parse(path.as_ref()).unwrap(), Location::Path(path.into()));
        }
        for (text, expected) in [
            ("m:/d/Data.fs", remote("m", None, "/d/Data.fs")),
            (
                "zope@m.example:/d x",
                remote("zope@m.example", None, "/d x"),
            ),
            ("m:/d/[x]:y", remote("m", None, "/d/[x]:y")),
            ("zope@m://d", remote("zope@m", None, "//d")),
            ("ssh://zope@m:2222/d", remote("zope@m", Some(2222), "/d")),
            ("ssh://m/d", remote("m", None, "/d")),
            ("SSH://m/d%20e", remote("m", None, "/d%20e")),
            ("ssh://m:/d", remote("m", None, "/d")),
        ] {
            assert_eq!(parse(text.as_ref()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_url_of_another_kind_is_not_a_host() {
        for text in ["https://m/d", "file:///d", "HTTP://m:80/d", "git+ssh://m/d"] {
            let refused = parse(text.as_ref()).unwrap_err().to_string();
            for form in [
                "PATH",
                " [user@]host:/path ",
                " ssh://[user@]host[:port]/path",
            ] {
                assert!(refused.contains(form), "{refused}");
            }
        }
    }

    #[test]
    fn an_ipv6_address_is_written_in_brackets() {
        for (text, expected) in [
            ("[::1]:/d", remote("::1", None, "/d")),
            (
                "zope@[2001:db8::1]:/d",
                remote("zope@2001:db8::1", None, "/d"),
            ),
            ("[fe80::1%eth0]:/d", remote("fe80::1%eth0", None, "/d")),
            ("[::1]:/d/[a]:b", remote("::1", None, "/d/[a]:b")),
            ("[m]:/d", remote("m", None, "/d")),
            ("ssh://[::1]/d", remote("::1", None, "/d")),
            ("ssh://[::1]:22/d", remote("::1", Some(22), "/d")),
            ("ssh://[::1]:/d", remote("::1", None, "/d")),
            (
                "ssh://zope@[fe80::1%25eth0]:22/d",
                remote("zope@fe80::1%eth0", Some(22), "/d"),
            ),
        ] {
            assert_eq!(parse(text.as_ref()).unwrap(), expected, "{text}");
        }
        for text in [
            "::1:/d",
            "2001:db8::1:/d",
            "zope@fe80::1%eth0:/d",
            "ssh://::1/d",
            "ssh://zope@2001:db8::1/d",
        ] {
            let refused = parse(text.as_ref()).unwrap_err().to_string();
            assert!(refused.contains("[address]"), "{refused}");
        }
    }

    #[test]
    fn names_that_ssh_accepts_are_valid_hosts_and_users() {
        for host in [
            "my_alias",
            "plone+db1",
            "m\u{fc}ller",
            "a=b#c~d",
            "user+tag@h",
            "DOM\\user@h",
            "joe@corp.example@h",
            "zope%blue@h",
        ] {
            let expected = remote(host, None, "/d");
            for text in [format!("{host}:/d"), format!("ssh://{host}/d")] {
                assert_eq!(parse(text.as_ref()).unwrap(), expected, "{text}");
            }
        }
    }

    #[test]
    fn arguments_that_look_like_options_or_commands_are_refused() {
        for text in [
            "-oProxyCommand=x:/d",
            "zope@-oProxyCommand=x:/d",
            "-zope@m:/d",
            "ssh://[-F]x/d",
            "ssh://[-::1]:22/d",
            "zope@[-G]m:/d",
            "zope@[-G]:/d",
            "[]:/d",
            "[::1:/d",
            "[::1]/d",
            "[::1]x:/d",
            "x[::1]:/d",
            "ssh://[::1/d",
            "ssh://[::1]22/d",
            "ssh://-oProxyCommand=x/d",
            ":/d",
            "@m:/d",
            "zope@:/d",
            "a b:/d",
            "a;b:/d",
            "a$b:/d",
            "a\\b:/d",
            "zope\\@m:/d",
            "zo pe@m:/d",
            "`id`@m:/d",
            "$(id)@m:/d",
            "m\n:/d",
            "m:relative",
            "m:~/d",
            "m:",
            "ssh://m",
            "ssh://m:22",
            "ssh://m:x/d",
            "ssh://m:0/d",
            "ssh://m:99999/d",
            "ssh://m::22/d",
            "ssh://zope:secret@m/d",
            "ssh:///d",
            "ssh://:22/d",
        ] {
            assert!(parse(text.as_ref()).is_err(), "{text}");
        }
    }
}
