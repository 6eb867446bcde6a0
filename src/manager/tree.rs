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
    let mut found = Vec::new();
    let top = || keeper.map_or_else(process::all, process::children).unwrap_or_default();
    let below = |pid| process::children(pid).unwrap_or_default();
    gather(top, below, |pid, is_below| {
        let Ok(stat) = process::stat(pid) else { return false };
        if !is_below && !is_of_it(pid, &stat) {
            return false;
        }
        if stat.state != b'Z' && stat.state != b'X' {
            found.push((pid, stat.start_time));
        }
        true
    });
    found.sort_unstable();
    found
}

/// How often a walk looks again for what moved meanwhile. Who forks and ends without pause keeps no walk going.
const MOST_LOOKS: usize = 8;

/// Asks about each process at the `top` (the main processes, and what has lost its parent) whether it is of the
/// incarnation, and about all that hang `below` one that is, once each.
///
/// A process whose parent ends hangs elsewhere at once: below the nearest subreaper among its ancestors, at last at the
/// top (prctl(2), PR_SET_CHILD_SUBREAPER). So who has been asked where it no longer is and not yet where it is now would be
/// missed. Therefore each list is read again until nothing new is in any, those of descendants before those of their
/// ancestors and the top at the end: what moves in between moves to where it is looked for later.
fn gather(
    top: impl Fn() -> Vec<u32>,
    below: impl Fn(u32) -> Vec<u32>,
    mut is_of_it: impl FnMut(u32, bool) -> bool,
) {
    let (mut members, mut asked) = (Vec::new(), BTreeSet::new());
    for _ in 0..MOST_LOOKS {
        let kin: Vec<u32> = members.iter().rev().flat_map(|member| below(*member)).collect();
        let mut seen: Vec<(u32, bool)> = top().into_iter().map(|pid| (pid, false)).collect();
        seen.extend(kin.into_iter().map(|pid| (pid, true))); // asked first: it was below when it was seen
        seen.retain(|(pid, _)| !asked.contains(pid));
        if seen.is_empty() {
            return;
        }
        while let Some((pid, is_below)) = seen.pop() {
            if asked.insert(pid) && is_of_it(pid, is_below) {
                members.push(pid);
                seen.extend(below(pid).into_iter().map(|child| (child, true)));
            }
        }
    }
}

/// Whether a process has the INVOCATION_ID of an incarnation in its environment, which its children inherit.
pub fn has_invocation(pid: u32, invocation: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let value =
        |pair: &[u8]| pair.strip_prefix(b"INVOCATION_ID=").is_some_and(|id| id == invocation.as_bytes());
    environment.split(|byte| *byte == 0).any(value)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Who is found below 10, which leads, when 40 is asked for at the top and the parent of 30 changes from each of
    /// `parents` to the next when so many lists were read.
    fn found(parents: &[u32], moves: [usize; 3]) -> Vec<u32> {
        let read = Cell::new(0);
        let list = |asked: u32| {
            let now = read.replace(read.get() + 1);
            let moved = moves.iter().filter(|at| **at <= now).count();
            let all = [(10, 1), (20, 10), (25, 20), (40, 1), (30, parents[moved])];
            all.into_iter().filter(|(_, parent)| *parent == asked).map(|(pid, _)| pid).collect()
        };
        let mut all = Vec::new();
        gather(
            || list(1),
            list,
            |pid, is_below| {
                let is = is_below || pid != 40;
                all.extend(is.then_some(pid));
                is
            },
        );
        all.sort_unstable();
        all
    }

    #[test]
    fn what_moves_during_the_walk_is_found() {
        for first in 0..16 {
            for second in first..16 {
                for third in second..16 {
                    // Up through subreapers of its own, to the top.
                    let moves = [first, second, third];
                    assert_eq!(found(&[25, 20, 10, 1], moves), [10, 20, 25, 30], "{moves:?}");
                }
            }
        }
    }

    #[test]
    fn who_never_stops_forking_keeps_no_walk_going() {
        let next = Cell::new(10);
        let top = || vec![next.replace(next.get() + 1)];
        let mut asked = 0;
        gather(
            top,
            |_| Vec::new(),
            |_, _| {
                asked += 1;
                true
            },
        );
        assert_eq!(asked, MOST_LOOKS);
    }
}
