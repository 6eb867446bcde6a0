//! USER. One connection to a supervisor: whom it reaches, calls out, replies in. Never waits, never believes a
//! socket of a stranger.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::sys::link::{self, MOST_FDS};
use crate::sys::peer;
use crate::wire::varlink::{Answer, Frames, MOST_REPLY};

/// Why there is no connection, or no longer one.
#[derive(Debug)]
pub enum Fault {
    /// Nobody listens there.
    Absent(io::Error),
    /// Too many are waiting already.
    Busy,
    /// This user may not.
    Denied,
    /// The one who listens is this user, neither root nor ours.
    Untrusted(u32),
    /// It hung up.
    Broken,
    /// What it says is no Varlink.
    Garbled,
    /// Something else: what was being done, and the system's reason.
    Other(&'static str, io::Error),
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    frames: Frames,
    passed: Vec<OwnedFd>,
}

impl Connection {
    /// Connects, and looks who is there: root and the own user are believed.
    pub fn open(control: &Path, own_uid: u32) -> Result<Self, Fault> {
        let stream = connected(control).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ECONNREFUSED | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP) => {
                Fault::Absent(error)
            }
            Some(libc::EAGAIN) => Fault::Busy,
            Some(libc::EACCES | libc::EPERM) => Fault::Denied,
            Some(_) | None => Fault::Other("connecting to the supervisor", error),
        })?;
        let peer = peer::credentials(&stream).map_err(|error| Fault::Other("asking who listens", error))?;
        if peer.uid != 0 && peer.uid != own_uid {
            return Err(Fault::Untrusted(peer.uid));
        }
        Ok(Self { stream, frames: Frames::new(MOST_REPLY), passed: Vec::new() })
    }

    /// Has the poll watch it.
    pub fn watch(&self, registry: &Registry, token: Token) -> Result<(), Fault> {
        let watched = registry.register(&mut SourceFd(&self.stream.as_raw_fd()), token, Interest::READABLE);
        watched.map_err(|error| Fault::Other("watching the connection", error))
    }

    /// Sends a call, the first of this connection: it fits the kernel's buffer (unix(7), SO_SNDBUF).
    pub fn send(&mut self, frame: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(frame).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected => Fault::Broken,
            _ => Fault::Other("asking the supervisor", error),
        })
    }

    /// Waits until there is something to read.
    pub fn wait(&self) -> Result<(), Fault> {
        peer::wait_readable(&self.stream).map_err(|error| Fault::Other("waiting for the supervisor", error))
    }

    /// The descriptors that have come with what was read so far, each of them once.
    pub fn passed(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.passed)
    }

    /// The next reply, if a whole one has come.
    pub fn next(&mut self) -> Result<Option<Answer>, Fault> {
        loop {
            if let Some(frame) = self.frames.take().map_err(|_| Fault::Garbled)? {
                return Answer::decode(&frame).map(Some).map_err(|_| Fault::Garbled);
            }
            let mut bytes = [0; 32 * 1024];
            let room = self.frames.room().min(bytes.len());
            let mut places = [const { None }; MOST_FDS];
            match link::receive(self.stream.as_fd(), bytes.get_mut(..room).unwrap_or_default(), &mut places) {
                Ok(None) => return Err(Fault::Broken),
                Ok(Some(got)) => {
                    self.passed.extend(places.into_iter().flatten());
                    let fresh = bytes.get(..got.bytes).unwrap_or_default();
                    self.frames.push(fresh).map_err(|_| Fault::Garbled)?;
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok(None),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Err(Fault::Broken),
                    _ => return Err(Fault::Other("reading the supervisor's reply", error)),
                },
            }
        }
    }
}

/// A path that is too long for an address is reached through a descriptor of its directory.
fn connected(control: &Path) -> io::Result<UnixStream> {
    match peer::connected(control) {
        Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => {
            let (Some(parent), Some(name)) = (control.parent(), control.file_name()) else {
                return Err(error);
            };
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let directory = File::options().read(true).custom_flags(flags).open(parent)?;
            let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
            peer::connected(&short)
        }
        other => other,
    }
}
