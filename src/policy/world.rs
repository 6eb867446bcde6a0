//! PURE. All services: who gets an event, who is due, whose state changed, and who waits for whom. Never looks into a
//! phase.
//!
//! A service that is to come up *waits* until what it requires is ready, what it wants is ready or has failed, and what
//! it is to come after is so too where that is wanted at all. It waits once: what becomes of the others later does not
//! touch it. When everything stops, a service waits until all that need it are down. What wakes it is a `Tick`, due as
//! soon as another service has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::service::{Goal, Incarnation, Instance, Kind, Lack, Phase, Service, Spec, Step};
use super::{Action, Event, Mono, Run, ServiceId};

/// More services in a row than any chain of dependencies has.
const LONGEST_CHAIN: usize = 4096;

/// Every service with its numbers, and the one source of incarnations.
#[derive(Clone, Debug, Default)]
pub struct World {
    services: BTreeMap<ServiceId, Box<Entry>>,
    due: BTreeSet<(Mono, ServiceId)>,
    /// Those for whom something has changed that they wait for.
    woken: BTreeSet<ServiceId>,
    /// Those whose end is the end of all.
    essential: BTreeSet<ServiceId>,
    next_run: Run,
    closing: bool,
}

/// Which other services one depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// They have to be ready.
    pub requires: Vec<ServiceId>,
    /// They have to be ready or to have failed.
    pub wants: Vec<ServiceId>,
    /// The same, where somebody wants them.
    pub after: Vec<ServiceId>,
}

impl Needs {
    fn all(&self) -> impl Iterator<Item = ServiceId> {
        self.requires.iter().chain(&self.wants).chain(&self.after).copied()
    }
}

/// What of a service's state an event has changed. Each part is written down by itself, so that what a change costs does
/// not grow with the number of instances; all parts of one event are written at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is not of one of its instances.
    pub service: bool,
    /// The numbers of its instances that are others now, or are there no longer.
    pub instances: Vec<u16>,
}

impl Changes {
    /// Whether there are any.
    pub const fn any(&self) -> bool {
        self.service || !self.instances.is_empty()
    }

    /// What is different from `before`, whose instances are taken out for it.
    fn since(before: &mut Service, now: &mut Service) -> Self {
        let (old, new) = (std::mem::take(&mut before.instances), std::mem::take(&mut now.instances));
        let service = before != now;
        let most = old.len().max(new.len());
        let differs = |index: &usize| old.get(*index) != new.get(*index);
        let number = |index: usize| new.get(index).or_else(|| old.get(index)).map(|one| one.number);
        let instances = (0..most).filter(differs).filter_map(number).collect();
        now.instances = new;
        Self { service, instances }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    spec: Rc<Spec>,
    service: Service,
    due: Option<Mono>,
    needs: Needs,
    needed_by: Vec<ServiceId>,
}

impl Entry {
    fn is_ready(&self) -> bool {
        let ready = |one: &Incarnation| {
            let past = matches!(one.phase, Phase::Settling { .. } | Phase::Proving { .. } | Phase::Running);
            past && !one.dismissed
        };
        let instances = &self.service.instances;
        match self.spec.kind {
            Kind::Service => {
                let count = self.spec.count(self.service.scale);
                let all = |one: &Instance| one.current.as_deref().is_some_and(ready);
                self.service.goal == Goal::Up
                    && instances.len() >= count
                    && instances.iter().take(count).all(all)
            }
            // It may be doing it again by now.
            Kind::Task => self.service.last_end().is_some_and(|ended| {
                ended.before.is_none() && !ended.dismissed && self.spec.is_success(ended.end)
            }),
        }
    }
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
        if spec.essential {
            self.essential.insert(id);
        }
        // Units of a kind are alike, and their files often come one after the other.
        let like = self.services.values().next_back().filter(|last| *last.spec == spec);
        let spec = like.map_or_else(|| Rc::new(spec), |last| Rc::clone(&last.spec));
        let (needs, needed_by) = (Needs::default(), Vec::new());
        self.services.insert(id, Box::new(Entry { spec, service, due, needs, needed_by }));
    }

    /// Says what a service depends on. There are no cycles, and all of them have been added.
    pub fn depend(&mut self, id: ServiceId, needs: Needs) {
        for other in needs.all() {
            if let Some(entry) = self.services.get_mut(&other)
                && !entry.needed_by.contains(&id)
            {
                entry.needed_by.push(id);
                self.woken.insert(other);
            }
        }
        if let Some(entry) = self.services.get_mut(&id) {
            entry.needs = needs;
            self.woken.insert(id); // what has changed for those that an earlier manager left waiting is not known
        }
    }

    /// Takes a service out; it must have nothing left.
    pub fn remove(&mut self, id: ServiceId) -> Option<Service> {
        let entry = self.services.remove(&id)?;
        if let Some(at) = entry.due {
            self.due.remove(&(at, id));
        }
        self.woken.remove(&id);
        self.essential.remove(&id);
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
        self.services.get(&id).map(|entry| &*entry.spec)
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

    /// What is started with a service: everything that it requires or wants, and what that does, in the order in
    /// which it comes up. The caller feeds `Pull` to each before it feeds a start.
    pub fn pulls(&self, id: ServiceId) -> Vec<ServiceId> {
        let (mut order, mut todo) = (Vec::new(), vec![id]);
        while let Some(one) = todo.pop() {
            let Some(entry) = self.services.get(&one) else { continue };
            for other in entry.needs.requires.iter().chain(&entry.needs.wants) {
                if *other != id && !order.contains(other) {
                    order.push(*other);
                    todo.push(*other);
                }
            }
        }
        order.reverse();
        order
    }

    /// Who requires a service and is to be up.
    pub fn requirers(&self, id: ServiceId) -> Vec<ServiceId> {
        let Some(entry) = self.services.get(&id) else { return Vec::new() };
        let requires = |one: &&ServiceId| {
            let other = self.services.get(*one);
            other.is_some_and(|other| {
                other.needs.requires.contains(&id) && matches!(other.service.goal, Goal::Up)
            })
        };
        entry.needed_by.iter().filter(requires).copied().collect()
    }

    /// Who a service waits for, in the order in which its unit names them; nobody where it does not wait to come up.
    pub fn awaited(&self, id: ServiceId) -> Vec<ServiceId> {
        let Some(entry) = self.services.get(&id) else { return Vec::new() };
        if !entry.service.waits || entry.service.goal != Goal::Up {
            return Vec::new();
        }
        let ready = |other: &ServiceId| self.services.get(other).is_some_and(|other| other.is_ready());
        let needs = &entry.needs;
        let required = needs.requires.iter().filter(|other| !ready(other));
        let others = needs.wants.iter().chain(&needs.after);
        let others = others.filter(|other| !ready(other) && !self.is_out(**other, LONGEST_CHAIN));
        let mut all: Vec<ServiceId> = Vec::new();
        for other in required.chain(others) {
            if !all.contains(other) {
                all.push(*other);
            }
        }
        all
    }

    /// An operator's start has read other inputs than those of the generation of which nothing runs: they are a new one.
    pub fn renew(&mut self, id: ServiceId) -> Changes {
        let Some(entry) = self.services.get_mut(&id) else { return Changes::default() };
        let service = &mut entry.service;
        if service.incarnations().next().is_some() {
            return Changes::default();
        }
        service.newest = service.newest.saturating_add(1);
        service.generation = service.newest;
        (service.prepared, service.roll) = (0, None);
        Changes { service: true, instances: Vec::new() }
    }

    /// What keeps a service from coming up.
    pub fn lack(&self, id: ServiceId) -> Option<Lack> {
        self.lack_within(id, LONGEST_CHAIN)
    }

    fn lack_within(&self, id: ServiceId, most: usize) -> Option<Lack> {
        let needs = &self.services.get(&id)?.needs;
        for other in &needs.requires {
            let ready = self.services.get(other).is_some_and(|entry| entry.is_ready());
            if !ready {
                return Some(Lack { of: *other, failed: self.is_out(*other, most) });
            }
        }
        let undecided = |other: &ServiceId| {
            let ready = self.services.get(other).is_some_and(|entry| entry.is_ready());
            !ready && !self.is_out(*other, most)
        };
        let first = needs.wants.iter().chain(&needs.after).copied().find(undecided)?;
        Some(Lack { of: first, failed: false })
    }

    /// Whether it is not to be waited for: it has failed, nobody wants it, or what it needs is so.
    fn is_out(&self, id: ServiceId, most: usize) -> bool {
        let Some(entry) = self.services.get(&id) else { return true };
        let service = &entry.service;
        let stuck = || {
            let lack = most.checked_sub(1).and_then(|most| self.lack_within(id, most));
            service.waits && lack.is_some_and(|lack| lack.failed)
        };
        // One that ended with success and stays so is not ready either; a task that did is, and nobody asks.
        let ended = service.instances.iter().any(Instance::has_given_up);
        service.goal != Goal::Up || service.has_failed() || ended || stuck()
    }

    /// Whether something that needs this one is not down.
    fn is_needed(&self, id: ServiceId) -> bool {
        let alive = |other: &ServiceId| self.get(*other).is_some_and(|service| !service.is_down());
        self.services.get(&id).is_some_and(|entry| entry.needed_by.iter().any(alive))
    }

    /// Feeds one event to one service and appends its actions. What has changed of its state must be written
    /// down before any of them is carried out. An unknown service takes nothing.
    pub fn step(&mut self, id: ServiceId, event: Event, now: Mono, out: &mut Vec<Action>) -> Changes {
        self.woken.remove(&id);
        let (lacks, needed) = (self.lack(id), self.is_needed(id));
        let closing = self.closing;
        let Some(entry) = self.services.get_mut(&id) else { return Changes::default() };
        let mut before = entry.service.clone();
        let next_run = &mut self.next_run;
        let mut step = Step { spec: &entry.spec, now, closing, lacks, needed, next_run, out };
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
        let changes = Changes::since(&mut before, &mut entry.service);
        if changes.any() {
            self.wake_around(id);
        }
        changes
    }

    /// Something of a service has changed: whoever waits for that is looked at again.
    fn wake_around(&mut self, id: ServiceId) {
        let Some(entry) = self.services.get(&id) else { return };
        let mut todo: Vec<ServiceId> = entry.needed_by.iter().copied().chain(entry.needs.all()).collect();
        while let Some(other) = todo.pop() {
            let Some(entry) = self.services.get(&other) else { continue };
            // Who waits for one that waits learns through it whether that has failed.
            if entry.service.waits && self.woken.insert(other) {
                todo.extend(&entry.needed_by);
            }
        }
    }

    /// The earliest moment at which some service wants a `Tick`.
    pub fn deadline(&self) -> Option<Mono> {
        if !self.woken.is_empty() {
            return Some(Mono(0));
        }
        self.due.first().map(|(at, _)| *at)
    }

    /// A service whose `Tick` is due.
    pub fn due(&self, now: Mono) -> Option<ServiceId> {
        let timed = || self.due.first().filter(|(at, _)| *at <= now).map(|(_, id)| *id);
        self.woken.first().copied().or_else(timed)
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

    /// An essential service that has ended for good, and not because somebody stopped it: the first that did.
    pub fn fallen(&self) -> Option<ServiceId> {
        let given_up = |entry: &Entry| {
            let instances = &entry.service.instances;
            !instances.is_empty() && instances.iter().all(Instance::has_given_up)
        };
        let since = |entry: &Entry| entry.service.instances.iter().map(|one| one.rest_since).max();
        let essential = self.essential.iter().filter_map(|id| Some((*id, self.services.get(id)?)));
        let fallen = essential.filter(|(_, entry)| given_up(entry));
        fallen.min_by_key(|(_, entry)| since(entry)).map(|(id, _)| id)
    }
}
