//! ROOT. The listening sockets: bound once, kept by the keeper, put right before each hand-over, removed with
//! their unit. Never accepts.
//!
//! A Unix socket's file is bound as root only where nobody else can write the directory; there the file found
//! at the path is removed only if it is a socket of ours and its lock shows that its owner is gone.

use crate::sys::errno::reason;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::kept::Kept;
use crate::policy::ServiceId;
use crate::sys::{fds, files, sockets};
use crate::wire::keeper::Kind;

/// An address, in the one form in which two are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Address {
    /// TCP; `dual` takes IPv4 on an IPv6 socket too.
    Tcp {
        /// Address and port.
        address: SocketAddr,
        /// Whether IPv4 comes in as well.
        dual: bool,
    },
    /// A path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, dual: true } => write!(out, ":{}", address.port()),
            Self::Tcp { address, dual: false } => write!(out, "{address}"),
            Self::Unix(path) => write!(out, "{}", path.display()),
        }
    }
}

/// What a unit wants of a socket, its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub address: Address,
    /// The file's mode, for Unix sockets.
    pub mode: u32,
    /// The file's owner, where one is named.
    pub user: Option<u32>,
    /// The file's group, where one is named.
    pub group: Option<u32>,
    /// How many connections may wait.
    pub backlog: u32,
    /// TCP_NODELAY.
    pub nodelay: bool,
}

/// One that is bound, as the state has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Whose.
    pub service: ServiceId,
    /// Where.
    pub address: Address,
    /// Device and inode of a Unix socket's file.
    pub file: Option<(u64, u64)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Listeners {
    table: BTreeMap<u64, Listener>,
}

/// A failure of one socket.
#[derive(Debug)]
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
        self.hint.as_ref().map_or(Ok(()), |hint| write!(out, " (hint: {hint})"))
    }
}

impl Listeners {
    /// Takes one up again.
    pub fn restore(&mut self, id: u64, listener: Listener) {
        self.table.insert(id, listener);
    }

    /// The one at an address.
    pub fn at(&self, address: &Address) -> Option<(u64, &Listener)> {
        self.table.iter().find(|(_, one)| one.address == *address).map(|(id, one)| (*id, one))
    }

    /// Those of a service.
    pub fn of(&self, service: ServiceId) -> Vec<u64> {
        self.table.iter().filter(|(_, one)| one.service == service).map(|(id, _)| *id).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Listener)> {
        self.table.iter().map(|(id, one)| (*id, one))
    }

    /// Binds one and has it kept under `id`. It listens when this returns.
    pub fn bind(
        &mut self,
        id: u64,
        service: ServiceId,
        wanted: &Wanted,
        locks: &Path,
        kept: &mut Kept,
    ) -> Result<Listener, Unbound> {
        let fail = |error: io::Error, hint: Option<String>| Unbound {
            address: wanted.address.clone(),
            reason: reason(&error),
            hint,
        };
        let (socket, file) = match &wanted.address {
            Address::Tcp { address, dual } => {
                let socket = sockets::bind_tcp(*address, *dual, wanted.nodelay).map_err(|error| {
                    let hint = tcp_hint(&error, address.port());
                    fail(error, hint)
                })?;
                (socket, None)
            }
            Address::Unix(path) => {
                let lock = lock(locks, path).map_err(|error| {
                    let held = error.kind() == io::ErrorKind::WouldBlock;
                    let hint = held.then(|| "another supervisor holds this path".to_owned());
                    fail(error, hint)
                })?;
                let (socket, file) = bind_file(path, wanted).map_err(|(error, hint)| fail(error, hint))?;
                kept.put(Kind::PathLock, id, 0, lock).map_err(|error| fail(error, None))?;
                (socket, Some(file))
            }
        };
        // Last, so that no client slips in before owner and mode are right.
        sockets::listen(socket.as_fd(), wanted.backlog).map_err(|error| {
            let hint = match &wanted.address {
                Address::Tcp { address, .. } => tcp_hint(&error, address.port()),
                Address::Unix(_) => None,
            };
            fail(error, hint)
        })?;
        // The flag is shared with the service, which expects what a socket of its own would be (sd_listen_fds(3)).
        fds::set_nonblocking(socket.as_fd(), false).map_err(|error| fail(error, None))?;
        kept.put(Kind::Listener, id, 0, socket).map_err(|error| {
            fail(error, Some("raise the limit on open files (`ulimit -n`) of the supervisor".to_owned()))
        })?;
        let listener = Listener { service, address: wanted.address.clone(), file };
        self.table.insert(id, listener.clone());
        Ok(listener)
    }

    /// Puts a kept one right before it is handed over: a holder may have shut it down or shrunk its queue.
    pub fn repair(&self, id: u64, backlog: u32, kept: &Kept) -> io::Result<()> {
        let fd = kept.fd(Kind::Listener, id).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        fds::set_nonblocking(fd, false)?;
        sockets::listen(fd, backlog)
    }

    /// Closes one, and removes a file that is still ours.
    pub fn release(&mut self, id: u64, kept: &mut Kept) -> Option<Listener> {
        let listener = self.table.remove(&id)?;
        if let (Address::Unix(path), Some(identity)) = (&listener.address, listener.file) {
            remove_if(path, |named| named.identity == identity);
        }
        kept.drop(Kind::Listener, id);
        kept.drop(Kind::PathLock, id);
        Some(listener)
    }
}

/// The lock of a path, in a directory of ours: whoever holds it owns the path.
fn lock(locks: &Path, path: &Path) -> io::Result<OwnedFd> {
    files::make_directory(locks, 0o700)?;
    let sum = crc32fast::hash(path.as_os_str().as_encoded_bytes());
    let name = format!("{sum:08x}-{}", path.file_name().unwrap_or_default().to_string_lossy());
    let lock = files::try_lock(&locks.join(name))?;
    lock.map(OwnedFd::from).ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
}

type Hinted = (io::Error, Option<String>);

fn bind_file(path: &Path, wanted: &Wanted) -> Result<(OwnedFd, (u64, u64)), Hinted> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(Path::new)) else {
        return Err((io::Error::from_raw_os_error(libc::EINVAL), None));
    };
    let plain = |error: io::Error| (error, None);
    files::make_directory(parent, 0o755).map_err(plain)?;
    let me = files::effective_user();
    if let Some(part) = files::unsafe_part(parent, me).map_err(plain)? {
        let hint = format!("`{}` can be written by others than the supervisor's user", part.display());
        return Err((io::Error::from_raw_os_error(libc::EPERM), Some(hint)));
    }
    // Symbolic links on the way, such as /var/run, lie in directories that have just been found safe.
    let directory = parent.canonicalize().and_then(|real| files::open_directory(&real)).map_err(plain)?;
    if let Some(named) = files::look(directory.as_fd(), name).map_err(plain)? {
        if !named.is_socket || named.user != me && Some(named.user) != wanted.user {
            let hint = format!("something that is not our socket is at `{}`; remove it", path.display());
            return Err((io::Error::from_raw_os_error(libc::EADDRINUSE), Some(hint)));
        }
        if is_live(path) {
            let hint = format!("another process listens at `{}`", path.display());
            return Err((io::Error::from_raw_os_error(libc::EADDRINUSE), Some(hint)));
        }
        files::remove(directory.as_fd(), name).map_err(plain)?;
    }
    let socket = sockets::bind_unix(path, libc::SOCK_STREAM).map_err(plain)?;
    files::own(directory.as_fd(), name, wanted.user, wanted.group, wanted.mode).map_err(|error| {
        let _ = files::remove(directory.as_fd(), name);
        let hint = (me != 0).then(|| "an ordinary user can only give a socket to its own groups".to_owned());
        (error, hint)
    })?;
    let named = files::look(directory.as_fd(), name).map_err(plain)?;
    let identity = named.map(|named| named.identity).unwrap_or_default();
    Ok((socket, identity))
}

/// Whether somebody accepts at a path, or could: a full queue is one too.
fn is_live(path: &Path) -> bool {
    match sockets::connect_unix(path, libc::SOCK_STREAM) {
        Ok(_) => true,
        Err(error) => !matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)),
    }
}

fn remove_if(path: &Path, ours: impl Fn(&files::Named) -> bool) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(Path::new)) else { return };
    if let Ok(directory) = parent.canonicalize().and_then(|real| files::open_directory(&real))
        && let Ok(Some(named)) = files::look(directory.as_fd(), name)
        && ours(&named)
    {
        let _ = files::remove(directory.as_fd(), name);
    }
}

fn tcp_hint(error: &io::Error, port: u16) -> Option<String> {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => Some(format!("another process has port {port}: `ss -ltnp` names it")),
        Some(libc::EACCES) => Some(
            "ports below net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE".to_owned(),
        ),
        Some(libc::EADDRNOTAVAIL) => {
            Some("no interface has this address yet; the bind is tried again".to_owned())
        }
        _ => None,
    }
}

/// A copy of a kept socket, to be handed over.
pub fn copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fds::duplicate(fd)
}
