//! ROOT. Addresses of sockets in the kernel's form, both ways. Never binds one.
//!
//! Sources: ip(7), ipv6(7), unix(7).

use std::io;
use std::mem::{self, offset_of, size_of};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::sys::retry;

/// The most bytes of a Unix socket's path (sun_path less its NUL), and of an abstract name.
pub const MOST_PATH: usize = 107;

/// Where the name begins in a sockaddr_un.
const PATH_AT: usize = offset_of!(libc::sockaddr_un, sun_path);

/// A sockaddr_in.
pub fn v4(address: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: an all-zero sockaddr_in is valid.
    let mut raw: libc::sockaddr_in = unsafe { mem::zeroed() };
    raw.sin_family = libc::AF_INET as libc::sa_family_t;
    raw.sin_port = address.port().to_be();
    raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
    raw
}

/// A sockaddr_in6.
pub fn v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
    // SAFETY: an all-zero sockaddr_in6 is valid.
    let mut raw: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    raw.sin6_port = address.port().to_be();
    raw.sin6_addr.s6_addr = address.ip().octets();
    raw.sin6_scope_id = address.scope_id();
    raw
}

/// A sockaddr_un of a path, and its length.
pub fn path(path: &Path) -> io::Result<(libc::sockaddr_un, usize)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MOST_PATH || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    Ok((unix(bytes, 0), PATH_AT + bytes.len() + 1))
}

/// A sockaddr_un of an abstract name, and its length: a NUL stands before the name and none behind it.
pub fn abstracted(name: &[u8]) -> io::Result<(libc::sockaddr_un, usize)> {
    if name.is_empty() || name.len() > MOST_PATH {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok((unix(name, 1), PATH_AT + 1 + name.len()))
}

fn unix(bytes: &[u8], at: usize) -> libc::sockaddr_un {
    // SAFETY: an all-zero sockaddr_un is valid.
    let mut raw: libc::sockaddr_un = unsafe { mem::zeroed() };
    raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (place, byte) in raw.sun_path.iter_mut().skip(at).zip(bytes) {
        *place = *byte as libc::c_char;
    }
    raw
}

/// What a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// TCP or UDP.
    Inet {
        /// Address and port.
        address: SocketAddr,
        /// Whether a v6 socket takes IPv4 as well.
        dual: bool,
    },
    /// A Unix socket's path, as it was bound.
    Path(PathBuf),
    /// An abstract name.
    Abstract(Vec<u8>),
    /// Nothing, or something of another family.
    Other,
}

/// What a socket is bound to (getsockname(2)). ENOTSOCK for what is none.
pub fn local(fd: BorrowedFd<'_>) -> io::Result<Local> {
    // SAFETY: an all-zero sockaddr_storage is valid.
    let mut raw: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let number = fd.as_raw_fd();
    // SAFETY: `raw` has room for `size` bytes, and the kernel writes no more.
    retry(|| unsafe { libc::getsockname(number, (&raw mut raw).cast(), &raw mut size) }.into())?;
    Ok(match i32::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in, which a sockaddr_storage has room for.
            let v4: libc::sockaddr_in = unsafe { (&raw const raw).cast::<libc::sockaddr_in>().read() };
            let ip = v4.sin_addr.s_addr.to_ne_bytes();
            Local::Inet { address: (ip, u16::from_be(v4.sin_port)).into(), dual: false }
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a sockaddr_in6.
            let v6: libc::sockaddr_in6 = unsafe { (&raw const raw).cast::<libc::sockaddr_in6>().read() };
            let ip = v6.sin6_addr.s6_addr.into();
            let address = SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id);
            let only = super::get(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
            Local::Inet { address: address.into(), dual: only == 0 }
        }
        libc::AF_UNIX => {
            // SAFETY: as above, a sockaddr_un.
            let name: libc::sockaddr_un = unsafe { (&raw const raw).cast::<libc::sockaddr_un>().read() };
            let length = (size as usize).saturating_sub(PATH_AT).min(name.sun_path.len());
            let bytes: Vec<u8> = name.sun_path.iter().take(length).map(|byte| *byte as u8).collect();
            match bytes.split_first() {
                None => Local::Other,
                Some((0, name)) => Local::Abstract(name.to_vec()),
                Some(_) => {
                    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                    let path = bytes.get(..end).unwrap_or_default().to_vec();
                    Local::Path(std::ffi::OsString::from_vec(path).into())
                }
            }
        }
        _ => Local::Other,
    })
}
