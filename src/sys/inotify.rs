//! ROOT. Files that may be removed or replaced while somebody needs them (inotify(7)). Never says what became of one.
//!
//! A file is watched itself and not its directory, so that nothing but a change of it wakes anybody. One that is
//! open, or bound, is not deleted when its last name goes; its count of names changes, and that is told.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::fds::{self, owned};
use super::retry;

/// Its names, owner or mode have changed, it has another name, or it is no more.
const EVENTS: u32 = libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_DELETE_SELF | libc::IN_DONT_FOLLOW;
/// Bytes of an event without a name: those of a file that is watched itself have none.
const EVENT: usize = 16;

/// Watched files.
#[derive(Debug)]
pub struct Inotify(OwnedFd);

impl Inotify {
    /// None are watched yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: inotify_init1 takes plain numbers.
        retry(|| unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }.into())
            .map(owned)
            .map(Self)
    }

    /// Watches what is at a path now; a number for it.
    pub fn add(&self, path: &Path) -> io::Result<i32> {
        let text = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let number = self.0.as_raw_fd();
        // SAFETY: `text` is NUL-terminated and outlives the call.
        retry(|| unsafe { libc::inotify_add_watch(number, text.as_ptr(), EVENTS) }.into())
            .map(|watch| watch as i32)
    }

    /// Watches it no longer.
    pub fn remove(&self, watch: i32) {
        // SAFETY: inotify_rm_watch takes plain numbers. One that has gone by itself is EINVAL.
        let _ = unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), watch) };
    }

    /// Numbers of the files of which something has changed, until there is nothing left to tell.
    pub fn changed(&self) -> Vec<i32> {
        let mut found = Vec::new();
        let mut bytes = [0; EVENT * 64];
        while let Ok(count) = fds::read(self.0.as_fd(), &mut bytes) {
            let events = bytes.get(..count).unwrap_or_default().chunks_exact(EVENT);
            let watches =
                events.filter_map(|event| Some(i32::from_ne_bytes(event.get(..4)?.try_into().ok()?)));
            found.extend(watches);
            if count == 0 {
                break;
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_bound_file_that_loses_its_name_is_told_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| dir.path().join(name));
        let _listeners = paths.each_ref().map(|path| UnixListener::bind(path).unwrap());
        let inotify = Inotify::new().unwrap();
        let watches = paths.each_ref().map(|path| inotify.add(path).unwrap());
        fs::write(dir.path().join("other"), "").unwrap();
        fs::remove_file(dir.path().join("other")).unwrap();
        assert_eq!(inotify.changed(), Vec::<i32>::new());
        fs::remove_file(&paths[0]).unwrap();
        fs::write(dir.path().join("new"), "").unwrap();
        fs::rename(dir.path().join("new"), &paths[1]).unwrap();
        assert_eq!(inotify.changed(), watches[..2]);
        inotify.remove(watches[2]);
        let _ = inotify.changed();
        fs::remove_file(&paths[2]).unwrap();
        assert_eq!(inotify.changed(), Vec::<i32>::new());
    }
}
