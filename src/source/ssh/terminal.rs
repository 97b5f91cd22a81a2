//! Lending the terminal to the program that connects.
//!
//! The program runs in a process group of its own, in the background. If it asks for a
//! password, or whether a host key is right, the kernel stops it (SIGTTIN, SIGTTOU). As
//! a shell does for a job, it is then put in the foreground and continued, provided that
//! fssync is in the foreground itself. Once it has connected or ended, fssync is put there
//! again, and gets what is typed: Ctrl-C. The settings of the terminal are then as they
//! were, also if a program was killed while it had the echo switched off.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::process::{Pid, Signal, getpgrp};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

/// The terminal, while another process group has it.
#[derive(Debug)]
pub(super) struct LentTerminal {
    terminal: File,
    /// As they were before.
    settings: Termios,
    to: Pid,
}

/// Whether a program that was stopped by this signal wants the terminal.
pub(super) fn is_asked_for_by(signal: i32) -> bool {
    // The last one comes of Ctrl-Z at a prompt, where nobody could continue it.
    [Signal::TTIN, Signal::TTOU, Signal::TSTP]
        .iter()
        .any(|known| known.as_raw() == signal)
}

impl LentTerminal {
    /// Puts a process group in the foreground; `None` if there is no terminal, or this
    /// process is not in the foreground.
    pub(super) fn to(group: Pid) -> Option<Self> {
        let terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        let is_ours = tcgetpgrp(&terminal).ok()? == getpgrp();
        if !is_ours {
            return None;
        }
        let settings = tcgetattr(&terminal).ok()?;
        tcsetpgrp(&terminal, group).ok()?;
        Some(Self {
            terminal,
            settings,
            to: group,
        })
    }
}

impl Drop for LentTerminal {
    /// Puts this process in the foreground again, with the settings as they were, unless
    /// a shell has put there what it likes.
    fn drop(&mut self) {
        if tcgetpgrp(&self.terminal) != Ok(self.to) {
            return;
        }
        // A background process that changes the terminal would be stopped.
        let mut stop = SigSet::empty();
        stop.add(Blocked::SIGTTOU);
        if stop.thread_block().is_ok() {
            let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.settings);
            let _ = tcsetpgrp(&self.terminal, getpgrp());
            let _ = stop.thread_unblock();
        }
    }
}
