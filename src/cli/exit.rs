//! USER. The exit statuses of the commands, and what each means. Never a number anywhere else.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and as wanted.
    Done = 0,
    /// Refused, or the service failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// `status NAME`: not as wanted. Elsewhere: unit files have problems.
    NotAsWanted = 3,
    /// No such service.
    NoService = 4,
    /// No supervisor there.
    NoSupervisor = 5,
    /// Not permitted.
    NotPermitted = 6,
    /// The user stopped waiting (128 and the number of SIGINT, as a shell has it): the outcome is not known.
    Detached = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
