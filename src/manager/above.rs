//! ROOT. What the init above is told: systemd's, by the socket of `NOTIFY_SOCKET`, or one that waits for a line on
//! a descriptor, as s6 does. Never waits long for it, never fails because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};

use super::Manager;
use crate::policy::Mono;
use crate::sys::errno::reason;
use crate::sys::link::Link;
use crate::sys::{fds, gate, notify};
use crate::wire::keeper::Kind;
use crate::wire::upward::{OURS, Said, stored_name, summary};

/// Milliseconds for which room in the queue of the init above is waited for.
const ROOM_MS: i32 = 1_000;

/// The init above, as far as it listens.
#[derive(Debug, Default)]
pub struct Above {
    socket: Option<Link>,
    status: String,
    stored: BTreeSet<String>,
    /// Half of the time within which it wants to hear of us.
    alive_ms: Option<u64>,
    alive_at: Option<Mono>,
    stores: bool,
    /// Something has changed since it was told.
    pub stale: bool,
}

impl Above {
    /// From the environment, which is the one that supervise was started with.
    pub fn of_environment(now: Mono) -> Self {
        let Some(address) = std::env::var("NOTIFY_SOCKET").ok().filter(|text| !text.is_empty()) else {
            return Self::default();
        };
        let socket = match notify::to_init(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET={address}: {}: the init above is told nothing", reason(&error));
                None
            }
        };
        let within_us = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        let alive_ms = within_us.filter(|us| *us > 0 && socket.is_some()).map(|us| (us / 2_000).max(1));
        let room = std::env::var("FDSTORE").ok().and_then(|text| text.parse::<u64>().ok());
        let stores = socket.is_some() && room.is_some_and(|room| room > 0);
        Self { socket, stores, alive_ms, alive_at: alive_ms.map(|_| now), stale: true, ..Self::default() }
    }

    /// Whether it keeps our sockets over a restart, as systemd says it does (from version 254 on, or our unit).
    pub fn stores(&self) -> bool {
        self.stores
    }

    /// Whether there is one that may start another keeper.
    pub fn listens(&self) -> bool {
        self.socket.is_some()
    }

    /// It need not keep this any longer, if it was for us.
    pub fn forget(&self, name: &str) {
        if name.starts_with(OURS) {
            self.say(&Said::Forget(name.to_owned()), None);
        }
    }

    /// When it next wants to hear of us.
    pub fn deadline(&self) -> Option<Mono> {
        self.alive_at
    }

    fn say(&self, said: &Said, fd: Option<BorrowedFd<'_>>) {
        let Some(socket) = &self.socket else { return };
        let (text, fd) = (said.encode(), fd.as_slice());
        let mut result = socket.send(text.as_bytes(), fd);
        if result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            result =
                gate::wait_writable(socket.as_fd(), ROOM_MS).and_then(|()| socket.send(text.as_bytes(), fd));
        }
        if let Err(error) = result {
            log::warn!("telling the init above `{}`: {}", text.trim_end(), reason(&error));
        }
    }
}

impl Manager {
    /// Sockets are bound and control answers. Also told by a manager that has taken up again: it changes nothing.
    pub(super) fn tell_ready(&mut self) {
        self.keep_above_up();
        self.above.say(&Said::Ready, None);
        if let Some(fd) = self.kept.fd(Kind::Announce, 0) {
            // Whoever read it has gone, or has its line.
            let _ = fds::write(fd, b"\n");
            self.kept.drop(Kind::Announce, 0);
        }
    }

    pub(super) fn tell_stopping(&mut self) {
        self.above.say(&Said::Stopping, None);
    }

    /// The last that it hears.
    pub(super) fn tell_end(&mut self, status: u8) {
        self.above.say(&Said::Exit(status), None);
    }

    /// Tells what has changed: how the services are, and which sockets outlive us.
    pub(super) fn keep_above_up(&mut self) {
        if self.above.alive_at.is_some_and(|at| self.now >= at) {
            self.above.say(&Said::Alive, None);
            self.above.alive_at = self.above.alive_ms.map(|ms| self.now.after(ms));
        }
        if !self.above.stale || self.above.socket.is_none() {
            return;
        }
        self.above.stale = false;
        let status = summary(self.states().into_iter());
        if status != self.above.status {
            self.above.say(&Said::Status(status.clone()), None);
            self.above.status = status;
        }
        // Under the init's own stop the sockets stay with it, so that `systemctl restart` refuses nobody.
        if self.world.is_closing() {
            return;
        }
        let held: BTreeMap<String, u64> =
            self.listeners.iter().map(|(id, one)| (stored_name(&one.address.to_string()), id)).collect();
        for (name, id) in &held {
            if !self.above.stored.contains(name)
                && let Some(fd) = self.kept.fd(Kind::Listener, *id)
            {
                self.above.say(&Said::Store(name.clone()), Some(fd));
            }
        }
        for name in self.above.stored.iter().filter(|name| !held.contains_key(*name)) {
            self.above.say(&Said::Forget(name.clone()), None);
        }
        self.above.stored = held.into_keys().collect();
    }
}
