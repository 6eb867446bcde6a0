//! ROOT. Files reached from an open directory, one name at a time, never through a symbolic link. Never
//! decides on names, modes or owners.
//!
//! Sources: openat(2), mkdirat(2), renameat2(2), fstatat(2), readdir(3).

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use super::fds::owned;
use super::retry;

/// Which file, whatever it is called now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The device it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// What the kernel knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which one.
    pub identity: Identity,
    /// Bytes.
    pub size: u64,
    /// Names it has; 0 after its last was removed.
    pub links: u64,
    /// The owner's uid.
    pub owner: u32,
    /// The permission bits.
    pub mode: u32,
    /// Whether it is an ordinary file.
    pub regular: bool,
}

impl Facts {
    fn of(stat: &libc::stat) -> Self {
        Self {
            identity: Identity { device: stat.st_dev, inode: stat.st_ino },
            size: u64::try_from(stat.st_size).unwrap_or(0),
            links: stat.st_nlink,
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
        }
    }
}

/// What is known of an open file.
pub fn facts(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what fstat writes.
    retry(|| unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: fstat succeeded and filled it.
    Ok(Facts::of(&unsafe { stat.assume_init() }))
}

/// The group of an open file.
pub fn group(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what fstat writes.
    retry(|| unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: fstat succeeded and filled it.
    Ok(unsafe { stat.assume_init() }.st_gid)
}

/// Cuts a file off at `size` bytes.
pub fn truncate(fd: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    let size = libc::off_t::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: ftruncate touches no memory.
    retry(|| unsafe { libc::ftruncate(fd.as_raw_fd(), size) }.into()).map(drop)
}

/// Waits until what was written to a file is on its disk (fdatasync(2)).
pub fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: fdatasync touches no memory.
    retry(|| unsafe { libc::fdatasync(fd.as_raw_fd()) }.into()).map(drop)
}

/// Reads at `offset` without moving the file's own; 0 is its end (pread(2)).
pub fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the pointer and length describe `buffer`, which outlives the call.
    retry(|| unsafe { libc::pread(fd.as_raw_fd(), start, length, offset) } as libc::c_long)
        .map(|count| count as usize)
}

/// Sets the mode bits that no new file of this process gets (umask(2)).
pub fn set_umask(bits: u32) {
    // SAFETY: umask touches no memory and cannot fail.
    unsafe { libc::umask(bits) };
}

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl Dir {
    /// Opens the directory at an absolute path, or one below the current directory. Links in the path are
    /// followed: only for paths that the operator gave.
    pub fn open(path: &CStr) -> io::Result<Self> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: `path` is NUL-terminated and alive across the call.
        retry(|| unsafe { libc::open(path.as_ptr(), flags) }.into()).map(|fd| Self(owned(fd)))
    }

    fn open_at(&self, name: &CStr, flags: libc::c_int, mode: u32) -> io::Result<OwnedFd> {
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        // SAFETY: `name` is NUL-terminated and alive across the call.
        retry(|| unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags, mode) }.into()).map(owned)
    }

    /// Opens the directory `name` in this one. Errors: ENOTDIR for a link to one.
    pub fn enter(&self, name: &CStr) -> io::Result<Self> {
        self.open_at(name, libc::O_RDONLY | libc::O_DIRECTORY, 0).map(Self)
    }

    /// Makes the directory `name`; false where something of that name is there.
    pub fn make(&self, name: &CStr, mode: u32) -> io::Result<bool> {
        // SAFETY: `name` is NUL-terminated and alive across the call.
        match retry(|| unsafe { libc::mkdirat(self.0.as_raw_fd(), name.as_ptr(), mode) }.into()) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens `name` for appending, made with `mode` where it is missing. Errors: ELOOP for a link.
    pub fn append(&self, name: &CStr, mode: u32) -> io::Result<OwnedFd> {
        self.open_at(name, libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT, mode)
    }

    /// Opens `name` for appending; ENOENT where it is missing.
    pub fn append_existing(&self, name: &CStr) -> io::Result<OwnedFd> {
        self.open_at(name, libc::O_WRONLY | libc::O_APPEND, 0)
    }

    /// Makes the file `name` for writing; EEXIST where something of that name is there.
    pub fn create_new(&self, name: &CStr, mode: u32) -> io::Result<OwnedFd> {
        self.open_at(name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, mode)
    }

    /// Opens `name` for reading. Errors: ELOOP for a link. A pipe of that name is opened without waiting.
    pub fn read(&self, name: &CStr) -> io::Result<OwnedFd> {
        self.open_at(name, libc::O_RDONLY, 0)
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// One that was opened elsewhere.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor, given up.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// What is known of `path` from here; the last name is not followed.
    pub fn facts_of(&self, path: &CStr) -> io::Result<Facts> {
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        let (at, flags) = (self.0.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: `path` is NUL-terminated, and `stat` has room for what fstatat writes.
        retry(|| unsafe { libc::fstatat(at, path.as_ptr(), stat.as_mut_ptr(), flags) }.into())?;
        // SAFETY: fstatat succeeded and filled it.
        Ok(Facts::of(&unsafe { stat.assume_init() }))
    }

    /// What is known of the directory itself.
    pub fn facts(&self) -> io::Result<Facts> {
        facts(self.0.as_fd())
    }

    /// Renames within the directory; EEXIST where the new name is taken.
    pub fn rename(&self, from: &CStr, to: &CStr) -> io::Result<()> {
        let at = self.0.as_raw_fd();
        // SAFETY: both names are NUL-terminated and alive across the call.
        retry(|| unsafe {
            libc::renameat2(at, from.as_ptr(), at, to.as_ptr(), libc::RENAME_NOREPLACE).into()
        })
        .map(drop)
    }

    /// Makes the directory itself somebody's.
    pub fn give(&self, uid: u32, gid: u32) -> io::Result<()> {
        // SAFETY: fchown touches no memory.
        retry(|| unsafe { libc::fchown(self.0.as_raw_fd(), uid, gid) }.into()).map(drop)
    }

    /// Sets the permission bits of the directory itself.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        // SAFETY: fchmod touches no memory.
        retry(|| unsafe { libc::fchmod(self.0.as_raw_fd(), mode) }.into()).map(drop)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, name: &CStr) -> io::Result<()> {
        let flags = libc::AT_REMOVEDIR;
        // SAFETY: `name` is NUL-terminated and alive across the call.
        retry(|| unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), flags) }.into()).map(drop)
    }

    /// Removes a name that is no directory.
    pub fn remove(&self, name: &CStr) -> io::Result<()> {
        // SAFETY: `name` is NUL-terminated and alive across the call.
        retry(|| unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), 0) }.into()).map(drop)
    }

    /// The names in the directory, without `.` and `..`, in no order, as many as `wanted` says yes to.
    pub fn names(&self, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<CString>> {
        self.first_names(usize::MAX, wanted)
    }

    /// The same, and no more than `most` of them: somebody else can have put any number there.
    pub fn first_names(&self, most: usize, wanted: impl Fn(&[u8]) -> bool) -> io::Result<Vec<CString>> {
        // A descriptor of its own: the stream reads from, and closes, what it is given.
        let list = self.open_at(c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        // SAFETY: `list` is an open directory that the stream owns from here on, if it could be made.
        let stream = unsafe { libc::fdopendir(list.as_raw_fd()) };
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        let _ = list.into_raw_fd();
        let mut names = Vec::new();
        let outcome = loop {
            if names.len() >= most {
                break Ok(());
            }
            // SAFETY: errno belongs to this thread; readdir tells an error from the end only by it.
            unsafe { *libc::__errno_location() = 0 };
            // SAFETY: the stream is open until the end of this function.
            let entry = unsafe { libc::readdir(stream) };
            if entry.is_null() {
                let error = io::Error::last_os_error();
                break if error.raw_os_error() == Some(0) { Ok(()) } else { Err(error) };
            }
            // SAFETY: readdir returned an entry whose name is NUL-terminated and lives until the next call.
            let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
            if name != c"." && name != c".." && wanted(name.to_bytes()) {
                names.push(name.to_owned());
            }
        };
        // SAFETY: the stream is open and not used again.
        unsafe { libc::closedir(stream) };
        outcome.map(|()| names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn place() -> (tempfile::TempDir, Dir) {
        let place = tempfile::tempdir().unwrap();
        let path = CString::new(place.path().as_os_str().as_bytes()).unwrap();
        let dir = Dir::open(&path).unwrap();
        (place, dir)
    }

    #[test]
    fn a_link_is_never_followed() {
        let (place, dir) = place();
        std::fs::write(place.path().join("target"), "kept").unwrap();
        std::os::unix::fs::symlink("target", place.path().join("current")).unwrap();
        std::os::unix::fs::symlink(".", place.path().join("web")).unwrap();
        assert_eq!(dir.append(c"current", 0o640).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(dir.enter(c"web").unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
        assert!(!dir.facts_of(c"current").unwrap().regular);
        assert!(!dir.make(c"web", 0o755).unwrap());
    }

    #[test]
    fn a_rename_takes_no_name_from_another() {
        let (place, dir) = place();
        std::fs::write(place.path().join("a"), "a").unwrap();
        std::fs::write(place.path().join("b"), "b").unwrap();
        assert_eq!(dir.rename(c"a", c"b").unwrap_err().raw_os_error(), Some(libc::EEXIST));
        dir.rename(c"a", c"c").unwrap();
        let mut names = dir.names(|name| name != b"x").unwrap();
        names.sort();
        assert_eq!(names, [c"b".to_owned(), c"c".to_owned()]);
        assert_eq!(dir.first_names(1, |_| true).unwrap().len(), 1);
        dir.remove(c"c").unwrap();
        assert_eq!(dir.names(|name| name == b"c").unwrap().len(), 0);
    }

    #[test]
    fn a_file_that_lost_its_name_says_so() {
        let (_place, dir) = place();
        let file = dir.append(c"current", 0o640).unwrap();
        crate::sys::fds::write(file.as_fd(), b"12345").unwrap();
        let before = facts(file.as_fd()).unwrap();
        assert_eq!(
            (before.size, before.links, before.mode & 0o777 & !0o640, before.regular),
            (5, 1, 0, true)
        );
        truncate(file.as_fd(), 2).unwrap();
        dir.remove(c"current").unwrap();
        let after = facts(file.as_fd()).unwrap();
        assert_eq!((after.size, after.links, after.identity), (2, 0, before.identity));
        assert_eq!(dir.append_existing(c"current").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
