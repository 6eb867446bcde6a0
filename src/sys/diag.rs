//! ROOT. Which socket is at the other end of a Unix connection. Never anybody else's business: the kernel tells of what
//! this process itself holds.
//!
//! Source: sock_diag(7), linux/unix_diag.h.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::fds::{self, owned};
use super::{files, retry};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `UDIAG_SHOW_PEER`.
const SHOW_PEER: u32 = 4;
/// `UNIX_DIAG_PEER`.
const PEER: u16 = 2;
/// Bytes of a netlink header, and of what follows it: a request, and the start of an answer.
const HEADER: usize = 16;
const REQUEST: usize = 24;
const ANSWER: usize = 16;

/// The inode of the socket at the other end; None while nobody has accepted the connection.
pub fn unix_peer(socket: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let (_, inode) = files::identity(socket)?;
    let inode = u32::try_from(inode).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes plain numbers.
    let link = retry(|| unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) }.into())?;
    let link = owned(link);
    fds::write(std::os::fd::AsFd::as_fd(&link), &request(inode))?;
    let mut bytes = [0; 512];
    // SAFETY: `bytes` has room for its length, and recv writes no more. The kernel has answered before the write returned.
    let count = retry(|| unsafe {
        libc::recv(link.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
            as libc::c_long
    })?;
    let bytes = bytes.get(..count as usize).unwrap_or_default();
    let peer = peer_in(bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
    Ok((peer != 0).then_some(peer.into()))
}

fn request(inode: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend([0; 8]); // no sequence, to the kernel
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for word in [u32::MAX, inode, SHOW_PEER, u32::MAX, u32::MAX] {
        bytes.extend(word.to_ne_bytes()); // states, which, what of it, and whatever its cookie
    }
    bytes
}

/// The peer's inode in an answer; None where it is another answer, 0 where there is no inode yet.
fn peer_in(bytes: &[u8]) -> Option<u32> {
    let short = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if short(4)? != BY_FAMILY {
        return None;
    }
    let mut at = HEADER + ANSWER;
    while at + 4 <= bytes.len() {
        let (length, kind) = (usize::from(short(at)?), short(at + 2)?);
        if kind == PEER {
            return Some(u32::from_ne_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?));
        }
        at += length.max(4).next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_other_end_is_known_once_it_is_accepted() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(unix_peer(client.as_fd()).unwrap(), None);
        let (accepted, _) = listener.accept().unwrap();
        let (_, inode) = files::identity(accepted.as_fd()).unwrap();
        assert_eq!(unix_peer(client.as_fd()).unwrap(), Some(inode));
    }

    #[test]
    fn an_error_is_no_answer() {
        let mut bytes = vec![0; 36];
        bytes[4] = 2;
        assert_eq!((peer_in(&bytes), peer_in(&[])), (None, None));
    }
}
