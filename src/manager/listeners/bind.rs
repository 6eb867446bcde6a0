//! ROOT. One new socket at an address. Never as root in a directory that somebody else can write.
//!
//! There the file found at a path is removed only if it is a socket of ours and nobody listens; a lock in the
//! runtime directory says which supervisor's the path is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Address, Carries, Spot, Wanted};
use crate::sys::walk::{self, Walked};
use crate::sys::{files, sockets};

/// A socket that is bound and, where it has a queue, listens.
#[derive(Debug)]
pub struct Bound {
    /// It.
    pub socket: OwnedFd,
    /// Device and inode of its file.
    pub file: Option<(u64, u64)>,
    /// The lock of its path.
    pub lock: Option<OwnedFd>,
}

/// Why there is none.
#[derive(Debug)]
pub enum Failure {
    /// The system refused, and what helps.
    Refused(io::Error, Option<String>),
    /// Somebody else has the address.
    Taken,
    /// Somebody else can write this part of the path: it is to be bound with the service's rights.
    Foreign(PathBuf),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Refused(error, None)
    }
}

/// The number that socket(2) takes.
pub const fn kind(carries: Carries) -> sockets::Kind {
    match carries {
        Carries::Stream => sockets::Kind::Stream,
        Carries::Datagram => sockets::Kind::Datagram,
        Carries::Seqpacket => sockets::Kind::Seqpacket,
    }
}

/// Binds one. `locks` is where the locks of paths are; None where the lock of this one is held already.
pub fn bind(wanted: &Wanted, me: u32, locks: Option<&Path>) -> Result<Bound, Failure> {
    let Address { spot, carries } = &wanted.address;
    let kind = kind(*carries);
    let bound = match spot {
        Spot::Inet { address, dual } => {
            let socket = sockets::bind_inet(*address, *dual, kind, wanted.options);
            Bound { socket: socket.map_err(|error| refused(error, address.port()))?, file: None, lock: None }
        }
        Spot::Abstract(name) => {
            let socket = sockets::bind_abstract(name.as_bytes(), kind.raw());
            Bound { socket: socket.map_err(|error| refused(error, 0))?, file: None, lock: None }
        }
        Spot::Path(path) => {
            let lock = locks.map(|locks| lock(locks, path)).transpose()?.flatten();
            let (socket, file) = bind_file(path, wanted, me)?;
            Bound { socket, file: Some(file), lock }
        }
    };
    // Last, so that no client slips in before owner and mode are right.
    if wanted.address.has_queue() {
        let port = if let Spot::Inet { address, .. } = spot { address.port() } else { 0 };
        sockets::listen(bound.socket.as_fd(), wanted.backlog).map_err(|error| refused(error, port))?;
    }
    // The flag is shared with the service, which expects what a socket of its own would be (sd_listen_fds(3)).
    sockets::plain_flags(bound.socket.as_fd())?;
    Ok(bound)
}

fn refused(error: io::Error, port: u16) -> Failure {
    let hint = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => return Failure::Taken,
        Some(libc::EACCES) => format!(
            "port {port} is below net.ipv4.ip_unprivileged_port_start: it needs root or CAP_NET_BIND_SERVICE"
        ),
        Some(libc::EADDRNOTAVAIL) => "no interface has this address yet; it is tried again, and \
                                      `freebind = true` binds it before it is there"
            .to_owned(),
        _ => return Failure::Refused(error, None),
    };
    Failure::Refused(error, Some(hint))
}

/// The lock of a path, in a directory of ours: whoever holds it owns the path. None where there can be no such
/// directory; what is found at the path decides alone then.
pub fn lock(locks: &Path, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    if files::make_directory(locks, 0o700).is_err() {
        return Ok(None);
    }
    let sum = crc32fast::hash(path.as_os_str().as_encoded_bytes());
    let name = format!("{sum:08x}-{}", path.file_name().unwrap_or_default().to_string_lossy());
    match files::try_lock(&locks.join(name))? {
        Some(file) => Ok(Some(file.into())),
        None => Err(Failure::Taken),
    }
}

/// Takes a path apart into its directory and its name.
pub fn parts(path: &Path) -> io::Result<(&Path, &Path)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, Path::new(name))),
        _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

fn bind_file(path: &Path, wanted: &Wanted, me: u32) -> Result<(OwnedFd, (u64, u64)), Failure> {
    let (parent, name) = parts(path)?;
    let directory = match walk::to_directory(parent, me)? {
        Walked::Directory(directory) => directory,
        Walked::Foreign(part) => return Err(Failure::Foreign(part)),
    };
    if let Some(named) = files::look(directory.as_fd(), name)? {
        if !named.is_socket || named.user != me && Some(named.user) != wanted.user {
            let what =
                if named.is_socket { "a socket of another user" } else { "something that is no socket" };
            let error = io::Error::from_raw_os_error(libc::EADDRINUSE);
            return Err(Failure::Refused(error, Some(format!("{what} is there; remove it"))));
        }
        if is_live(path) {
            return Err(Failure::Taken);
        }
        files::remove(directory.as_fd(), name)?;
    }
    let socket =
        sockets::bind_unix(path, kind(wanted.address.carries).raw()).map_err(|error| refused(error, 0))?;
    files::own(directory.as_fd(), name, wanted.user, wanted.group, wanted.mode).map_err(|error| {
        let _ = files::remove(directory.as_fd(), name);
        let hint = (me != 0).then(|| "an ordinary user can only give a socket to its own groups".to_owned());
        Failure::Refused(error, hint)
    })?;
    let named = files::look(directory.as_fd(), name)?;
    let identity = named.map(|named| named.identity).unwrap_or_default();
    Ok((socket, identity))
}

/// Whether somebody accepts at a path, or could: a full queue is one too, and so is a socket of another type.
fn is_live(path: &Path) -> bool {
    match sockets::connect_unix(path, libc::SOCK_STREAM) {
        Ok(_) => true,
        Err(error) => !matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)),
    }
}

/// Device and inode of what is at a path now; None where nothing is.
pub fn identity_at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let (parent, name) = parts(path)?;
    let directory = match parent.canonicalize().and_then(|real| files::open_directory(&real)) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(files::look(directory.as_fd(), name)?.map(|named| named.identity))
}

/// Removes what is at a path where it is still the file that was made there.
pub fn remove_if_it_is(path: &Path, identity: (u64, u64)) {
    let Ok((parent, name)) = parts(path) else { return };
    if let Ok(directory) = parent.canonicalize().and_then(|real| files::open_directory(&real))
        && let Ok(Some(named)) = files::look(directory.as_fd(), name)
        && named.identity == identity
    {
        let _ = files::remove(directory.as_fd(), name);
    }
}
