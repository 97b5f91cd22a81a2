//! Lends the terminal to the program that connects.
//!
//! The program runs in a process group of its own, in the background. If it asks for a password
//! or for the confirmation of a host key, the kernel stops it with SIGTTIN or SIGTTOU. If
//! fssync itself is in the foreground, it then does the same as a shell: it puts the program in
//! the foreground and continues it. After the program has connected or ended, fssync puts
//! itself in the foreground again, so that Ctrl-C reaches it. It also restores the settings of
//! the terminal, because the program may have been killed while the echo was off.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::process::{Pid, Signal, getpgrp};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};

/// The terminal while another process group is in the foreground.
#[derive(Debug)]
pub(super) struct LentTerminal {
    terminal: File,
    /// The settings before it was lent.
    settings: Termios,
    to: Pid,
}

/// Whether a program that this signal stopped wants to use the terminal.
pub(super) fn is_asked_for_by(signal: i32) -> bool {
    // SIGTSTP comes from Ctrl-Z at the prompt. No shell knows the program, so nobody else
    // would continue it.
    [Signal::TTIN, Signal::TTOU, Signal::TSTP]
        .iter()
        .any(|known| known.as_raw() == signal)
}

impl LentTerminal {
    /// Puts a process group in the foreground. Returns `None` if there is no terminal, or if
    /// this process is not in the foreground.
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
    /// Puts this process in the foreground again and restores the settings, unless a shell has
    /// put another group in the foreground in the meantime.
    fn drop(&mut self) {
        if tcgetpgrp(&self.terminal) != Ok(self.to) {
            return;
        }
        // This process is in the background now. Without the block, the kernel would stop it
        // when it changes the terminal.
        let mut stop = SigSet::empty();
        stop.add(Blocked::SIGTTOU);
        if stop.thread_block().is_ok() {
            let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.settings);
            let _ = tcsetpgrp(&self.terminal, getpgrp());
            let _ = stop.thread_unblock();
        }
    }
}
