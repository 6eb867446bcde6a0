//! ROOT. Control groups of version 2: one directory for each incarnation. Never decides what goes in.
//!
//! Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst: `cgroup.kill`, `cgroup.events`,
//! `cgroup.procs`; CLONE_INTO_CGROUP of clone(2) takes the directory's descriptor.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::fds::owned;
use super::{fds, retry};

/// The group that the processes of supervise itself move to where the kernel wants them out of the way.
const OWN: &str = "supervise.own";

/// The group below which ours are made.
#[derive(Debug)]
pub struct Base {
    directory: OwnedFd,
    /// Where it is, for messages.
    pub path: PathBuf,
}

impl Base {
    /// This process's own group, where it is of version 2 and groups can be made in it. The error says why
    /// there is none: then processes are followed as a tree, which is weaker.
    pub fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let group = fs::read_to_string("/proc/self/cgroup")?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 here");
        let mount = mounts.lines().find_map(mount_point).ok_or_else(missing)?;
        let own = group.lines().find_map(|line| line.strip_prefix("0::/")).ok_or_else(missing)?;
        // One of ours that came before may have moved us.
        let own = own.strip_suffix(OWN).map_or(own, |above| above.trim_end_matches('/'));
        let path = Path::new(&mount).join(own);
        let directory = open_directory(None, &path)?;
        let base = Self { directory, path };
        // The only way to know whether we may is to do it.
        let probe = format!("supervise.probe.{}", std::process::id());
        base.make(&probe)?;
        base.remove(&probe)?;
        Ok(base)
    }

    /// Turns on those of these controllers that the kernel gives to this group, for the groups that are made in
    /// it. Where `ours` are the only processes in it they move to a group of their own below, as the kernel wants
    /// it; EBUSY where there are others.
    pub fn enable(&self, controllers: &[&str], ours: &BTreeSet<u32>) -> io::Result<()> {
        let group = self.directory.as_fd();
        let given = read_whole(group, c"cgroup.controllers")?;
        let on = read_whole(group, c"cgroup.subtree_control")?;
        let has = |text: &str, name: &str| text.split_ascii_whitespace().any(|word| word == name);
        let missing: Vec<&str> = controllers
            .iter()
            .copied()
            .filter(|controller| has(&given, controller) && !has(&on, controller))
            .collect();
        for controller in missing {
            let switch = format!("+{controller}");
            match set(group, "cgroup.subtree_control", &switch) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP)) => {
                    self.move_below(ours)?;
                    set(group, "cgroup.subtree_control", &switch)?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn move_below(&self, ours: &BTreeSet<u32>) -> io::Result<()> {
        let inside = processes(self.directory.as_fd())?;
        if inside.iter().any(|pid| !ours.contains(pid)) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let own = match self.make(OWN) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.open(OWN)?,
            made => made?,
        };
        for pid in inside {
            match set(own.as_fd(), "cgroup.procs", &pid.to_string()) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {} // it has ended
                result => result?,
            }
        }
        Ok(())
    }

    /// Makes a group and opens it.
    pub fn make(&self, name: &str) -> io::Result<OwnedFd> {
        let text = c_string(name)?;
        // SAFETY: `text` is NUL-terminated and outlives the call.
        retry(|| unsafe { libc::mkdirat(self.directory.as_raw_fd(), text.as_ptr(), 0o755) }.into())?;
        open_directory(Some(self.directory.as_fd()), Path::new(name))
    }

    /// The names of the groups that begin like this.
    pub fn names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// The names of the groups directly below one.
    pub fn names_below(&self, name: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path.join(name))?;
        let groups =
            entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(groups.filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Opens a group that is there.
    pub fn open(&self, name: &str) -> io::Result<OwnedFd> {
        open_directory(Some(self.directory.as_fd()), Path::new(name))
    }

    /// Removes an empty group; EBUSY while a process is in it. One that is gone already is no error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let text = c_string(name)?;
        let directory = self.directory.as_raw_fd();
        // SAFETY: `text` is NUL-terminated and outlives the call.
        match retry(|| unsafe { libc::unlinkat(directory, text.as_ptr(), libc::AT_REMOVEDIR) }.into()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The mount point, where a line of mountinfo is of a cgroup2 file system mounted from its root.
fn mount_point(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    if !right.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    let _root = fields.next()?;
    // Spaces and the like are octal escapes there.
    let point = fields.next()?.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    Some(point)
}

/// Writes a value into one of a group's files. NotFound where its controller is not on.
pub fn set(group: BorrowedFd<'_>, name: &str, value: &str) -> io::Result<()> {
    let file = open_in(group, &c_string(name)?, libc::O_WRONLY)?;
    fds::write(file.as_fd(), value.as_bytes()).map(drop)
}

/// Kills everything in a group, also what is forked meanwhile.
pub fn kill(group: BorrowedFd<'_>) -> io::Result<()> {
    let file = open_in(group, c"cgroup.kill", libc::O_WRONLY)?;
    fds::write(file.as_fd(), b"1").map(drop)
}

/// The pids in a group, at this moment.
pub fn processes(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let text = read_whole(group, c"cgroup.procs")?;
    Ok(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// Whether any process is in a group or below it.
pub fn is_populated(group: BorrowedFd<'_>) -> io::Result<bool> {
    match read_whole(group, c"cgroup.events") {
        Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
        // One that somebody has removed could only be removed because nobody was in it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of memory that a group uses; an error where its parent does not hand the controller down.
pub fn memory(group: BorrowedFd<'_>) -> io::Result<u64> {
    let text = read_whole(group, c"memory.current")?;
    text.trim().parse().map_err(|_| io::Error::from_raw_os_error(libc::EPROTO))
}

/// Microseconds of processor time that a group has used; every group of version 2 knows.
pub fn processor_us(group: BorrowedFd<'_>) -> io::Result<u64> {
    named(&read_whole(group, c"cpu.stat")?, "usage_usec")
}

/// How many processes of a group the kernel has ended for want of memory.
pub fn out_of_memory_kills(group: BorrowedFd<'_>) -> io::Result<u64> {
    named(&read_whole(group, c"memory.events")?, "oom_kill")
}

/// The number behind a name in a file of such lines.
fn named(text: &str, name: &str) -> io::Result<u64> {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))
}

/// A descriptor of `cgroup.events`, which polls exceptional (POLLPRI) when the answer changes.
pub fn events(group: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_in(group, c"cgroup.events", libc::O_RDONLY)
}

fn read_whole(group: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<String> {
    let file = open_in(group, name, libc::O_RDONLY)?;
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        match fds::read(file.as_fd(), &mut part)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            count => text.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
}

fn open_in(group: BorrowedFd<'_>, name: &std::ffi::CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::openat(group.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC) }.into())
        .map(owned)
}

fn open_directory(at: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<OwnedFd> {
    let text = c_string(path.to_str().unwrap_or_default())?;
    let at = at.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: `text` is NUL-terminated and outlives the call.
    retry(|| unsafe { libc::openat(at, text.as_ptr(), flags) }.into()).map(owned)
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let text = "low 0\noom 1\noom_kill 3\noom_group_kill 2\n";
        assert_eq!(named(text, "oom_kill").unwrap(), 3);
        assert_eq!(named(text, "oom").unwrap(), 1);
        assert!(named(text, "high").is_err());
    }

    /// A directory with the files that a group has: what is written into them, and nothing where the kernel gives
    /// no such controller.
    #[test]
    fn controllers_and_limits_are_written_as_they_are_meant() {
        let dir = tempfile::tempdir().unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for (name, text) in [
            ("cgroup.controllers", "cpuset memory pidsx\n"),
            ("cgroup.subtree_control", ""),
            ("memory.max", ""),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let base = Base { directory: open_directory(None, dir.path()).unwrap(), path: dir.path().to_owned() };
        base.enable(&["memory", "pids"], &BTreeSet::new()).unwrap();
        assert_eq!(text("cgroup.subtree_control"), "+memory");
        let group = base.directory.as_fd();
        set(group, "memory.max", "536870912").unwrap();
        assert_eq!(text("memory.max"), "536870912");
        let missing = set(group, "cpu.max", "1 2").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        // What is on already is not written again.
        fs::write(dir.path().join("cgroup.subtree_control"), "memory cpuset\n").unwrap();
        base.enable(&["memory"], &BTreeSet::new()).unwrap();
        assert_eq!(text("cgroup.subtree_control"), "memory cpuset\n");
    }

    #[test]
    fn mount_points_are_found_among_others() {
        let line = "33 31 0:30 / /sys/fs/cgroup/my\\040unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mount_point(line), Some("/sys/fs/cgroup/my unified".to_owned()));
        assert_eq!(mount_point("34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
    }
}
