//! Starts and stops processes with `strace`.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

use rustix::process::Pid;

use super::Message;
use crate::interleavings::call::CALLS;
use crate::support::{spawn, tracer};

/// `strace`, which writes its log to its standard input, a pipe.
fn options(more: &[&str], files: &[PathBuf]) -> Command {
    let (trace, stop) = (
        format!("trace={CALLS}"),
        format!("inject={CALLS}:signal=SIGSTOP"),
    );
    let ours = [
        "-y",
        "-s0",
        "-a0",
        "-o",
        "/dev/stdin",
        "-e",
        &trace,
        "-e",
        &stop,
    ];
    tracer(&[more, &ours].concat(), files)
}

/// Starts a program under `strace`, which becomes its child.
pub fn trace(command: &Command, files: &[PathBuf], output: &Path, trace: PipeWriter) -> Child {
    let mut traced = options(&["-D", "-q"], files);
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        traced.env(name, value.expect("a value"));
    }
    let output = File::create(output).expect("a file");
    traced
        .stdin(trace)
        .stderr(output.try_clone().expect("its handle"));
    spawn(traced.stdout(output))
}

/// Attaches to a process that waits for a command.
pub fn attach(pid: Pid, files: &[PathBuf], trace: PipeWriter) -> Child {
    let pid = pid.as_raw_nonzero().to_string();
    let mut tracing = options(&["-p", &pid], files);
    tracing
        .stdin(trace)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = spawn(&mut tracing);
    let mut line = String::new();
    let stderr = child.stderr.take().expect("its standard error");
    let read = BufReader::new(stderr).read_line(&mut line);
    assert!(read.is_ok() && line.contains("attached"), "{line}");
    child
}

/// Forwards the log of `strace`, line by line.
pub fn listen(reader: PipeReader, sender: Sender<Message>) {
    thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        let messages = lines.map(Message::Line).chain([Message::End]);
        // After the last answer of ZODB's, nobody receives messages any more.
        let _ = messages.map(|it| sender.send(it)).all(|sent| sent.is_ok());
    });
}
