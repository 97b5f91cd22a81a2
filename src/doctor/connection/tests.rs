use super::super::check::Level;
use super::*;

#[test]
fn only_ssh_itself_gets_its_option() {
    for (rsh, expected) in [
        ("ssh", true),
        ("/usr/bin/ssh -p 22", true),
        ("'ssh'", true),
        ("my-ssh", false),
        ("ssh-wrapper", false),
        ("", false),
        ("'", false),
    ] {
        assert_eq!(is_ssh(rsh), expected, "{rsh}");
    }
}

#[test]
fn the_answer_of_a_shell_differs_from_that_of_a_forced_command() {
    let whole = Answer::parse("a banner; fssync-doctor; fssync 0.1.0; 1700000000");
    assert_eq!(
        whole,
        Answer {
            has_shell: true,
            version: Some("fssync 0.1.0".to_owned()),
            clock: Timestamp::from_second(1_700_000_000).ok(),
        }
    );
    let without = Answer::parse("fssync-doctor; sh: fssync: not found; x");
    assert!(without.has_shell && without.version.is_none() && without.clock.is_none());
    for other in ["", "fssync\0\u{5}", "echo fssync-doctor", "fssync 0.1.0; 1"] {
        assert_eq!(Answer::parse(other), Answer::default(), "{other}");
    }
}

#[test]
fn other_versions_are_reported_and_accepted() {
    for (theirs, seen) in [
        (VERSION, format!("{VERSION} at both ends")),
        (
            "fssync 0.0.1",
            format!("fssync 0.0.1 on the master, {VERSION} here: they can work together"),
        ),
    ] {
        assert_eq!(versions(theirs), Check::ok("versions", seen));
    }
}

#[test]
fn other_clocks_are_reported() {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    for (skew, slack, level) in [
        (0, 0, Level::Ok),
        (5, 0, Level::Ok),
        (-6, 0, Level::Warn),
        (6, 1, Level::Ok),
        (7200, 1, Level::Warn),
    ] {
        let [skew, slack] = [skew, slack].map(SignedDuration::from_secs);
        let check = clocks(now + skew, now, slack);
        assert_eq!(check.level, level, "{check:?}");
    }
}
