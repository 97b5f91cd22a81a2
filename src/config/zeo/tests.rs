use std::fs;

use super::*;
use crate::config::{BlobMode, Site};

const ZEO_CONF: &str = "
    %define INSTANCE /srv/plone
    %define var $instance/var
    %import some.package
    # <filestorage commented>
    <zeo>
      address 127.0.0.1:8100
      read-only false
    </zeo>
    <filestorage 1>
      PATH ${var}/filestorage/Data.fs
      blob-dir $VAR/blobstorage
    </filestorage>
    <BlobStorage Catalog>
      blob-dir $(CARGO_PKG_NAME)/../../x
    </BlobStorage>
    %include more.conf
    <eventlog/>
";

/// The file that is made from these files.
fn made(zeo_conf: &str, more: &str) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.conf");
    fs::write(directory.path().join("more.conf"), more).unwrap();
    fs::write(&path, zeo_conf).unwrap();
    let prefix = format!("{}/", directory.path().display());
    from_zeo(&path, "zope@first:").map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn a_storage_is_made_for_each_storage_of_the_server() {
    let zeo_conf = ZEO_CONF.replace(
        "blob-dir $(CARGO_PKG_NAME)/../../x\n",
        "blob-dir /srv/$(CARGO_PKG_NAME)/$$\n<filestorage>\npath /srv/c.fs\n</filestorage>\n",
    );
    let more = "<zlibstorage My.Zip>\n<filestorage>\npath $var/zip.fs\n</filestorage>\n\
                </zlibstorage>\n";
    let text = made(&zeo_conf, more).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fssync.toml");
    fs::write(&path, &text).unwrap();
    let site = Site::load(&path).unwrap_or_else(|error| panic!("{error}: {text}"));
    let found: Vec<_> = site
        .storages
        .iter()
        .map(|it| {
            let blobs = match &it.storage.blobs {
                BlobMode::On(blobs) => blobs.slave.clone(),
                BlobMode::Off => None,
                BlobMode::Unset => panic!("{it:?}"),
            };
            let master = it.storage.master_name();
            (it.name.as_str(), master, it.storage.slave_name(), blobs)
        })
        .collect();
    let expected = [
        (
            "1",
            "/srv/plone/var/filestorage/Data.fs",
            Some("/srv/plone/var/blobstorage"),
        ),
        ("catalog", "/srv/c.fs", Some("/srv/fssync/$")),
        ("my-zip", "/srv/plone/var/zip.fs", None),
    ]
    .map(|(name, path, blobs)| {
        let master = format!("zope@first:{path}");
        (name, master, path.to_owned(), blobs.map(Into::into))
    });
    assert_eq!(found, expected, "{text}");
}

#[test]
fn a_configuration_that_could_not_be_loaded_is_not_made() {
    let storage = |n: u32| format!("<filestorage {n}>\npath ${{a}}/{n}\n</filestorage>\n");
    let define = format!("%define a /{}\n", "x".repeat(30_000));
    let with = |count| define.clone() + &(0..count).map(storage).collect::<String>();
    made(&with(10), "").unwrap();
    let message = made(&with(20), "").unwrap_err();
    assert!(message.starts_with("zeo.conf: is too long"), "{message}");
}

#[test]
fn a_prefix_that_cannot_be_that_of_a_master_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.conf");
    fs::write(&path, "<filestorage>\npath /d\n</filestorage>\n").unwrap();
    for (master, expected) in [
        ("first", "first is neither a host nor an absolute path"),
        ("./first", "./first is neither a host"),
        ("a b:", "names no valid host"),
        ("", "the master and the slave of storage 1 are the same"),
    ] {
        let message = from_zeo(&path, master).unwrap_err().to_string();
        assert!(message.contains(expected), "{master}: {message}");
    }
    for master in ["zope@first:", "ssh://first:22", "/mnt/first"] {
        let text = from_zeo(&path, master).unwrap();
        assert!(text.contains(&format!("master = \"{master}/d\"")), "{text}");
    }
}

#[test]
fn a_file_that_zconfig_would_refuse_is_refused() {
    let one = "<filestorage 1>\npath /d\n</filestorage>\n";
    for (text, expected) in [
        ("", "zeo.conf: contains neither"),
        ("<zeo>\n</zeo>\n", "zeo.conf: contains neither"),
        (
            "<filestorage 1>\npath /d\n",
            "zeo.conf, line 1: section <filestorage> is not ended",
        ),
        (
            "<filestorage 1>\n</zeo>\n",
            "zeo.conf, line 2: this does not end",
        ),
        ("</zeo>\n", "zeo.conf, line 1: this does not end"),
        (
            "<filestorage 1\n",
            "zeo.conf, line 1: not the start of a section",
        ),
        (
            "<filestorage a b>\n",
            "zeo.conf, line 1: not the start of a section",
        ),
        ("<>\n", "zeo.conf, line 1: not the start of a section"),
        ("(x) y\n", "zeo.conf, line 1: not a key"),
        (
            "%define 1a b\n",
            "zeo.conf, line 1: 1a is not the name of a variable",
        ),
        ("%define\n", "zeo.conf, line 1: %define has no argument"),
        ("%frob x\n", "zeo.conf, line 1: %frob is not a directive"),
        ("%include zeo.conf\n", "zeo.conf: too many files"),
        ("%include none.conf\n", "none.conf: No such file"),
        (
            "%include http://x/y\n",
            "zeo.conf, line 1: cannot include http://x/y",
        ),
        ("a $b\n", "zeo.conf, line 1: the variable b is not defined"),
        (
            "a $(FSSYNC_UNSET_)\n",
            "zeo.conf, line 1: the environment variable FSSYNC_UNSET_",
        ),
        ("a $(b\n", "zeo.conf, line 1: the environment variable b"),
        ("a $\n", "zeo.conf, line 1: a dollar sign"),
        (
            "<filestorage>\n</filestorage>\n",
            "zeo.conf, line 1: <filestorage> has no path",
        ),
        (
            "<filestorage>\npath var/d\n</filestorage>\n",
            "zeo.conf, line 1: path var/d is not",
        ),
        (
            &one.repeat(2),
            "zeo.conf, line 4: storage 1 exists already, in zeo.conf, line 1",
        ),
        (
            &format!("{one}{}", one.replace(" 1>", " 2>")),
            "zeo.conf, line 4: storages 1 and 2 have the same slave, /d",
        ),
        (
            &one.replace("/d", "/\0"),
            "zeo.conf, line 1: the value contains a NUL character",
        ),
        (
            &format!("<demostorage>\n{one}{one}</demostorage>\n"),
            "zeo.conf, line 1: <demostorage>",
        ),
        (&"<a>\n".repeat(1000), "zeo.conf, line 21: too many nested"),
        (
            &one.replace(" 1>", " é>"),
            "zeo.conf, line 1: \"\" is not the name",
        ),
    ] {
        let message = made(text, "").unwrap_err();
        assert!(message.starts_with(expected), "{text}: {message}");
    }
}
