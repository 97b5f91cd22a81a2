//! Any text as a configuration file, or as a `zeo.conf` from which one is made: it is refused with
//! the file and the line, or has one meaning.
//!
//! The first byte is `T` for an `fssync.toml`, and `Z` for a `zeo.conf`. Two
//! [sections](super::input::section) follow: the file, and the file `more` beside it, which the
//! first one can include.

use std::fs;
use std::path::{Path, PathBuf};

use fssync::config::{Site, from_zeo};
use fssync::error::Error;

use super::input::{Input, section};
use super::scene::directory;

/// The master of a storage is this prefix and the path in the `zeo.conf`.
const MASTER: &str = "zope@first:";

/// What an error about a whole file starts with.
const ABOUT_WHOLE_FILES: [&str; 6] = [
    "contains no storage",
    "contains neither <filestorage> nor <blobstorage>",
    "is not a regular file",
    "too many files include each other",
    "is too long",
    "No such file",
];

/// Reads the files.
///
/// # Panics
///
/// If an error does not name its place, or if a configuration that is printed has another meaning.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.byte();
    let (Some(main), more) = (input.section(), input.section().unwrap_or_default()) else {
        return;
    };
    let directory = directory();
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    };
    write("more", more);
    match kind {
        Some(b'T') if includes_only_more(main) => load(&write("fssync.toml", main)),
        Some(b'Z') => make(&write("zeo.conf", main), directory.path()),
        _ => {}
    }
}

/// Whether a file includes only files in its directory. Other patterns can match any number of files
/// of this machine.
fn includes_only_more(main: &[u8]) -> bool {
    let text = str::from_utf8(main).unwrap_or_default();
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let patterns = table.get("include").and_then(toml::Value::as_array);
    let mut patterns = patterns.into_iter().flatten().map(toml::Value::as_str);
    patterns.all(|it| it.is_none_or(|it| !it.contains(['/', '$'])))
}

/// Loads a configuration, and the one that is printed for it.
fn load(path: &Path) {
    let site = match Site::load(path) {
        Ok(site) => site,
        Err(error) => return check_place(&error, path, true),
    };
    let printed = site.to_toml();
    fs::write(path, &printed).expect("the printed file");
    let again = Site::load(path).unwrap_or_else(|error| panic!("{error}: {printed}"));
    assert_eq!(format!("{again:?}"), format!("{site:?}"), "{printed}");
    assert_eq!(again.to_toml(), printed);
}

/// Makes a configuration from a `zeo.conf`, and loads it.
fn make(zeo_conf: &Path, directory: &Path) {
    let made = match from_zeo(zeo_conf, MASTER) {
        Ok(made) => made,
        Err(error) if includes_others(zeo_conf) => {
            usage(&error);
            return;
        }
        Err(error) => return check_place(&error, zeo_conf, false),
    };
    let path = directory.join("fssync.toml");
    fs::write(&path, &made).expect("the made file");
    let site = Site::load(&path).unwrap_or_else(|error| panic!("{error}: {made}"));
    for it in &site.storages {
        let slave = it.storage.slave_name();
        assert_eq!(it.storage.master_name(), format!("{MASTER}{slave}"));
    }
}

/// Whether a `zeo.conf`, or the file `more` beside it, includes a file with another name. The names
/// of files in messages are then arbitrary.
fn includes_others(zeo_conf: &Path) -> bool {
    let files = [zeo_conf.to_owned(), zeo_conf.with_file_name("more")];
    let texts = files.map(|it| fs::read(it).expect("the file"));
    let is_other = |line: &[u8]| {
        let has_include = line.windows(8).any(|it| it == b"%include");
        has_include && line.trim_ascii() != b"%include more"
    };
    let mut lines = texts.iter().flat_map(|it| it.split(|&byte| byte == b'\n'));
    lines.any(is_other)
}

/// The message of an error, which is about the configuration.
fn usage(error: &Error) -> &str {
    match error {
        Error::Usage(message) => message,
        _ => panic!("{error}"),
    }
}

/// Fails unless an error names a file, and a line that the file has. In TOML, it also names the
/// column.
fn check_place(error: &Error, main: &Path, is_toml: bool) {
    let message = usage(error);
    assert!(!message.contains('\n'), "{message:?}");
    let files = [main.to_owned(), main.with_file_name("more")];
    let named = |path: &PathBuf| {
        let rest = message.strip_prefix(&path.display().to_string())?;
        rest.strip_prefix(": ").or(rest.strip_prefix(", "))
    };
    let found = files.iter().find_map(|path| Some((path, named(path)?)));
    let (path, rest) = found.unwrap_or_else(|| panic!("{message}"));
    if ABOUT_WHOLE_FILES.iter().any(|it| rest.starts_with(it)) {
        return;
    }
    let place = rest
        .strip_prefix("line ")
        .and_then(|it| it.split_once(": "));
    let (place, why) = place.unwrap_or_else(|| panic!("{message}"));
    let (line, column) = match place.split_once(", column ") {
        Some((line, column)) => (line, Some(number(column))),
        None => (place, None),
    };
    let text = fs::read(path).expect("the file");
    let lines = text.split(|&byte| byte == b'\n').count();
    assert!((1..=lines).contains(&number(line)), "{message}");
    let has_column = column.is_some_and(|it| (1..=text.len() + 1).contains(&it));
    assert!(!is_toml || has_column || why == "is not UTF-8", "{message}");
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Files that use everything that is documented, and some with mistakes.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let page = include_str!("../../docs/configuration.md");
    let blocks = page.split("```toml\n").skip(1);
    let examples = blocks.filter_map(|it| it.split("```").next());
    let tomls = examples.chain(TOMLS);
    let tomls = tomls.map(|main| (b'T', main, "[storage.b]\nmaster = 'h:/b'\nslave = 'b'\n"));
    let zeos = ZEO_CONFS.map(|main| {
        (
            b'Z',
            main,
            "<filestorage m>\npath $v/m.fs\n</filestorage>\n",
        )
    });
    let seeds = tomls.chain(zeos);
    let bytes = |(kind, main, more): (u8, &str, &str)| {
        [
            &[kind],
            &section(main.as_bytes())[..],
            &section(more.as_bytes()),
        ]
        .concat()
    };
    seeds.map(bytes).collect()
}

const TOMLS: [&str; 4] = [
    r#"include = ["mor?"]
[defaults]
timeout = 50
rsh = "ssh -i ${HOME}"
blobs = false
[storage.site]
master = "zope@first:/srv/filestorage"
slave = "a"
interval = 0.5
remote-fssync = "/opt/fssync"
status-file = "/run/$$x"
blobs = { master = "/srv/blobs", slave = "blobs" }
keep-packed = 1
[storage.catalog]
master = "m/catalog.fs"
slave = "a/catalog.fs"
blobs = true
keep-packed = 0.3
[metrics]
textfile = "out.prom"
[[hook]]
on = ["diverged", "in-sync", "failing", "in-use", "unreachable", "master-damaged"]
command = ["mail", "$$PATH"]
after = 300
repeat = 3600.5
timeout = 1e1
[[ping]]
url = "https://example.org/${HOME}"
style = "uptime-kuma"
every = 30
"#,
    "[storage.a]\nmaster = 'b'\nslave = 'a'\n[storage.b]\nmaster = 'a'\nslave = 'b'\n",
    "[storage.a]\nmaster = 'h:/x'\nslave = 'a/Data.fs'\n[storage.b]\nmaster = 'h:/y'\nslave = 'a'\n",
    "storage.a = { master = \"h:/\\u00e4\", slave = '''a\nb''', }\nping = [{ url = 'x' }]\n",
];

const ZEO_CONFS: [&str; 4] = [
    // As zope.mkzeoinstance writes it.
    r"# ZEO configuration file
%define INSTANCE /srv/zeo

<zeo>
  address 8100
  read-only false
  invalidation-queue-size 100
  # monitor-address PORT
</zeo>

<filestorage 1>
  path $INSTANCE/var/Data.fs
</filestorage>

<eventlog>
  level info
  <logfile>
    path $INSTANCE/log/zeo.log
  </logfile>
</eventlog>

<runner>
  program $INSTANCE/bin/runzeo
  socket-name $INSTANCE/var/zeo.zdsock
  forever false
</runner>
",
    // As plone.recipe.zeoserver writes it.
    r"%define INSTANCE /srv/plone/parts/zeoserver
<blobstorage 1>
  blob-dir /srv/plone/var/blobstorage
  <filestorage 1>
    path /srv/plone/var/filestorage/Data.fs
  </filestorage>
</blobstorage>
<zlibstorage catalog>
  <filestorage>
    path /srv/plone/var/filestorage/$$catalog.fs
  </filestorage>
</zlibstorage>
",
    "%define V /srv\n%define w ${v}/$V\n%import x\n%include more\n<FileStorage A.b>\nPATH $w/$(HOME)\n</filestorage>\n<eventlog/>\n",
    "<filestorage 1>\npath /a\n</filestorage>\n<filestorage 2>\npath /a\nblob-dir /b\n</filestorage>\n",
];
