//! PURE. The whole made-up world in one value that can be cloned: kernel, stable store, manager, clients,
//! and what an outsider knows of how it should be. Moves the clock; `shell` acts, `checks` judges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use supervise::policy::service::{Service, Spec, Strategy};
use supervise::policy::world::{Needs, World};
use supervise::policy::{Action, Event, Mono, Operation, Outcome, Run, ServiceId};

use super::behaviour::Commands;
use super::kernel::Kernel;

/// More events than any life here has.
const MOST_POINTS: u64 = 100_000;

/// Why something did not go on.
#[derive(Clone, Debug)]
pub enum Stop {
    /// The manager was killed here.
    Died,
    /// A promise is broken.
    Wrong(String),
}

pub type Ran = Result<(), Stop>;

/// A broken promise.
pub fn wrong(what: impl Into<String>) -> Ran {
    Err(Stop::Wrong(what.into()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Restart,
    StopFirst,
    Hold,
    Reload,
    Scale(u16),
}

impl Verb {
    /// Whether it takes a service down.
    pub fn stops(self) -> bool {
        matches!(self, Self::Stop | Self::Hold)
    }

    /// Whether it brings a service up.
    pub fn starts(self) -> bool {
        matches!(self, Self::Start | Self::Restart | Self::StopFirst)
    }
}

/// Somebody who waits for an operation.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub service: ServiceId,
    pub verb: Verb,
    pub operation: Operation,
    pub answered: Option<Outcome>,
    /// The newest incarnation there was when the operation was first written down.
    pub taken: Option<Run>,
}

impl Client {
    pub fn event(&self) -> Event {
        match self.verb {
            Verb::Start => Event::Start(self.operation),
            Verb::Stop => Event::Stop(self.operation),
            Verb::Restart => Event::Restart(self.operation),
            Verb::Hold => Event::Hold(self.operation),
            Verb::Reload => Event::Reload(self.operation),
            Verb::Scale(count) => Event::Scale(self.operation, count),
            Verb::StopFirst => Event::RestartStopFirst(self.operation),
        }
    }
}

/// What survives the manager: the state memfd.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub snapshots: BTreeMap<ServiceId, Service>,
    pub processes: BTreeMap<Run, ServiceId>,
    pub closing: bool,
}

/// What dies with the manager.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    pub world: World,
    pub in_flight: BTreeMap<Run, ServiceId>,
    pub gates: BTreeSet<Run>,
    pub reports_read: BTreeSet<Run>,
    pub exits_read: BTreeSet<Run>,
    /// What they said has been taken out of their sockets.
    pub words_read: BTreeSet<Run>,
    /// Never let through; `Lost` as soon as nothing is left of them.
    pub losing: BTreeMap<Run, ServiceId>,
    /// `Clear` was carried out; `Empty` as soon as nothing is left of them.
    pub clearing: BTreeMap<Run, ServiceId>,
    pub signalled: Vec<(ServiceId, Run)>,
    /// `Reload` was carried out.
    pub reloaded: Vec<(ServiceId, Run)>,
}

/// What an incarnation was made as.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub service: ServiceId,
    pub instance: u16,
    pub generation: u32,
    pub before: Option<u16>,
    /// It has no socket of its service.
    pub rehearsal: bool,
}

/// What an outsider knows, and no policy told it.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Whether the last word on a service was to run it.
    pub wanted: BTreeMap<ServiceId, bool>,
    /// What each incarnation was made as.
    pub made: BTreeMap<Run, Made>,
    /// When the command of each began to execute.
    pub executed: BTreeMap<Run, Mono>,
    /// When each said that it is ready.
    pub said: BTreeMap<Run, Mono>,
    /// When a probe has found one healthy, the last time.
    pub healthy: BTreeMap<Run, Mono>,
    /// Services that were wanted anew, and of which nothing has begun since.
    pub fresh: BTreeSet<ServiceId>,
    /// Services that an operator has stopped since everything was to stop.
    pub stopped_last: BTreeSet<ServiceId>,
    /// How the last restart of a service was to go.
    pub strategy: BTreeMap<ServiceId, Strategy>,
    /// Commands before the start that succeeded.
    pub prepared: BTreeSet<(ServiceId, u32, u16)>,
    /// Operations whose first taking was written down, in order.
    pub taken: Vec<Operation>,
    /// Incarnations whose main process is known, in writing, to have ended.
    pub gone: BTreeSet<Run>,
    /// Incarnations of which nothing is left, in writing.
    pub finished: BTreeSet<Run>,
}

#[derive(Clone, Debug)]
pub struct Sim {
    pub now: Mono,
    pub specs: BTreeMap<ServiceId, Spec>,
    pub needs: BTreeMap<ServiceId, Needs>,
    pub commands: Commands,
    pub opened: BTreeMap<ServiceId, usize>,
    pub kernel: Kernel,
    pub store: Store,
    pub manager: Manager,
    pub oracle: Oracle,
    pub clients: Vec<Client>,
    pub queue: VecDeque<usize>,
    /// Points at which the manager can die, so far.
    pub points: u64,
    /// Points at which it will, ascending.
    pub fuses: Vec<u64>,
    /// Milliseconds until the keeper has made the next one.
    pub downtime_ms: u64,
    pub deaths: u64,
    pub tracing: bool,
    pub trace: Vec<String>,
    /// Room for the actions of a step.
    pub actions: Vec<Action>,
}

impl Sim {
    /// A supervisor that has not begun.
    pub fn new(specs: &[Spec], commands: Commands) -> Self {
        let specs = specs.iter().enumerate().map(|(n, spec)| (ServiceId(n as u32), *spec)).collect();
        Self {
            now: Mono(1_000),
            specs,
            needs: BTreeMap::new(),
            commands,
            opened: BTreeMap::new(),
            kernel: Kernel::default(),
            store: Store::default(),
            manager: Manager::default(),
            oracle: Oracle::default(),
            clients: Vec::new(),
            queue: VecDeque::new(),
            points: 0,
            fuses: Vec::new(),
            downtime_ms: 0,
            deaths: 0,
            tracing: false,
            trace: Vec::new(),
            actions: Vec::new(),
        }
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if self.tracing {
            let line = format!("{:>8} {}", self.now.0, what());
            self.trace.push(line);
        }
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.manager.world.get(id)
    }

    /// A point at which the manager may be killed.
    pub fn point(&mut self) -> Ran {
        self.points += 1;
        if self.fuses.first() == Some(&self.points) {
            self.fuses.remove(0);
            return Err(Stop::Died);
        }
        if self.points > MOST_POINTS {
            return wrong("runs hot");
        }
        Ok(())
    }

    /// Somebody asks for something.
    pub fn ask(&mut self, service: ServiceId, verb: Verb) -> usize {
        let index = self.clients.len();
        let operation = Operation(u128::MAX - index as u128 * 7);
        self.clients.push(Client { service, verb, operation, answered: None, taken: None });
        self.queue.push_back(index);
        index
    }

    /// The manager begins, for the first time or again, however often it dies over it.
    pub fn begin(&mut self) -> Ran {
        self.kernel.advance(self.now);
        let ran = self.recover();
        self.survive(ran)
    }

    /// One turn of the loop, and whatever deaths it takes.
    pub fn go(&mut self) -> Ran {
        self.kernel.advance(self.now);
        self.kernel.forget(&self.store.processes);
        let ran = self.turn();
        self.survive(ran)?;
        self.check_waiting()
    }

    /// Kills the manager now.
    pub fn crash(&mut self) -> Ran {
        self.survive(Err(Stop::Died))
    }

    fn survive(&mut self, mut ran: Ran) -> Ran {
        while let Err(Stop::Died) = ran {
            self.deaths += 1;
            self.note(|| "the manager dies".into());
            self.kernel.manager_died();
            self.manager = Manager::default();
            self.now = self.now.after(self.downtime_ms);
            self.kernel.advance(self.now);
            self.queue = (0..self.clients.len()).filter(|n| self.clients[*n].answered.is_none()).collect();
            ran = self.recover();
        }
        ran
    }

    /// Turns until nothing more happens at this instant.
    pub fn settle(&mut self) -> Ran {
        for _ in 0..400 {
            self.go()?;
            if !self.has_news() {
                return Ok(());
            }
        }
        wrong("turns without end at one instant")
    }

    /// When anything happens next: in the kernel, or because the policy wants a tick.
    pub fn next(&self) -> Option<Mono> {
        let next = [self.kernel.next(), self.manager.world.deadline()];
        next.into_iter().flatten().min().map(|at| at.max(self.now))
    }

    /// Moves the clock to `to`, stopping for everything on the way.
    pub fn pass_until(&mut self, to: Mono) -> Ran {
        self.settle()?;
        while let Some(at) = self.next().filter(|at| *at <= to) {
            self.now = at;
            self.kernel.advance(at);
            self.settle()?;
        }
        self.now = self.now.max(to);
        self.kernel.advance(self.now);
        Ok(())
    }

    /// Moves the clock by `ms` at once, as after a suspend: everything on the way is late.
    pub fn jump(&mut self, ms: u64) -> Ran {
        self.now = self.now.after(ms);
        self.kernel.advance(self.now);
        self.go()
    }
}
