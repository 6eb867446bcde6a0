//! ROOT. Sockets in directories that others than root can write: a short-lived process with the service's rights binds
//! them and sends them here. Never touches such a path itself, and believes nothing but what the kernel says of a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use super::bind::{self, Bound};
use super::words::BoundAs;
use super::{Address, Spot, Unbound, Wanted};
use crate::manager::Manager;
use crate::manager::own::Own;
use crate::policy::service::Goal;
use crate::policy::{Mono, Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::files;
use crate::sys::link::Link;
use crate::sys::sockets::{self, Local, NotBound};
use crate::wire::binder::{Done, MOST_BYTES, Task};
use crate::wire::keeper::Kind;
use crate::wire::state::header;

/// Milliseconds that one has: the file system may be the service's too.
const WITHIN_MS: u64 = 5_000;

/// One that is under way.
#[derive(Debug)]
struct Flying {
    service: ServiceId,
    wanted: Wanted,
    link: Link,
    until: Mono,
    /// The lock of its path, where that is not kept already.
    lock: Option<OwnedFd>,
}

/// All of them, and what came of them.
#[derive(Debug, Default)]
pub struct Foreign {
    flying: BTreeMap<u64, Flying>,
    /// Failures, until whoever wanted the socket has been told.
    failed: BTreeMap<(ServiceId, Address), Unbound>,
    /// Those of which the file has just been seen.
    sure: BTreeSet<u64>,
    waiting: BTreeSet<(ServiceId, Run)>,
}

impl Foreign {
    /// When the next has had its time.
    pub fn deadline(&self) -> Option<Mono> {
        self.flying.values().map(|one| one.until).min()
    }

    /// Whether the file of a kept one was seen just now; only once.
    pub fn is_sure(&mut self, number: u64) -> bool {
        self.sure.remove(&number)
    }
}

impl Manager {
    /// This incarnation is to be started when its sockets are there.
    pub(in crate::manager) fn await_sockets(&mut self, id: ServiceId, run: Run) {
        self.listeners.foreign.waiting.insert((id, run));
    }

    /// Has a socket bound, or bound anew where its file is lost, with the rights of its service. Ok: it is under way.
    pub(super) fn bind_foreign(&mut self, id: ServiceId, wanted: &Wanted) -> Result<(), Unbound> {
        if let Some(unbound) = self.listeners.foreign.failed.remove(&(id, wanted.address.clone())) {
            return Err(unbound);
        }
        let under_way = |one: &Flying| one.service == id && one.wanted.address == wanted.address;
        if self.listeners.foreign.flying.values().any(under_way) || !self.starts.is_linked() {
            return Ok(());
        }
        let Spot::Path(path) = &wanted.address.spot else { return Ok(()) };
        let kept = self.listeners.at(&wanted.address);
        let before = kept.and_then(|(_, listener)| listener.file);
        let lock = match kept {
            Some((number, _)) if self.kept.fd(Kind::PathLock, number).is_some() => None,
            Some(_) | None => {
                let taken = self.locks().take_path(path);
                taken.map_err(|failure| self.not_bound(&wanted.address, failure))?
            }
        };
        let task = Task::Bind {
            path: path.clone(),
            kind: bind::kind(wanted.address.carries).raw(),
            mode: wanted.mode,
            user: wanted.user,
            group: wanted.group,
            before,
        };
        let launched = self.launch_binder(id, &task).map_err(|error| Unbound {
            address: wanted.address.clone(),
            reason: format!(
                "starting the process that binds it with the service's rights: {}",
                reason(&error)
            ),
            hint: None,
        })?;
        let (request, link) = launched;
        self.watch_binder(request, link.as_raw_fd());
        let until = self.now.after(WITHIN_MS);
        let flying = Flying { service: id, wanted: wanted.clone(), link, until, lock };
        self.listeners.foreign.flying.insert(request, flying);
        Ok(())
    }

    /// Has the file of one removed that is closed. Nobody waits for it: a file that stays is stale, and bound over.
    pub(super) fn remove_foreign(&mut self, id: ServiceId, path: &Path, file: (u64, u64)) {
        let task = Task::Remove { path: path.to_owned(), file };
        if let Err(error) = self.launch_binder(id, &task) {
            log::info!("service={} {} stays: {}", self.name_of(id), path.display(), reason(&error));
        }
    }

    fn launch_binder(&mut self, id: ServiceId, task: &Task) -> io::Result<(u64, Link)> {
        let unknown = || io::Error::other("its user is not known");
        let known = self.services.get(&id).ok_or_else(unknown)?;
        let (unit, account) = known.unit.as_ref().zip(known.inputs.account.as_ref()).ok_or_else(unknown)?;
        let (ours, theirs) = Link::pair()?;
        let own = Own {
            argv: vec!["bind".to_owned(), task.encode()],
            identity: (self.user == 0).then(|| known.inputs.identity(unit, account)),
            umask: 0o022,
            output: theirs.as_fd(),
            passed: None,
        };
        Ok((self.send_own(c"supervise-bind", own)?, ours))
    }

    /// Takes what one sent, or its end.
    pub(in crate::manager) fn hear_binder(&mut self, request: u64) {
        let Some(one) = self.listeners.foreign.flying.get(&request) else { return };
        let (mut bytes, mut place) = ([0; MOST_BYTES], [None]);
        let done = match one.link.receive(&mut bytes, &mut place) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(Some(got)) => bytes.get(..got.bytes).and_then(Done::decode),
            Ok(None) | Err(_) => None,
        };
        let [socket] = place;
        self.binder_ended(request, done, socket);
    }

    /// Gives those up that have had their time.
    pub(in crate::manager) fn keep_binders(&mut self) {
        let now = self.now;
        let over = self.listeners.foreign.flying.iter().filter(|(_, one)| one.until <= now);
        let over: Vec<u64> = over.map(|(request, _)| *request).collect();
        for request in over {
            self.binder_ended(request, None, None);
        }
    }

    fn binder_ended(&mut self, request: u64, done: Option<Done>, socket: Option<OwnedFd>) {
        let Some(one) = self.listeners.foreign.flying.remove(&request) else { return };
        self.unwatch_probe(one.link.as_raw_fd());
        let (id, wanted, mut lock) = (one.service, one.wanted, one.lock);
        let result = match (done, socket) {
            (Some(Done::There), _) => {
                let kept = self.listeners.at(&wanted.address).map(|(number, _)| number); // or closed meanwhile
                self.listeners.foreign.sure.extend(kept);
                Ok(())
            }
            (Some(Done::Bound(file)), Some(socket)) => {
                self.take_foreign(id, &wanted, socket, file, &mut lock)
            }
            (Some(done), _) => Err(self.not_done(&wanted.address, done)),
            (None, _) => {
                let reason =
                    "the process that was to bind it with the service's rights did not say what came of it";
                let address = wanted.address.clone();
                let hint = "does the file system of its directory answer? It is tried again".to_owned();
                Err(Unbound { address, reason: reason.to_owned(), hint: Some(hint) })
            }
        };
        lock.iter().for_each(|lock| files::remove_lock(lock.as_fd())); // of no use
        if let Err(unbound) = result {
            self.listeners.foreign.failed.insert((id, wanted.address), unbound);
        }
        // All that is wrong is told at once, so what has failed waits for the others.
        if self.listeners.foreign.flying.values().any(|one| one.service == id) {
            return;
        }
        let ours = |one: &(ServiceId, Run)| one.0 == id;
        let waiting = self.listeners.foreign.waiting.iter().filter(|one| ours(one)).copied();
        let waiting: Vec<(ServiceId, Run)> = waiting.collect();
        self.listeners.foreign.waiting.retain(|one| !ours(one));
        for (id, run) in waiting {
            self.want_process(id, run);
        }
    }

    /// A socket from a process that others may have led astray: it is what it should be, or it is closed.
    fn take_foreign(
        &mut self,
        id: ServiceId,
        wanted: &Wanted,
        socket: OwnedFd,
        file: (u64, u64),
        lock: &mut Option<OwnedFd>,
    ) -> Result<(), Unbound> {
        let down = self.world.get(id).is_none_or(|service| service.is_down() && service.goal == Goal::Down);
        if down {
            return Ok(()); // nobody wants it any more
        }
        let unbound = |reason: String| Unbound { address: wanted.address.clone(), reason, hint: None };
        let Spot::Path(path) = &wanted.address.spot else { return Ok(()) };
        let is_it = sockets::kind(socket.as_fd()).ok().flatten() == Some(bind::kind(wanted.address.carries))
            && sockets::local(socket.as_fd()).ok() == Some(Local::Path(path.clone()));
        if !is_it {
            return Err(unbound("what was bound with the service's rights is something else".to_owned()));
        }
        if wanted.address.has_queue() {
            sockets::listen(socket.as_fd(), wanted.backlog).map_err(|error| unbound(reason(&error)))?;
        }
        sockets::plain_flags(socket.as_fd()).map_err(|error| unbound(reason(&error)))?;
        let kept = self.listeners.at(&wanted.address).map(|(number, listener)| (number, listener.service));
        let number = match kept {
            Some((number, service)) if service == id => number,
            Some(_) => return Err(self.taken(&wanted.address)),
            None => self.store.get(header::NEXT_LISTENER) + 1,
        };
        if kept.is_none() {
            self.store.set(header::NEXT_LISTENER, number);
        }
        let bound = Bound { socket, file: Some(file), lock: lock.take(), foreign: true };
        self.keep_socket(number, id, wanted, bound)?;
        self.listeners.foreign.sure.insert(number);
        Ok(())
    }

    fn not_done(&self, address: &Address, done: Done) -> Unbound {
        let system = |number| io::Error::from_raw_os_error(number);
        let not_bound = match done {
            Done::Live | Done::There | Done::Bound(_) => NotBound::Live,
            Done::NoSocket => NotBound::NoSocket,
            Done::Strangers => NotBound::Strangers,
            Done::NotGiven(number) => NotBound::NotGiven(system(number)),
            Done::System(number) => NotBound::System(system(number)),
        };
        self.not_bound_by(BoundAs::Service, address, not_bound.into())
    }
}
