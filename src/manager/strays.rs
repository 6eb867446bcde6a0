//! ROOT. What is left below the keeper when everything is stopped: processes that have left their session, their parents
//! and their cgroup, and cleared their environment, so that nobody can say whose they were. Nothing outlives supervise.
//! Never looks at them before.

use std::os::fd::AsFd;

use super::Manager;
use crate::sys::{clock, parent, process};
use crate::wire::state::header;

/// Milliseconds that they have after TERM, and the most that is waited for their end after KILL.
const GRACE_MS: u64 = 1_000;
/// Milliseconds between two looks.
const LOOK_AGAIN_MS: i32 = 20;
/// Bytes that are told of what one was called with.
const MOST_TOLD: usize = 120;

impl Manager {
    /// Ends them, and says which they were.
    pub(super) fn end_strays(&self) {
        let found = self.strays();
        for pid in &found {
            log::warn!(
                "process {pid} ({}) is of no service any more, and is ended with supervise\nhint: without cgroups what \
                 leaves its session and clears its environment cannot be told apart; have the service stay in the foreground",
                called(*pid)
            );
        }
        if found.is_empty() {
            return;
        }
        self.until_gone(libc::SIGTERM);
        self.until_gone(libc::SIGKILL);
    }

    /// Signals all of them once, those that come to light meanwhile too, and waits for their end.
    fn until_gone(&self, signal: i32) {
        let until = clock::monotonic_ms() + GRACE_MS;
        let mut signalled = Vec::new();
        loop {
            let left = self.strays();
            for pid in left.iter().filter(|pid| !signalled.contains(*pid)) {
                if let Ok(pidfd) = process::open(*pid)
                    && self.is_stray(*pid)
                {
                    let _ = process::signal(pidfd.as_fd(), signal);
                }
            }
            if left.is_empty() || clock::monotonic_ms() >= until {
                return;
            }
            signalled = left;
            let _ = parent::wait(&[], LOOK_AGAIN_MS, &mut []);
        }
    }

    fn strays(&self) -> Vec<u32> {
        let mut all = process::children(self.kept.keeper_pid).unwrap_or_default();
        all.retain(|pid| self.is_stray(*pid));
        all
    }

    /// Whether it is a child of the keeper that began after us and is none of ours. What was there before, of a script
    /// that became supervise, is not touched.
    fn is_stray(&self, pid: u32) -> bool {
        let Ok(stat) = process::stat(pid) else { return false };
        let lives = !matches!(stat.state, b'Z' | b'X');
        lives
            && stat.parent == self.kept.keeper_pid
            && stat.start_time >= self.store.get(header::BEGAN)
            && pid != std::process::id()
            && !is_ours(pid)
    }
}

/// Whether it is one of supervise's own, by the program that it executes and what it is called.
fn is_ours(pid: u32) -> bool {
    let program = |who: &str| std::fs::read_link(format!("/proc/{who}/exe")).ok();
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // Who may not look at the program believes what it is called.
    let same = || program(&pid.to_string()).is_none_or(|theirs| program("self") == Some(theirs));
    let is_role = [&b"supervise\0zygote\0"[..], b"supervise\0logger\0", b"supervise\0manager\0"];
    is_role.iter().any(|role| arguments.starts_with(role)) && same()
}

/// What it was called with, as far as a line has room for it.
fn called(pid: u32) -> String {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(arguments.get(..arguments.len().min(MOST_TOLD)).unwrap_or_default())
        .into_owned();
    let words: String = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    words.trim_end().to_owned()
}

/// When this process began, in clock ticks after boot.
pub fn now_ticks() -> u64 {
    process::stat(std::process::id()).map_or(0, |stat| stat.start_time)
}
