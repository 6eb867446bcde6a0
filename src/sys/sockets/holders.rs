//! ROOT. Who has an address: sockets by /proc/net, and processes by the sockets that they have open. Never more
//! than a look: what is said here may have changed already.
//!
//! Sources: proc_pid_net(5), proc_pid_fd(5). The kernel shows only sockets of our own network namespace, and the
//! descriptors of processes that we may look into.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::Kind;
use crate::sys::process;

/// The most processes, and descriptors of each, that are looked at for what they listen on.
const MOST_PROCESSES: usize = 256;
const MOST_DESCRIPTORS: usize = 4096;

/// Whose is sought.
#[derive(Clone, Copy, Debug)]
pub enum Sought<'a> {
    /// TCP or UDP.
    Inet(SocketAddr, Kind),
    /// A Unix socket's path.
    Path(&'a Path),
    /// A name without a file.
    Abstract(&'a str),
}

/// Inodes of the sockets that are in the way of binding this: those that listen before all others.
pub fn inodes(sought: Sought<'_>) -> Vec<u64> {
    let mut found: Vec<(bool, u64)> = Vec::new();
    match sought {
        Sought::Inet(address, kind) => {
            let tables = match kind {
                Kind::Datagram => ["udp", "udp6"],
                Kind::Stream | Kind::Seqpacket => ["tcp", "tcp6"],
            };
            for table in tables {
                let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
                let rows = text.lines().skip(1).filter_map(inet_row);
                found.extend(
                    rows.filter(|row| clash(row.local, address)).map(|row| (!row.listens, row.inode)),
                );
            }
        }
        Sought::Path(path) => found = unix_rows(|name| is_path(name, path)),
        Sought::Abstract(sought) => found = unix_rows(|name| name.strip_prefix('@') == Some(sought)),
    }
    found.retain(|(_, inode)| *inode != 0);
    found.sort_unstable();
    found.into_iter().map(|(_, inode)| inode).collect()
}

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// TCP.
    Inet(SocketAddr),
    /// A Unix socket's path, or a name without a file behind an `@`.
    Unix(String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(out),
            // Whoever bound it has chosen it.
            Self::Unix(name) => name.chars().filter(|one| !one.is_control()).try_for_each(|one| one.fmt(out)),
        }
    }
}

/// A listener that a process has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The process.
    pub pid: u32,
    /// Where.
    pub at: Place,
    /// The socket.
    pub inode: u64,
}

/// TCP and named Unix listeners that these processes have open, as far as we may see.
pub fn listeners_of(pids: &[u32]) -> Vec<Listening> {
    let text = |table: &str| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let (four, six) = (text("tcp"), text("tcp6"));
    let inet = four.lines().chain(six.lines()).filter_map(inet_row).filter(|row| row.listens);
    let mut rows: Vec<(u64, Place)> = inet.map(|row| (row.inode, Place::Inet(row.local))).collect();
    let bytes = fs::read("/proc/net/unix").unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let named = text.lines().skip(1).filter_map(unix_row).filter(|row| !row.0 && !row.2.is_empty());
    rows.extend(named.map(|row| (row.1, Place::Unix(row.2.to_owned()))));
    let mut found = Vec::new();
    for pid in pids.iter().copied().take(MOST_PROCESSES) {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten().take(MOST_DESCRIPTORS) {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']'));
            let Some(inode) = inode.and_then(|inode| inode.parse::<u64>().ok()) else { continue };
            if let Some((inode, at)) = rows.iter().find(|(one, _)| *one == inode) {
                found.push(Listening { pid, at: at.clone(), inode: *inode });
            }
        }
    }
    found.sort_unstable_by(|one, other| (&one.at, one.pid).cmp(&(&other.at, other.pid)));
    found
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    listens: bool,
    inode: u64,
}

/// TCP_LISTEN of net/tcp_states.h.
const LISTENS: &str = "0A";

fn inet_row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each as this machine has it in memory.
    let words: Option<Vec<[u8; 4]>> = ip
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let ip: IpAddr = match words?.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        [a, b, c, d] => Ipv6Addr::from(<[u8; 16]>::try_from([*a, *b, *c, *d].concat()).ok()?).into(),
        _ => return None,
    };
    let listens = *fields.get(3)? == LISTENS;
    Some(Row { local: (ip, port).into(), listens, inode: fields.get(9)?.parse().ok()? })
}

/// Whether one is, or may be, in the way of the other; whether a v6 socket takes IPv4 too is not shown.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn unix_rows(is_it: impl Fn(&str) -> bool) -> Vec<(bool, u64)> {
    let bytes = fs::read("/proc/net/unix").unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().skip(1).filter_map(unix_row).filter(|row| is_it(row.2)).map(|row| (row.0, row.1)).collect()
}

/// Whether it does not listen, its inode, and its name. Flag 0x10000 is __SO_ACCEPTCON.
fn unix_row(line: &str) -> Option<(bool, u64, &str)> {
    // `Num: RefCount Protocol Flags Type St Inode Path`, and the path may hold anything.
    let mut rest = line;
    let mut next = || {
        let (field, behind) = rest.trim_start_matches(' ').split_once(' ')?;
        rest = behind;
        Some(field)
    };
    let flags = (next()?, next()?, next()?, next()?).3;
    let inode = (next()?, next()?, next()?).2;
    Some((flags != "00010000", inode.parse().ok()?, rest))
}

/// Whether a name in the kernel's table is this path, whichever way was taken to its directory.
fn is_path(name: &str, path: &Path) -> bool {
    let bound = Path::new(name);
    if bound == path {
        return true;
    }
    let real = |path: &Path| path.parent().and_then(|parent| parent.canonicalize().ok());
    bound.is_absolute()
        && bound.file_name() == path.file_name()
        && real(bound).is_some_and(|one| Some(one) == real(path))
}

/// Processes that have one of these sockets open, as far as we may see.
pub fn processes_with(inodes: &[u64]) -> Vec<u32> {
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut found = process::all().unwrap_or_default();
    found.retain(|pid| {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        entries.flatten().any(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|link| links.iter().any(|one| link.as_os_str() == one.as_str()))
        })
    });
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener};

    use super::*;
    use crate::sys::files;

    fn inode(fd: &impl AsFd) -> u64 {
        files::identity(fd.as_fd()).unwrap().1
    }

    #[test]
    fn whoever_has_an_address_is_found() {
        let me = std::process::id();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        assert_eq!(inodes(Sought::Inet(address, Kind::Stream)).first(), Some(&inode(&tcp)));
        assert_eq!(inodes(Sought::Inet(all, Kind::Stream)).first(), Some(&inode(&tcp)));
        assert_eq!(processes_with(&[inode(&tcp)]), [me]);
        assert!(listeners_of(&[me]).contains(&Listening {
            pid: me,
            at: Place::Inet(address),
            inode: inode(&tcp)
        }));
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        assert_eq!(inodes(Sought::Inet(udp.local_addr().unwrap(), Kind::Datagram)), [inode(&udp)]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b");
        let unix = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        assert_eq!(inodes(Sought::Path(&path)), [inode(&unix)]);
        let listening =
            Listening { pid: me, at: Place::Unix(path.display().to_string()), inode: inode(&unix) };
        assert!(listeners_of(&[me]).contains(&listening));
        assert_eq!(inodes(Sought::Path(&dir.path().join("link/a b"))), [inode(&unix)]);
        let name = format!("supervise-test-{me}");
        let named = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert_eq!(inodes(Sought::Abstract(&name)), [inode(&named)]);
        assert_eq!(inodes(Sought::Path(&dir.path().join("none"))), Vec::<u64>::new());
    }

    #[test]
    fn rows_of_the_kernel_are_read_whatever_they_hold() {
        let row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4711 1 0";
        let expected = Row { local: "127.0.0.1:8080".parse().unwrap(), listens: true, inode: 4711 };
        assert_eq!(inet_row(row), Some(expected));
        for odd in ["", "x", "0: 1:2", "0: zz:zz 0 0A 0 0 0 0 0 0", "0: 0100007F:1F90 a 0A b c d e f g"] {
            assert_eq!(inet_row(odd), None, "{odd}");
        }
        let row = "0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/a  b";
        assert_eq!(unix_row(row), Some((false, 4711, "/run/a  b")));
        for odd in ["", "x", "1: 2 3 4 5 6 7", "1: 2 3 4 5 6 x name"] {
            assert_eq!(unix_row(odd), None, "{odd}");
        }
    }
}
