//! ROOT. The sockets that a rehearsal gets in the places of its unit's: of the same kind, with the same options, where
//! no client looks. Never kept: when the rehearsal has gone, so have they.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::{Address, Spot, Wanted, bind};
use crate::manager::Manager;
use crate::policy::{Event, Run, ServiceId};
use crate::sys::{files, sockets};

/// One of them, as the state has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// Where it listens.
    pub address: Address,
    /// Its inode, by which descriptors of it are told.
    pub inode: u64,
}

impl Manager {
    /// Makes the sockets of a rehearsal, in the order of its unit's. Those with a path are reached by its user and root
    /// alone; a port of the loopback address by whoever is on this machine and looks for it (`/proc/net/tcp` tells all of
    /// them), but by no client of the service, which knows another one.
    pub(in crate::manager) fn make_stand_ins(
        &self,
        id: ServiceId,
        run: Run,
    ) -> io::Result<Vec<(StandIn, OwnedFd)>> {
        let mut made = Vec::new();
        for (place, wanted) in self.wants(id).iter().enumerate() {
            match self.make_stand_in(id, run, place, wanted) {
                Ok(one) => made.push(one),
                Err(error) => {
                    self.remove_stand_ins(run, made.iter().map(|(one, _)| one));
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    fn make_stand_in(
        &self,
        id: ServiceId,
        run: Run,
        place: usize,
        wanted: &Wanted,
    ) -> io::Result<(StandIn, OwnedFd)> {
        let kind = bind::kind(wanted.address.carries);
        let (spot, socket) = match &wanted.address.spot {
            Spot::Inet { address, dual } => {
                let socket = bind_loopback(*address, *dual, |address, dual| {
                    sockets::bind_inet(address, dual, kind, wanted.options)
                })?;
                let sockets::Local::Inet { address, dual } = sockets::local(socket.as_fd())? else {
                    return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
                };
                (Spot::Inet { address, dual }, socket)
            }
            Spot::Path(_) | Spot::Abstract(_) => {
                let name = stand_in_name(run, place);
                let socket = self.bind_private(id, &name, kind.raw())?;
                (Spot::Path(self.probe_directory().join(name)), socket)
            }
        };
        if wanted.address.has_queue() {
            sockets::listen(socket.as_fd(), wanted.backlog)?;
        }
        sockets::plain_flags(socket.as_fd())?;
        let (_, inode) = files::identity(socket.as_fd())?;
        let address = Address { spot, carries: wanted.address.carries };
        Ok((StandIn { address, inode }, socket))
    }

    /// There are no sockets for a rehearsal: its generation comes on the real ones, through the same gate as without one.
    pub(in crate::manager) fn goes_unrehearsed(&mut self, id: ServiceId, run: Run, words: String) {
        let generation = self.world.incarnation(id, run).map_or(0, |one| one.generation);
        log::warn!("service={} gen={generation} run={} no rehearsal: {words}", self.name_of(id), run.0);
        self.unrehearsed.insert(id, (generation, words));
        self.feed(id, Event::Unrehearsed(run));
    }

    /// Why the newest generation of a service came without the rehearsal that its unit asks for.
    pub(in crate::manager) fn unrehearsed_words(&self, id: ServiceId) -> Option<&str> {
        let newest = self.world.get(id)?.newest;
        let (generation, words) = self.unrehearsed.get(&id)?;
        (*generation == newest).then_some(words.as_str())
    }

    /// Removes the files of those that have one.
    pub(in crate::manager) fn remove_stand_ins<'a>(&self, run: Run, all: impl Iterator<Item = &'a StandIn>) {
        for (place, one) in all.enumerate() {
            if matches!(one.address.spot, Spot::Path(_)) {
                self.remove_private(&stand_in_name(run, place));
            }
        }
    }

    /// Removes the files of a rehearsal that came to nothing before it was known which it had.
    pub(in crate::manager) fn discard_stand_ins(&self, id: ServiceId, run: Run) {
        for place in 0..self.wants(id).len() {
            self.remove_private(&stand_in_name(run, place));
        }
    }
}

/// Its file's name beside the private listeners.
fn stand_in_name(run: Run, place: usize) -> String {
    format!("{}.{place}", run.0)
}

/// Any port of the loopback address that stands for one. A socket that takes IPv4 as well has it as IPv4's, which is
/// there also where IPv6 is switched off.
fn loopback(address: SocketAddr, dual: bool) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) if dual => IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, 0)
}

/// Binds it there. Where there is no `::1`, one that takes IPv6 alone has the place of one that takes both.
fn bind_loopback<T>(
    address: SocketAddr,
    dual: bool,
    bind: impl Fn(SocketAddr, bool) -> io::Result<T>,
) -> io::Result<T> {
    match bind(loopback(address, dual), dual) {
        Err(error) if address.is_ipv6() && !dual && error.kind() == io::ErrorKind::AddrNotAvailable => {
            bind(loopback(address, true), true)
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_of_the_family_of_what_it_stands_for_and_never_seen_from_outside() {
        for (address, dual, expected) in [
            ("0.0.0.0:80", false, "127.0.0.1:0"),
            ("192.0.2.7:80", false, "127.0.0.1:0"),
            ("[::]:80", false, "[::1]:0"),
            ("[2001:db8::7]:80", false, "[::1]:0"),
            ("[::]:80", true, "[::ffff:127.0.0.1]:0"),
        ] {
            assert_eq!(loopback(address.parse().unwrap(), dual), expected.parse().unwrap(), "{address}");
        }
    }

    #[test]
    fn without_a_loopback_address_of_ipv6_it_is_on_that_of_ipv4() {
        let bound = |address: &str, dual, has: &[&str]| {
            let bind = |address: SocketAddr, dual| match has.contains(&address.to_string().as_str()) {
                true => Ok((address.to_string(), dual)),
                false => Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
            };
            bind_loopback(address.parse().unwrap(), dual, bind).ok()
        };
        let (one, other, four) = ("[::1]:0", "[::ffff:127.0.0.1]:0", "127.0.0.1:0");
        assert_eq!(bound("[::]:80", false, &[one, other]), Some((one.to_owned(), false)));
        assert_eq!(bound("[::]:80", false, &[other, four]), Some((other.to_owned(), true)));
        assert_eq!(bound("[::]:80", true, &[one]), None);
        assert_eq!(bound("0.0.0.0:80", false, &[other]), None);
    }

    #[test]
    fn one_that_takes_both_families_is_reached_over_ipv4() {
        let wanted = loopback("[::]:80".parse().unwrap(), true);
        let socket =
            sockets::bind_inet(wanted, true, sockets::Kind::Stream, sockets::Options::default()).unwrap();
        sockets::listen(socket.as_fd(), 8).unwrap();
        let sockets::Local::Inet { address, dual } = sockets::local(socket.as_fd()).unwrap() else {
            panic!("no address of IP")
        };
        assert!(dual && address.is_ipv6(), "{address}");
        assert!(std::net::TcpStream::connect(("127.0.0.1", address.port())).is_ok());
    }
}
