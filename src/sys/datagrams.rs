//! ROOT. Datagrams of others on a Unix socket of ours: looked at before they are taken, with who sent them as the
//! kernel says it. Never has a descriptor of theirs unless it is asked for.
//!
//! Sources: recv(2), unix(7) for SO_PASSCRED, SCM_CREDENTIALS and SCM_RIGHTS. The kernel puts credentials in front of
//! descriptors, so in a place that holds credentials alone no descriptor arrives, and MSG_CTRUNC says that there are some.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::fds::owned;
use super::retry;

/// Who sent a message, at the moment when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The process, as this namespace of pids has it; 0 for one outside of it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

/// A message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How long it is, whatever there was room for.
    pub size: usize,
    /// Who sent it; None where the socket did not ask for that when it was sent.
    pub sender: Option<Sender>,
    /// Descriptors came with it.
    pub carries: bool,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// `CMSG_SPACE` of one `ucred`.
const CONTROL_BYTES: usize = 32;

/// Has the kernel say who sends what from now on.
pub fn ask_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw const on).cast();
    let raw = socket.as_raw_fd();
    // SAFETY: `value` is one int, alive across the call, and its size is given.
    retry(|| unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_PASSCRED, value, size) }.into())
        .map(drop)
}

/// Copies the first message into `bytes` and leaves it. `WouldBlock` where there is none.
pub fn peek(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Waiting> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is a valid, empty one.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES as _;
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `message` points at `part`, `bytes` and `control`, all alive across the call.
    let size =
        retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) as libc::c_long })?;
    let carries = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Waiting { size: size as usize, sender: sender(&message), carries })
}

#[repr(C, align(8))]
struct Everything([u8; EVERYTHING_BYTES]);

/// Credentials and the most descriptors that one message carries.
const EVERYTHING_BYTES: usize = 1088;

/// Copies of all descriptors of the first message, which stays. Where there is no room for all, of those that fit.
pub fn carried(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut control = Everything([0; EVERYTHING_BYTES]);
    // SAFETY: an all-zero msghdr is a valid, empty one.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = EVERYTHING_BYTES as _;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `message` points at `control`, alive across the call.
    retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) as libc::c_long })?;
    let mut fds = Vec::new();
    // SAFETY: the kernel filled `control` up to msg_controllen; the CMSG macros stay inside it, and each SCM_RIGHTS
    // payload is an array of descriptors that are now ours alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let payload = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data: *const RawFd = libc::CMSG_DATA(header).cast();
                for index in 0..payload / size_of::<RawFd>() {
                    fds.push(owned(data.add(index).read_unaligned().into()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(fds)
}

fn sender(message: &libc::msghdr) -> Option<Sender> {
    // SAFETY: the kernel filled the control buffer up to msg_controllen, and there is room for one header and one
    // ucred in it; what is read is a ucred where the header says so, and plain numbers whatever it says.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null()
            || (*header).cmsg_level != libc::SOL_SOCKET
            || (*header).cmsg_type != libc::SCM_CREDENTIALS
            || ((*header).cmsg_len as usize) < libc::CMSG_LEN(size_of::<libc::ucred>() as u32) as usize
        {
            return None;
        }
        let who: libc::ucred = libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned();
        Some(Sender { pid: who.pid.unsigned_abs(), uid: who.uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fds, link, sockets};
    use std::os::fd::AsFd;

    #[test]
    fn a_message_is_looked_at_with_its_sender_and_without_what_it_carries() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let socket = sockets::bind_unix(&path, libc::SOCK_DGRAM).unwrap();
        let other = sockets::connect_unix(&path, libc::SOCK_DGRAM).unwrap();
        let mut bytes = [0; 4];
        link::send(other.as_fd(), b"before", &[]).unwrap();
        ask_senders(socket.as_fd()).unwrap();
        let before = peek(socket.as_fd(), &mut bytes).unwrap();
        assert_eq!((before.size, before.carries), (6, false));
        sockets::discard(socket.as_fd()).unwrap();
        let me = Sender { pid: std::process::id(), uid: crate::sys::peer::own_uid() };
        let (read, write) = fds::pipe(0).unwrap();
        link::send(other.as_fd(), b"a message", &[write.as_fd(), write.as_fd()]).unwrap();
        drop(write);
        for _ in 0..2 {
            let waiting = peek(socket.as_fd(), &mut bytes).unwrap();
            assert_eq!(waiting, Waiting { size: 9, sender: Some(me), carries: true });
            assert_eq!(&bytes, b"a me");
            assert_eq!(carried(socket.as_fd()).unwrap().len(), 2);
        }
        sockets::discard(socket.as_fd()).unwrap();
        assert_eq!(fds::read(read.as_fd(), &mut [0]).unwrap(), 0, "a descriptor was left open");
        assert_eq!(peek(socket.as_fd(), &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
