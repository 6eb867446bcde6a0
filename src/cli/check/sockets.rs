//! USER. Sockets against the machine: who has an address already, ports that need rights, addresses that are not
//! there, how long a queue may be, and whether whom a Unix socket is for could get at it. Never binds what a unit names.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use super::finding::Findings;
use super::walk::{Barrier, Person, Want};
use crate::unit::{Listen, Socket, Unit};

/// A listening TCP socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    address: SocketAddr,
    inode: u64,
}

/// What is known of the machine.
#[derive(Debug, Default)]
pub struct Machine {
    held: Vec<Held>,
    /// The first port that everybody may bind.
    first_free_port: u16,
    /// The longest queue.
    longest: Option<u32>,
    /// Whether ports below that need a right that the supervisor will not have.
    is_user: bool,
    /// Accounts of proxies that are there.
    proxies: Vec<Person>,
}

/// Who has a socket.
enum Holder {
    /// A supervisor: nothing is wrong.
    Supervisor,
    /// This process: its pid and name.
    Other(u32, String),
    /// Somebody whom we may not see.
    Unseen,
}

impl Machine {
    /// Looks.
    pub fn look(is_user: bool, proxies: Vec<Person>) -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
        let first = number("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let mut held = Vec::new();
        for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
            held.extend(fs::read_to_string(path).unwrap_or_default().lines().filter_map(listener));
        }
        Self {
            held,
            first_free_port: first.and_then(|port| u16::try_from(port).ok()).unwrap_or(1024),
            longest: number("/proc/sys/net/core/somaxconn"),
            is_user,
            proxies,
        }
    }

    /// Checks one socket of a unit. `owner` and `group` are those of its file where it has one.
    pub fn check(
        &self,
        unit: &Unit,
        socket: &Socket,
        owner: u32,
        group: Option<(u32, String)>,
        out: &mut Findings,
    ) {
        let key = |name: &str| format!("socket.{}.{name}", socket.name);
        if let Some(most) = self.longest.filter(|most| socket.backlog > *most) {
            out.warn(
                unit,
                &key("backlog"),
                format!("the kernel cuts `backlog` of {} to {most}", socket.backlog),
                format!("`sysctl net.core.somaxconn={}`, or ask for less", socket.backlog),
            );
        }
        match &socket.listen {
            Listen::Tcp { addr, dual } => self.check_tcp(unit, &key("listen"), *addr, *dual, out),
            Listen::Unix(path) => self.check_unix(unit, socket, path, owner, group, out),
            Listen::Abstract(_) => {}
        }
    }

    fn check_tcp(&self, unit: &Unit, key: &str, address: SocketAddr, dual: bool, out: &mut Findings) {
        if self.is_user && address.port() < self.first_free_port {
            out.error(
                unit,
                key,
                format!("an ordinary user may not bind ports below {}", self.first_free_port),
                format!(
                    "take a port from {} on, or run supervise as root with a `user` in the unit",
                    self.first_free_port
                ),
            );
        }
        if !address.ip().is_unspecified() && UdpSocket::bind((address.ip(), 0)).is_err() {
            out.warn(
                unit,
                key,
                format!("this machine does not have the address {}", address.ip()),
                "binding it is tried again until it is there; `freebind = true` binds it before",
            );
        }
        let Some(held) = self.held.iter().find(|held| meets(held.address, address, dual)) else { return };
        match holder(held.inode) {
            Holder::Supervisor => {}
            Holder::Other(pid, name) => out.error(
                unit,
                key,
                format!("{} is taken: process {pid} (`{name}`) listens on {}", address, held.address),
                "stop that process, or take another port",
            ),
            Holder::Unseen => out.not_checked(
                unit,
                &format!(
                    "{address}: somebody listens there; whether that is a supervisor, only root can see"
                ),
            ),
        }
    }

    fn check_unix(
        &self,
        unit: &Unit,
        socket: &Socket,
        path: &Path,
        owner: u32,
        group: Option<(u32, String)>,
        out: &mut Findings,
    ) {
        let key = format!("socket.{}.listen", socket.name);
        let Some(parent) = path.parent() else { return };
        if let Some((id, name)) = &group {
            // Nobody but by the group: whoever it is for.
            let member = Person { name: format!("group `{name}`"), uid: u32::MAX - 1, groups: vec![*id] };
            if socket.mode & 0o020 == 0 && socket.mode & 0o002 == 0 {
                out.warn(
                    unit,
                    &format!("socket.{}.mode", socket.name),
                    format!("with mode {:04o} group `{name}` cannot connect", socket.mode),
                    "0660 lets the group in",
                );
            }
            match member.reaches(parent, Want::Enter) {
                Ok(_) | Err(Barrier::Missing(_)) => {} // what is missing is made so that all can pass
                Err(Barrier::Unseen(part, why)) => {
                    out.not_checked(
                        unit,
                        &format!("the way to `{}`: `{}`: {why}", path.display(), part.display()),
                    );
                }
                Err(barrier) => out.warn(
                    unit,
                    &key,
                    format!("{} {barrier}, so it cannot connect", member.name),
                    format!(
                        "`chmod o+x` it, or put the socket below /run: `/run/{}/{}.sock`",
                        unit.name, socket.name
                    ),
                ),
            }
            return;
        }
        self.check_proxies(unit, socket, parent, owner, out);
    }

    /// Whether any proxy of this machine could connect; told where a web server listens for one.
    fn check_proxies(&self, unit: &Unit, socket: &Socket, parent: &Path, owner: u32, out: &mut Findings) {
        let (Some(first), false) = (self.proxies.first(), socket.mode & 0o002 != 0) else { return };
        let connects = |proxy: &&Person| {
            proxy.could_write(owner, u32::MAX, socket.mode)
                && matches!(proxy.reaches(parent, Want::Enter), Ok(_) | Err(Barrier::Missing(_)))
        };
        if !self.proxies.iter().any(|proxy| connects(&proxy)) {
            out.warn(
                unit,
                &format!("socket.{}.listen", socket.name),
                format!("`{}` cannot connect to it (mode {:04o}, no `group`)", first.name, socket.mode),
                format!("`group = \"{}\"` lets it, if it is the proxy in front", first.name),
            );
        }
    }
}

/// Whether binding the one would meet the other that is bound.
fn meets(held: SocketAddr, wanted: SocketAddr, dual: bool) -> bool {
    if held.port() != wanted.port() {
        return false;
    }
    match (held.ip(), wanted.ip()) {
        (IpAddr::V4(_), IpAddr::V6(_)) => dual,
        // Whether a socket on [::] takes IPv4 as well cannot be seen from here.
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        (held, wanted) => held == wanted || held.is_unspecified() || wanted.is_unspecified(),
    }
}

/// A line of /proc/net/tcp or tcp6 (proc_pid_net(5)), where it is of a listening socket.
fn listener(line: &str) -> Option<Held> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (host, port) = address.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes in the order of this machine.
    let word = |at: usize| u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match host.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(Held { address: (ip, port).into(), inode })
}

/// The processes that have this socket open, as far as we may see.
fn holder(inode: u64) -> Holder {
    let wanted = format!("socket:[{inode}]");
    let mut found: BTreeMap<u32, String> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        if open
            .into_iter()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
        {
            let words = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let name = words.split('\0').next().unwrap_or_default();
            found.insert(pid, name.rsplit('/').next().unwrap_or_default().to_owned());
        }
    }
    if found.values().any(|name| name == "supervise") {
        return Holder::Supervisor;
    }
    match found.into_iter().next() {
        Some((pid, name)) => Holder::Other(pid, name),
        None => Holder::Unseen,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_machine_is_found_with_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let machine = Machine::look(false, Vec::new());
        let held = machine.held.iter().find(|held| held.address == address).unwrap();
        match holder(held.inode) {
            Holder::Other(pid, _) => assert_eq!(pid, std::process::id()),
            Holder::Supervisor | Holder::Unseen => panic!("somebody else"),
        }
        let six = TcpListener::bind("[::1]:0").unwrap();
        let machine = Machine::look(false, Vec::new());
        assert!(machine.held.iter().any(|held| held.address == six.local_addr().unwrap()));
    }

    #[test]
    fn addresses_meet_as_the_kernel_has_it() {
        for (held, wanted, dual, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", false, true),
            ("127.0.0.1:80", "127.0.0.1:81", false, false),
            ("127.0.0.1:80", "127.0.0.2:80", false, false),
            ("0.0.0.0:80", "127.0.0.1:80", false, true),
            ("127.0.0.1:80", "0.0.0.0:80", false, true),
            ("127.0.0.1:80", "[::]:80", true, true),
            ("127.0.0.1:80", "[::]:80", false, false),
            ("[::1]:80", "[::]:80", false, true),
        ] {
            assert_eq!(
                meets(held.parse().unwrap(), wanted.parse().unwrap(), dual),
                expected,
                "{held} {wanted}"
            );
        }
    }
}
