//! ROOT. A Unix socket's file in a directory that is open: what is found there is judged, then bound over. Only for
//! directories that nobody else can write, or with the rights of whoever can.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::Kind;
use crate::sys::files;

/// Who may use the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its mode.
    pub mode: u32,
    /// Its owner; None leaves it.
    pub user: Option<u32>,
    /// Its group; None leaves it.
    pub group: Option<u32>,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum NotBound {
    /// The system refused.
    System(io::Error),
    /// Somebody listens there.
    Live,
    /// Something that is no socket is there.
    NoSocket,
    /// A socket of another user is there.
    Strangers,
    /// It could not be given to whom it is for.
    NotGiven(io::Error),
}

impl From<io::Error> for NotBound {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Binds the file that `path` names, whose directory is `directory`, in place of a stale socket of `me` or of its
/// owner to be; also its device and inode. It does not listen yet.
pub fn bind_at(
    directory: BorrowedFd<'_>,
    path: &Path,
    kind: Kind,
    me: u32,
    access: Access,
) -> Result<(OwnedFd, (u64, u64)), NotBound> {
    let name = path.file_name().map(Path::new).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    if let Some(named) = files::look(directory, name)? {
        if !named.is_socket {
            return Err(NotBound::NoSocket);
        }
        if named.user != me && Some(named.user) != access.user {
            return Err(NotBound::Strangers);
        }
        if is_live(path) {
            return Err(NotBound::Live);
        }
        files::remove(directory, name)?;
    }
    let socket = super::bind_unix(path, kind.raw()).map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => NotBound::Live, // somebody was faster
        _ => NotBound::System(error),
    })?;
    files::own(directory, name, access.user, access.group, access.mode).map_err(|error| {
        let _ = files::remove(directory, name);
        NotBound::NotGiven(error)
    })?;
    let named = files::look(directory, name)?;
    Ok((socket, named.map(|named| named.identity).unwrap_or_default()))
}

/// Whether somebody accepts at a path, or could: a full queue is one too, and so is a socket of another type.
fn is_live(path: &Path) -> bool {
    match super::connect_unix(path, libc::SOCK_STREAM) {
        Ok(_) => true,
        Err(error) => !matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)),
    }
}

/// Device and inode of what is at a path now; None where nothing is.
pub fn identity_at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let directory = match parent.canonicalize().and_then(|real| files::open_directory(&real)) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(files::look(directory.as_fd(), Path::new(name))?.map(|named| named.identity))
}

/// Removes what is at a path where it is still the file that was made there.
pub fn remove_if_it_is(path: &Path, identity: (u64, u64)) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(Path::new)) else { return };
    if let Ok(directory) = parent.canonicalize().and_then(|real| files::open_directory(&real))
        && let Ok(Some(named)) = files::look(directory.as_fd(), name)
        && named.identity == identity
    {
        let _ = files::remove(directory.as_fd(), name);
    }
}
