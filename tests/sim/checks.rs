//! PURE. The promises, each asked after every event, action or turn. Never changes what it judges.

use std::collections::BTreeSet;

use supervise::policy::service::{
    Goal, KEEP_OUTCOME_MS, Kind, MOST_OPERATIONS, Phase, Readiness, Service, Want,
};
use supervise::policy::{Action, Event, Exit, Operation, Outcome, Run, ServiceId};

use super::kernel::Place;
use super::sim::{Client, Ran, Sim, Verb, wrong};

/// Whether the incarnation of this phase may have its gate open.
fn is_past_gate(phase: Phase) -> bool {
    match phase {
        Phase::Launching { .. }
        | Phase::Preparing { .. }
        | Phase::Starting { .. }
        | Phase::Settling { .. }
        | Phase::Running { .. } => true,
        Phase::Stopped
        | Phase::Done
        | Phase::Failed
        | Phase::BackingOff { .. }
        | Phase::Cloning { .. }
        | Phase::Stopping { .. }
        | Phase::Clearing { .. } => false,
    }
}

impl Sim {
    /// What one step may do at all.
    pub fn check_step(
        &self,
        id: ServiceId,
        event: Event,
        before: Option<Service>,
        changed: bool,
        actions: &[Action],
    ) -> Ran {
        let (Some(before), Some(after)) = (before, self.service(id)) else {
            return wrong("an event for a service that is not there");
        };
        if !actions.is_empty() && !changed {
            return wrong(format!("{event:?}: actions {actions:?} that are not written down"));
        }
        match event {
            Event::Lost(_) => {
                let same = before.failures == after.failures
                    && before.shortages == after.shortages
                    && before.restarts == after.restarts
                    && before.last_end == after.last_end;
                if !same {
                    return wrong("our own death counted as the service's failure");
                }
            }
            Event::Tick => {
                let early = before.deadline().is_none_or(|at| at > self.now);
                if early && (before.phase != after.phase || !actions.is_empty()) {
                    return wrong("an early tick did something");
                }
                if !early && after.deadline().is_some_and(|at| at <= self.now) {
                    return wrong("a tick that leaves its deadline in the past");
                }
            }
            Event::Boot
            | Event::Start(_)
            | Event::Stop(_)
            | Event::Restart(_)
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
            | Event::Empty(_) => {}
        }
        Ok(())
    }

    /// What an outsider learns from an event that was written down.
    pub fn oracle_takes(&mut self, id: ServiceId, event: Event) {
        match event {
            Event::Boot => {
                let at_boot = self.specs.get(&id).is_some_and(|spec| spec.start_at_boot);
                self.oracle.wanted.insert(id, at_boot);
            }
            Event::Start(operation) | Event::Restart(operation) => self.oracle_asked(id, operation, true),
            Event::Stop(operation) => self.oracle_asked(id, operation, false),
            Event::Close => {
                self.oracle.wanted.insert(id, false);
            }
            Event::Gone(run, exit) => {
                self.oracle.gone.insert(run);
                if let (Exit::Code(0), Some((id, generation, before))) = (exit, self.oracle.before.get(&run))
                {
                    self.oracle.prepared.insert((*id, *generation, before.index));
                }
            }
            Event::Empty(run) | Event::Lost(run) | Event::NotCloned(run, _) => {
                self.oracle.gone.insert(run);
                self.oracle.finished.insert(run);
            }
            Event::Cloned(_)
            | Event::Executed(_)
            | Event::Ready(_)
            | Event::Extended(..)
            | Event::Healed(_)
            | Event::NotExecuted(..)
            | Event::Signalled(_)
            | Event::Tick => {}
        }
    }

    fn oracle_asked(&mut self, id: ServiceId, operation: Operation, up: bool) {
        if self.oracle.taken.contains(&operation) {
            return;
        }
        self.oracle.taken.push(operation);
        let newest = self.kernel.asked.last().copied().unwrap_or(Run(0));
        if let Some(client) = self.clients.iter_mut().find(|client| client.operation == operation) {
            client.taken = Some(newest);
        }
        if !self.store.closing || !up {
            self.oracle.wanted.insert(id, up);
        }
    }

    fn is_wanted(&self, id: ServiceId) -> bool {
        self.oracle.wanted.get(&id).copied().unwrap_or(false)
    }

    /// Whether a service's state makes sense in itself.
    pub fn check_service(&self, id: ServiceId) -> Ran {
        let Some(service) = self.service(id) else { return wrong("a service is lost") };
        let up = service.goal == Goal::Up;
        if up != self.is_wanted(id) {
            return wrong(format!("{id:?} has goal {:?}, which nobody asked for", service.goal));
        }
        if !up && (is_past_gate(service.phase) || matches!(service.phase, Phase::BackingOff { .. })) {
            return wrong(format!("{id:?} is to be down and is in {:?}", service.phase));
        }
        if up && service.phase == Phase::Stopped {
            return wrong(format!("{id:?} is to be up and rests"));
        }
        if service.asked.len() > MOST_OPERATIONS + 1 {
            return wrong("more operations than the limit");
        }
        let old = |at| self.now.since(at) >= KEEP_OUTCOME_MS;
        if service.asked.iter().any(|asked| asked.outcome.is_some_and(|(_, at)| old(at))) {
            return wrong("an outcome is kept longer than it is promised");
        }
        for asked in service.asked.iter().filter(|asked| asked.outcome.is_none()) {
            let can = match asked.want {
                Want::Gone => !up && !service.is_down(),
                Want::Proven(floor) => {
                    let reachable = floor.0 <= service.last_run.0 + 1;
                    let being = is_past_gate(service.phase) && service.last_run < floor;
                    let proven = matches!(service.phase, Phase::Running { .. }) && !self.is_task(id);
                    up && !service.is_down() && reachable && !being && !proven
                }
            };
            if !can {
                return wrong(format!("{asked:?} can never be answered in {:?}", service.phase));
            }
        }
        self.check_ready(id, service)?;
        let earliest = self.manager.world.iter().filter_map(|(_, service)| service.deadline()).min();
        if self.manager.world.deadline() != earliest {
            return wrong("the world's deadline is not its services' earliest");
        }
        Ok(())
    }

    fn is_task(&self, id: ServiceId) -> bool {
        self.specs.get(&id).is_some_and(|spec| spec.kind == Kind::Task)
    }

    /// Whether the newest incarnation of a task that has ended did so with success; `policy = "always"` may have
    /// asked for another in the same step.
    fn has_succeeded(&self, id: ServiceId, service: &Service) -> bool {
        let ended = service.run().is_none() || matches!(service.phase, Phase::Cloning { .. });
        ended && self.has_ended_well(id, service)
    }

    fn has_ended_well(&self, id: ServiceId, service: &Service) -> bool {
        let success = |end| self.specs.get(&id).is_some_and(|spec| spec.is_success(end));
        service.last_end.is_some_and(success)
    }

    /// Nobody counts as ready who is to say so and has not.
    fn check_ready(&self, id: ServiceId, service: &Service) -> Ran {
        let (Phase::Settling { run, .. } | Phase::Running { run }) = service.phase else { return Ok(()) };
        let told = self.specs.get(&id).is_some_and(|spec| spec.ready == Readiness::Told) && !self.is_task(id);
        let said = self.kernel.processes.get(&run).is_none_or(|process| process.said);
        if told && !said { wrong(format!("{run:?} counts as ready and never said so")) } else { Ok(()) }
    }

    /// The commands before the start: each succeeds once in a generation, and all of them before the first start.
    fn check_prepared(&self, id: ServiceId, run: Run) -> Ran {
        let (Some(service), Some(spec)) = (self.service(id), self.specs.get(&id)) else { return Ok(()) };
        let done = |index| self.oracle.prepared.contains(&(id, service.generation, index));
        match service.before {
            Some(before) if done(before.index) => wrong(format!("{run:?} repeats {before:?}")),
            Some(before) if !(0..before.index).all(done) => {
                wrong(format!("{run:?} comes too early: {before:?}"))
            }
            None if !(0..spec.before).all(done) => wrong(format!("{run:?} starts before all is prepared")),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether an action may be carried out, as the kernel stands.
    pub fn check_action(&self, id: ServiceId, action: Action) -> Ran {
        let seen = |run: Run| self.kernel.processes.get(&run).is_some_and(|process| process.service == id);
        match action {
            Action::Spawn(run) => {
                if !self.is_wanted(id) {
                    return wrong(format!("{id:?} starts by itself"));
                }
                if self.kernel.asked.last().is_some_and(|newest| *newest >= run) {
                    return wrong(format!("{run:?} is not new"));
                }
                if self.kernel.processes.values().any(|process| process.service == id && process.matters()) {
                    return wrong(format!("{run:?} beside what is left of an older one"));
                }
            }
            Action::Release(run) => {
                let mut trees = self.kernel.processes.iter().filter(|(_, process)| process.service == id);
                if trees.any(|(other, process)| *other != run && process.opened && !process.empty()) {
                    return wrong(format!("{run:?} executes beside another"));
                }
                let service = self.service(id);
                if service.is_none_or(|service| service.run_generation != service.generation) {
                    return wrong(format!("{run:?} is of an older generation"));
                }
                self.check_prepared(id, run)?;
                if !self.manager.gates.contains(&run) {
                    return wrong(format!("{run:?} is let through a gate that is open or lost"));
                }
                if !self.is_wanted(id) {
                    return wrong(format!("{run:?} is let through though nobody wants it"));
                }
                if !self.kernel.registered.contains_key(&run) || !self.store.processes.contains_key(&run) {
                    return wrong(format!("{run:?} is let through before it is written down"));
                }
            }
            Action::Terminate(run) => {
                if !seen(run) || self.oracle.gone.contains(&run) {
                    return wrong(format!("the stop signal to {run:?}, which has ended"));
                }
            }
            Action::Kill(run) => {
                if !seen(run) || self.oracle.finished.contains(&run) {
                    return wrong(format!("KILL to {run:?}, of which nothing is left"));
                }
            }
            Action::Clear(run) => {
                if !self.oracle.gone.contains(&run) || self.oracle.finished.contains(&run) {
                    return wrong(format!("{run:?} is cleared at the wrong time"));
                }
            }
            Action::Answer(_) => {}
        }
        Ok(())
    }

    /// `Action::Answer` reaches its client.
    pub fn answer(&mut self, id: ServiceId, operation: Operation) -> Ran {
        let outcome = self.service(id).and_then(|service| service.outcome(operation)).flatten();
        let Some(outcome) = outcome else { return wrong(format!("{operation:?} is answered with nothing")) };
        let Some(index) = self.clients.iter().position(|client| client.operation == operation) else {
            return wrong(format!("{operation:?} was asked by nobody"));
        };
        if self.clients[index].answered.is_some() {
            return wrong(format!("{operation:?} is answered twice"));
        }
        self.check_truth(self.clients[index], outcome)?;
        self.clients[index].answered = Some(outcome);
        Ok(())
    }

    /// A client that asked again is told what is known.
    pub fn told_again(&mut self, index: usize, outcome: Outcome) -> Ran {
        match self.clients[index].answered {
            Some(before) if before != outcome => wrong(format!("first {before:?}, then {outcome:?}")),
            Some(_) => Ok(()),
            None => {
                self.clients[index].answered = Some(outcome);
                Ok(())
            }
        }
    }

    fn check_truth(&self, client: Client, outcome: Outcome) -> Ran {
        let Some(service) = self.service(client.service) else { return wrong("a service is lost") };
        let running = match service.phase {
            Phase::Running { run } => {
                self.kernel.processes.get(&run).filter(|process| process.opened).map(|_| run)
            }
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => None,
        };
        let nothing = !self
            .kernel
            .processes
            .values()
            .any(|process| process.service == client.service && process.matters());
        let task = self.is_task(client.service);
        let succeeded = task && self.has_succeeded(client.service, service);
        let holds = match (client.verb, outcome) {
            (Verb::Start, Outcome::Done) if task => succeeded,
            (Verb::Start, Outcome::Already) if task => false,
            (Verb::Restart, Outcome::Done) if task => succeeded && Some(service.last_run) > client.taken,
            (Verb::Start, Outcome::Done | Outcome::Already) => running.is_some(),
            (Verb::Restart, Outcome::Done) => running > client.taken,
            (Verb::Restart, Outcome::Already) => false,
            (Verb::Stop, Outcome::Done | Outcome::Already) => service.is_down() && nothing,
            (Verb::Start | Verb::Restart, Outcome::Ended(end)) => service.last_end == Some(end),
            (Verb::Stop, Outcome::Ended(_) | Outcome::Closing) => false,
            (Verb::Start | Verb::Restart, Outcome::Closing) => self.store.closing,
            (_, Outcome::Superseded) => self.is_superseded(client),
        };
        if holds { Ok(()) } else { wrong(format!("{outcome:?} for {client:?} is not true")) }
    }

    fn is_superseded(&self, client: Client) -> bool {
        let later = self.oracle.taken.iter().skip_while(|operation| **operation != client.operation).skip(1);
        let later: BTreeSet<Operation> = later.copied().collect();
        let mut others = self.clients.iter().filter(|other| other.service == client.service);
        later.len() >= MOST_OPERATIONS
            || others.any(|other| {
                later.contains(&other.operation) && (other.verb == Verb::Stop) != (client.verb == Verb::Stop)
            })
    }

    /// After a turn: whether everything that waits will be woken.
    pub fn check_waiting(&self) -> Ran {
        for (id, service) in self.manager.world.iter() {
            if !self.will_wake(service) {
                return wrong(format!("{id:?} waits in {:?} and nothing will wake it", service.phase));
            }
        }
        let waiting = self.clients.iter().enumerate().filter(|(_, client)| client.answered.is_none());
        for (index, client) in waiting {
            let known = self.service(client.service).and_then(|service| service.outcome(client.operation));
            if known != Some(None) && !self.queue.contains(&index) {
                return wrong(format!("{client:?} waits for an answer that nobody owes it"));
            }
        }
        Ok(())
    }

    fn will_wake(&self, service: &Service) -> bool {
        let alive = |run: &Run| self.kernel.processes.get(run).is_some_and(|process| process.alive());
        // Dead, and the next turn will read it.
        let unread = |run: &Run| {
            self.store.processes.contains_key(run)
                && !self.manager.exits_read.contains(run)
                && self.kernel.processes.get(run).is_some_and(|process| !process.alive())
        };
        let unheard = |run: &Run| {
            !self.manager.words_read.contains(run)
                && self.kernel.processes.get(run).is_some_and(|process| process.said)
        };
        let losing = |run: &Run| {
            self.manager.losing.contains_key(run) && (self.kernel.is_empty(*run) || self.kernel.expects(*run))
        };
        let timed = service.deadline().is_some();
        match service.phase {
            Phase::Stopped | Phase::Done | Phase::Failed => true,
            Phase::BackingOff { .. } => timed,
            Phase::Cloning { run } => {
                losing(&run) || self.manager.in_flight.contains_key(&run) && self.reported(run)
            }
            Phase::Launching { run, .. } => {
                timed || losing(&run) || unread(&run) || alive(&run) && self.kernel.expects(run)
            }
            // Without `start-timeout` it may take for ever to be ready; its word or its end brings news.
            Phase::Starting { run, .. } => timed || unread(&run) || unheard(&run) || alive(&run),
            Phase::Settling { .. } => timed,
            // A command may run for ever; its end brings news.
            Phase::Preparing { run } | Phase::Running { run } => unread(&run) || alive(&run),
            Phase::Stopping { run, .. } => {
                timed || losing(&run) || unread(&run) || alive(&run) && self.kernel.expects(run)
            }
            Phase::Clearing { run, .. } => {
                let cleared = self.manager.clearing.contains_key(&run);
                cleared && (timed || self.kernel.is_empty(run) || self.kernel.expects(run))
            }
        }
    }

    fn reported(&self, run: Run) -> bool {
        self.kernel.requested(run)
            || self.kernel.zygote_ended
            || self.kernel.reports.iter().any(|report| report.run == run)
    }

    /// What is dropped at a recovery must be nothing.
    pub fn check_left_behind(&self, run: Run) -> Ran {
        if self.kernel.is_empty(run) { Ok(()) } else { wrong(format!("{run:?} lives and nobody knows it")) }
    }

    /// At the end of a closed supervisor: nothing is left anywhere.
    pub fn check_closed(&self) -> Ran {
        if !self.manager.world.is_closed() {
            return wrong("stopping has no end");
        }
        if let Some((run, _)) = self.kernel.processes.iter().find(|(_, process)| !process.empty()) {
            return wrong(format!("{run:?} outlives the supervisor"));
        }
        if !self.kernel.registered.is_empty() || !self.kernel.exits.is_empty() {
            return wrong("the keeper keeps what nobody needs");
        }
        self.check_answered()
    }

    /// Everybody has an answer.
    pub fn check_answered(&self) -> Ran {
        match self.clients.iter().find(|client| client.answered.is_none()) {
            Some(client) => wrong(format!("{client:?} never had an answer")),
            None => Ok(()),
        }
    }

    /// Every service that is to be up and can be is running.
    pub fn check_up(&self) -> Ran {
        for (id, service) in self.manager.world.iter() {
            let rests = matches!(service.phase, Phase::Done | Phase::Failed);
            let executing = service.run().and_then(|run| self.kernel.processes.get(&run));
            let executing = executing.is_some_and(|process| process.place == Place::Executing);
            let running = matches!(service.phase, Phase::Running { .. }) && executing;
            // One with `policy = "always"` succeeds again and again.
            let succeeds = self.is_task(id) && self.has_ended_well(id, service);
            if service.goal == Goal::Up && !rests && !running && !succeeds {
                return wrong(format!("{id:?} is to be up, could be, and is in {:?}", service.phase));
            }
        }
        Ok(())
    }
}
