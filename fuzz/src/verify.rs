//! Any bytes as a slave: the findings of a complete and a quick verification, `fssync status`,
//! and the checks of `fssync on`.

use std::fs;

use fssync::filestorage::check::{Checker, FlawKind};
use fssync::filestorage::{MAGIC_LEN, Magic};
use fssync::io::progress::Silent;
use fssync::plan::outcome::Exit;
use fssync::slave::sidecar::Sidecar;
use fssync::slave::since_last_pass;
use fssync::verify::finding::Finding;
use fssync::verify::{SlaveContent, Verified, verify};
use fssync::{plan, status};

use super::scene::{Scene, fixtures};
use super::storage::Scanned;

/// Verifies a slave.
///
/// # Panics
///
/// If a verification and a scan disagree, or it reads too much.
pub fn run(file: &[u8]) {
    let scene = Scene::new();
    fs::write(&scene.slave, file).expect("the slave");
    let slave = scene.slave();
    let verify_slave = |quick| {
        let mut findings = Vec::new();
        let report = &mut |finding: &Finding| findings.push(finding.clone());
        let verified = verify(&slave, quick, &Silent, report).expect("it can be read");
        (verified, findings)
    };
    let (verified, findings) = verify_slave(false);
    assert_eq!(
        findings,
        verify_slave(true).1,
        "a quick verification has the same findings"
    );
    let damages = findings.iter().filter(|it| is_damage(it)).count();
    assert_eq!(verified.damages, damages as u64);
    for finding in &findings {
        assert!(finding.position < file.len() as u64, "{finding:?}");
        let end = finding.end.unwrap_or(finding.position);
        assert!(end <= file.len() as u64, "{finding:?}");
    }
    let most = 200 * file.len() as u64;
    assert!(verified.bytes <= most, "{} bytes", verified.bytes);
    let status = status::look(&slave, None, &Silent).expect("a status");
    if verified.content == SlaveContent::FileStorage {
        compare_with_scan(file, &verified, &findings);
        compare_with_status(&verified, &status.state);
    }
    since_last_pass::since_last_pass(&slave.paths, &Sidecar::default()).expect("it can be read");
    assert_eq!(
        scene.beside_slave().len(),
        1,
        "no file is created beside it"
    );
    assert!(fs::read(&scene.slave).expect("the slave") == file);
}

fn is_damage(finding: &Finding) -> bool {
    finding.kind.severity() == fssync::verify::finding::Severity::Damage
}

/// If the whole file can be scanned, there are no findings but the checker's flaws.
fn compare_with_scan(file: &[u8], verified: &Verified, findings: &[Finding]) {
    let scanned = Scanned::of(file, usize::MAX);
    if Magic::decode(file).is_none() || !scanned.is_opened() {
        return;
    }
    let mut checker = Checker::default();
    let mut flaws = Vec::new();
    for &event in &scanned.events {
        checker.take(event, &mut InMemory(file), &mut |flaw| flaws.push(flaw));
    }
    if scanned.position == file.len() as u64 {
        assert_eq!(verified.position, scanned.position);
        assert_eq!(findings.len(), flaws.len(), "{findings:?}, {flaws:?}");
        let is_damaged = flaws
            .iter()
            .any(|flaw| matches!(flaw.kind, FlawKind::DataTid(_) | FlawKind::BackPointer(_)));
        assert_eq!(verified.exit() == Exit::SlaveDamaged, is_damaged);
    }
    assert!(verified.position >= scanned.position);
    assert!(verified.transactions >= checker.transactions());
}

/// A slave that a pass refuses is damaged; otherwise the positions are equal.
fn compare_with_status(verified: &Verified, state: &plan::SlaveState) {
    match state {
        plan::SlaveState::Damaged(_) => assert_eq!(verified.exit(), Exit::SlaveDamaged),
        plan::SlaveState::Storage(storage) => {
            let is_same = verified.position == storage.position;
            assert!(is_same || verified.damages > 0, "{verified:?} {storage:?}");
            assert!(storage.position >= MAGIC_LEN);
        }
        other => panic!("{other:?}"),
    }
}

struct InMemory<'a>(&'a [u8]);

impl fssync::filestorage::backward::ReadAt for InMemory<'_> {
    type Error = ();

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), ()> {
        let start = offset as usize;
        let bytes = self.0.get(start..).and_then(|it| it.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(())?);
        Ok(())
    }
}

/// The fixtures.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    fixtures().into_iter().map(|(_, bytes)| bytes).collect()
}
