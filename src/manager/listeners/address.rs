//! ROOT. Where a socket listens, in the one form in which two are compared. Never binds one.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::unit;

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carries {
    /// Connections of bytes.
    Stream,
    /// Datagrams.
    Datagram,
    /// Connections of messages.
    Seqpacket,
}

/// Where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spot {
    /// TCP or UDP; `dual` takes IPv4 on an IPv6 socket too.
    Inet {
        /// Address and port.
        address: SocketAddr,
        /// Whether IPv4 comes in as well.
        dual: bool,
    },
    /// A path.
    Path(PathBuf),
    /// A name that has no file, without the `@`.
    Abstract(String),
}

/// An address. Sockets are matched by it when units change, so a new name loses nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Where.
    pub spot: Spot,
    /// What.
    pub carries: Carries,
}

impl Address {
    /// That of a unit's socket.
    pub fn of(socket: &unit::Socket) -> Self {
        let spot = match &socket.listen {
            unit::Listen::Tcp { addr, dual } => Spot::Inet { address: *addr, dual: *dual },
            unit::Listen::Unix(path) => Spot::Path(path.clone()),
            unit::Listen::Abstract(name) => Spot::Abstract(name.clone()),
        };
        let carries = match socket.kind {
            unit::SocketType::Stream => Carries::Stream,
            unit::SocketType::Datagram => Carries::Datagram,
            unit::SocketType::Seqpacket => Carries::Seqpacket,
        };
        Self { spot, carries }
    }

    /// Whether clients connect to it, and wait in a queue.
    pub fn has_queue(&self) -> bool {
        self.carries != Carries::Datagram
    }

    /// The key that Server::Starter gives it: a lone port for all addresses, and `u` before the port of UDP.
    pub fn starter_key(&self) -> String {
        let mark = if self.carries == Carries::Datagram { "u" } else { "" };
        match &self.spot {
            Spot::Inet { address, dual: true } => format!("{mark}{}", address.port()),
            Spot::Inet { address: SocketAddr::V4(v4), .. } => format!("{}:{mark}{}", v4.ip(), v4.port()),
            Spot::Inet { address: SocketAddr::V6(v6), .. } => format!("[{}]:{mark}{}", v6.ip(), v6.port()),
            Spot::Path(_) | Spot::Abstract(_) => self.spot.to_string(),
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { address, dual: true } => write!(out, ":{}", address.port()),
            Self::Inet { address, dual: false } => write!(out, "{address}"),
            Self::Path(path) => write!(out, "{}", path.display()),
            Self::Abstract(name) => write!(out, "@{name}"),
        }
    }
}

/// As a unit has it; what is no stream is told apart.
impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.carries, &self.spot) {
            (Carries::Stream, spot) => write!(out, "{spot}"),
            (Carries::Datagram, spot @ Spot::Inet { .. }) => write!(out, "{spot} (UDP)"),
            (Carries::Datagram, spot) => write!(out, "{spot} (datagram)"),
            (Carries::Seqpacket, spot) => write!(out, "{spot} (seqpacket)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(text: &str, dual: bool, carries: Carries) -> Address {
        Address { spot: Spot::Inet { address: text.parse().unwrap(), dual }, carries }
    }

    #[test]
    fn addresses_are_told_as_people_and_server_starter_write_them() {
        let (stream, datagram) = (Carries::Stream, Carries::Datagram);
        let unix = |spot| Address { spot, carries: Carries::Seqpacket };
        let cases = [
            (inet("[::]:80", true, stream), ":80", "80"),
            (inet("[::]:53", true, datagram), ":53 (UDP)", "u53"),
            (inet("[::]:80", false, stream), "[::]:80", "[::]:80"),
            (inet("127.0.0.1:80", false, stream), "127.0.0.1:80", "127.0.0.1:80"),
            (inet("127.0.0.1:53", false, datagram), "127.0.0.1:53 (UDP)", "127.0.0.1:u53"),
            (inet("[::1]:53", false, datagram), "[::1]:53 (UDP)", "[::1]:u53"),
            (unix(Spot::Path("/run/a.sock".into())), "/run/a.sock (seqpacket)", "/run/a.sock"),
            (unix(Spot::Abstract("a".to_owned())), "@a (seqpacket)", "@a"),
        ];
        for (address, shown, key) in cases {
            assert_eq!((address.to_string(), address.starter_key()), (shown.to_owned(), key.to_owned()));
        }
    }

    #[test]
    fn an_address_comes_back_from_the_state() {
        let address = inet("[::]:53", true, Carries::Datagram);
        let text = serde_json::to_string(&address).unwrap();
        assert_eq!(serde_json::from_str::<Address>(&text).unwrap(), address);
    }
}
