//! Any words as a command line: they are refused, or have their documented meaning.
//!
//! Words are separated by NUL, which no word can contain.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fssync::source::location::{self, Location, ServedBlobs};

#[allow(dead_code, reason = "the program uses the rest")]
#[path = "../../src/cli/args.rs"]
mod args;

use args::{Args, ConnectionArgs, Verb};

/// Parses a command line.
///
/// # Panics
///
/// If the result does not follow from the arguments.
pub fn run(input: &[u8]) {
    let words = input.split(|&byte| byte == 0).map(OsStr::from_bytes);
    let Ok(args) = Args::try_parse_from([OsStr::new("fssync")].into_iter().chain(words)) else {
        return;
    };
    let (master, connection) = match &args.verb {
        None => {
            // Without both paths, the storages are those of a configuration file.
            assert_eq!(args.master.is_some(), args.slave.is_some());
            let name = args.master.as_deref().and_then(OsStr::to_str);
            assert!(!name.is_some_and(Verb::has_subcommand));
            let names_site = args.site.config.is_some() || !args.site.storage.is_empty();
            assert!(!(names_site && args.slave.is_some()));
            assert!(!(args.watch && (args.extent.full || args.extent.whole || args.dry_run)));
            let is_long = |interval| interval >= Duration::from_millis(10);
            assert!(args.interval.is_none_or(is_long));
            (args.master.as_deref(), &args.connection)
        }
        Some(Verb::Status(asked)) => (asked.against.as_deref(), &asked.connection),
        Some(Verb::Verify(asked)) => (asked.against.as_deref(), &asked.connection),
        Some(Verb::Doctor(asked)) => {
            assert_eq!(asked.master.is_some(), asked.slave.is_some());
            (asked.master.as_deref(), &asked.connection)
        }
        Some(Verb::Serve { paths, .. }) => return assert!(!paths.is_empty()),
        Some(Verb::Off { .. } | Verb::On { .. } | Verb::Config(_)) => return,
    };
    assert!(connection.timeout.is_none_or(|timeout| !timeout.is_zero()));
    if let Some(master) = master {
        locate(master, connection);
    }
}

/// Locates the master: on a path, exactly as given, or on another machine. That machine gets
/// the path as given, and runs nothing but fssync. A URL is one of ssh.
fn locate(master: &OsStr, connection: &ConnectionArgs) {
    let typed = master.as_bytes();
    let remote = match location::parse(master) {
        Err(_) => return,
        Ok(Location::Path(path)) => {
            assert_eq!(path.as_os_str(), master);
            let colon = typed.iter().position(|&byte| byte == b':');
            let slash = typed.iter().position(|&byte| byte == b'/');
            let is_local = colon.is_none() || slash.is_some() && slash < colon;
            assert!(is_local || str::from_utf8(typed).is_err());
            return;
        }
        Ok(Location::Remote(remote)) => remote,
    };
    // In `scheme://…`, the scheme is not a host.
    let scheme = str::from_utf8(typed).expect("UTF-8").split_once("://");
    let is_scheme = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
    };
    if let Some((scheme, _)) = scheme
        && is_scheme(scheme)
    {
        assert!(scheme.eq_ignore_ascii_case("ssh"), "{scheme}");
    }
    let served = ServedBlobs::At("/data/it's b");
    let rsh = connection.rsh.as_deref().unwrap_or("ssh");
    let remote_fssync = connection.remote_fssync.as_deref().unwrap_or("fssync");
    let Ok(target) = remote.target(rsh, remote_fssync, served) else {
        return;
    };
    assert!(target.path.starts_with('/') && typed.ends_with(target.path.as_bytes()));
    let (host, options) = target.program.split_last().expect("a host");
    // ssh takes everything up to the last @ as the user's name.
    let name = host.rsplit_once('@').map_or(&**host, |(_, name)| name);
    let is_option = host.starts_with('-') || name.starts_with('-');
    assert!(!is_option && !name.is_empty(), "{host}");
    assert!(!host.contains(|c: char| c.is_whitespace() || "$`;&|<>'\"".contains(c)));
    // A user's name may contain a backslash, as after a domain, but not at its end.
    let user = host
        .strip_suffix(name)
        .and_then(|user| user.strip_suffix('@'));
    assert!(!name.contains('\\') && !user.is_some_and(|user| user.ends_with('\\')));
    let rsh = shlex::split(rsh).expect("words");
    assert!(!rsh.is_empty() && options.starts_with(&rsh));
    // The words that the remote shell passes to the program.
    let arguments = target.command.strip_prefix(remote_fssync);
    let words = shlex::split(arguments.expect("the program's name")).expect("words");
    assert_eq!(words, ["serve", "--", &target.path, "/data/it's b"]);
}

/// Valid command lines, and malicious ones.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let lines: [&[&str]; 23] = [
        &["/master", "/slave"],
        &["--full", "-q", "/master/Data.fs", "slave"],
        &["--watch", "--interval", "0.5", "m:/d", "s"],
        &["-n", "--json", "zope@m.example:/d x/Data.fs", "s"],
        &["ssh://zope@m:2222/d", "s", "--progress", "always"],
        &["ssh://[::1]:22/d", "s", "-vv"],
        &["zope@[fe80::1%eth0]:/d", "s"],
        &["DOM\\user+tag@m:/d", "s"],
        &[
            "-e",
            "ssh -o 'A B' -p 22",
            "--remote-fssync",
            "/opt/f",
            "m:/d",
            "s",
        ],
        &["--timeout", "1e3", "--log-format=json", "m:/a'b", "s"],
        &["-oProxyCommand=x:/d", "s"],
        &["--", "-m:/d", "s"],
        &["zope@-oProxyCommand=x:/d", "s"],
        &["off", "--status-file", "f", "s"],
        &["off", "--config", "f", "--storage", "site", "--storage=b"],
        &["--storage", "site", "--watch"],
        &["config", "check", "--print"],
        &["-v", "off", "s"],
        &["on", "--force", "s"],
        &["status", "--against", "m:/d;x", "--json", "s"],
        &[
            "verify",
            "--orphans",
            "s",
            "--against",
            "ssh://m/$(x)",
            "--master-blobs",
            "b",
        ],
        &["serve", "--blobs", "/data0", "/data1"],
        &["https://m/d", "s"],
    ];
    let joined = lines.iter().map(|words| words.join("\0").into_bytes());
    let latin: OsString = OsStr::from_bytes(b"m\xe9:/d\0s").to_owned();
    joined.chain([latin.as_bytes().to_vec()]).collect()
}
