//! ROOT. `FDSTORE=1`: descriptors that a service has kept for its next start, over its own end and over that of a
//! manager. Never read, never passed to another service or another user's.
//!
//! They belong to an instance: what is stored when an incarnation starts, of whichever of two, is what it gets, behind
//! its sockets. The record is written first and the keeper has the descriptor before the message leaves its socket; a
//! message that is read twice stores nothing twice. One is dropped when nobody is at its other end any more, when the
//! service says so, and when an operator stops it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Manager;
use super::inputs::Which;
use super::notices::notifies;
use crate::plan::MOST_SOCKETS;
use crate::policy::service::{Goal, Service};
use crate::policy::{Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::objects::{self, object};
use crate::sys::poller::{Interest, Poller};
use crate::unit::{Gate, Unit};
use crate::wire::keeper::Kind;
use crate::wire::state;

/// The most that are kept of one instance.
pub const MOST_STORED: usize = 32;

/// The name of those that get none, as sd_pid_notify_with_fds(3) has it.
pub const UNNAMED: &str = "stored";

/// What is written down of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    service: ServiceId,
    instance: u16,
    /// The user of the incarnation that gave it.
    uid: u32,
    name: String,
    /// It goes when nobody is at its other end.
    polled: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Stores {
    table: BTreeMap<u64, Stored>,
    /// Says which have lost their other end, and wakes for nothing else.
    hangups: Option<Poller>,
}

impl Stores {
    /// Those of an instance, in the order in which they were stored.
    pub fn of(&self, id: ServiceId, instance: u16) -> impl Iterator<Item = (u64, &str)> {
        let all = self.table.iter().filter(move |(_, one)| one.service == id && one.instance == instance);
        all.map(|(number, one)| (*number, one.name.as_str()))
    }

    /// How many there are of all instances of a service.
    pub fn count(&self, id: ServiceId) -> u64 {
        self.table.values().filter(|one| one.service == id).count() as u64
    }

    fn numbers(&self, which: impl Fn(&Stored) -> bool) -> Vec<u64> {
        self.table.iter().filter(|(_, one)| which(one)).map(|(number, _)| *number).collect()
    }
}

/// How many descriptors an instance of this unit may have stored. None where it has no notify socket, and where a
/// descriptor of a fixed number stands behind its sockets.
pub fn most_stored(unit: &Unit) -> usize {
    let passed = unit.sockets.len() + usize::from(unit.private().is_some());
    match unit.gate() {
        Gate::Line(_) => 0,
        _ if !notifies(unit) => 0,
        _ => MOST_STORED.min(MOST_SOCKETS.saturating_sub(passed)),
    }
}

/// Whether an incarnation has to do with what its instance has stored: what others hear of it is not for a rehearsal.
const fn has_store(which: Which) -> bool {
    which.before.is_none() && !which.rehearsal
}

impl Manager {
    /// Keeps what a service has sent, as far as there is room; what it sent twice is kept once.
    pub(super) fn store_brought(
        &mut self,
        id: ServiceId,
        run: Run,
        name: &str,
        polled: bool,
        brought: Vec<OwnedFd>,
        all: bool,
    ) {
        let (mut doomed, mut refused) = (Vec::new(), None);
        if !all {
            refused = Some(
                "of files, directories and devices none is kept; open them anew by their path".to_owned(),
            );
        }
        for fd in brought {
            match self.store_one(id, run, name, polled, fd) {
                Ok(()) => {}
                Err((why, fd)) => {
                    refused = why.or(refused);
                    doomed.push(fd);
                }
            }
        }
        objects::let_go(doomed);
        if let Some(why) = refused
            && self.notices.may_tell(run)
        {
            log::warn!("service={} run={} FDSTORE=1: not all is kept: {why}", self.name_of(id), run.0);
        }
    }

    /// One of them. Back it comes where it is not kept; with a reason, where there is something to say.
    fn store_one(
        &mut self,
        id: ServiceId,
        run: Run,
        name: &str,
        polled: bool,
        fd: OwnedFd,
    ) -> Result<(), (Option<String>, OwnedFd)> {
        let Some(which) = self.which(id, run).filter(|which| has_store(*which)) else {
            return Err((None, fd));
        };
        let Which { instance, generation, .. } = which;
        let account = self.inputs_of(id, generation).and_then(|inputs| inputs.account.as_ref());
        let Some(uid) = account.map(|account| account.uid) else { return Err((None, fd)) };
        let most = self.unit_of(id).map_or(0, most_stored);
        let there: Vec<u64> = self.stores.of(id, instance).map(|(number, _)| number).collect();
        let known = there.iter().filter_map(|number| self.kept.fd(Kind::Stored, *number));
        if known.into_iter().any(|known| objects::same(known, fd.as_fd())) {
            return Err((None, fd));
        }
        if there.len() >= most {
            return Err((Some(format!("an instance may have {most} stored")), fd));
        }
        if self.stores.table.len() >= self.kept.most_foreign() {
            return Err((Some("services have as many stored as there is room for".to_owned()), fd));
        }
        let Ok(Some(kind)) = object(fd.as_fd()) else { return Err((None, fd)) };
        let number = self.stores.table.last_key_value().map_or(1, |(last, _)| last + 1);
        let polled = polled && kind.has_other_end();
        let stored = Stored { service: id, instance, uid, name: name.to_owned(), polled };
        if !self.save(state::Kind::Stored, number, &stored) {
            return Err((Some("there is no room for it in the state".to_owned()), fd));
        }
        if let Err((error, fd)) = self.kept.put_now(Kind::Stored, number, fd) {
            self.remove_record(state::Kind::Stored, number);
            return Err((Some(reason(&error)), fd));
        }
        self.stores.table.insert(number, stored);
        if polled {
            self.watch_stored(number);
        }
        Ok(())
    }

    /// `FDSTOREREMOVE=1`: those of this name are not wanted any longer.
    pub(super) fn remove_stored(&mut self, id: ServiceId, run: Run, name: &str) {
        let Some(which) = self.which(id, run).filter(|which| has_store(*which)) else { return };
        let instance = which.instance;
        self.drop_stored(|one| one.service == id && one.instance == instance && one.name == name);
    }

    /// Those of a service that are of no use to it any more: it was stopped, or has fewer instances, or another user.
    pub(super) fn tend_stored(&mut self, id: ServiceId) {
        if self.stores.table.is_empty() {
            return;
        }
        let Some(service) = self.world.get(id) else { return self.drop_stored(|one| one.service == id) };
        let stopped = service.is_down() && service.goal == Goal::Down;
        let instances: Vec<u16> = service.instances.iter().map(|instance| instance.number).collect();
        self.drop_stored(|one| one.service == id && (stopped || !instances.contains(&one.instance)));
    }

    /// What an incarnation gets that is to start: of another user's nothing.
    pub(super) fn stored_for(&mut self, id: ServiceId, which: Which) -> Vec<u64> {
        if !has_store(which) {
            return Vec::new();
        }
        let Which { instance, generation, .. } = which;
        let account = self.inputs_of(id, generation).and_then(|inputs| inputs.account.as_ref());
        let uid = account.map(|account| account.uid);
        self.drop_stored(|one| one.service == id && one.instance == instance && Some(one.uid) != uid);
        self.stores.of(id, instance).map(|(number, _)| number).collect()
    }

    /// Their names.
    pub(super) fn stored_names(&self, id: ServiceId, which: Which) -> Vec<String> {
        let all = self.stores.of(id, which.instance).filter(|_| has_store(which));
        all.map(|(_, name)| name.to_owned()).collect()
    }

    /// One of those that this instance is to get cannot be sent to it, and which one is not known.
    pub(super) fn give_stored_up(&mut self, id: ServiceId, instance: u16) {
        log::warn!(
            "service={} instance={instance} stored descriptors cannot be passed: dropped",
            self.name_of(id)
        );
        self.drop_stored(|one| one.service == id && one.instance == instance);
    }

    fn drop_stored(&mut self, which: impl Fn(&Stored) -> bool) {
        for number in self.stores.numbers(which) {
            self.drop_stored_one(number);
        }
    }

    /// By its number: others may have the same written down of them.
    fn drop_stored_one(&mut self, number: u64) {
        self.stores.table.remove(&number);
        if let (Some(hangups), Some(fd)) = (&self.stores.hangups, self.kept.fd(Kind::Stored, number)) {
            let _ = hangups.remove(fd);
        }
        self.remove_record(state::Kind::Stored, number);
        self.kept.bury(Kind::Stored, number);
    }

    fn watch_stored(&mut self, number: u64) {
        let watched =
            self.hangups().and_then(|()| match (&self.stores.hangups, self.kept.fd(Kind::Stored, number)) {
                (Some(hangups), Some(fd)) => hangups.add(fd, number, Interest::HangUp),
                (Some(_) | None, _) => Ok(()),
            });
        match watched {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {} // nothing to wait for
            Err(error) => log::warn!("watching a stored descriptor: {}", reason(&error)),
        }
    }

    /// Makes what says who has lost his other end, with the first that is watched.
    fn hangups(&mut self) -> io::Result<()> {
        if self.stores.hangups.is_none() {
            let hangups = Poller::new()?;
            self.watch_stores(hangups.as_raw_fd())?;
            self.stores.hangups = Some(hangups);
        }
        Ok(())
    }

    /// Drops those that have lost their other end.
    pub(super) fn look_at_stores(&mut self) {
        loop {
            let Some(hangups) = &mut self.stores.hangups else { return };
            let waited = hangups.wait(Some(Duration::ZERO));
            let lost: Vec<u64> = hangups.ready().filter(|one| one.hung_up).map(|one| one.token).collect();
            if waited.is_err() || lost.is_empty() {
                return;
            }
            for number in lost {
                let still =
                    self.kept.fd(Kind::Stored, number).is_some_and(|fd| objects::has_lost_other_end(&fd));
                if still {
                    self.tell_lost(number);
                    self.drop_stored_one(number);
                }
            }
        }
    }

    /// A line about one that has lost its other end, where its instance has not had many: it may store the next at once.
    fn tell_lost(&mut self, number: u64) {
        let Some(one) = self.stores.table.get(&number) else { return };
        let (id, instance) = (one.service, one.instance);
        let all = self.world.get(id).into_iter().flat_map(Service::incarnations);
        let run = all.filter(|(its, _, _)| its.number == instance).map(|(_, _, one)| one.run).max();
        if run.is_some_and(|run| !self.notices.may_tell(run)) {
            return;
        }
        if let Some(one) = self.stores.table.get(&number) {
            let (name, what) = (self.name_of(id), &one.name);
            log::info!("service={name} stored descriptor `{what}`: its other end is gone");
        }
    }

    /// Takes up what an earlier manager wrote down and the keeper has.
    pub(super) fn restore_stored(&mut self) {
        for (number, body) in self.store.bodies(state::Kind::Stored) {
            match serde_json::from_slice::<Stored>(&body) {
                Ok(stored) if self.kept.fd(Kind::Stored, number).is_some() => {
                    let polled = stored.polled;
                    self.stores.table.insert(number, stored);
                    if polled {
                        self.watch_stored(number);
                    }
                }
                Ok(_) | Err(_) => self.remove_record(state::Kind::Stored, number),
            }
        }
        for number in self.kept.ids(Kind::Stored) {
            if !self.stores.table.contains_key(&number) {
                self.kept.bury(Kind::Stored, number);
            }
        }
    }
}
