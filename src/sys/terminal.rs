//! ROOT. The terminal that controls a session: given up by one process and taken by another. Never decides who
//! has it.
//!
//! Sources: ioctl_tty(2), credentials(7), setpgid(2).

use std::io;

use super::retry;

/// Whether this process leads its session.
pub fn leads_session() -> bool {
    // SAFETY: getsid and getpid touch no memory.
    unsafe { libc::getsid(0) == libc::getpid() }
}

/// Gives up the controlling terminal, where standard input is it. The leader of a session takes it from the
/// whole session by that: HUP and CONT go to the foreground process group. ENOTTY where there is none.
pub fn give_up() -> io::Result<()> {
    // SAFETY: TIOCNOTTY takes no argument.
    retry(|| unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCNOTTY) }.into()).map(drop)
}

/// Makes standard input the controlling terminal of the session that this process leads, and its process group
/// the one in the foreground. ENOTTY where it is no terminal, EPERM where it controls another session.
pub fn take() -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a plain number; 0 takes it from nobody.
    retry(|| unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Whether a child that has not been reaped is in the process group of this process.
pub fn shares_group(child: u32) -> bool {
    // SAFETY: getpgid and getpgrp touch no memory.
    unsafe { libc::getpgid(child as libc::pid_t) == libc::getpgrp() }
}
