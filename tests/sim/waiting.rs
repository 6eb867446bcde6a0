//! PURE. Whether anything waits that nothing will wake. Never changes what it judges.

use supervise::policy::service::{Incarnation, Instance, Phase, Rest, Service};
use supervise::policy::{Mono, Run, ServiceId};

use super::sim::{Ran, Sim, wrong};

impl Sim {
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
                    let woken = self.manager.world.deadline() == Some(Mono(0));
                    let lacks = self.manager.world.lack(id).is_some() || self.is_needed(id);
                    let waits = service.waits && (woken || lacks);
                    moves(instance) || prepares || waits || service.roll.is_some() && somebody
                }
            },
            // Those that are of another generation wait for their turn; where one gave up, for an operator.
            Some(current) => {
                current.generation == target || somebody || service.instances.iter().any(gave_up)
            }
        }
    }

    /// Whether everything stops, and somebody who needs this one is not down yet.
    fn is_needed(&self, id: ServiceId) -> bool {
        let needing = self.needs.iter().filter(|(_, needs)| {
            [&needs.requires, &needs.wants, &needs.after].into_iter().any(|all| all.contains(&id))
        });
        let alive = |other: &ServiceId| self.service(*other).is_some_and(|service| !service.is_down());
        self.store.closing && needing.map(|(other, _)| other).any(alive)
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
            Phase::Proving { .. } => one.probe.is_some(),
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
}
