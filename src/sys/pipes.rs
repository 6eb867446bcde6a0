//! ROOT. Pipes looked into, emptied by count, and listened to; and one that shows a successor how far this
//! process came. Never decides how much.
//!
//! Sources: tee(2), splice(2), pipe(7), fcntl(2), null(4).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::fds::owned;
use super::{fds, retry};

/// Copies up to `most` bytes of `from` into the pipe `to`, leaving them in `from`. Never waits.
///
/// `Ok(0)` is the end: empty and no writer left. Errors: EAGAIN (`WouldBlock`) where `from` is empty or `to`
/// is full. The pages are shared, not copied, slot by slot: where `to` started empty with as many slots as
/// `from` has, it is full afterwards exactly when `from` is.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    // SAFETY: tee takes two descriptors and numbers, and touches no memory of ours.
    retry(|| unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), most, libc::SPLICE_F_NONBLOCK) }
        as libc::c_long)
    .map(|count| count as usize)
}

/// A pipe as one descriptor, which is both of its ends, for what is taken out of others; with room for `bytes`
/// where that can be had. Nothing waits for it, and as long as it is open nobody finds its other end gone.
///
/// Errors: ENOENT where there is no /proc.
pub fn tray(bytes: usize) -> io::Result<OwnedFd> {
    let (read, _write) = fds::pipe(0)?;
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", read.as_raw_fd()))?;
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and alive across the call.
    let tray = retry(|| unsafe { libc::open(path.as_ptr(), flags) }.into()).map(owned)?;
    let _ = set_capacity(tray.as_fd(), bytes);
    Ok(tray)
}

/// Moves up to `most` bytes out of the pipe `from` into the pipe `to`. Never waits.
///
/// The pages change hands and are not copied. A byte is in the one or in the other, in the same instant for
/// everybody who asks ([`available`]), and a signal ends nobody in the middle (splice_pipe_to_pipe in
/// fs/splice.c holds both locks): so what is in `to` says how far a dead process came. `Ok(0)`: empty and no
/// writer left. Errors: EAGAIN (`WouldBlock`) where `from` is empty or `to` full.
pub fn hand_over(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: both offset pointers are null, as pipes want it.
    retry(|| unsafe {
        libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, most, libc::SPLICE_F_NONBLOCK)
            as libc::c_long
    })
    .map(|count| count as usize)
}

/// Where bytes go that nobody needs: /dev/null, or where that is missing or something else, a buffer.
#[derive(Debug)]
pub struct Void(Option<OwnedFd>);

impl Void {
    /// Opens it, for a process that may not open anything later.
    pub fn open() -> Self {
        let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: the path is a constant that ends with NUL.
        let opened = retry(|| unsafe { libc::open(c"/dev/null".as_ptr(), flags) }.into()).map(owned);
        Self(opened.ok().filter(|fd| is_null(fd.as_fd())))
    }

    /// Without /dev/null.
    #[cfg(test)]
    pub const fn without() -> Self {
        Self(None)
    }

    /// Throws away everything that is in a pipe that nobody else writes to.
    pub fn swallow(&self, pipe: BorrowedFd<'_>) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let left = available(pipe)?;
            if left == 0 {
                return Ok(());
            }
            match &self.0 {
                Some(null) => hand_over(pipe, null.as_fd(), left)?,
                None => fds::read(pipe, &mut buffer)?,
            };
        }
    }
}

/// Whether this is the device 1:3, which keeps nothing (null(4)).
fn is_null(fd: BorrowedFd<'_>) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what fstat writes.
    if retry(|| unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) }.into()).is_err() {
        return false;
    }
    // SAFETY: fstat succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3)
}

/// Bytes now in a pipe (FIONREAD).
pub fn available(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores one int, for which `count` has room.
    retry(|| unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) }.into())?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A pipe's size in bytes: slots times the size of a page (F_GETPIPE_SZ).
pub fn capacity(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: fcntl with F_GETPIPE_SZ touches no memory.
    retry(|| unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) }.into()).map(|bytes| bytes as usize)
}

/// Makes a pipe hold at least `bytes` and says how many it holds now (F_SETPIPE_SZ).
///
/// Errors: EPERM above the user's limit in /proc/sys/fs (pipe(7)), EBUSY where it holds more already.
pub fn set_capacity(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let bytes = libc::c_int::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: fcntl with F_SETPIPE_SZ touches no memory.
    retry(|| unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) }.into())
        .map(|bytes| bytes as usize)
}

/// Whether each write to this pipe raises SIGIO here (O_ASYNC). The flag belongs to the open file
/// description and so outlives this process.
pub fn raises_sigio(pipe: BorrowedFd<'_>) -> io::Result<bool> {
    flags(pipe).map(|flags| flags & libc::O_ASYNC != 0)
}

/// Has each write to this pipe raise SIGIO in this process, or stops that.
///
/// Epoll alone does not do: a writer that fills a pipe which is not empty goes to sleep in the middle of its
/// write without waking anyone (pipe_write in fs/pipe.c wakes readers there only if the pipe was empty), but
/// it does send this signal. Errors: EINVAL where the kernel has no such thing.
pub fn raise_sigio(pipe: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = flags(pipe)?;
    if on {
        // SAFETY: fcntl with F_SETOWN touches no memory.
        retry(|| unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETOWN, libc::getpid()) }.into())?;
    }
    let flags = if on { flags | libc::O_ASYNC } else { flags & !libc::O_ASYNC };
    // SAFETY: fcntl with F_SETFL touches no memory.
    retry(|| unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags) }.into()).map(drop)
}

fn flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: fcntl with F_GETFL touches no memory.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into()).map(|flags| flags as libc::c_int)
}

/// Waits until this process alone holds the record lock on the whole of a file (F_SETLKW).
///
/// The kernel gives it up when the process ends, however it ends, or closes *any* descriptor of that file.
pub fn lock_whole(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero flock is a valid one: from the start, to the end.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: `lock` is alive across the call, which reads it.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &raw const lock) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fds, memfd};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_in_the_tray_is_exactly_what_left_the_pipe() {
        for void in [Void::open(), Void::without()] {
            let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
            let tray = tray(64 * 1024).unwrap();
            let keeper = fds::duplicate(tray.as_fd()).unwrap();
            fds::write(write.as_fd(), &[b'x'; 10_000]).unwrap();
            assert_eq!(hand_over(read.as_fd(), tray.as_fd(), 7_001).unwrap(), 7_001);
            let counts = || (available(keeper.as_fd()).unwrap(), available(read.as_fd()).unwrap());
            assert_eq!(counts(), (7_001, 2_999));
            assert_eq!(hand_over(read.as_fd(), tray.as_fd(), 9_999).unwrap(), 2_999);
            assert_eq!(counts(), (10_000, 0));
            let error = hand_over(read.as_fd(), tray.as_fd(), 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            void.swallow(tray.as_fd()).unwrap();
            assert_eq!(counts(), (0, 0));
            drop(write);
            assert_eq!(hand_over(read.as_fd(), tray.as_fd(), 1).unwrap(), 0);
        }
    }

    #[test]
    fn a_tray_takes_no_more_than_it_has_room_for_and_goes_on_when_it_is_empty() {
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        let tray = tray(4096).unwrap();
        assert_eq!(set_capacity(tray.as_fd(), 4096).unwrap(), 4096);
        fds::write(write.as_fd(), &[b'x'; 10_000]).unwrap();
        assert_eq!(hand_over(read.as_fd(), tray.as_fd(), 10_000).unwrap(), 4096);
        let error = hand_over(read.as_fd(), tray.as_fd(), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        Void::open().swallow(tray.as_fd()).unwrap();
        assert_eq!(hand_over(read.as_fd(), tray.as_fd(), 10_000).unwrap(), 4096);
    }

    #[test]
    fn only_the_null_device_is_taken_for_it() {
        assert!(is_null(std::fs::File::open("/dev/null").unwrap().as_fd()));
        assert!(!is_null(std::fs::File::open("/dev/zero").unwrap().as_fd()));
        assert!(!is_null(memfd::create(c"null").unwrap().as_fd()));
    }

    #[test]
    fn a_look_takes_nothing_and_shows_the_end() {
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        let (look, glass) = fds::pipe(libc::O_NONBLOCK).unwrap();
        assert_eq!(tee(read.as_fd(), glass.as_fd(), 9).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fds::write(write.as_fd(), b"hello").unwrap();
        assert_eq!(tee(read.as_fd(), glass.as_fd(), 9).unwrap(), 5);
        assert_eq!(available(read.as_fd()).unwrap(), 5);
        let mut seen = [0; 9];
        assert_eq!(fds::read(look.as_fd(), &mut seen).unwrap(), 5);
        assert_eq!(&seen[..5], b"hello");
        fds::read(read.as_fd(), &mut seen).unwrap();
        drop(write);
        assert_eq!(tee(read.as_fd(), glass.as_fd(), 9).unwrap(), 0);
    }

    #[test]
    fn a_full_pipe_looked_at_through_one_of_its_size_fills_that_one() {
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        let (look, glass) = fds::pipe(libc::O_NONBLOCK).unwrap();
        assert_eq!(set_capacity(read.as_fd(), 8192).unwrap(), 8192);
        assert_eq!(set_capacity(look.as_fd(), 8192).unwrap(), 8192);
        fds::write(write.as_fd(), &[b'a'; 3000]).unwrap();
        tee(read.as_fd(), glass.as_fd(), 65536).unwrap();
        assert!(crate::sys::poller::writable_now(glass.as_fd()).unwrap());
        fds::read(look.as_fd(), &mut [0; 8192]).unwrap();
        fds::write(write.as_fd(), &[b'a'; 3000]).unwrap();
        assert_eq!(tee(read.as_fd(), glass.as_fd(), 65536).unwrap(), 6000);
        assert!(!crate::sys::poller::writable_now(glass.as_fd()).unwrap(), "6,000 bytes fill both slots");
    }
}
