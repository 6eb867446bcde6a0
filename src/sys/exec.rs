//! ROOT. What a process does to itself on the way to a command: session, directory, keyring, places of
//! descriptors. Never allocates, never decides the order.
//!
//! Sources: setsid(2), umask(2), chdir(2), getcwd(2), keyctl(2), dup(2), close_range(2), ioctl_tty(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::{fds, limits, retry};
use crate::plan::{MOST_PATH_BYTES, Resource};

/// A session of its own, without a terminal.
pub fn new_session() -> io::Result<()> {
    // SAFETY: setsid touches no memory.
    retry(|| unsafe { libc::setsid() }.into()).map(drop)
}

/// Permission bits taken from new files.
pub fn set_umask(mask: u32) {
    // SAFETY: umask touches no memory and cannot fail.
    unsafe { libc::umask(mask) };
}

/// A fresh session keyring in place of the one that was inherited.
pub fn private_keyring() -> io::Result<()> {
    let nameless = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring; nothing is read or written.
    retry(|| unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, nameless) })
        .map(drop)
}

/// Changes to a directory.
pub fn enter(directory: &CStr) -> io::Result<()> {
    // SAFETY: the path is NUL-terminated and alive across the call.
    retry(|| unsafe { libc::chdir(directory.as_ptr()) }.into()).map(drop)
}

/// Whether the working directory can be reached from the root; the kernel says `(unreachable)` otherwise.
pub fn directory_is_reachable() -> io::Result<bool> {
    let mut path = [0_u8; MOST_PATH_BYTES];
    // SAFETY: the pointer and length describe `path`.
    retry(|| unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) })?;
    Ok(path.first() == Some(&b'/'))
}

/// Whether something is at `path`, as the effective user sees it.
pub fn exists(path: &CStr) -> bool {
    // SAFETY: the path is NUL-terminated and alive across the call.
    retry(|| unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::F_OK, libc::AT_EACCESS) }.into())
        .is_ok()
}

/// Makes `number` the same open file as `fd`, open across an exec; whatever was there is closed.
///
/// Only for a process that is about to execute something: the owner of what was there is not asked.
/// `fd` itself must not be `number`.
pub fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: dup2 touches no memory; the caller gives up what was at `number`.
    retry(|| unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Closes a descriptor whose owner will never look at it again, as this process only goes on to execute
/// something or to end.
pub fn abandon(fd: BorrowedFd<'_>) {
    // SAFETY: close touches no memory; the caller does not use the descriptor again.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Marks every descriptor from `first` on close-on-exec, one by one where close_range(2) is refused.
pub fn close_rest_on_exec(first: RawFd) -> io::Result<()> {
    if fds::close_on_exec_from(first).is_ok() {
        return Ok(());
    }
    let (soft, _) = limits::limit(Resource::Nofile)?;
    for number in first..RawFd::try_from(soft).unwrap_or(RawFd::MAX) {
        // SAFETY: fcntl with F_SETFD touches no memory; EBADF for a number that is not open is expected.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Waits, for a child that has nothing to wait for but the time.
pub fn nap(milliseconds: u32) {
    let time = libc::timespec {
        tv_sec: (milliseconds / 1000).into(),
        tv_nsec: (milliseconds % 1000 * 1_000_000).into(),
    };
    // SAFETY: `time` is alive across the call; an early end only means an early next try.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}
