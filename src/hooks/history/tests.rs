use super::*;

/// A time in seconds.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn hook(on: &[Event], after: u64, repeat: Option<u64>) -> HookConfig {
    HookConfig {
        on: on.to_vec(),
        command: vec!["/bin/report".to_owned()],
        after: Duration::from_secs(after),
        repeat: repeat.map(Duration::from_secs),
        timeout: Duration::from_secs(30),
    }
}

/// Lets a storage have these events at these times, with a hook that succeeds, and a look at the
/// hook at every second. Returns the runs: time, event before, event.
fn runs(
    hook: &HookConfig,
    events: &[(i64, Event)],
    until: i64,
) -> Vec<(i64, Option<Event>, Event)> {
    let mut history = History::default();
    let mut runs = Vec::new();
    for second in 0..=until {
        let now = at(second);
        for (_, event) in events.iter().filter(|it| it.0 == second) {
            history.observe(*event, now, std::slice::from_ref(hook));
        }
        let due = history.due(hook, now);
        if let Due::Now(episode) = due {
            history.started(hook, episode.event, now);
            history.ended(hook, episode.event);
            runs.push((second, episode.from, episode.event));
        }
        // The record survives each process.
        let text = serde_json::to_vec(&history).unwrap();
        assert_eq!(serde_json::from_slice::<History>(&text).unwrap(), history);
    }
    runs
}

use Event::{Diverged, Failing, InSync, Unreachable};

#[test]
fn a_problem_is_reported_once_and_so_is_the_recovery() {
    let hook = hook(&[Diverged, InSync], 0, None);
    let events = [(0, InSync), (1, Diverged), (2, Diverged), (9, InSync)];
    let expected = [(1, Some(InSync), Diverged), (9, Some(Diverged), InSync)];
    assert_eq!(runs(&hook, &events, 20), expected);
}

#[test]
fn the_first_pass_is_reported_only_if_it_has_a_problem() {
    let hook = hook(&[Diverged, InSync], 0, None);
    assert_eq!(runs(&hook, &[(0, InSync)], 20), []);
    assert_eq!(runs(&hook, &[(0, Diverged)], 20), [(0, None, Diverged)]);
}

#[test]
fn a_short_problem_is_not_reported_and_neither_is_its_end() {
    let hook = hook(&[Unreachable, InSync], 10, None);
    let short = [(0, InSync), (1, Unreachable), (10, InSync)];
    assert_eq!(runs(&hook, &short, 30), []);
    let long = [(0, InSync), (1, Unreachable), (12, InSync)];
    let expected = [
        (11, Some(InSync), Unreachable),
        (12, Some(Unreachable), InSync),
    ];
    assert_eq!(runs(&hook, &long, 30), expected);
}

#[test]
fn after_counts_from_the_last_time_in_sync() {
    let hook = hook(&[Unreachable, Diverged], 10, None);
    let events = [
        (0, InSync),
        (1, Unreachable),
        (5, Failing),
        (8, Unreachable),
        (20, Diverged),
    ];
    let expected = [
        (11, Some(Failing), Unreachable),
        (20, Some(Unreachable), Diverged),
    ];
    assert_eq!(runs(&hook, &events, 40), expected);
}

#[test]
fn a_problem_is_repeated_while_it_lasts() {
    let hook = hook(&[Failing, Unreachable, InSync], 2, Some(10));
    let events = [(0, Failing), (25, InSync)];
    let expected = [
        (2, None, Failing),
        (12, Some(Failing), Failing),
        (22, Some(Failing), Failing),
        (25, Some(Failing), InSync),
    ];
    assert_eq!(runs(&hook, &events, 60), expected);
}

#[test]
fn alternating_problems_are_reported_as_often_as_lasting_ones() {
    let hook = hook(&[Failing, Unreachable], 0, Some(10));
    let events: Vec<_> = (0..20)
        .map(|n| (n, if n % 2 == 0 { Failing } else { Unreachable }))
        .collect();
    let times: Vec<_> = runs(&hook, &events, 19)
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(times, [0, 1, 10, 11]);
}

#[test]
fn only_listed_events_are_reported() {
    let hook = hook(&[InSync], 0, Some(1));
    assert_eq!(runs(&hook, &[(0, Failing), (5, InSync)], 10), []);
}

#[test]
fn a_failed_report_is_repeated_also_that_of_a_recovery() {
    let retry = RETRY_AFTER.as_secs().cast_signed();
    let hook = hook(&[Diverged, InSync], 0, None);
    let mut history = History::default();
    let all = [hook.clone()];
    history.observe(Diverged, at(0), &all);
    history.started(&hook, Diverged, at(0));
    assert_eq!(history.due(&hook, at(1)), Due::At(at(retry)));
    assert!(matches!(history.due(&hook, at(retry)), Due::Now(_)));
    // The time of a failure before the clock was set back does not count.
    assert_eq!(history.due(&hook, at(-5000)), Due::At(at(retry - 5000)));
    history.observe(InSync, at(400), &all);
    assert!(matches!(history.due(&hook, at(400)), Due::Now(_)));
    history.started(&hook, InSync, at(400));
    assert_eq!(history.due(&hook, at(401)), Due::At(at(400 + retry)));
    history.ended(&hook, InSync);
    assert_eq!(history.due(&hook, at(9999)), Due::Never);
}

#[test]
fn a_hook_that_is_no_longer_configured_is_forgotten() {
    let old = hook(&[Diverged, InSync], 0, None);
    let new = HookConfig {
        command: vec!["/bin/other".to_owned()],
        ..old.clone()
    };
    let mut history = History::default();
    history.observe(Diverged, at(0), std::slice::from_ref(&old));
    history.started(&old, Diverged, at(0));
    history.ended(&old, Diverged);
    history.observe(InSync, at(1), std::slice::from_ref(&new));
    assert!(history.reports.is_empty());
}

#[test]
fn each_exit_code_of_a_pass_has_an_event_or_none() {
    for (exit, expected) in [
        (Exit::Success, Some("in-sync")),
        (Exit::Failure, Some("failing")),
        (Exit::Usage, Some("failing")),
        (Exit::Off, None),
        (Exit::Busy, None),
        (Exit::Unreachable, Some("unreachable")),
        (Exit::InUse, Some("in-use")),
        (Exit::Stale, None),
        (Exit::Diverged, Some("diverged")),
        (Exit::MasterDamaged, Some("master-damaged")),
        (Exit::SlaveDamaged, Some("slave-damaged")),
    ] {
        assert_eq!(event(exit).map(Event::as_str), expected);
    }
}
