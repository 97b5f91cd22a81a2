//! The decision about a blob, case by case.

use super::*;
use crate::filestorage::Tid;
use crate::filestorage::blob::BlobKey;
use crate::slave::blobs::ShortDigest;

const CONTENT: &[u8] = b"content";
const OTHER: &[u8] = b"contend";
const SHORTER: &[u8] = b"cont";
const LONGER: &[u8] = b"contents";

fn wanted(entry: Option<BlobState>) -> Wanted {
    Wanted {
        key: BlobKey {
            tid: Tid(1),
            oid: 1,
        },
        is_optional: false,
        is_due: true,
        entry,
    }
}

/// The entry of a blob with this content.
fn recorded(content: &[u8]) -> BlobState {
    BlobState::Present {
        size: content.len() as u64,
        digest: ShortDigest::from(&Digest::of(content)),
    }
}

fn ours(content: &[u8]) -> Ours {
    Ours::Present {
        size: content.len() as u64,
        digest: Some(Digest::of(content)),
    }
}

fn theirs(content: &[u8]) -> Theirs {
    Theirs::Present(BlobDigest {
        size: content.len() as u64,
        digest: Digest::of(content),
    })
}

#[test]
fn a_file_is_compared_with_the_ledger_and_with_the_master() {
    use Judgement::*;
    let none = Theirs::Unknown;
    let bad = Theirs::Unreadable("EIO".to_owned());
    let judged = |entry, content, theirs| judge(&wanted(entry), ours(content), &theirs);
    for (entry, content, theirs, expected) in [
        (
            Some(recorded(CONTENT)),
            CONTENT,
            none.clone(),
            Sound { is_compared: true },
        ),
        (None, CONTENT, none.clone(), Sound { is_compared: false }),
        (
            Some(BlobState::Absent),
            CONTENT,
            none.clone(),
            Sound { is_compared: false },
        ),
        (None, CONTENT, theirs(CONTENT), Sound { is_compared: true }),
        (Some(recorded(CONTENT)), OTHER, none, OtherContent),
        (
            Some(recorded(CONTENT)),
            SHORTER,
            theirs(SHORTER),
            OtherSize {
                expected: 7,
                found: 4,
            },
        ),
        (
            Some(recorded(CONTENT)),
            OTHER,
            theirs(CONTENT),
            OtherContent,
        ),
        (
            Some(recorded(CONTENT)),
            CONTENT,
            theirs(OTHER),
            MasterChanged { theirs: 7 },
        ),
        (
            Some(recorded(CONTENT)),
            CONTENT,
            theirs(SHORTER),
            MasterShorter { ours: 7, theirs: 4 },
        ),
        (
            None,
            CONTENT,
            theirs(SHORTER),
            MasterShorter { ours: 7, theirs: 4 },
        ),
        (
            None,
            CONTENT,
            theirs(OTHER),
            UnlikeMaster { ours: 7, theirs: 7 },
        ),
        (
            None,
            CONTENT,
            theirs(LONGER),
            UnlikeMaster { ours: 7, theirs: 8 },
        ),
        (Some(recorded(CONTENT)), CONTENT, Theirs::Missing, OnlyHere),
        (
            Some(recorded(CONTENT)),
            CONTENT,
            bad.clone(),
            Sound { is_compared: true },
        ),
        (None, CONTENT, bad.clone(), Sound { is_compared: false }),
        (Some(recorded(CONTENT)), OTHER, bad, OtherContent),
    ] {
        assert_eq!(judged(entry, content, theirs), expected);
    }
    let optional = Wanted {
        is_optional: true,
        ..wanted(None)
    };
    let judged = judge(&optional, ours(CONTENT), &Theirs::Missing);
    assert_eq!(judged, Sound { is_compared: false });
}

#[test]
fn a_quick_look_compares_sizes() {
    let ours = |size| Ours::Present { size, digest: None };
    let judged = |size| {
        judge(
            &wanted(Some(recorded(CONTENT))),
            ours(size),
            &Theirs::Unknown,
        )
    };
    assert_eq!(judged(7), Judgement::Sound { is_compared: true });
    let (expected, found) = (7, 6);
    assert_eq!(judged(6), Judgement::OtherSize { expected, found });
}

#[test]
fn a_missing_file_is_damage_only_if_it_was_copied_and_the_master_has_it() {
    use Judgement::*;
    let due = |is_at_master| Missing { is_at_master };
    let bad = Theirs::Unreadable("EIO".to_owned());
    for (is_due, is_optional, entry, theirs, expected) in [
        (true, false, None, Theirs::Unknown, due(false)),
        (
            true,
            false,
            Some(recorded(CONTENT)),
            Theirs::Unknown,
            due(false),
        ),
        (true, false, None, theirs(CONTENT), due(true)),
        (true, false, None, Theirs::Missing, Absent),
        (
            true,
            false,
            Some(BlobState::Absent),
            Theirs::Unknown,
            Absent,
        ),
        (
            true,
            false,
            Some(BlobState::Absent),
            theirs(CONTENT),
            due(true),
        ),
        (true, true, None, Theirs::Unknown, NotNeeded),
        (
            true,
            true,
            Some(recorded(CONTENT)),
            Theirs::Unknown,
            due(false),
        ),
        (true, true, None, Theirs::Missing, NotNeeded),
        (true, true, None, theirs(CONTENT), due(true)),
        (false, false, None, Theirs::Unknown, NotCopied),
        (false, false, None, theirs(CONTENT), NotCopied),
        (false, false, None, Theirs::Missing, Absent),
        (true, false, None, bad.clone(), due(true)),
        (false, false, None, bad, NotCopied),
        (false, true, None, Theirs::Unknown, NotNeeded),
    ] {
        let wanted = Wanted {
            is_optional,
            is_due,
            ..wanted(entry)
        };
        assert_eq!(
            judge(&wanted, Ours::Missing, &theirs),
            expected,
            "{wanted:?}"
        );
    }
}
