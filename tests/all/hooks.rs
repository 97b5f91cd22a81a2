//! Hooks and pings with real programs: the hook that is shipped, and curl with a web server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use fssync::config::{NamedStorage, PingConfig, PingStyle, StorageConfig};
use fssync::hooks::{Notifier, Run};
use fssync::plan::outcome::{Action, Copied, Exit, Outcome};
use fssync::source::CoveredNames;

use crate::support::{project, python, run, spawn, tool, write_program};

/// Writes an executable script.
fn script(path: &Path, text: &str) {
    write_program(path, format!("#!/bin/sh\n{text}\n"));
}

/// The shipped hook, whose sendmail writes its arguments and the mail to the file `mail`.
fn mail_hook(directory: &Path) -> Command {
    let sendmail = directory.join("sendmail");
    let mail = directory.join("mail");
    script(
        &sendmail,
        &format!("(echo \"$@\"; cat) > {}", mail.display()),
    );
    let mut hook = Command::new(project("contrib/hooks/mail"));
    hook.env("SENDMAIL", sendmail);
    for (name, value) in [
        ("EVENT", "diverged"),
        ("STORAGE", "site"),
        ("FROM", "in-sync"),
        ("TO", "diverged"),
        ("EXIT_CODE", "20"),
        (
            "REASON",
            "the slave has grown `touch /x` $(touch /x) \"since\"",
        ),
        ("HINT", "compare the two"),
        ("MASTER", "first:/Data.fs"),
        ("SLAVE", "/srv/Data.fs"),
        ("POSITION", "1234"),
        ("LAST_TID", ""),
        ("SINCE", "2026-01-02T03:04:05Z"),
    ] {
        hook.env(format!("FSSYNC_{name}"), value);
    }
    hook
}

#[test]
fn the_shipped_hook_sends_a_mail() {
    let directory = tempfile::tempdir().unwrap();
    let mut hook = mail_hook(directory.path());
    run(hook.args(["a@example.org", "b@example.org"])).expect(0);
    let mail = fs::read_to_string(directory.path().join("mail")).unwrap();
    let (arguments, mail) = mail.split_once('\n').unwrap();
    assert_eq!(arguments, "-i -- a@example.org b@example.org");
    let (head, body) = mail.split_once("\n\n").unwrap();
    let head: Vec<_> = head.lines().collect();
    assert_eq!(head[0], "To: a@example.org, b@example.org");
    assert!(head[1].starts_with("Subject: fssync on "), "{head:?}");
    assert!(head[1].ends_with(": site is diverged"), "{head:?}");
    for part in [
        "site is diverged since 2026-01-02T03:04:05Z (before: in-sync)",
        "the slave has grown `touch /x` $(touch /x) \"since\"",
        "compare the two",
        "first:/Data.fs",
        "/srv/Data.fs",
        "1234",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }

    let mut hook = mail_hook(directory.path());
    hook.env("FSSYNC_FROM", "diverged").arg("a@example.org");
    run(&mut hook).expect(0);
    let mail = fs::read_to_string(directory.path().join("mail")).unwrap();
    assert!(mail.contains(": site is still diverged\n"), "{mail}");
}

#[test]
fn the_shipped_hook_fails_if_the_mail_cannot_be_sent() {
    let directory = tempfile::tempdir().unwrap();
    let mut hook = mail_hook(directory.path());
    script(&directory.path().join("sendmail"), "exit 75");
    run(hook.arg("a@example.org")).expect(75);
    run(&mut mail_hook(directory.path())).expect(2);
}

#[test]
fn shellcheck_finds_nothing_wrong_with_the_shipped_hook() {
    let mut shellcheck = tool("shellcheck", "shellcheck");
    shellcheck.arg("--shell=sh");
    run(shellcheck.arg(project("contrib/hooks/mail"))).expect(0);
}

/// A web server on loopback. It answers each request with a status, and prints it.
struct Server {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Server {
    /// Starts it. `code` is Python for the body of the method that answers.
    fn start(code: &str) -> Self {
        let program = format!(
            "import http.server, sys, time\n\
             class Handler(http.server.BaseHTTPRequestHandler):\n\
             \x20   def do_GET(self):\n\
             \x20       body = self.rfile.read(int(self.headers.get('Content-Length') or 0))\n\
             \x20       print(self.command, self.path, body.decode(), flush=True)\n\
             \x20       {code}\n\
             \x20   do_POST = do_GET\n\
             \x20   def log_message(self, *arguments): pass\n\
             server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)\n\
             print(server.server_port, flush=True)\n\
             server.serve_forever()"
        );
        let mut command = Command::new(python());
        let mut process = spawn(command.args(["-c", &program]).stdout(Stdio::piped()));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap();
        Self {
            process,
            lines,
            url: format!("http://127.0.0.1:{port}/u"),
        }
    }

    fn answering(status: u16) -> Self {
        Self::start(&format!("self.send_response({status}); self.end_headers()"))
    }

    /// The next request: method, path and body.
    fn request(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a process with two storages and a ping.
fn start(run: Run, url: &str, style: PingStyle, every: Duration) -> Notifier {
    tool("curl", "curl");
    let storages = ["site", "catalog"].map(|name| NamedStorage {
        name: name.parse().unwrap(),
        storage: StorageConfig::of_slave(Path::new("/nowhere/Data.fs")),
        covered: CoveredNames::default(),
    });
    let ping = PingConfig {
        url: url.to_owned(),
        style,
        every,
    };
    Notifier::start(run, &[], &[ping], &storages, std::sync::Arc::default())
}

fn passed(notifier: &Notifier, name: &str, exit: Exit) {
    let outcome = Outcome {
        action: Action::Error,
        exit,
        reason: "a & \"b\"\nc".to_owned(),
        hint: None,
        copied: Copied::default(),
        warnings: Vec::new(),
    };
    let elapsed = Duration::from_millis(750);
    notifier.passed(&name.parse().unwrap(), &outcome, elapsed);
}

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn curl_pings_healthchecks_once_for_a_pass_of_all_storages() {
    let mut server = Server::answering(200);
    for (exit, expected) in [
        (Exit::Success, "POST /u 2 of 2 in sync"),
        (
            Exit::Diverged,
            "POST /u/fail 1 of 2 in sync; catalog: diverged: a & \"b\" c",
        ),
    ] {
        let notifier = start(Run::Once, &server.url, PingStyle::Healthchecks, LONG);
        passed(&notifier, "site", Exit::Success);
        passed(&notifier, "catalog", exit);
        notifier.finish();
        assert_eq!(server.request(), "GET /u/start ");
        assert_eq!(server.request(), expected);
    }
}

#[test]
fn curl_pings_uptime_kuma_with_an_encoded_message() {
    let mut server = Server::answering(200);
    let url = format!("{}?status=up&msg=OK&ping=", server.url);
    let notifier = start(Run::Once, &url, PingStyle::UptimeKuma, LONG);
    passed(&notifier, "site", Exit::Success);
    passed(&notifier, "catalog", Exit::MasterDamaged);
    notifier.finish();
    let message = "1%20of%202%20in%20sync%3B%20catalog%3A%20master-damaged%3A%20\
                   a%20%26%20%22b%22%20c";
    let request = server.request().replace('+', "%20");
    let expected = format!("GET /u?status=down&msg={message}&ping=1500 ");
    assert_eq!(request.to_lowercase(), expected.to_lowercase());
}

#[test]
fn a_watch_pings_regularly_in_sync_and_at_once_on_a_change() {
    let mut server = Server::answering(200);
    let every = Duration::from_millis(200);
    let notifier = start(Run::Watch, &server.url, PingStyle::Plain, every);
    passed(&notifier, "site", Exit::Success);
    passed(&notifier, "catalog", Exit::Success);
    for _ in 0..3 {
        assert_eq!(server.request(), "GET /u ");
    }
    drop(notifier);

    let notifier = start(Run::Watch, &server.url, PingStyle::Healthchecks, LONG);
    passed(&notifier, "site", Exit::Success);
    passed(&notifier, "catalog", Exit::Success);
    while server.request() != "GET /u/start " {}
    assert_eq!(server.request(), "POST /u 2 of 2 in sync");
    passed(&notifier, "site", Exit::Unreachable);
    let down = "POST /u/fail 1 of 2 in sync; site: unreachable: a & \"b\" c";
    assert_eq!(server.request(), down);
    passed(&notifier, "site", Exit::Success);
    assert_eq!(server.request(), "POST /u 2 of 2 in sync");
    notifier.finish();
}

#[test]
fn a_ping_that_fails_is_repeated_and_one_that_hangs_delays_no_pass() {
    let mut server = Server::answering(500);
    let every = Duration::from_millis(100);
    let notifier = start(Run::Watch, &server.url, PingStyle::UptimeKuma, every);
    for name in ["site", "catalog"] {
        passed(&notifier, name, Exit::Diverged);
    }
    for _ in 0..2 {
        assert!(server.request().starts_with("GET /u?status=down"));
    }
    drop(notifier);

    let mut server = Server::start("time.sleep(1000)");
    let notifier = start(Run::Watch, &server.url, PingStyle::Plain, every);
    for name in ["site", "catalog"] {
        passed(&notifier, name, Exit::Success);
    }
    assert_eq!(server.request(), "GET /u ");
    for _ in 0..100 {
        passed(&notifier, "site", Exit::Success);
    }
}
