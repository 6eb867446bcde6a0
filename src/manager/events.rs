//! ROOT. Clients that watch: each change of a service to each of them. Never waits for one that is slow: he is
//! told how many changes he has missed.

use std::collections::{BTreeMap, BTreeSet};

use super::Manager;
use super::access::Caller;
use super::answer::Asker;
use super::control::{Room, SessionId};
use super::report::instant;
use crate::policy::ServiceId;
use crate::sys::clock;
use crate::wire::control::{Event, EventReply, Exit, OperationReply, Progress, Reply, State};
use crate::wire::names;
use crate::wire::verb::Right;

/// What of a service a watcher is told the changes of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How it is.
    pub state: State,
    /// Its generation.
    pub generation: u64,
    /// Its main process.
    pub pid: Option<i32>,
    /// How many times it was started again.
    pub restarts: u64,
    /// How its main process ended last.
    pub exit: Option<Exit>,
    /// What there is to say of it besides.
    pub text: Option<String>,
    /// What there is to say of the rehearsal of a generation: said once, when it is new.
    pub rehearsal: Option<String>,
}

/// One of them.
#[derive(Debug)]
struct Watcher {
    /// What he asked for.
    names: Vec<String>,
    caller: Caller,
    missed: u64,
    full: bool,
}

/// All of them, and what they were told last.
#[derive(Debug, Default)]
pub struct Watchers {
    table: BTreeMap<SessionId, Watcher>,
    seen: BTreeMap<ServiceId, Seen>,
}

impl Watchers {
    /// One has gone.
    pub fn leave(&mut self, session: SessionId) {
        self.table.remove(&session);
    }

    /// One has read what waited for him.
    pub fn has_room(&mut self, session: SessionId) {
        if let Some(watcher) = self.table.get_mut(&session) {
            watcher.full = false;
        }
    }

    /// Whether anybody watches: else nothing is compared.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl Manager {
    /// From now on this client is told.
    pub(super) fn subscribe(&mut self, asker: Asker<'_>, wanted: &[String]) {
        let Asker { session, caller } = asker;
        if let Err(refusal) = self.resolve(wanted, caller, Right::Status) {
            return self.refuse(session, refusal);
        }
        let all: Vec<ServiceId> = self.services.keys().copied().collect();
        self.see(&all);
        if self.reply(session, &Reply::Event(EventReply::default()), false) != Room::Gone {
            let watcher = Watcher { names: wanted.to_vec(), caller: caller.clone(), missed: 0, full: false };
            self.watchers.table.insert(session, watcher);
        }
    }

    /// Takes note of how services are before something happens to them.
    pub(super) fn see(&mut self, ids: &[ServiceId]) {
        for id in ids {
            if !self.watchers.seen.contains_key(id)
                && let Some(seen) = self.seen(*id)
            {
                self.watchers.seen.insert(*id, seen);
            }
        }
    }

    /// Tells whoever watches, or waits for an operation, what is new of a service.
    pub(super) fn tell_watchers(&mut self, id: ServiceId) {
        if self.watchers.is_empty() && self.waiting.is_empty() {
            self.watchers.seen.clear();
            return;
        }
        let Some(now) = self.seen(id) else { return };
        let before = self.watchers.seen.insert(id, now.clone());
        if before.as_ref() == Some(&now) {
            return;
        }
        let was = before.as_ref().map(|before| before.state).unwrap_or_default();
        if was != now.state {
            self.tell_waiting(id, now.state);
        }
        let ended = before.as_ref().is_none_or(|before| {
            before.exit != now.exit
                || before.restarts != now.restarts
                || (before.pid.is_some() && now.pid.is_none())
        });
        let rehearsal = before.as_ref().is_none_or(|before| before.rehearsal != now.rehearsal);
        let event = Event {
            at: instant(clock::realtime_ns()),
            service: self.name_of(id).to_owned(),
            state: now.state,
            was,
            generation: now.generation,
            pid: now.pid,
            exit: now.exit.filter(|_| ended && now.pid.is_none()),
            text: now.rehearsal.filter(|_| rehearsal).or(now.text),
        };
        let name = event.service.clone();
        let sessions: BTreeSet<SessionId> = self
            .watchers
            .table
            .iter()
            .filter(|(_, watcher)| {
                concerns(&watcher.names, &name) && self.right_on(id, &watcher.caller).is_some()
            })
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.tell(session, &event);
        }
    }

    /// A step, for those who wait for an operation; left out where they read too slowly.
    fn tell_waiting(&mut self, id: ServiceId, state: State) {
        let sessions = self.waiting.sessions_on(id);
        if sessions.is_empty() {
            return;
        }
        let progress = Progress { service: self.name_of(id).to_owned(), step: state.word().to_owned() };
        let step = Reply::Operation(OperationReply { services: Vec::new(), progress: Some(progress) });
        for session in sessions {
            self.reply(session, &step, false);
        }
    }

    fn tell(&mut self, session: SessionId, event: &Event) {
        let Some(watcher) = self.watchers.table.get_mut(&session) else { return };
        if watcher.full {
            watcher.missed += 1;
            return;
        }
        let missed = std::mem::take(&mut watcher.missed);
        let reply = Reply::Event(EventReply { event: Some(Box::new(event.clone())), missed });
        match self.reply(session, &reply, false) {
            Room::Now => {}
            Room::Later => {
                if let Some(watcher) = self.watchers.table.get_mut(&session) {
                    watcher.full = true;
                }
            }
            Room::Gone => self.watchers.leave(session),
        }
    }
}

/// Whether what a watcher asked for takes in this service: one that comes later counts as well.
fn concerns(wanted: &[String], name: &str) -> bool {
    wanted.is_empty()
        || wanted.iter().any(|one| one == name || (names::is_glob(one) && names::matches(one, name)))
}
