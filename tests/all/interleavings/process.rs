//! A real process that stops after each call that it makes on the slave's files.
//!
//! `strace` sends it a SIGSTOP at each of them, which takes effect when the call is done;
//! SIGCONT resumes it until the next one. One SIGSTOP stops all threads. fssync never waits in
//! the kernel for a lock: it tries again and again to take one that is held.

mod strace;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::strace::{attach, listen, trace};
use super::call::{Call, Line, Lines};
use crate::crash::actor::Actor;
use crate::support::{Scene, Zodb};

/// A process that makes no call for this long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// A watch that makes no call for this long is idle.
const IDLE: Duration = Duration::from_millis(150);

/// What a process is to do.
pub enum Task {
    /// A program, to its end.
    Program(Command),
    /// A program that does not end: it gets a SIGTERM once it is idle.
    Watch(Command),
    /// Commands for a process that drives ZODB, as long as they succeed.
    Zodb(Arc<Mutex<Zodb>>, Vec<Value>),
}

impl Task {
    /// The task of an actor; `zodb` is for this task only.
    pub fn of(actor: Actor, scene: &Scene, zodb: &Arc<Mutex<Zodb>>) -> Self {
        match actor {
            Actor::Zodb(session) => Self::Zodb(Arc::clone(zodb), session.commands(scene)),
            Actor::Watch => Self::Watch(actor.command(scene)),
            _ => Self::Program(actor.command(scene)),
        }
    }
}

/// How a process has ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit code of a program. For ZODB: 0 if all commands succeeded, otherwise 1.
    pub code: i32,
    /// The output of a program.
    pub output: String,
    /// The answers of ZODB.
    pub answers: Vec<Value>,
}

/// How far a process has run.
pub enum Progress {
    /// It has made these calls, and has stopped.
    Stopped(Vec<Call>),
    /// It has made these calls, and has ended.
    Ended(Vec<Call>, Exit),
}

/// A process, which is started when it is resumed for the first time.
pub struct Process {
    task: Task,
    /// The file for the output of its program.
    output: PathBuf,
    files: Vec<PathBuf>,
    running: Option<Running>,
}

struct Running {
    /// The process that stops.
    pid: Pid,
    /// The same process, or `strace` if the process was started before.
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
    /// `strace` and the process have ended.
    End,
}

impl Process {
    /// It stops at calls on these files.
    pub fn new(task: Task, files: &[PathBuf], output: PathBuf) -> Self {
        Self {
            task,
            output,
            files: files.to_vec(),
            running: None,
        }
    }

    /// Resumes it until its next call.
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
                None => panic!("{} is stuck after {calls:?}", self.output.display()),
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

    /// The next message; `None` if there is none for too long.
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

    /// Gives ZODB its next command, if there is one.
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
            // If the test has failed, nobody receives messages any more.
            let _ = sender.send(Message::Answer(zodb.attempt(&command)));
        });
        true
    }

    /// Takes an answer of ZODB's; returns its exit if this was the last one.
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

    /// The exit of a program.
    fn end(&mut self) -> Exit {
        let mut running = self.running.take().expect("it runs");
        let status = running.child.wait().expect("its status");
        Exit {
            code: status.code().unwrap_or(-1),
            output: fs::read_to_string(&self.output).expect("its output"),
            answers: Vec::new(),
        }
    }
}

impl Drop for Process {
    /// Kills a process that has not ended. ZODB ends with the process that drives it.
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

    /// The threads that it has at the moment.
    fn threads(&self) -> HashSet<String> {
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let Ok(tasks) = fs::read_dir(tasks) else {
            return HashSet::new();
        };
        let name = |task: io::Result<fs::DirEntry>| task.ok()?.file_name().into_string().ok();
        tasks.filter_map(name).collect()
    }

    /// Whether it handles SIGTERM yet.
    fn handles_signals(&self) -> bool {
        let status = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(status).unwrap_or_default();
        let caught = status.lines().find_map(|it| it.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
        caught.is_some_and(|it| it & (1 << (Signal::TERM.as_raw() - 1)) != 0)
    }

    /// Ends `strace`, which detaches from the process.
    fn detach(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
