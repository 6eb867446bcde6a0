//! PURE. What an outsider learns from what was written down, so that policy is not its own judge. Never judges.

use supervise::policy::service::Strategy;
use supervise::policy::{Event, Exit, Operation, Run, ServiceId};

use super::sim::Sim;

impl Sim {
    /// What an outsider learns from an event that was written down.
    pub fn oracle_takes(&mut self, id: ServiceId, event: Event) {
        match event {
            Event::Boot => {
                let at_boot = self.specs.get(&id).is_some_and(|spec| spec.start_at_boot);
                if at_boot {
                    self.oracle_wants(id, true);
                }
            }
            Event::Start(_)
            | Event::Restart(_)
            | Event::RestartStopFirst(_)
            | Event::Pull
            | Event::Reload(_)
            | Event::Scale(..)
            | Event::Stop(_)
            | Event::Hold(_) => self.oracle_hears(id, event),
            Event::Healthy(run) => {
                self.oracle.healthy.insert(run, self.now);
            }
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
            Event::Empty(run) | Event::Lost(run) | Event::Unrehearsed(run) | Event::NotCloned(run, _) => {
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
            | Event::Alive(_)
            | Event::Trigger(_)
            | Event::Watched(..)
            | Event::Unhealthy(_)
            | Event::Unanswered(_)
            | Event::Unasked(_)
            | Event::Astray(_)
            | Event::Reloaded(_)
            | Event::NotReloaded(_)
            | Event::Extended(..)
            | Event::Healed(_)
            | Event::NotExecuted(..)
            | Event::Signalled(_)
            | Event::Tick => {}
        }
    }

    /// What operators ask for.
    fn oracle_hears(&mut self, id: ServiceId, event: Event) {
        match event {
            Event::Start(operation) => self.oracle_asked(id, operation, true),
            Event::Restart(operation) => {
                let strategy = self.specs.get(&id).map_or(Strategy::StopFirst, |spec| spec.strategy);
                self.oracle_restarted(id, operation, strategy);
            }
            Event::RestartStopFirst(operation) => {
                self.oracle_restarted(id, operation, Strategy::StopFirst);
            }
            Event::Pull if !self.store.closing && self.specs.get(&id).is_some_and(|spec| !spec.off) => {
                self.oracle_wants(id, true);
            }
            Event::Reload(operation) if self.specs.get(&id).is_some_and(|spec| spec.reload) => {
                self.oracle_took(operation);
            }
            Event::Reload(operation) => {
                let strategy = self.specs.get(&id).map_or(Strategy::StopFirst, |spec| spec.strategy);
                self.oracle_restarted(id, operation, strategy);
            }
            Event::Scale(operation, _) => {
                self.oracle_took(operation);
            }
            Event::Stop(operation) | Event::Hold(operation) => {
                self.oracle_asked(id, operation, false);
                if self.store.closing {
                    self.oracle.stopped_last.insert(id);
                }
            }
            _ => {}
        }
    }

    fn oracle_restarted(&mut self, id: ServiceId, operation: Operation, strategy: Strategy) {
        if !self.oracle.taken.contains(&operation) && !self.store.closing {
            self.oracle.strategy.insert(id, strategy);
        }
        self.oracle_asked(id, operation, true);
    }

    fn oracle_asked(&mut self, id: ServiceId, operation: Operation, up: bool) {
        let off = self.specs.get(&id).is_some_and(|spec| spec.off);
        if self.oracle_took(operation) && (!self.store.closing || !up) && (!off || !up) {
            self.oracle_wants(id, up);
        }
    }

    fn oracle_wants(&mut self, id: ServiceId, up: bool) {
        let before = self.oracle.wanted.insert(id, up).unwrap_or(false);
        if up && !before {
            self.oracle.fresh.insert(id);
        }
    }

    /// True where it is the first time.
    fn oracle_took(&mut self, operation: Operation) -> bool {
        if self.oracle.taken.contains(&operation) {
            return false;
        }
        self.oracle.taken.push(operation);
        let newest = self.kernel.asked.last().copied().unwrap_or(Run(0));
        if let Some(client) = self.clients.iter_mut().find(|client| client.operation == operation) {
            client.taken = Some(newest);
        }
        true
    }
}
