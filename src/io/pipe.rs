//! Settings of the pipes to and from ssh.

use std::os::fd::AsFd;

/// The capacity of a pipe, in bytes.
const PIPE_LEN: usize = 1024 * 1024;

/// Increases the capacity of a pipe, so that its two ends wait less for each other. This is
/// best effort: the file may not be a pipe, or the user may have reached a limit.
pub fn widen(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_LEN);
}
