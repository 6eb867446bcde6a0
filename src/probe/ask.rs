//! CHILD. Asks a socket: HTTP, the uwsgi protocol, or nothing but a connection. Never reads more of an answer than says
//! what it is.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{is_alone, pause, readable, see};
use crate::sys::errno::{is_shortage, reason};
use crate::sys::{clock, fds, sockets};
use crate::wire::probe::{Ask, At, CLOSED, Finding};

/// Milliseconds between two tries where there was no connection, or one that ended without an answer.
const AGAIN_MS: u64 = 100;
/// The descriptor of the first connection that is given.
const FIRST_GIVEN: i32 = 3;
/// Bytes of an answer that say what it is: `HTTP/1.1 200`.
const HEAD: usize = 12;

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn open(at: &At, within_ms: u64, given: &mut i32) -> std::io::Result<Self> {
        match at {
            At::Given { count } => {
                let next = *given;
                if next - FIRST_GIVEN >= i32::from(*count) {
                    return Err(ErrorKind::NotFound.into());
                }
                *given += 1;
                let stream = UnixStream::from(fds::inherited(next)?);
                stream.set_nonblocking(false)?;
                Ok(Self::Unix(stream))
            }
            At::Path(path) => unix(path),
            At::Abstract(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                UnixStream::connect_addr(&address).map(Self::Unix)
            }
            At::Tcp(text) => {
                let address: SocketAddr =
                    text.parse().map_err(|_| std::io::Error::from(ErrorKind::InvalidInput))?;
                TcpStream::connect_timeout(&address, Duration::from_millis(within_ms.max(1))).map(Self::Tcp)
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }

    fn receive(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// A full queue is an error at once, instead of a wait without end.
fn unix(path: &Path) -> std::io::Result<Stream> {
    let stream = UnixStream::from(sockets::connect_unix(path, sockets::STREAM)?);
    stream.set_nonblocking(false)?;
    Ok(Stream::Unix(stream))
}

/// The request as bytes.
fn request(ask: &Ask) -> Vec<u8> {
    match ask {
        Ask::Http { path, host } => {
            let head = "User-Agent: supervise\r\nAccept: */*\r\nConnection: close";
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{head}\r\n\r\n").into_bytes()
        }
        Ask::Uwsgi { path, host } => packet(path, host),
        Ask::Connection => Vec::new(),
    }
}

/// A packet of the uwsgi protocol: modifier 0, the size, then names and values with their lengths, all little-endian.
fn packet(path: &str, host: &str) -> Vec<u8> {
    let (plain, query) = path.split_once('?').unwrap_or((path, ""));
    let mut body = Vec::new();
    for (name, value) in [
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", path),
        ("PATH_INFO", plain),
        ("QUERY_STRING", query),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("HTTP_HOST", host),
        ("HTTP_USER_AGENT", "supervise"),
        ("SERVER_NAME", host),
        ("SERVER_PORT", "80"),
        ("REMOTE_ADDR", "127.0.0.1"),
    ] {
        for text in [name, value] {
            body.extend((text.len() as u16).to_le_bytes());
            body.extend(text.as_bytes());
        }
    }
    let mut bytes = vec![0];
    bytes.extend((body.len() as u16).to_le_bytes());
    bytes.push(0);
    bytes.extend(body);
    bytes
}

/// Asks until somebody answers, whatever he says: a server that does not accept yet answers late, not never.
pub fn until_answered(at: &At, asks: &[Ask]) -> Option<Finding> {
    loop {
        if is_alone() {
            return None;
        }
        let mut streams: Vec<Stream> = Vec::new();
        for ask in asks {
            if let Ok(mut stream) = Stream::open(at, 1_000, &mut 0)
                && stream.send(&request(ask)).is_ok()
            {
                streams.push(stream);
            }
        }
        while !streams.is_empty() {
            if is_alone() {
                return None;
            }
            let flags = readable(&streams.iter().map(Stream::fd).collect::<Vec<_>>(), 1_000);
            let mut left = Vec::new();
            for (mut stream, ready) in streams.into_iter().zip(flags) {
                if !ready {
                    left.push(stream);
                } else if matches!(stream.receive(&mut [0]), Ok(1)) {
                    return Some(Finding::Ready);
                }
            }
            streams = left;
        }
        if !pause(AGAIN_MS) {
            return None;
        }
    }
}

/// Asks whether all is well.
pub fn health(at: &At, ask: &Ask, only: Option<u32>, timeout_ms: u64) -> Finding {
    let until = clock::monotonic_ms() + timeout_ms;
    let late = || format!("no answer within {}", duration(timeout_ms));
    let mut given = FIRST_GIVEN;
    loop {
        let left = until.saturating_sub(clock::monotonic_ms());
        let mut stream = match Stream::open(at, left, &mut given) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::NotFound && given > FIRST_GIVEN => {
                return Finding::Others;
            }
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                if error.kind() == ErrorKind::WouldBlock && left > AGAIN_MS && pause(AGAIN_MS) {
                    continue; // its queue is full
                }
                return Finding::Silent(late());
            }
            Err(error) => return not_answered(&error),
        };
        if let Some(main) = only {
            let accepted = match &stream {
                Stream::Tcp(tcp) => see::accepted_by(main, tcp, until),
                Stream::Unix(unix) => see::unix_accepted_by(main, unix, until),
            };
            match accepted {
                Some(true) => {}
                // Another incarnation took it.
                Some(false) if clock::monotonic_ms() < until => continue,
                Some(false) => return Finding::Others,
                None => return Finding::Silent(late()),
            }
        }
        return match answer(&mut stream, ask, until) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Finding::Silent(late())
            }
            Err(error) => not_answered(&error),
        };
    }
}

/// What an error on the way to an answer says of whoever was asked.
fn not_answered(error: &std::io::Error) -> Finding {
    Finding::without_answer(reason(error).to_lowercase(), is_shortage(error))
}

fn answer(stream: &mut Stream, ask: &Ask, until: u64) -> std::io::Result<Finding> {
    if *ask == Ask::Connection {
        return Ok(Finding::Healthy("takes connections".to_owned()));
    }
    stream.send(&request(ask))?;
    let (mut bytes, mut have) = ([0; HEAD], 0);
    while have < HEAD {
        let left = until.saturating_sub(clock::monotonic_ms());
        if left == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        if readable(&[stream.fd()], left) != [true] {
            continue;
        }
        match stream.receive(bytes.get_mut(have..).unwrap_or_default())? {
            0 if have == 0 => {
                return Ok(Finding::Silent(CLOSED.to_owned()));
            }
            0 => break,
            count => have += count,
        }
    }
    Ok(judged(bytes.get(..have).unwrap_or_default()))
}

/// 200 to 399 is healthy.
fn judged(bytes: &[u8]) -> Finding {
    let status = std::str::from_utf8(bytes).ok().and_then(|text| {
        let (version, rest) = text.split_once(' ')?;
        let status: u16 = rest.get(..3)?.parse().ok()?;
        version.starts_with("HTTP/1.").then_some(status)
    });
    match status {
        Some(status @ 200..=399) => Finding::Healthy(format!("answered {status}")),
        // Django and others refuse a host that they have not been told of.
        Some(400) => Finding::Unhealthy("probe said 400: it may want another `[health] host`".to_owned()),
        Some(status) => Finding::Unhealthy(format!("probe said {status}")),
        None => Finding::Unhealthy("it answered with something else than HTTP".to_owned()),
    }
}

/// A duration as the unit would write it.
pub fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status() {
        for (text, words) in [
            ("HTTP/1.1 200", Finding::Healthy("answered 200".into())),
            ("HTTP/1.0 399", Finding::Healthy("answered 399".into())),
            ("HTTP/1.1 503", Finding::Unhealthy("probe said 503".into())),
            (
                "HTTP/1.1 400",
                Finding::Unhealthy("probe said 400: it may want another `[health] host`".into()),
            ),
            ("HTTP/1.1 4", Finding::Unhealthy("it answered with something else than HTTP".into())),
            ("SSH-2.0-Open", Finding::Unhealthy("it answered with something else than HTTP".into())),
        ] {
            assert_eq!(judged(text.as_bytes()), words, "{text}");
        }
    }

    #[test]
    fn what_we_are_short_of_is_not_its_answer() {
        let of = |errno| not_answered(&std::io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EMFILE), Finding::Unasked("too many open files".into()));
        assert_eq!(of(libc::ECONNREFUSED), Finding::Silent("connection refused".into()));
    }

    #[test]
    fn a_packet_says_its_own_size() {
        let bytes = packet("/a?b=c", "localhost");
        assert_eq!((bytes[0], bytes[3]), (0, 0));
        assert_eq!(usize::from(u16::from_le_bytes([bytes[1], bytes[2]])), bytes.len() - 4);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("PATH_INFO\u{2}\0/a") && text.contains("QUERY_STRING\u{3}\0b=c"));
    }
}
