//! The ledger of digests, checked against the slave's bytes.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fssync::slave::ledger::{Ledger, LedgerEntry, SEGMENT_LEN};
use fssync::slave::paths::{OpenMode, SlavePaths};
use fssync::slave::sidecar::Sidecar;

use crate::support::{
    History, Scene, Transport, append_killed_at_sync, append_sparse, replace, rewrite_end, run,
    sparse_master, strace,
};

/// The ranges of the entries in a slave's ledger, each checked against the slave's bytes.
/// Empty if there is no ledger.
#[track_caller]
fn checked_entries(slave: &Path) -> Vec<Range<u64>> {
    let paths = SlavePaths::new(slave).expect("a slave");
    let data = File::open(slave).expect("the slave");
    let Some(ledger) = Ledger::open(&paths, &data, OpenMode::Read).expect("a ledger or none")
    else {
        return Vec::new();
    };
    let size = data.metadata().expect("its size").len();
    let entries = ledger
        .entries(size)
        .filter_map(|entry| entry.expect("read"));
    entries
        .map(|LedgerEntry { range, digest }| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            data.read_exact_at(&mut bytes, range.start)
                .unwrap_or_else(|error| panic!("{range:?} is not a range of the slave: {error}"));
            assert_eq!(
                *blake3::hash(&bytes).as_bytes(),
                *digest.as_bytes(),
                "{range:?}"
            );
            range
        })
        .collect()
}

/// Fails if an entry of the slave's ledger is wrong.
#[track_caller]
pub fn assert_right(slave: &Path) {
    checked_entries(slave);
}

/// Fails unless the ledger covers all bytes of a slave that ends with its last transaction,
/// with as few entries as expected. Returns the number of entries.
#[track_caller]
pub fn assert_whole(slave: &Path) -> usize {
    let entries = checked_entries(slave);
    let len = fs::metadata(slave).expect("the slave").len();
    let mut at = 0;
    for range in &entries {
        assert_eq!(range.start, at, "no gap: {entries:?}");
        at = range.end;
    }
    assert_eq!(at, len, "to the end: {entries:?}");
    let complete = entries.iter().filter(|range| {
        let is_start = range.start % SEGMENT_LEN == 0;
        is_start && range.end - range.start == SEGMENT_LEN
    });
    assert_eq!(complete.count() as u64, len / SEGMENT_LEN, "{entries:?}");
    assert!(
        entries.len() as u64 <= len / SEGMENT_LEN + 22,
        "{entries:?}"
    );
    entries.len()
}

fn ledger(scene: &Scene) -> PathBuf {
    scene.beside(".fssync-ledger")
}

/// Appends a transaction of `len` zeros to the master, and makes a pass.
#[track_caller]
fn append(scene: &Scene, len: u64, nth: u64) {
    append_sparse(&scene.master, len, 0x03f0_0000_0000_0000 + nth);
    scene.expect("append");
}

#[test]
fn a_copy_and_appends_of_all_sizes_are_covered() {
    for transport in Transport::BOTH {
        let scene = Scene::new().over(transport);
        sparse_master(&scene.master, 3 * SEGMENT_LEN / 2);
        scene.expect("full-copy");
        assert_whole(&scene.slave);
        let sizes = [
            1,
            100,
            5_000,
            1,
            2_000_000,
            9,
            SEGMENT_LEN,
            3 * SEGMENT_LEN,
            7,
        ];
        for (nth, size) in sizes.into_iter().enumerate() {
            append(&scene, size, 1 + nth as u64);
            assert_whole(&scene.slave);
        }
    }
}

#[test]
fn many_small_appends_leave_few_entries() {
    let scene = Scene::new();
    sparse_master(&scene.master, 1);
    scene.expect("full-copy");
    for nth in 1..70 {
        append(&scene, 500, nth);
    }
    let entries = assert_whole(&scene.slave);
    assert!(entries <= 8, "{entries} of 70");
    let len = fs::metadata(ledger(&scene)).unwrap().len();
    assert_eq!(
        len,
        64 * (1 + entries as u64),
        "the file ends with the entries"
    );
}

#[test]
fn a_slave_that_was_seeded_by_hand_is_covered_once_it_is_proved() {
    for transport in Transport::BOTH {
        let scene = Scene::new().over(transport);
        sparse_master(&scene.master, 2 * SEGMENT_LEN);
        fs::copy(&scene.master, &scene.slave).unwrap();
        scene.expect("up-to-date");
        assert_whole(&scene.slave);
        let other = Scene::new().over(transport);
        fs::copy(&scene.master, &other.master).unwrap();
        fs::copy(&scene.master, &other.slave).unwrap();
        append(&other, 100, 1);
        assert_whole(&other.slave);
    }
}

#[test]
fn a_lost_or_foreign_ledger_is_rebuilt_from_the_masters_digests() {
    for transport in Transport::BOTH {
        let scene = Scene::new().over(transport);
        sparse_master(&scene.master, 2 * SEGMENT_LEN);
        scene.expect("full-copy");
        let whole = fs::read(ledger(&scene)).unwrap();
        let damages: [&dyn Fn(); 5] = [
            &|| fs::remove_file(ledger(&scene)).unwrap(),
            &|| fs::write(ledger(&scene), "").unwrap(),
            &|| fs::write(ledger(&scene), &whole[..whole.len() - 1]).unwrap(),
            &|| fs::write(ledger(&scene), [&whole[..], &whole[64..]].concat()).unwrap(),
            &|| {
                let mut other = whole.clone();
                other[20] ^= 1;
                fs::write(ledger(&scene), other).unwrap();
            },
        ];
        for (nth, damage) in damages.into_iter().enumerate() {
            damage();
            append(&scene, 300, 1 + nth as u64);
            assert_whole(&scene.slave);
        }
        fs::remove_file(ledger(&scene)).unwrap();
        scene.expect("up-to-date");
        assert_whole(&scene.slave);
    }
}

#[test]
fn missing_entries_get_the_masters_digest_not_the_slaves() {
    let scene = Scene::new();
    sparse_master(&scene.master, 2 * SEGMENT_LEN);
    scene.expect("full-copy");
    let data = File::options().write(true).open(&scene.slave).unwrap();
    data.write_all_at(b"x", SEGMENT_LEN + 5).unwrap();
    fs::remove_file(ledger(&scene)).unwrap();
    scene.expect("up-to-date");
    let paths = SlavePaths::new(&scene.slave).unwrap();
    let data = File::open(&scene.slave).unwrap();
    let ledger = Ledger::open(&paths, &data, OpenMode::Read)
        .unwrap()
        .unwrap();
    let master = fs::read(&scene.master).unwrap();
    let mut covered = 0;
    for entry in ledger.entries(master.len() as u64) {
        let LedgerEntry { range, digest } = entry.unwrap().expect("whole");
        let bytes = &master[range.start as usize..range.end as usize];
        assert_eq!(blake3::hash(bytes).as_bytes(), digest.as_bytes());
        covered = range.end;
    }
    assert_eq!(covered, master.len() as u64);
}

#[test]
fn a_resumed_copy_is_covered_from_its_start() {
    for transport in Transport::BOTH {
        let scene = Scene::new().over(transport);
        sparse_master(&scene.master, 100);
        for nth in 1..8 {
            append_sparse(&scene.master, 1_000_000, 0x03f0_0000_0000_0000 + nth);
        }
        let bytes = fs::read(&scene.master).unwrap();
        fs::write(scene.beside(".fssync-tmp"), &bytes[..6_500_000]).unwrap();
        let run = scene.pass(&[]).expect(0);
        assert!(run.stderr.contains("resuming the copy"), "{run:?}");
        assert_whole(&scene.slave);
    }
}

#[test]
fn a_copy_after_a_pack_gets_a_new_ledger() {
    let history = History::get();
    let scene = Scene::synced(history);
    let before = fs::read(ledger(&scene)).unwrap();
    replace(&scene.master, &history.packed);
    scene.expect("full-copy");
    assert_whole(&scene.slave);
    assert_ne!(fs::read(ledger(&scene)).unwrap(), before);
}

#[test]
fn an_append_of_a_killed_pass_is_covered_by_the_next_pass() {
    // Killed after the batch is visible, before its last sync.
    let scene = append_killed_at_sync(3);
    assert_right(&scene.slave);
    let covered = checked_entries(&scene.slave).last().unwrap().end;
    assert!(covered < fs::metadata(&scene.slave).unwrap().len());
    scene.pass(&[]).expect(0);
    assert_whole(&scene.slave);
}

#[test]
fn a_slave_that_was_truncated_by_hand_is_covered_up_to_its_end() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    scene.expect("append");
    for cut in [false, true] {
        // Without the sidecar, no pass vouches for the slave any more.
        fs::remove_file(scene.beside(".fssync")).unwrap();
        rewrite_end(&scene.slave, &history.before);
        if cut {
            rewrite_end(&scene.master, &history.before);
        }
        scene.pass(&[]).expect(0);
        assert_whole(&scene.slave);
    }
}

#[test]
fn a_pass_succeeds_if_the_disk_has_no_room_for_the_ledger() {
    let history = History::get();
    let scene = Scene::synced(history);
    rewrite_end(&scene.master, &history.after);
    let file = fs::canonicalize(ledger(&scene)).unwrap();
    let full = ["-e", "inject=pwrite64:error=ENOSPC"];
    let pass = run(strace(&full, &[file]).args([&scene.master, &scene.slave])).expect(0);
    assert!(pass.stderr.contains("Data.fs.fssync-ledger"), "{pass:?}");
    assert!(pass.stderr.contains("No space"), "{pass:?}");
    assert_right(&scene.slave);
    scene.expect("up-to-date");
    assert_whole(&scene.slave);
}

#[test]
fn the_ledger_is_not_written_if_there_is_nothing_new() {
    let scene = Scene::synced(History::get());
    let before = fs::metadata(ledger(&scene)).unwrap().modified().unwrap();
    let trace = scene.directory.path().join("trace");
    let files = [fs::canonicalize(ledger(&scene)).unwrap()];
    let options = ["-o", trace.to_str().unwrap()];
    run(strace(&options, &files).args([&scene.master, &scene.slave])).expect(0);
    let after = fs::metadata(ledger(&scene)).unwrap().modified().unwrap();
    assert_eq!(before, after);
    let trace = fs::read_to_string(trace).unwrap();
    let reads = trace.lines().filter(|line| line.contains("pread64("));
    assert!((1..=3).contains(&reads.count()), "{trace}");
}

#[test]
fn a_dry_run_and_a_switch_that_is_off_create_no_ledger() {
    let scene = Scene::new();
    fs::write(&scene.master, &History::get().before).unwrap();
    fs::copy(&scene.master, &scene.slave).unwrap();
    scene.pass(&["--dry-run"]).expect(0);
    assert!(!ledger(&scene).exists());
    fs::write(scene.beside(".fssync-switch"), "SYNCING=0\n").unwrap();
    scene.pass(&[]).expect(10);
    assert!(!ledger(&scene).exists());
}

#[test]
fn a_pass_warns_about_a_changed_byte_of_the_slave() {
    let scene = Scene::new();
    sparse_master(&scene.master, 100_000);
    scene.expect("full-copy");
    let data = File::options().write(true).open(&scene.slave).unwrap();
    data.write_all_at(b"x", 20_000).unwrap();
    append_sparse(&scene.master, 80_000, 0x03f0_0000_0000_0001);
    let pass = scene.pass(&[]).expect(0);
    let warning = "bytes 0 to 100077 have changed since they were written";
    assert!(pass.stderr.contains(warning), "{pass:?}");
    let paths = SlavePaths::new(&scene.slave).unwrap();
    let sidecar = Sidecar::load(&paths).unwrap();
    assert_eq!(sidecar.pass.unwrap().exit_code, 0);
}

#[test]
fn the_ledger_gets_the_slaves_owner_and_mode() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::synced(History::get());
    fs::set_permissions(&scene.slave, fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(ledger(&scene)).unwrap();
    scene.expect("up-to-date");
    let mode = fs::metadata(ledger(&scene)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}
