//! PURE. The promises, each asked after every event, action or turn. Never changes what it judges.

use std::collections::BTreeSet;

use supervise::policy::service::{
    Goal, Incarnation, Instance, KEEP_OUTCOME_MS, Kind, MOST_ENDS, MOST_OPERATIONS, Phase, Readiness, Rest,
    Role, Service, Strategy, Want,
};
use supervise::policy::{Action, Event, Exit, Operation, Outcome, Run, ServiceId};

use super::kernel::Place;
use super::sim::{Client, Ran, Sim, Verb, wrong};

/// Whether the incarnation of this phase may have its gate open.
fn is_past_gate(phase: Phase) -> bool {
    match phase {
        Phase::Launching { .. }
        | Phase::Preparing
        | Phase::Starting { .. }
        | Phase::Settling { .. }
        | Phase::Running => true,
        Phase::Cloning | Phase::Stopping { .. } | Phase::Clearing { .. } => false,
    }
}

/// What counts against a service.
fn counted(service: &Service) -> Vec<(u32, u32, u32)> {
    service.instances.iter().map(|one| (one.failures, one.shortages, one.retries)).collect()
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
                let same = counted(&before) == counted(after)
                    && before.restarts == after.restarts
                    && before.ends == after.ends;
                if !same {
                    return wrong("our own death counted as the service's failure");
                }
            }
            Event::Tick => {
                let early = before.deadline().is_none_or(|at| at > self.now);
                if early && (before.instances != after.instances || !actions.is_empty()) {
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
            | Event::RestartStopFirst(_)
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
            Event::Start(operation) => self.oracle_asked(id, operation, true),
            Event::Restart(operation) => {
                let strategy = self.specs.get(&id).map_or(Strategy::StopFirst, |spec| spec.strategy);
                self.oracle_restarted(id, operation, strategy);
            }
            Event::RestartStopFirst(operation) => {
                self.oracle_restarted(id, operation, Strategy::StopFirst);
            }
            Event::Stop(operation) => self.oracle_asked(id, operation, false),
            Event::Close => {
                self.oracle.wanted.insert(id, false);
            }
            Event::Gone(run, exit) => {
                self.oracle.gone.insert(run);
                if let (Exit::Code(0), Some(made)) = (exit, self.oracle.made.get(&run))
                    && let Some(before) = made.before
                {
                    self.oracle.prepared.insert((made.service, made.generation, before));
                }
            }
            Event::Empty(run) | Event::Lost(run) | Event::NotCloned(run, _) => {
                self.oracle.gone.insert(run);
                self.oracle.finished.insert(run);
            }
            Event::Executed(run) => {
                self.oracle.executed.entry(run).or_insert(self.now);
            }
            Event::Ready(run) => {
                self.oracle.said.entry(run).or_insert(self.now);
            }
            Event::Cloned(_)
            | Event::Extended(..)
            | Event::Healed(_)
            | Event::NotExecuted(..)
            | Event::Signalled(_)
            | Event::Tick => {}
        }
    }

    fn oracle_restarted(&mut self, id: ServiceId, operation: Operation, strategy: Strategy) {
        if !self.oracle.taken.contains(&operation) && !self.store.closing {
            self.oracle.strategy.insert(id, strategy);
        }
        self.oracle_asked(id, operation, true);
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
        for (_, _, one) in service.incarnations() {
            if !up && !one.dismissed {
                return wrong(format!("{id:?} is to be down and {one:?} is to go on"));
            }
            if one.dismissed && is_past_gate(one.phase) {
                return wrong(format!("{one:?} is dismissed and goes on"));
            }
        }
        for instance in &service.instances {
            let resting = instance.current.is_none();
            if !up && resting && matches!(instance.rest, Rest::Waiting | Rest::BackingOff { .. }) {
                return wrong(format!("{id:?} is to be down and is in {:?}", instance.rest));
            }
            if up && resting && instance.rest == Rest::Stopped {
                return wrong(format!("{id:?} is to be up and rests"));
            }
            if instance.incarnations().count() > 2 {
                return wrong(format!("{id:?} has three incarnations in one place"));
            }
        }
        if service.asked.len() > MOST_OPERATIONS + 1 || service.ends.len() > MOST_ENDS {
            return wrong("more operations or ends than the limit");
        }
        let old = |at| self.now.since(at) >= KEEP_OUTCOME_MS;
        if service.asked.iter().any(|asked| asked.outcome.is_some_and(|(_, at)| old(at))) {
            return wrong("an outcome is kept longer than it is promised");
        }
        for asked in service.asked.iter().filter(|asked| asked.outcome.is_none()) {
            let target = service.roll.map_or(service.generation, |roll| roll.to);
            let proven = |instance: &Instance, floor| {
                let current = instance.current.as_ref();
                current.is_some_and(|one| one.is_proven() && one.generation >= floor)
            };
            let can = match asked.want {
                Want::Gone => !up && !service.is_down(),
                Want::Proven(floor) => {
                    let all = !self.is_task(id) && service.instances.iter().all(|one| proven(one, floor));
                    up && !service.is_down() && target >= floor && !all
                }
            };
            if !can {
                return wrong(format!("{asked:?} can never be answered in {service:?}"));
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

    fn has_ended_well(&self, id: ServiceId, service: &Service) -> bool {
        let success = |end| self.specs.get(&id).is_some_and(|spec| spec.is_success(end));
        service.last_end().is_some_and(|ended| success(ended.end))
    }

    /// Nobody counts as ready who is to say so and has not.
    fn check_ready(&self, id: ServiceId, service: &Service) -> Ran {
        let told = self.specs.get(&id).is_some_and(|spec| spec.ready == Readiness::Told) && !self.is_task(id);
        for (_, _, one) in service.incarnations() {
            let said = self.kernel.processes.get(&one.run).is_none_or(|process| process.said);
            if told && !said && matches!(one.phase, Phase::Settling { .. } | Phase::Running) {
                return wrong(format!("{:?} counts as ready and never said so", one.run));
            }
        }
        Ok(())
    }

    /// The commands before the start: each succeeds once in a generation, and all of them before the first start.
    fn check_prepared(&self, id: ServiceId, run: Run) -> Ran {
        let (Some(made), Some(spec)) = (self.oracle.made.get(&run), self.specs.get(&id)) else {
            return wrong(format!("{run:?} was never asked for"));
        };
        let done = |index| self.oracle.prepared.contains(&(id, made.generation, index));
        match made.before {
            Some(before) if done(before) => wrong(format!("{run:?} repeats {before:?}")),
            Some(before) if !(0..before).all(done) => wrong(format!("{run:?} comes too early: {before:?}")),
            None if !(0..spec.before).all(done) => wrong(format!("{run:?} starts before all is prepared")),
            Some(_) | None => Ok(()),
        }
    }

    /// What matters of an instance besides `run`.
    fn beside(&self, id: ServiceId, run: Run) -> Vec<Run> {
        let place = |run: &Run| self.oracle.made.get(run).map(|made| (made.service, made.instance));
        let ours = self.service(id).and_then(|service| service.find(run)).map(|(one, _, _)| (id, one.number));
        let others =
            self.kernel.processes.iter().filter(|(other, process)| **other != run && process.matters());
        others.map(|(other, _)| *other).filter(|other| place(other) == ours).collect()
    }

    /// What may be beside an incarnation that begins: what it is to replace, or what another has replaced.
    fn check_beside(&self, id: ServiceId, run: Run) -> Ran {
        let Some(service) = self.service(id) else { return wrong("a service is lost") };
        let Some((_, role, one)) = service.find(run) else { return wrong(format!("{run:?} is nobody's")) };
        let beside = self.beside(id, run);
        if beside.len() > 1 {
            return wrong(format!("{run:?} is the third of its instance: {beside:?}"));
        }
        for other in beside {
            let is = service.find(other).map(|(_, role, _)| role);
            match (role, is) {
                (Role::Next, Some(Role::Current | Role::Draining))
                | (Role::Current, Some(Role::Draining)) => {}
                // Its successor was asked for before it had begun.
                (Role::Current, Some(Role::Next)) if run < other => {}
                _ => return wrong(format!("{run:?} beside {other:?}, which is {is:?}")),
            }
        }
        let wanted = service.roll.map(|roll| roll.to) == Some(one.generation);
        if !wanted && one.generation != service.generation {
            return wrong(format!("{run:?} is of a generation that nobody wants"));
        }
        Ok(())
    }

    /// Whether an incarnation has passed the gate, as an outsider sees it.
    fn has_passed(&self, id: ServiceId, run: Run) -> bool {
        let Some(spec) = self.specs.get(&id) else { return false };
        if self.oracle.made.get(&run).is_none_or(|made| made.before.is_some()) {
            return false;
        }
        let ready = match spec.ready {
            Readiness::Started => self.oracle.executed.get(&run),
            Readiness::Told => self.oracle.said.get(&run),
        };
        ready.is_some_and(|at| self.now.since(*at) >= spec.settle_ms)
    }

    /// With `start-first` nobody who has proven himself is signalled before his successor has.
    fn check_overlap(&self, id: ServiceId, run: Run) -> Ran {
        let Some(service) = self.service(id) else { return wrong("a service is lost") };
        let start_first = self.oracle.strategy.get(&id) == Some(&Strategy::StartFirst) && !self.is_task(id);
        if !start_first || !self.is_wanted(id) || !self.has_passed(id, run) {
            return Ok(());
        }
        match service.find(run) {
            Some((instance, Role::Draining, _)) => {
                let successor = instance.current.as_ref().map(|one| one.run);
                if successor.is_some_and(|one| self.has_passed(id, one) || self.oracle.gone.contains(&one)) {
                    return Ok(());
                }
                wrong(format!("{run:?} goes before {successor:?} is good"))
            }
            // A successor that failed, or that another command has overtaken.
            Some((_, Role::Next, _)) => Ok(()),
            other => wrong(format!("{run:?} is stopped and nothing takes its place: {other:?}")),
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
                self.check_beside(id, run)?;
            }
            Action::Release(run) => {
                self.check_beside(id, run)?;
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
                self.check_overlap(id, run)?;
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
        let good = |instance: &Instance| {
            let current = instance.current.as_ref().filter(|one| one.is_proven())?;
            self.kernel.processes.get(&current.run).filter(|process| process.opened).map(|_| current.run)
        };
        let instances = self.specs.get(&client.service).map_or(0, |spec| usize::from(spec.instances));
        let running: Option<Vec<Run>> = service.instances.iter().map(good).collect();
        let running = running.filter(|all| all.len() == instances);
        let newer = running.as_ref().is_some_and(|all| all.iter().all(|run| Some(*run) > client.taken));
        let nothing = !self
            .kernel
            .processes
            .values()
            .any(|process| process.service == client.service && process.matters());
        let task = self.is_task(client.service);
        let succeeded = task && self.has_ended_well(client.service, service);
        let last = service.last_end();
        let holds = match (client.verb, outcome) {
            (Verb::Start, Outcome::Done) if task => succeeded,
            (Verb::Start, Outcome::Already) if task => false,
            (Verb::Restart | Verb::StopFirst, Outcome::Done) if task => {
                succeeded && last.map(|ended| ended.run) > client.taken
            }
            (Verb::Start, Outcome::Done | Outcome::Already) => running.is_some(),
            (Verb::Restart | Verb::StopFirst, Outcome::Done) => newer,
            (Verb::Restart | Verb::StopFirst, Outcome::Already) => false,
            (Verb::Stop, Outcome::Done | Outcome::Already) => service.is_down() && nothing,
            (Verb::Start | Verb::Restart | Verb::StopFirst, Outcome::Ended(end)) => {
                last.is_some_and(|ended| ended.end == end && !ended.dismissed)
            }
            (Verb::Stop, Outcome::Ended(_) | Outcome::Closing) => false,
            (Verb::Start | Verb::Restart | Verb::StopFirst, Outcome::Closing) => self.store.closing,
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
            if let Some((_, _, one)) = service.incarnations().find(|(_, _, one)| !self.will_wake(one)) {
                return wrong(format!("{id:?} waits in {one:?} and nothing will wake it"));
            }
            if let Some(instance) = service.instances.iter().find(|one| !self.will_move(id, service, one)) {
                return wrong(format!("{id:?} waits with {instance:?} and nothing will move it"));
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

    /// Whether an instance that is not where it is to be has something to wait for.
    fn will_move(&self, id: ServiceId, service: &Service, instance: &Instance) -> bool {
        let moves = |one: &Instance| {
            one.next.is_some()
                || one.draining.is_some()
                || one.retry_at.is_some()
                || one.current.as_ref().is_some_and(|current| !current.is_proven())
                || one.current.is_none() && matches!(one.rest, Rest::BackingOff { .. })
        };
        let gave_up = |one: &Instance| one.current.is_none() && matches!(one.rest, Rest::Done | Rest::Failed);
        let somebody = service.instances.iter().any(moves);
        let target = service.roll.map_or(service.generation, |roll| roll.to);
        match &instance.current {
            None => match instance.rest {
                Rest::Stopped | Rest::Done | Rest::Failed => true,
                Rest::BackingOff { .. } => service.deadline().is_some(),
                Rest::Waiting => {
                    let prepares = self.specs.get(&id).is_some_and(|spec| service.prepared < spec.before)
                        && service.instances.first().is_some_and(moves);
                    moves(instance) || prepares || service.roll.is_some() && somebody
                }
            },
            // Those that are of another generation wait for their turn; where one gave up, for an operator.
            Some(current) => {
                current.generation == target || somebody || service.instances.iter().any(gave_up)
            }
        }
    }

    fn will_wake(&self, one: &Incarnation) -> bool {
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
        let timed = one.deadline().is_some();
        let run = one.run;
        match one.phase {
            Phase::Cloning => losing(&run) || self.manager.in_flight.contains_key(&run) && self.reported(run),
            Phase::Launching { .. } => {
                timed || losing(&run) || unread(&run) || alive(&run) && self.kernel.expects(run)
            }
            // Without `start-timeout` it may take for ever to be ready; its word or its end brings news.
            Phase::Starting { .. } => timed || unread(&run) || unheard(&run) || alive(&run),
            Phase::Settling { .. } => timed,
            // A command may run for ever; its end brings news.
            Phase::Preparing | Phase::Running => unread(&run) || alive(&run),
            Phase::Stopping { .. } => {
                timed || losing(&run) || unread(&run) || alive(&run) && self.kernel.expects(run)
            }
            Phase::Clearing { .. } => {
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
            // One with `policy = "always"` succeeds again and again.
            let succeeds = self.is_task(id) && self.has_ended_well(id, service);
            if service.goal != Goal::Up || succeeds {
                continue;
            }
            let count = self.specs.get(&id).map_or(0, |spec| usize::from(spec.instances));
            if service.instances.len() != count || service.roll.is_some() {
                return wrong(format!("{id:?} is not done: {service:?}"));
            }
            let gave_up =
                |one: &Instance| one.current.is_none() && matches!(one.rest, Rest::Done | Rest::Failed);
            let blocked = service.instances.iter().any(gave_up);
            for instance in service.instances.iter().filter(|one| !gave_up(one)) {
                let good = instance.current.as_ref().is_some_and(|one| {
                    let process = self.kernel.processes.get(&one.run);
                    let executing = process.is_some_and(|process| process.place == Place::Executing);
                    executing && one.is_proven() && (blocked || one.generation == service.generation)
                });
                if !good || instance.next.is_some() || instance.draining.is_some() {
                    return wrong(format!("{id:?} is to be up, could be, and is in {instance:?}"));
                }
            }
        }
        Ok(())
    }
}
