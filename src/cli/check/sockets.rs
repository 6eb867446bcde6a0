//! USER. Sockets against the machine: who has an address already, ports that need rights, addresses that are not
//! there, how long a queue may be. Never binds what a unit names.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use super::finding::Findings;
use super::holders::{Holders, Taken};
use super::socket_file::{File, ForWhom};
use super::walk::Person;
use crate::manager::listeners::{Address, BoundAs, Holder, Unbound, holder, refused};
use crate::unit::{Listen, Socket, SocketType, Unit};

/// What is known of the machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// Who has which address.
    pub holders: Holders,
    /// The first port that everybody may bind.
    first_free_port: u16,
    /// The longest queue.
    longest: Option<u32>,
    /// Whether ports below that need a right that the supervisor will not have.
    is_user: bool,
    /// Accounts of proxies that are there.
    proxies: Vec<Person>,
}

impl Machine {
    /// Looks; `meant` is the runtime directory of the supervisor that is meant.
    pub fn look(is_user: bool, proxies: Vec<Person>, meant: Option<PathBuf>, units: &[Unit]) -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
        let first = number("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        Self {
            holders: Holders::look(meant, units),
            first_free_port: first.and_then(|port| u16::try_from(port).ok()).unwrap_or(1024),
            longest: number("/proc/sys/net/core/somaxconn"),
            is_user,
            proxies,
        }
    }

    /// Checks one socket of a unit; without `for_whom` it is not known whom its file is for, and without `person` not
    /// whom the service runs as.
    pub fn check(
        &self,
        unit: &Unit,
        socket: &Socket,
        person: Option<&Person>,
        for_whom: Option<&ForWhom>,
        runner: u32,
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
            Listen::Tcp { addr, dual } => self.check_inet(unit, socket, *addr, *dual, out),
            Listen::Unix(path) => {
                let file = File { unit, socket, path, person, runner };
                file.check(self, for_whom, out);
                if let Some(for_whom) = for_whom {
                    file.check_clients(&self.proxies, for_whom, out);
                }
            }
            Listen::Abstract(name) => {
                let inodes = self.holders.sockets.at_name(name);
                let inodes = inodes.iter().map(|(_, inode)| *inode);
                self.check_holders(unit, &key("listen"), &Address::of(socket), inodes, out);
            }
        }
    }

    fn check_inet(&self, unit: &Unit, socket: &Socket, at: SocketAddr, dual: bool, out: &mut Findings) {
        let key = &format!("socket.{}.listen", socket.name);
        let address = Address::of(socket);
        let by = if self.is_user { BoundAs::Runner } else { BoundAs::Root };
        let refused = |number| refused(&address, &io::Error::from_raw_os_error(number), by, None);
        if self.is_user && at.port() < self.first_free_port {
            tell(unit, key, &refused(libc::EACCES), out);
        }
        let is_there = socket.freebind || at.ip().is_unspecified() || UdpSocket::bind((at.ip(), 0)).is_ok();
        if !is_there {
            // It may come, and is tried again until then.
            let unbound = refused(libc::EADDRNOTAVAIL);
            let text = format!("binding {address}: {}", unbound.reason);
            out.add(unit, key, false, text, unbound.hint);
        }
        let is_datagram = socket.kind == SocketType::Datagram;
        let rows = || {
            let rows = self.holders.sockets.at_port(at.port(), is_datagram);
            rows.filter(|row| is_datagram || row.listens)
        };
        let inodes = rows().filter(|row| meets(row.local, at, dual)).map(|row| row.inode);
        if self.check_holders(unit, key, &address, inodes, out) {
            return;
        }
        // Whether a socket on [::] takes IPv4 as well cannot be seen from here.
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, at.port()));
        let wide = rows().find(|row| at.is_ipv4() && row.local == all);
        let pids = wide.map(|row| self.holders.sockets.processes_with(row.inode));
        if let Some(who @ Holder::Process { .. }) = pids.and_then(holder::outside) {
            let text =
                format!("{at} may be taken: {who} for {all}, which takes IPv4 too where it is not v6only");
            out.warn(unit, key, text, "stop that process, or take another port");
        }
    }

    /// Says who has an address, by the sockets that are there, and whether there are any.
    pub fn check_holders(
        &self,
        unit: &Unit,
        key: &str,
        address: &Address,
        inodes: impl Iterator<Item = u64>,
        out: &mut Findings,
    ) -> bool {
        let mut is_any = false;
        for inode in inodes {
            is_any = true;
            match self.holders.judge(unit, address, inode) {
                Taken::Fine => {}
                Taken::Unknown(what) => out.not_checked(unit, &what),
                Taken::By(unbound) => {
                    tell(unit, key, &unbound, out);
                    break;
                }
            }
        }
        is_any
    }
}

/// That an address cannot be had, in the words of `run`.
pub fn tell(unit: &Unit, key: &str, unbound: &Unbound, out: &mut Findings) {
    let text = format!("binding {}: {}", unbound.address, unbound.reason);
    out.add(unit, key, true, text, unbound.hint.clone());
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn one_that_may_take_ipv4_too_is_a_warning() {
        let wide = TcpListener::bind("[::]:0").unwrap();
        let port = wide.local_addr().unwrap().port();
        let text = format!("[service]\ncommand = \"x\"\n[socket.http]\nlisten = \"127.0.0.1:{port}\"\n");
        let unit = Unit::parse("web", "web.toml", &text).unwrap();
        let mut out = Findings::default();
        let machine = Machine::look(false, Vec::new(), None, &[]);
        machine.check(&unit, unit.sockets.first().unwrap(), None, None, 0, &mut out);
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
