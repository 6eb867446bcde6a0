//! PURE. Where a socket listens, and which two addresses cannot both be bound. Never binds one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::SOCKET_PATH_BYTES_MAX;
use super::choices::SocketType;
use super::fault::SocketFault;

/// An address to listen on. Shown, it is what somebody would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP, or UDP where the socket's type is `datagram`; the port is not 0.
    Tcp {
        /// The address; `[::]` where `dual` is set.
        addr: SocketAddr,
        /// One socket for IPv4 and IPv6: IPV6_V6ONLY is to be off. It is to be on for every other v6 address.
        dual: bool,
    },
    /// A Unix socket: an absolute path of at most [`SOCKET_PATH_BYTES_MAX`] bytes without `.`, `..` or empty parts.
    Unix(PathBuf),
    /// An abstract Unix socket: its name without the `@`, 1 to [`SOCKET_PATH_BYTES_MAX`] bytes without control
    /// characters.
    Abstract(String),
}

/// Whether the kernel refuses to bind both: an address of the network belongs to TCP and to UDP each, and so
/// does an abstract name to each type; a path is there once.
pub(super) fn clash((one, kind): (&Listen, SocketType), (other, other_kind): (&Listen, SocketType)) -> bool {
    match one {
        Listen::Unix(_) => one.overlaps(other),
        Listen::Tcp { .. } | Listen::Abstract(_) => kind == other_kind && one.overlaps(other),
    }
}

impl Listen {
    /// Reads what stands in `listen`.
    pub(super) fn parse(word: &str) -> Result<Self, SocketFault> {
        if word.contains('\0') {
            return Err(SocketFault::Nul);
        }
        if word.starts_with('/') {
            return unix(word);
        }
        if let Some(name) = word.strip_prefix('@') {
            let right = (1..=SOCKET_PATH_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
            let fault = || SocketFault::AbstractName { word: word.to_owned() };
            return right.then(|| Self::Abstract(name.to_owned())).ok_or_else(fault);
        }
        if let Some(port) = word.strip_prefix(':').filter(|port| !port.contains(':')) {
            let port = port_number(port).ok_or_else(|| SocketFault::Port { word: word.to_owned() })?;
            return Ok(Self::Tcp { addr: (Ipv6Addr::UNSPECIFIED, port).into(), dual: true });
        }
        let addr: SocketAddr = match word.parse() {
            Ok(addr) => addr,
            Err(_) => return Err(not_an_address(word)),
        };
        if addr.port() == 0 {
            return Err(SocketFault::Port { word: word.to_owned() });
        }
        if let SocketAddr::V6(v6) = addr
            && let Some(v4) = v6.ip().to_ipv4_mapped()
        {
            return Err(SocketFault::Mapped {
                word: word.to_owned(),
                remedy: SocketAddr::from((v4, v6.port())),
            });
        }
        Ok(Self::Tcp { addr, dual: false })
    }

    /// Whether the kernel refuses to bind both, as ip(7) and ipv6(7) have it for listening sockets without
    /// SO_REUSEPORT: the same port, and the same address or one that stands for all of a family.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Abstract(one), Self::Abstract(other)) => one == other,
            (Self::Tcp { addr: one, dual: one_dual }, Self::Tcp { addr: other, dual: other_dual }) => {
                one.port() == other.port() && (*one_dual || *other_dual || ip_overlaps(one, other))
            }
            (Self::Unix(_) | Self::Abstract(_), _)
            | (Self::Tcp { .. }, Self::Unix(_) | Self::Abstract(_)) => false,
        }
    }
}

fn ip_overlaps(one: &SocketAddr, other: &SocketAddr) -> bool {
    match (one, other) {
        (SocketAddr::V4(one), SocketAddr::V4(other)) => {
            one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified()
        }
        (SocketAddr::V6(one), SocketAddr::V6(other)) => {
            let same = one.ip() == other.ip() && one.scope_id() == other.scope_id();
            same || one.ip().is_unspecified() || other.ip().is_unspecified()
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => false,
    }
}

fn unix(word: &str) -> Result<Listen, SocketFault> {
    if word.len() > SOCKET_PATH_BYTES_MAX {
        return Err(SocketFault::LongPath { bytes: word.len() });
    }
    // One file has one spelling, so that the same socket in two units is seen to be the same.
    let odd = word.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    if odd { Err(SocketFault::OddPath { word: word.to_owned() }) } else { Ok(Listen::Unix(word.into())) }
}

/// A port from 1 on, in digits alone.
fn port_number(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|digit| digit.is_ascii_digit());
    if digits { word.parse().ok().filter(|port| *port != 0) } else { None }
}

/// What is wrong with a word that is neither a path nor an address, and what was probably meant.
fn not_an_address(word: &str) -> SocketFault {
    let owned = || word.to_owned();
    if let Some(path) = word.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return SocketFault::NotAnAddress {
            word: owned(),
            meant: path.starts_with('/').then(|| path.to_owned()),
        };
    }
    if port_number(word).is_some() {
        return SocketFault::NotAnAddress { word: owned(), meant: Some(format!(":{word}")) };
    }
    // `::1:80` is an address as it stands, and never meant as one.
    if let Some((host, port)) = word.rsplit_once(':')
        && host.parse::<Ipv6Addr>().is_ok()
        && port_number(port).is_some()
    {
        return SocketFault::NotAnAddress { word: owned(), meant: Some(format!("[{host}]:{port}")) };
    }
    if word.parse::<IpAddr>().is_ok() {
        return SocketFault::NoPort { word: owned() };
    }
    let Some((host, port)) = word.rsplit_once(':') else {
        let path = word.contains('/') || word.ends_with(".sock") || word.ends_with(".socket");
        return if path {
            SocketFault::RelativePath { word: owned() }
        } else {
            SocketFault::NotAnAddress { word: owned(), meant: None }
        };
    };
    if host.contains('/') {
        return SocketFault::NotAnAddress { word: owned(), meant: None };
    }
    if port_number(port).is_none() {
        return SocketFault::Port { word: owned() };
    }
    match host {
        "*" => SocketFault::NotAnAddress { word: owned(), meant: Some(format!(":{port}")) },
        "localhost" => SocketFault::HostName { word: owned(), meant: format!("127.0.0.1:{port}") },
        host if host.contains(':') || host.starts_with(|first: char| !first.is_ascii_alphabetic()) => {
            SocketFault::NotAnAddress { word: owned(), meant: None }
        }
        _ => SocketFault::HostName { word: owned(), meant: format!("0.0.0.0:{port}") },
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { addr, dual: true } => write!(out, ":{}", addr.port()),
            Self::Tcp { addr, dual: false } => write!(out, "{addr}"),
            Self::Unix(path) => write!(out, "{}", path.display()),
            Self::Abstract(name) => write!(out, "@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_shown() {
        for word in [
            ":80",
            "0.0.0.0:80",
            "127.0.0.1:8000",
            "[::]:80",
            "[::1]:80",
            "[fe80::1%2]:80",
            "/run/a.sock",
            "@a/b c",
        ] {
            assert_eq!(Listen::parse(word).unwrap().to_string(), word);
        }
        assert_eq!(Listen::parse(":80"), Ok(Listen::Tcp { addr: "[::]:80".parse().unwrap(), dual: true }));
        assert_eq!(
            Listen::parse("[::]:80"),
            Ok(Listen::Tcp { addr: "[::]:80".parse().unwrap(), dual: false })
        );
    }

    #[test]
    fn a_path_fills_the_kernels_room_and_not_more() {
        let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        assert!(Listen::parse(&path(107)).is_ok());
        assert_eq!(Listen::parse(&path(108)), Err(SocketFault::LongPath { bytes: 108 }));
    }

    #[test]
    fn overlaps_are_those_that_the_kernel_refuses() {
        let cases = [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            (":80", "127.0.0.1:80", true),
            (":80", "0.0.0.0:80", true),
            (":80", "[::1]:80", true),
            ("[::]:80", "0.0.0.0:80", false),
            ("[::]:80", "[::1]:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("[fe80::1%1]:80", "[fe80::1%2]:80", false),
            (":80", ":81", false),
            ("/a", "/a", true),
            ("/a", "/b", false),
            ("/a", ":80", false),
            ("@a", "@a", true),
            ("@a", "@b", false),
            ("@/a", "/a", false),
            ("@a", ":80", false),
        ];
        for (one, other, overlap) in cases {
            let (one, other) = (Listen::parse(one).unwrap(), Listen::parse(other).unwrap());
            assert_eq!(one.overlaps(&other), overlap, "{one} and {other}");
            assert_eq!(other.overlaps(&one), overlap, "{other} and {one}");
        }
    }

    #[test]
    fn types_have_addresses_of_their_own_and_share_paths() {
        let clash = |word: &str| {
            let listen = Listen::parse(word).unwrap();
            clash((&listen, SocketType::Stream), (&listen, SocketType::Datagram))
        };
        assert_eq!((clash(":80"), clash("/a"), clash("@a")), (false, true, false));
    }

    #[test]
    fn an_abstract_name_fills_the_kernels_room_and_not_more() {
        for word in ["@".to_owned(), format!("@{}", "a".repeat(108)), "@a\u{1b}".to_owned()] {
            assert_eq!(Listen::parse(&word), Err(SocketFault::AbstractName { word: word.clone() }));
        }
        assert!(Listen::parse(&format!("@{}", "a".repeat(107))).is_ok());
    }

    #[test]
    fn the_kernel_agrees_about_what_overlaps() {
        use std::net::TcpListener;
        let first = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let wide = Listen::parse(&format!("0.0.0.0:{port}")).unwrap();
        let narrow = Listen::parse(&format!("127.0.0.1:{port}")).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err() && wide.overlaps(&narrow));
    }
}
