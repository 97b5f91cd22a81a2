use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal};

use super::*;

/// A shell script with this time limit.
fn script(text: &str, timeout: Duration) -> Program {
    Program {
        command: ["sh", "-c", text].map(str::to_owned).to_vec(),
        variables: Vec::new(),
        input: Vec::new(),
        timeout,
    }
}

const LONG: Duration = Duration::from_secs(60);

fn run_to_end(program: &Program) -> Result<String, String> {
    run(program, &|| false).map_err(|failure| failure.to_string())
}

#[test]
fn a_program_gets_its_arguments_variables_and_input_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("out");
    let program = Program {
        command: ["sh", "-c", "printf '%s|%s|' \"$1\" \"$IT\" > $0; cat >> $0"]
            .into_iter()
            .map(str::to_owned)
            .chain([to.display().to_string(), "a b;$(c)'".to_owned()])
            .collect(),
        variables: vec![("IT", "x\ny\0\"".to_owned())],
        input: vec![b'z'; 200_000],
        timeout: LONG,
    };
    run_to_end(&program).unwrap();
    let expected = format!("a b;$(c)'|x\ny?\"|{}", "z".repeat(200_000));
    assert!(fs::read_to_string(to).unwrap() == expected);
}

#[test]
fn a_program_that_does_not_read_its_input_is_not_waited_for() {
    let program = Program {
        input: vec![0; 5_000_000],
        ..script("exit 0", LONG)
    };
    run_to_end(&program).unwrap();
}

#[test]
fn a_failure_names_the_exit_code_and_the_end_of_the_output() {
    let ended = run_to_end(&script("echo out; echo err >&2", LONG));
    assert_eq!(ended.unwrap(), "out; err");
    let failed = run_to_end(&script("echo out; echo; echo err >&2; exit 3", LONG));
    assert_eq!(failed.unwrap_err(), "ended with exit code 3: out; err");
    let killed = run_to_end(&script("kill -9 $$", LONG));
    assert_eq!(killed.unwrap_err(), "was killed by signal 9");
    let missing = Program {
        command: vec!["/nowhere/hook".to_owned()],
        ..script("", LONG)
    };
    let missing = run_to_end(&missing).unwrap_err();
    assert!(
        missing.starts_with("cannot be started: No such file"),
        "{missing}"
    );
    let empty = Program {
        command: Vec::new(),
        ..script("", LONG)
    };
    assert!(run_to_end(&empty).is_err());
}

#[test]
fn only_the_end_of_a_flood_is_kept() {
    let flood = script(
        "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; exit 1",
        LONG,
    );
    let failed = run_to_end(&flood).unwrap_err();
    assert!(failed.ends_with("x; end"), "{failed}");
    assert!(failed.len() < 1100, "{}", failed.len());
}

#[test]
fn a_program_is_killed_after_its_time_with_all_its_processes() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let text = format!(
        "trap '' TERM; echo started; sleep 100 & echo $! $$ > {}; wait; sleep 100",
        pids.display()
    );
    let failed = run_to_end(&script(&text, Duration::from_millis(500))).unwrap_err();
    assert_eq!(failed, "was killed after 1 s: started");
    assert_ended(&pids);
}

#[test]
fn a_program_that_floods_forever_is_killed_too() {
    let flood = script("while :; do echo flood; done", Duration::from_millis(300));
    let failed = run_to_end(&flood).unwrap_err();
    assert!(failed.starts_with("was killed after"), "{failed}");
}

#[test]
fn a_daemon_that_keeps_the_output_open_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pid = directory.path().join("pid");
    let text = format!(
        "setsid sh -c 'echo $$ > {}; exec sleep 100' & while [ ! -s {0} ]; do :; done",
        pid.display()
    );
    run_to_end(&script(&text, LONG)).unwrap();
    let pid: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    // It still runs.
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

#[test]
fn a_program_is_killed_when_fssync_ends() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let text = format!("echo $$ > {}; sleep 100", pids.display());
    let ended = run(&script(&text, LONG), &|| {
        fs::read(&pids).is_ok_and(|it| !it.is_empty())
    });
    assert!(matches!(ended, Err(Failure::Halted)), "{ended:?}");
    assert_ended(&pids);
}

/// Fails if one of the processes in a file still runs after a moment. A zombie of another
/// parent has ended.
fn assert_ended(pids: &Path) {
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        let is_running = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.chars().next());
            state.is_some_and(|state| state != 'Z')
        };
        let until = Instant::now() + Duration::from_secs(5);
        while is_running() {
            assert!(Instant::now() < until, "{pid} runs");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
