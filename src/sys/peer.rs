//! ROOT. Who is at the other end of a Unix socket, as the kernel knows it. Never what the peer says of itself.
//!
//! Sources: unix(7) for SO_PEERCRED (of an accepted socket: the credentials at connect; of a connected one:
//! those at listen), socket(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

use super::fds::owned;
use super::retry;

/// What the kernel knows of a peer. The pid is not here: it may belong to somebody else by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Waits until there is something to read, or its end.
pub fn wait_readable(socket: &impl AsFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}

/// Who connected to, or listened on, the other end.
pub fn credentials(socket: &impl AsFd) -> io::Result<Peer> {
    let found = getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?;
    Ok(Peer { uid: found.uid(), gid: found.gid() })
}

/// The process that connected (SO_PEERPIDFD), whatever has become of it.
///
/// Errors: ENOPROTOOPT before Linux 6.5; ESRCH, or EINVAL before 6.16, where it has ended and was waited for.
pub fn process(socket: &impl AsFd) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let (socket, mut found): (_, libc::c_int) = (socket.as_fd().as_raw_fd(), -1);
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `found`, which outlives the call.
    retry(|| unsafe {
        let place = (&raw mut found).cast();
        libc::getsockopt(socket, libc::SOL_SOCKET, SO_PEERPIDFD, place, &raw mut length).into()
    })?;
    Ok(owned(found.into()))
}

/// The supplementary groups of whom is at the other end (SO_PEERGROUPS), at most [`MOST_GROUPS`] of them: one with more
/// is taken for somebody without the others.
pub fn groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut found: Vec<libc::gid_t> = vec![0; MOST_GROUPS];
    let mut length = libc::socklen_t::try_from(size_of_val(found.as_slice())).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    let place: *mut libc::gid_t = found.as_mut_ptr();
    // SAFETY: the pointer and the length describe `found`, which outlives the call; the kernel writes no more than that.
    let result = retry(|| unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, place.cast(), &raw mut length).into()
    });
    match result {
        Ok(_) => {
            found.truncate(length as usize / size_of::<libc::gid_t>());
            Ok(found)
        }
        // More than there is room for.
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The most supplementary groups that are asked for.
pub const MOST_GROUPS: usize = 1024;

/// A stream to the socket at `path`, non-blocking, close-on-exec; never waits (connect(2)).
///
/// Errors: ENOENT and ECONNREFUSED where nobody listens, EAGAIN where the queue is full, EACCES where this user
/// may not, ENAMETOOLONG beyond 107 bytes.
pub fn connected(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd.into()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
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

/// Whether the peer has read all that was sent to it, descriptors included (SIOCOUTQ of unix(7)).
pub fn has_read_all(socket: &impl AsFd) -> io::Result<bool> {
    let mut waiting: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: TIOCOUTQ, which is the same number as SIOCOUTQ, writes one int, and `waiting` outlives the call.
    retry(|| unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut waiting) }.into())?;
    // While the last of it is freed the kernel still counts one; it wakes us before that is gone (sock_wfree).
    Ok(waiting <= 1)
}

/// Whether the peer has closed both directions, now (poll(2), POLLHUP and POLLERR).
pub fn has_hung_up(socket: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    let over = PollFlags::POLLHUP | PollFlags::POLLERR;
    // Without waiting there is no interruption; no answer means that nothing has happened.
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked.iter().any(|one| one.revents().is_some_and(|flags| flags.intersects(over)))
}

/// The effective user of this process (geteuid(2)).
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

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
    fn the_groups_of_a_peer_are_those_of_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut found = groups(&ours).unwrap();
        let own = nix::unistd::getgroups().unwrap();
        let mut own: Vec<u32> = own.into_iter().map(nix::unistd::Gid::as_raw).collect();
        found.sort_unstable();
        own.sort_unstable();
        assert_eq!(found, own);
    }

    #[test]
    fn connecting_never_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let error = |path: &Path| connected(path).unwrap_err().raw_os_error();
        assert_eq!(error(&path), Some(libc::ENOENT));
        assert_eq!(error(Path::new(&"x".repeat(108))), Some(libc::ENAMETOOLONG));
        let listener = UnixListener::bind(&path).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let first = connected(&path).unwrap();
        assert_eq!(error(&path), Some(libc::EAGAIN));
        assert_eq!(credentials(&first).unwrap().uid, own_uid());
        drop(listener);
        assert_eq!(error(&path), Some(libc::ECONNREFUSED));
    }

    #[test]
    fn a_peer_that_has_closed_one_direction_has_not_hung_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!has_hung_up(&ours));
        drop(theirs);
        assert!(has_hung_up(&ours));
    }

    #[test]
    fn what_a_peer_has_not_read_is_known() {
        use std::io::{Read, Write};
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(has_read_all(&ours).unwrap());
        ours.write_all(b"x").unwrap();
        assert!(!has_read_all(&ours).unwrap());
        theirs.read_exact(&mut [0]).unwrap();
        assert!(has_read_all(&ours).unwrap());
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
