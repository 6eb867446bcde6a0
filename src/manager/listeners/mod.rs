//! ROOT. The listening sockets: bound once, kept by the keeper, put right before each hand-over, removed with
//! their unit. Never accepts.
//!
//! [`bind`] makes one, [`foreign`] has it made where root keeps away, [`given`] takes one that was given, [`repair`]
//! puts right what a holder did to one, [`holder`] finds who has an address that is wanted here, [`words`] is what is
//! said of one that cannot be had, [`guard`] sees files go, [`of_service`] is where units come in, [`stand_in`] makes what a rehearsal gets instead.

mod address;
mod bind;
mod foreign;
mod given;
mod guard;
pub mod holder;
mod of_service;
mod repair;
mod stand_in;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

pub use address::{Address, Carries, Spot};
pub use given::is_at;
pub use of_service::NotAll;
pub use stand_in::StandIn;
pub use words::{BoundAs, Holder, InTheWay, Unbound, not_given, refused};

use super::kept::Kept;
use crate::policy::ServiceId;
use crate::sys::{fds, sockets};
use crate::wire::keeper::Kind;

/// What a unit wants of a socket, its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub address: Address,
    /// The file's mode, for Unix sockets.
    pub mode: u32,
    /// The file's owner, where one is named.
    pub user: Option<u32>,
    /// The file's group, where one is named.
    pub group: Option<u32>,
    /// The name under which whoever started supervise gives it.
    pub inherit: Option<String>,
    /// How many connections may wait.
    pub backlog: u32,
    /// Options of an IP socket.
    pub options: sockets::Options,
}

/// One that is bound, as the state has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Whose.
    pub service: ServiceId,
    /// Where.
    pub address: Address,
    /// Device and inode of a Unix socket's file.
    pub file: Option<(u64, u64)>,
    /// The number that the kernel has for the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<u64>,
    /// The room that its queue has, where the kernel gives it less than is wanted.
    #[serde(default)]
    pub clamped: Option<u32>,
    /// Its file is where others than root can write: root keeps away from it.
    #[serde(default)]
    pub foreign: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Listeners {
    table: BTreeMap<u64, Listener>,
    /// Their files.
    pub guard: guard::Guard,
    /// What is bound with the rights of services.
    pub foreign: foreign::Foreign,
}

impl Listeners {
    /// Takes one up again, or a new one in.
    pub fn restore(&mut self, id: u64, listener: Listener) {
        let file = |listener: &Listener| match &listener.address.spot {
            Spot::Path(path) if !listener.foreign => listener.file.map(|file| (path.clone(), file)),
            Spot::Path(_) | Spot::Inet { .. } | Spot::Abstract(_) => None,
        };
        let now = file(&listener);
        let before = self.table.insert(id, listener).as_ref().and_then(file);
        if now != before
            && let Some((path, _)) = now
        {
            self.guard.watch(id, &path);
        }
    }

    /// The one at an address.
    pub fn at(&self, address: &Address) -> Option<(u64, &Listener)> {
        self.table.iter().find(|(_, one)| one.address == *address).map(|(id, one)| (*id, one))
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Listener> {
        self.table.get(&id)
    }

    /// Those of a service.
    pub fn of(&self, service: ServiceId) -> Vec<u64> {
        self.table.iter().filter(|(_, one)| one.service == service).map(|(id, _)| *id).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Listener)> {
        self.table.iter().map(|(id, one)| (*id, one))
    }

    /// Closes one, and removes a file that is still ours.
    pub fn release(&mut self, id: u64, kept: &mut Kept) -> Option<Listener> {
        let listener = self.table.remove(&id)?;
        self.guard.forget(id);
        if let (Spot::Path(path), Some(identity), false) =
            (&listener.address.spot, listener.file, listener.foreign)
        {
            sockets::remove_if_it_is(path, identity);
        }
        kept.close(Kind::Listener, id);
        kept.drop_lock(id);
        Some(listener)
    }
}

/// A copy of a kept socket, to be handed over.
pub fn copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fds::duplicate(fd)
}
