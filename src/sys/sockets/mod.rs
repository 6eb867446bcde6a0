//! ROOT. Listening sockets: made, bound and put right. Never decides who gets one, never accepts for a service.
//!
//! Sources: socket(7), tcp(7), udp(7), ipv6(7), unix(7). A listener's queue belongs to the open file
//! description, so it outlives every process that holds only a copy.

mod at_path;
mod diag;
mod facts;
mod holders;
mod name;

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use at_path::{Access, NotBound, bind_at, identity_at, remove_if_it_is};
pub use diag::unix_queue;
pub use facts::{Filter, filter, has_peer, is_listening, is_shut, kind, tcp_queue};
pub use holders::{Listening, Place, Snapshot, Sought, inodes, listeners_of, processes_with};
pub use name::{Local, MOST_PATH, local};

use super::fds::owned;
use super::retry;

/// The kind of a stream socket (SOCK_STREAM).
pub const STREAM: i32 = libc::SOCK_STREAM;

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections of bytes.
    Stream,
    /// Datagrams, without connections.
    Datagram,
    /// Connections of messages.
    Seqpacket,
}

impl Kind {
    /// The number that socket(2) takes.
    pub const fn raw(self) -> i32 {
        match self {
            Self::Stream => libc::SOCK_STREAM,
            Self::Datagram => libc::SOCK_DGRAM,
            Self::Seqpacket => libc::SOCK_SEQPACKET,
        }
    }

    /// What a number of socket(2) means.
    pub const fn from_raw(number: i32) -> Option<Self> {
        match number {
            libc::SOCK_STREAM => Some(Self::Stream),
            libc::SOCK_DGRAM => Some(Self::Datagram),
            libc::SOCK_SEQPACKET => Some(Self::Seqpacket),
            _ => None,
        }
    }
}

/// Options of an IP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// TCP_NODELAY: accepted connections inherit it; some servers label a passed socket wrongly and never set it.
    pub nodelay: bool,
    /// SO_KEEPALIVE, which accepted connections inherit too.
    pub keepalive: bool,
    /// IP_FREEBIND: the address need not be there yet.
    pub freebind: bool,
}

fn make(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes plain numbers.
    retry(|| unsafe { libc::socket(family, kind, protocol) }.into()).map(owned)
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

/// Binds a TCP or UDP socket without listening on it. Never SO_REUSEPORT; a v6 socket is v6 only unless `dual`.
///
/// SO_REUSEADDR for TCP always, as TIME_WAIT would keep the port. Not for UDP: there it would let anybody else who
/// sets it bind the same port and take the datagrams.
pub fn bind_inet(address: SocketAddr, dual: bool, kind: Kind, options: Options) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let fd = make(family, kind.raw(), 0)?;
    let tcp = kind == Kind::Stream;
    set_options(fd.as_fd(), address.is_ipv4(), tcp, options)?;
    if tcp {
        set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    if address.is_ipv6() {
        set(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!dual))?;
    }
    match address {
        SocketAddr::V4(v4) => bind(fd.as_fd(), &name::v4(v4), size_of::<libc::sockaddr_in>())?,
        SocketAddr::V6(v6) => bind(fd.as_fd(), &name::v6(v6), size_of::<libc::sockaddr_in6>())?,
    }
    Ok(fd)
}

/// Sets the options anew. Those of TCP mean nothing to UDP and are left out there.
pub fn set_options(fd: BorrowedFd<'_>, v4: bool, tcp: bool, options: Options) -> io::Result<()> {
    if tcp {
        set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, i32::from(options.nodelay))?;
        set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, i32::from(options.keepalive))?;
    }
    let (level, option) =
        if v4 { (libc::IPPROTO_IP, libc::IP_FREEBIND) } else { (libc::IPPROTO_IPV6, IPV6_FREEBIND) };
    match set(fd, level, option, i32::from(options.freebind)) {
        // Before Linux 4.15 there is none for v6, and nobody asked for it.
        Err(_) if !options.freebind => Ok(()),
        other => other,
    }
}

/// Of linux/in6.h; not in libc.
const IPV6_FREEBIND: i32 = 78;

/// Binds a Unix socket of this kind (SOCK_STREAM, SOCK_SEQPACKET) without listening on it; until then every
/// connect is refused, so owner and mode can be put right first. The file is made with mode 0600 by a umask
/// that is put back.
pub fn bind_unix(path: &Path, kind: i32) -> io::Result<OwnedFd> {
    let (raw, size) = name::path(path)?;
    let fd = make(libc::AF_UNIX, kind, 0)?;
    // SAFETY: umask only swaps a number; this process has one thread.
    let before = unsafe { libc::umask(0o177) };
    let bound = bind(fd.as_fd(), &raw, size);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    bound.map(|()| fd)
}

/// Binds a socket of the abstract namespace, which has no file and no permissions (unix(7)).
pub fn bind_abstract(name: &[u8], kind: i32) -> io::Result<OwnedFd> {
    let (raw, size) = name::abstracted(name)?;
    let fd = make(libc::AF_UNIX, kind, 0)?;
    bind(fd.as_fd(), &raw, size).map(|()| fd)
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

/// Takes a TCP listener out of service in every process that has it, so that another can be bound in its place.
pub fn shut(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: shutdown takes plain numbers.
    retry(|| unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) }.into()).map(drop)
}

/// Dissolves the connection of a datagram socket (connect(2), AF_UNSPEC); an address that it was bound to stays.
pub fn dissolve(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr is valid, and its family is AF_UNSPEC.
    let none: libc::sockaddr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: `none` outlives the call and is `size` long.
    retry(|| unsafe { libc::connect(fd.as_raw_fd(), &raw const none, size) }.into()).map(drop)
}

/// Puts the flags of the open file description back to none (O_NONBLOCK, O_ASYNC): every holder can have changed
/// them, and changes them for all.
pub fn plain_flags(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: fcntl with F_SETFL touches no memory.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, 0) }.into()).map(drop)
}

/// Turns SO_REUSEPORT off, with which a holder would let others of its user share the address.
pub fn unshare(fd: BorrowedFd<'_>) -> io::Result<()> {
    match set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 0) {
        // Unix sockets do not know it.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Removes a filter that a holder put on a socket. EPERM where it locked it.
pub fn detach_filter(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
}

/// Connects to a Unix socket of this kind; never waits for room in its queue (EAGAIN).
pub fn connect_unix(path: &Path, kind: i32) -> io::Result<OwnedFd> {
    let (raw, size) = name::path(path)?;
    let fd = make(libc::AF_UNIX, kind, 0)?;
    let address: *const libc::sockaddr_un = &raw const raw;
    // SAFETY: `raw` is a sockaddr_un that outlives the call, `size` long.
    retry(|| unsafe { libc::connect(fd.as_raw_fd(), address.cast(), size as libc::socklen_t) }.into())?;
    Ok(fd)
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
