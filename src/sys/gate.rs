//! ROOT. Waiting for one descriptor. Never reads or writes it.
//!
//! Source: poll(2). A peer that has gone counts as ready: the call that follows says so.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::retry;

/// Waits until a read would not block, without a limit.
pub fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    wait(fd, libc::POLLIN, -1)
}

/// Waits until a write would not block, at most so long.
pub fn wait_writable(fd: BorrowedFd<'_>, milliseconds: i32) -> io::Result<()> {
    wait(fd, libc::POLLOUT, milliseconds)
}

/// Waits until the peer has gone, at most so long.
pub fn wait_gone(fd: BorrowedFd<'_>, milliseconds: i32) -> io::Result<()> {
    wait(fd, 0, milliseconds)
}

/// Whether the peer has gone.
pub fn is_gone(fd: BorrowedFd<'_>) -> bool {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: the pointer and count describe `one`.
    let ready = unsafe { libc::poll(&raw mut one, 1, 0) };
    ready == 1 && one.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0
}

fn wait(fd: BorrowedFd<'_>, events: libc::c_short, milliseconds: i32) -> io::Result<()> {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: the pointer and count describe `one`.
    retry(|| unsafe { libc::poll(&raw mut one, 1, milliseconds) }.into()).map(drop)
}
