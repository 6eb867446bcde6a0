//! Processes as /proc shows them, and signals to those that are surely ours. Never a name in place of a pid.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use supervise::sys::process;

/// What `/proc/PID/stat` says of a living process, zombies included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: u32,
    pub state: char,
    pub parent: u32,
    pub session: u32,
    pub started: u64,
}

pub fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses too.
    let rest = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Whether there is a process that can still do something.
pub fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

pub fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

/// Whether this kernel says how a process ended that somebody else has reaped (PIDFD_GET_INFO, Linux 6.15).
pub fn are_told_of_when_reaped() -> bool {
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "read _; exit 7"]).stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pidfd = process::open(child.id()).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    process::foreign_status(pidfd.as_fd(), child.id(), 0) == Some(7 << 8)
}

/// The children of a process, of this role among ours.
pub fn role_below(keeper: u32, role: &str) -> Option<u32> {
    all().into_iter().find(|pid| {
        stat(*pid).is_some_and(|stat| stat.parent == keeper && !matches!(stat.state, 'Z' | 'X'))
            && matches!(&arguments(*pid)[..], [first, second, ..] if first == "supervise" && second == role)
    })
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    all().into_iter().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent)).collect()
}

/// Every living process that has something to do with a directory: its program or working directory is in
/// there, or its arguments or variables name it.
pub fn of(directory: &Path) -> Vec<u32> {
    let me = std::process::id();
    let text = directory.to_str().unwrap();
    let mentions = |bytes: std::io::Result<Vec<u8>>| {
        bytes.is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    let is_below = |link: &str| fs::read_link(link).is_ok_and(|path| path.starts_with(directory));
    let is_ours = |pid: &u32| {
        is_below(&format!("/proc/{pid}/exe"))
            || is_below(&format!("/proc/{pid}/cwd"))
            || mentions(fs::read(format!("/proc/{pid}/cmdline")))
            || mentions(fs::read(format!("/proc/{pid}/environ")))
    };
    all().into_iter().filter(|pid| *pid != me && lives(*pid)).filter(is_ours).collect()
}

/// One line about a process, for people.
pub fn described(pid: u32) -> String {
    format!("{pid} ({}): {}", stat(pid).map_or('?', |stat| stat.state), arguments(pid).join(" "))
}

/// Sends a signal to a process by a pidfd, so that it can reach nobody else.
#[track_caller]
pub fn signal(pid: u32, signal: i32) {
    let before = stat(pid).unwrap_or_else(|| panic!("there is no process {pid}"));
    let pidfd = process::open(pid).unwrap();
    assert_eq!(stat(pid).map(|now| now.started), Some(before.started), "{pid} was taken again");
    process::signal(pidfd.as_fd(), signal).unwrap();
}
