//! ROOT. Notices that a socket's file is removed or replaced while it is served: clients come to nothing then, and
//! nobody else says so. Never mends it: that happens when a process gets the socket.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use super::{Spot, of_service};
use crate::manager::Manager;
use crate::policy::ServiceId;
use crate::sys::errno::reason;
use crate::sys::inotify::Inotify;

/// The files that are watched, and those that are known to be lost.
#[derive(Debug, Default)]
pub struct Guard {
    inotify: Option<Inotify>,
    watches: BTreeMap<i32, u64>,
    lost: BTreeSet<u64>,
}

impl Guard {
    /// What tells of changes, to be watched.
    pub fn raw(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd().as_raw_fd())
    }

    /// Watches the file of a socket in place of the one before. Where that cannot be, `status` still sees it.
    pub fn watch(&mut self, number: u64, path: &Path) {
        self.forget(number);
        if self.inotify.is_none() {
            match Inotify::new() {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(error) => log::warn!("watching the files of sockets: {}", reason(&error)),
            }
        }
        let Some(inotify) = &self.inotify else { return };
        match inotify.add(path) {
            Ok(watch) => drop(self.watches.insert(watch, number)),
            Err(error) => log::warn!("watching {}: {}", path.display(), reason(&error)),
        }
    }

    /// Watches it no longer.
    pub fn forget(&mut self, number: u64) {
        self.lost.remove(&number);
        let old: Vec<i32> =
            self.watches.iter().filter(|(_, one)| **one == number).map(|(watch, _)| *watch).collect();
        for watch in old {
            self.watches.remove(&watch);
            if let Some(inotify) = &self.inotify {
                inotify.remove(watch);
            }
        }
    }

    fn changed(&self) -> Vec<u64> {
        let changed = self.inotify.as_ref().map(Inotify::changed).unwrap_or_default();
        changed.iter().filter_map(|watch| self.watches.get(watch).copied()).collect()
    }
}

impl Manager {
    /// Looks at the files of which something has changed.
    pub(in crate::manager) fn look_at_files(&mut self) {
        for number in self.listeners.guard.changed() {
            let Some(listener) = self.listeners.get(number) else { continue };
            if of_service::is_lost(listener) && !self.listeners.guard.lost.contains(&number) {
                let (id, address) = (listener.service, listener.address.clone());
                log::warn!(
                    "service={} listener-lost {address}: its file was removed or replaced",
                    self.name_of(id)
                );
                self.listeners.guard.lost.insert(number);
                self.tell_watchers(id);
            }
        }
    }

    /// What those who watch are told of the sockets of a service. Costs no system call.
    pub(in crate::manager) fn lost_text(&self, id: ServiceId) -> Option<String> {
        let mut lost = self.listeners.guard.lost.iter().filter_map(|number| self.listeners.get(*number));
        let listener = lost.find(|listener| listener.service == id)?;
        let Spot::Path(path) = &listener.address.spot else { return None };
        Some(format!("listener-lost: {} was removed or replaced", path.display()))
    }
}
