//! ROOT. The processes of one incarnation besides the main one: who they are, and how they are ended. Never
//! decides when.
//!
//! With a cgroup the kernel knows. Without one an incarnation is what is in the session that its main process leads,
//! what has its INVOCATION_ID, and all that hangs below either. A process that has left its session and its parents, and
//! cleared its environment, is not found, which is why `status` calls this tracking weak; the keeper is then its parent,
//! and `strays` finds it when supervise ends.

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
        /// The INVOCATION_ID of the incarnation.
        invocation: Option<&'a str>,
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
            Self::Session { .. } => self.members().into_iter().map(|(pid, _)| pid).collect(),
        }
    }

    /// The pids in it with the starts of the processes that have them; of a group's the starts are not asked.
    fn members(&self) -> Vec<(u32, u64)> {
        match self {
            Self::Group(_) => self.pids().into_iter().map(|pid| (pid, 0)).collect(),
            Self::Session { leader, start_time, invocation, keeper } => {
                session(*leader, *start_time, *invocation, *keeper)
            }
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
        for (pid, start_time) in self.members() {
            // The pid is looked at again behind its pidfd, so that the signal can reach nobody else.
            if let Ok(pidfd) = process::open(pid)
                && self.still_holds(pid, start_time)
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

    fn still_holds(&self, pid: u32, start_time: u64) -> bool {
        match self {
            Self::Group(group) => cgroup::processes(*group).is_ok_and(|all| all.contains(&pid)),
            Self::Session { .. } => process::stat(pid).is_ok_and(|stat| stat.start_time == start_time),
        }
    }
}

/// The processes of a session without a cgroup, with their starts.
fn session(leader: u32, start_time: u64, invocation: Option<&str>, keeper: Option<u32>) -> Vec<(u32, u64)> {
    // A number is not given out again while a session has it, so another leader means that ours is empty.
    let is_over = process::stat(leader).is_ok_and(|stat| stat.start_time != start_time);
    let is_of_it = |pid: u32, stat: &process::Stat| {
        stat.session == leader && !is_over
            // What began before it cannot be of it, and is not asked.
            || stat.start_time >= start_time && invocation.is_some_and(|one| has_invocation(pid, one))
    };
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let top = keeper.map_or_else(process::all, process::children).unwrap_or_default();
    // Below the keeper are the main processes and what has lost its parent. What hangs below one of its own is its own.
    let mut todo: Vec<(u32, bool)> = top.into_iter().map(|pid| (pid, false)).collect();
    while let Some((pid, is_below)) = todo.pop() {
        if seen.contains(&pid) {
            continue;
        }
        let Ok(stat) = process::stat(pid) else { continue };
        if !is_below && !is_of_it(pid, &stat) {
            continue;
        }
        seen.insert(pid);
        if stat.state != b'Z' && stat.state != b'X' {
            found.push((pid, stat.start_time));
        }
        todo.extend(process::children(pid).unwrap_or_default().into_iter().map(|child| (child, true)));
    }
    found.sort_unstable();
    found
}

/// Whether a process has the INVOCATION_ID of an incarnation in its environment, which its children inherit.
pub fn has_invocation(pid: u32, invocation: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let value =
        |pair: &[u8]| pair.strip_prefix(b"INVOCATION_ID=").is_some_and(|id| id == invocation.as_bytes());
    environment.split(|byte| *byte == 0).any(value)
}
