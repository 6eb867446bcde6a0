//! ROOT. Control groups of version 2: one directory for each incarnation. Never decides what goes in.
//!
//! Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst: `cgroup.kill`, `cgroup.events`,
//! `cgroup.procs`; CLONE_INTO_CGROUP of clone(2) takes the directory's descriptor.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use super::fds::owned;
use super::{fds, files, process, retry};

/// The group that the processes of supervise itself move to where the kernel wants them out of the way.
const OWN: &str = "supervise.own";

/// The group below which ours are made.
#[derive(Debug)]
pub struct Base {
    directory: OwnedFd,
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Whether the processes of supervise are in a group of their own below.
    moved: bool,
}

/// What came of turning controllers on.
#[derive(Debug, Default)]
pub struct Switched {
    /// Whether any was off before: whatever groups are there have no limits of it.
    pub changed: bool,
    /// Those that are not on, with the kernel's reason; None where the group itself is not given it.
    pub lacking: Vec<(&'static str, Option<io::Error>)>,
}

/// What the limits of a group have done to it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// How many of its processes the kernel has ended for want of memory.
    pub killed: u64,
    /// Whether memory was ever wanting because of its own limit, and not of that of a group above, or of the machine.
    pub by_its_limit: bool,
    /// Bytes of memory that it had at most; None before Linux 5.19.
    pub most_memory: Option<u64>,
    /// Bytes of memory that it may have; None for any number.
    pub memory_limit: Option<u64>,
    /// How often a process or a thread was refused.
    pub refused: u64,
    /// How many there were at most; None before Linux 6.1.
    pub most_processes: Option<u64>,
    /// How many there may be; None for any number.
    pub process_limit: Option<u64>,
}

/// How often a group is looked at whose processes are killed one after the other.
const MOST_PASSES: usize = 100;
/// How many groups below one are looked at for processes.
const MOST_BELOW: usize = 1024;

impl Base {
    /// This process's own group, where it is of version 2 and groups can be made in it. The error says why
    /// there is none: then processes are followed as a tree, which is weaker.
    pub fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let group = fs::read_to_string("/proc/self/cgroup")?;
        let missing = |what| io::Error::new(io::ErrorKind::NotFound, what);
        let own = group.lines().find_map(|line| line.strip_prefix("0::"));
        let own = own.ok_or_else(|| missing("no cgroup v2 here"))?;
        // One of ours that came before may have moved us.
        let own = Path::new(own);
        let moved = own.file_name().is_some_and(|name| name == OWN);
        let own = own.parent().filter(|_| moved).unwrap_or(own);
        let path = mounts.lines().find_map(|line| place(line, own));
        let path = path.ok_or_else(|| missing("no mount of cgroup v2 has the group of this process"))?;
        let directory = open_directory(None, &path)?;
        let base = Self { directory, path, moved };
        // The only way to know whether we may is to do it.
        let probe = format!("supervise.probe.{}", std::process::id());
        base.make(&probe)?;
        base.remove(&probe)?;
        Ok(base)
    }

    /// Turns these controllers on for the groups that are made in this one, each as far as the kernel lets us. Where
    /// `ours` are the only processes in it they move to a group of their own below, as the kernel wants it; EBUSY
    /// where there are others.
    pub fn enable(&mut self, controllers: &[&'static str], ours: &BTreeSet<u32>) -> io::Result<Switched> {
        let given = read_whole(self.directory.as_fd(), c"cgroup.controllers")?;
        let on = read_whole(self.directory.as_fd(), c"cgroup.subtree_control")?;
        let has = |text: &str, name: &str| text.split_ascii_whitespace().any(|word| word == name);
        let mut switched = Switched::default();
        let missing: Vec<&'static str> =
            controllers.iter().copied().filter(|controller| !has(&on, controller)).collect();
        let mut in_the_way = None;
        if missing.iter().any(|controller| has(&given, controller)) {
            in_the_way = self.make_room(ours).err();
        }
        for controller in missing {
            if !has(&given, controller) {
                switched.lacking.push((controller, None));
            } else if let Some(error) = &in_the_way {
                let error = io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EBUSY));
                switched.lacking.push((controller, Some(error)));
            } else {
                match set(self.directory.as_fd(), "cgroup.subtree_control", &format!("+{controller}")) {
                    Ok(()) => switched.changed = true,
                    Err(error) => switched.lacking.push((controller, Some(error))),
                }
            }
        }
        Ok(switched)
    }

    /// Sees to it that no process is in the group itself, but in the root of all, where it does no harm. To be done first:
    /// `cpu` and `pids` can be turned on beside processes, and then no other group in there can have a process.
    fn make_room(&mut self, ours: &BTreeSet<u32>) -> io::Result<()> {
        match open_in(self.directory.as_fd(), c"cgroup.type", libc::O_RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()), // the root of all
            result => drop(result?),
        }
        // What is forked meanwhile is in there once more.
        for _ in 0..3 {
            if direct(self.directory.as_fd())?.is_empty() {
                return Ok(());
            }
            self.move_below(ours)?;
        }
        Ok(())
    }

    /// Turns all controllers off where ours had to make room for them: only then can an init put a process into this
    /// group again. The limits of the groups in it are gone.
    pub fn disable(&self) -> io::Result<()> {
        if !self.moved {
            return Ok(());
        }
        for controller in
            read_whole(self.directory.as_fd(), c"cgroup.subtree_control")?.split_ascii_whitespace()
        {
            set(self.directory.as_fd(), "cgroup.subtree_control", &format!("-{controller}"))?;
        }
        Ok(())
    }

    /// Leaves the group as it was found: no controllers on, and the processes of supervise in it.
    pub fn give_back(&mut self) -> io::Result<()> {
        if !self.moved {
            return Ok(());
        }
        self.disable()?;
        for pid in direct(self.open(OWN)?.as_fd())? {
            ended(set(self.directory.as_fd(), "cgroup.procs", &pid.to_string()))?;
        }
        self.remove(OWN)?;
        self.moved = false;
        Ok(())
    }

    /// The processes in the group itself that are not these.
    pub fn others(&self, ours: &BTreeSet<u32>) -> io::Result<Vec<u32>> {
        let inside = direct(self.directory.as_fd())?;
        Ok(inside.into_iter().filter(|pid| !ours.contains(pid)).collect())
    }

    fn move_below(&mut self, ours: &BTreeSet<u32>) -> io::Result<()> {
        if !self.others(ours)?.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let own = match self.make(OWN) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.open(OWN)?,
            made => made?,
        };
        self.moved = true;
        for pid in direct(self.directory.as_fd())? {
            ended(set(own.as_fd(), "cgroup.procs", &pid.to_string()))?;
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

    /// The same with the groups that a service has made below its own; EBUSY while a process is in any of them.
    pub fn remove_all(&self, name: &str) -> io::Result<()> {
        match self.remove(name) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if is_populated(self.open(name)?.as_fd())? {
                    return Err(error);
                }
                for below in below(&self.path.join(name)).iter().rev() {
                    fs::remove_dir(below)?;
                }
                self.remove(name)
            }
            result => result,
        }
    }
}

/// What was to be done to a process that may have ended meanwhile.
fn ended(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) })
}

/// Where a group is seen, where a line of mountinfo is of a mount of cgroup2 that shows it: one may show a part alone, and
/// a cgroup namespace may hide what is above.
fn place(line: &str, group: &Path) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    if !right.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    // Spaces and the like are octal escapes there.
    let mut next =
        || Some(fields.next()?.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"));
    let (root, point) = (next()?, next()?);
    let below = group.strip_prefix(&root).ok()?;
    // What lies outside of the namespace has no name in it.
    below.components().all(|part| part != Component::ParentDir).then(|| Path::new(&point).join(below))
}

/// Writes a value into one of a group's files. NotFound where its controller is not on.
pub fn set(group: BorrowedFd<'_>, name: &str, value: &str) -> io::Result<()> {
    let file = open_in(group, &c_string(name)?, libc::O_WRONLY)?;
    fds::write(file.as_fd(), value.as_bytes()).map(drop)
}

/// Kills everything in a group, also what is forked meanwhile; before Linux 5.14 one after the other, and what forks faster
/// than that is left.
pub fn kill(group: BorrowedFd<'_>) -> io::Result<()> {
    match open_in(group, c"cgroup.kill", libc::O_WRONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => kill_each(group),
        file => fds::write(file?.as_fd(), b"1").map(drop),
    }
}

fn kill_each(group: BorrowedFd<'_>) -> io::Result<()> {
    let mut killed = BTreeSet::new();
    for _ in 0..MOST_PASSES {
        let all = processes(group)?;
        let new: Vec<u32> = all.into_iter().filter(|pid| !killed.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            // Behind its pidfd it is looked at again, so that the signal can reach nobody else.
            if let Ok(pidfd) = process::open(pid)
                && processes(group)?.contains(&pid)
            {
                let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
            }
            killed.insert(pid);
        }
    }
    Ok(())
}

/// The pids in a group and in those below it, at this moment.
pub fn processes(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut found = direct(group)?;
    // Few have any below, and their number is known without looking for them.
    if has_groups_below(group)? {
        for path in below(Path::new(&format!("/proc/self/fd/{}", group.as_raw_fd()))) {
            // One of threads alone tells no pids, and one may go meanwhile.
            found.extend(
                open_directory(None, &path).and_then(|group| direct(group.as_fd())).unwrap_or_default(),
            );
        }
    }
    Ok(found)
}

fn direct(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let text = read_whole(group, c"cgroup.procs")?;
    Ok(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// In this file system a directory has a link for each of those in it, for itself and for its own name.
fn has_groups_below(group: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(files::links(group)? > 2)
}

/// The groups below one, those above before those below.
fn below(group: &Path) -> Vec<PathBuf> {
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next)
        && found.len() <= MOST_BELOW
    {
        let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let groups: Vec<PathBuf> = groups.map(|entry| entry.path()).collect();
        found.extend(groups);
        next += 1;
    }
    found.drain(..1);
    found
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

/// What the limits of a group have done to it; nothing of what its controllers do not tell.
pub fn strain(group: BorrowedFd<'_>) -> Strain {
    let read = |name| read_whole(group, name).ok();
    let number = |name| read(name)?.trim().parse().ok();
    let events = |name, what| read(name).and_then(|text| named(&text, what).ok()).unwrap_or(0);
    let mut strain = Strain {
        killed: events(c"memory.events", "oom_kill"),
        refused: events(c"pids.events", "max"),
        ..Strain::default()
    };
    if strain.killed > 0 {
        strain.by_its_limit = events(c"memory.events", "oom") > 0;
        strain.most_memory = number(c"memory.peak");
        strain.memory_limit = number(c"memory.max");
    }
    if strain.refused > 0 {
        strain.most_processes = number(c"pids.peak");
        strain.process_limit = number(c"pids.max");
    }
    strain
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
        let mut base = base_at(dir.path());
        let switched = base.enable(&["memory", "pids"], &BTreeSet::new()).unwrap();
        assert_eq!(text("cgroup.subtree_control"), "+memory");
        assert!(switched.changed);
        let lacking: Vec<_> = switched.lacking.iter().map(|(name, why)| (*name, why.is_none())).collect();
        assert_eq!(lacking, [("pids", true)]);
        let group = base.directory.as_fd();
        set(group, "memory.max", "536870912").unwrap();
        assert_eq!(text("memory.max"), "536870912");
        let missing = set(group, "cpu.max", "1 2").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        // What is on already is not written again.
        fs::write(dir.path().join("cgroup.subtree_control"), "memory cpuset\n").unwrap();
        let switched = base.enable(&["memory"], &BTreeSet::new()).unwrap();
        assert_eq!(text("cgroup.subtree_control"), "memory cpuset\n");
        assert!(!switched.changed && switched.lacking.is_empty());
        // Others may count on what is on in a group that is not ours alone.
        base.give_back().unwrap();
        assert_eq!(text("cgroup.subtree_control"), "memory cpuset\n");
    }

    fn base_at(path: &Path) -> Base {
        Base { directory: open_directory(None, path).unwrap(), path: path.to_owned(), moved: false }
    }

    #[test]
    fn what_limits_have_done_is_read_where_they_have_done_something() {
        let dir = tempfile::tempdir().unwrap();
        let base = base_at(dir.path());
        let strain = || strain(base.directory.as_fd());
        assert_eq!(strain(), Strain::default());
        for (name, text) in [
            ("memory.events", "low 0\nhigh 0\nmax 87\noom 0\noom_kill 0\noom_group_kill 0\n"),
            ("memory.peak", "52428800\n"),
            ("memory.max", "52428800\n"),
            ("pids.events", "max 0\n"),
            ("pids.peak", "3\n"),
            ("pids.max", "max\n"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(strain(), Strain::default());
        fs::write(dir.path().join("memory.events"), "low 0\nmax 87\noom 1\noom_kill 2\n").unwrap();
        fs::write(dir.path().join("pids.events"), "max 7\n").unwrap();
        let all = Strain {
            killed: 2,
            by_its_limit: true,
            most_memory: Some(52_428_800),
            memory_limit: Some(52_428_800),
            refused: 7,
            most_processes: Some(3),
            process_limit: None,
        };
        assert_eq!(strain(), all);
        // Kernels before 5.19 know no peak.
        fs::remove_file(dir.path().join("memory.peak")).unwrap();
        assert_eq!(strain(), Strain { most_memory: None, ..all });
    }

    #[test]
    fn where_the_kernel_kills_no_group_each_of_its_processes_is_killed() {
        use std::os::unix::process::ExitStatusExt;
        let dir = tempfile::tempdir().unwrap();
        let base = base_at(dir.path());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(dir.path().join("cgroup.procs"), format!("{}\n", child.id())).unwrap();
        kill(base.directory.as_fd()).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn groups_below_are_found_from_above() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        let mut found = below(dir.path());
        assert_eq!(found.last(), Some(&dir.path().join("a/b")));
        found.sort();
        assert_eq!(found, ["a", "a/b", "c"].map(|name| dir.path().join(name)));
    }

    #[test]
    fn a_group_is_found_in_the_mount_that_shows_it() {
        let seen = |line: &str, group: &str| place(line, Path::new(group));
        let whole = "33 31 0:30 / /sys/fs/cgroup/my\\040unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(seen(whole, "/"), Some(PathBuf::from("/sys/fs/cgroup/my unified")));
        assert_eq!(seen(whole, "/a/b"), Some(PathBuf::from("/sys/fs/cgroup/my unified/a/b")));
        assert_eq!(seen("34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", "/"), None);
        // A container that shares the namespace of the machine sees its own part alone.
        let part = "33 31 0:30 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup2 rw";
        assert_eq!(seen(part, "/docker/x"), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(seen(part, "/docker/x/in"), Some(PathBuf::from("/sys/fs/cgroup/in")));
        assert_eq!(seen(part, "/docker/xy"), None);
        // A mount from outside of the namespace, and a process that is outside of it.
        assert_eq!(seen("33 31 0:30 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "/"), None);
        assert_eq!(seen(whole, "/../other"), None);
    }
}
