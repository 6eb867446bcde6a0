//! ROOT. One new socket at an address. Never as root in a directory that somebody else can write.
//!
//! Elsewhere the file found at a path is removed only if it is a socket of ours and nobody listens; a lock says which
//! supervisor's the path is, also where its socket does not look alive.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::words::InTheWay;
use super::{Address, Carries, Spot, Wanted};
use crate::sys::sockets::{Access, NotBound};
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
    /// Its file is where others than root can write.
    pub foreign: bool,
}

/// Why there is none.
#[derive(Debug)]
pub enum Failure {
    /// The system refused.
    Refused(io::Error),
    /// It cannot be given to whom it is for.
    NotGiven(io::Error),
    /// Something is there already.
    InTheWay(InTheWay),
    /// Somebody else has the address.
    Taken,
    /// The supervisor of this runtime directory has the path.
    Held(PathBuf),
    /// Somebody else can write this part of the path: it is to be bound with the service's rights.
    Foreign(PathBuf),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::Taken,
            _ => Self::Refused(error),
        }
    }
}

impl From<NotBound> for Failure {
    fn from(not_bound: NotBound) -> Self {
        match not_bound {
            NotBound::System(error) => Self::Refused(error),
            NotBound::Live => Self::Taken,
            NotBound::NoSocket => Self::InTheWay(InTheWay::NoSocket),
            NotBound::Strangers => Self::InTheWay(InTheWay::Strangers),
            NotBound::NotGiven(error) => Self::NotGiven(error),
        }
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

/// Where the locks of paths are, and what is written into one.
#[derive(Debug)]
pub struct Locks {
    /// Directories of ours: the first that can be written.
    pub directories: Vec<PathBuf>,
    /// Whose they are.
    pub runtime_dir: PathBuf,
}

impl Locks {
    /// The lock of a name in a directory: whoever holds it owns the path, by whatever way he came there. None where
    /// there can be no locks; what is found at the path decides alone then.
    pub fn take(&self, directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>, Failure> {
        let (device, inode) = files::identity(directory)?;
        self.take_named(&format!("{device:x}-{inode:x}-{}", name.to_string_lossy()))
    }

    /// The same for a path on which others decide, by its text.
    pub fn take_path(&self, path: &Path) -> Result<Option<OwnedFd>, Failure> {
        let sum = crc32fast::hash(path.as_os_str().as_encoded_bytes());
        self.take_named(&format!("{sum:08x}-{}", path.file_name().unwrap_or_default().to_string_lossy()))
    }

    fn take_named(&self, name: &str) -> Result<Option<OwnedFd>, Failure> {
        for directory in &self.directories {
            let path = directory.join(name);
            let locked = make(directory).and_then(|()| files::try_lock(&path));
            match locked {
                Ok(Some(file)) => {
                    // Who it is, is for people: without it the lock is one all the same.
                    let _ = files::rewrite(&file, self.runtime_dir.as_os_str().as_encoded_bytes());
                    return Ok(Some(file.into()));
                }
                Ok(None) => {
                    let held = files::read_steady(&path, 4096).map(|(bytes, ..)| bytes).unwrap_or_default();
                    return Err(Failure::Held(PathBuf::from(std::ffi::OsString::from_vec(held))));
                }
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// Makes a directory for locks, and above it one as a supervisor would have it for itself.
fn make(directory: &Path) -> io::Result<()> {
    let mode = if files::effective_user() == 0 { 0o755 } else { 0o700 };
    directory.parent().map_or(Ok(()), |above| files::make_directory(above, mode))?;
    files::make_directory(directory, 0o700)
}

/// Binds one. Without `locks` the lock of this one is held already.
pub fn bind(wanted: &Wanted, me: u32, locks: Option<&Locks>) -> Result<Bound, Failure> {
    let Address { spot, carries } = &wanted.address;
    let kind = kind(*carries);
    let unnamed = |socket| Bound { socket, file: None, lock: None, foreign: false };
    let bound = match spot {
        Spot::Inet { address, dual } => unnamed(sockets::bind_inet(*address, *dual, kind, wanted.options)?),
        Spot::Abstract(name) => unnamed(sockets::bind_abstract(name.as_bytes(), kind.raw())?),
        Spot::Path(path) => {
            let (socket, file, lock) = bind_file(path, wanted, me, locks)?;
            Bound { socket, file: Some(file), lock, foreign: false }
        }
    };
    // Last, so that no client slips in before owner and mode are right.
    if wanted.address.has_queue() {
        sockets::listen(bound.socket.as_fd(), wanted.backlog)?;
    }
    // The flag is shared with the service, which expects what a socket of its own would be (sd_listen_fds(3)).
    sockets::plain_flags(bound.socket.as_fd())?;
    Ok(bound)
}

/// The socket, the device and inode of its file, and the lock of its path.
type AtPath = (OwnedFd, (u64, u64), Option<OwnedFd>);

fn bind_file(path: &Path, wanted: &Wanted, me: u32, locks: Option<&Locks>) -> Result<AtPath, Failure> {
    let (parent, name) =
        path.parent().zip(path.file_name()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let directory = match walk::to_directory(parent, me)? {
        Walked::Directory(directory) => directory,
        Walked::Foreign(part) if me == 0 => return Err(Failure::Foreign(part)),
        // The rights of the service are our own.
        Walked::Foreign(_) => {
            files::make_directory(parent, 0o755)?;
            files::open_directory(&parent.canonicalize()?)?
        }
    };
    let lock = locks.map(|locks| locks.take(directory.as_fd(), name)).transpose()?.flatten();
    let access = Access { mode: wanted.mode, user: wanted.user, group: wanted.group };
    let bound = sockets::bind_at(directory.as_fd(), path, kind(wanted.address.carries), me, access);
    match bound {
        Ok((socket, file)) => Ok((socket, file, lock)),
        Err(not_bound) => {
            lock.iter().for_each(|lock| files::remove_lock(lock.as_fd()));
            Err(not_bound.into())
        }
    }
}
