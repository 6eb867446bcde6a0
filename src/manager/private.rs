//! ROOT. The listener that an incarnation alone has, on which it is asked whether it answers, and where such sockets
//! have their files. Never kept, never asked from here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::Manager;
use crate::policy::{Run, ServiceId};
use crate::sys::{fds, files, sockets};

/// Connections that may wait: there is one probe at a time.
const BACKLOG: u32 = 8;

impl Manager {
    pub(super) fn probe_directory(&self) -> PathBuf {
        self.settings.runtime_dir.join("probe")
    }

    /// Where an incarnation alone listens.
    pub(super) fn probe_path(&self, run: Run) -> PathBuf {
        self.probe_directory().join(run.0.to_string())
    }

    /// Makes the listener that an incarnation alone has, where its unit wants one. Only its user and root can
    /// reach it.
    pub(super) fn make_private_listener(&self, id: ServiceId, run: Run) -> io::Result<Option<OwnedFd>> {
        let before = self.world.incarnation(id, run).is_some_and(|one| one.before.is_some());
        if before || self.unit_of(id).is_none_or(|unit| unit.private().is_none()) {
            return Ok(None);
        }
        let socket = self.bind_private(id, &run.0.to_string(), libc::SOCK_STREAM)?;
        let made = sockets::listen(socket.as_fd(), BACKLOG)
            .and_then(|()| fds::set_nonblocking(socket.as_fd(), false));
        if let Err(error) = made {
            self.discard_private(run);
            return Err(error);
        }
        Ok(Some(socket))
    }

    /// Binds a Unix socket that only the service's user and root can reach.
    pub(super) fn bind_private(&self, id: ServiceId, name: &str, kind: i32) -> io::Result<OwnedFd> {
        let owner =
            self.services.get(&id).and_then(|known| known.inputs.account.as_ref().map(|account| account.uid));
        files::make_directory(&self.probe_directory(), 0o711)?;
        let directory = files::open_directory(&self.probe_directory())?;
        let path = Path::new(name);
        if files::look(directory.as_fd(), path)?.is_some() {
            files::remove(directory.as_fd(), path)?;
        }
        let socket = sockets::bind_unix(&self.probe_directory().join(path), kind)?;
        if let Err(error) = files::own(directory.as_fd(), path, owner.filter(|_| self.user == 0), None, 0o600)
        {
            self.remove_private(name);
            return Err(error);
        }
        Ok(socket)
    }

    /// The start came to nothing.
    pub(super) fn discard_private(&self, run: Run) {
        self.remove_private(&run.0.to_string());
    }

    /// Removes the private sockets of incarnations that are gone.
    pub(super) fn sweep_probes(&self, living: &[Run]) {
        let Ok(entries) = std::fs::read_dir(self.probe_directory()) else { return };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let Some(name) = name.to_str() else { continue };
            // Those of a rehearsal have their place behind its number.
            let run = name.split('.').next().and_then(|number| number.parse().ok()).map(Run);
            if run.is_some_and(|run| !living.contains(&run)) {
                self.remove_private(name);
            }
        }
    }

    pub(super) fn remove_private(&self, name: &str) {
        if let Ok(directory) = files::open_directory(&self.probe_directory()) {
            let _ = files::remove(directory.as_fd(), Path::new(name));
        }
    }
}
