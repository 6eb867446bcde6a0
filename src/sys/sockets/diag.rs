//! ROOT. What waits at a Unix listener, as the kernel tells it over netlink (sock_diag(7)). Never blocks: the
//! kernel has answered when the question has been sent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::make;
use crate::sys::{fds, files, retry};

/// Of linux/sock_diag.h, linux/unix_diag.h and linux/netlink.h; not in libc.
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_RQLEN: u32 = 1 << 4;
const UNIX_DIAG_RQLEN: u16 = 4;
const NLM_F_REQUEST: u16 = 1;
/// Bytes of a message's head, and of the fixed part of an answer behind it.
const HEAD: usize = 16;
const FIXED: usize = 16;
/// Bytes of the question.
const ASK: usize = HEAD + 24;

/// Connections that wait to be accepted at a Unix listener, and how many may.
pub fn unix_queue(fd: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let (_, inode) = files::identity(fd)?;
    let link = make(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_SOCK_DIAG)?;
    send(link.as_fd(), &question(inode as u32))?;
    let mut bytes = [0; 1024];
    let count = fds::read(link.as_fd(), &mut bytes)?;
    let broken = || io::Error::from_raw_os_error(libc::EPROTO);
    answer(bytes.get(..count).unwrap_or_default()).ok_or_else(broken)
}

fn question(inode: u32) -> [u8; ASK] {
    let mut bytes = [0; ASK];
    let mut put = |at: usize, value: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    };
    put(0, &(ASK as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    put(HEAD, &[libc::AF_UNIX as u8]);
    put(HEAD + 4, &u32::MAX.to_ne_bytes()); // in whatever state it is
    put(HEAD + 8, &inode.to_ne_bytes());
    put(HEAD + 12, &UDIAG_SHOW_RQLEN.to_ne_bytes());
    put(HEAD + 16, &[0xFF; 8]); // no cookie
    bytes
}

/// The two numbers of the attribute that was asked for.
fn answer(bytes: &[u8]) -> Option<(u32, u32)> {
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if half(4)? != SOCK_DIAG_BY_FAMILY {
        return None; // an error, such as that it is no socket of this namespace
    }
    let mut at = HEAD + FIXED;
    loop {
        let (length, attribute) = (usize::from(half(at)?), half(at + 2)?);
        if attribute == UNIX_DIAG_RQLEN {
            return Some((word(at + 4)?, word(at + 8)?));
        }
        at += length.max(4).next_multiple_of(4);
    }
}

fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and length describe `bytes`, which outlives the call.
    retry(|| unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) as libc::c_long })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::sys::sockets;

    #[test]
    fn what_waits_at_a_unix_listener_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        sockets::listen(listener.as_fd(), 7).unwrap();
        assert_eq!(unix_queue(listener.as_fd()).unwrap(), (0, 7));
        let _clients = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
        assert_eq!(unix_queue(listener.as_fd()).unwrap(), (2, 7));
        let _taken = listener.accept().unwrap();
        assert_eq!(unix_queue(listener.as_fd()).unwrap(), (1, 7));
    }

    #[test]
    fn what_is_no_unix_socket_has_none() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(unix_queue(file.as_fd()).is_err());
    }
}
