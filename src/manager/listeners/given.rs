//! ROOT. Sockets that the init above has given: its own for us, and those that it has stored over a restart. They
//! are taken by their address, so a unit needs no word for it. Never binds one.

use std::os::fd::{AsFd, BorrowedFd};

use super::bind::{self, Bound};
use super::repair::repair;
use super::{Spot, Wanted};
use crate::manager::Manager;
use crate::sys::sockets::{self, Local};
use crate::sys::{fds, files, walk};
use crate::wire::keeper::Kind;
use crate::wire::upward::stored_name;

impl Manager {
    /// One that is bound to the wanted address already, put right, in place of a new one.
    pub(super) fn take_given(&mut self, wanted: &Wanted) -> Option<Bound> {
        let given = self.kept.ids(Kind::Given).into_iter();
        let (id, fd) = given
            .filter_map(|id| Some((id, self.kept.fd(Kind::Given, id)?)))
            .find(|(_, fd)| is_at(*fd, wanted))?;
        let taken = self.take(fd, wanted);
        if let Err(why) = &taken {
            log::warn!("{}: what the init above gave is of no use: {why}", wanted.address);
        }
        self.kept.drop(Kind::Given, id);
        taken.ok()
    }

    fn take(&self, fd: BorrowedFd<'_>, wanted: &Wanted) -> Result<Bound, String> {
        let said = |error: std::io::Error| crate::sys::errno::reason(&error);
        let (mut file, mut lock) = (None, None);
        if let Spot::Path(path) = &wanted.address.spot {
            let (parent, name) = bind::parts(path).map_err(said)?;
            let walk::Walked::Directory(directory) = walk::to_directory(parent, self.user).map_err(said)?
            else {
                return Err("others can write its directory".to_owned());
            };
            let named = files::look(directory.as_fd(), name).map_err(said)?;
            let named = named.filter(|named| named.is_socket).ok_or("its file is gone")?;
            let locks = self.settings.runtime_dir.join("locks");
            lock = bind::lock(&locks, path).map_err(|_| "another supervisor holds its path")?;
            files::own(directory.as_fd(), name, wanted.user, wanted.group, wanted.mode).map_err(said)?;
            file = Some(named.identity);
        }
        repair(fd, wanted, true)?;
        Ok(Bound { socket: fds::duplicate(fd).map_err(said)?, file, lock })
    }

    /// Closes those that no unit wants.
    pub(in crate::manager) fn drop_given(&mut self) {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        for id in self.kept.ids(Kind::Given) {
            let name = names.split(':').nth(id as usize).unwrap_or("unknown").to_owned();
            self.kept.drop(Kind::Given, id);
            // After the death of a keeper alone the very same socket has come by the handover.
            if !self.listeners.iter().any(|(_, one)| stored_name(&one.address.to_string()) == name) {
                log::warn!("no unit listens where the socket `{name}` does that the init above gave: closed");
                self.above.forget(&name);
            }
        }
    }
}

fn is_at(fd: BorrowedFd<'_>, wanted: &Wanted) -> bool {
    let local = match &wanted.address.spot {
        Spot::Inet { address, dual } => Local::Inet { address: *address, dual: *dual },
        Spot::Path(path) => Local::Path(path.clone()),
        Spot::Abstract(name) => Local::Abstract(name.clone().into_bytes()),
    };
    sockets::local(fd).is_ok_and(|found| found == local)
        && sockets::kind(fd).is_ok_and(|kind| kind == Some(bind::kind(wanted.address.carries)))
}
