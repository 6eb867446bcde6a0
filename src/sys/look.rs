//! ROOT. A look at a file by its path, with the rights that this process has. Never allocates, never waits for a
//! FIFO's other end, never changes anything.
//!
//! Sources: stat(2), access(2), statvfs(3), statx(2), open(2).

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use super::{fds, retry};

/// `STATX_ATTR_MOUNT_ROOT` of linux/stat.h, since Linux 5.8; never set before.
const MOUNT_ROOT: u64 = 0x2000;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A directory.
    Directory,
    /// A file with these permission bits.
    File(u32),
    /// A device, a socket, a FIFO.
    Other,
}

/// What is there, at the end of all links.
pub fn shape(path: &CStr) -> io::Result<Shape> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the path is NUL-terminated and there is room for the answer, both alive across the call.
    retry(|| unsafe { libc::stat(path.as_ptr(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call has succeeded, so it has filled it.
    let mode = unsafe { stat.assume_init() }.st_mode;
    Ok(match mode & libc::S_IFMT {
        libc::S_IFDIR => Shape::Directory,
        libc::S_IFREG => Shape::File(mode & 0o7777),
        _ => Shape::Other,
    })
}

/// Whether this process may execute the file, or search the directory.
pub fn may_execute(path: &CStr) -> bool {
    // SAFETY: the path is NUL-terminated and alive across the call.
    retry(|| unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) }.into())
        .is_ok()
}

/// Whether nothing on the file system that it is on may be executed.
pub fn is_noexec(path: &CStr) -> bool {
    let mut about = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is NUL-terminated and there is room for the answer, both alive across the call.
    let found = retry(|| unsafe { libc::statvfs(path.as_ptr(), about.as_mut_ptr()) }.into());
    // SAFETY: read only where the call has succeeded, which has filled it.
    found.is_ok() && unsafe { about.assume_init() }.f_flag & libc::ST_NOEXEC != 0
}

/// Whether something is mounted exactly here.
pub fn is_mount(path: &CStr) -> bool {
    let mut about = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is NUL-terminated and there is room for the answer, both alive across the call.
    let found = retry(|| unsafe {
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), 0, 0, about.as_mut_ptr())
    });
    // SAFETY: it was zeroed, and every pattern of bits is a value of its numbers.
    found.is_ok() && unsafe { about.assume_init() }.stx_attributes & MOUNT_ROOT != 0
}

/// The first bytes of a file, as many as there is room for.
pub fn beginning<'a>(path: &CStr, room: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: the path is NUL-terminated and alive across the call.
    let file = fds::owned(retry(|| unsafe { libc::open(path.as_ptr(), flags) }.into())?);
    let mut done = 0;
    while done < room.len() {
        match fds::read(file.as_fd(), room.get_mut(done..).unwrap_or_default())? {
            0 => break,
            count => done += count,
        }
    }
    Ok(room.get(..done).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_apart() {
        assert_eq!(shape(c"/").unwrap(), Shape::Directory);
        assert_eq!(shape(c"/dev/null").unwrap(), Shape::Other);
        assert!(matches!(shape(c"/proc/self/exe").unwrap(), Shape::File(mode) if mode & 0o111 != 0));
        assert!(shape(c"/nonexistent").is_err());
        assert!(may_execute(c"/proc/self/exe") && !may_execute(c"/nonexistent"));
        assert!(is_mount(c"/proc") && !is_mount(c"/proc/self"));
        let mut room = [0; 4];
        assert_eq!(beginning(c"/proc/self/exe", &mut room).unwrap(), b"\x7fELF");
    }
}
