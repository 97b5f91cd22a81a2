//! A real process that stops behind each of its calls that concern the slave.
//!
//! `strace` sends it a SIGSTOP at each of them, which takes effect when the call is done;
//! SIGCONT lets it go on to the next. One SIGSTOP stops all of its threads. Nothing of ours
//! waits in the kernel for a lock: one that is taken is tried again and again.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::call::{CALLS, Call, Line, Lines};
use crate::support::{Zodb, spawn, tracer};

/// A process that does nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// A watch that does nothing for so long rests.
const IDLE: Duration = Duration::from_millis(150);

/// What an process is to do.
pub enum Task {
    /// A program, to its end.
    Program(Command),
    /// The same of one that stays: it gets a SIGTERM once it rests.
    Watch(Command),
    /// Commands to a process that drives ZODB, as long as they succeed.
    Zodb(Arc<Mutex<Zodb>>, Vec<Value>),
}

/// How an process has ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// A program's exit code; of ZODB, 0 if all commands succeeded, or else 1.
    pub code: i32,
    /// What a program said.
    pub output: String,
    /// ZODB's answers.
    pub answers: Vec<Value>,
}

/// How far an process went.
pub enum Progress {
    /// It made these calls, and has stopped.
    Stopped(Vec<Call>),
    /// It made these and came to its end.
    Ended(Vec<Call>, Exit),
}

/// An process, which is started when it is let go for the first time.
pub struct Process {
    task: Task,
    /// Where its program's output goes.
    output: PathBuf,
    files: Vec<PathBuf>,
    running: Option<Running>,
}

struct Running {
    /// The process that stops.
    pid: Pid,
    /// It, or `strace` where it was there before.
    child: Child,
    messages: Receiver<Message>,
    sender: Sender<Message>,
    lines: Lines,
    answers: Vec<Value>,
    is_terminated: bool,
}

enum Message {
    Line(String),
    Answer(Value),
    /// `strace` and what it traced have ended.
    End,
}

impl Process {
    /// Stops at calls that concern these files.
    pub fn new(task: Task, files: &[PathBuf], output: PathBuf) -> Self {
        Self {
            task,
            output,
            files: files.to_vec(),
            running: None,
        }
    }

    /// Lets it go on to its next call.
    pub fn resume(&mut self) -> Progress {
        match &self.running {
            Some(running) => running.signal(Signal::CONT),
            None => self.start(),
        }
        let mut calls = Vec::new();
        let mut stopped = HashSet::new();
        loop {
            match self.next_message() {
                Some(Message::Line(line)) => {
                    let running = self.running.as_mut().expect("it runs");
                    match running.lines.read(&line) {
                        Line::Call(call) => calls.push(call),
                        Line::Stopped(thread) => drop(stopped.insert(thread)),
                        Line::Other => {}
                    }
                    if !stopped.is_empty() && running.threads().is_subset(&stopped) {
                        return Progress::Stopped(calls);
                    }
                }
                Some(Message::Answer(answer)) => {
                    if let Some(exit) = self.take_answer(answer) {
                        return Progress::Ended(calls, exit);
                    }
                }
                Some(Message::End) => return Progress::Ended(calls, self.end()),
                None => panic!("{} is stuck behind {calls:?}", self.output.display()),
            }
        }
    }

    fn start(&mut self) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (sender, messages) = mpsc::channel();
        let (pid, child) = match &self.task {
            Task::Program(command) | Task::Watch(command) => {
                let child = trace(command, &self.files, &self.output, writer);
                (Pid::from_child(&child), child)
            }
            Task::Zodb(zodb, _) => {
                let pid = zodb.lock().unwrap_or_else(PoisonError::into_inner).pid();
                let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
                (pid, attach(pid, &self.files, writer))
            }
        };
        listen(reader, sender.clone());
        self.running = Some(Running {
            pid,
            child,
            messages,
            sender,
            lines: Lines::default(),
            answers: Vec::new(),
            is_terminated: false,
        });
        self.give_next_command();
    }

    /// What is messages next; `None` where nothing is for too long.
    fn next_message(&mut self) -> Option<Message> {
        let stays = matches!(self.task, Task::Watch(_));
        let running = self.running.as_mut().expect("it runs");
        if stays && !running.is_terminated {
            match running.messages.recv_timeout(IDLE) {
                Err(RecvTimeoutError::Timeout) if running.handles_signals() => {
                    running.is_terminated = true;
                    running.signal(Signal::TERM);
                }
                Err(_) => {}
                Ok(messages) => return Some(messages),
            }
        }
        running.messages.recv_timeout(STUCK).ok()
    }

    /// Gives ZODB the command that is next, if there is one.
    fn give_next_command(&self) -> bool {
        let Task::Zodb(zodb, commands) = &self.task else {
            return false;
        };
        let running = self.running.as_ref().expect("it runs");
        let Some(command) = commands.get(running.answers.len()).cloned() else {
            return false;
        };
        let (zodb, sender) = (Arc::clone(zodb), running.sender.clone());
        thread::spawn(move || {
            let mut zodb = zodb.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody listens any more where the test has failed.
            let _ = sender.send(Message::Answer(zodb.attempt(&command)));
        });
        true
    }

    /// Takes what ZODB has answered: its exit, if that was the last.
    fn take_answer(&mut self, answer: Value) -> Option<Exit> {
        let is_ok = answer["ok"] == true;
        self.running.as_mut().expect("it runs").answers.push(answer);
        if is_ok && self.give_next_command() {
            return None;
        }
        let mut running = self.running.take().expect("it runs");
        running.detach();
        Some(Exit {
            code: i32::from(!is_ok),
            output: String::new(),
            answers: running.answers.clone(),
        })
    }

    /// How a program has ended.
    fn end(&mut self) -> Exit {
        let mut running = self.running.take().expect("it runs");
        let status = running.child.wait().expect("its status");
        Exit {
            code: status.code().unwrap_or(-1),
            output: fs::read_to_string(&self.output).expect("what it said"),
            answers: Vec::new(),
        }
    }
}

impl Drop for Process {
    /// Kills what has not ended; a ZODB goes with its driver.
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.signal(Signal::KILL);
            let _ = running.child.wait();
        }
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = kill_process(self.pid, signal);
    }

    /// The threads that it has now.
    fn threads(&self) -> HashSet<String> {
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let Ok(tasks) = fs::read_dir(tasks) else {
            return HashSet::new();
        };
        let name = |task: io::Result<fs::DirEntry>| task.ok()?.file_name().into_string().ok();
        tasks.filter_map(name).collect()
    }

    /// Whether a SIGTERM is not just the end of it.
    fn handles_signals(&self) -> bool {
        let status = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(status).unwrap_or_default();
        let caught = status.lines().find_map(|it| it.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
        caught.is_some_and(|it| it & (1 << (Signal::TERM.as_raw() - 1)) != 0)
    }

    /// Ends `strace`, which lets go of what it was attached to.
    fn detach(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// What `strace` does to a process: it writes to its standard input, a pipe, what happens.
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

/// Starts a program. `strace` is its child, not the other way round.
fn trace(command: &Command, files: &[PathBuf], output: &Path, trace: PipeWriter) -> Child {
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
fn attach(pid: Pid, files: &[PathBuf], trace: PipeWriter) -> Child {
    let pid = pid.as_raw_nonzero().to_string();
    let mut tracing = options(&["-p", &pid], files);
    tracing
        .stdin(trace)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = spawn(&mut tracing);
    let mut said = String::new();
    let stderr = child.stderr.take().expect("its standard error");
    let read = BufReader::new(stderr).read_line(&mut said);
    assert!(read.is_ok() && said.contains("attached"), "{said}");
    child
}

/// Passes on what `strace` says.
fn listen(reader: PipeReader, sender: Sender<Message>) {
    thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        let messages = lines.map(Message::Line).chain([Message::End]);
        // Nobody listens any more once ZODB has answered.
        let _ = messages.map(|it| sender.send(it)).all(|sent| sent.is_ok());
    });
}
