//! Blob directories that are wrong, shared, not mounted, or those of a ZEO client.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::site::Site;
use crate::faults::Mount;
use crate::support::{Run, Setup, Transport, blobs_beside, must, names, run, strace};

/// A first pass with this option must end with this code. No transaction becomes visible, and the
/// blobs of both sides stay as they are.
#[track_caller]
fn refused(site: &mut Site, option: &str, directory: &Path, code: i32) -> Run {
    let (loaded, keys) = (site.load(false), site.slave_keys());
    let directory = directory.to_str().unwrap();
    let run = site.scene.pass(&[option, directory]).expect(code);
    let log = fs::read(&site.scene.slave).unwrap_or_default();
    assert!(log.is_empty() || log == b"FS30", "{run:?}");
    assert_eq!(site.load(false), loaded, "{run:?}");
    assert_eq!(site.slave_keys(), keys, "{run:?}");
    run
}

#[test]
fn the_blob_directory_of_another_site_is_refused() {
    for transport in Transport::BOTH {
        let other = Site::bushy(Setup::FileStorage, transport);
        let mut site = Site::bushy(Setup::FileStorage, transport);
        site.commit("m", &json!({"blobs": 20}));
        let theirs = blobs_beside(&other.scene.master);
        let run = refused(&mut site, "--master-blobs", &theirs, 2);
        assert!(run.stderr.contains("none of the first 20 blobs"), "{run:?}");
        assert!(run.stderr.contains("--master-blobs"), "{run:?}");
        site.pass(&[]);
    }
}

#[test]
fn one_directory_for_both_is_refused() {
    for transport in Transport::BOTH {
        let mut site = Site::bushy(Setup::FileStorage, transport);
        site.commit("m", &json!({"blobs": 3}));
        let shared = blobs_beside(&site.scene.master);
        let link = site.scene.directory.path().join("link");
        symlink(&shared, &link).unwrap();
        let before = names(&shared);
        for directory in [&shared, &link] {
            let run = refused(&mut site, "--slave-blobs", directory, 2);
            assert!(run.stderr.contains("--slave-blobs"), "{run:?}");
            assert_eq!(names(&shared), before, "nothing is left there");
        }
        site.pass(&[]);
    }
}

/// Otherwise, blobs would get into the other usual directory, or into the master's own.
#[test]
fn a_directory_that_cannot_be_examined_is_not_missing() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    site.commit("m", &json!({"blobs": 3}));
    let usual = blobs_beside(&site.scene.slave);
    let other = usual.with_file_name("blobs");
    fs::create_dir(&other).unwrap();
    let named = usual.to_str().unwrap();
    for options in [&[] as &[&str], &["--slave-blobs", named]] {
        let inject = ["-e", "inject=statx:error=EIO:when=1"];
        let command = strace(&inject, std::slice::from_ref(&usual));
        let run = run(&mut site.scene.command_by(command, options)).expect(1);
        let why = format!("cannot stat {named}: Input/output error");
        assert!(run.stderr.contains(&why), "{run:?}");
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    }
    fs::remove_dir(&other).unwrap();
    site.pass(&[]);
}

#[test]
fn an_unmounted_directory_stays_empty_until_it_is_mounted_again() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    let blobs = blobs_beside(&site.scene.slave);
    let disk = tempfile::tempdir().expect("a temporary directory");
    let mount = || Mount::new(&["--bind", disk.path().to_str().unwrap()], &blobs);
    fs::remove_file(blobs.join(".layout")).unwrap();
    let mounted = mount();
    site.commit("m", &json!({"blobs": 3}));
    site.pass(&[]);
    let log = fs::read(&site.scene.slave).unwrap();
    drop(mounted);
    site.commit("m", &json!({"blobs": 2}));
    for options in [&[] as &[&str], &["--full"], &["--timeout", "20"]] {
        let run = site.scene.pass(options).expect(1);
        assert!(run.stderr.contains("is its disk mounted?"), "{run:?}");
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);
        assert!(fs::read(&site.scene.slave).unwrap() == log);
    }
    let _mounted = mount();
    assert_eq!(site.pass(&[])["blobs"], 2);
}

#[test]
fn the_cache_of_a_zeo_client_is_refused_on_either_side() {
    for transport in Transport::BOTH {
        let mut site = Site::bushy(Setup::FileStorage, transport);
        site.commit("m", &json!({"blobs": 3}));
        let cache = site.scene.directory.path().join("cache");
        must(
            Command::new("cp")
                .args(["-r"])
                .args([&blobs_beside(&site.scene.master), &cache]),
        );
        fs::write(cache.join(".layout"), "zeocache").unwrap();
        for option in ["--master-blobs", "--slave-blobs"] {
            let run = refused(&mut site, option, &cache, 2);
            assert!(run.stderr.contains("zeocache"), "{run:?}");
            assert!(!site.scene.slave.exists(), "no slave is created");
        }
        assert!(!cache.join(".fssync").exists());
        site.pass(&[]);
    }
}
