//! PURE. The promises, each asked after every event, action or turn. Never changes what it judges.

use std::collections::BTreeSet;

use supervise::policy::service::{
    Goal, Incarnation, Instance, KEEP_OUTCOME_MS, Kind, MOST_ENDS, MOST_OPERATIONS, Phase, Readiness, Rest,
    Role, Service, Spec, Strategy, Want,
};
use supervise::policy::{Action, Event, Mono, Operation, Outcome, Run, ServiceId};

use super::kernel::Place;
use super::sim::{Client, Ran, Sim, Verb, wrong};

/// Whether the incarnation of this phase may have its gate open.
fn is_past_gate(phase: Phase) -> bool {
    match phase {
        Phase::Launching { .. }
        | Phase::Preparing
        | Phase::Starting { .. }
        | Phase::Settling { .. }
        | Phase::Proving { .. }
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
                let same =
                    counted(&before).iter().zip(counted(after)).all(|(before, after)| *before == after)
                        && before.restarts == after.restarts
                        && before.ends == after.ends;
                if !same {
                    return wrong("our own death counted as the service's failure");
                }
            }
            Event::Tick => {
                let early = before.deadline().is_none_or(|at| at > self.now);
                let waits = before.waits;
                if early && !waits && (before.instances != after.instances || !actions.is_empty()) {
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
            | Event::Empty(_) => {}
        }
        Ok(())
    }

    pub fn is_wanted(&self, id: ServiceId) -> bool {
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
            let closing = self.store.closing && service.waits;
            if !up && !one.dismissed && !closing {
                return wrong(format!("{id:?} is to be down and {one:?} is to go on"));
            }
            if one.dismissed && is_past_gate(one.phase) {
                return wrong(format!("{one:?} is dismissed and goes on"));
            }
        }
        for instance in &service.instances {
            let resting = instance.current.is_none();
            let closing = self.store.closing && service.waits;
            if !up && !closing && resting && matches!(instance.rest, Rest::Waiting | Rest::BackingOff { .. })
            {
                return wrong(format!("{id:?} is to be down and is in {:?}", instance.rest));
            }
            let count = self.specs.get(&id).map_or(0, |spec| spec.count(service.scale));
            let surplus = usize::from(instance.number) > count;
            if up && !surplus && resting && instance.rest == Rest::Stopped {
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
                Want::Scaled => up,
                Want::Reloaded => up && service.incarnations().any(|(_, _, one)| one.reload_until.is_some()),
            };
            if !can {
                return wrong(format!("{asked:?} can never be answered in {service:?}"));
            }
        }
        self.check_ready(id, service)?;
        self.check_rehearsals(id, service)?;
        let earliest = self.manager.world.iter().filter_map(|(_, service)| service.deadline()).min();
        let deadline = self.manager.world.deadline();
        if deadline != earliest && deadline != Some(Mono(0)) {
            return wrong("the world's deadline is not its services' earliest");
        }
        Ok(())
    }

    pub fn is_task(&self, id: ServiceId) -> bool {
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
            let looked_at = self.specs.get(&id).is_some_and(|spec| spec.health.is_some());
            if looked_at && one.is_proven() && !self.oracle.healthy.contains_key(&one.run) {
                return wrong(format!("{:?} counts as good and no probe said so", one.run));
            }
            if told
                && !said
                && matches!(one.phase, Phase::Settling { .. } | Phase::Proving { .. } | Phase::Running)
            {
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

    fn is_rehearsal(&self, run: Run) -> bool {
        self.oracle.made.get(&run).is_some_and(|made| made.rehearsal)
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
                // Its successor was asked for before it had begun, or is none.
                (Role::Current, Some(Role::Next)) if run < other || self.is_rehearsal(other) => {}
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
        if self.oracle.made.get(&run).is_none_or(|made| made.before.is_some() || made.rehearsal) {
            return false;
        }
        let ready = match spec.ready {
            Readiness::Started => self.oracle.executed.get(&run),
            Readiness::Told => self.oracle.said.get(&run),
        };
        let Some(settled) = ready.map(|at| at.after(spec.settle_ms)) else { return false };
        // What was found earlier does not prove that it is so still.
        let healthy = self.oracle.healthy.get(&run).is_some_and(|at| *at >= settled);
        (spec.health.is_none() || healthy) && self.now >= settled
    }

    /// Nothing comes up before what it requires.
    fn check_needs(&self, id: ServiceId) -> Ran {
        if !self.oracle.fresh.contains(&id) {
            return Ok(());
        }
        let ready = |other: &ServiceId| {
            if self.is_task(*other) {
                return self.service(*other).is_some_and(|service| self.has_ended_well(*other, service));
            }
            let told = self.specs.get(other).is_some_and(|spec| spec.ready == Readiness::Told);
            let none = self.specs.get(other).zip(self.service(*other));
            let none = none.is_some_and(|(spec, service)| spec.count(service.scale) == 0);
            let mut processes = self.kernel.processes.iter().filter(|(_, one)| one.service == *other);
            none || processes.any(|(run, _)| {
                let said = self.oracle.said.contains_key(run);
                self.oracle.executed.contains_key(run) && (!told || said)
            })
        };
        let lacks = self.needs.get(&id).and_then(|needs| needs.requires.iter().find(|other| !ready(other)));
        lacks.map_or(Ok(()), |other| wrong(format!("{id:?} begins before {other:?} is ready")))
    }

    /// When everything stops, nobody is stopped before those that need him.
    fn check_order(&self, id: ServiceId) -> Ran {
        if !self.store.closing || self.oracle.stopped_last.contains(&id) {
            return Ok(());
        }
        let all = |one: &ServiceId| {
            let needs = self.needs.get(one);
            needs.is_some_and(|needs| {
                needs.requires.contains(&id) || needs.wants.contains(&id) || needs.after.contains(&id)
            })
        };
        let mut living = self.kernel.processes.values().filter(|process| process.opened && !process.empty());
        match living.find(|process| all(&process.service)) {
            Some(process) => wrong(format!("{id:?} is stopped before {:?}, which needs it", process.service)),
            None => Ok(()),
        }
    }

    /// With `start-first` nobody who has proven himself is signalled before his successor has.
    fn check_overlap(&self, id: ServiceId, run: Run) -> Ran {
        let Some(service) = self.service(id) else { return wrong("a service is lost") };
        let unit = self.specs.get(&id).map_or(Strategy::StopFirst, |spec| spec.strategy);
        let last = self.oracle.strategy.get(&id).copied().unwrap_or(unit);
        let start_first = [unit, last] == [Strategy::StartFirst; 2] && !self.is_task(id);
        let count = self.specs.get(&id).map_or(0, |spec| spec.count(service.scale));
        let surplus = service.find(run).is_some_and(|(one, _, _)| usize::from(one.number) > count);
        if surplus || !start_first || !self.is_wanted(id) || !self.has_passed(id, run) {
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
                self.check_stage(id, run)?;
                self.check_needs(id)?;
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
                self.check_order(id)?;
            }
            Action::Abort(run) => {
                if !seen(run) || self.oracle.gone.contains(&run) {
                    return wrong(format!("ABRT to {run:?}, which has ended"));
                }
                if !self.kernel.is_hung(run) {
                    return wrong(format!("ABRT to {run:?}, which gives signs of life"));
                }
                if self.specs.get(&id).is_some_and(Spec::replaces_hung) {
                    self.check_overlap(id, run)?;
                }
            }
            Action::Probe(run) | Action::Reload(run) => {
                let live =
                    self.service(id).and_then(|service| service.find(run)).map(|(_, _, one)| one.phase);
                // One that is ready answers clients already; nothing is read anew before it has proven itself.
                let probed =
                    matches!(action, Action::Probe(_)) && matches!(live, Some(Phase::Settling { .. }));
                if !probed && !matches!(live, Some(Phase::Proving { .. } | Phase::Running)) {
                    return wrong(format!("{action:?} in {live:?}"));
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
        let good = |instance: &Instance| {
            let current = instance.current.as_ref().filter(|one| one.is_proven())?;
            self.kernel.processes.get(&current.run).filter(|process| process.opened).map(|_| current.run)
        };
        let spec = self.specs.get(&client.service);
        let instances = spec.map_or(0, |spec| spec.count(service.scale));
        let all = service.instances.len();
        let running: Option<Vec<Run>> = service.instances.iter().take(instances).map(good).collect();
        let running = running.filter(|all| all.len() == instances);
        let newer = running.as_ref().is_some_and(|all| all.iter().all(|run| Some(*run) > client.taken));
        let nothing = !self
            .kernel
            .processes
            .values()
            .any(|process| process.service == client.service && process.matters());
        let task = self.is_task(client.service);
        let succeeded = task && self.has_ended_well(client.service, service);
        let last = service.ends.last(); // a restart may have ended with its rehearsal
        let holds = match (client.verb, outcome) {
            (Verb::Start, Outcome::Done) if task => succeeded,
            (Verb::Start, Outcome::Already) if task => false,
            (Verb::Restart | Verb::StopFirst, Outcome::Done) if task => {
                succeeded && last.map(|ended| ended.run) > client.taken
            }
            (Verb::Start, Outcome::Done | Outcome::Already) => running.is_some(),
            (Verb::Restart | Verb::StopFirst, Outcome::Done) => newer,
            (Verb::Restart | Verb::StopFirst, Outcome::Already) => false,
            (Verb::Stop | Verb::Hold, Outcome::Done | Outcome::Already) => service.is_down() && nothing,
            (Verb::Reload, _) if spec.is_some_and(|spec| !spec.reload) => match outcome {
                Outcome::Done => newer || task && succeeded,
                Outcome::Already | Outcome::NotRunning | Outcome::NotReloaded => false,
                _ => true,
            },
            (Verb::Scale(count), Outcome::Done | Outcome::Already) => {
                let up = service.goal == Goal::Up;
                service.scale == Some(count) && (!up || task || running.is_some() && all == instances)
            }
            (Verb::Reload, Outcome::Done) => {
                !service.incarnations().any(|(_, _, one)| one.reload_until.is_some())
            }
            (Verb::Reload, Outcome::NotRunning) => !service
                .instances
                .iter()
                .any(|one| one.current.as_deref().is_some_and(Incarnation::is_proven)),
            (Verb::Reload | Verb::Scale(_), Outcome::Ended(end)) => {
                last.is_some_and(|ended| ended.end == end && !ended.dismissed)
            }
            (_, Outcome::Off) => spec.is_some_and(|spec| spec.off) && client.verb.starts(),
            (_, Outcome::Requires(other)) => {
                !client.verb.stops()
                    && self.needs.get(&client.service).is_some_and(|needs| needs.requires.contains(&other))
            }
            (Verb::Reload, Outcome::Already) | (_, Outcome::NotRunning | Outcome::NotReloaded) => false,
            (Verb::Start | Verb::Restart | Verb::StopFirst, Outcome::Ended(end)) => {
                last.is_some_and(|ended| ended.end == end && !ended.dismissed)
            }
            (Verb::Stop | Verb::Hold, Outcome::Ended(_) | Outcome::Closing) => false,
            (_, Outcome::Closing) => self.store.closing,
            (_, Outcome::Superseded) => self.is_superseded(client),
        };
        if holds { Ok(()) } else { wrong(format!("{outcome:?} for {client:?} is not true")) }
    }

    fn is_superseded(&self, client: Client) -> bool {
        let later = self.oracle.taken.iter().skip_while(|operation| **operation != client.operation).skip(1);
        let later: BTreeSet<Operation> = later.copied().collect();
        // A start of another may have pulled it up.
        let pulled = client.verb.stops()
            && self.clients.iter().any(|other| {
                other.verb.starts() && (other.taken.is_none() || later.contains(&other.operation))
            });
        let mut others = self.clients.iter().filter(|other| other.service == client.service);
        pulled
            || later.len() >= MOST_OPERATIONS
            || others.any(|other| {
                let scales = |verb| matches!(verb, Verb::Scale(_));
                later.contains(&other.operation)
                    && (other.verb.stops() != client.verb.stops()
                        || scales(other.verb) && scales(client.verb))
            })
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
            if service.waits && self.manager.world.lack(id).is_some_and(|lack| lack.failed) {
                continue; // it says so to whoever asks
            }
            let count = self.specs.get(&id).map_or(0, |spec| spec.count(service.scale));
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
                if !good || instance.next.is_some() {
                    let lack = self.manager.world.lack(id);
                    let other = lack.and_then(|lack| self.service(lack.of));
                    return wrong(format!(
                        "{id:?} is to be up, could be, and is in {instance:?}, {lack:?}, {other:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
