//! ROOT. The way to a directory, part by part, for somebody who has more rights than others on the way. Never
//! steps into what another user can exchange.
//!
//! Sources: openat(2), mkdirat(2), readlinkat(2), path_resolution(7).

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::fds::owned;
use super::retry;

/// The most symbolic links on one way (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// Permission bits of a directory that is made here.
const MODE: libc::mode_t = 0o755;

/// Where a way ended.
#[derive(Debug)]
pub enum Walked {
    /// There: nobody but root and oneself can have made it another.
    Directory(OwnedFd),
    /// At a directory that somebody else can write or owns. Nothing below it was looked at.
    Foreign(PathBuf),
}

/// Walks an absolute path, making what is missing with mode 0755. Symbolic links are followed where they lie in a
/// directory that nobody else can write and belong to root or `user`.
///
/// A directory with the sticky bit lets nobody exchange what is another's, so it may be on the way; at the end of
/// it somebody else could take a name first, and then it is foreign too.
pub fn to_directory(path: &Path, user: u32) -> io::Result<Walked> {
    let mut left: VecDeque<OsString> = parts(path);
    let mut here = open(None, OsStr::new("/"))?;
    let mut name = PathBuf::from("/");
    let mut links = 0;
    if let Some(Walked::Foreign(part)) = judge(here.as_fd(), &name, user, left.is_empty())? {
        return Ok(Walked::Foreign(part));
    }
    while let Some(part) = left.pop_front() {
        let found = stat(here.as_fd(), &part)?;
        match found.map(|stat| (stat.st_mode & libc::S_IFMT, stat.st_uid)) {
            None => make(here.as_fd(), &part)?,
            Some((libc::S_IFLNK, owner)) => {
                links += 1;
                if links > MOST_LINKS || owner != 0 && owner != user {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = read_link(here.as_fd(), &part)?;
                if target.is_absolute() {
                    here = open(None, OsStr::new("/"))?;
                    name = PathBuf::from("/");
                }
                let mut more = parts(&target);
                more.append(&mut left);
                left = more;
                continue;
            }
            Some(_) => {}
        }
        here = open(Some(here.as_fd()), &part)?;
        name.push(&part);
        if let Some(end) = judge(here.as_fd(), &name, user, left.is_empty())? {
            return Ok(end);
        }
    }
    Ok(Walked::Directory(here))
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(normal).collect()
}

/// Whether the directory is the end of the way because of who can write it.
fn judge(directory: BorrowedFd<'_>, name: &Path, user: u32, last: bool) -> io::Result<Option<Walked>> {
    let facts = super::dirs::facts(directory)?;
    let group = super::dirs::group(directory)?;
    let foreign = is_foreign(facts.mode, facts.owner, group, user, last);
    Ok(foreign.then(|| Walked::Foreign(name.to_owned())))
}

/// Whether somebody other than root and `user` can write a directory with this mode, owner and group, or owns it.
pub fn is_foreign(mode: u32, owner: u32, group: u32, user: u32, last: bool) -> bool {
    let sticky = mode & libc::S_ISVTX != 0 && !last;
    let own_group = owner == user && group == user && mode & 0o002 == 0;
    let shared = mode & 0o022 != 0 && !sticky && !own_group;
    owner != 0 && owner != user || shared
}

fn c_string(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn open(at: Option<BorrowedFd<'_>>, name: &OsStr) -> io::Result<OwnedFd> {
    let name = c_string(name)?;
    let at = at.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::openat(at, name.as_ptr(), flags) }.into()).map(owned)
}

fn stat(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<libc::stat>> {
    let name = c_string(name)?;
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    let (at, flags) = (at.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: `name` is NUL-terminated and `stat` has room for what fstatat writes.
    match retry(|| unsafe { libc::fstatat(at, name.as_ptr(), stat.as_mut_ptr(), flags) }.into()) {
        // SAFETY: fstatat succeeded and filled it.
        Ok(_) => Ok(Some(unsafe { stat.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = c_string(name)?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    match retry(|| unsafe { libc::mkdirat(at.as_raw_fd(), name.as_ptr(), MODE) }.into()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()), // judged like any other
        Err(error) => Err(error),
    }
}

fn read_link(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathBuf> {
    let name = c_string(name)?;
    let mut place = vec![0u8; libc::PATH_MAX as usize];
    let (at, room) = (at.as_raw_fd(), place.len());
    // SAFETY: `name` is NUL-terminated, and `place` has room for `room` bytes.
    let count = retry(|| unsafe {
        libc::readlinkat(at, name.as_ptr(), place.as_mut_ptr().cast(), room) as libc::c_long
    })?;
    place.truncate(count as usize);
    Ok(OsString::from_vec(place).into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::sys::files::effective_user;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn foreign(path: &Path) -> Option<PathBuf> {
        match to_directory(path, effective_user()).unwrap() {
            Walked::Directory(_) => None,
            Walked::Foreign(part) => Some(part),
        }
    }

    #[test]
    fn what_is_missing_is_made_and_links_of_ones_own_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o755);
        let there = dir.path().join("a/b");
        assert_eq!(foreign(&there), None);
        assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o7777, 0o755);
        symlink("a", dir.path().join("link")).unwrap();
        symlink(dir.path().join("link/../a"), dir.path().join("far")).unwrap();
        assert_eq!(foreign(&dir.path().join("far/c")), None);
        assert!(dir.path().join("a/c").is_dir());
        symlink("round", dir.path().join("round")).unwrap();
        assert!(to_directory(&dir.path().join("round"), effective_user()).is_err());
        fs::write(dir.path().join("file"), "").unwrap();
        let error = to_directory(&dir.path().join("file/x"), effective_user()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    }

    #[test]
    fn nothing_below_what_others_can_write_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o755);
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        mode(&open, 0o777);
        assert_eq!(foreign(&open.join("below")), Some(open.clone()));
        assert!(!open.join("below").exists());
        // With the sticky bit it may be on the way, and not at its end.
        mode(&open, 0o1777);
        assert_eq!(foreign(&open), Some(open.clone()));
        assert_eq!(foreign(&open.join("below")), None);
    }
}
