use super::*;

fn of(style: PingStyle, url: &str, ping: &Ping) -> Option<Vec<String>> {
    let config = PingConfig {
        url: url.to_owned(),
        style,
        every: Duration::from_secs(60),
    };
    let options = options(&config, ping)?;
    let lines = options.lines().skip(6).map(str::to_owned);
    Some(lines.collect())
}

fn state(is_up: bool) -> Ping {
    Ping::State {
        is_up,
        message: "a \"b\\\nc&d".to_owned(),
        elapsed: Duration::from_millis(1500),
    }
}

#[test]
fn healthchecks_gets_the_state_in_the_path_and_the_reason_in_the_body() {
    use PingStyle::Healthchecks;
    let body = "data-raw = \"a \\\"b\\\\ c&d\"";
    for (url, ping, expected) in [
        (
            "https://h/u",
            Ping::Start,
            vec!["url = \"https://h/u/start\""],
        ),
        (
            "https://h/u",
            state(true),
            vec!["url = \"https://h/u\"", body],
        ),
        (
            "https://h/u/",
            state(false),
            vec!["url = \"https://h/u/fail\"", body],
        ),
        (
            "https://h/key/slug?create=1",
            state(false),
            vec!["url = \"https://h/key/slug/fail?create=1\"", body],
        ),
    ] {
        assert_eq!(of(Healthchecks, url, &ping).unwrap(), expected);
    }
}

#[test]
fn uptime_kuma_gets_the_state_in_the_query() {
    use PingStyle::UptimeKuma;
    let url = "https://k/api/push/x?status=up&msg=OK&ping=";
    let expected = [
        "url = \"https://k/api/push/x\"",
        "data-raw = \"status=down\"",
        "data-urlencode = \"msg=a \\\"b\\\\ c&d\"",
        "data-raw = \"ping=1500\"",
        "get",
    ];
    assert_eq!(of(UptimeKuma, url, &state(false)).unwrap(), expected);
    assert_eq!(of(UptimeKuma, url, &Ping::Start), None);
}

#[test]
fn a_plain_address_is_requested_only_while_in_sync() {
    use PingStyle::Plain;
    let expected = ["url = \"https://h/u?a=b\""];
    assert_eq!(
        of(Plain, "https://h/u?a=b", &state(true)).unwrap(),
        expected
    );
    assert_eq!(of(Plain, "https://h/u", &state(false)), None);
    assert_eq!(of(Plain, "https://h/u", &Ping::Start), None);
}

#[test]
fn a_ping_is_due_regularly_in_sync_and_at_once_on_a_change() {
    let start = Instant::now();
    let later = start + Duration::from_secs(20);
    let last = |is_up, has_failed| {
        Some(LastPing {
            at: start,
            is_up,
            has_failed,
        })
    };
    for (last, is_up, expected) in [
        (None, true, Some(0)),
        (None, false, Some(0)),
        (last(true, false), true, Some(40)),
        (last(true, true), true, Some(40)),
        (last(true, false), false, Some(0)),
        (last(false, false), true, Some(0)),
        (last(false, false), false, None),
        (last(false, true), false, Some(40)),
    ] {
        let due = due_in(Duration::from_secs(60), last, is_up, later);
        let expected = expected.map(Duration::from_secs);
        assert_eq!(due, expected, "{last:?} {is_up}");
    }
}

#[test]
fn a_message_is_short() {
    let ping = Ping::State {
        is_up: false,
        message: "é".repeat(10_000),
        elapsed: Duration::ZERO,
    };
    let options = of(PingStyle::Healthchecks, "https://h", &ping).unwrap();
    assert_eq!(options[1].chars().filter(|c| *c == 'é').count(), 500);
}
