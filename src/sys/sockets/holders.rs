//! ROOT. Who has an address: sockets by /proc/net, and processes by the sockets that they have open. Never more
//! than a look: what is said here may have changed already.
//!
//! Sources: proc_pid_net(5), proc_pid_fd(5). The kernel shows only sockets of our own network namespace, and the
//! descriptors of processes that we may look into.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

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
    let all = Snapshot::look();
    let mut found: Vec<(bool, u64)> = match sought {
        Sought::Inet(address, kind) => {
            let rows = all.at_port(address.port(), kind == Kind::Datagram);
            let rows = rows.filter(|row| clash(row.local, address));
            rows.map(|row| (!row.listens, row.inode)).collect()
        }
        Sought::Path(path) => all.at_path(path),
        Sought::Abstract(name) => all.at_name(name),
    };
    found.sort_unstable();
    found.into_iter().map(|(_, inode)| inode).collect()
}

/// The sockets of this network namespace as they were at one moment, for whoever asks of many addresses.
#[derive(Debug, Default)]
pub struct Snapshot {
    inet: BTreeMap<(u16, bool), Vec<Row>>,
    /// By the last part of the name.
    unix: BTreeMap<OsString, Vec<Named>>,
    owners: OnceCell<BTreeMap<u64, Vec<u32>>>,
}

/// A Unix socket that has a name.
#[derive(Debug)]
struct Named {
    name: String,
    real_parent: OnceCell<Option<PathBuf>>,
    listens: bool,
    inode: u64,
}

impl Snapshot {
    /// Looks.
    pub fn look() -> Self {
        let mut all = Self::default();
        for (table, is_datagram) in [("tcp", false), ("tcp6", false), ("udp", true), ("udp6", true)] {
            let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
            for row in text.lines().skip(1).filter_map(inet_row).filter(|row| row.inode != 0) {
                all.inet.entry((row.local.port(), is_datagram)).or_default().push(row);
            }
        }
        let bytes = fs::read("/proc/net/unix").unwrap_or_default();
        for line in String::from_utf8_lossy(&bytes).lines().skip(1) {
            let Some((waits, inode, name)) = unix_row(line).filter(|row| row.1 != 0 && !row.2.is_empty())
            else {
                continue;
            };
            let named = Named { name: name.to_owned(), real_parent: OnceCell::new(), listens: !waits, inode };
            all.unix.entry(last_part(Path::new(name))).or_default().push(named);
        }
        all
    }

    /// TCP or UDP sockets that have this port.
    pub fn at_port(&self, port: u16, is_datagram: bool) -> impl Iterator<Item = &Row> {
        self.inet.get(&(port, is_datagram)).into_iter().flatten()
    }

    /// Whether each Unix socket at a path does not listen, and its inode; whichever way was taken to its directory.
    pub fn at_path(&self, path: &Path) -> Vec<(bool, u64)> {
        let real = |path: &Path| path.parent().and_then(|parent| parent.canonicalize().ok());
        let wanted = OnceCell::new();
        let is_it = |one: &&Named| {
            let bound = Path::new(&one.name);
            bound == path
                || bound.is_absolute() && {
                    let there = one.real_parent.get_or_init(|| real(bound));
                    there.is_some() && there == wanted.get_or_init(|| real(path))
                }
        };
        let all = self.unix.get(&last_part(path)).into_iter().flatten();
        all.filter(is_it).map(|one| (!one.listens, one.inode)).collect()
    }

    /// The same of a name that has no file, without the `@`.
    pub fn at_name(&self, name: &str) -> Vec<(bool, u64)> {
        let shown = format!("@{name}");
        let all = self.unix.get(&last_part(Path::new(&shown))).into_iter().flatten();
        all.filter(|one| one.name == shown).map(|one| (!one.listens, one.inode)).collect()
    }

    /// Processes that have this socket open, as far as we may see.
    pub fn processes_with(&self, inode: u64) -> &[u32] {
        self.owners.get_or_init(owners).get(&inode).map_or(&[], Vec::as_slice)
    }
}

fn last_part(path: &Path) -> OsString {
    path.file_name().unwrap_or(path.as_os_str()).to_owned()
}

/// The processes that have each socket open.
fn owners() -> BTreeMap<u64, Vec<u32>> {
    let mut found: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut pids = process::all().unwrap_or_default();
    pids.sort_unstable();
    for pid in pids {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for inode in entries.filter_map(|entry| socket_inode(&fs::read_link(entry.path()).ok()?)) {
            let pids = found.entry(inode).or_default();
            if pids.last() != Some(&pid) {
                pids.push(pid);
            }
        }
    }
    found
}

fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
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
            let Some(inode) = socket_inode(&link) else { continue };
            if let Some((inode, at)) = rows.iter().find(|(one, _)| *one == inode) {
                found.push(Listening { pid, at: at.clone(), inode: *inode });
            }
        }
    }
    found.sort_unstable_by(|one, other| (&one.at, one.pid).cmp(&(&other.at, other.pid)));
    found
}

/// A TCP or UDP socket.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Its own address.
    pub local: SocketAddr,
    /// Whether connections come to it.
    pub listens: bool,
    /// The socket.
    pub inode: u64,
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

/// Processes that have one of these sockets open, as far as we may see.
pub fn processes_with(inodes: &[u64]) -> Vec<u32> {
    let all = owners();
    let mut found: Vec<u32> = inodes.iter().filter_map(|inode| all.get(inode)).flatten().copied().collect();
    found.sort_unstable();
    found.dedup();
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
