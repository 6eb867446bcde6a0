//! CHILD. Looks at a service with the service's own rights: asks whether it answers, runs its health command, sees who
//! listens where. Never as root for a service that is not, and never longer than whoever asked is there.

mod ask;
mod command;
mod see;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

use crate::sys::{clock, fds, gate, parent};
use crate::wire::probe::{Finding, Task};

/// The first pause of one who looks again and again, in milliseconds; each is half as long again as the one before.
const FIRST_PAUSE_MS: u64 = 5;
/// The longest.
const MOST_PAUSE_MS: u64 = 250;

/// Does what its argument says and writes what it found as a line to standard output, whose other end is the manager's.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let task = match arguments.as_slice() {
        [task] => task.to_str().and_then(Task::decode),
        _ => None,
    };
    let Some(task) = task else {
        fds::complain("probe: this process is started by supervise itself");
        return ExitCode::from(2);
    };
    let found = match task {
        Task::Answer { at, asks } => ask::until_answered(&at, &asks),
        Task::Listens { main, sockets } => until(|| see::waits(main, &sockets).then_some(Finding::Ready)),
        Task::Health { at, ask, only, timeout_ms, again_ms } => {
            until_healthy(again_ms, || ask::health(&at, &ask, only, timeout_ms))
        }
        Task::Command { argv, timeout_ms, again_ms } => {
            until_healthy(again_ms, || command::health(&argv, timeout_ms))
        }
        Task::Look { main, sockets } => Some(see::look(main, &sockets)),
    };
    match found {
        Some(found) if say(&found) => ExitCode::SUCCESS,
        Some(_) | None => ExitCode::FAILURE,
    }
}

/// Whole lines at once; false once nobody listens any more.
fn say(found: &Finding) -> bool {
    let mut out = std::io::stdout();
    out.write_all(found.encode().as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Looks until there is something, with growing pauses; None once nobody listens any more.
fn until(mut look: impl FnMut() -> Option<Finding>) -> Option<Finding> {
    let mut pause_ms = FIRST_PAUSE_MS;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if !pause(pause_ms) {
            return None;
        }
        pause_ms = (pause_ms + pause_ms / 2 + 1).min(MOST_PAUSE_MS);
    }
}

/// Asks once, or until all is well; meanwhile whatever else is found is said once.
fn until_healthy(again_ms: Option<u64>, mut ask: impl FnMut() -> Finding) -> Option<Finding> {
    let mut said = None;
    loop {
        let found = ask();
        match again_ms {
            Some(again_ms) if !matches!(found, Finding::Healthy(_)) => {
                if said.as_ref() != Some(&found) && !say(&found) {
                    return None;
                }
                said = Some(found);
                if !pause(again_ms) {
                    return None;
                }
            }
            Some(_) | None => return Some(found),
        }
    }
}

/// Lets time pass; false once whoever asked has gone.
fn pause(ms: u64) -> bool {
    let until = clock::monotonic_ms() + ms;
    loop {
        if is_alone() {
            return false;
        }
        let left = until.saturating_sub(clock::monotonic_ms());
        if left == 0 {
            return true;
        }
        // A pipe without a reader is an event in itself.
        let _ = gate::wait_gone(std::io::stdout().as_fd(), left.min(1_000) as i32);
    }
}

/// Whether nobody reads our standard output any more.
fn is_alone() -> bool {
    gate::is_gone(std::io::stdout().as_fd())
}

/// Waits until one of these can be read, at most so long; which.
fn readable(fds: &[std::os::fd::BorrowedFd<'_>], ms: u64) -> Vec<bool> {
    let mut flags = vec![false; fds.len()];
    let _ = parent::wait(fds, ms.min(1_000) as i32, &mut flags);
    flags
}
