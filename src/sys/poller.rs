//! ROOT. Waiting for descriptors: epoll, SIGIO as a descriptor, and one question without waiting. Never
//! decides what to do about them.
//!
//! Sources: epoll(7), signalfd(2), poll(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::fds::owned;
use super::retry;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Told again and again while there is something to read.
    Read,
    /// The same, and while there is room to write.
    ReadWrite,
    /// Told once each time something comes, and once on adding when there is something already.
    ReadEdge,
    /// Told once when nobody is at the other end any more, and never that there is something to read.
    HangUp,
}

impl Interest {
    const fn bits(self) -> u32 {
        (match self {
            Interest::Read => libc::EPOLLIN,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
            Interest::ReadEdge => libc::EPOLLIN | libc::EPOLLET,
            Interest::HangUp => libc::EPOLLET, // with EPOLLHUP and EPOLLERR, which need not be asked for
        }) as u32
    }
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The number given when it was added.
    pub token: u64,
    /// The other side has closed: for a pipe, no writer is left.
    pub hung_up: bool,
}

/// The most events one wait brings.
pub const MOST_READY: usize = 64;

/// An epoll instance.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    events: [libc::epoll_event; MOST_READY],
    count: usize,
}

impl Poller {
    /// A new one, close-on-exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 touches no memory.
        let epoll = retry(|| unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into()).map(owned)?;
        Ok(Self { epoll, events: [libc::epoll_event { events: 0, u64: 0 }; MOST_READY], count: 0 })
    }

    /// Its number, to be watched: it can be read while it has something to say.
    pub fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn control(&self, operation: libc::c_int, fd: BorrowedFd<'_>, bits: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: bits, u64: token };
        let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: `event` is alive across the call, which reads it.
        retry(|| unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) }.into()).map(drop)
    }

    /// Begins to watch `fd`. Errors: ENOSPC at the user's limit of watches, ENOMEM.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest.bits(), token)
    }

    /// Changes what is waited for.
    pub fn change(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest.bits(), token)
    }

    /// Stops watching. Needed before closing a descriptor that has duplicates elsewhere: epoll watches the
    /// open file description, which lives on with them.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits for the first events, or `limit`, rounded up to whole milliseconds; `None` is for ever.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let limit_ms = match limit {
            None => -1,
            Some(limit) => {
                libc::c_int::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
            }
        };
        self.count = 0;
        let (start, most) = (self.events.as_mut_ptr(), MOST_READY as libc::c_int);
        // SAFETY: `start` points at `most` events, alive across the call.
        let count =
            retry(|| unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), start, most, limit_ms) }.into())?;
        self.count = count as usize;
        Ok(())
    }

    /// What the last wait brought.
    pub fn ready(&self) -> impl Iterator<Item = Ready> + '_ {
        let hung_up = (libc::EPOLLHUP | libc::EPOLLERR) as u32;
        self.events.iter().take(self.count).map(move |event| {
            let (bits, token) = (event.events, event.u64);
            Ready { token, hung_up: bits & hung_up != 0 }
        })
    }
}

/// Whether a descriptor takes a write now without making the writer wait (poll(2)).
pub fn writable_now(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut question = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: `question` is one pollfd, alive across the call.
    retry(|| unsafe { libc::poll(&raw mut question, 1, 0) }.into())?;
    Ok(question.revents & libc::POLLOUT != 0)
}

/// SIGIO from now on as a readable descriptor instead of a signal that ends this process.
///
/// For the calling thread and those it starts; a process with one thread.
pub fn sigio() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain bits, which sigemptyset sets up.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is alive across these calls; a null old set is allowed.
    unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGIO);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    // SAFETY: `set` is alive across the call, which reads it.
    retry(|| unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }.into())
        .map(owned)
}
