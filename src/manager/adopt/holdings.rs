//! ROOT. What the services have kept open while there was no supervisor: their listening sockets, and the pipes that
//! they write to. Never takes what is not the very one that was written down.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::proof::Standing;
use super::{Left, Process};
use crate::manager::Manager;
use crate::manager::listeners::{Address, Listener, Spot, is_at};
use crate::manager::notices;
use crate::policy::Run;
use crate::sys::errno::reason;
use crate::sys::reclaim::{self, Open};
use crate::sys::{dirs, fds, process, sockets, walk};
use crate::wire::keeper::Kind;

/// Who has what open, among those that are proven to be ours.
#[derive(Debug)]
pub struct Holdings {
    table: BTreeMap<Open, (u32, i32)>,
    /// Why one of them could not be looked into.
    hidden: Option<io::Error>,
}

impl Holdings {
    /// Looks into all of them once. The main process of an incarnation comes first.
    pub fn of(standing: &BTreeMap<Run, Standing>) -> Self {
        let mut all = Self { table: BTreeMap::new(), hidden: None };
        for pid in standing.values().flat_map(|one| &one.pids) {
            match reclaim::open_by(*pid) {
                Ok(found) => {
                    for (fd, open) in found {
                        all.table.entry(open).or_insert((*pid, fd));
                    }
                }
                Err(error) => all.hidden = Some(error),
            }
        }
        all
    }

    /// Why something of theirs may not have been found.
    pub fn hidden(&self) -> Option<String> {
        self.hidden.as_ref().map(reason)
    }

    /// A read end of a pipe that one of them writes to.
    pub fn reader(&self, pipe: u64) -> Option<OwnedFd> {
        let (pid, fd) = self.table.get(&Open::Pipe(pipe))?;
        match reclaim::reader(*pid, *fd, pipe) {
            Ok(end) => Some(end),
            Err(error) => {
                log::warn!("opening the output of process {pid} again: {}", reason(&error));
                None
            }
        }
    }

    /// A copy of a listening socket.
    fn socket(&self, number: u64) -> Result<OwnedFd, String> {
        let Some((pid, fd)) = self.table.get(&Open::Socket(number)) else {
            return Err(match &self.hidden {
                Some(error) => format!("looking at what its processes have open: {}", reason(error)),
                None => "none of its processes has it open any more".to_owned(),
            });
        };
        let taken = process::open(*pid).and_then(|pidfd| reclaim::copy(pidfd.as_fd(), *fd));
        taken.map_err(|error| format!("taking it from process {pid}: {}", reason(&error)))
    }
}

impl Manager {
    /// Has a listening socket kept again: one that the init above has stored, or that of the service.
    pub(super) fn take_listener(
        &mut self,
        number: u64,
        left: &mut Left,
        holdings: &Holdings,
    ) -> io::Result<bool> {
        let Some(listener) = left.listeners.get(&number) else { return Ok(false) };
        let service = left.services.get(&listener.service);
        let name = service.map_or("?", |service| service.name.as_str());
        let runs = service.is_some_and(|service| service.policy.incarnations().next().is_some());
        let (socket, lock) = match self.found_again(number, listener, holdings) {
            Ok(found) => found,
            // What nobody has is bound anew with the next start.
            Err(_) if !runs => return Ok(false),
            Err(why) => {
                log::warn!(
                    "service={name} {}: its socket is not taken back: {why}\nhint: what has it goes on serving; until \
                     that has ended no other gets it, so `supervise restart --stop-first {name}` is the way to a new one. \
                     Taking it needs root with CAP_SYS_PTRACE, or the same user where kernel.yama.ptrace_scope is 0",
                    listener.address
                );
                return Ok(false);
            }
        };
        if let Some(lock) = lock {
            self.kept.put(Kind::PathLock, number, 0, lock)?;
        }
        self.kept.put(Kind::Listener, number, 0, socket)?;
        log::info!("service={name} {}: its socket is taken back", listener.address);
        Ok(true)
    }

    fn found_again(
        &self,
        number_of: u64,
        listener: &Listener,
        holdings: &Holdings,
    ) -> Result<(OwnedFd, Option<OwnedFd>), String> {
        let number = listener.socket.ok_or("its number is not known")?;
        let given = self.kept.ids(Kind::Given).into_iter().find_map(|id| {
            let fd = self.kept.fd(Kind::Given, id)?;
            (dirs::facts(fd).ok()?.identity.inode == number).then(|| fds::duplicate(fd).ok())?
        });
        let socket = given.map_or_else(|| holdings.socket(number), Ok)?;
        let is_it = dirs::facts(socket.as_fd()).is_ok_and(|facts| facts.identity.inode == number)
            && is_at(socket.as_fd(), &listener.address);
        if !is_it {
            return Err("it is another one by now".to_owned());
        }
        if listener.address.has_queue() && !sockets::is_listening(socket.as_fd()).unwrap_or(false) {
            return Err("nobody listens on it".to_owned());
        }
        Ok((socket, self.lock_again(number_of, listener)?))
    }

    /// The lock of its path, which went with its holder. A manager that died on this way may have it already.
    fn lock_again(&self, number: u64, listener: &Listener) -> Result<Option<OwnedFd>, String> {
        if self.kept.fd(Kind::PathLock, number).is_some() {
            return Ok(None);
        }
        // One that the init above has given is its own, with its file.
        let (Address { spot: Spot::Path(path), .. }, Some(_)) = (&listener.address, listener.file) else {
            return Ok(None);
        };
        let held = |_| "another supervisor has its path by now".to_owned();
        if listener.foreign {
            return self.locks().take_path(path).map_err(held);
        }
        let (parent, name) = path.parent().zip(path.file_name()).ok_or("it has no directory")?;
        match walk::to_directory(parent, self.user).map_err(|error| reason(&error))? {
            walk::Walked::Directory(directory) => self.locks().take(directory.as_fd(), name).map_err(held),
            // An ordinary user's own services can write there as he can.
            walk::Walked::Foreign(_) => {
                let real = parent.canonicalize().map_err(|error| reason(&error))?;
                let directory = crate::sys::files::open_directory(&real).map_err(|error| reason(&error))?;
                self.locks().take(directory.as_fd(), Path::new(name).as_os_str()).map_err(held)
            }
        }
    }

    /// The socket on which an incarnation says how it is: another at the same path, which is all that it knows of it.
    pub(super) fn voice_again(&self, run: Run, left: &Left, process: &Process) -> Option<OwnedFd> {
        let inputs = left.inputs(process.service, process.generation)?;
        let one = left.services.get(&process.service)?.policy.find(run)?.2;
        let unit = inputs.unit().ok()?;
        if one.before.is_some() || !notices::notifies(&unit) {
            return None;
        }
        let owner = inputs.account.as_ref().map(|account| account.uid);
        match self.bind_notify(run, owner) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("run={}: making its notify socket again: {}", run.0, reason(&error));
                None
            }
        }
    }
}
