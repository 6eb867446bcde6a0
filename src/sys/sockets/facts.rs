//! ROOT. What is so of a socket that others hold too: whether it listens, what waits, what a holder did to it.
//! Never changes one.

use std::io;
use std::mem::{self, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Kind, get};
use crate::sys::retry;

/// Whether a socket listens (SO_ACCEPTCONN).
pub fn is_listening(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(get(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0)
}

/// What a socket carries; None for what supervise knows nothing of. ENOTSOCK for what is none.
pub fn kind(fd: BorrowedFd<'_>) -> io::Result<Option<Kind>> {
    Ok(Kind::from_raw(get(fd, libc::SOL_SOCKET, libc::SO_TYPE)?))
}

/// Whether a holder shut a Unix socket down for receiving: it refuses every client from then on, still says that
/// it listens, and nothing brings it back.
pub fn is_shut(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one initialised pollfd that outlives the call.
    retry(|| unsafe { libc::poll(&raw mut poll, 1, 0) }.into())?;
    Ok(poll.revents & (libc::POLLRDHUP | libc::POLLNVAL) != 0)
}

/// Whether a holder connected a datagram socket: it gets nothing from anybody else then.
pub fn has_peer(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: an all-zero sockaddr_storage is valid.
    let mut raw: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let number = fd.as_raw_fd();
    // SAFETY: `raw` has room for `size` bytes, and the kernel writes no more.
    retry(|| unsafe { libc::getpeername(number, (&raw mut raw).cast(), &raw mut size) }.into()).is_ok()
}

/// A filter that a holder put on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// There is none.
    None,
    /// There is one, which can be taken off.
    Loose,
    /// There is one, or there can be none any more: it is locked, for us too.
    Locked,
}

/// The filter of a socket (SO_LOCK_FILTER, SO_GET_FILTER of socket(7)).
pub fn filter(fd: BorrowedFd<'_>) -> io::Result<Filter> {
    if get(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER)? != 0 {
        return Ok(Filter::Locked);
    }
    let mut instructions: libc::socklen_t = 0;
    let number = fd.as_raw_fd();
    let (level, option) = (libc::SOL_SOCKET, libc::SO_GET_FILTER);
    // SAFETY: with a length of 0 the kernel only says how many instructions there are.
    let asked = retry(|| unsafe {
        libc::getsockopt(number, level, option, ptr::null_mut(), &raw mut instructions).into()
    });
    match asked {
        Ok(_) if instructions == 0 => Ok(Filter::None),
        // EACCES: one that is no classic filter, and so cannot be shown.
        Ok(_) | Err(_) => Ok(Filter::Loose),
    }
}

/// Connections that wait to be accepted and how many may, of a TCP listener (tcp_info's unacked and sacked).
pub fn tcp_queue(fd: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // SAFETY: an all-zero tcp_info is valid.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: `info` has room for `size` bytes, and the kernel writes no more.
    retry(|| unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut info).cast(), &raw mut size).into()
    })?;
    Ok((info.tcpi_unacked, info.tcpi_sacked))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::sys::sockets::{self, Local};

    #[test]
    fn a_unix_listener_that_was_shut_down_is_told_and_listens_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(!is_shut(listener.as_fd()).unwrap());
        nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        assert!(is_shut(listener.as_fd()).unwrap() && is_listening(listener.as_fd()).unwrap());
        sockets::listen(listener.as_fd(), 8).unwrap();
        assert!(is_shut(listener.as_fd()).unwrap(), "listening again healed it after all");
        assert!(std::os::unix::net::UnixStream::connect(&path).is_err());
    }

    #[test]
    fn a_tcp_listener_that_was_shut_down_listens_again() {
        // A port that the kernel chose it would choose anew.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind(address).unwrap();
        sockets::shut(listener.as_fd()).unwrap();
        assert!(!is_listening(listener.as_fd()).unwrap());
        sockets::listen(listener.as_fd(), 8).unwrap();
        assert!(is_listening(listener.as_fd()).unwrap());
        assert_eq!(sockets::local(listener.as_fd()).unwrap(), Local::Inet { address, dual: false });
        assert_eq!(tcp_queue(listener.as_fd()).unwrap(), (0, 8));
    }

    #[test]
    fn a_datagram_socket_loses_its_peer_and_keeps_its_port() {
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let one = UdpSocket::bind(address).unwrap();
        assert!(!has_peer(one.as_fd()));
        one.connect(other.local_addr().unwrap()).unwrap();
        assert!(has_peer(one.as_fd()));
        sockets::dissolve(one.as_fd()).unwrap();
        assert!(!has_peer(one.as_fd()));
        assert_eq!(one.local_addr().unwrap(), address);
    }
}
