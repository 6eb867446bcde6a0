//! ROOT. What is said of an address that cannot be had, once for `run` and `check`. Never looks for anything.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{Address, Spot};
use crate::sys::errno::reason;

/// A failure of one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbound {
    /// Which.
    pub address: Address,
    /// What went wrong.
    pub reason: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Unbound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "binding {}: {}", self.address, self.reason)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(out, "\nhint: {hint}"))
    }
}

/// Who has an address that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A service of the same supervisor.
    Service(String),
    /// Another supervisor.
    Supervisor {
        /// Its runtime directory.
        runtime_dir: PathBuf,
        /// For which of its services, where that is known.
        service: Option<String>,
    },
    /// A process.
    Process {
        /// Its number.
        pid: u32,
        /// Its command line.
        command: String,
        /// Whose it is.
        user: Option<String>,
    },
    /// Nobody who can be seen.
    Unseen,
}

impl Holder {
    /// That he has it.
    pub fn refuses(&self, address: &Address) -> Unbound {
        let hint = match self {
            Self::Service(name) => {
                format!("give one of them another address, or `supervise stop {name}` first")
            }
            Self::Supervisor { runtime_dir, service: None } => {
                format!("`supervise --runtime-dir {} status` shows for whom", runtime_dir.display())
            }
            Self::Supervisor { runtime_dir, service: Some(name) } => format!(
                "give one of them another address, or `supervise --runtime-dir {} stop {name}` first",
                runtime_dir.display()
            ),
            Self::Process { .. } => "stop it, or choose another address".to_owned(),
            Self::Unseen => {
                let tool = match address.spot {
                    Spot::Inet { .. } => "`ss -lntup`",
                    Spot::Path(_) | Spot::Abstract(_) => "`ss -lxp`",
                };
                format!("{tool}, as root and in the same network namespace, names him")
            }
        };
        self.refuses_with(address, hint)
    }

    /// The same, where something better is known to do.
    pub fn refuses_with(&self, address: &Address, hint: String) -> Unbound {
        let reason = format!("address already in use: {self}");
        Unbound { address: address.clone(), reason, hint: Some(hint) }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(out, "`{name}` has it"),
            Self::Supervisor { runtime_dir, service } => {
                write!(out, "a supervisor with the runtime directory `{}` has it", runtime_dir.display())?;
                service.as_ref().map_or(Ok(()), |name| write!(out, " for `{name}`"))
            }
            Self::Process { pid, command, user } => {
                write!(out, "process {pid} (`{command}`, ")?;
                match user {
                    Some(user) => write!(out, "user {user}) has it"),
                    None => out.write_str("of an unknown user) has it"),
                }
            }
            Self::Unseen => out.write_str("by somebody who cannot be seen from here"),
        }
    }
}

/// What is at the path of a socket and cannot be bound over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// No socket.
    NoSocket,
    /// A socket of a user who is neither ours nor whom it is for.
    Strangers,
}

/// With whose rights a socket is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundAs {
    /// Root's.
    Root,
    /// Those of the service's user, as others than root can write its directory.
    Service,
    /// Those of the ordinary user who runs supervise.
    Runner,
}

impl InTheWay {
    /// As the failure of a bind.
    pub fn refuses(self, address: &Address) -> Unbound {
        let what = match self {
            Self::NoSocket => "something that is no socket",
            Self::Strangers => "a socket of another user",
        };
        let reason = reason(&io::Error::from_raw_os_error(libc::EADDRINUSE));
        Unbound { address: address.clone(), reason, hint: Some(format!("{what} is there; remove it")) }
    }
}

/// The system refuses to bind it; `part` of a path is what is in the way, where that is known.
pub fn refused(address: &Address, error: &io::Error, by: BoundAs, part: Option<&Path>) -> Unbound {
    let number = error.raw_os_error();
    let hint = match (&address.spot, number, by) {
        (Spot::Inet { address, .. }, Some(libc::EACCES), _) => Some(format!(
            "port {} is below net.ipv4.ip_unprivileged_port_start: it needs root or CAP_NET_BIND_SERVICE; take a higher \
             one, or let root run supervise",
            address.port()
        )),
        (Spot::Inet { .. }, Some(libc::EADDRNOTAVAIL), _) => Some(
            "no interface has this address yet; it is tried again, and `freebind = true` binds it before it is there"
                .to_owned(),
        ),
        (Spot::Inet { address, .. }, Some(libc::EAFNOSUPPORT), _) if address.is_ipv6() => Some(
            "the kernel has no IPv6 here: listen on an IPv4 address, such as `0.0.0.0`, or turn it on (`ipv6.disable=0`)"
                .to_owned(),
        ),
        (Spot::Path(_), Some(libc::ENOTDIR), _) => {
            let part = part.map_or_else(|| "a part of its path".to_owned(), |part| format!("`{}`", part.display()));
            Some(format!("{part} is a file: listen somewhere else, or remove that"))
        }
        (Spot::Path(_), Some(libc::ELOOP), _) => Some(
            "a symbolic link on its path leads in a circle, or belongs to another user: write the path without it"
                .to_owned(),
        ),
        (Spot::Path(_), Some(libc::EROFS), _) => Some(
            "the file system is mounted read-only: put the socket below /run, or have it mounted with write access"
                .to_owned(),
        ),
        (Spot::Path(_), Some(libc::ENOSPC | libc::EDQUOT), _) => {
            Some("make room on the file system; it is tried again".to_owned())
        }
        (Spot::Path(_), Some(libc::EACCES | libc::EPERM), BoundAs::Service) => Some(
            "it is bound with the rights of the service's user, as others than root can write on the way there, and that user may \
             not: give it the directory, or put the socket below /run"
                .to_owned(),
        ),
        (Spot::Path(_), Some(_), BoundAs::Service) => Some(
            "others than root can write its directory, so it is bound with the rights of the service's user".to_owned(),
        ),
        (Spot::Path(_), Some(libc::EACCES | libc::EPERM), BoundAs::Runner) => Some(
            "this user may not write in its directory: put the socket somewhere else, or let root run supervise".to_owned(),
        ),
        (_, Some(libc::EMFILE | libc::ENFILE), _) => {
            Some("raise the limit on open files (`ulimit -n`) of the supervisor".to_owned())
        }
        (_, Some(libc::ENOBUFS | libc::ENOMEM), _) => {
            Some("the kernel has no memory for it; it is tried again".to_owned())
        }
        (Spot::Inet { .. } | Spot::Path(_) | Spot::Abstract(_), _, _) => None,
    };
    Unbound { address: address.clone(), reason: reason(error), hint }
}

/// It is bound, and cannot be given to whom it is for.
pub fn not_given(address: &Address, error: &io::Error, by: BoundAs) -> Unbound {
    let hint = match by {
        BoundAs::Root => None,
        BoundAs::Service => Some(
            "it is bound with the rights of the service's user, who can give it to its own groups alone: list the group in \
             `groups`, or put the socket into a directory of root's"
                .to_owned(),
        ),
        BoundAs::Runner => Some(
            "an ordinary user can only give a socket to its own groups: name one of those, or let root run supervise"
                .to_owned(),
        ),
    };
    Unbound { address: address.clone(), reason: reason(error), hint }
}
