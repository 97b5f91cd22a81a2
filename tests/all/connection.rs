//! The program that connects to the master: its process group, signals, the terminal, and what
//! remains of it afterwards.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::sshd::{Sshd, url_at};
use crate::support::{
    History, Run, Scene, fssync, project, python, run, sparse_master, spawn, strace, tool,
    wait_for, write_program,
};
use crate::watcher::Watcher;

const BINARY: &str = env!("CARGO_BIN_EXE_fssync");

/// Serves like the other end of ssh.
const SERVE: &str = "exec sh -c \"$2\"";

/// The program with these options, which connects through a script. The script gets the host
/// as `$1` and the command as `$2`, and the scene's directory in `$D`.
fn through(scene: &Scene, script: &str, options: &[&str]) -> Command {
    let rsh = scene.directory.path().join("rsh");
    let directory = scene.directory.path().display();
    write_program(&rsh, format!("#!/bin/sh\nD='{directory}'\n{script}\n"));
    let mut command = fssync();
    command.args(options).arg("-e").arg(rsh);
    command.args(["--remote-fssync", BINARY]);
    command.arg(format!("host:{}", scene.master.display()));
    command.arg(&scene.slave);
    command
}

/// Whether a process with this id exists and has not ended.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

/// Fails if one of the processes whose ids a script has recorded in `pids` still runs.
#[track_caller]
fn expect_none_left(scene: &Scene, count: usize) {
    let noted = fs::read_to_string(scene.directory.path().join("pids")).expect("process ids");
    assert_eq!(noted.split_whitespace().count(), count, "{noted}");
    // A process that was just killed may be visible for a moment.
    wait_for("end of all", || !noted.split_whitespace().any(is_running));
}

/// Starts two helpers that run for long, one of them with its standard error closed, and
/// records them.
const HELPERS: &str = "sleep 600 & echo $! >> $D/pids; sleep 600 2>&- & echo $! >> $D/pids";

/// Starts a helper that ignores SIGTERM, and records it.
const STUBBORN: &str = "(trap '' TERM; exec sleep 600) & echo $! >> $D/pids";

#[test]
fn a_connection_ends_with_all_processes_that_it_started() {
    for (what, script, code) in [
        ("in sync", format!("{HELPERS}; {SERVE}"), 0),
        ("hangs", format!("{HELPERS}; exec sleep 600"), 12),
        ("fails", format!("{HELPERS}; exit 255"), 12),
        ("in sync, stubborn", format!("{STUBBORN}; {SERVE}"), 0),
        ("hangs, stubborn", format!("{STUBBORN}; exec sleep 600"), 12),
        ("fails, stubborn", format!("{STUBBORN}; exit 255"), 12),
    ] {
        let scene = Scene::synced(History::get());
        let timeout = if what.starts_with("hangs") { "1" } else { "60" };
        let pass = run(&mut through(&scene, &script, &["--timeout", timeout]));
        assert_eq!(pass.code, code, "{what}: {pass:?}");
        let names_code = pass.stderr.contains("exit code 255");
        assert_eq!(names_code, what.starts_with("fails"), "{what}: {pass:?}");
        expect_none_left(&scene, if script.contains(STUBBORN) { 1 } else { 2 });
    }
}

#[test]
fn a_connection_ends_if_a_signal_ends_the_pass() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let scene = Scene::synced(History::get());
        let script = format!("{STUBBORN}; exec sleep 600");
        // The tests may have been started with nohup, and then fssync would ignore SIGHUP.
        let mut command = tool("env", "coreutils");
        command.arg("--default-signal=HUP").arg(BINARY);
        command.args(through(&scene, &script, &[]).get_args());
        let pass = spawn(command.stderr(Stdio::piped()));
        // The shell creates the file before it writes to it.
        let pids = scene.directory.path().join("pids");
        wait_for("connection", || {
            fs::read(&pids).is_ok_and(|noted| noted.ends_with(b"\n"))
        });
        kill_process(Pid::from_child(&pass), signal).expect("it runs");
        expect_interrupted(pass);
        expect_none_left(&scene, 1);
    }
}

#[test]
fn a_watch_that_reconnects_leaves_no_processes() {
    let scene = Scene::synced(History::get());
    let script = format!(
        "{HELPERS}; timeout 0.3 {BINARY} serve {}",
        scene.master.display()
    );
    let mut watcher = Watcher::of(&scene, &mut through(&scene, &script, &["--watch"]));
    let pids = scene.directory.path().join("pids");
    let noted = || fs::read_to_string(&pids).unwrap_or_default();
    wait_for("reconnection", || noted().lines().count() >= 6);
    watcher.expect("Finished syncing");
    assert_eq!(watcher.end().0, 0);
    let count = noted().lines().count();
    expect_none_left(&scene, count);
}

/// A jump host that accepts the connection and sends nothing.
#[test]
fn a_jump_host_that_hangs_leaves_no_ssh_process() {
    let scene = Scene::synced(History::get());
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let jump = format!("root@127.0.0.1:{}", silent.local_addr().unwrap().port());
    tool("ssh", "openssh-client");
    let rsh = format!("ssh -F none -o BatchMode=yes -J {jump}");
    let mut command = fssync();
    command.args(["--timeout", "1", "-e", &rsh, "host:/srv"]);
    run(command.arg(&scene.slave)).expect(12);
    wait_for("end of all", || !is_ssh_running(&jump[5..]));
}

/// Whether an ssh with this text in its arguments is running.
fn is_ssh_running(argument: &str) -> bool {
    let mut processes = fs::read_dir("/proc").expect("processes").flatten();
    processes.any(|process| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let is_it = arguments.starts_with("ssh ") && arguments.contains(argument);
        is_it && is_running(&process.file_name().to_string_lossy())
    })
}

/// ssh's master connection is meant to persist, and has left the process group.
#[test]
fn a_persistent_ssh_connection_is_kept() {
    let scene = Scene::synced(History::get());
    let socket = scene.directory.path().join("socket");
    let rsh = Sshd::get().rsh("");
    let control = format!(
        "{rsh} -o ControlMaster=auto -o ControlPersist=60 -S {}",
        socket.display()
    );
    let url = url_at(Sshd::get().port(), &scene.master);
    for _ in 0..2 {
        let mut command = fssync();
        command.args(["-e", &control, "--remote-fssync", BINARY, &url]);
        run(command.arg(&scene.slave)).expect(0);
        let mut check = tool("ssh", "openssh-client");
        check.args(["-F", "none", "-O", "check", "-S"]).arg(&socket);
        run(check.arg("host")).expect(0);
    }
    let mut exit = tool("ssh", "openssh-client");
    exit.args(["-F", "none", "-O", "exit", "-S"]).arg(&socket);
    run(exit.arg("host")).expect(0);
}

/// Fails unless the pass ended because of a signal.
#[track_caller]
fn expect_interrupted(pass: Child) {
    let output = pass.wait_with_output().expect("its end");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("interrupted by a signal"), "{log}");
}

/// A long first copy through a script that records its process id.
fn long_copy(scene: &Scene) -> Child {
    sparse_master(&scene.master, 8 << 30);
    let script = format!("echo $$ > $D/pids; {SERVE}");
    let mut command = through(scene, &script, &[]);
    let pass = spawn(command.stderr(Stdio::piped()).process_group(0));
    let copy = scene.beside(".fssync-tmp");
    wait_for("copy", || {
        fs::metadata(&copy).is_ok_and(|it| it.len() > 10 << 20)
    });
    pass
}

/// systemd and container managers also signal the program that connects, maybe before the
/// pass. The pass is stopped meanwhile, so that it finds both signals when it continues.
#[test]
fn a_copy_that_is_interrupted_ends_the_same_way_whichever_process_is_signalled() {
    for (is_group, is_program) in [(false, false), (true, false), (false, true), (true, true)] {
        let scene = Scene::new();
        let pass = long_copy(&scene);
        let pid = Pid::from_child(&pass);
        kill_process(pid, Signal::STOP).expect("it runs");
        if is_program {
            let noted = fs::read_to_string(scene.directory.path().join("pids")).expect("a pid");
            let program = noted.trim().parse().ok().and_then(Pid::from_raw);
            kill_process(program.expect("a pid"), Signal::TERM).expect("it runs");
            wait_for("end of the program", || !is_running(noted.trim()));
        }
        if is_group {
            kill_process_group(pid, Signal::INT).expect("it runs");
        } else {
            kill_process(pid, Signal::TERM).expect("it runs");
        }
        kill_process(pid, Signal::CONT).expect("it runs");
        expect_interrupted(pass);
        assert!(!scene.slave.exists());
        let kept = fs::metadata(scene.beside(".fssync-tmp")).expect("the copy so far");
        assert!(kept.len() > 10 << 20, "{kept:?}");
    }
}

#[test]
fn a_pass_under_nohup_survives_a_hangup() {
    let scene = Scene::synced(History::get());
    let script = format!("touch $D/begun; while [ ! -e $D/go ]; do sleep 0.1; done; {SERVE}");
    let pass = through(&scene, &script, &[]);
    let mut command = tool("nohup", "coreutils");
    command.arg(pass.get_program()).args(pass.get_args());
    let mut pass = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("connection", || {
        scene.directory.path().join("begun").exists()
    });
    kill_process(Pid::from_child(&pass), Signal::HUP).expect("it runs");
    fs::write(scene.directory.path().join("go"), "").expect("a file");
    assert_eq!(pass.wait().expect("its end").code(), Some(0));
}

/// Each survey finds the switch on, and each wait then cannot read it.
#[test]
fn a_switch_that_ends_waits_is_reported_even_if_it_is_on_again() {
    let scene = Scene::synced(History::get());
    let switch = scene.beside(".fssync-switch");
    fs::write(&switch, "SYNCING=1\n").expect("the switch");
    let pass = through(&scene, "exec sleep 600", &["-q"]);
    let switch = fs::canonicalize(switch).expect("the switch");
    let mut traced = strace(&["-e", "inject=openat:error=EACCES:when=2+2"], &[switch]);
    let ended = run(traced.args(pass.get_args())).expect(10);
    assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
    assert!(!ended.stderr.contains("signal"), "{ended:?}");
}

/// Runs a command at a terminal and types these answers; see `tests/terminal.py`.
fn at_terminal(steps: &[(&str, &str)], command: &Command) -> Run {
    let mut terminal = Command::new(python());
    terminal.arg(project("tests/terminal.py"));
    for (expected, typed) in steps {
        terminal.args([expected, typed]);
    }
    terminal.arg("--").arg(command.get_program());
    run(terminal.args(command.get_args()))
}

/// Asks for a password like ssh.
const ASK: &str = "stty -echo < /dev/tty; printf 'password: ' > /dev/tty; \
                   read -r word < /dev/tty; stty echo < /dev/tty; \
                   [ \"$word\" = secret ] || exit 255";

#[test]
fn a_password_is_typed_at_the_terminal() {
    let scene = Scene::synced(History::get());
    let command = through(&scene, &format!("{ASK}; {SERVE}"), &[]);
    at_terminal(&[("password: ", "secret\\n")], &command).expect(0);
    at_terminal(&[("password: ", "wrong\\n")], &command).expect(12);
}

#[test]
fn ssh_asks_at_the_terminal_whether_a_host_key_is_right() {
    let scene = Scene::synced(History::get());
    let known = scene.directory.path().join("known_hosts");
    let rsh = Sshd::get()
        .rsh("")
        .replace("StrictHostKeyChecking=no", "StrictHostKeyChecking=ask");
    let rsh = rsh.replace("BatchMode=yes", "BatchMode=no");
    let rsh = rsh.replace("/dev/null", known.to_str().expect("UTF-8"));
    let mut command = fssync();
    command.args(["-e", &rsh, "--remote-fssync", BINARY]);
    command
        .arg(Sshd::get().url(&scene.master))
        .arg(&scene.slave);
    let stopped = at_terminal(&[("(yes/no", "\\x03")], &command).expect(1);
    assert!(
        stopped.stdout.contains("interrupted by a signal"),
        "{stopped:?}"
    );
    let asked = at_terminal(&[("(yes/no", "yes\\n")], &command).expect(0);
    assert!(known.exists(), "{asked:?}");
    at_terminal(&[], &command).expect(0);
}

#[test]
fn ctrl_c_ends_a_pass_at_a_prompt_and_in_a_copy() {
    let scene = Scene::synced(History::get());
    let command = through(&scene, &format!("{ASK}; {SERVE}"), &[]);
    let at_prompt = at_terminal(&[("password: ", "\\x03")], &command).expect(1);
    assert!(
        at_prompt.stdout.contains("interrupted by a signal"),
        "{at_prompt:?}"
    );
    assert_eq!(
        at_prompt.stdout.matches("password: ").count(),
        1,
        "{at_prompt:?}"
    );

    let scene = Scene::new();
    sparse_master(&scene.master, 8 << 30);
    let command = through(
        &scene,
        &format!("{ASK}; {SERVE}"),
        &["--progress", "always"],
    );
    let steps = [("password: ", "secret\\n"), ("copying", "\\x03")];
    let in_copy = at_terminal(&steps, &command).expect(1);
    assert!(
        in_copy.stdout.contains("interrupted by a signal"),
        "{in_copy:?}"
    );
    assert!(scene.beside(".fssync-tmp").exists());
}

#[test]
fn a_signal_that_is_typed_at_a_prompt_ends_the_pass_through_a_wrapper_too() {
    let scene = Scene::synced(History::get());
    for (typed, wrapper) in [
        ("\\x1c", "ulimit -c 0"),
        ("\\x1c", "trap 'exit 131' QUIT"),
        ("\\x03", "trap 'exit 130' INT"),
    ] {
        let command = through(&scene, &format!("{wrapper}; {ASK}; {SERVE}"), &[]);
        let pass = at_terminal(&[("password: ", typed)], &command).expect(1);
        assert!(pass.stdout.contains("interrupted by a signal"), "{pass:?}");
    }
}

/// Runs a command at a terminal. Sends SIGTERM to its process once a script has created the
/// file `asked` in the scene's directory. Then prints the settings of the terminal.
fn terminated_at_prompt(scene: &Scene, command: &Command) -> Run {
    let script = "(until [ -e \"$0/asked\" ]; do sleep 0.05; done; \
                  kill -TERM $(cat \"$0/pid\")) & \
                  sh -c 'echo $$ > \"$0/pid\"; exec \"$@\"' \"$0\" \"$@\"; code=$?; \
                  stty -a < /dev/tty; exit $code";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(scene.directory.path());
    shell.arg(command.get_program()).args(command.get_args());
    at_terminal(&[], &shell)
}

#[test]
fn the_terminal_echoes_again_after_a_pass_that_ends_at_a_prompt() {
    let ask = "stty -echo < /dev/tty; touch $D/asked; read -r word < /dev/tty";
    // Like ssh. It works only while the program owns the terminal.
    let tidy = "trap 'stty echo < /dev/tty && touch $D/tidied; exit 255' TERM";
    for (script, tidies, is_by_signal) in [
        (format!("{tidy}; {ask}"), true, true),
        (format!("{tidy}; {ask}"), true, false),
        (ask.to_owned(), false, true),
        (ask.to_owned(), false, false),
    ] {
        let scene = Scene::synced(History::get());
        let pass = if is_by_signal {
            let command = through(&scene, &script, &[]);
            terminated_at_prompt(&scene, &command).expect(1)
        } else {
            let mut shell = Command::new("sh");
            shell.args([
                "-c",
                "\"$@\"; code=$?; stty -a < /dev/tty; exit $code",
                "sh",
            ]);
            let command = through(&scene, &script, &["--timeout", "3"]);
            shell.arg(command.get_program()).args(command.get_args());
            at_terminal(&[], &shell).expect(12)
        };
        let echoes = pass.stdout.split_whitespace().any(|word| word == "echo");
        assert!(echoes, "{pass:?}");
        let is_tidied = scene.directory.path().join("tidied").exists();
        assert_eq!(is_tidied, tidies, "{pass:?}");
    }
}

#[test]
fn in_the_background_of_a_terminal_a_prompt_fails() {
    let scene = Scene::synced(History::get());
    let pass = through(&scene, &format!("{ASK}; {SERVE}"), &[]);
    let mut command = Command::new("bash");
    command.args(["-c", "set -m; \"$@\" & wait $!", "bash"]);
    command.arg(pass.get_program()).args(pass.get_args());
    let asked = at_terminal(&[], &command).expect(12);
    assert!(asked.stdout.contains("wants to ask"), "{asked:?}");
}

/// A watch in its own PID namespace, with an orphan that has to be reaped.
#[test]
fn the_first_process_of_a_container_reaps_orphans() {
    let scene = Scene::synced(History::get());
    let orphan = "(setsid sh -c 'sleep 0.2; touch \"$0\"' $D/orphan-ended &)";
    let watch = through(&scene, &format!("{orphan}; {SERVE}"), &["--watch"]);
    let mut command = tool("unshare", "util-linux");
    command.args(["-p", "-f", "--kill-child"]);
    command.arg(watch.get_program()).args(watch.get_args());
    let mut watcher = Watcher::of(&scene, &mut command);
    watcher.expect("Finished syncing");
    wait_for("end of the orphan", || {
        scene.directory.path().join("orphan-ended").exists()
    });
    let task = format!("/proc/{0}/task/{0}/children", watcher.pid());
    let first = fs::read_to_string(task).expect("the kernel lists children");
    wait_for("reaper", || zombies_of(first.trim()) == 0);
}

/// Number of a process's children that have ended and were not reaped.
fn zombies_of(parent: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let stats = processes.map(|it| fs::read_to_string(it.path().join("stat")).unwrap_or_default());
    stats
        .filter(|stat| {
            let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            after_name.split(' ').take(2).eq(["Z", parent])
        })
        .count()
}

#[test]
fn the_first_process_of_a_container_learns_the_exit_code_of_its_program() {
    let scene = Scene::synced(History::get());
    // Orphans end all the time while they are reaped; then the program ends.
    let orphans = "for n in 1 2 3 4 5 6; do (true &); sleep 0.1; done";
    let pass = through(&scene, &format!("{orphans}; exit 127"), &[]);
    let mut command = tool("unshare", "util-linux");
    command.args(["-p", "-f", "--kill-child"]);
    command.arg(pass.get_program()).args(pass.get_args());
    for _ in 0..3 {
        let failed = run(&mut command).expect(12);
        assert!(failed.stderr.contains("exit code 127"), "{failed:?}");
    }
}
