//! ROOT. Descriptors: pipes, duplicates, flags, the table's size. Never decides who gets one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::retry;

/// Writes a line to standard error. That nobody can hear it is no reason to end: a process started by `supervise` may
/// have a full disk there, or nothing.
pub fn complain(text: &str) {
    let _ = io::Write::write_all(&mut io::stderr(), format!("supervise: {text}\n").as_bytes());
}

/// Takes ownership of a descriptor that a system call has just returned.
pub(crate) fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the callers in `sys` pass the fresh, non-negative result of a call that creates a descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A pipe as (read end, write end), both close-on-exec, with `flags` added (pipe2(2)).
pub fn pipe(flags: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0 as RawFd; 2];
    // SAFETY: `ends` has room for the two descriptors pipe2 writes.
    retry(|| unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | flags) }.into())?;
    Ok((owned(ends[0].into()), owned(ends[1].into())))
}

/// A duplicate at the lowest free number from `least` on, close-on-exec (fcntl(2), F_DUPFD_CLOEXEC).
pub fn duplicate_from(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory.
    let new = retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }.into())?;
    Ok(owned(new))
}

/// A duplicate, close-on-exec.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    duplicate_from(fd, 3)
}

/// Sets or clears close-on-exec.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: fcntl with F_SETFD touches no memory.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }.into()).map(drop)
}

/// Sets or clears O_NONBLOCK. The flag belongs to the open file description: every holder sees it.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: fcntl with F_GETFL touches no memory.
    let flags = retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())? as libc::c_int;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: fcntl with F_SETFL touches no memory.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }.into()).map(drop)
}

/// Reads into `buffer`; 0 is end of file. EAGAIN comes back as `WouldBlock`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `buffer`, which outlives the call.
    retry(|| unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } as libc::c_long)
        .map(|count| count as usize)
}

/// Writes from `bytes`; may write less than all of it.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe `bytes`, which outlives the call.
    retry(|| unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as libc::c_long)
        .map(|count| count as usize)
}

/// The file behind a descriptor, opened once more for writing that never waits: the flag belongs to the new
/// open file description alone (proc(5), /proc/PID/fd). Errors: ENXIO for a socket, EACCES where the file's
/// mode says so.
pub fn reopened_to_write(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: `path` is NUL-terminated and alive across the call.
    retry(|| unsafe { libc::open(path.as_ptr(), flags) }.into()).map(owned)
}

/// Takes ownership of a descriptor this process was started with, at a number its parent promised.
///
/// Fails with EBADF where there is none. Called once per number, first thing in a process.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD touches no memory and only asks whether the number is in use.
    retry(|| unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    Ok(owned(number.into()))
}

/// Whether standard output was closed when this process began.
static OUTPUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Looks before Rust's runtime does: that opens /dev/null wherever one of the three is closed, and what is written is
/// written to nobody from then on, without an error.
extern "C" fn look_at_output() {
    // SAFETY: fcntl with F_GETFD touches no memory and only asks whether the number is in use.
    if unsafe { libc::fcntl(1, libc::F_GETFD) } == -1 {
        OUTPUT_WAS_CLOSED.store(true, Ordering::Relaxed);
    }
}

// SAFETY: the C library calls what stands in this section once, before `main` and on its only thread, with arguments that
// a function without any leaves alone; it needs nothing that is not there by then.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_OUTPUT: extern "C" fn() = look_at_output;

/// EBADF where standard output was closed when this process began, whatever is there now.
pub fn output_was_open() -> io::Result<()> {
    match OUTPUT_WAS_CLOSED.load(Ordering::Relaxed) {
        true => Err(io::Error::from_raw_os_error(libc::EBADF)),
        false => Ok(()),
    }
}

/// Opens /dev/null into each of 0, 1 and 2 that is closed, so that no socket ever lands there.
pub fn fill_standard() -> io::Result<()> {
    for number in 0..3 {
        // SAFETY: fcntl with F_GETFD touches no memory.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            // SAFETY: the path is a NUL-terminated constant.
            let fd = retry(|| unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) }.into())?;
            debug_assert_eq!(fd, libc::c_long::from(number));
        }
    }
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)).
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC touches no memory and closes nothing.
    retry(|| unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}
