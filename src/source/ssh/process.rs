//! Starts and ends the program that connects.
//!
//! The program runs in a process group of its own, so that it can be ended together with all
//! processes that it has started: the ssh of a wrapper or of a jump host, or a ProxyCommand.
//! Signals from the terminal, such as Ctrl-C, do not reach that group. See [`terminal`] for a
//! program that asks for a password.

use std::io;
use std::mem;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid,
    kill_current_process_group, kill_process_group, waitid, waitpid,
};

use super::terminal::{self, LentTerminal};
use crate::io::children::{self, OwnPid};

/// The time that a program gets for each of these: to end by itself after it has closed its
/// output, to clean up after SIGTERM, and to disappear after SIGKILL.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// A handle to the program that connects, by which any thread can end it.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    /// Programs that were killed but did not disappear in time. They still must be reaped.
    lingering: Vec<OwnPid>,
    /// Number of programs that threads are starting. Their process ids are not known yet. More
    /// than one is possible, because a thread that hangs is replaced.
    starting: usize,
    /// Whether no other program may be started.
    is_closed: bool,
}

/// Flags that the process and the thread that reads its standard error share.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessFlags {
    /// Set when fssync ends the program. Its complaints are not worth a warning then.
    pub(super) is_ended_by_us: Arc<AtomicBool>,
    /// Set when all processes that had its standard error have closed it.
    pub(super) is_stderr_closed: Arc<AtomicBool>,
}

/// How a program ended whose connection broke.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcessExit {
    /// Exit code, if it ended by itself.
    pub(super) code: Option<i32>,
    /// Whether it was killed because it wanted to ask a question without a terminal.
    pub(super) lacked_terminal: bool,
}

impl Process {
    /// Ends the program, if it is running, with its whole process group.
    pub fn end(&self) {
        self.lock().end();
    }

    /// Ends the program, and prevents that another one is started. Another thread may be starting
    /// one just now, and ends it then: wait for that, since fssync may exit afterwards.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.end();
        drop(state);
        wait_until(|| self.lock().starting == 0);
    }

    /// Does the periodic work while the program runs; call it several times a second:
    ///
    /// 1. Lends the terminal to a program that wants to ask for a password.
    /// 2. If the program has ended, ends the processes of its group, which may hold the
    ///    connection open.
    /// 3. If fssync is process 1 of its PID namespace, as in a container, reaps orphans.
    pub fn supervise(&self) {
        // Another thread that holds the lock is ending the program. Do not wait for it.
        let Ok(mut state) = self.0.try_lock() else {
            return;
        };
        if let Some(running) = &mut state.running {
            running.end_rest_of_group();
            running.lend_terminal();
        }
        if getpid().is_init() {
            state.reap_lingering();
            children::reap_others();
        }
    }

    /// Starts a program in a process group of its own, and ends the previous program.
    pub(super) fn start(
        &self,
        command: &mut Command,
        flags: ProcessFlags,
    ) -> io::Result<std::process::Child> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(io::Error::other("fssync is about to exit"));
        }
        state.starting += 1;
        // The start of a program can take long, for example from a slow file system.
        drop(state);
        let spawned = children::spawn(command.process_group(0));
        let mut state = self.lock();
        state.starting -= 1;
        let (child, own_pid) = spawned?;
        state.end();
        state.running = Some(Running {
            pid: own_pid.get(),
            own_pid,
            status: None,
            flags,
            was_ended: false,
            lent: None,
            lacked_terminal: false,
        });
        // `close` may have run before this program was registered.
        if state.is_closed {
            state.end();
        }
        Ok(child)
    }

    /// Takes the terminal back from the program, which has logged in.
    pub(super) fn take_terminal_back(&self) {
        if let Some(running) = &mut self.lock().running {
            running.lent = None;
        }
    }

    /// Ends the program with this process id, unless another one has replaced it. First gives
    /// it a moment to end by itself, so that its exit code is known.
    pub(super) fn finish(&self, pid: u32) -> ProcessExit {
        let mut state = self.lock();
        let Some(running) = state.with_pid(pid) else {
            return ProcessExit::default();
        };
        // The exit code decides the hint in the error message, so wait for it. A program that
        // must be ended has none of its own.
        let is_by_itself = wait_until(|| running.has_ended());
        let (was_lent, lacked_terminal) = (running.lent.is_some(), running.lacked_terminal);
        let status = state.end().filter(|_| is_by_itself);
        if let Some(signal) = status.filter(|_| was_lent).and_then(typed_signal) {
            // The user typed Ctrl-C at the prompt of the program, which had the terminal. Pass
            // the signal on to the group that the user meant: that of fssync.
            let _ = kill_current_process_group(signal);
        }
        ProcessExit {
            code: status.and_then(WaitStatus::exit_status),
            lacked_terminal,
        }
    }

    /// Ends the program with this process id at once, unless another one has replaced it.
    pub(super) fn abandon(&self, pid: u32) {
        let mut state = self.lock();
        if state.with_pid(pid).is_some() {
            state.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn with_pid(&mut self, pid: u32) -> Option<&mut Running> {
        let is_it = |running: &&mut Running| running.pid.as_raw_pid().cast_unsigned() == pid;
        self.running.as_mut().filter(is_it)
    }

    /// Ends the current program. Returns its exit status, if it disappeared in time.
    fn end(&mut self) -> Option<WaitStatus> {
        self.reap_lingering();
        let mut running = self.running.take()?;
        running.end();
        // A process in an uninterruptible system call survives SIGKILL for a while. Reap it
        // later, and do not wait now.
        if running.status.is_none() {
            self.lingering.push(running.own_pid);
        }
        running.status
    }

    /// Reaps programs that have disappeared late.
    fn reap_lingering(&mut self) {
        self.lingering.retain(|own| reap(own.get()).is_none());
    }
}

/// A program that was started and not reaped yet.
#[derive(Debug)]
struct Running {
    /// Process id, which is also the id of its process group.
    pid: Pid,
    /// Prevents that somebody else reaps it.
    own_pid: OwnPid,
    /// Exit status, once it was reaped.
    status: Option<WaitStatus>,
    flags: ProcessFlags,
    /// Whether an earlier check found that it has ended.
    was_ended: bool,
    /// The terminal, while it is lent to the program.
    lent: Option<LentTerminal>,
    lacked_terminal: bool,
}

impl Running {
    /// Ends the process group, in this order:
    ///
    /// 1. SIGTERM, so that ssh ends its own helpers.
    /// 2. Take the terminal back. A program at a password prompt has switched the echo off; on
    ///    SIGTERM it switches it on again, which it can do only while it has the terminal.
    /// 3. SIGKILL.
    /// 4. Reap the program. Until then, no other process or group can get its id, so the
    ///    signals cannot hit a stranger.
    fn end(&mut self) {
        self.flags.is_ended_by_us.store(true, Ordering::Relaxed);
        self.signal(Signal::TERM);
        if self.lent.is_some() {
            // A program that is stopped at its prompt handles SIGTERM only after SIGCONT.
            self.signal(Signal::CONT);
        }
        wait_until(|| self.has_ended() && self.flags.is_stderr_closed.load(Ordering::Relaxed));
        self.lent = None;
        self.signal(Signal::KILL);
        wait_until(|| {
            self.status = self.status.or_else(|| reap(self.pid));
            self.status.is_some()
        });
    }

    /// Sends a signal to the group. It may have no process left, so errors do not matter.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Whether the program has ended. Does not reap it.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.status.is_some() || !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// If the program has ended, ends the rest of its group: with SIGTERM at first, and with
    /// SIGKILL at the next call. Such a process may hold the pipe open, and the end of the pipe
    /// is how fssync notices a broken connection.
    fn end_rest_of_group(&mut self) {
        if self.has_ended() {
            let was_signalled = mem::replace(&mut self.was_ended, true);
            self.signal(if was_signalled {
                Signal::KILL
            } else {
                Signal::TERM
            });
        }
    }

    /// Lends the terminal to the program if the kernel stopped it because it used the terminal
    /// from the background. Kills the program if there is no terminal to lend.
    fn lend_terminal(&mut self) {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let stopped = match waitid(WaitId::Pid(self.pid), options) {
            Ok(Some(status)) => status.stopping_signal(),
            _ => None,
        };
        // Other stops, such as SIGSTOP from an administrator, are not requests for the terminal.
        if !stopped.is_some_and(terminal::is_asked_for_by) {
            return;
        }
        self.lent = self.lent.take().or_else(|| LentTerminal::to(self.pid));
        self.lacked_terminal = self.lent.is_none();
        self.signal(if self.lacked_terminal {
            Signal::KILL
        } else {
            Signal::CONT
        });
    }
}

/// The signal that the user typed at the prompt of a program, according to its exit status.
/// Either the signal killed the program, or the program is a wrapper and exits with 128 plus
/// the number of the signal that killed its child.
fn typed_signal(status: WaitStatus) -> Option<Signal> {
    let number = match status.exit_status() {
        Some(code) => code - 128,
        None => status.terminating_signal()?,
    };
    [Signal::INT, Signal::QUIT]
        .into_iter()
        .find(|signal| signal.as_raw() == number)
}

/// Reaps a child if it has ended, and returns its exit status.
fn reap(pid: Pid) -> Option<WaitStatus> {
    let (_, status) = waitpid(Some(pid), WaitOptions::NOHANG).ok()??;
    Some(status)
}

/// Waits until the condition is true, for at most [`END_TIMEOUT`]. Returns whether it is.
fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    const MAX_PAUSE: Duration = Duration::from_millis(20);
    let until = Instant::now() + END_TIMEOUT;
    let mut pause = Duration::from_micros(200);
    while !condition() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(pause);
        pause = MAX_PAUSE.min(pause * 2);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_runs_after_close() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..60 {
            let trace = directory.path().join(format!("trace{round}"));
            let process = Process::default();
            let other = process.clone();
            let mut command = Command::new("sh");
            command.args(["-c", "echo > \"$0\"; exec sleep 60"]);
            command.arg(&trace);
            // Nobody reads its standard error, so do not wait for the end of that.
            let flags = ProcessFlags::default();
            flags.is_stderr_closed.store(true, Ordering::Relaxed);
            let thread = thread::Builder::new()
                .spawn(move || other.start(&mut command, flags))
                .unwrap();
            thread::sleep(Duration::from_micros(40 * round));
            process.close();
            let has_run = trace.exists();
            let started = thread.join().unwrap();
            thread::sleep(Duration::from_millis(10));
            assert_eq!(trace.exists(), has_run, "{round}");
            if let Ok(mut child) = started {
                // It was reaped by its process id.
                assert!(child.try_wait().is_err(), "{round}");
            }
        }
    }
}
