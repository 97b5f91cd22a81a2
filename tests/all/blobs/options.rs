//! Passes with and without `--blobs`, in all orders.

use std::fs;

use serde_json::json;

use super::site::Site;
use crate::support::{Setup, Transport, run};

#[test]
fn a_pass_without_a_decision_is_refused() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    site.commit("m", &json!({"blobs": 2}));
    site.pass(&[]);
    site.commit("m", &json!({"blobs": 1}));
    let (log, keys) = (fs::read(&site.scene.slave).unwrap(), site.slave_keys());
    site.scene.has_blobs = false;
    let refused = |site: &Site| {
        let refused = site.scene.pass(&[]).expect(2);
        let message = "give --blobs, or --no-blobs to copy only the log";
        assert!(refused.stderr.contains(message), "{refused:?}");
        site.scene.pass(&["--full"]).expect(2);
        assert!(fs::read(&site.scene.slave).unwrap() == log);
        assert_eq!(site.slave_keys(), keys);
    };
    refused(&site);
    // The blob directory shows it too.
    fs::remove_file(site.scene.beside(".fssync")).unwrap();
    refused(&site);
    site.scene.has_blobs = true;
    assert_eq!(site.pass(&[])["blobs"], 1);
}

/// Passes copy only the log for some time. The next pass with `--blobs` fetches the rest.
fn close_the_gap(setup: Setup, transport: Transport) {
    let mut site = Site::bushy(setup, transport);
    site.commit("m", &json!({"blobs": 2}));
    site.pass(&[]);
    site.scene.has_blobs = false;
    site.commit("m", &json!({"blobs": 3}));
    site.scene.pass(&["--no-blobs"]).expect(0);
    // Now nobody has to repeat the decision.
    site.commit("m", &json!({"changes": 1, "blobs": 1}));
    site.scene.pass(&[]).expect(0);
    assert_eq!(site.load(true)["missing"].as_array().unwrap().len(), 5);
    let status = run(&mut site.scene.status(&["--json"])).report();
    assert_eq!(status["blobs_replicated"], false, "{status}");

    site.scene.has_blobs = true;
    site.commit("m", &json!({"blobs": 2}));
    let report = site.pass(&[]);
    assert_eq!(report["blobs"], 7, "{report}");
    assert_eq!(site.assert_nothing_missing(), 9);
    let status = run(&mut site.scene.status(&["--json"])).expect(0).report();
    assert_eq!(status["blobs_complete"], true, "{status}");
    assert_eq!(site.pass(&[])["blobs"], 0);
}

#[test]
fn blobs_of_a_time_without_them_are_fetched_later() {
    close_the_gap(Setup::FileStorage, Transport::Path);
}

#[test]
fn blobs_of_a_time_without_them_are_fetched_later_through_ssh() {
    close_the_gap(Setup::Proxy, Transport::Ssh);
}

#[test]
fn a_pack_during_a_time_without_blobs_is_followed() {
    let mut site = Site::bushy(Setup::FileStorage, Transport::Path);
    site.commit("m", &json!({"blobs": 4}));
    site.pass(&[]);
    site.scene.has_blobs = false;
    site.commit("m", &json!({"changes": 2, "blobs": 2}));
    site.call(&json!({"cmd": "pack", "name": "m"}));
    site.commit("m", &json!({"blobs": 1}));
    site.scene.pass(&["--no-blobs"]).expect(0);
    site.scene.has_blobs = true;
    site.commit("m", &json!({"blobs": 1}));
    assert_eq!(site.pass(&[])["blobs"], 6);
    assert!(site.slave_keys().is_superset(&site.master_keys()));
}

#[test]
fn a_slave_that_has_only_the_log_gets_its_blobs() {
    for transport in Transport::BOTH {
        let mut site = Site::bushy(Setup::FileStorage, transport);
        site.scene.has_blobs = false;
        site.commit("m", &json!({"blobs": 5, "blob_size": 20_000}));
        site.call(&json!({"cmd": "undo", "name": "m"}));
        site.call(&json!({"cmd": "undo", "name": "m"}));
        site.scene.pass(&[]).expect(0);
        site.scene.has_blobs = true;
        site.commit("m", &json!({"changes": 1}));
        let report = site.pass(&[]);
        assert_eq!(report["action"], "append", "{report}");
        assert_eq!(report["blobs"], site.master_keys().len(), "{report}");
        assert_eq!(site.slave_keys(), site.master_keys());
    }
}
