//! PURE. All services: who gets an event, who is due, whose state changed. Never looks into a phase.

use std::collections::{BTreeMap, BTreeSet};

use super::service::{Incarnation, Service, Spec, Step};
use super::{Action, Event, Mono, Run, ServiceId};

/// Every service with its numbers, and the one source of incarnations.
#[derive(Clone, Debug, Default)]
pub struct World {
    services: BTreeMap<ServiceId, Entry>,
    due: BTreeSet<(Mono, ServiceId)>,
    next_run: Run,
    closing: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    spec: Spec,
    service: Service,
    due: Option<Mono>,
}

impl World {
    /// No services; the first incarnation is 1.
    pub fn new() -> Self {
        Self { next_run: Run(1), ..Self::default() }
    }

    /// Adds a service: a new one, or one taken up again from the state.
    pub fn add(&mut self, id: ServiceId, spec: Spec, service: Service) {
        self.next_run = self.next_run.max(Run(service.last_run.0 + 1));
        self.remove(id);
        let due = service.deadline();
        if let Some(at) = due {
            self.due.insert((at, id));
        }
        self.services.insert(id, Entry { spec, service, due });
    }

    /// Takes a service out; it must have nothing left.
    pub fn remove(&mut self, id: ServiceId) -> Option<Service> {
        let entry = self.services.remove(&id)?;
        if let Some(at) = entry.due {
            self.due.remove(&(at, id));
        }
        Some(entry.service)
    }

    /// The next unused incarnation. The caller writes it down before it drops a removed service's state,
    /// which is the only other place that knows how far the ids have come.
    pub fn next_run(&self) -> Run {
        self.next_run
    }

    /// Uses no incarnation below this one, see [`World::next_run`].
    pub fn reserve(&mut self, next_run: Run) {
        self.next_run = self.next_run.max(next_run);
    }

    /// One service.
    pub fn get(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(&id).map(|entry| &entry.service)
    }

    /// The numbers of one service.
    pub fn spec(&self, id: ServiceId) -> Option<&Spec> {
        self.services.get(&id).map(|entry| &entry.spec)
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        self.services.iter().map(|(id, entry)| (*id, &entry.service))
    }

    /// One incarnation of a service.
    pub fn incarnation(&self, id: ServiceId, run: Run) -> Option<&Incarnation> {
        self.get(id)?.find(run).map(|(_, _, one)| one)
    }

    /// Every incarnation that there is, with its service.
    pub fn incarnations(&self) -> impl Iterator<Item = (ServiceId, &Incarnation)> {
        self.iter().flat_map(|(id, service)| service.incarnations().map(move |(_, _, one)| (id, one)))
    }

    /// Feeds one event to one service and appends its actions. True where its state has changed and must
    /// be written down before any of them is carried out. An unknown service takes nothing.
    pub fn step(&mut self, id: ServiceId, event: Event, now: Mono, out: &mut Vec<Action>) -> bool {
        let Some(entry) = self.services.get_mut(&id) else { return false };
        let before = entry.service.clone();
        let closing = self.closing;
        let mut step = Step { spec: &entry.spec, now, closing, next_run: &mut self.next_run, out };
        entry.service.step(event, &mut step);
        let due = entry.service.deadline();
        if due != entry.due {
            if let Some(at) = entry.due {
                self.due.remove(&(at, id));
            }
            if let Some(at) = due {
                self.due.insert((at, id));
            }
            entry.due = due;
        }
        entry.service != before
    }

    /// The earliest moment at which some service wants a `Tick`.
    pub fn deadline(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A service whose `Tick` is due.
    pub fn due(&self, now: Mono) -> Option<ServiceId> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id)
    }

    /// Says that the supervisor is stopping; the caller then feeds `Close` to every service. From here on
    /// nothing comes up: an operation that wants it is answered with `Closing`. The caller keeps this fact
    /// over its own death and says it again before the first event.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether the supervisor is stopping.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether it is stopping and nothing is left to stop.
    pub fn is_closed(&self) -> bool {
        self.closing && self.services.values().all(|entry| entry.service.is_down())
    }
}
