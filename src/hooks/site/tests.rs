use super::*;
use crate::plan::outcome::{Action, Copied};

/// The state after passes with these exit codes, one for each storage.
fn state(exits: &[Option<Exit>]) -> Option<(bool, String)> {
    let names = ["site", "catalog", "archive"].map(str::to_owned);
    let mut site = SiteState::new(names.into_iter().take(exits.len()));
    for (nth, exit) in exits.iter().enumerate() {
        let Some(exit) = *exit else { continue };
        let outcome = Outcome {
            action: Action::Error,
            exit,
            reason: "why".to_owned(),
            hint: None,
            copied: Copied::default(),
            warnings: Vec::new(),
        };
        site.passed(nth, &outcome, Duration::from_secs(1));
        // Another pass is running: it knows more.
        let exit = Exit::Busy;
        site.passed(nth, &Outcome { exit, ..outcome }, Duration::ZERO);
    }
    match site.state()? {
        Ping::State { is_up, message, .. } => Some((is_up, message)),
        Ping::Start => None,
    }
}

#[test]
fn a_site_is_up_if_all_storages_that_are_on_are_in_sync() {
    let [success, off] = [Exit::Success, Exit::Off].map(Some);
    let [diverged, busy] = [Exit::Diverged, Exit::Busy].map(Some);
    for (exits, expected) in [
        (&[success][..], Some((true, "site: in sync"))),
        (&[diverged], Some((false, "site: diverged: why"))),
        (&[off], None),
        (&[busy], None),
        (&[success, None], None),
        (&[success, busy], None),
        (&[success, success], Some((true, "2 of 2 in sync"))),
        (
            &[success, off],
            Some((true, "1 of 2 in sync; catalog: off")),
        ),
        (
            &[success, off, diverged],
            Some((
                false,
                "1 of 3 in sync; catalog: off; archive: diverged: why",
            )),
        ),
        (&[off, off], None),
    ] {
        let expected = expected.map(|(is_up, message)| (is_up, message.to_owned()));
        assert_eq!(state(exits), expected, "{exits:?}");
    }
}
