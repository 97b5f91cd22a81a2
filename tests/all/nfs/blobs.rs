//! Blobs of a master that is on real NFS.

use serde_json::json;

use super::VERSIONS;
use crate::guest::Site;

/// Each version of NFS, with one of ZODB's layouts.
const CASES: [(&str, &str); 2] = [(VERSIONS[0], "bushy"), (VERSIONS[1], "lawn")];

/// The user of ZEO.
const USER: &str = "1000";

/// A site with blobs, and a slave that has them.
fn synced((version, layout): (&str, &str)) -> Site {
    let mut site = Site::with_blobs(version, layout);
    let first = site.pass(&["--blobs"]).expect(0).report();
    assert_eq!(first["blobs"], 3, "{first}");
    site.assert_in_sync_with_blobs();
    site
}

/// Commits a blob, and moves its directory away. Returns the directory's path and where it is.
fn hidden_blob(site: &mut Site) -> (String, String) {
    let list = json!({"cmd": "blob_files", "blob_directory": site.blobs()});
    let before = site.call(&list)["files"].clone();
    site.commit_blobs(1);
    let after = site.call(&list)["files"].clone();
    let mut new = after.as_object().expect("files").iter();
    let (_, path) = new
        .find(|(key, _)| before.get(key).is_none())
        .expect("a new blob");
    let path = path.as_str().expect("a path");
    let (directory, _) = path.rsplit_once('/').expect("its directory");
    let away = format!("{}/away", site.directory);
    site.must(&["mv", directory, &away]);
    (directory.to_owned(), away)
}

pub(super) fn blobs_are_replicated_with_their_transactions() {
    for case in CASES {
        let mut site = synced(case);
        for command in [
            json!({"cmd": "commit", "name": "m", "blobs": 2, "changes": 2, "blob_size": 300_000}),
            json!({"cmd": "undo", "name": "m"}),
            json!({"cmd": "random", "name": "m", "count": 6, "pack": true}),
            json!({"cmd": "pack", "name": "m", "keep": 1}),
        ] {
            site.call(&command);
            site.pass(&["--blobs"]).expect(0);
            site.assert_in_sync_with_blobs();
        }
        site.start("watch", &["--watch", "--blobs", "--interval", "0.5"]);
        for _ in 0..2 {
            site.commit_blobs(2);
            site.await_sync();
            site.assert_blobs();
        }
        site.call(&json!({"cmd": "signal", "program": "watch", "name": "SIGTERM"}));
        site.end_of("watch").expect(0);
    }
}

pub(super) fn a_blob_in_a_directory_that_was_missing_is_found_at_once() {
    for case in CASES {
        let mut site = synced(case);
        for _ in 0..2 {
            let mounted = format!("{}/blobs", site.mounted);
            site.call(&json!({"cmd": "miss_next_blob", "name": "m", "mounted": mounted}));
            site.commit_blobs(1);
            let report = site.pass(&["--blobs"]).expect(0).report();
            assert_eq!(report["blobs"], 1, "{report}");
            assert_eq!(report["blobs_absent"], 0, "{report}");
            site.assert_in_sync_with_blobs();
        }
    }
}

pub(super) fn a_blob_that_appears_within_a_second_is_found() {
    for case in CASES {
        let mut site = synced(case);
        let (directory, away) = hidden_blob(&mut site);
        let trace = site.slave.replace("Data.fs", "trace");
        let pass = site.command(&["--blobs", "--json"]);
        // Each wait is longer, so that a slow machine does not miss the last one.
        let slowly = "inject=clock_nanosleep:delay_exit=500000";
        let calls = "trace=openat2,clock_nanosleep";
        let mut traced = vec![
            "strace", "-f", "-qq", "-o", &trace, "-e", calls, "-e", slowly,
        ];
        traced.extend(pass.iter().map(String::as_str));
        site.call(&json!({"cmd": "start", "program": "pass", "arguments": traced}));
        site.call(
            &json!({"cmd": "move_after_miss", "path": away, "to": directory,
            "trace": trace}),
        );
        let pass = site.end_of("pass").expect(0);
        let report = pass.report();
        assert_eq!(report["blobs"], 1, "{report}");
        assert_eq!(report["blobs_absent"], 0, "{report}");
        assert!(!pass.stderr.contains("lacks"), "{pass:?}");
        site.assert_in_sync_with_blobs();
    }
}

pub(super) fn a_blob_that_the_master_lacks_is_counted() {
    for case in CASES {
        let mut site = synced(case);
        let (directory, away) = hidden_blob(&mut site);
        let pass = site.pass(&["--blobs"]).expect(0);
        let report = pass.report();
        assert_eq!(report["blobs"], 0, "{report}");
        assert_eq!(report["blobs_absent"], 1, "{report}");
        assert!(pass.stderr.contains("the master lacks 1 blob"), "{pass:?}");
        site.assert_in_sync();
        // The client remembers that it is missing.
        site.must(&["mv", &away, &directory]);
        site.pass(&["--blobs", "--recheck-blobs"]).expect(0);
        site.assert_in_sync_with_blobs();
    }
}

/// The server treats root on the client as nobody (`root_squash`).
pub(super) fn blobs_that_only_the_user_of_zeo_may_read() {
    for case in CASES {
        let mut site = synced(case);
        site.commit_blobs(1);
        let blobs = site.blobs();
        site.must(&["chown", "-R", USER, &blobs]);
        for (kind, mode) in [("f", "0400"), ("d", "0700")] {
            site.must(&[
                "find", &blobs, "-type", kind, "-exec", "chmod", mode, "{}", "+",
            ]);
            let pass = site.pass(&["--blobs"]).expect(12);
            assert!(pass.stderr.contains("permission"), "{pass:?}");
            let hint = "read the master as the user that runs its ZEO server";
            assert!(pass.stderr.contains(hint), "{pass:?}");
            site.assert_prefix();
            site.assert_blobs();
        }
        let slave = site.slave.trim_end_matches("/Data.fs").to_owned();
        site.must(&["chown", "-R", USER, &slave]);
        let mut command = vec!["setpriv", "--reuid", USER, "--clear-groups"];
        let pass = site.command(&["--blobs"]);
        command.extend(pass.iter().map(String::as_str));
        site.must(&command);
        site.assert_in_sync_with_blobs();
    }
}
