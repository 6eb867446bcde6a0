//! ROOT. Pipes looked into, emptied by count, and listened to; and the shared offset of a file as a counter
//! that survives this process. Never decides how much.
//!
//! Sources: tee(2), splice(2), pipe(7), fcntl(2), lseek(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::retry;

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

/// Moves up to `most` bytes out of the pipe `from` to the offset of the file `to`, and that offset on. Never
/// waits for the pipe.
///
/// The kernel stores the new offset in the same call that takes the bytes out of the pipe (do_splice in
/// fs/splice.c), before a signal can end the process, and it counts only bytes that are out: whoever shares
/// the open file description can read there how far a dead process came. The file may not be open for
/// appending. Errors: EAGAIN where the pipe is empty; ENOMEM, ENOSPC, EFBIG from the file.
pub fn splice_to_offset(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: both offset pointers are null, which splice takes as "use the file's own".
    retry(|| unsafe {
        libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, most, libc::SPLICE_F_NONBLOCK)
            as libc::c_long
    })
    .map(|count| count as usize)
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

/// The offset of an open file description, which all its holders share.
pub fn offset(file: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: lseek touches no memory.
    retry(|| unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_CUR) } as libc::c_long).map(|at| at as u64)
}

/// Sets that offset to 0.
pub fn rewind(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: lseek touches no memory.
    retry(|| unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_SET) } as libc::c_long).map(drop)
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
    fn the_shared_offset_counts_exactly_what_left_the_pipe() {
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        let counter = memfd::create(c"counter").unwrap();
        let keeper = fds::duplicate(counter.as_fd()).unwrap();
        fds::write(write.as_fd(), &[b'x'; 10_000]).unwrap();
        assert_eq!(splice_to_offset(read.as_fd(), counter.as_fd(), 7_001).unwrap(), 7_001);
        assert_eq!((offset(keeper.as_fd()).unwrap(), available(read.as_fd()).unwrap()), (7_001, 2_999));
        assert_eq!(splice_to_offset(read.as_fd(), counter.as_fd(), 9_999).unwrap(), 2_999);
        assert_eq!((offset(keeper.as_fd()).unwrap(), available(read.as_fd()).unwrap()), (10_000, 0));
        let error = splice_to_offset(read.as_fd(), counter.as_fd(), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        rewind(keeper.as_fd()).unwrap();
        assert_eq!(offset(counter.as_fd()).unwrap(), 0);
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
