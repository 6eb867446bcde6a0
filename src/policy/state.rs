//! PURE. What is known of one service: its goal, its instances and their incarnations, and the operations on it.
//! Never changes by itself.

use serde::{Deserialize, Serialize};

use super::{End, Mono, Operation, Outcome, Run};

/// Milliseconds for which the outcome of an operation can be asked for again.
pub const KEEP_OUTCOME_MS: u64 = 60_000;

/// The most operations one service remembers, and one more while it is being told; the oldest answered one
/// makes room, where all wait the oldest is answered with `Superseded` first.
pub const MOST_OPERATIONS: usize = 64;

/// How many of its last ends a service remembers.
pub const MOST_ENDS: usize = 16;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Running.
    Up,
    /// Not running.
    Down,
    /// Not running, but its sockets are open and clients wait.
    Held,
}

/// Where an incarnation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A process was asked for.
    Cloning,
    /// The gate is or will be open, the command does not execute yet.
    Launching {
        /// When `start-timeout` is over.
        give_up_at: Option<Mono>,
    },
    /// One of the commands before the first start of a generation executes, for as long as it takes.
    Preparing,
    /// The command executes and has not said that it is ready.
    Starting {
        /// When `start-timeout` is over.
        give_up_at: Option<Mono>,
    },
    /// It is ready and has not proven itself yet.
    Settling {
        /// When it will have.
        until: Mono,
        /// When `start-timeout` is over, which `settle` does not use up.
        #[serde(default)]
        give_up_at: Option<Mono>,
    },
    /// It has lived for long enough; it has proven itself when a probe says that it works.
    Proving {
        /// When `start-timeout` is over, and there has been time for one probe.
        give_up_at: Option<Mono>,
    },
    /// It has proven itself.
    Running,
    /// It is to end.
    Stopping {
        /// Whether the stop signal is known to have been sent.
        signalled: bool,
        /// Whether everything was to get KILL already.
        killed: bool,
        /// When everything gets KILL (again).
        kill_at: Option<Mono>,
        /// When the stop signal is sent, which would be lost before; None: it has been, or is about to be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal_at: Option<Mono>,
    },
    /// The main process has ended, the rest of its tree is being ended.
    Clearing {
        /// When the rest gets KILL (again).
        kill_at: Option<Mono>,
    },
}

/// One start of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Which.
    pub run: Run,
    /// The generation whose inputs it was made of.
    pub generation: u32,
    /// Which start of its service it is, from 1; a command before the start, and a rehearsal, have that of the one
    /// they are for.
    #[serde(default)]
    pub start: u32,
    /// Where it is one of the commands before the start: which, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u16>,
    /// It tries its generation on sockets of its own: it never becomes current.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rehearsal: bool,
    /// A rehearsal that has done what it was for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passed: bool,
    /// Where it is.
    pub phase: Phase,
    /// When the phase began.
    pub since: Mono,
    /// When its command began to execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_since: Option<Mono>,
    /// Until when its server loses the signal that asks it to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deaf_until: Option<Mono>,
    /// Somebody wanted it to end: its end is nobody's failure.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dismissed: bool,
    /// A failure that is to be told instead of its exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_end: Option<End>,
    /// The next look at its health, or the one that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// How many looks in a row have found it ill.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ill: u32,
    /// When a sign of life is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Mono>,
    /// Milliseconds between two signs of life, where it has said so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_ms: Option<u64>,
    /// It has given no sign of life, and is to be replaced by one that is started beside it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hung: bool,
    /// Until when it is waited for that it has read its configuration anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_until: Option<Mono>,
}

/// A look at the health of an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// It begins then.
    Due(Mono),
    /// It has begun.
    Asked {
        /// When it counts as lost and begins again.
        lost_at: Mono,
    },
}

/// What is so where an instance has no current incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// It is not wanted.
    Stopped,
    /// It is wanted, and something else comes first: its successor, or what prepares its generation.
    Waiting,
    /// It ended with success and is not to be started again.
    Done,
    /// It failed and is not to be started again by us.
    Failed,
    /// It failed and is started again then.
    BackingOff {
        /// When.
        until: Mono,
    },
}

/// What an incarnation is to its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The one that counts.
    Current,
    /// It is to become that, once it has proven itself.
    Next,
    /// It was that, and is ending.
    Draining,
}

/// One of the places of a service. At most two incarnations live in it at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which, from 1.
    pub number: u16,
    /// The incarnation that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Box<Incarnation>>,
    /// The one that is to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Box<Incarnation>>,
    /// The one that it has replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Box<Incarnation>>,
    /// What is so where there is no current one.
    pub rest: Rest,
    /// Since when.
    pub rest_since: Mono,
    /// Consecutive failures.
    pub failures: u32,
    /// Consecutive failures of a successor while the current one went on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// No successor is tried before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Mono>,
    /// Consecutive refusals of a process.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shortages: u32,
}

/// A generation that takes the place of the one that runs, one instance after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// Which generation comes.
    pub to: u32,
    /// How many of the commands before the start have succeeded in it.
    pub prepared: u16,
    /// Whether it comes on the real sockets from here on: a rehearsal has found it good, or nobody could wait for one.
    #[serde(default)]
    pub rehearsed: bool,
}

/// What becomes of an incarnation that is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Its successor proves itself first.
    StartFirst,
    /// It is stopped, then its successor is started.
    StopFirst,
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Every instance has proven itself in a generation that is not older than this one.
    Proven(u32),
    /// Nothing runs.
    Gone,
    /// As many instances as are wanted have proven themselves, and there are no others.
    Scaled,
    /// All that run have read their configuration anew.
    Reloaded,
}

/// An operation and, in the end, what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Whose.
    pub operation: Operation,
    /// What for.
    pub want: Want,
    /// What came of it, and when.
    pub outcome: Option<(Outcome, Mono)>,
}

/// How an incarnation ended, or why it never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub run: Run,
    /// Of which instance.
    pub instance: u16,
    /// Of which generation.
    pub generation: u32,
    /// Which of the commands before the start it was, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u16>,
    /// Whether it was a rehearsal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rehearsal: bool,
    /// Whether it was one that had done what it was for.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passed: bool,
    /// Whether it was to take the place of another, which was there when it ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub beside: bool,
    /// Whether somebody wanted it to end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dismissed: bool,
    /// How.
    pub end: End,
    /// When.
    pub at: Mono,
}

/// Everything that must survive the manager, of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What the operator wants.
    pub goal: Goal,
    /// The generation that is started, again and again. While a roll goes on: the last good one.
    pub generation: u32,
    /// The newest generation there has been.
    pub newest: u32,
    /// How many of the commands before the start have succeeded in this generation.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub prepared: u16,
    /// The generation that comes, beside the one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll: Option<Roll>,
    /// How what is of another generation is replaced.
    pub replace: Strategy,
    /// How many instances an operator wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u16>,
    /// It is to come up, or to go down, and others come first: see `World`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub waits: bool,
    /// The newest incarnation there has been.
    pub last_run: Run,
    /// Starts of it there have been, of every instance and generation.
    #[serde(default)]
    pub starts: u32,
    /// Its places, by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// Starts that repeated this generation.
    pub restarts: u32,
    /// The last ends, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<Ended>,
    /// Operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Asked>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_none_yet(value: &u16) -> bool {
    *value == 0
}

impl Incarnation {
    /// One that is asked for now.
    pub const fn new(run: Run, generation: u32, before: Option<u16>, now: Mono) -> Self {
        Self {
            run,
            generation,
            start: 0,
            before,
            rehearsal: false,
            passed: false,
            phase: Phase::Cloning,
            since: now,
            up_since: None,
            deaf_until: None,
            dismissed: false,
            pending_end: None,
            probe: None,
            ill: 0,
            watchdog: None,
            watchdog_ms: None,
            hung: false,
            reload_until: None,
        }
    }

    /// Whether it has proven itself and is to go on.
    pub const fn is_proven(&self) -> bool {
        matches!(self.phase, Phase::Running) && !self.dismissed
    }

    /// Whether its end is decided.
    pub const fn is_ending(&self) -> bool {
        self.dismissed || matches!(self.phase, Phase::Stopping { .. } | Phase::Clearing { .. })
    }

    /// When `Tick` is due for it; None: nothing to wait for.
    pub fn deadline(&self) -> Option<Mono> {
        let phase = match self.phase {
            Phase::Settling { until, .. } => Some(until),
            Phase::Launching { give_up_at }
            | Phase::Starting { give_up_at }
            | Phase::Proving { give_up_at } => give_up_at,
            Phase::Stopping { signal_at: Some(at), .. } => Some(at), // KILL comes later
            Phase::Stopping { kill_at, .. } | Phase::Clearing { kill_at } => kill_at,
            Phase::Cloning | Phase::Preparing | Phase::Running => None,
        };
        let probe = self.probe.map(|probe| match probe {
            Probe::Due(at) | Probe::Asked { lost_at: at } => at,
        });
        [phase, probe, self.watchdog, self.reload_until].into_iter().flatten().min()
    }
}

impl Instance {
    /// One that has never run.
    pub const fn new(number: u16, now: Mono) -> Self {
        Self {
            number,
            current: None,
            next: None,
            draining: None,
            rest: Rest::Stopped,
            rest_since: now,
            failures: 0,
            retries: 0,
            retry_at: None,
            shortages: 0,
        }
    }

    /// Its incarnations, the one that counts first.
    pub fn incarnations(&self) -> impl Iterator<Item = (Role, &Incarnation)> {
        let all = [
            self.current.as_deref().map(|one| (Role::Current, one)),
            self.next.as_deref().map(|one| (Role::Next, one)),
            self.draining.as_deref().map(|one| (Role::Draining, one)),
        ];
        all.into_iter().flatten()
    }

    /// The place of a role.
    pub const fn place(&mut self, role: Role) -> &mut Option<Box<Incarnation>> {
        match role {
            Role::Current => &mut self.current,
            Role::Next => &mut self.next,
            Role::Draining => &mut self.draining,
        }
    }

    /// Whether no incarnation of it is left.
    pub const fn is_empty(&self) -> bool {
        self.current.is_none() && self.next.is_none() && self.draining.is_none()
    }

    /// Whether nothing of it runs and nothing is being started.
    pub const fn is_down(&self) -> bool {
        self.is_empty() && matches!(self.rest, Rest::Stopped | Rest::Done | Rest::Failed)
    }

    /// Whether it rests and is not started again by us.
    pub const fn has_given_up(&self) -> bool {
        self.current.is_none() && matches!(self.rest, Rest::Done | Rest::Failed)
    }

    /// When `Tick` is due for it.
    pub fn deadline(&self) -> Option<Mono> {
        let rest = match (self.rest, &self.current) {
            (Rest::BackingOff { until }, None) => Some(until),
            (Rest::BackingOff { .. } | Rest::Stopped | Rest::Waiting | Rest::Done | Rest::Failed, _) => None,
        };
        let theirs = self.incarnations().filter_map(|(_, one)| one.deadline());
        theirs.chain(rest).chain(self.retry_at).min()
    }

    pub(super) const fn lie_down(&mut self, rest: Rest, now: Mono) {
        self.rest = rest;
        self.rest_since = now;
    }
}

impl Service {
    /// One that has never run.
    pub const fn new() -> Self {
        Self {
            goal: Goal::Down,
            generation: 1,
            newest: 1,
            prepared: 0,
            roll: None,
            replace: Strategy::StopFirst,
            scale: None,
            waits: false,
            last_run: Run(0),
            starts: 0,
            instances: Vec::new(),
            restarts: 0,
            ends: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// One that has failed before it began.
    pub fn failed(now: Mono) -> Self {
        let mut one = Instance::new(1, now);
        one.rest = Rest::Failed;
        Self { instances: vec![one], ..Self::new() }
    }

    /// All of it but its instances, which are written down one by one.
    pub fn without_instances(&self) -> Self {
        Self {
            goal: self.goal,
            generation: self.generation,
            newest: self.newest,
            prepared: self.prepared,
            roll: self.roll,
            replace: self.replace,
            scale: self.scale,
            waits: self.waits,
            last_run: self.last_run,
            starts: self.starts,
            instances: Vec::new(),
            restarts: self.restarts,
            ends: self.ends.clone(),
            asked: self.asked.clone(),
        }
    }

    /// Takes its instances back that were written down, in any order. Places between them of which there is no record
    /// have never run.
    pub fn take_instances(&mut self, mut found: Vec<Instance>, now: Mono) {
        found.sort_by_key(|one| one.number);
        for one in found {
            while self.instances.len() + 1 < usize::from(one.number) {
                let number = u16::try_from(self.instances.len() + 1).unwrap_or(u16::MAX);
                self.instances.push(Instance::new(number, now));
            }
            if self.instances.len() < usize::from(one.number) {
                self.instances.push(one);
            }
        }
    }

    /// All its incarnations, in the order of the instances.
    pub fn incarnations(&self) -> impl Iterator<Item = (&Instance, Role, &Incarnation)> {
        self.instances
            .iter()
            .flat_map(|instance| instance.incarnations().map(move |(role, one)| (instance, role, one)))
    }

    /// One of its incarnations.
    pub fn find(&self, run: Run) -> Option<(&Instance, Role, &Incarnation)> {
        self.incarnations().find(|(_, _, one)| one.run == run)
    }

    /// The incarnation that speaks for the service: the current one of the first instance that has one, else
    /// whichever there is.
    pub fn main(&self) -> Option<&Incarnation> {
        let current = self.instances.iter().find_map(|instance| instance.current.as_deref());
        current.or_else(|| self.incarnations().map(|(_, _, one)| one).next())
    }

    /// Whether nothing runs and nothing is being started.
    pub fn is_down(&self) -> bool {
        self.instances.iter().all(Instance::is_down)
    }

    /// Whether some instance of it has failed, and is not being tried at the moment.
    pub fn has_failed(&self) -> bool {
        let failed = |one: &Instance| matches!(one.rest, Rest::Failed | Rest::BackingOff { .. });
        self.instances.iter().any(|one| one.current.is_none() && one.next.is_none() && failed(one))
    }

    /// How the incarnation that ended last did; one beside what serves says nothing of that.
    pub fn last_end(&self) -> Option<&Ended> {
        self.ends.iter().rev().find(|ended| !ended.rehearsal && !ended.beside)
    }

    /// The most consecutive failures of an instance.
    pub fn failures(&self) -> u32 {
        self.instances.iter().map(|instance| instance.failures).max().unwrap_or(0)
    }

    /// When `Tick` is due; None: nothing to wait for.
    pub fn deadline(&self) -> Option<Mono> {
        self.instances.iter().filter_map(Instance::deadline).min()
    }

    /// The outcome of an operation: None where it is unknown, Some(None) while it is waited for.
    pub fn outcome(&self, operation: Operation) -> Option<Option<Outcome>> {
        let asked = self.asked.iter().find(|asked| asked.operation == operation)?;
        Some(asked.outcome.map(|(outcome, _)| outcome))
    }

    /// Whether a generation is still needed: something was made of it, or will be.
    pub fn needs(&self, generation: u32) -> bool {
        generation == self.generation
            || self.roll.is_some_and(|roll| roll.to == generation)
            || self.incarnations().any(|(_, _, one)| one.generation == generation)
    }
}

impl Default for Service {
    fn default() -> Self {
        Self::new()
    }
}
