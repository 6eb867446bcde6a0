//! ROOT. Sockets that whoever started supervise has given it (sd_listen_fds(3), Server::Starter): told by the name that
//! a unit gives for one, or else by their addresses; and those that an init has stored for us over a restart. Never
//! keeps one that no unit wants.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::bind::{self, Bound};
use super::repair::repair;
use super::{Address, Spot, Unbound, Wanted};
use crate::manager::Manager;
use crate::policy::ServiceId;
use crate::sys::errno::reason;
use crate::sys::sockets::{self, Local};
use crate::sys::{fds, files, walk};
use crate::wire::keeper::Kind;
use crate::wire::state::header;
use crate::wire::upward::stored_name;

impl Manager {
    /// What was given, with the names of LISTEN_FDNAMES where that is meant for us.
    fn given(&self) -> Vec<(u64, String)> {
        let pid = std::env::var("LISTEN_PID").ok().and_then(|text| text.parse().ok());
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> =
            if pid == Some(self.kept.keeper_pid) { names.split(':').collect() } else { Vec::new() };
        let name =
            |id: u64| usize::try_from(id).ok().and_then(|id| names.get(id)).copied().unwrap_or_default();
        self.kept.ids(Kind::Given).into_iter().map(|id| (id, name(id).to_owned())).collect()
    }

    /// The one that was given for an address, whether it is in use or not.
    pub(in crate::manager) fn given_at(&self, address: &Address) -> Option<BorrowedFd<'_>> {
        let all = self.kept.ids(Kind::Given).into_iter();
        all.filter_map(|given| self.kept.fd(Kind::Given, given)).find(|fd| is_at(*fd, address))
    }

    /// That sockets of a service go on listening when it is stopped, as they were given and are not ours to close.
    pub(in crate::manager) fn stays_open(&self, id: ServiceId) -> Option<String> {
        let unit = self.unit_of(id)?;
        let stay =
            self.wanted_sockets(unit).into_iter().filter(|(_, address)| self.given_at(address).is_some());
        let stay: Vec<String> = stay.map(|(name, address)| format!("`{name}` ({address})")).collect();
        let (what, goes) = match stay.len() {
            0 => return None,
            1 => ("its inherited socket", "stays"),
            _ => ("its inherited sockets", "stay"),
        };
        let all = stay.join(", ");
        Some(format!("{what} {all} {goes} open: clients are let into the queue, and wait for its next start"))
    }

    fn is_given_at(&self, given: u64, wanted: &Wanted) -> bool {
        self.kept.fd(Kind::Given, given).is_some_and(|fd| is_at(fd, &wanted.address))
    }

    /// Takes the socket that was given for this. None where there is none, and it is to be bound.
    pub(super) fn take_given(&mut self, id: ServiceId, wanted: &Wanted) -> Option<Result<u64, Unbound>> {
        let given = self.given();
        let named = given.iter().find(|(_, name)| wanted.inherit.as_ref() == Some(name));
        if let Some((one, name)) = named
            && !self.is_given_at(*one, wanted)
        {
            let reason =
                format!("the socket `{name}` that supervise was given is not of this address and type");
            let hint = "have `listen` and `type` say what the init above binds".to_owned();
            return Some(Err(Unbound { address: wanted.address.clone(), reason, hint: Some(hint) }));
        }
        let (one, name) = named.or_else(|| given.iter().find(|(one, _)| self.is_given_at(*one, wanted)))?;
        if *name != stored_name(&wanted.address.to_string()) {
            return Some(self.keep_given(id, wanted, *one));
        }
        // Our own again; where it is of no use there will be another.
        let taken = self.kept.fd(Kind::Given, *one).map(|fd| self.take_stored(fd, wanted));
        self.kept.drop(Kind::Given, *one);
        match taken? {
            Ok(bound) => {
                let number = self.store.get(header::NEXT_LISTENER) + 1;
                self.store.set(header::NEXT_LISTENER, number);
                Some(self.keep_socket(number, id, wanted, bound).map(|()| number))
            }
            Err(why) => {
                log::warn!("{}: what the init above stored is of no use: {why}", wanted.address);
                None
            }
        }
    }

    fn take_stored(&self, fd: BorrowedFd<'_>, wanted: &Wanted) -> Result<Bound, String> {
        let said = |error: std::io::Error| reason(&error);
        let (mut file, mut lock) = (None, None);
        if let Spot::Path(path) = &wanted.address.spot {
            let (parent, name) =
                path.parent().zip(path.file_name().map(Path::new)).ok_or("it has no directory")?;
            let walk::Walked::Directory(directory) = walk::to_directory(parent, self.user).map_err(said)?
            else {
                return Err("others can write its directory".to_owned());
            };
            let named = files::look(directory.as_fd(), name).map_err(said)?;
            let named = named.filter(|named| named.is_socket).ok_or("its file is gone")?;
            let taken = self.locks().take(directory.as_fd(), name.as_os_str());
            lock = taken.map_err(|_| "another supervisor holds its path")?;
            files::own(directory.as_fd(), name, wanted.user, wanted.group, wanted.mode).map_err(said)?;
            file = Some(named.identity);
        }
        repair(fd, wanted, true)?;
        Ok(Bound { socket: fds::duplicate(fd).map_err(said)?, file, lock, foreign: false })
    }

    fn keep_given(&mut self, id: ServiceId, wanted: &Wanted, given: u64) -> Result<u64, Unbound> {
        let unbound = |reason: String| Unbound {
            address: wanted.address.clone(),
            reason: format!("the socket that supervise was given: {reason}"),
            hint: None,
        };
        let fd = self.kept.fd(Kind::Given, given).ok_or_else(|| unbound("it is closed".to_owned()))?;
        repair(fd, wanted, true).map_err(unbound)?;
        let socket = fds::duplicate(fd).map_err(|error| unbound(reason(&error)))?;
        let number = self.store.get(header::NEXT_LISTENER) + 1;
        self.store.set(header::NEXT_LISTENER, number);
        // It stays that of whoever gave it, file and all, and is there for the next start.
        self.keep_socket(number, id, wanted, Bound { socket, file: None, lock: None, foreign: false })?;
        Ok(number)
    }

    /// Closes those that no unit wants.
    pub(in crate::manager) fn drop_given(&mut self) {
        let all: Vec<ServiceId> = self.services.keys().copied().collect();
        let wanted: Vec<Wanted> = all.into_iter().flat_map(|id| self.wants(id)).collect();
        for (given, name) in self.given() {
            // After the death of a keeper alone the very same socket has come by the handover.
            let is_here = self.listeners.iter().any(|(_, one)| stored_name(&one.address.to_string()) == name);
            let is_wanted =
                |one: &Wanted| one.inherit.as_ref() == Some(&name) || self.is_given_at(given, one);
            if !is_here && wanted.iter().any(is_wanted) {
                continue;
            }
            self.kept.drop(Kind::Given, given);
            if !is_here {
                log::warn!("no unit listens where the socket `{name}` does that the init above gave: closed");
                self.above.forget(&name);
            }
        }
    }
}

/// Whether a socket is one of this address and type.
pub fn is_at(fd: BorrowedFd<'_>, wanted: &Address) -> bool {
    let kind = sockets::kind(fd.as_fd()).ok().flatten();
    let local = sockets::local(fd.as_fd()).ok();
    let at = match &wanted.spot {
        Spot::Inet { address, dual } => Local::Inet { address: *address, dual: *dual },
        Spot::Path(path) => Local::Path(path.clone()),
        Spot::Abstract(name) => Local::Abstract(name.clone().into_bytes()),
    };
    kind == Some(bind::kind(wanted.carries)) && local == Some(at)
}
