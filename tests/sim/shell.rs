//! PURE. What the manager does around the policy: turns, writing down before acting, carrying out, recovery.
//! Every line of it is a place to die. Takes no decision of its own.

use std::collections::BTreeSet;

use supervise::policy::recover::{self, Found, Launched};
use supervise::policy::service::{Incarnation, Kind, Service};
use supervise::policy::world::{Changes, World};
use supervise::policy::{Action, End, Event, Exit, Run, ServiceId};

use super::kernel::{Finding, Place};
use super::sim::{Made, Manager, Ran, Sim, Stop, wrong};

/// The far end is gone, as write(2) puts it.
const EPIPE: i32 = 32;

/// The most bytes of one service's state.
const MOST_BYTES: usize = 16 * 1024;

impl Sim {
    /// One event: step, write, act.
    pub fn feed(&mut self, id: ServiceId, event: Event) -> Ran {
        self.point()?;
        let mut actions = std::mem::take(&mut self.actions);
        actions.clear();
        let before = self.service(id).cloned();
        let changes = self.manager.world.step(id, event, self.now, &mut actions);
        let changed = changes.any();
        self.note(|| format!("{id:?} {event:?} -> {actions:?}"));
        self.check_step(id, event, before, changed, &actions)?;
        if changed {
            self.write(id, &changes)?;
            self.oracle_takes(id, event);
            // One of no instances has come up with none.
            if self.service(id).is_some_and(|service| !service.waits && service.instances.is_empty()) {
                self.oracle.fresh.remove(&id);
            }
        }
        self.check_service(id)?;
        self.point()?;
        for action in &actions {
            self.carry_out(id, *action)?;
            self.point()?;
        }
        self.actions = actions;
        Ok(())
    }

    /// The state memfd takes in what has changed of the service; its bytes are made when somebody needs them, see `read`.
    pub fn write(&mut self, id: ServiceId, changes: &Changes) -> Ran {
        let Some(service) = self.service(id).cloned() else { return wrong("changed what is not there") };
        let old = self.store.snapshots.remove(&id).unwrap_or_default();
        let of = if changes.service { &service } else { &old };
        let mut written = of.without_instances();
        let is_new = |number: u16| changes.instances.contains(&number);
        let same = old.instances.iter().filter(|one| !is_new(one.number));
        let new = service.instances.iter().filter(|one| is_new(one.number));
        written.take_instances(same.chain(new).cloned().collect(), self.now);
        if written != service {
            return wrong(format!("{changes:?} is not all that has changed"));
        }
        self.store.snapshots.insert(id, written);
        Ok(())
    }

    /// A service as the next manager finds it: what is not in the bytes is lost.
    fn read(&self, written: &Service) -> Result<Service, Stop> {
        let lost = |why: serde_json::Error| Stop::Wrong(format!("a state that cannot be kept: {why}"));
        let text = serde_json::to_string(written).map_err(lost)?;
        let read: Service = serde_json::from_str(&text).map_err(lost)?;
        if read != *written {
            return Err(Stop::Wrong(format!("the snapshot says less than the state: {text}")));
        }
        if text.len() > MOST_BYTES {
            return Err(Stop::Wrong("a state without bounds".into()));
        }
        Ok(read)
    }

    fn carry_out(&mut self, id: ServiceId, action: Action) -> Ran {
        self.check_action(id, action)?;
        match action {
            Action::Spawn(run) => {
                let made = self.service(id).and_then(|service| {
                    let (instance, _, one) = service.find(run)?;
                    let Incarnation { generation, before, rehearsal, .. } = *one;
                    Some(Made { service: id, instance: instance.number, generation, before, rehearsal })
                });
                if let Some(made) = made {
                    self.oracle.made.insert(run, made);
                }
                self.oracle.fresh.remove(&id);
                let fate = self.commands.clone3(self.kernel.asked.len() as u32);
                self.kernel.request(run, id, fate);
                self.manager.in_flight.insert(run, id);
            }
            Action::Release(run) => {
                let opened = self.opened.entry(id).or_default();
                let before = self.oracle.made.get(&run).and_then(|made| made.before);
                if let Some(spec) = self.specs.get(&id) {
                    let ends = spec.kind == Kind::Task || before.is_some();
                    let life = self.commands.life(*opened, spec, ends);
                    *opened += 1;
                    self.kernel.open_gate(run, life, spec.watchdog_ms.filter(|_| before.is_none()));
                }
                self.manager.gates.remove(&run);
            }
            Action::Terminate(run) => {
                self.kernel.terminate(run);
                self.manager.signalled.push((id, run));
            }
            Action::Abort(run) => {
                self.kernel.abort(run);
                self.manager.signalled.push((id, run));
            }
            Action::Probe(run) => self.kernel.probe(run),
            Action::Reload(run) => self.manager.reloaded.push((id, run)),
            Action::Kill(run) => self.kernel.kill(run),
            Action::Clear(run) => {
                self.kernel.clear(run);
                self.manager.clearing.insert(run, id);
            }
            Action::Answer(operation) => self.answer(id, operation)?,
        }
        Ok(())
    }

    /// One turn: news of launches, exits, requests, deadlines.
    pub fn turn(&mut self) -> Ran {
        self.zygote_news()?;
        self.launch_news()?;
        self.ready_news()?;
        self.exit_news()?;
        self.requests()?;
        self.deadlines()
    }

    fn zygote_news(&mut self) -> Ran {
        while !self.kernel.reports.is_empty() {
            let report = self.kernel.reports.remove(0);
            // Only what this manager asked for; an older one's gate is shut.
            let Some(id) = self.manager.in_flight.remove(&report.run) else { continue };
            match report.made {
                Ok(pid) => {
                    self.manager.gates.insert(report.run);
                    self.point()?;
                    self.store.processes.insert(report.run, id);
                    self.point()?;
                    self.kernel.registered.insert(report.run, pid);
                    self.point()?;
                    self.feed(id, Event::Cloned(report.run))?;
                }
                Err(errno) => self.feed(id, Event::NotCloned(report.run, End::NoProcess(errno)))?,
            }
        }
        if self.kernel.zygote_ended {
            self.kernel.zygote_ended = false;
            // What is asked of the next zygote from here on is not among these.
            for (run, id) in std::mem::take(&mut self.manager.in_flight) {
                self.kernel.shut_gate(run);
                self.feed(id, Event::NotCloned(run, End::NoProcess(EPIPE)))?;
            }
        }
        Ok(())
    }

    fn unread_reports(&self) -> Vec<(Run, ServiceId, Launched)> {
        let known = self.store.processes.iter();
        known
            .filter(|(run, _)| !self.manager.reports_read.contains(run))
            .filter_map(|(run, id)| {
                let report = self.kernel.processes.get(run)?.report;
                (report != Launched::Pending).then_some((*run, *id, report))
            })
            .collect()
    }

    fn launch_news(&mut self) -> Ran {
        for (run, id, report) in self.unread_reports() {
            self.manager.reports_read.insert(run);
            match report {
                Launched::Pending => {}
                Launched::Executed => self.feed(id, Event::Executed(run))?,
                Launched::Failed(end) => self.feed(id, Event::NotExecuted(run, end))?,
                Launched::GateLost => {
                    self.manager.losing.insert(run, id);
                }
            }
        }
        for (id, run) in std::mem::take(&mut self.manager.signalled) {
            self.feed(id, Event::Signalled(run))?;
        }
        Ok(())
    }

    fn unread_words(&self) -> Vec<(Run, ServiceId)> {
        let known = self.store.processes.iter();
        known
            .filter(|(run, _)| !self.manager.words_read.contains(run))
            .filter(|(run, _)| self.kernel.processes.get(run).is_some_and(|process| process.said))
            .map(|(run, id)| (*run, *id))
            .collect()
    }

    /// What is said is taken out of its socket after it was written down, so a death repeats it.
    fn ready_news(&mut self) -> Ran {
        for (run, id) in self.unread_words() {
            self.feed(id, Event::Ready(run))?;
            self.manager.words_read.insert(run);
        }
        for (run, id) in self.unread_signs() {
            self.feed(id, Event::Alive(run))?;
            if let Some(process) = self.kernel.processes.get_mut(&run) {
                process.signs = 0;
            }
        }
        for (run, found) in std::mem::take(&mut self.kernel.findings) {
            let Some(id) = self.store.processes.get(&run).copied() else { continue };
            let event = match found {
                Finding::Well => Event::Healthy(run),
                Finding::Ill => Event::Unhealthy(run),
                Finding::Silent => Event::Unanswered(run),
                Finding::Unheard => Event::Unasked(run),
            };
            self.feed(id, event)?;
        }
        for (id, run) in std::mem::take(&mut self.manager.reloaded) {
            self.feed(id, Event::Reloaded(run))?;
        }
        Ok(())
    }

    fn unread_signs(&self) -> Vec<(Run, ServiceId)> {
        let known = self.store.processes.iter();
        known
            .filter(|(run, _)| self.kernel.processes.get(run).is_some_and(|process| process.signs > 0))
            .map(|(run, id)| (*run, *id))
            .collect()
    }

    /// What a service needs comes up with it.
    pub fn pull_for(&mut self, id: ServiceId) -> Ran {
        for other in self.manager.world.pulls(id) {
            self.feed(other, Event::Pull)?;
        }
        Ok(())
    }

    fn unread_exits(&self) -> Vec<(Run, ServiceId, Exit)> {
        let known = self.store.processes.iter();
        known
            .filter(|(run, _)| !self.manager.exits_read.contains(run))
            .filter(|(run, _)| !self.manager.losing.contains_key(run))
            .filter_map(|(run, id)| {
                let Place::Dead(_) = self.kernel.processes.get(run)?.place else { return None };
                // It can have ended before it was registered; then nobody has its status.
                Some((*run, *id, self.kernel.exits.get(run).copied().unwrap_or(Exit::Unknown)))
            })
            .collect()
    }

    fn empty_trees(&self) -> Vec<(Run, ServiceId, Event)> {
        let clearing = self.manager.clearing.iter().map(|(run, id)| (*run, *id, Event::Empty(*run)));
        let losing = self.manager.losing.iter().map(|(run, id)| (*run, *id, Event::Lost(*run)));
        clearing.chain(losing).filter(|(run, _, _)| self.kernel.is_empty(*run)).collect()
    }

    fn exit_news(&mut self) -> Ran {
        for (run, id, exit) in self.unread_exits() {
            self.manager.exits_read.insert(run);
            self.feed(id, Event::Gone(run, exit))?;
        }
        for (run, id, event) in self.empty_trees() {
            self.manager.clearing.remove(&run);
            self.manager.losing.remove(&run);
            self.feed(id, event)?;
            self.drop_registration(run)?;
        }
        Ok(())
    }

    fn drop_registration(&mut self, run: Run) -> Ran {
        self.point()?;
        self.kernel.registered.remove(&run);
        self.kernel.exits.remove(&run);
        self.point()?;
        self.store.processes.remove(&run);
        self.point()
    }

    fn requests(&mut self) -> Ran {
        while let Some(index) = self.queue.front().copied() {
            let client = self.clients[index];
            match self.service(client.service).and_then(|service| service.outcome(client.operation)) {
                Some(Some(outcome)) => self.told_again(index, outcome)?,
                known @ (Some(None) | None) => {
                    let off = self.specs.get(&client.service).is_some_and(|spec| spec.off);
                    if client.verb.starts() && !off && known.is_none() {
                        self.pull_for(client.service)?;
                    }
                    self.feed(client.service, client.event())?;
                }
            }
            self.queue.pop_front();
        }
        Ok(())
    }

    fn deadlines(&mut self) -> Ran {
        for _ in 0..1_000 {
            let Some(id) = self.manager.world.due(self.now) else { return Ok(()) };
            self.feed(id, Event::Tick)?;
        }
        wrong("ticks without end at one instant")
    }

    /// Whether another turn at this instant would find something.
    pub fn has_news(&self) -> bool {
        !self.kernel.reports.is_empty()
            || self.kernel.zygote_ended
            || !self.manager.signalled.is_empty()
            || !self.manager.reloaded.is_empty()
            || !self.kernel.findings.is_empty()
            || !self.unread_signs().is_empty()
            || !self.queue.is_empty()
            || self.manager.world.due(self.now).is_some()
            || self.kernel.next().is_some_and(|at| at <= self.now)
            || !self.unread_reports().is_empty()
            || !self.unread_words().is_empty()
            || !self.unread_exits().is_empty()
            || !self.empty_trees().is_empty()
    }

    /// The supervisor is to stop.
    pub fn close(&mut self) -> Ran {
        let ran = self.close_all();
        if let Err(Stop::Died) = ran {
            return self.crash();
        }
        ran
    }

    fn close_all(&mut self) -> Ran {
        self.store.closing = true;
        self.point()?;
        self.manager.world.close();
        for id in self.specs.keys().copied().collect::<Vec<_>>() {
            self.feed(id, Event::Close)?;
        }
        Ok(())
    }

    /// The one way to begin: take what is there, look at the world, go on.
    pub fn recover(&mut self) -> Ran {
        self.manager = Manager { world: World::new(), ..Manager::default() };
        if self.store.closing {
            self.manager.world.close(); // before the first event: nothing may come up any more
        }
        let mut fresh = Vec::new();
        for (id, spec) in self.specs.clone() {
            let service = match self.store.snapshots.get(&id) {
                Some(written) => self.read(written)?,
                None => {
                    fresh.push(id);
                    Service::new()
                }
            };
            self.manager.world.add(id, spec, service);
        }
        for (id, needs) in self.needs.clone() {
            self.manager.world.depend(id, needs);
        }
        let live: BTreeSet<Run> = self.manager.world.incarnations().map(|(_, one)| one.run).collect();
        for run in self.store.processes.keys().copied().collect::<Vec<_>>() {
            if !live.contains(&run) {
                self.check_left_behind(run)?;
                self.drop_registration(run)?;
            }
        }
        for id in self.specs.keys().copied().collect::<Vec<_>>() {
            self.take_up(id)?;
        }
        if self.store.closing {
            return self.close_all();
        }
        for id in fresh {
            if self.specs.get(&id).is_some_and(|spec| spec.start_at_boot) {
                self.pull_for(id)?;
            }
            self.feed(id, Event::Boot)?;
        }
        Ok(())
    }

    fn take_up(&mut self, id: ServiceId) -> Ran {
        let Some(service) = self.service(id).cloned() else { return Ok(()) };
        service.incarnations().try_for_each(|(_, _, one)| self.take_up_one(id, one))
    }

    fn take_up_one(&mut self, id: ServiceId, one: &Incarnation) -> Ran {
        let run = one.run;
        let process = self.kernel.processes.get(&run);
        let registered = self.kernel.registered.contains_key(&run);
        let dead = process.is_some_and(|process| !process.alive());
        let recorded = self.kernel.exits.get(&run).copied();
        let found = Found {
            registered,
            launched: process.map_or(Launched::Pending, |process| process.report),
            exited: dead.then(|| recorded.unwrap_or(Exit::Unknown)),
        };
        let missed = recover::missed(one, found);
        self.note(|| format!("{id:?} {:?} {found:?} -> {missed:?}", one.phase));
        if found.launched != Launched::Pending {
            self.manager.reports_read.insert(run);
        }
        if found.exited.is_some() {
            self.manager.exits_read.insert(run); // what is found is for `missed` to take in, or never
        }
        for event in missed.events {
            match event {
                // Said only when it is so, which at a shut gate is soon.
                Event::Lost(run) => drop(self.manager.losing.insert(run, id)),
                Event::Boot
                | Event::Start(_)
                | Event::Stop(_)
                | Event::Restart(_)
                | Event::RestartStopFirst(_)
                | Event::Hold(_)
                | Event::Reload(_)
                | Event::Scale(..)
                | Event::Pull
                | Event::Alive(_)
                | Event::Trigger(_)
                | Event::Watched(..)
                | Event::Healthy(_)
                | Event::Unhealthy(_)
                | Event::Unanswered(_)
                | Event::Unasked(_)
                | Event::Astray(_)
                | Event::Reloaded(_)
                | Event::NotReloaded(_)
                | Event::Unrehearsed(_)
                | Event::Close
                | Event::Cloned(_)
                | Event::NotCloned(..)
                | Event::Executed(_)
                | Event::Ready(_)
                | Event::Extended(..)
                | Event::Healed(_)
                | Event::NotExecuted(..)
                | Event::Signalled(_)
                | Event::Gone(..)
                | Event::Empty(_)
                | Event::Tick => self.feed(id, event)?,
            }
        }
        if let Some(now) = self.manager.world.incarnation(id, run).filter(|now| now.phase == one.phase) {
            let same = now.probe == one.probe && now.reload_until == one.reload_until;
            for action in missed.again {
                if !same && matches!(action, Action::Probe(_) | Action::Reload(_)) {
                    continue;
                }
                self.carry_out(id, action)?;
                self.point()?;
            }
        }
        Ok(())
    }
}
