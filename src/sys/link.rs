//! ROOT. A link: one end of a SOCK_SEQPACKET pair between two of our own processes, messages with
//! descriptors. Never blocks unless asked to, never allocates.
//!
//! Sources: unix(7) for SCM_RIGHTS. The kernel carries at most 253 descriptors a message; a receiver whose
//! table is full loses some of them silently, which shows as MSG_CTRUNC and is an error here.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::fds::owned;
use super::retry;

/// The most descriptors one message carries (SCM_MAX_FD in the kernel).
pub const MOST_FDS: usize = 253;

const CONTROL_BYTES: usize = 1040;

/// Room for the control messages of 253 descriptors, aligned as cmsg(3) wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// One end.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the message now at the start of the buffer.
    pub bytes: usize,
    /// Descriptors now in the first places of the array.
    pub fds: usize,
}

impl Link {
    /// A fresh pair, both ends close-on-exec and non-blocking.
    pub fn pair() -> io::Result<(Self, Self)> {
        let mut ends = [0 as RawFd; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `ends` has room for the two descriptors socketpair writes.
        retry(|| unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) }.into())?;
        Ok((Self(owned(ends[0].into())), Self(owned(ends[1].into()))))
    }

    /// An end that came from elsewhere: inherited, or received over another link.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor, given up.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends one message with up to [`MOST_FDS`] descriptors. Whole or not at all. Errors: as of [`send`].
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(self.as_fd(), bytes, fds).map(drop)
    }

    /// Receives one message; its descriptors go to the first places of `fds`, close-on-exec.
    ///
    /// `Ok(None)` is end of file. Errors: `WouldBlock` when there is nothing; EMSGSIZE when the message or
    /// its descriptors did not fit, in which case every descriptor that did arrive is closed.
    pub fn receive(&self, bytes: &mut [u8], fds: &mut [Option<OwnedFd>]) -> io::Result<Option<Received>> {
        match receive(self.as_fd(), bytes, fds) {
            // That the peer went with something of ours unread is said once, and before what it had sent.
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => receive(self.as_fd(), bytes, fds),
            received => received,
        }
    }
}

/// Sends bytes over a Unix socket with up to [`MOST_FDS`] descriptors; over a stream perhaps only the first of the
/// bytes, with all of the descriptors. Says how many bytes.
///
/// Errors: EAGAIN (`WouldBlock`) while the peer's queue is full, ETOOMANYREFS while too many descriptors are in
/// flight (wait and send again), EPIPE when the peer is gone. Raises no SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MOST_FDS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is a valid, empty one.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let payload = mem::size_of_val(fds) as libc::c_uint;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the first header lies inside `control`, which
        // has room for MOST_FDS descriptors, and `BorrowedFd` is a transparent RawFd.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(payload) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload) as _;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(fds.as_ptr().cast(), payload as usize);
        }
    }
    // SAFETY: `message` points at `part`, `bytes` and `control`, all alive across the call.
    retry(|| unsafe {
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as libc::c_long
    })
    .map(|count| count as usize)
}

/// Receives from a Unix socket: one message, or what there is of a stream. Its descriptors go to the first places of
/// `fds`, close-on-exec.
///
/// `Ok(None)` is end of file. Errors: as of [`Link::receive`].
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    fds: &mut [Option<OwnedFd>],
) -> io::Result<Option<Received>> {
    let mut control: MaybeUninit<Control> = MaybeUninit::uninit();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is a valid, empty one.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES as _;
    // SAFETY: `message` points at `part`, `bytes` and `control`, all alive across the call.
    let count = retry(|| unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) as libc::c_long
    })? as usize;
    let mut placed = 0;
    let mut lost = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    // SAFETY: the kernel filled `control` up to msg_controllen; the CMSG macros stay inside it, and
    // each SCM_RIGHTS payload is an array of descriptors that are now ours alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let payload = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data: *const RawFd = libc::CMSG_DATA(header).cast();
                for index in 0..payload / mem::size_of::<RawFd>() {
                    let fd = owned(data.add(index).read_unaligned().into());
                    match fds.get_mut(placed) {
                        Some(place) => {
                            *place = Some(fd);
                            placed += 1;
                        }
                        None => lost = true,
                    }
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if lost {
        fds.iter_mut().take(placed).for_each(|place| *place = None);
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    if count == 0 && placed == 0 {
        return Ok(None);
    }
    Ok(Some(Received { bytes: count, fds: placed }))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors_in_order() {
        let (ours, theirs) = Link::pair().unwrap();
        let pipes: Vec<_> = (0..MOST_FDS).map(|_| fds::pipe(0).unwrap()).collect();
        let ends: Vec<_> = pipes.iter().map(|(_, write)| write.as_fd()).collect();
        ours.send(b"hello", &ends).unwrap();
        let mut bytes = [0; 16];
        let mut places: Vec<Option<OwnedFd>> = (0..MOST_FDS).map(|_| None).collect();
        let got = theirs.receive(&mut bytes, &mut places).unwrap().unwrap();
        assert_eq!(got, Received { bytes: 5, fds: MOST_FDS });
        assert_eq!(&bytes[..5], b"hello");
        for (index, place) in places.iter().enumerate() {
            let name = index.to_string();
            fds::write(place.as_ref().unwrap().as_fd(), name.as_bytes()).unwrap();
            let mut back = [0; 8];
            let count = fds::read(pipes[index].0.as_fd(), &mut back).unwrap();
            assert_eq!(&back[..count], name.as_bytes());
        }
    }

    #[test]
    fn descriptors_without_a_place_are_an_error_and_leak_nothing() {
        let (ours, theirs) = Link::pair().unwrap();
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        ours.send(b"x", &[write.as_fd(), write.as_fd()]).unwrap();
        drop(write);
        let mut places = [None];
        let error = theirs.receive(&mut [0; 4], &mut places).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        assert!(places[0].is_none());
        assert_eq!(fds::read(read.as_fd(), &mut [0; 1]).unwrap(), 0, "a write end stayed open");
    }

    #[test]
    fn a_message_too_long_for_the_buffer_is_an_error() {
        let (ours, theirs) = Link::pair().unwrap();
        ours.send(&[7; 32], &[]).unwrap();
        let error = theirs.receive(&mut [0; 31], &mut []).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }

    #[test]
    fn the_end_of_the_peer_is_the_end() {
        let (ours, theirs) = Link::pair().unwrap();
        drop(ours);
        assert_eq!(theirs.receive(&mut [0; 4], &mut []).unwrap(), None);
        assert_eq!(theirs.send(b"x", &[]).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn what_a_peer_had_sent_is_there_though_it_went_with_something_unread() {
        let (ours, theirs) = Link::pair().unwrap();
        ours.send(b"last words", &[]).unwrap();
        theirs.send(b"unread", &[]).unwrap();
        drop(ours);
        let mut bytes = [0; 16];
        let got = theirs.receive(&mut bytes, &mut []).unwrap().unwrap();
        assert_eq!(&bytes[..got.bytes], b"last words");
        assert_eq!(theirs.receive(&mut bytes, &mut []).unwrap(), None);
    }
}
