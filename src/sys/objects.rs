//! ROOT. Descriptors that others have made and sent: what is behind one, and closing it. Never waits for anybody but
//! the kernel.
//!
//! Sources: statx(2), fcntl(2), kcmp(2), close_range(2), and the kernel's `inet_release` and `filp_close`. Whoever made
//! a file may also be its file system (FUSE), or the server behind that (NFS): then fstat, poll and close wait for him.
//! So the type is asked without going there, and only what is the kernel's own is taken for something. A close that is
//! the last of a socket waits as SO_LINGER says, also for sockets that lie unread in the queue of another, but not
//! where the process, or thread, that has it ends: the kernel looks for PF_EXITING.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;

use super::retry;

/// What is behind a descriptor, where that is the kernel's own and nobody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A socket.
    Socket,
    /// A pipe or FIFO.
    Pipe,
    /// A pseudo terminal.
    Terminal,
    /// A file in memory: of memfd_create(2), or of tmpfs.
    Memory,
    /// Something without a name: an event, a timer, a process.
    Nameless,
}

impl Object {
    /// Whether it can be said of it that nobody is at its other end any more.
    pub const fn has_other_end(self) -> bool {
        matches!(self, Self::Socket | Self::Pipe | Self::Terminal)
    }
}

/// What is behind a descriptor. None for files of a disk, directories and devices, which may be somebody's, and for
/// what was opened with O_PATH.
pub fn object(fd: BorrowedFd<'_>) -> io::Result<Option<Object>> {
    // SAFETY: fcntl with F_GETFL touches no memory.
    let flags = retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())?;
    if flags & libc::c_long::from(libc::O_PATH) != 0 {
        return Ok(None);
    }
    let seen = look(fd)?;
    Ok(match u32::from(seen.stx_mode) & libc::S_IFMT {
        libc::S_IFSOCK => Some(Object::Socket),
        libc::S_IFIFO => Some(Object::Pipe),
        libc::S_IFCHR if is_terminal(seen.stx_rdev_major, seen.stx_rdev_minor) => Some(Object::Terminal),
        libc::S_IFREG if is_in_memory(fd) => Some(Object::Memory),
        0 => Some(Object::Nameless),
        _ => None,
    })
}

fn look(fd: BorrowedFd<'_>) -> io::Result<libc::statx> {
    // SAFETY: an all-zero statx is a valid value for the kernel to fill.
    let mut seen: libc::statx = unsafe { mem::zeroed() };
    let (raw, path, mask) = (fd.as_raw_fd(), c"".as_ptr(), libc::STATX_BASIC_STATS);
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is a NUL-terminated constant and `seen` is alive across the call.
    retry(|| unsafe { libc::statx(raw, path, flags, mask, &raw mut seen) }.into())?;
    Ok(seen)
}

/// Unix98 pseudo terminals, and /dev/ptmx.
const fn is_terminal(major: u32, minor: u32) -> bool {
    matches!((major, minor), (136..=143, _) | (5, 2))
}

/// The kernel says of its files in memory alone how they are sealed.
fn is_in_memory(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: fcntl with F_GET_SEALS touches no memory.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) }.into()).is_ok()
}

/// Whether two descriptors are of one open file. Where the kernel does not compare them, by what can be seen of both.
pub fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    const FILE: libc::c_int = 0; // KCMP_FILE of linux/kcmp.h
    let me = std::process::id();
    // SAFETY: kcmp takes plain numbers.
    let compared =
        retry(|| unsafe { libc::syscall(libc::SYS_kcmp, me, me, FILE, one.as_raw_fd(), other.as_raw_fd()) });
    if let Ok(order) = compared {
        return order == 0;
    }
    let seen = |fd: BorrowedFd<'_>| -> io::Result<_> {
        let seen = look(fd)?;
        // SAFETY: fcntl with F_GETFL touches no memory.
        let flags = retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())?;
        Ok((seen.stx_dev_major, seen.stx_dev_minor, seen.stx_ino, flags))
    };
    matches!((seen(one), seen(other)), (Ok(one), Ok(other)) if one == other)
}

/// Closes descriptors without waiting for what the last of a socket waits for: a thread that ends has a copy of each.
/// Where no thread can be had they are closed all the same.
pub fn let_go(doomed: Vec<OwnedFd>) {
    if doomed.is_empty() {
        return;
    }
    let (copied, wait_for_copies) = mpsc::channel();
    let (closed, wait_for_close) = mpsc::channel::<()>();
    let last = std::thread::Builder::new().name("closing".to_owned()).stack_size(64 << 10);
    let last = last.spawn(move || {
        // A table of its own, with everything in it, until it ends; nothing is closed by this range.
        let (none, copy) = (libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE);
        // SAFETY: close_range takes plain numbers, and closes nothing of a range that nothing can be in.
        let own = retry(|| unsafe { libc::syscall(libc::SYS_close_range, none, none, copy) });
        let _ = copied.send(own.is_ok());
        let _ = wait_for_close.recv();
    });
    if last.is_ok() {
        let _ = wait_for_copies.recv();
    }
    drop(doomed);
    drop(closed);
}

/// Leaves descriptors open until this process ends, which closes them without waiting.
pub fn leave_open(fds: Vec<OwnedFd>) {
    fds.into_iter().for_each(mem::forget);
}

/// Whether nobody is at the other end any more: the peer has hung up, or there is an error.
pub fn has_lost_other_end(fd: &impl AsFd) -> bool {
    let mut question = libc::pollfd { fd: fd.as_fd().as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: `question` is one pollfd, alive across the call.
    let answered = unsafe { libc::poll(&raw mut question, 1, 0) };
    answered == 1 && question.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fds, link::Link, memfd, process};
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn what_is_the_kernels_own_is_told_from_what_may_be_somebodys() {
        let (read, write) = fds::pipe(0).unwrap();
        let (link, _) = Link::pair().unwrap();
        let memory = memfd::create(c"test").unwrap();
        let me = process::open(std::process::id()).unwrap();
        let of = |fd: BorrowedFd<'_>| object(fd).unwrap();
        assert_eq!((of(read.as_fd()), of(write.as_fd())), (Some(Object::Pipe), Some(Object::Pipe)));
        assert_eq!((of(link.as_fd()), of(memory.as_fd())), (Some(Object::Socket), Some(Object::Memory)));
        assert_eq!(of(me.as_fd()), Some(Object::Nameless));
        for path in ["/", "/proc/self/status", "/dev/null"] {
            assert_eq!(of(std::fs::File::open(path).unwrap().as_fd()), None, "{path}");
        }
        assert!(!has_lost_other_end(&write));
        drop(read);
        assert!(has_lost_other_end(&write));
    }

    #[test]
    fn two_ends_of_a_pipe_are_not_the_same_and_two_copies_are() {
        let (read, write) = fds::pipe(0).unwrap();
        let copy = fds::duplicate(read.as_fd()).unwrap();
        assert!(same(read.as_fd(), copy.as_fd()));
        assert!(!same(read.as_fd(), write.as_fd()));
    }

    /// A connection with more to send than its peer takes, that lingers for a minute when it is closed.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[0; 1 << 16]).is_ok() {}
        ours.set_nonblocking(false).unwrap();
        nix::sys::socket::setsockopt(
            &ours,
            nix::sys::socket::sockopt::Linger,
            &libc::linger { l_onoff: 1, l_linger: 60 },
        )
        .unwrap();
        (ours.into(), theirs)
    }

    #[test]
    fn who_lets_go_waits_for_no_peer() {
        let (connection, _peer) = lingering();
        // And one that lies in the queue of another.
        let (ours, theirs) = Link::pair().unwrap();
        let (queued, _other) = lingering();
        ours.send(b"x", &[queued.as_fd()]).unwrap();
        drop(queued);
        let began = Instant::now();
        let_go(vec![connection, theirs.into_fd()]);
        assert!(began.elapsed() < Duration::from_secs(30), "it waited {:?}", began.elapsed());
    }
}
