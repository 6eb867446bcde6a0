//! ROOT. The processes of one incarnation besides the main one: who they are, and how they are ended. Never
//! decides when.
//!
//! With a cgroup the kernel knows. Without one an incarnation is what is in the session that its main process
//! leads, as far as it hangs below the keeper: a process that leaves the session and its parents is not
//! found, which is why `status` calls this tracking weak.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::{cgroup, process};

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub enum Tree<'a> {
    /// A cgroup's directory.
    Group(BorrowedFd<'a>),
    /// The session of this main process, among the descendants of the keeper.
    Session {
        /// The main process, which leads the session.
        leader: u32,
        /// Its start: a session of this number with another leader is somebody else's.
        start_time: u64,
        /// The subreaper above all; None where another process adopted them, and all are looked at.
        keeper: Option<u32>,
    },
}

impl Tree<'_> {
    /// Whether anything lives in it. The main process, once it has ended, does not count.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Group(group) => match cgroup::is_populated(*group) {
                Ok(populated) => !populated,
                // A removed group has nobody in it; any other failure is not an empty tree.
                Err(error) => error.raw_os_error() == Some(libc::ENODEV),
            },
            Self::Session { .. } => self.pids().is_empty(),
        }
    }

    /// The pids in it, at this moment.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Self::Group(group) => cgroup::processes(*group).unwrap_or_default(),
            Self::Session { leader, start_time, keeper } => session(*leader, *start_time, *keeper),
        }
    }

    /// Bytes of memory in use, and microseconds of processor time. A group counts what has ended, too; without one it is
    /// what lives that is added up.
    pub fn usage(&self) -> (Option<u64>, Option<u64>) {
        let group = match self {
            Self::Group(group) => (cgroup::memory(*group).ok(), cgroup::processor_us(*group).ok()),
            Self::Session { .. } => (None, None),
        };
        if let (Some(_), Some(_)) = group {
            return group;
        }
        let (mut memory, mut processor) = (None, None);
        for stat in self.pids().into_iter().filter_map(|pid| process::stat(pid).ok()) {
            *memory.get_or_insert(0) += stat.memory_bytes();
            *processor.get_or_insert(0) += stat.processor_us();
        }
        (group.0.or(memory), group.1.or(processor))
    }

    /// Sends a signal to each. What is forked meanwhile may be missed, so callers come back until it is empty.
    pub fn signal(&self, signal: i32) {
        for pid in self.pids() {
            // The pid is looked at again behind its pidfd, so that the signal can reach nobody else.
            if let Ok(pidfd) = process::open(pid)
                && self.still_holds(pid)
            {
                let _ = process::signal(pidfd.as_fd(), signal);
            }
        }
    }

    /// Ends everything, finally.
    pub fn kill(&self) -> io::Result<()> {
        match self {
            Self::Group(group) => cgroup::kill(*group),
            Self::Session { .. } => {
                self.signal(libc::SIGKILL);
                Ok(())
            }
        }
    }

    /// Whether a process is in it.
    pub fn holds(&self, pid: u32) -> bool {
        self.pids().contains(&pid)
    }

    fn still_holds(&self, pid: u32) -> bool {
        match self {
            Self::Group(group) => cgroup::processes(*group).is_ok_and(|all| all.contains(&pid)),
            Self::Session { leader, .. } => process::stat(pid).is_ok_and(|stat| stat.session == *leader),
        }
    }
}

fn session(leader: u32, start_time: u64, keeper: Option<u32>) -> Vec<u32> {
    // A number is not given out again while a session has it, so another leader means that ours is empty.
    if process::stat(leader).is_ok_and(|stat| stat.start_time != start_time) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo = keeper.map_or_else(process::all, process::children).unwrap_or_default();
    // Below the keeper are the main processes and what has lost its parent; only the session's are entered.
    while let Some(pid) = todo.pop() {
        if !seen.insert(pid) {
            continue;
        }
        let Ok(stat) = process::stat(pid) else { continue };
        if stat.session == leader {
            if stat.state != b'Z' && stat.state != b'X' {
                found.push(pid);
            }
            todo.extend(process::children(pid).unwrap_or_default());
        }
    }
    found.sort_unstable();
    found
}
