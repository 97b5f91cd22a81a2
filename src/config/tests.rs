//! Configuration files, valid and invalid ones.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::error::Error;
use crate::plan::outcome::Exit;

/// A directory for configuration files and slaves.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for name in ["a", "b", "conf.d"] {
            fs::create_dir(files.at(name)).unwrap();
        }
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `fssync.toml`, and loads it.
    fn load(&self, text: &str) -> Result<Site, Error> {
        let path = self.at("fssync.toml");
        fs::write(&path, text).unwrap();
        Site::load(&path)
    }

    /// The message of the error that a text causes, without the path of the file.
    #[track_caller]
    fn refusal(&self, text: &str) -> String {
        let error = self.load(text).expect_err(text);
        assert_eq!(error.exit(), Exit::Usage, "{error}");
        let message = error.to_string();
        let path = format!("{}: ", self.at("fssync.toml").display());
        let rest = message.strip_prefix(&path);
        rest.unwrap_or_else(|| panic!("{message}")).to_owned()
    }
}

const WHOLE: &str = r#"
include = ["conf.d/*.toml"]
[defaults]
timeout = 50
rsh = "ssh -i ${CARGO_PKG_NAME}"
blobs = false
[storage.site]
master = "zope@first:/srv/filestorage"
slave = "a"
timeout = 5.5
interval = 0.5
remote-fssync = "/opt/fssync"
status-file = "/run/$$x"
blobs = { master = "/srv/blobs", slave = "blobs" }
keep-packed = 1
[storage.catalog]
master = "m/catalog.fs"
slave = "a/catalog.fs"
blobs = true
[metrics]
textfile = "out.prom"
[[hook]]
on = ["diverged", "in-sync"]
command = ["mail", "$$PATH"]
after = 300
repeat = 3600
[[hook]]
on = ["failing", "in-use"]
command = ["true"]
timeout = 1
[[ping]]
url = "https://example.org/${CARGO_PKG_NAME}"
style = "uptime-kuma"
every = 30
"#;

#[test]
fn every_key_has_its_meaning() {
    let files = Files::new();
    let included = "[storage.b]\nmaster = 'h:/b'\nslave = '../b'\n";
    fs::write(files.at("conf.d/b.toml"), included).unwrap();
    fs::write(files.at("conf.d/.b.toml.swp"), "not read").unwrap();
    let site = files.load(WHOLE).unwrap();
    let names: Vec<_> = site.storages.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["site", "catalog", "b"]);
    let [first, catalog, b] = &site.storages[..] else {
        panic!("{site:?}");
    };
    let seconds = Duration::from_secs_f64;
    let storage = &first.storage;
    let master = storage.master.as_ref().unwrap();
    assert_eq!(master.location, "zope@first:/srv/filestorage");
    assert_eq!(storage.slave, files.at("a"));
    assert_eq!(
        (master.timeout, storage.interval),
        (seconds(5.5), seconds(0.5))
    );
    assert_eq!(
        (&*master.rsh, &*master.remote_fssync),
        ("ssh -i fssync", "/opt/fssync")
    );
    assert_eq!(storage.status_file, Some(PathBuf::from("/run/$x")));
    assert_eq!(master.blob_directory.as_deref(), Some("/srv/blobs"));
    let BlobMode::On(blobs) = &storage.blobs else {
        panic!("{storage:?}");
    };
    assert_eq!(blobs.slave, Some(files.at("blobs")));
    assert_eq!(blobs.keep_packed, seconds(86_400.0));
    let master = catalog.storage.master.as_ref().unwrap();
    assert_eq!(
        master.location,
        files.at("m/catalog.fs"),
        "relative to the file"
    );
    assert_eq!(master.timeout, seconds(50.0), "a default");
    assert!(master.reads_blobs);
    assert_eq!(b.storage.slave, files.at("conf.d/../b"));
    assert_eq!(b.storage.blobs, BlobMode::Off);
    assert_eq!(b.storage.interval, DEFAULT_INTERVAL, "built in");
    let textfile = site.metrics.as_ref().unwrap().textfile.clone();
    assert_eq!(textfile, files.at("out.prom"));
    let [mail, other] = &site.hooks[..] else {
        panic!("{site:?}");
    };
    assert_eq!(mail.on, [Event::Diverged, Event::InSync]);
    assert_eq!(mail.command, ["mail", "$PATH"]);
    assert_eq!(
        (mail.after, mail.repeat),
        (seconds(300.0), Some(seconds(3600.0)))
    );
    assert_eq!(mail.timeout, seconds(30.0));
    assert_eq!(
        (other.after, other.repeat, other.timeout),
        (seconds(0.0), None, seconds(1.0))
    );
    assert_eq!(site.pings[0].url, "https://example.org/fssync");
    assert_eq!(
        (site.pings[0].style, site.pings[0].every),
        (PingStyle::UptimeKuma, seconds(30.0))
    );
}

#[test]
fn the_printed_file_gives_the_same_configuration() {
    let files = Files::new();
    let included = "[storage.b]\nmaster = '/m'\nslave = '../b'\n";
    fs::write(files.at("conf.d/b.toml"), included).unwrap();
    let site = files.load(WHOLE).unwrap();
    let text = site.to_toml();
    let again = files
        .load(&text)
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(format!("{again:?}"), format!("{site:?}"), "{text}");
    assert_eq!(again.to_toml(), text);
}

#[test]
fn options_of_the_command_line_come_first() {
    let files = Files::new();
    files.load(WHOLE).unwrap();
    let upper = StorageOptions {
        timeout: Some(Duration::from_secs(1)),
        blobs: Some(false),
        ..StorageOptions::default()
    };
    let site = Site::load_with(&files.at("fssync.toml"), &upper).unwrap();
    for NamedStorage { storage, .. } in &site.storages {
        let master = storage.master.as_ref().unwrap();
        assert_eq!(master.timeout, Duration::from_secs(1));
        assert_eq!(storage.blobs, BlobMode::Off);
    }
}

/// A section with this text.
fn storage(name: &str, master: &str, slave: &str) -> String {
    format!("[storage.{name}]\nmaster = '{master}'\nslave = '{slave}'\n")
}

/// Fails unless each text is refused with a message that contains the text beside it.
#[track_caller]
fn assert_refused(files: &Files, texts: &[(String, &str)]) {
    for (text, expected) in texts {
        let message = files.refusal(text);
        assert!(message.contains(expected), "{text}\n{message}\n{expected}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn an_invalid_storage_is_refused_with_the_place_of_the_mistake() {
    let files = Files::new();
    let one = storage("s", "m:/d", "a");
    let texts = [
        (
            String::new(),
            "contains no storage: expected at least one section",
        ),
        ("# nothing\n".to_owned(), "contains no storage"),
        (
            format!("{one}slaves = 1\n"),
            "line 4, column 1: unknown field `slaves`, expected one of `master`, `slave`",
        ),
        (
            format!("[storages]\n{one}"),
            "line 1, column 2: unknown field `storages`, expected one of",
        ),
        (
            "[storage.s]\nslave = 'a'\n".to_owned(),
            "line 1, column 1: storage s has no `master`: expected `master = \"...\"`",
        ),
        (
            "\n[storage.s]\nmaster = 'm:/d'\n".to_owned(),
            "line 2, column 1: storage s has no `slave`",
        ),
        (one[..one.len() - 3].to_owned(), "line 3, column "),
        (format!("{one}{one}"), "line 4, column "),
        (
            format!("{one}timeout = 'soon'"),
            "line 4, column 11: invalid type: string \"soon\", expected a number",
        ),
        (
            format!("{one}timeout = 0"),
            "line 4, column 11: must be a positive number of seconds",
        ),
        (
            format!("{one}timeout = nan"),
            "line 4, column 11: must be a positive",
        ),
        (
            format!("{one}interval = 0.001"),
            "line 4, column 12: must be a number of seconds from 0.01",
        ),
        (
            format!("{one}keep-packed = -1"),
            "line 4, column 15: must be a number of days",
        ),
        (
            format!("{one}rsh = '${{FSSYNC_UNSET_}}'"),
            "line 4, column 7: the environment variable FSSYNC_UNSET_ is not set",
        ),
        (
            format!("{one}rsh = '$HOME'"),
            "line 4, column 7: a dollar sign must be followed",
        ),
        (
            format!("{one}rsh = ''"),
            "line 4, column 7: the value is empty",
        ),
        (
            format!("{one}rsh = \"a\\u0000\""),
            "line 4, column 7: the value contains a NUL",
        ),
        (
            format!("{one}rsh = '\"'"),
            "line 2, column 10: \"\\\"\" is not a valid command line",
        ),
        (
            format!("{one}blobs = 1"),
            "expected true, false, or a table with `master` and `slave`",
        ),
        (
            format!("{one}blobs = {{ slaves = 'x' }}"),
            "line 4, column 11: unknown field `slaves`",
        ),
        (
            format!("[defaults]\nmaster = 'm:/d'\n{one}"),
            "line 2, column 10: expected no `master` and no `slave` in [defaults]",
        ),
        (
            storage("S", "m:/d", "a"),
            "line 1, column 10: \"S\" is not the name of a storage",
        ),
        (
            storage("s", "m:d", "a"),
            "line 2, column 10: \"m:d\" names no absolute path",
        ),
    ];
    assert_refused(&files, &texts);
}

#[test]
fn an_invalid_section_is_refused_with_the_place_of_the_mistake() {
    let files = Files::new();
    let one = storage("s", "m:/d", "a");
    let texts = [
        (
            format!("include = ['none.toml']\n{one}"),
            "line 1, column 12: there is no file none.toml",
        ),
        (
            format!("include = ['**/x.toml']\n{one}"),
            "line 1, column 12: `**` is not allowed",
        ),
        (format!("include = ['a[']\n{one}"), "line 1, column 12: "),
        (
            format!("{one}[[hook]]\non = ['sometimes']\ncommand = ['x']\n"),
            "line 5, column 7: unknown variant `sometimes`, expected one of `in-sync`",
        ),
        (
            format!("{one}[[hook]]\non = []\ncommand = ['x']\n"),
            "line 4, column 1: hook: `on` is empty",
        ),
        (
            format!("{one}[[hook]]\non = ['failing']\ncommand = []\n"),
            "line 4, column 1: hook: `command` is empty",
        ),
        (
            format!("{one}[[hook]]\non = ['failing']\n"),
            "missing field `command`",
        ),
        (
            format!("{one}[[ping]]\nurl = 'x'\nstyle = 'loud'\n"),
            "line 6, column 9: unknown variant `loud`",
        ),
        (format!("{one}[metrics]\n"), "missing field `textfile`"),
    ];
    assert_refused(&files, &texts);
}

#[test]
fn an_included_file_contains_only_storages_with_new_names() {
    let files = Files::new();
    let text = format!("include = ['conf.d/*.toml']\n{}", storage("s", "m:/d", "a"));
    assert_eq!(
        files.load(&text).unwrap().storages.len(),
        1,
        "no file matches"
    );
    let other = files.at("conf.d/x.toml");
    for (included, expected) in [
        (
            storage("s", "m:/e", "../b"),
            "line 1, column 1: storage s exists already, in ",
        ),
        (
            "include = []".to_owned(),
            "line 1, column 1: unknown field `include`, expected `storage`",
        ),
        (
            "[defaults]".to_owned(),
            "line 1, column 2: unknown field `defaults`",
        ),
        (
            storage("t", "m:/e", "../a"),
            "line 3, column 9: storages s and t have the same slave",
        ),
    ] {
        fs::write(&other, &included).unwrap();
        let message = files.load(&text).unwrap_err().to_string();
        let expected = format!("{}: {expected}", other.display());
        assert!(message.starts_with(&expected), "{message}\n{expected}");
    }
}

#[test]
fn two_storages_cannot_have_one_slave() {
    let files = Files::new();
    symlink("a", files.at("link")).unwrap();
    fs::write(files.at("a/x.fs"), "").unwrap();
    fs::hard_link(files.at("a/x.fs"), files.at("b/y.fs")).unwrap();
    for (one, other) in [
        ("a", "a"),
        ("a", "a/Data.fs"),
        ("a", "link"),
        ("link/z.fs", "a/z.fs"),
        ("a", "b/../a/."),
        ("link/new/z.fs", "a/new/z.fs"),
        ("missing", "missing/Data.fs"),
        ("a/x.fs", "b/y.fs"),
    ] {
        let text = storage("one", "m:/d", one) + &storage("two", "m:/e", other);
        let message = files.refusal(&text);
        let expected = "line 6, column 9: storages one and two have the same slave, ";
        assert!(message.starts_with(expected), "{one} {other}: {message}");
    }
    for (one, other) in [("a", "b"), ("a/x.fs", "a"), ("a/v.fs", "link/w.fs")] {
        let text = storage("one", "m:/d", one) + &storage("two", "m:/d", other);
        files.load(&text).unwrap();
    }
}

#[test]
fn storages_cannot_read_from_each_other_in_a_circle() {
    let files = Files::new();
    symlink("a", files.at("link")).unwrap();
    let chain = storage("one", "m:/d", "a") + &storage("two", "a", "b");
    files.load(&chain).unwrap();
    let two = storage("one", "b", "link/Data.fs") + &storage("two", "a", "b");
    let message = files.refusal(&two);
    assert!(message.contains("in a circle: one, two"), "{message}");
    let three = storage("x", "m:/d", "x.fs")
        + &storage("one", "c.fs", "a")
        + &storage("two", "a/Data.fs", "b")
        + &storage("three", "b", "c.fs");
    let message = files.refusal(&three);
    assert!(
        message.contains("in a circle: one, three, two"),
        "{message}"
    );
    let message = files.refusal(&storage("one", "link/../a", "a/Data.fs"));
    assert!(message.contains("are the same file"), "{message}");
}

#[test]
fn two_storages_cannot_have_one_blob_directory_or_one_within_the_other() {
    let files = Files::new();
    symlink("a", files.at("link")).unwrap();
    let with = |text: String, blobs: &str| format!("{text}blobs = {blobs}\n");
    let one = storage("one", "m:/d", "a");
    let two = storage("two", "m:/e", "a/two.fs");
    for (first, second) in [
        ("true", "true"),
        ("true", "{ slave = 'a/blobstorage' }"),
        ("{ slave = 'x' }", "{ slave = 'x' }"),
        ("{ slave = 'a/x' }", "{ slave = 'link/x', master = '/m' }"),
    ] {
        let text = with(one.clone(), first) + &with(two.clone(), second);
        let message = files.refusal(&text);
        let expected = "storages one and two have the same blob directory";
        assert!(message.contains(expected), "{first} {second}: {message}");
    }
    for (first, second) in [
        ("{ slave = 'x' }", "{ slave = 'x/y' }"),
        ("{ slave = 'x/y/../y' }", "{ slave = 'x' }"),
        ("true", "{ slave = 'link/blobstorage/z' }"),
    ] {
        let text = with(one.clone(), first) + &with(two.clone(), second);
        let message = files.refusal(&text);
        assert!(message.contains("one is within the other"), "{message}");
    }
    for (first, second) in [
        ("true", "false"),
        ("true", "{ slave = 'x' }"),
        ("{ slave = 'x' }", "{ slave = 'xy' }"),
    ] {
        let text = with(one.clone(), first) + &with(two.clone(), second);
        files.load(&text).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let files = Files::new();
    let path = files.at("fssync.toml");
    let refusal = |path: &PathBuf| {
        let error = Site::load(path).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        error.to_string()
    };
    assert!(refusal(&path).contains("No such file"));
    assert!(refusal(&files.at("a")).contains("is not a regular file"));
    fs::write(&path, b"# ok\n# \xff\n").unwrap();
    assert!(refusal(&path).contains("line 2: is not UTF-8"));
    fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(refusal(&path).contains("is larger than 1048576 bytes"));
    fs::write(&path, "a.".repeat(400_000)).unwrap();
    assert!(refusal(&path).contains("line 1, column"));
    fs::write(&path, "x = ".to_owned() + &"[".repeat(400_000)).unwrap();
    assert!(refusal(&path).contains("line 1, column"));
}

#[test]
fn storages_are_selected_by_name() {
    let files = Files::new();
    let text = storage("one", "m:/d", "a") + &storage("two", "m:/e", "b");
    let site = files.load(&text).unwrap();
    let select = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        let mut site = site.clone();
        site.select(&names).map(|()| site.storages.len())
    };
    assert_eq!(select(&[]).unwrap(), 2);
    assert_eq!(select(&["two"]).unwrap(), 1);
    assert_eq!(select(&["two", "one", "two"]).unwrap(), 2);
    let error = select(&["two", "three"]).unwrap_err().to_string();
    assert!(
        error.ends_with("has no storage three; it has one, two"),
        "{error}"
    );
}
