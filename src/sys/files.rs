//! ROOT. Files and directories: opened once and judged by what was opened. Never decides what is in one.
//!
//! Root never creates, changes or removes anything by path in a directory that another user can write, and
//! reads nothing there that it would act on: each function says which directories it accepts.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::fds::owned;
use super::{look, retry};

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The effective user of this process.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid cannot fail and touches no memory.
    unsafe { libc::geteuid() }
}

/// The first part of a path, from the root down, that someone other than root and `user` can write or
/// exchange: an unsafe place to trust. None where there is none. The path must exist.
///
/// Symbolic links are followed part by part, and both the link and what it leads through have to be safe: a link
/// that somebody else made leads to a safe file by that other's choice. Directories with the sticky bit let nobody
/// replace what is not theirs, so what is below one counts by itself. What is on a read-only mount is written by
/// nobody.
pub fn unsafe_part(path: &Path, user: u32) -> io::Result<Option<PathBuf>> {
    first_part(path, user, &[])
}

/// The same, or the first part that is behind a mount on which somebody else decides when it answers: another machine,
/// or a process. That one is not even looked at.
pub fn unsafe_or_remote_part(path: &Path, user: u32) -> io::Result<Option<PathBuf>> {
    first_part(path, user, &remote_mounts(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Where such mounts are, by proc_pid_mountinfo(5). What the root directory is on cannot be helped.
fn remote_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let remote = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let kind = system.split(' ').next()?;
        let point = mount.split(' ').nth(4).filter(|point| *point != "/")?;
        let is_remote = REMOTE.contains(&kind) || kind == "fuse" || kind.starts_with("fuse.");
        is_remote.then(|| PathBuf::from(unescaped(point)))
    };
    mountinfo.lines().filter_map(remote).collect()
}

/// File systems that need somebody else for an answer, beside those of processes (fuse).
const REMOTE: [&str; 12] =
    ["9p", "afs", "autofs", "ceph", "cifs", "coda", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"];

/// A name as it is, of which some bytes are written as three octal digits.
fn unescaped(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn first_part(path: &Path, user: u32, never: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    let mut rest: Vec<OsString> = parts(&std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    loop {
        if never.iter().any(|mount| at.starts_with(mount)) {
            return Ok(Some(at));
        }
        let data = fs::symlink_metadata(&at)?;
        if is_unsafe(&data, user) && !on_read_only(&at) {
            return Ok(Some(at));
        }
        if data.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = fs::read_link(&at)?;
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(parts(&target));
        } else if rest.is_empty() {
            return Ok(None);
        }
        match rest.pop() {
            Some(part) if part == ".." => drop(at.pop()),
            Some(part) => at.push(part),
            None => {}
        }
    }
}

/// Most symbolic links in one path, as the kernel has it (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// The names of a path, the last first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part: std::path::Component<'_>| match part {
        std::path::Component::Normal(name) => Some(name.to_owned()),
        std::path::Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(named).collect()
}

fn is_unsafe(data: &fs::Metadata, user: u32) -> bool {
    let foreign_owner = data.uid() != 0 && data.uid() != user;
    // The mode of a link says nothing (symlink(7)).
    let shared = data.mode() & 0o022 != 0
        && !data.is_symlink()
        && !(data.is_dir() && data.mode() & libc::S_ISVTX != 0);
    let own_group = data.uid() == user && data.gid() == user && data.mode() & 0o002 == 0;
    foreign_owner || (shared && !own_group)
}

fn on_read_only(path: &Path) -> bool {
    let Ok(path) = c_path(path) else { return false };
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is NUL-terminated, and `found` has room for what statvfs writes.
    if retry(|| unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) }.into()).is_err() {
        return false;
    }
    // SAFETY: statvfs succeeded and filled it.
    unsafe { found.assume_init() }.f_flag & libc::ST_RDONLY != 0
}

/// Reads a whole file of at most `most` bytes through one descriptor, and says who owns it and with which
/// mode. A file that changes meanwhile is read again, three times.
pub fn read_steady(path: &Path, most: u64) -> io::Result<(Vec<u8>, u32, u32)> {
    for _ in 0..3 {
        let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if before.len() > most {
            return Err(io::Error::other(format!("longer than {most} bytes")));
        }
        let mut bytes = Vec::with_capacity(before.len() as usize);
        (&mut file).take(most + 1).read_to_end(&mut bytes)?;
        let after = fs::metadata(path)?;
        let identity = |data: &fs::Metadata| (data.ino(), data.size(), data.mtime(), data.mtime_nsec());
        if identity(&before) == identity(&after) && bytes.len() as u64 == before.len() {
            return Ok((bytes, before.uid(), before.mode() & 0o7777));
        }
    }
    Err(io::Error::other("it changes while it is read"))
}

/// Makes a directory and its missing parents with this mode; one that is there stays as it is.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Opens, or makes with mode 0600, a lock file and takes its lock (flock(2)) without waiting. None: somebody
/// holds it. The lock belongs to the open file description, so every copy of the descriptor holds it.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        // SAFETY: flock takes plain numbers.
        match retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }.into()) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        // Who held it may have removed it between our opening and our lock: then it is nobody's any more.
        let named = fs::symlink_metadata(path).map(|data| (data.dev(), data.ino())).ok();
        if named == Some(identity(file.as_fd())?) {
            return Ok(Some(file));
        }
    }
}

/// Removes the file of a lock that is held, where it is still that.
pub fn remove_lock(lock: BorrowedFd<'_>) {
    let Ok(path) = fs::read_link(format!("/proc/self/fd/{}", lock.as_raw_fd())) else { return };
    let named = fs::symlink_metadata(&path).map(|data| (data.dev(), data.ino()));
    if named.ok() == identity(lock).ok() {
        let _ = fs::remove_file(path);
    }
}

/// Puts these bytes in the place of what is in a file.
pub fn rewrite(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(bytes)
}

/// Opens a directory, not following a symbolic link at its end.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let text = c_path(path)?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: `text` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::open(text.as_ptr(), flags) }.into()).map(owned)
}

/// What a name in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Owner.
    pub user: u32,
    /// Whether it is a socket.
    pub is_socket: bool,
}

/// Looks at a name in a directory without following a symbolic link. None where there is nothing.
pub fn look(directory: BorrowedFd<'_>, name: &Path) -> io::Result<Option<Named>> {
    let text = c_path(name)?;
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    let directory = directory.as_raw_fd();
    // SAFETY: `text` is NUL-terminated and `stat` has room for what fstatat writes.
    match retry(|| unsafe { libc::fstatat(directory, text.as_ptr(), stat.as_mut_ptr(), flags) }.into()) {
        Ok(_) => {
            // SAFETY: fstatat succeeded and filled it.
            let stat = unsafe { stat.assume_init() };
            Ok(Some(Named {
                identity: (stat.st_dev, stat.st_ino),
                user: stat.st_uid,
                is_socket: stat.st_mode & libc::S_IFMT == libc::S_IFSOCK,
            }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a name from a directory.
pub fn remove(directory: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    let text = c_path(name)?;
    // SAFETY: `text` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::unlinkat(directory.as_raw_fd(), text.as_ptr(), 0) }.into()).map(drop)
}

/// Sets owner, group and mode of a socket file in a directory, in this order (a change of owner clears bits).
/// The name must be one that only we can have made there; symbolic links are not followed.
pub fn own(
    directory: BorrowedFd<'_>,
    name: &Path,
    user: Option<u32>,
    group: Option<u32>,
    mode: u32,
) -> io::Result<()> {
    let text = c_path(name)?;
    let keep = u32::MAX; // chown(2): -1 leaves it
    if user.is_some() || group.is_some() {
        let (user, group) = (user.unwrap_or(keep), group.unwrap_or(keep));
        // SAFETY: `text` is NUL-terminated and outlives the call.
        retry(|| unsafe {
            libc::fchownat(directory.as_raw_fd(), text.as_ptr(), user, group, libc::AT_SYMLINK_NOFOLLOW)
                .into()
        })?;
    }
    // SAFETY: `text` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::fchmodat(directory.as_raw_fd(), text.as_ptr(), mode, 0) }.into()).map(drop)
}

/// Sets owner and group of a directory, or a pipe, that the caller has just made.
pub fn give(directory: BorrowedFd<'_>, user: u32, group: u32) -> io::Result<()> {
    // SAFETY: fchown takes plain numbers.
    retry(|| unsafe { libc::fchown(directory.as_raw_fd(), user, group) }.into()).map(drop)
}

/// Whether a file has an access control list (acl(5)), besides owner, group and mode. A symbolic link has none.
pub fn has_access_list(path: &Path) -> bool {
    let Ok(text) = c_path(path) else { return false };
    let name = c"system.posix_acl_access";
    // SAFETY: both names are NUL-terminated, and no byte of the value is asked for.
    let length = unsafe { libc::lgetxattr(text.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    length > 0
}

/// Where the file system is mounted that a file is on, if nothing of it can be executed.
pub fn noexec_mount(path: &Path) -> Option<PathBuf> {
    let text = |path: &Path| c_path(path).ok();
    let is_noexec = look::is_noexec(&text(path)?);
    let place = || path.ancestors().find(|at| text(at).is_some_and(|at| look::is_mount(&at)));
    is_noexec.then(|| place().unwrap_or(Path::new("/")).to_owned())
}

/// Device and inode of an open file.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    let data = file.metadata()?;
    Ok((data.dev(), data.ino()))
}

/// How many links there are to what is behind a descriptor.
pub fn links(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(File::from(fd.try_clone_to_owned()?).metadata()?.nlink())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lock_is_held_once_and_by_every_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(try_lock(&path).unwrap().is_none(), "the copy does not hold it");
        drop(copy);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_others_can_write_is_an_unsafe_part() {
        let dir = tempfile::tempdir().unwrap();
        let me = effective_user();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        let file = inner.join("unit.toml");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(unsafe_part(&file, me).unwrap(), None);
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(unsafe_part(&file, me).unwrap(), Some(fs::canonicalize(&inner).unwrap()));
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(unsafe_part(&file, me).unwrap(), Some(fs::canonicalize(&file).unwrap()));
    }

    #[test]
    fn what_others_are_behind_is_told_by_its_mount() {
        let text = "22 1 8:1 / / rw - nfs4 host:/ rw\n\
                    30 22 0:25 / /srv/a\\040b rw,relatime shared:7 - nfs4 host:/a rw\n\
                    31 22 0:26 / /srv/c rw - tmpfs fuse rw\n\
                    32 22 0:27 / /srv/d rw - fuse.sshfs host: rw\n";
        let never = remote_mounts(text);
        assert_eq!(never, [PathBuf::from("/srv/a b"), PathBuf::from("/srv/d")]);
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/srv/d/x", &link).unwrap();
        let found = first_part(&link, effective_user(), &[PathBuf::from("/srv")]).unwrap();
        assert_eq!(found, Some(PathBuf::from("/srv")), "by a link too, and before it is there");
    }

    #[test]
    fn a_file_over_the_limit_or_not_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_steady(&path, 5).unwrap().0, b"12345");
        assert!(read_steady(&path, 4).is_err());
        assert!(read_steady(dir.path(), 4).is_err());
    }
}
