//! ROOT. Who is at the other end of a Unix socket, as the kernel knows it. Never what the peer says of itself.
//!
//! Sources: unix(7) for SO_PEERCRED (of an accepted socket: the credentials at connect; of a connected one:
//! those at listen), socket(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt};

use super::retry;

/// What the kernel knows of a peer. The pid is not here: it may belong to somebody else by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Who connected to, or listened on, the other end.
pub fn credentials(socket: &impl AsFd) -> io::Result<Peer> {
    let found = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?;
    Ok(Peer { uid: found.uid(), gid: found.gid() })
}

/// Makes the kernel refuse descriptors that a peer tries to pass to this socket (SO_PASSRIGHTS, Linux 6.16).
///
/// Errors: ENOPROTOOPT before that; descriptors are then closed by a read that has no place for them.
pub fn refuse_descriptors(socket: &impl AsFd) -> io::Result<()> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let (fd, off): (_, libc::c_int) = (socket.as_fd().as_raw_fd(), 0);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `off`, which outlives the call.
    retry(|| unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), length).into()
    })
    .map(drop)
}

/// The effective user of this process (geteuid(2)).
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::link::Link;

    #[test]
    fn both_ends_know_each_other() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(credentials(&ours).unwrap().uid, own_uid());
        assert_eq!(credentials(&ours).unwrap(), credentials(&theirs).unwrap());
        assert!(credentials(&std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn a_peer_cannot_pass_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        refuse_descriptors(&ours).unwrap();
        let theirs = Link::from_fd(theirs.into());
        let passed = theirs.send(b"x", &[ours.as_fd()]).unwrap_err();
        assert_eq!(passed.raw_os_error(), Some(libc::EPERM));
        theirs.send(b"x", &[]).unwrap();
    }
}
