//! CHILD. Sees what the processes of an incarnation hold and wait for, in /proc, where the service's own rights let it.
//! Never looks into anybody else's.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::pause;
use crate::sys::{clock, diag, process};
use crate::wire::probe::Finding;

/// The most processes of a tree that are looked at.
const MOST_PROCESSES: usize = 256;
/// The most descriptors of a process that are looked at.
const MOST_DESCRIPTORS: usize = 4096;

/// The main process and everything below it.
fn tree(main: u32) -> Vec<u32> {
    let mut found = vec![main];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        for child in process::children(pid).unwrap_or_default() {
            if found.len() < MOST_PROCESSES && !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found
}

/// Whether a process is there whose descriptors are closed to us.
fn is_closed(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Inodes of the sockets that a process holds.
fn held(pid: u32) -> BTreeSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    let links = entries.flatten().take(MOST_DESCRIPTORS).filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// Inodes of what a process waits for with epoll(7): the `ino:` of each `tfd:` line of proc_pid_fdinfo(5).
fn polled(pid: u32) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return found };
    for entry in entries.flatten().take(MOST_DESCRIPTORS) {
        if !fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:[eventpoll]") {
            continue;
        }
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        let text = fs::read_to_string(info).unwrap_or_default();
        found.extend(text.lines().filter_map(polled_inode));
    }
    found
}

fn polled_inode(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("tfd:")?;
    let (_, after) = rest.split_once("ino:")?;
    u64::from_str_radix(after.split_whitespace().next()?, 16).ok()
}

/// Whether a process of the tree waits for connections on one of these sockets.
pub fn waits(main: u32, sockets: &[u64]) -> bool {
    tree(main).into_iter().any(|pid| {
        let polled = polled(pid);
        sockets.iter().any(|inode| polled.contains(inode))
    })
}

/// Who holds the sockets, and what else is listened on.
pub fn look(main: u32, sockets: &[u64]) -> Finding {
    let listening = rows().into_iter().filter(|row| row.state == LISTENING).collect::<Vec<_>>();
    let (mut anybody, mut waits, mut other) = (false, false, None);
    for pid in tree(main) {
        let held = held(pid);
        // Of one that cannot be looked into it is not known that it holds none.
        anybody |= sockets.iter().any(|inode| held.contains(inode)) || is_closed(pid);
        let polled = polled(pid);
        waits |= sockets.iter().any(|inode| polled.contains(inode)) || accepts(pid);
        let strange = listening.iter().find(|row| held.contains(&row.inode) && !sockets.contains(&row.inode));
        if let (None, Some(row)) = (&other, strange) {
            other = Some((pid, row.local.to_string()));
        }
    }
    Finding::Seen { held: anybody, waits, other }
}

/// Whether a thread of it sits in accept(2), as far as the kernel tells.
fn accepts(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads
        .flatten()
        .take(MOST_PROCESSES)
        .any(|one| fs::read_to_string(one.path().join("wchan")).is_ok_and(|place| place.contains("accept")))
}

/// Whether a connection was accepted by a process of the tree: None where nobody has accepted it in time.
pub fn accepted_by(main: u32, ours: &TcpStream, until: u64) -> Option<bool> {
    let (local, peer) = (ours.local_addr().ok()?, ours.peer_addr().ok()?);
    // Seen from the other end; a connection that waits to be accepted has no inode.
    let other_end =
        || rows().into_iter().find(|row| row.local == peer && row.remote == local && row.inode != 0);
    held_by(main, until, || other_end().map(|row| row.inode))
}

/// The same of a Unix connection.
pub fn unix_accepted_by(main: u32, ours: &UnixStream, until: u64) -> Option<bool> {
    held_by(main, until, || diag::unix_peer(ours.as_fd()).ok().flatten())
}

fn held_by(main: u32, until: u64, mut inode: impl FnMut() -> Option<u64>) -> Option<bool> {
    loop {
        if let Some(inode) = inode() {
            return Some(tree(main).into_iter().any(|pid| held(pid).contains(&inode)));
        }
        if clock::monotonic_ms() >= until || !pause(5) {
            return None;
        }
    }
}

/// `st` of a listening socket (TCP_LISTEN).
const LISTENING: u8 = 0x0A;

/// A line of /proc/net/tcp.
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

fn rows() -> Vec<Row> {
    let text = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    let (four, six) = (text("tcp"), text("tcp6"));
    four.lines().chain(six.lines()).filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some(Row {
        local: address(fields.get(1)?)?,
        remote: address(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: words of four bytes, each as this machine has it in memory.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::from(Ipv4Addr::from(four)),
        Err(_) => {
            let six = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
            six.to_ipv4_mapped().map_or(IpAddr::from(six), IpAddr::from)
        }
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses_are_those_of_proc() {
        assert_eq!(address("0100007F:1F90").unwrap().to_string(), "127.0.0.1:8080");
        assert_eq!(address("00000000000000000000000001000000:0050").unwrap().to_string(), "[::1]:80");
        assert_eq!(address("0000000000000000FFFF00000100007F:0050").unwrap().to_string(), "127.0.0.1:80");
        assert!(address("zz").is_none() && address("0100007F").is_none());
        assert_eq!(polled_inode("tfd:  8 events:       19 data:   8  pos:0 ino:60a8 sdev:f"), Some(0x60a8));
        assert_eq!(polled_inode("pos:\t0"), None);
    }

    #[test]
    fn this_process_holds_what_it_has_bound_and_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_, inode) = crate::sys::files::identity(listener.as_fd()).unwrap();
        let me = std::process::id();
        let Finding::Seen { held, waits: _, other } = look(me, &[inode]) else { panic!() };
        assert!(held, "{other:?}");
        assert!(!waits(me, &[inode]), "nobody polls it");
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(accepted_by(me, &client, clock::monotonic_ms()), None, "it waits in the queue");
        let (_accepted, _) = listener.accept().unwrap();
        assert_eq!(accepted_by(me, &client, clock::monotonic_ms() + 1_000), Some(true));
        assert!(accepted_by(1, &client, clock::monotonic_ms()).is_some());
    }
}
