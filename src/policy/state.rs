//! PURE. What is known of one service: goal × phase, and the operations on it. Never changes by itself.

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::{End, Exit, Mono, Operation, Outcome, Run};

/// Milliseconds for which the outcome of an operation can be asked for again.
pub const KEEP_OUTCOME_MS: u64 = 60_000;

/// The most operations one service remembers, and one more while it is being told; the oldest answered one
/// makes room, where all wait the oldest is answered with `Superseded` first.
pub const MOST_OPERATIONS: usize = 64;

/// What the unit says, as far as policy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Whether the supervisor starts it by itself.
    pub start_at_boot: bool,
    /// `[restart]`.
    pub backoff: Backoff,
    /// Milliseconds from the stop signal to KILL; None: no limit.
    pub stop_timeout_ms: Option<u64>,
    /// Milliseconds from the gate to ready; None: no limit.
    pub start_timeout_ms: Option<u64>,
    /// What makes an incarnation ready.
    pub ready: Readiness,
    /// What it is for.
    pub kind: Kind,
    /// Exit codes that are a success.
    pub success: Codes,
    /// How many commands run before the first incarnation of a generation.
    pub before: u16,
    /// Milliseconds of life that prove an incarnation good.
    pub settle_ms: u64,
}

impl Spec {
    /// Whether an incarnation that ended like this did what it was to do.
    pub fn is_success(&self, end: End) -> bool {
        match end {
            End::Exited(Exit::Code(code)) => self.success.has(code),
            End::Exited(Exit::Signal(_) | Exit::Unknown)
            | End::Launch { .. }
            | End::NoProcess(_)
            | End::Unprepared
            | End::TimedOut
            | End::NotReady => false,
        }
    }
}

/// What a service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To run until it is stopped.
    Service,
    /// To run until it is done: it proves itself by its success.
    Task,
}

/// A set of exit codes, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes([u64; 4]);

impl Codes {
    /// 0 alone.
    pub const ZERO: Self = Self([1, 0, 0, 0]);

    /// Those of a list.
    pub fn of(list: &[u8]) -> Self {
        let mut words = [0u64; 4];
        for code in list {
            if let Some(word) = words.get_mut(usize::from(code / 64)) {
                *word |= 1 << (code % 64);
            }
        }
        Self(words)
    }

    /// Whether it is one of them.
    pub fn has(&self, code: i32) -> bool {
        let place = u8::try_from(code).ok();
        let word = place.and_then(|code| self.0.get(usize::from(code / 64)).map(|word| word >> (code % 64)));
        word.is_some_and(|word| word & 1 == 1)
    }
}

/// What makes an incarnation ready, from where on it has to live for `settle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Its command executes.
    Started,
    /// It says so.
    Told,
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Running.
    Up,
    /// Not running.
    Down,
}

/// What is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing runs, as wanted.
    Stopped,
    /// Nothing runs: it ended with success and is not to be started again.
    Done,
    /// Nothing runs: it failed and is not to be started again by us.
    Failed,
    /// Nothing runs until then.
    BackingOff {
        /// When the next start is due.
        until: Mono,
    },
    /// A process was asked for.
    Cloning {
        /// The incarnation.
        run: Run,
    },
    /// The gate is or will be open, the command does not execute yet.
    Launching {
        /// The incarnation.
        run: Run,
        /// When `start-timeout` is over.
        give_up_at: Option<Mono>,
    },
    /// One of the commands before the first start of a generation executes, for as long as it takes.
    Preparing {
        /// The incarnation.
        run: Run,
    },
    /// The command executes and has not said that it is ready.
    Starting {
        /// The incarnation.
        run: Run,
        /// When `start-timeout` is over.
        give_up_at: Option<Mono>,
    },
    /// It is ready and has not proven itself yet.
    Settling {
        /// The incarnation.
        run: Run,
        /// When it will have.
        until: Mono,
    },
    /// The command executes.
    Running {
        /// The incarnation.
        run: Run,
    },
    /// It is to end.
    Stopping {
        /// The incarnation.
        run: Run,
        /// Whether the stop signal is known to have been sent.
        signalled: bool,
        /// Whether everything was to get KILL already.
        killed: bool,
        /// When everything gets KILL (again).
        kill_at: Option<Mono>,
    },
    /// The main process has ended, the rest of its tree is being ended.
    Clearing {
        /// The incarnation.
        run: Run,
        /// When the rest gets KILL (again).
        kill_at: Option<Mono>,
    },
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// An incarnation, not older than this one, that has proven itself.
    Proven(Run),
    /// Nothing runs.
    Gone,
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

/// One of the commands before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Which, from 0.
    pub index: u16,
}

/// Everything that must survive the manager, of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What the operator wants.
    pub goal: Goal,
    /// What is so.
    pub phase: Phase,
    /// When the phase began.
    pub since: Mono,
    /// Number of the set of inputs, from 1.
    pub generation: u32,
    /// The newest incarnation there has been.
    pub last_run: Run,
    /// The generation of that one.
    pub run_generation: u32,
    /// How many of the commands before the start have succeeded in this generation.
    #[serde(default)]
    pub prepared: u16,
    /// Which of them the newest incarnation is, where it is one.
    #[serde(default)]
    pub before: Option<Before>,
    /// Which of them the incarnation was that ended last, where it was one.
    #[serde(default)]
    pub last_before: Option<Before>,
    /// When the command of the newest incarnation began to execute.
    pub up_since: Option<Mono>,
    /// Consecutive failures.
    pub failures: u32,
    /// Consecutive refusals of a process.
    pub shortages: u32,
    /// Starts that repeated this generation.
    pub restarts: u32,
    /// How the newest incarnation that ended did.
    pub last_end: Option<End>,
    /// A failed step of the incarnation that is ending, to be told instead of its exit.
    pub pending_end: Option<End>,
    /// Operations.
    pub asked: Vec<Asked>,
}

impl Service {
    /// One that has never run.
    pub fn new(now: Mono) -> Self {
        Self {
            goal: Goal::Down,
            phase: Phase::Stopped,
            since: now,
            generation: 1,
            last_run: Run(0),
            run_generation: 1,
            prepared: 0,
            before: None,
            last_before: None,
            up_since: None,
            failures: 0,
            shortages: 0,
            restarts: 0,
            last_end: None,
            pending_end: None,
            asked: Vec::new(),
        }
    }

    /// The incarnation that exists or is being made.
    pub const fn run(&self) -> Option<Run> {
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::BackingOff { .. } => None,
            Phase::Cloning { run }
            | Phase::Launching { run, .. }
            | Phase::Preparing { run }
            | Phase::Starting { run, .. }
            | Phase::Settling { run, .. }
            | Phase::Running { run }
            | Phase::Stopping { run, .. }
            | Phase::Clearing { run, .. } => Some(run),
        }
    }

    /// Whether nothing runs and nothing is being started.
    pub const fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Done | Phase::Failed)
    }

    /// When `Tick` is due; None: nothing to wait for.
    pub fn deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::BackingOff { until } | Phase::Settling { until, .. } => Some(until),
            Phase::Launching { give_up_at, .. } | Phase::Starting { give_up_at, .. } => give_up_at,
            Phase::Stopping { kill_at, .. } | Phase::Clearing { kill_at, .. } => kill_at,
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::Cloning { .. }
            | Phase::Preparing { .. }
            | Phase::Running { .. } => None,
        }
    }

    /// The outcome of an operation: None where it is unknown, Some(None) while it is waited for.
    pub fn outcome(&self, operation: Operation) -> Option<Option<Outcome>> {
        let asked = self.asked.iter().find(|asked| asked.operation == operation)?;
        Some(asked.outcome.map(|(outcome, _)| outcome))
    }
}
