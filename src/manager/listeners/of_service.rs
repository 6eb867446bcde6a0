//! ROOT. The sockets of a service: what its unit wants, and that all of it is bound and right before a process
//! gets it. Never starts one.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::bind::{self, Bound, Failure, Locks};
use super::holder;
use super::repair::repair;
use super::words::{self, BoundAs, Holder};
use super::{Address, Carries, Listener, Spot, Unbound, Wanted};
use crate::manager::Manager;
use crate::manager::numbers::Numbers;
use crate::policy::{Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::{files, sockets};
use crate::unit::{self, Unit};
use crate::wire::keeper::Kind;
use crate::wire::state::{self, header};

/// Whom a socket is for.
#[derive(Clone, Copy, Debug)]
struct ForWhom {
    service: ServiceId,
    /// No other incarnation of it runs, which would share what is changed.
    alone: bool,
}

/// Why not all sockets of a service are there.
#[derive(Debug)]
pub enum NotAll {
    /// In words.
    Wrong(String),
    /// Some are being bound with the service's rights.
    Waiting,
}

enum NotYet {
    Unbound(Unbound),
    Waiting,
}

impl From<Unbound> for NotYet {
    fn from(unbound: Unbound) -> Self {
        Self::Unbound(unbound)
    }
}

impl Manager {
    /// The addresses of a unit's sockets, with their names, in order.
    pub(in crate::manager) fn wanted_sockets(&self, unit: &Unit) -> Vec<(String, Address)> {
        unit.sockets.iter().map(|socket| (socket.name.clone(), Address::of(socket))).collect()
    }

    /// Everything that a service wants of its sockets, in order.
    pub(super) fn wants(&self, id: ServiceId) -> Vec<Wanted> {
        let Some(known) = self.services.get(&id) else { return Vec::new() };
        let sockets = known.unit.iter().flat_map(|unit| &unit.sockets);
        let number = |account: &unit::Account, table: &Numbers| match account {
            unit::Account::Name(name) => table.get(name),
            unit::Account::Id(id) => Some(*id),
        };
        sockets
            .map(|socket| Wanted {
                address: Address::of(socket),
                mode: socket.mode,
                user: socket.user.as_ref().and_then(|user| number(user, &known.inputs.users)),
                group: socket.group.as_ref().and_then(|group| number(group, &known.inputs.groups)),
                inherit: socket.inherit.clone(),
                backlog: socket.backlog,
                options: sockets::Options {
                    nodelay: socket.nodelay,
                    keepalive: socket.keepalive,
                    freebind: socket.freebind,
                },
            })
            .collect()
    }

    /// Makes sure that every socket of a service is bound and right; their ids in order. `run` is the incarnation
    /// that will get them. The error is in words, for all sockets at once.
    pub(in crate::manager) fn bind_all(
        &mut self,
        id: ServiceId,
        run: Option<Run>,
    ) -> Result<Vec<u64>, NotAll> {
        let others = |(other, process): (Run, &super::super::processes::Process)| {
            process.service == id && Some(other) != run
        };
        let whom = ForWhom { service: id, alone: !self.processes.iter().any(others) };
        let (mut ids, mut wrong, mut waits) = (Vec::new(), Vec::new(), false);
        let known = self.services.get(&id);
        if known.is_some_and(|known| known.unit.is_some() && known.inputs.account.is_none()) {
            return Err(NotAll::Wrong(
                "its sockets are not bound: whose they are is not known yet".to_owned(),
            ));
        }
        for wanted in self.wants(id) {
            match self.ensure(whom, &wanted) {
                Ok(number) => ids.push(number),
                Err(NotYet::Unbound(unbound)) => wrong.push(unbound.to_string()),
                Err(NotYet::Waiting) => waits = true,
            }
        }
        match (wrong.is_empty(), waits) {
            (true, false) => Ok(ids),
            // What is wrong with the others is told with what comes of these.
            (_, true) => Err(NotAll::Waiting),
            (false, false) => Err(NotAll::Wrong(wrong.join("\n"))),
        }
    }

    /// One socket: the one that is kept, put right, or another in its place; or a new one.
    fn ensure(&mut self, whom: ForWhom, wanted: &Wanted) -> Result<u64, NotYet> {
        let Some((number, listener)) = self.listeners.at(&wanted.address) else {
            return self.ensure_new(whom.service, wanted);
        };
        if listener.service != whom.service {
            return Err(self.taken(&wanted.address).into());
        }
        let listener = listener.clone();
        let name = self.name_of(whom.service).to_owned();
        let right = match self.kept.fd(Kind::Listener, number) {
            Some(fd) => repair(fd, wanted, whom.alone),
            None => Err("its descriptor is lost".to_owned()),
        };
        if let Err(why) = right {
            log::warn!("service={name} {}: {why}: bound anew", wanted.address);
            if listener.foreign {
                self.listeners.release(number, &mut self.kept);
                self.remove_record(state::Kind::Listener, number);
                return self.ensure_new(whom.service, wanted);
            }
            return Ok(self.rebind(number, &listener, wanted).map(|()| number)?);
        }
        if listener.foreign && !self.listeners.foreign.is_sure(number) {
            return match self.bind_foreign(whom.service, wanted) {
                Ok(()) => Err(NotYet::Waiting),
                Err(unbound) => {
                    log::warn!("service={name} its file is not looked at: {unbound}");
                    Ok(number)
                }
            };
        }
        if is_lost(&listener) {
            match self.bind_again(number, &listener, wanted) {
                Ok(()) => log::warn!("service={name} {}: its file was gone: bound anew", wanted.address),
                // The one that is kept still has what waits in its queue.
                Err(unbound) => log::warn!("service={name} its file is gone: {unbound}"),
            }
        } else {
            self.note_room(number, wanted);
        }
        Ok(number)
    }

    fn ensure_new(&mut self, service: ServiceId, wanted: &Wanted) -> Result<u64, NotYet> {
        if let Some(taken) = self.take_given(service, wanted) {
            return Ok(taken?);
        }
        let mut found = bind::bind(wanted, self.user, Some(&self.locks()));
        // It may be our own that nothing of ours is behind any longer.
        if matches!(&found, Err(Failure::Held(who)) if *who == self.settings.runtime_dir)
            && self.drop_orphan_locks()
        {
            found = bind::bind(wanted, self.user, Some(&self.locks()));
        }
        let bound = match found {
            Ok(bound) => bound,
            Err(Failure::Foreign(_)) => {
                self.bind_foreign(service, wanted)?;
                return Err(NotYet::Waiting);
            }
            Err(failure) => return Err(self.not_bound(&wanted.address, failure).into()),
        };
        let number = self.store.get(header::NEXT_LISTENER) + 1;
        self.store.set(header::NEXT_LISTENER, number);
        self.keep_socket(number, service, wanted, bound)?;
        Ok(number)
    }

    /// Gives up the locks that are kept for no socket, and whether there were any. Lock and socket come and go with two
    /// messages to the keeper, and whoever dies between them leaves the lock alone.
    pub(in crate::manager) fn drop_orphan_locks(&mut self) -> bool {
        let mut orphans = self.kept.ids(Kind::PathLock);
        orphans.retain(|number| self.listeners.get(*number).is_none());
        for number in &orphans {
            self.kept.drop_lock(*number);
        }
        !orphans.is_empty()
    }

    /// In place of one that cannot be put right. Where that one has to be closed by everybody first, the bind fails,
    /// and is tried again as any other is.
    fn rebind(&mut self, number: u64, listener: &Listener, wanted: &Wanted) -> Result<(), Unbound> {
        match (&wanted.address.spot, wanted.address.carries) {
            (Spot::Path(path), _) => {
                if let Some(identity) = listener.file {
                    sockets::remove_if_it_is(path, identity);
                }
            }
            (Spot::Inet { .. }, Carries::Stream) => {
                if let Some(fd) = self.kept.fd(Kind::Listener, number) {
                    let _ = sockets::shut(fd); // where it does not listen there is nothing in the way
                }
            }
            (Spot::Inet { .. } | Spot::Abstract(_), _) => {
                self.listeners.release(number, &mut self.kept);
                self.remove_record(state::Kind::Listener, number);
            }
        }
        self.bind_again(number, listener, wanted)
    }

    /// Binds the address of one that is kept, and keeps the new one in its place.
    fn bind_again(&mut self, number: u64, listener: &Listener, wanted: &Wanted) -> Result<(), Unbound> {
        let bound = bind::bind(wanted, self.user, None)
            .map_err(|failure| self.not_bound(&wanted.address, failure))?;
        self.keep_socket(number, listener.service, wanted, bound)
    }

    /// Where the locks of paths are: where all supervisors of this user have them, whatever their runtime directories are.
    pub(in crate::manager) fn locks(&self) -> Locks {
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let common = match self.user {
            0 => Some(PathBuf::from("/run/supervise")),
            _ => set("XDG_RUNTIME_DIR").map(|path| path.join("supervise")).or_else(|| {
                let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
                state.map(|path| path.join("supervise/run"))
            }),
        };
        let runtime_dir = self.settings.runtime_dir.clone();
        let own = self.kept.fd(Kind::Lock, 0).map(|_| runtime_dir.clone());
        let directories = common.into_iter().chain(own).map(|path| path.join("locks")).collect();
        Locks { directories, runtime_dir }
    }

    /// The failure of a bind with the supervisor's own rights.
    pub(super) fn not_bound(&self, address: &Address, failure: Failure) -> Unbound {
        let by = if self.user == 0 { BoundAs::Root } else { BoundAs::Runner };
        self.not_bound_by(by, address, failure)
    }

    /// The failure of a bind.
    pub(super) fn not_bound_by(&self, by: BoundAs, address: &Address, failure: Failure) -> Unbound {
        match failure {
            Failure::Refused(error) => {
                // What others can exchange is not looked at.
                let part = match &address.spot {
                    Spot::Path(path) if by != BoundAs::Service => holder::no_directory(path, &error),
                    Spot::Path(_) | Spot::Inet { .. } | Spot::Abstract(_) => None,
                };
                words::refused(address, &error, by, part.as_deref())
            }
            Failure::NotGiven(error) => words::not_given(address, &error, by),
            Failure::InTheWay(what) => what.refuses(address),
            Failure::Taken => self.taken(address),
            Failure::Held(runtime_dir) => Holder::Supervisor { runtime_dir, service: None }.refuses(address),
            Failure::Foreign(part) => {
                let hint =
                    format!("`{}` can be written by others than the supervisor's user", part.display());
                let reason = "not as the supervisor's user".to_owned();
                Unbound { address: address.clone(), reason, hint: Some(hint) }
            }
        }
    }

    /// Has a socket kept, and writes it down.
    pub(super) fn keep_socket(
        &mut self,
        number: u64,
        service: ServiceId,
        wanted: &Wanted,
        bound: Bound,
    ) -> Result<(), Unbound> {
        let Bound { socket, file, lock, foreign } = bound;
        let number_of = files::identity(socket.as_fd()).ok().map(|(_, inode)| inode);
        let address = wanted.address.clone();
        let mut listener = Listener { service, address, file, socket: number_of, clamped: None, foreign };
        listener.clamped = clamp(wanted);
        let kept = lock.map_or(Ok(()), |lock| self.kept.put(Kind::PathLock, number, 0, lock));
        let kept = kept.and_then(|()| self.kept.put(Kind::Listener, number, 0, socket));
        let written = kept.and_then(|()| match self.save(state::Kind::Listener, number, &listener) {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        });
        if let Err(error) = written {
            if let (Spot::Path(path), Some(identity), false) = (&wanted.address.spot, file, foreign) {
                sockets::remove_if_it_is(path, identity);
            }
            self.kept.drop_lock(number);
            self.kept.drop(Kind::Listener, number);
            let hint = "raise the limit on open files (`ulimit -n`) of the supervisor".to_owned();
            let address = wanted.address.clone();
            return Err(Unbound { address, reason: reason(&error), hint: Some(hint) });
        }
        if let Some(words) = clamped_words(&listener, wanted.backlog) {
            log::warn!("service={} {words}", self.name_of(service));
        }
        self.listeners.restore(number, listener);
        log::info!("service={} listening on {}", self.name_of(service), wanted.address);
        Ok(())
    }

    /// Notes that the kernel gives a queue less room than is wanted, and says so once.
    fn note_room(&mut self, number: u64, wanted: &Wanted) {
        let clamped = clamp(wanted);
        let Some(listener) = self.listeners.get(number) else { return };
        if listener.clamped == clamped {
            return;
        }
        let listener = Listener { clamped, ..listener.clone() };
        if let Some(words) = clamped_words(&listener, wanted.backlog) {
            log::warn!("service={} {words}", self.name_of(listener.service));
        }
        let _ = self.save(state::Kind::Listener, number, &listener); // the next manager would see it for itself
        self.listeners.restore(number, listener);
    }

    /// A server that has begun to listen may have cut the queues of its sockets to a length of its own.
    pub(in crate::manager) fn restore_rooms(&self, id: ServiceId) {
        for wanted in self.wants(id) {
            let Some((number, listener)) = self.listeners.at(&wanted.address) else { continue };
            let Some((_, room)) = self.queue_at(&wanted.address) else { continue };
            let most = listener.clamped.unwrap_or(wanted.backlog);
            if listener.service != id || room >= most {
                continue;
            }
            let Some(fd) = self.kept.fd(Kind::Listener, number) else { continue };
            let (name, address) = (self.name_of(id), &wanted.address);
            match sockets::listen(fd, wanted.backlog) {
                Ok(()) => {
                    log::info!("service={name} {address}: it let {room} connections wait, {most} may again")
                }
                Err(error) => log::warn!("service={name} {address}: {}", reason(&error)),
            }
        }
    }

    /// How many connections wait at an address, and how many may; None where nothing waits, or nobody can tell.
    pub(in crate::manager) fn queue_at(&self, address: &Address) -> Option<(u32, u32)> {
        let kept = self.listeners.at(address);
        let kept = kept.map(|(number, _)| self.kept.fd(Kind::Listener, number));
        let fd = kept.unwrap_or_else(|| self.given_at(address)).filter(|_| address.has_queue())?;
        match address.spot {
            Spot::Inet { .. } => sockets::tcp_queue(fd).ok(),
            Spot::Path(_) | Spot::Abstract(_) => sockets::unix_queue(fd).ok(),
        }
    }

    /// Closes the sockets of a service.
    pub(in crate::manager) fn release_sockets(&mut self, id: ServiceId) {
        for number in self.listeners.of(id) {
            let released = self.listeners.release(number, &mut self.kept);
            self.remove_record(state::Kind::Listener, number);
            if let Some(Listener {
                address: Address { spot: Spot::Path(path), .. },
                file: Some(file),
                foreign: true,
                ..
            }) = released
            {
                self.remove_foreign(id, &path, file);
            }
        }
    }

    /// What is wrong with the sockets of a service although they are bound, for `status`.
    pub(in crate::manager) fn socket_problems(&self, id: ServiceId) -> Vec<String> {
        let mut problems = Vec::new();
        for wanted in self.wants(id) {
            let Some((_, listener)) = self.listeners.at(&wanted.address) else { continue };
            if listener.service != id {
                continue;
            }
            problems.extend(clamped_words(listener, wanted.backlog));
            // The kernel takes one more than it is told (sk_acceptq_is_full).
            if let Some((waiting, _)) =
                self.queue_at(&wanted.address).filter(|(waiting, most)| waiting > most)
            {
                problems.push(format!(
                    "{}: {waiting} connections wait and no other is let in: they are not taken as fast as they come\nhint: \
                     more workers or `instances`; a longer `backlog` only lets more of them wait",
                    wanted.address
                ));
            }
            if is_lost(listener) {
                problems.push(format!(
                    "{}: its file was removed or replaced: clients do not reach the service\nhint: `supervise restart \
                     {}` binds it anew",
                    wanted.address,
                    self.name_of(id),
                ));
            }
        }
        problems
    }
}

fn clamped_words(listener: &Listener, wanted: u32) -> Option<String> {
    let room = listener.clamped?;
    Some(format!(
        "{}: the kernel lets {room} connections wait, not {wanted}\nhint: `sysctl net.core.somaxconn={wanted}` lets more",
        listener.address
    ))
}

/// Whether what is at a socket's path is not its file. Where nobody can look it is not said to be.
pub fn is_lost(listener: &Listener) -> bool {
    match (&listener.address.spot, listener.file) {
        (Spot::Path(path), Some(identity)) if !listener.foreign => {
            sockets::identity_at(path).is_ok_and(|found| found != Some(identity))
        }
        (Spot::Path(_) | Spot::Inet { .. } | Spot::Abstract(_), _) => false,
    }
}

/// net.core.somaxconn: more than this never wait.
fn most_waiting() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// The room that the kernel gives a queue, where that is less than is wanted.
fn clamp(wanted: &Wanted) -> Option<u32> {
    most_waiting().filter(|most| wanted.address.has_queue() && *most < wanted.backlog)
}
