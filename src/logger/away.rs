//! LOG. Lines to elsewhere than files: the journal, the system's log, our own standard output. Never waits, and
//! never keeps a line that it could not give away.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::{clock, dirs, fds, poller};
use crate::wire::cri::Which;
use crate::wire::logger::{Name, To};

/// Where the journal takes datagrams (systemd's native protocol).
pub const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where the system's log takes them (syslog(3)).
pub const SYSLOG: &str = "/dev/log";
/// How long one that is not there is left alone.
const AWAY: Duration = Duration::from_secs(5);
/// How long one that is full is waited for before lines are dropped.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// The content of one message to the system's log: rsyslog takes 8 KiB unless told otherwise.
const MOST_SYSLOG: usize = 8000;
/// A pipe with any room takes this much at once (PIPE_BUF).
const AT_ONCE: usize = 4096;
/// Facility daemon (3), severity info (6), as RFC 3164 puts them into one number.
const PRIORITY: &str = "30";

/// Why a line was not taken.
#[derive(Debug)]
pub enum Refused {
    /// There is no room now.
    Full,
    /// Nobody takes lines there.
    Absent(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Refused::Full,
            _ if error.raw_os_error() == Some(105) => Refused::Full, // ENOBUFS
            _ => Refused::Absent(error),
        }
    }
}

#[derive(Debug, Default)]
struct Way {
    absent_until: Option<Instant>,
    full_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Post {
    way: Way,
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Post {
    /// Whether somebody takes datagrams there; nothing is sent.
    fn look(&self) -> Result<(), Refused> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(socket.connect(&self.path)?)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                self.socket.insert(socket)
            }
        };
        match socket.send(bytes).map_err(Refused::from) {
            Ok(_) => Ok(()),
            Err(Refused::Full) => Err(Refused::Full),
            Err(Refused::Absent(_)) => {
                // Perhaps another took its place: one more try, with a new connection.
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                self.socket = None;
                socket.connect(&self.path)?;
                self.socket.insert(socket).send(bytes)?;
                Ok(())
            }
        }
    }
}

/// One of our own outputs, and the rest of a line that it took half of.
#[derive(Debug)]
struct Out {
    fd: io::Result<OwnedFd>,
    never_waits: bool,
    rest: Vec<u8>,
}

impl Out {
    fn new(fd: io::Result<OwnedFd>) -> Self {
        // A plain file never waits, and opened once more it would have an offset of its own.
        let is_file = fd.as_ref().is_ok_and(|fd| dirs::facts(fd.as_fd()).is_ok_and(|facts| facts.regular));
        if is_file {
            return Self { fd, never_waits: true, rest: Vec::new() };
        }
        // A flag on the one we were given would be seen by everybody who has it.
        let own = fd.as_ref().ok().and_then(|fd| fds::reopened_to_write(fd.as_fd()).ok());
        let never_waits = own.is_some();
        Self { fd: own.map_or(fd, Ok), never_waits, rest: Vec::new() }
    }

    fn flush(&mut self) -> Result<(), Refused> {
        while !self.rest.is_empty() {
            let fd = self.fd.as_ref().map_err(|error| Refused::Absent(error.kind().into()))?;
            let most = if self.never_waits { self.rest.len() } else { self.rest.len().min(AT_ONCE) };
            if !self.never_waits && !poller::writable_now(fd.as_fd())? {
                return Err(Refused::Full);
            }
            match fds::write(fd.as_fd(), self.rest.get(..most).unwrap_or_default()) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(error) => {
                    let refused = Refused::from(error);
                    if matches!(refused, Refused::Absent(_)) {
                        self.rest.clear();
                    }
                    return Err(refused);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, service: &Name, content: &[u8]) -> Result<(), Refused> {
        self.flush()?;
        self.rest.extend(service.as_str().as_bytes());
        self.rest.extend(b": ");
        self.rest.extend(content);
        self.rest.push(b'\n');
        match self.flush() {
            Err(Refused::Full) => Ok(()), // taken; the rest goes out before anything else
            other => other,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Away {
    journal: Post,
    syslog: Post,
    out: [Out; 2],
    own: Way,
}

impl Away {
    /// To be made while our standard output can still be opened once more.
    pub fn new(journal: &Path, syslog: &Path) -> Self {
        let post = |path: &Path| Post { path: path.to_owned(), ..Post::default() };
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let out = [fds::duplicate(stdout.as_fd()), fds::duplicate(stderr.as_fd())].map(Out::new);
        Self { journal: post(journal), syslog: post(syslog), out, own: Way::default() }
    }

    fn way(&mut self, to: To) -> &mut Way {
        match to {
            To::Journal => &mut self.journal.way,
            To::Syslog => &mut self.syslog.way,
            To::Inherit | To::File => &mut self.own,
        }
    }

    /// Whether lines can be sent there, as far as is known.
    pub fn is_there(&mut self, to: To, now: Instant) -> bool {
        self.way(to).absent_until.is_none_or(|until| now >= until)
    }

    /// Whether somebody takes lines there, as of now; None where only sending one tells.
    pub fn look(&self, to: To) -> Option<Result<(), Refused>> {
        match to {
            To::Journal => Some(self.journal.look()),
            To::Syslog => Some(self.syslog.look()),
            To::Inherit | To::File => None,
        }
    }

    /// Since when there has been no room.
    pub fn full_since(&mut self, to: To) -> Option<Instant> {
        self.way(to).full_since
    }

    /// How the place is called.
    pub fn place(&self, to: To) -> String {
        match to {
            To::Journal => format!("the journal at {}", self.journal.path.display()),
            To::Syslog => format!("the system's log at {}", self.syslog.path.display()),
            To::Inherit | To::File => "supervise's own output".to_owned(),
        }
    }

    /// Gives one piece of a line away.
    pub fn send(
        &mut self,
        to: To,
        service: &Name,
        which: Which,
        (content, ends): (&[u8], bool),
        (seconds, now): (u64, Instant),
    ) -> Result<(), Refused> {
        let sent = match to {
            To::Journal => self.journal.send(&entry(service, which, content, ends)),
            To::Syslog => {
                let mut parts = content.chunks(MOST_SYSLOG);
                let first = self.syslog.send(&message(service, parts.next().unwrap_or_default(), seconds));
                // One that was begun is not sent twice: what finds no room of the rest is lost.
                parts.filter(|_| first.is_ok()).for_each(|part| {
                    let _ = self.syslog.send(&message(service, part, seconds));
                });
                first
            }
            To::Inherit | To::File => match (which, &mut self.out) {
                (Which::Stdout, [out, _]) | (Which::Stderr, [_, out]) => out.send(service, content),
            },
        };
        let way = self.way(to);
        match &sent {
            Ok(()) => (way.full_since, way.absent_until) = (None, None),
            Err(Refused::Full) => drop(way.full_since.get_or_insert(now)),
            Err(Refused::Absent(_)) => (way.full_since, way.absent_until) = (None, now.checked_add(AWAY)),
        }
        sent
    }

    /// Writes what is left of half lines; whether nothing is.
    pub fn flush(&mut self) -> bool {
        self.out.iter_mut().all(|out| !matches!(out.flush(), Err(Refused::Full)))
    }
}

/// A datagram for the journal: fields, of which the message says its length, since it may hold any byte.
fn entry(service: &Name, which: Which, content: &[u8], ends: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 256);
    out.extend(b"MESSAGE\n");
    out.extend((content.len() as u64).to_le_bytes());
    out.extend(content);
    let stream = which.word();
    let fields = format!(
        "\nPRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER={service}\nSUPERVISE_SERVICE={service}\n\
         SUPERVISE_STREAM={stream}\n"
    );
    out.extend(fields.as_bytes());
    if !ends {
        out.extend(b"CONTAINER_PARTIAL_MESSAGE=true\n");
    }
    out
}

/// A datagram as syslog(3) sends it: RFC 3164 without the host, in local time. A NUL would end it there.
fn message(service: &Name, content: &[u8], seconds: u64) -> Vec<u8> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = clock::local(seconds);
    let month = MONTHS.get(at.month as usize - 1).unwrap_or(&"Jan");
    let (day, hour, minute, second) = (at.day, at.hour, at.minute, at.second);
    let head = format!("<{PRIORITY}>{month} {day:>2} {hour:02}:{minute:02}:{second:02} {service}: ");
    let safe = content.iter().map(|byte| if *byte == 0 { b' ' } else { *byte });
    head.into_bytes().into_iter().chain(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_the_journal_says_its_length() {
        let service = Name::new(b"web").unwrap();
        let mut expected = b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=6\nSYSLOG_FACILITY=3\n".to_vec();
        expected.extend(b"SYSLOG_IDENTIFIER=web\nSUPERVISE_SERVICE=web\nSUPERVISE_STREAM=stderr\n");
        assert_eq!(entry(&service, Which::Stderr, b"a\nb", true), expected);
        expected.extend(b"CONTAINER_PARTIAL_MESSAGE=true\n");
        assert_eq!(entry(&service, Which::Stderr, b"a\nb", false), expected);
    }

    #[test]
    fn a_line_for_the_systems_log_is_as_the_library_would_send_it() {
        let service = Name::new(b"web").unwrap();
        let text = String::from_utf8(message(&service, b"a\0b", 1_795_403_565)).unwrap();
        assert!(text.starts_with("<30>Nov 2") && text.ends_with(" web: a b"), "{text}");
        assert_eq!(text.len(), "<30>Nov 23 03:12:45 web: a b".len());
    }
}
