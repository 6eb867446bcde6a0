//! ROOT. The three processes that the keeper keeps alive. Never decides what they do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::say;
use crate::sys::link::Link;
use crate::sys::parent::{self, Helper};

/// Milliseconds to wait after the first, second, … death in a row; the last stands for all that follow.
const DELAYS_MS: [u64; 4] = [0, 100, 1_000, 5_000];

/// Milliseconds of life after which earlier deaths no longer count, for those who send no `Ready`.
const STEADY_MS: u64 = 10_000;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Clones.
    Zygote,
    /// Writes logs.
    Logger,
    /// Decides and acts.
    Manager,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Zygote => "zygote",
            Self::Logger => "logger",
            Self::Manager => "manager",
        }
    }
}

/// One of them: its program, and the incarnation that lives or is due.
#[derive(Debug)]
pub struct Child {
    role: Role,
    program: Helper,
    /// Its pid while it lives.
    pub pid: Option<u32>,
    /// The end of its link that is not its own: the keeper's for the manager, the manager's for the others.
    pub link: Option<Link>,
    deaths: usize,
    started_ms: u64,
    due_ms: u64,
}

impl Child {
    /// One that is due now.
    pub fn new(role: Role, program: Helper) -> Self {
        Self { role, program, pid: None, link: None, deaths: 0, started_ms: 0, due_ms: 0 }
    }

    /// When it is to be started; None while it lives.
    pub fn due(&self) -> Option<u64> {
        self.pid.is_none().then_some(self.due_ms)
    }

    /// Starts it with a fresh link at 3 and `more` from 4 on.
    pub fn start(&mut self, binary: BorrowedFd<'_>, more: &[BorrowedFd<'_>], now_ms: u64) {
        match self.try_start(binary, more) {
            Ok(pid) => {
                self.pid = Some(pid);
                self.started_ms = now_ms;
            }
            Err(error) => {
                say(format_args!("cannot start the {}: {error}", self.role.name()));
                self.put_off(now_ms);
            }
        }
    }

    fn try_start(&mut self, binary: BorrowedFd<'_>, more: &[BorrowedFd<'_>]) -> io::Result<u32> {
        let (ours, theirs) = Link::pair()?;
        let theirs: OwnedFd = theirs.into_fd();
        let pid = match more {
            [] => self.program.start(binary, &[theirs.as_fd()])?,
            [first] => self.program.start(binary, &[theirs.as_fd(), *first])?,
            [first, second, ..] => self.program.start(binary, &[theirs.as_fd(), *first, *second])?,
        };
        self.link = Some(ours);
        Ok(pid)
    }

    /// It has ended: it is due again after a delay that grows with deaths in a row.
    pub fn ended(&mut self, code: u32, status: i32, now_ms: u64) {
        let how = if code == libc::CLD_EXITED as u32 { "status" } else { "signal" };
        let name = self.role.name();
        say(format_args!("the {name} (pid {}) ended with {how} {status}", self.pid.unwrap_or(0)));
        self.pid = None;
        self.link = None;
        if now_ms.saturating_sub(self.started_ms) >= STEADY_MS {
            self.deaths = 0;
        }
        self.put_off(now_ms);
    }

    fn put_off(&mut self, now_ms: u64) {
        let delay = DELAYS_MS.get(self.deaths.min(DELAYS_MS.len() - 1)).copied().unwrap_or(0);
        self.deaths = self.deaths.saturating_add(1);
        self.due_ms = now_ms.saturating_add(delay);
    }

    /// It says that it works.
    pub fn steady(&mut self) {
        self.deaths = 0;
    }

    /// Whether it has died so often in a row that it is not to be counted on.
    pub fn is_hopeless(&self) -> bool {
        self.deaths >= DELAYS_MS.len()
    }

    /// Ends it at once. Its pid is ours until it is reaped.
    pub fn kill(&self) {
        if let Some(pid) = self.pid {
            let _ = parent::signal_child(pid, libc::SIGKILL);
        }
    }
}
