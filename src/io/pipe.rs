//! Pipes between a program and its peer.

use std::os::fd::AsFd;

/// How much a pipe is to hold, in bytes.
const PIPE_LEN: usize = 1024 * 1024;

/// Lets a pipe hold much, so that its two ends wait less for each other. Best
/// effort: it may be no pipe, or the user may have no more to give.
pub fn widen(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_LEN);
}
