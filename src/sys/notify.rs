//! ROOT. The datagram socket of an init above, as sd_notify(3) describes its address. Never decides what is said.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::link::Link;

/// A connected, non-blocking socket to an address as `NOTIFY_SOCKET` has it: a path, or `@` and a name of the
/// abstract namespace. EINVAL for any other text, ENAMETOOLONG for one that no address holds.
pub fn to_init(address: &str) -> io::Result<Link> {
    let address = match address.strip_prefix('@') {
        Some(name) if !name.is_empty() => UnixAddr::new_abstract(name.as_bytes())?,
        None if address.starts_with('/') => UnixAddr::new(address)?,
        Some(_) | None => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    connect(fd.as_raw_fd(), &address)?;
    Ok(Link::from_fd(fd))
}
