//! ROOT. Listening sockets: made, bound and put right. Never decides who gets one, never accepts.
//!
//! Sources: socket(7), tcp(7), ipv6(7), unix(7). A listener's queue belongs to the open file description, so
//! it outlives every process that holds only a copy.

use std::io;
use std::mem::{self, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::fds::owned;
use super::retry;

/// The most bytes of a Unix socket's path (sun_path less its NUL).
pub const MOST_PATH: usize = 107;
/// The kind of a stream socket (SOCK_STREAM).
pub const STREAM: i32 = libc::SOCK_STREAM;

fn make(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes plain numbers.
    retry(|| unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) }.into())
        .map(owned)
}

fn set(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    let (fd, value) = (fd.as_raw_fd(), (&raw const value).cast());
    // SAFETY: the value is an int that outlives the call, as these options want it.
    retry(|| unsafe { libc::setsockopt(fd, level, option, value, size) }.into()).map(drop)
}

fn get(fd: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` has room for the int that these options give, and `size` says so.
    retry(|| unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut size).into()
    })?;
    Ok(value)
}

/// Binds a TCP socket without listening on it. SO_REUSEADDR always (TIME_WAIT would keep the port), never
/// SO_REUSEPORT; a v6 socket is v6 only unless `dual`.
pub fn bind_tcp(address: SocketAddr, dual: bool, nodelay: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let fd = make(family, libc::SOCK_STREAM)?;
    set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        set(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!dual))?;
    }
    if nodelay {
        // Accepted connections inherit it; some servers label a passed socket wrongly and never set it.
        set(fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    }
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: an all-zero sockaddr_in is valid.
            let mut raw: libc::sockaddr_in = unsafe { mem::zeroed() };
            raw.sin_family = libc::AF_INET as libc::sa_family_t;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            bind(fd.as_fd(), &raw, size_of::<libc::sockaddr_in>())?;
        }
        SocketAddr::V6(v6) => {
            // SAFETY: an all-zero sockaddr_in6 is valid.
            let mut raw: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            bind(fd.as_fd(), &raw, size_of::<libc::sockaddr_in6>())?;
        }
    }
    Ok(fd)
}

/// A sockaddr_un and its length (unix(7)).
fn unix_address(path: &Path) -> io::Result<(libc::sockaddr_un, usize)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MOST_PATH || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    // SAFETY: an all-zero sockaddr_un is valid.
    let mut raw: libc::sockaddr_un = unsafe { mem::zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, byte) in raw.sun_path.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    Ok((raw, mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1))
}

/// Binds a Unix socket of this kind (SOCK_STREAM, SOCK_SEQPACKET) without listening on it; until then every
/// connect is refused, so owner and mode can be put right first. The file is made with mode 0600 by a umask
/// that is put back.
pub fn bind_unix(path: &Path, kind: i32) -> io::Result<OwnedFd> {
    let (raw, size) = unix_address(path)?;
    let fd = make(libc::AF_UNIX, kind)?;
    // SAFETY: umask only swaps a number; this process has one thread.
    let before = unsafe { libc::umask(0o177) };
    let bound = bind(fd.as_fd(), &raw, size);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    bound.map(|()| fd)
}

/// The same for a path of any length whose directory is open: where it would not fit, the socket is bound
/// through the descriptor. For our own sockets only, since getsockname(2) then tells a name that means nothing.
pub fn bind_unix_in(directory: BorrowedFd<'_>, path: &Path, kind: i32) -> io::Result<OwnedFd> {
    bind_unix(&within_reach(directory, path), kind)
}

/// A path as it is, or through its directory's descriptor where it is too long for a socket's address.
pub fn within_reach(directory: BorrowedFd<'_>, path: &Path) -> PathBuf {
    match path.file_name() {
        Some(name) if path.as_os_str().len() > MOST_PATH => {
            Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
        }
        Some(_) | None => path.to_owned(),
    }
}

fn bind<T>(fd: BorrowedFd<'_>, address: &T, size: usize) -> io::Result<()> {
    let address: *const T = address;
    // SAFETY: `address` is a sockaddr of one of the families above, alive across the call, `size` long.
    retry(|| unsafe { libc::bind(fd.as_raw_fd(), address.cast(), size as libc::socklen_t) }.into()).map(drop)
}

/// Listens, or sets the backlog anew: this also repairs a listener that a holder shut down or shrank. The
/// kernel clamps the backlog to net.core.somaxconn.
pub fn listen(fd: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: listen takes plain numbers.
    retry(|| unsafe { libc::listen(fd.as_raw_fd(), backlog) }.into()).map(drop)
}

/// Whether a socket listens (SO_ACCEPTCONN).
pub fn is_listening(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(get(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0)
}

/// Connections that wait to be accepted and how many may, of a TCP listener (tcp_info's unacked and sacked).
pub fn tcp_queue(fd: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // SAFETY: an all-zero tcp_info is valid.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut size = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` has room for `size` bytes, and the kernel writes no more.
    retry(|| unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        )
        .into()
    })?;
    Ok((info.tcpi_unacked, info.tcpi_sacked))
}

/// Connects to a Unix socket of this kind; never waits for room in its queue (EAGAIN).
pub fn connect_unix(path: &Path, kind: i32) -> io::Result<OwnedFd> {
    let (raw, size) = unix_address(path)?;
    let fd = make(libc::AF_UNIX, kind)?;
    let address: *const libc::sockaddr_un = &raw const raw;
    // SAFETY: `raw` is a sockaddr_un that outlives the call, `size` long.
    retry(|| unsafe { libc::connect(fd.as_raw_fd(), address.cast(), size as libc::socklen_t) }.into())?;
    Ok(fd)
}

/// Copies the next datagram into `bytes` and leaves it where it is; its whole size, which may be more than there
/// was room for. Never waits: `WouldBlock` where there is none. Descriptors that came with it stay with it.
pub fn peek(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: `bytes` has room for its length, and recv writes no more.
    retry(|| unsafe {
        libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) as libc::c_long
    })
    .map(|size| size as usize)
}

/// Drops the next datagram. Descriptors that came with it are closed by the kernel, as nobody asks for them
/// (unix(7)); whoever waits for their end is woken.
pub fn discard(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: recv with no room writes nothing.
    retry(|| unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), 0, flags) as libc::c_long }).map(drop)
}

/// Accepts one connection; None when there is none.
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let (address, size) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: accept4 takes a null address.
    match retry(|| unsafe { libc::accept4(fd.as_raw_fd(), address, size, flags) }.into()) {
        Ok(new) => Ok(Some(owned(new))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
