//! USER. Sockets against the machine: who has an address already, ports that need rights, addresses that are not
//! there, how long a queue may be, and whether whom a Unix socket is for could get at it. Never binds what a unit names.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::finding::Findings;
use super::walk::{Barrier, Person, Want};
use crate::unit::{Listen, Socket, SocketType, Unit};

/// A socket of this machine that takes what comes to an address: a TCP listener, or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    address: SocketAddr,
    is_datagram: bool,
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

/// Whom the file of a socket is for.
#[derive(Clone, Debug)]
pub struct ForWhom {
    /// Its owner.
    pub owner: u32,
    /// Its group, and the name of that, where the unit says one.
    pub group: Option<(u32, String)>,
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
        for (path, state) in
            [("tcp", LISTENS), ("tcp6", LISTENS), ("udp", UNCONNECTED), ("udp6", UNCONNECTED)]
        {
            let text = fs::read_to_string(format!("/proc/net/{path}")).unwrap_or_default();
            held.extend(text.lines().filter_map(|line| row(line, state)));
        }
        Self {
            held,
            first_free_port: first.and_then(|port| u16::try_from(port).ok()).unwrap_or(1024),
            longest: number("/proc/sys/net/core/somaxconn"),
            is_user,
            proxies,
        }
    }

    /// Checks one socket of a unit; None where it is not known whom its file is for.
    pub fn check(&self, unit: &Unit, socket: &Socket, for_whom: Option<ForWhom>, out: &mut Findings) {
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
            Listen::Tcp { addr, dual } => self.check_inet(unit, socket, *addr, *dual, out),
            Listen::Unix(path) => {
                check_path(unit, &key("listen"), path, out);
                if let Some(ForWhom { owner, group }) = for_whom {
                    self.check_way(unit, socket, path, owner, group, out);
                }
            }
            Listen::Abstract(_) => {}
        }
    }

    fn check_inet(&self, unit: &Unit, socket: &Socket, address: SocketAddr, dual: bool, out: &mut Findings) {
        let key = &format!("socket.{}.listen", socket.name);
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
        let is_datagram = socket.kind == SocketType::Datagram;
        let mut held = self.held.iter().filter(|held| held.is_datagram == is_datagram);
        if let Some(held) = held.clone().find(|held| meets(held.address, address, dual)) {
            return told(unit, key, &address.to_string(), &held.address.to_string(), held.inode, out);
        }
        // Whether a socket on [::] takes IPv4 as well cannot be seen from here.
        let wide = held.find(|held| held.address == (Ipv6Addr::UNSPECIFIED, address.port()).into());
        if let (true, Some(held)) = (address.is_ipv4(), wide)
            && let Holder::Other(pid, name) = holder(held.inode)
        {
            let at = held.address;
            out.warn(
                unit,
                key,
                format!(
                    "{address} may be taken: process {pid} (`{name}`) listens on {at}, which takes IPv4 too where it is not \
                     v6only"
                ),
                "stop that process, or take another port",
            );
        }
    }

    /// Whether those whom a socket's file is for get at it.
    fn check_way(
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

/// Says who has an address.
fn told(unit: &Unit, key: &str, address: &str, at: &str, inode: u64, out: &mut Findings) {
    match holder(inode) {
        Holder::Supervisor => {}
        Holder::Other(pid, name) => out.error(
            unit,
            key,
            format!("{address} is taken: process {pid} (`{name}`) listens on {at}"),
            "stop that process, or take another address",
        ),
        Holder::Unseen => out.not_checked(
            unit,
            &format!("{address}: somebody listens there; whether that is a supervisor, only root can see"),
        ),
    }
}

/// What is in the way of a socket's file.
fn check_path(unit: &Unit, key: &str, path: &Path, out: &mut Findings) {
    let shown = path.display().to_string();
    let root = Person { name: "root".to_owned(), uid: 0, groups: Vec::new() };
    if let Some(Err(barrier @ Barrier::Wrong(..))) =
        path.parent().map(|parent| root.reaches(parent, Want::Enter))
    {
        return out.error(
            unit,
            key,
            format!("{shown}: {barrier}"),
            "listen somewhere else, or remove what is there",
        );
    }
    match fs::symlink_metadata(path) {
        Ok(data) if !data.file_type().is_socket() => out.error(
            unit,
            key,
            format!("{shown}: address already in use"),
            "something that is no socket is there; remove it",
        ),
        Ok(_) => {
            let table = fs::read("/proc/net/unix").unwrap_or_default();
            let table = String::from_utf8_lossy(&table);
            if let Some(inode) = table.lines().find_map(|line| unix_listener(line, &shown)) {
                told(unit, key, &shown, &shown, inode, out);
            }
        }
        Err(_) => {}
    }
}

/// The inode of a line of /proc/net/unix (proc_pid_net(5)), where it listens at this path.
fn unix_listener(line: &str, path: &str) -> Option<u64> {
    let before = line.strip_suffix(path)?.strip_suffix(' ')?;
    let fields: Vec<&str> = before.split_ascii_whitespace().collect();
    // `Num: RefCount Protocol Flags Type St Inode`, and no other path may end in this one.
    let [_, _, _, flags, _, _, inode] = fields.as_slice() else { return None };
    (*flags == ACCEPTS).then(|| inode.parse().ok())?
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

/// States of net/tcp_states.h: that of TCP listeners, and that of UDP sockets without a peer.
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";
/// The flag __SO_ACCEPTCON of a Unix listener.
const ACCEPTS: &str = "00010000";

/// A line of a table of /proc/net (proc_pid_net(5)), where its socket is in this state.
fn row(line: &str, wanted: &str) -> Option<Held> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != wanted {
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
    Some(Held { address: (ip, port).into(), is_datagram: wanted == UNCONNECTED, inode })
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
    fn one_that_may_take_ipv4_too_is_a_warning() {
        let wide = TcpListener::bind("[::]:0").unwrap();
        let port = wide.local_addr().unwrap().port();
        let text = format!("[service]\ncommand = \"x\"\n[socket.http]\nlisten = \"127.0.0.1:{port}\"\n");
        let unit = Unit::parse("web", "web.toml", &text).unwrap();
        let mut out = Findings::default();
        Machine::look(false, Vec::new()).check(&unit, unit.sockets.first().unwrap(), None, &mut out);
        let told: Vec<_> = out.all.iter().map(|one| (one.is_error, one.text.as_str())).collect();
        let start = format!("127.0.0.1:{port} may be taken: process {} (`", std::process::id());
        assert!(matches!(told.as_slice(), [(false, text)] if text.starts_with(&start)), "{told:?}");
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
