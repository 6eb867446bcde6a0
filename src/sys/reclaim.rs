//! ROOT. What another process has open, and our own way into it: a copy of its socket, a read end of the pipe that it
//! writes to. Never opens what the kernel does not call by the number that is sought.
//!
//! Sources: pidfd_getfd(2) (Linux 5.6, with the rights of PTRACE_MODE_ATTACH_REALCREDS), proc_pid_fd(5), pipe(7) and
//! open(2) on O_PATH.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::fds::owned;
use super::retry;

/// What a descriptor is of, by the number that the kernel has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Open {
    /// A socket.
    Socket(u64),
    /// A pipe.
    Pipe(u64),
}

/// The sockets and pipes that a process has open, with its numbers of them. The kernel makes the names, so reading them
/// waits for nobody.
pub fn open_by(pid: u32) -> io::Result<Vec<(i32, Open)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        match fs::read_link(entry.path()) {
            Ok(link) => found.extend(number.zip(link.to_str().and_then(parse))),
            // Who may not look is told so; what has been closed meanwhile is not there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

fn parse(link: &str) -> Option<Open> {
    let (kind, number) = link.strip_suffix(']')?.split_once(":[")?;
    let number = number.parse().ok()?;
    match kind {
        "socket" => Some(Open::Socket(number)),
        "pipe" => Some(Open::Pipe(number)),
        _ => None,
    }
}

/// Our own descriptor of what the process behind `pidfd` has open as `fd`: the same open file description.
///
/// Errors: EPERM without the right to trace it, ENOSYS before Linux 5.6.
pub fn copy(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes plain numbers.
    retry(|| unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) }).map(owned)
}

/// A read end, which does not wait, of the pipe with this number that a process has open as `fd`.
///
/// Errors: EACCES without the right to look into it or to open the pipe, ESTALE where it is another one by now.
pub fn reader(pid: u32, fd: i32, pipe: u64) -> io::Result<OwnedFd> {
    // A name alone opens nothing; what it is of is known before it is opened, and stays the same.
    let path = format!("/proc/{pid}/fd/{fd}");
    let name = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
    let own = format!("/proc/self/fd/{}", name.as_fd().as_raw_fd());
    if fs::read_link(&own)?.to_str().and_then(parse) != Some(Open::Pipe(pipe)) {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(own).map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fds, files, process};

    #[test]
    fn what_a_process_has_open_is_found_and_had_again() {
        let me = std::process::id();
        let (read, write) = fds::pipe(0).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = |fd: BorrowedFd<'_>| files::identity(fd).unwrap().1;
        let (pipe, socket_number) = (number(write.as_fd()), number(socket.as_fd()));
        let all = open_by(me).unwrap();
        assert!(all.contains(&(write.as_raw_fd(), Open::Pipe(pipe))), "{all:?}");
        assert!(all.contains(&(socket.as_raw_fd(), Open::Socket(socket_number))), "{all:?}");
        let pidfd = process::open(me).unwrap();
        let copied = copy(pidfd.as_fd(), socket.as_raw_fd()).unwrap();
        assert_eq!(number(copied.as_fd()), socket_number);
        // What was written when nobody could read is not lost, and what is written then is read.
        fds::write(write.as_fd(), b"before ").unwrap();
        drop(read);
        let again = reader(me, write.as_raw_fd(), pipe).unwrap();
        fds::write(write.as_fd(), b"after").unwrap();
        let mut bytes = [0; 20];
        let count = fds::read(again.as_fd(), &mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"before after");
        let other = reader(me, write.as_raw_fd(), pipe + 1).unwrap_err();
        assert_eq!(other.raw_os_error(), Some(libc::ESTALE));
        assert!(reader(me, socket.as_raw_fd(), socket_number).is_err(), "a socket was taken for a pipe");
    }
}
