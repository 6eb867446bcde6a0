//! ROOT. The keeper is dead: a new one may come and take everything; if none does, this process becomes it.
//! Never decides about a service.

use crate::sys::errno::reason;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::Manager;
use super::watch;
use crate::policy::Run;
use crate::sys::link::Link;
use crate::sys::{clock, fds, files, lock, memfd, parent, peer, sockets};
use crate::wire::handover::{keeper_arguments, socket_in};
use crate::wire::keeper::{BATCH, Carried, ENTRY, Entry, HEAD, Head, Kind, MESSAGE, Verb};

/// Milliseconds for which a new keeper is waited for.
const WAIT_MS: u64 = 2_000;
/// The same below an init that starts one again: it has things of its own to do before, and a keeper that is not its child
/// is never its own again.
const WAIT_FOR_INIT_MS: u64 = 10_000;
/// Milliseconds that one has to take everything, once it has begun.
const TAKE_MS: u64 = 5_000;

/// The wait.
#[derive(Debug)]
pub struct Waiting {
    listener: Option<(OwnedFd, PathBuf)>,
    /// When it is over.
    pub until_ms: u64,
}

impl Manager {
    /// The keeper has ended. Everything that it was the parent of tells its end in another way from now on,
    /// and nothing starts until there is a keeper again.
    pub(super) fn keeper_ended(&mut self) {
        log::error!("the keeper has ended; the services run on");
        self.kept.keeper = 0;
        self.let_another_keeper_in();
        let runs: Vec<Run> = self.processes.iter().map(|(run, _)| run).collect();
        for run in runs {
            self.watch_process(run);
        }
        self.watch_execs();
        let path = socket_in(&self.settings.runtime_dir);
        let listener = match bind(&path) {
            Ok(socket) => {
                self.watch_link(watch::HANDOVER, Some(socket.as_raw_fd()), false);
                Some((socket, path))
            }
            Err(error) => {
                log::warn!("no new keeper can take over at {}: {}", path.display(), reason(&error));
                None
            }
        };
        let wait_ms = if self.above.listens() { WAIT_FOR_INIT_MS } else { WAIT_MS };
        self.handover = Some(Waiting { listener, until_ms: clock::monotonic_ms() + wait_ms });
    }

    /// A new keeper is here: it takes everything, and this manager ends. One that breaks off leaves things
    /// as they were.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        let Some(Waiting { listener: Some((socket, path)), .. }) = &self.handover else { return Ok(()) };
        let path = path.clone();
        while let Some(connection) = sockets::accept(socket.as_fd())? {
            let credentials = peer::credentials(&connection)?;
            if credentials.uid != self.user && credentials.uid != 0 {
                continue;
            }
            let link = Link::from_fd(connection);
            match self.give_all(&link) {
                Ok(()) => {
                    log::info!("a new keeper has taken over");
                    let _ = std::fs::remove_file(&path);
                    std::process::exit(0);
                }
                Err(error) => log::warn!("a new keeper broke off: {}", reason(&error)),
            }
            if let Some(waiting) = &mut self.handover {
                waiting.until_ms = clock::monotonic_ms() + WAIT_MS;
            }
            return Ok(());
        }
        Ok(())
    }

    /// Answers `Give` until the other side says that it has everything.
    fn give_all(&self, link: &Link) -> io::Result<()> {
        let deadline = clock::monotonic_ms() + TAKE_MS;
        loop {
            let mut bytes = [0; MESSAGE];
            match link.receive(&mut bytes, &mut []) {
                Ok(Some(got)) => {
                    match bytes.get(..got.bytes).and_then(Head::decode).map(|head| (head.verb, head)) {
                        Some((Verb::Give, head)) => self.give(link, head.entry.slot)?,
                        Some((Verb::Ready, _)) => return Ok(()),
                        _ => return Err(io::Error::other("it said something else")),
                    }
                }
                Ok(None) => return Err(io::Error::other("it has ended")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_sub(clock::monotonic_ms());
                    if left == 0 {
                        return Err(io::Error::from(io::ErrorKind::TimedOut));
                    }
                    parent::wait(&[link.as_fd()], left as i32, &mut [false])?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn give(&self, link: &Link, from: u32) -> io::Result<()> {
        match self.give_some(link, from, true) {
            // What a service has made and cannot travel is not what the others wait for.
            Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                self.give_some(link, from, false)
            }
            given => given,
        }
    }

    fn give_some(&self, link: &Link, from: u32, stored: bool) -> io::Result<()> {
        let mut all: Vec<(Entry, BorrowedFd<'_>)> = self.entries();
        all.retain(|(entry, _)| entry.slot >= from && (stored || entry.kind != Kind::Stored as u32));
        all.sort_by_key(|(entry, _)| entry.slot);
        let rest = all.split_off(all.len().min(BATCH));
        let mut head = Head::plain(Verb::Batch, all.len() as u64);
        head.entry.slot = rest.first().map_or(0, |(entry, _)| entry.slot);
        let mut message = Vec::with_capacity(HEAD + all.len() * ENTRY);
        message.extend_from_slice(&head.encode());
        for (entry, _) in &all {
            message.extend_from_slice(&entry.encode());
        }
        let fds: Vec<BorrowedFd<'_>> = all.iter().map(|(_, fd)| *fd).collect();
        link.send(&message, &fds)
    }

    /// Everything kept, as the keeper's table has it. Pids are nobody's children there: none is registered.
    fn entries(&self) -> Vec<(Entry, BorrowedFd<'_>)> {
        self.kept
            .all()
            .map(|(kind, id, held)| {
                (Entry { slot: held.slot, kind: kind as u32, id, pid: 0 }, held.fd.as_fd())
            })
            .collect()
    }

    /// Nobody came: this process becomes the keeper, which starts everything else again. Only returns with an
    /// error.
    pub(super) fn become_keeper(&mut self) -> io::Error {
        if let Some(Waiting { listener: Some((_, path)), .. }) = self.handover.take() {
            let _ = std::fs::remove_file(path);
        }
        log::info!("no new keeper has come: becoming it");
        match self.try_to_become_keeper() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_to_become_keeper(&self) -> io::Result<std::convert::Infallible> {
        let mut table = Vec::new();
        for (entry, fd) in self.entries() {
            fds::set_cloexec(fd, false)?;
            table.push(Carried { entry, fd: fd.as_raw_fd() });
        }
        // From here on whoever looks for the keeper finds this process.
        parent::hold_signals();
        let carried = memfd::sealed(c"supervise-carried", &Carried::encode_all(&table))?;
        fds::set_cloexec(carried.as_fd(), false)?;
        if let Some(lock) = self.kept.fd(Kind::Lock, 0)
            && let Err(error) = lock::claim(lock)
        {
            // Whose it is cannot be told then; that it is held can.
            log::warn!("writing into the lock of the runtime directory: {}", reason(&error));
        }
        let arguments = keeper_arguments(carried.as_raw_fd(), self.soft_nofile, &self.settings);
        Err(parent::Helper::of(arguments, std::env::vars_os())?.replace(self.binary.as_fd()))
    }
}

fn bind(path: &std::path::Path) -> io::Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let directory = files::open_directory(parent)?;
    let name = std::path::Path::new(name);
    if files::look(directory.as_fd(), name)?.is_some_and(|named| named.is_socket) {
        files::remove(directory.as_fd(), name)?;
    }
    let socket = sockets::bind_unix_in(directory.as_fd(), path, libc::SOCK_SEQPACKET)?;
    sockets::listen(socket.as_fd(), 4)?;
    Ok(socket)
}
