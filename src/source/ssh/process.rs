//! The program that connects: started in a process group of its own, and ended with all
//! that it has started there, be it a wrapper's ssh, a jump host's or a ProxyCommand.
//!
//! In that group the signals of a terminal (Ctrl-C) do not reach it; see
//! [`terminal`] for a program that asks for a password.

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
    kill_current_process_group, kill_process_group, wait, waitid, waitpid,
};

use super::terminal::{self, LentTerminal};

/// How long a program may take to end by itself, once it has closed its output; to tidy
/// up after SIGTERM; and to be gone after SIGKILL.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The program that connects, to be ended from outside.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    /// Those that were killed, and that the kernel has not let go of in time.
    lingering: Vec<Pid>,
    /// Whether no other is to be started.
    is_closed: bool,
}

/// How the ends of a connection see each other.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessFlags {
    /// Set once it is ended from here: what it complains of then is no news.
    pub(super) is_ended_by_us: Arc<AtomicBool>,
    /// Set once its standard error is closed by all that had it.
    pub(super) is_stderr_closed: Arc<AtomicBool>,
}

/// How a program ended that had broken the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcessExit {
    /// Its exit code, if it ended by itself.
    pub(super) code: Option<i32>,
    /// Whether it was ended because it wanted to ask for something, and nobody was there.
    pub(super) lacked_terminal: bool,
}

impl Process {
    /// Ends it, if it runs, with all that it has started in its process group.
    pub fn end(&self) {
        self.lock().end();
    }

    /// Ends it, for good.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.end();
    }

    /// Does what is due while it runs: lends it the terminal if it wants to ask for a
    /// password; if it has ended, ends what still holds the connection open. In a process that is the first one of its PID namespace, as in a
    /// container, also waits for the orphans that have become its children.
    pub fn supervise(&self) {
        // Whoever has it ends the program, and is not to be waited for.
        let Ok(mut state) = self.0.try_lock() else {
            return;
        };
        if let Some(running) = &mut state.running {
            running.end_what_it_left();
            running.lend_terminal();
        }
        if getpid().is_init() {
            state.reap_orphans();
        }
    }

    /// Starts a program in a process group of its own; one before it is ended.
    pub(super) fn start(
        &self,
        command: &mut Command,
        flags: ProcessFlags,
    ) -> io::Result<std::process::Child> {
        let child = command.process_group(0).spawn()?;
        let mut state = self.lock();
        state.end();
        state.running = Some(Running {
            pid: Pid::from_child(&child),
            status: None,
            flags,
            is_over: false,
            lent: None,
            lacked_terminal: false,
        });
        if state.is_closed {
            state.end();
        }
        Ok(child)
    }

    /// Takes the terminal back, if the program has it: it has nothing to ask any more.
    pub(super) fn take_terminal_back(&self) {
        if let Some(running) = &mut self.lock().running {
            running.lent = None;
        }
    }

    /// Ends the one with this process id, unless it is followed by another; it may end
    /// by itself in a moment.
    pub(super) fn finish(&self, pid: u32) -> ProcessExit {
        let mut state = self.lock();
        let Some(running) = state.with_pid(pid) else {
            return ProcessExit::default();
        };
        let is_by_itself = wait_until(|| running.has_ended());
        let (was_lent, lacked_terminal) = (running.lent.is_some(), running.lacked_terminal);
        let status = state.end().filter(|_| is_by_itself);
        if let Some(signal) = status.filter(|_| was_lent).and_then(typed_signal) {
            // Ctrl-C was typed at a prompt, and is meant for all that runs there.
            let _ = kill_current_process_group(signal);
        }
        ProcessExit {
            code: status.and_then(WaitStatus::exit_status),
            lacked_terminal,
        }
    }

    /// Ends the one with this process id, if it still runs.
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

    /// Ends what runs; how the program ended, if the kernel says so in time.
    fn end(&mut self) -> Option<WaitStatus> {
        self.lingering.retain(|&pid| reap(pid).is_none());
        let mut running = self.running.take()?;
        running.end();
        if running.status.is_none() {
            self.lingering.push(running.pid);
        }
        running.status
    }

    /// Waits for all children that have ended. The program that connects may be one of
    /// them.
    fn reap_orphans(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.lingering.retain(|&lingering| lingering != pid);
            if let Some(running) = self.running.as_mut().filter(|it| it.pid == pid) {
                running.status = Some(status);
            }
        }
    }
}

/// A program that was started, and is not known to be gone.
#[derive(Debug)]
struct Running {
    /// Also the id of its process group.
    pid: Pid,
    /// How it ended, once it was waited for.
    status: Option<WaitStatus>,
    flags: ProcessFlags,
    /// Whether it was seen to have ended by itself.
    is_over: bool,
    /// The terminal, while it has it.
    lent: Option<LentTerminal>,
    lacked_terminal: bool,
}

impl Running {
    /// Ends the group: with SIGTERM, so that ssh ends its own helpers, and then with
    /// SIGKILL.
    ///
    /// The terminal is taken back in between. A program at a prompt has switched the
    /// echo off, and may switch it on again only as long as it has the terminal.
    ///
    /// The program is waited for last: as long as it is not, no other process and no
    /// other group can get its id.
    fn end(&mut self) {
        self.flags.is_ended_by_us.store(true, Ordering::Relaxed);
        self.signal(Signal::TERM);
        if self.lent.is_some() {
            // One that was stopped at its prompt does not heed SIGTERM.
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

    /// Sends a signal to the group, which may be gone.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Whether the program has ended; it is not waited for.
    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.status.is_some() || !matches!(waitid(WaitId::Pid(self.pid), look), Ok(None))
    }

    /// Ends what a program that has ended left in its group: it may hold the pipe open by
    /// whose end a broken connection is known.
    fn end_what_it_left(&mut self) {
        if self.has_ended() {
            let was_over = mem::replace(&mut self.is_over, true);
            self.signal(if was_over { Signal::KILL } else { Signal::TERM });
        }
    }

    /// Lends the terminal if the program was stopped because it does not have it; ends
    /// the program if there is none to lend.
    fn lend_terminal(&mut self) {
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let stopped = match waitid(WaitId::Pid(self.pid), look) {
            Ok(Some(status)) => status.stopping_signal(),
            _ => None,
        };
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

/// The signal that was typed at a program's prompt, by how the program ended: by the
/// signal, or, as a wrapper does whose own program ended so, with 128 and its number.
fn typed_signal(status: WaitStatus) -> Option<Signal> {
    let number = match status.exit_status() {
        Some(code) => code - 128,
        None => status.terminating_signal()?,
    };
    [Signal::INT, Signal::QUIT]
        .into_iter()
        .find(|signal| signal.as_raw() == number)
}

/// Waits for a child that has ended; how it ended.
fn reap(pid: Pid) -> Option<WaitStatus> {
    let (_, status) = waitpid(Some(pid), WaitOptions::NOHANG).ok()??;
    Some(status)
}

/// Waits until something is so, but not for long; whether it is.
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
