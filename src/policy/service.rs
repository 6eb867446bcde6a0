//! PURE. One service: goal × phase. Never touches another service.
//!
//! The life of an incarnation, and what is true in each phase:
//!
//! ```text
//!             Spawn            Release           Executed          settle over
//!  Stopped ─────────► Cloning ─────────► Launching ─────────► Settling ─────────► Running
//!     ▲                  │ NotCloned        │ Gone               │ Gone              │ Gone
//!     │                  ▼                  ▼                    ▼                   ▼
//!     │              BackingOff ◄────────────────────────── Clearing ◄───────── Stopping
//!     └───────────────────────────────────────────────────────┘ (goal Down)
//! ```
//!
//! - `Cloning`: the intent is written down; a process may or may not exist; nothing of the command runs.
//! - `Launching`: the process is written down and registered, the gate is or will be open.
//! - `Settling`: the command executes; it proves itself by living for `settle`.
//! - `Stopping`: the stop intent is written down; `signalled` once the signal is known to have been sent.
//! - `Clearing`: the main process has ended; the rest of its tree is being ended. No new incarnation starts
//!   before `Empty`, so that there are never two at once without an overlap that was asked for.
//!
//! Every operation ends in exactly one outcome, which stays with the service (so a client that lost its
//! connection can ask again) until [`KEEP_OUTCOME_MS`] has passed.

use serde::{Deserialize, Serialize};

use super::backoff::{self, Backoff, Next};
use super::{Action, End, Event, Exit, Mono, Operation, Outcome, Run};

/// Milliseconds for which the outcome of an operation can be asked for again.
pub const KEEP_OUTCOME_MS: u64 = 60_000;

/// The most operations one service remembers, and one more while it is being told; the oldest answered one
/// makes room, where all wait the oldest is answered with `Superseded` first.
pub const MOST_OPERATIONS: usize = 64;

/// Milliseconds between KILLs of a tree that is still there; KILL is final, so this only covers forks that
/// raced with it where no cgroup holds the tree.
const KILL_AGAIN_MS: u64 = 1_000;

/// What the unit says, as far as policy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Whether the supervisor starts it by itself.
    pub start_at_boot: bool,
    /// `[restart]`.
    pub backoff: Backoff,
    /// Milliseconds from the stop signal to KILL; None: no limit.
    pub stop_timeout_ms: Option<u64>,
    /// Milliseconds for the steps before the command; None: no limit.
    pub start_timeout_ms: Option<u64>,
    /// Milliseconds of life that prove an incarnation good.
    pub settle_ms: u64,
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
    /// The command executes and has not proven itself yet.
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
            Phase::Launching { give_up_at, .. } => give_up_at,
            Phase::Stopping { kill_at, .. } | Phase::Clearing { kill_at, .. } => kill_at,
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Cloning { .. } | Phase::Running { .. } => {
                None
            }
        }
    }

    /// The outcome of an operation: None where it is unknown, Some(None) while it is waited for.
    pub fn outcome(&self, operation: Operation) -> Option<Option<Outcome>> {
        let asked = self.asked.iter().find(|asked| asked.operation == operation)?;
        Some(asked.outcome.map(|(outcome, _)| outcome))
    }
}

/// One step's surroundings: the unit's numbers, the time, the source of new ids, the actions so far.
pub struct Step<'a> {
    /// The unit's numbers.
    pub spec: &'a Spec,
    /// Now.
    pub now: Mono,
    /// The whole supervisor is stopping: nothing comes up any more.
    pub closing: bool,
    /// The next unused incarnation.
    pub next_run: &'a mut Run,
    /// The actions, in order.
    pub out: &'a mut Vec<Action>,
}

impl Service {
    /// Takes one event.
    pub fn step(&mut self, event: Event, step: &mut Step<'_>) {
        match event {
            Event::Boot => {
                if step.spec.start_at_boot && !step.closing {
                    self.goal = Goal::Up;
                    self.bring_up(step);
                }
            }
            Event::Start(operation) => self.start(operation, step),
            Event::Stop(operation) => self.stop(operation, step),
            Event::Restart(operation) => self.restart(operation, step),
            Event::Close => {
                self.goal = Goal::Down;
                self.answer_waiting(Outcome::Closing, step);
                self.take_down(step);
            }
            Event::Cloned(run) => self.cloned(run, step),
            Event::NotCloned(run, end) => self.not_cloned(run, end, step),
            Event::Executed(run) => self.executed(run, step),
            Event::NotExecuted(run, end) => self.not_executed(run, end),
            Event::Signalled(run) => self.signalled(run),
            Event::Gone(run, exit) => self.gone(run, exit, step),
            Event::Empty(run) => self.empty(run, step),
            Event::Lost(run) => self.lost(run, step),
            Event::Tick => self.tick(step),
        }
        self.settle_operations(step);
    }

    fn enter(&mut self, phase: Phase, now: Mono) {
        self.phase = phase;
        self.since = now;
    }

    // ---- what operators want -------------------------------------------------------------------------

    fn start(&mut self, operation: Operation, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return; // asked again after a broken connection
        }
        if step.closing {
            self.ask(operation, Want::Proven(self.last_run), Some(Outcome::Closing), step);
            return;
        }
        self.supersede(step, |want| matches!(want, Want::Gone));
        self.goal = Goal::Up;
        self.failures = 0;
        let was_up = matches!(self.phase, Phase::Running { .. });
        self.bring_up(step);
        let floor = match self.phase {
            // The one that is ending cannot prove anything any more.
            Phase::Stopping { .. } | Phase::Clearing { .. } => Run(self.last_run.0 + 1),
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. } => self.last_run,
        };
        self.ask(operation, Want::Proven(floor), was_up.then_some(Outcome::Already), step);
    }

    fn stop(&mut self, operation: Operation, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return;
        }
        self.supersede(step, |want| matches!(want, Want::Proven(_)));
        self.goal = Goal::Down;
        let was_down = self.is_down();
        self.take_down(step);
        self.ask(operation, Want::Gone, was_down.then_some(Outcome::Already), step);
    }

    fn restart(&mut self, operation: Operation, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return;
        }
        if step.closing {
            self.ask(operation, Want::Proven(self.last_run), Some(Outcome::Closing), step);
            return;
        }
        self.supersede(step, |want| matches!(want, Want::Gone));
        self.goal = Goal::Up;
        self.generation = self.generation.saturating_add(1);
        self.failures = 0;
        self.restarts = 0;
        let floor = Run(self.last_run.0 + 1);
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::BackingOff { .. } => self.bring_up(step),
            Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. } => self.take_down(step),
            Phase::Stopping { .. } | Phase::Clearing { .. } => {} // the next one starts when this has ended
        }
        self.ask(operation, Want::Proven(floor), None, step);
    }

    fn bring_up(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::BackingOff { .. } => self.spawn(step),
            Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // up, or up again once this one has ended
        }
    }

    fn take_down(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed => {}
            Phase::BackingOff { .. } => self.enter(Phase::Stopped, step.now),
            // No process to signal yet: `cloned` sees what is wanted by then.
            Phase::Cloning { .. } | Phase::Stopping { .. } | Phase::Clearing { .. } => {}
            Phase::Launching { run, .. } => {
                // The command does not run yet, so there is nothing to end gracefully.
                step.out.push(Action::Kill(run));
                let kill_at = Some(step.now.after(KILL_AGAIN_MS));
                self.enter(Phase::Stopping { run, signalled: true, kill_at }, step.now);
            }
            Phase::Settling { run, .. } | Phase::Running { run } => {
                step.out.push(Action::Terminate(run));
                let kill_at = step.spec.stop_timeout_ms.map(|ms| step.now.after(ms));
                self.enter(Phase::Stopping { run, signalled: false, kill_at }, step.now);
            }
        }
    }

    fn spawn(&mut self, step: &mut Step<'_>) {
        let run = *step.next_run;
        step.next_run.0 += 1;
        self.last_run = run;
        self.up_since = None;
        self.pending_end = None;
        step.out.push(Action::Spawn(run));
        self.enter(Phase::Cloning { run }, step.now);
    }

    // ---- what became of actions ----------------------------------------------------------------------

    fn cloned(&mut self, run: Run, step: &mut Step<'_>) {
        match self.phase {
            Phase::Cloning { run: ours } if ours == run => {
                // A child that is no longer wanted goes through the same door, so that there is one way for
                // a process to be accounted for; the gate stays shut and KILL comes at once.
                let wanted = matches!(self.goal, Goal::Up) && !self.newer_is_wanted(run);
                if wanted {
                    step.out.push(Action::Release(run));
                    let give_up_at = step.spec.start_timeout_ms.map(|ms| step.now.after(ms));
                    self.enter(Phase::Launching { run, give_up_at }, step.now);
                } else {
                    step.out.push(Action::Kill(run));
                    let kill_at = Some(step.now.after(KILL_AGAIN_MS));
                    self.enter(Phase::Stopping { run, signalled: true, kill_at }, step.now);
                }
            }
            Phase::Cloning { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Launching { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // a late report of one that was given up
        }
    }

    fn not_cloned(&mut self, run: Run, end: End, step: &mut Step<'_>) {
        if matches!(self.phase, Phase::Cloning { run: ours } if ours == run) {
            self.ended(run, end, step);
        }
    }

    fn executed(&mut self, run: Run, step: &mut Step<'_>) {
        match self.phase {
            Phase::Launching { run: ours, .. } if ours == run => {
                self.up_since = Some(step.now);
                self.shortages = 0;
                self.enter(Phase::Settling { run, until: step.now.after(step.spec.settle_ms) }, step.now);
                self.tick(step); // a `settle` of nothing is over at once
            }
            Phase::Launching { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Cloning { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {}
        }
    }

    fn not_executed(&mut self, run: Run, end: End) {
        if self.run() == Some(run) {
            self.pending_end = Some(end); // the exit that follows tells less
        }
    }

    fn signalled(&mut self, run: Run) {
        if let Phase::Stopping { run: ours, signalled, .. } = &mut self.phase
            && *ours == run
        {
            *signalled = true;
        }
    }

    fn gone(&mut self, run: Run, exit: Exit, step: &mut Step<'_>) {
        match self.phase {
            Phase::Launching { run: ours, .. }
            | Phase::Settling { run: ours, .. }
            | Phase::Running { run: ours }
            | Phase::Stopping { run: ours, .. }
                if ours == run =>
            {
                self.pending_end = Some(self.pending_end.unwrap_or(End::Exited(exit)));
                // What is left keeps the time that the main process was given, and no more.
                let kill_at = match self.phase {
                    Phase::Stopping { kill_at, .. } => kill_at,
                    Phase::Stopped
                    | Phase::Done
                    | Phase::Failed
                    | Phase::BackingOff { .. }
                    | Phase::Cloning { .. }
                    | Phase::Launching { .. }
                    | Phase::Settling { .. }
                    | Phase::Running { .. }
                    | Phase::Clearing { .. } => step.spec.stop_timeout_ms.map(|ms| step.now.after(ms)),
                };
                step.out.push(Action::Clear(run));
                self.enter(Phase::Clearing { run, kill_at }, step.now);
            }
            Phase::Launching { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Cloning { .. }
            | Phase::Clearing { .. } => {} // told already, or of another
        }
    }

    fn empty(&mut self, run: Run, step: &mut Step<'_>) {
        if matches!(self.phase, Phase::Clearing { run: ours, .. } if ours == run) {
            let end = self.pending_end.take().unwrap_or(End::Exited(Exit::Unknown));
            self.ended(run, end, step);
        }
    }

    fn lost(&mut self, run: Run, step: &mut Step<'_>) {
        if self.run() != Some(run) {
            return;
        }
        // Nobody is to blame but us: start again at once, and count nothing.
        self.enter(Phase::Stopped, step.now);
        if matches!(self.goal, Goal::Up) {
            self.spawn(step);
        }
    }

    /// Nothing is left of `run`, which ended like this.
    fn ended(&mut self, run: Run, end: End, step: &mut Step<'_>) {
        self.last_end = Some(end);
        if matches!(self.goal, Goal::Down) {
            self.enter(Phase::Stopped, step.now);
            return;
        }
        if self.newer_is_wanted(run) {
            self.spawn(step); // a restart: this end was asked for
            return;
        }
        if backoff::is_shortage(end) {
            self.shortages = self.shortages.saturating_add(1);
            let until = step.now.after(backoff::shortage_delay(self.shortages));
            self.enter(Phase::BackingOff { until }, step.now);
            return;
        }
        if let (Some(reset), Some(up_since)) = (step.spec.backoff.reset_after_ms, self.up_since)
            && step.now.since(up_since) >= reset
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.fail_waiting(end, step);
        match step.spec.backoff.next(end, self.failures, run) {
            Next::After(ms) => {
                self.enter(Phase::BackingOff { until: step.now.after(ms) }, step.now);
                self.tick(step); // a delay of nothing is over at once
            }
            Next::Done => {
                self.failures = 0;
                self.enter(Phase::Done, step.now);
            }
            Next::Failed => self.enter(Phase::Failed, step.now),
        }
    }

    fn tick(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        match self.phase {
            Phase::BackingOff { until } if now >= until => {
                self.restarts = self.restarts.saturating_add(1);
                self.spawn(step);
            }
            Phase::Settling { run, until } if now >= until => self.enter(Phase::Running { run }, now),
            Phase::Launching { run, give_up_at: Some(at) } if now >= at => {
                self.pending_end = Some(End::TimedOut);
                step.out.push(Action::Kill(run));
                let kill_at = Some(now.after(KILL_AGAIN_MS));
                self.enter(Phase::Stopping { run, signalled: true, kill_at }, now);
            }
            Phase::Stopping { run, kill_at: Some(at), .. } if now >= at => {
                step.out.push(Action::Kill(run));
                let kill_at = Some(now.after(KILL_AGAIN_MS));
                self.phase = Phase::Stopping { run, signalled: true, kill_at };
            }
            Phase::Clearing { run, kill_at: Some(at) } if now >= at => {
                step.out.push(Action::Kill(run));
                self.phase = Phase::Clearing { run, kill_at: Some(now.after(KILL_AGAIN_MS)) };
            }
            Phase::BackingOff { .. }
            | Phase::Settling { .. }
            | Phase::Launching { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::Cloning { .. }
            | Phase::Running { .. } => {} // an early tick
        }
    }
}
