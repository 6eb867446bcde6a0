//! USER. The file of a Unix socket: what is at its path, with whose rights it would be bound there and given to whom
//! it is for, and whether those get at it. Never makes or removes one.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::finding::Findings;
use super::sockets::{Machine, tell};
use super::walk::{self, Barrier, Person, Want};
use crate::manager::listeners::{Address, BoundAs, InTheWay, holder, not_given, refused};
use crate::unit::{Directory, Socket, Unit};

/// Whom the file of a socket is for.
#[derive(Clone, Debug)]
pub struct ForWhom {
    /// Its owner.
    pub owner: u32,
    /// Its group, and the name of that, where the unit says one.
    pub group: Option<(u32, String)>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// The unit that wants it.
    pub unit: &'a Unit,
    /// Its socket.
    pub socket: &'a Socket,
    /// Where.
    pub path: &'a Path,
    /// Whom the service runs as; None where that is not known.
    pub person: Option<&'a Person>,
    /// Whose rights supervise has.
    pub runner: u32,
}

impl File<'_> {
    fn key(&self, name: &str) -> String {
        format!("socket.{}.{name}", self.socket.name)
    }

    /// Checks all but for whom it is.
    pub fn check(&self, machine: &Machine, for_whom: Option<&ForWhom>, out: &mut Findings) {
        let address = Address::of(self.socket);
        let Some(parent) = self.path.parent() else { return };
        let way = walk::way(parent, self.runner);
        if let Err(Barrier::Wrong(part, _)) = &way {
            let number = if part.is_symlink() { libc::ELOOP } else { libc::ENOTDIR };
            let error = io::Error::from_raw_os_error(number);
            let part = holder::no_directory(self.path, &error);
            let unbound = refused(&address, &error, self.rights(false), part.as_deref());
            return tell(self.unit, &self.key("listen"), &unbound, out);
        }
        if !self.is_free(machine, &address, for_whom, out) {
            return;
        }
        match way {
            Ok((there, foreign)) => self.check_rights(&address, &there, foreign.is_some(), for_whom, out),
            Err(Barrier::Unseen(part, why)) => {
                let what = format!("the way to `{}`: `{}`: {why}", self.path.display(), part.display());
                out.not_checked(self.unit, &what);
            }
            Err(_) => {}
        }
    }

    /// With whose rights it is bound.
    fn rights(&self, is_foreign: bool) -> BoundAs {
        match self.runner {
            0 if is_foreign || self.is_in_own_directory() => BoundAs::Service,
            0 => BoundAs::Root,
            _ => BoundAs::Runner,
        }
    }

    /// Whether its directory is made for the service, and given to it.
    fn is_in_own_directory(&self) -> bool {
        [(Directory::Runtime, "/run"), (Directory::State, "/var/lib"), (Directory::Cache, "/var/cache")]
            .into_iter()
            .filter_map(|(which, base)| Some(Path::new(base).join(self.unit.service.directory_of(which)?)))
            .any(|directory| self.path.starts_with(directory))
    }

    /// Whether nothing is at its path that would be in the way.
    fn is_free(
        &self,
        machine: &Machine,
        address: &Address,
        for_whom: Option<&ForWhom>,
        out: &mut Findings,
    ) -> bool {
        let Ok(data) = fs::symlink_metadata(self.path) else { return true };
        let key = self.key("listen");
        if !data.file_type().is_socket() {
            tell(self.unit, &key, &InTheWay::NoSocket.refuses(address), out);
            return false;
        }
        let inodes = machine.holders.sockets.at_path(self.path);
        if !inodes.is_empty() {
            machine.check_holders(self.unit, &key, address, inodes.iter().map(|(_, inode)| *inode), out);
            return false;
        }
        // A stale one of ours, or of whom it is for, is bound over.
        let named = self.socket.user.is_some().then(|| for_whom.map(|of| of.owner)).flatten();
        let (owner, by) = (data.uid(), self.person.map(|person| person.uid));
        let is_stale = owner == self.runner || Some(owner) == named || by.is_none() || by == Some(owner);
        if !is_stale {
            tell(self.unit, &key, &InTheWay::Strangers.refuses(address), out);
        }
        is_stale
    }

    /// Whether it can be made where it is to be, and given to whom it is for.
    fn check_rights(
        &self,
        address: &Address,
        there: &Path,
        is_foreign: bool,
        for_whom: Option<&ForWhom>,
        out: &mut Findings,
    ) {
        let rights = self.rights(is_foreign);
        let Some(person) = self.person.filter(|person| rights != BoundAs::Root && person.uid != 0) else {
            return;
        };
        let own = self.is_in_own_directory() && self.runner == 0;
        match person.reaches(there, Want::Make) {
            Ok(_) => {}
            Err(_) if own => {} // it is given to the service when it is made
            Err(Barrier::Closed { .. }) => {
                let error = io::Error::from_raw_os_error(libc::EACCES);
                return tell(self.unit, &self.key("listen"), &refused(address, &error, rights, None), out);
            }
            Err(Barrier::Unseen(part, why)) => {
                let what = format!("whether `{}` can write in `{}`: {why}", person.name, part.display());
                out.not_checked(self.unit, &what);
            }
            Err(_) => {}
        }
        let Some(for_whom) = for_whom else { return };
        let error = io::Error::from_raw_os_error(libc::EPERM);
        let unbound = not_given(address, &error, rights);
        if self.socket.user.is_some() && for_whom.owner != person.uid {
            tell(self.unit, &self.key("user"), &unbound, out);
        } else if for_whom.group.as_ref().is_some_and(|(id, _)| !person.groups.contains(id)) {
            tell(self.unit, &self.key("group"), &unbound, out);
        }
    }

    /// Whether those whom it is for get at it.
    pub fn check_clients(&self, proxies: &[Person], for_whom: &ForWhom, out: &mut Findings) {
        let Some(parent) = self.path.parent() else { return };
        let Some((id, name)) = &for_whom.group else {
            return self.check_proxies(proxies, parent, for_whom.owner, out);
        };
        // Nobody but by the group: whoever it is for.
        let member = Person { name: format!("group `{name}`"), uid: u32::MAX - 1, groups: vec![*id] };
        if self.socket.mode & 0o020 == 0 && self.socket.mode & 0o002 == 0 {
            out.warn(
                self.unit,
                &self.key("mode"),
                format!("with mode {:04o} group `{name}` cannot connect", self.socket.mode),
                "0660 lets the group in",
            );
        }
        match member.reaches(parent, Want::Enter) {
            Ok(_) | Err(Barrier::Missing(_) | Barrier::Wrong(..)) => {} // what is missing is made so that all can pass
            Err(Barrier::Unseen(part, why)) => {
                let what = format!("the way to `{}`: `{}`: {why}", self.path.display(), part.display());
                out.not_checked(self.unit, &what);
            }
            Err(barrier) => out.warn(
                self.unit,
                &self.key("listen"),
                format!("{} {barrier}, so it cannot connect", member.name),
                format!(
                    "`chmod o+x` it, or put the socket below /run: `/run/{}/{}.sock`",
                    self.unit.name, self.socket.name
                ),
            ),
        }
    }

    /// Whether any proxy of this machine could connect; told where a web server listens for one.
    fn check_proxies(&self, proxies: &[Person], parent: &Path, owner: u32, out: &mut Findings) {
        let (Some(first), false) = (proxies.first(), self.socket.mode & 0o002 != 0) else { return };
        let connects = |proxy: &&Person| {
            proxy.could_write(owner, u32::MAX, self.socket.mode)
                && matches!(
                    proxy.reaches(parent, Want::Enter),
                    Ok(_) | Err(Barrier::Missing(_) | Barrier::Wrong(..))
                )
        };
        if !proxies.iter().any(|proxy| connects(&proxy)) {
            out.warn(
                self.unit,
                &self.key("listen"),
                format!("`{}` cannot connect to it (mode {:04o}, no `group`)", first.name, self.socket.mode),
                format!("`group = \"{}\"` lets it, if it is the proxy in front", first.name),
            );
        }
    }
}
