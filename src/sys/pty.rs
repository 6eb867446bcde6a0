//! ROOT. Pseudo-terminals, and how a terminal treats what goes through it: its window, and whether it is raw. Never
//! reads or writes one.
//!
//! Sources: pty(7), pts(4), ioctl_tty(2), termios(3), TIOCGPTPEER of the kernel's drivers/tty/pty.c.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use super::fds::owned;
use super::retry;

/// Rows and columns of a terminal, and its size in pixels where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Rows of letters.
    pub rows: u16,
    /// Columns of letters.
    pub columns: u16,
    /// Width and height in pixels; 0 where nobody knows.
    pub pixels: (u16, u16),
}

/// A fresh pair: the master, which is the terminal's own side, and the slave, which is a command's. Both are
/// close-on-exec, and neither becomes anybody's controlling terminal by being opened.
///
/// The slave is had from the master, not by its name: no path has to be right for it. Errors: ENOENT or ENODEV where
/// no devpts is mounted, ENOSPC where there are as many terminals as there may be.
pub fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = match open_master(c"/dev/ptmx") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => open_master(c"/dev/pts/ptmx")?,
        master => master?,
    };
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    retry(|| unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes the flags by value and returns a fresh descriptor.
    let slave = retry(|| unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    Ok((master, owned(slave)))
}

fn open_master(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::open(path.as_ptr(), flags) }.into()).map(owned)
}

/// Makes a user the owner of a slave, as grantpt(3) does: the group stays the one that devpts has for terminals and
/// may write to it at the most, so that write(1) works where the system wants that; others may nothing.
pub fn give(slave: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    let file = File::from(slave.try_clone_to_owned()?);
    let now = file.metadata()?;
    if now.uid() != uid {
        fchown(slave, Some(uid), None)?;
    }
    let mode = 0o600 | now.mode() & 0o020;
    if now.mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The window of a terminal; ENOTTY where it is none.
pub fn window(fd: BorrowedFd<'_>) -> io::Result<Window> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    retry(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }.into())?;
    Ok(Window { rows: size.ws_row, columns: size.ws_col, pixels: (size.ws_xpixel, size.ws_ypixel) })
}

/// Sets the window of a terminal, of a pair by either side. Where it is another, who is in the foreground gets WINCH.
pub fn set_window(fd: BorrowedFd<'_>, window: Window) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: window.rows,
        ws_col: window.columns,
        ws_xpixel: window.pixels.0,
        ws_ypixel: window.pixels.1,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    retry(|| unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// How a terminal treats what goes through it.
#[derive(Clone, Copy, Debug)]
pub struct Manner(libc::termios);

impl Manner {
    /// That of a terminal; ENOTTY where it is none.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: all-zero bytes are a valid termios.
        let mut manner: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: tcgetattr writes one termios, which outlives the call.
        retry(|| unsafe { libc::tcgetattr(fd.as_raw_fd(), &raw mut manner) }.into())?;
        Ok(Self(manner))
    }

    /// The same, with every byte passed on as it is: no echo, no lines, no signals.
    pub fn raw(mut self) -> Self {
        // SAFETY: cfmakeraw changes the one termios that it is given.
        unsafe { libc::cfmakeraw(&raw mut self.0) };
        self
    }

    /// The same, where a letter may have several bytes: erasing one erases them all.
    pub fn of_utf8(mut self) -> Self {
        self.0.c_iflag |= libc::IUTF8;
        self
    }

    /// Gives it to a terminal at once, whatever waits in there. A background process is stopped by TTOU unless it
    /// blocks or ignores that.
    pub fn set(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: tcsetattr reads one termios, which outlives the call.
        retry(|| unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, &raw const self.0) }.into())
            .map(drop)
    }
}

/// Whether this process may treat a terminal as its own: it is in the foreground there, or the terminal controls
/// another session or none, and so knows no foreground for us.
pub fn is_in_front(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: tcgetpgrp touches no memory of ours.
    let front = unsafe { libc::tcgetpgrp(fd.as_raw_fd()) };
    // SAFETY: getpgrp touches no memory and cannot fail.
    front == -1 || front == unsafe { libc::getpgrp() }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_one_side_is_told_the_other_has() {
        let (master, slave) = open().unwrap();
        let window = Window { rows: 33, columns: 101, pixels: (7, 8) };
        set_window(master.as_fd(), window).unwrap();
        assert_eq!(super::window(slave.as_fd()).unwrap(), window);
        let raw = Manner::of(slave.as_fd()).unwrap().of_utf8().raw();
        raw.set(master.as_fd()).unwrap();
        let (mut master, mut slave) = (File::from(master), File::from(slave));
        slave.write_all(b"a\n").unwrap();
        let mut got = [0; 2];
        master.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"a\n", "a raw terminal makes no CR LF of it");
    }

    #[test]
    fn others_may_nothing_with_a_terminal_that_was_given_away() {
        let (_master, slave) = open().unwrap();
        let slave = File::from(slave);
        slave.set_permissions(Permissions::from_mode(0o666)).unwrap();
        let uid = slave.metadata().unwrap().uid();
        give(slave.as_fd(), uid).unwrap();
        assert_eq!(slave.metadata().unwrap().mode() & 0o7777, 0o620);
    }
}
