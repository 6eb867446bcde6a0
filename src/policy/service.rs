//! PURE. One service: goal × phase. Never touches another service.
//!
//! The life of an incarnation, and what is true in each phase:
//!
//! ```text
//!             Spawn            Release           Executed         Ready          settle over
//!  Stopped ─────────► Cloning ─────────► Launching ─────────► Starting ─────► Settling ─────► Running
//!     ▲                  │ NotCloned        │ Gone               │ Gone          │ Gone          │ Gone
//!     │                  ▼                  ▼                    ▼               ▼               ▼
//!     │              BackingOff ◄──────────────────────────────────────────── Clearing ◄──── Stopping
//!     └─────────────────────────────────────────────────────────────────────────┘ (goal Down)
//! ```
//!
//! - `Cloning`: the intent is written down; a process may or may not exist; nothing of the command runs.
//! - `Launching`: the process is written down and registered, the gate is or will be open.
//! - `Starting`: the command executes and has not said that it is ready; where nobody waits for such a word
//!   (`ready = "started"`) this phase is passed at once. `start-timeout` runs from the gate to its end.
//! - `Settling`: it is ready; it proves itself by living for `settle`.
//! - `Stopping`: the stop intent is written down; `signalled` once the signal is known to have been sent.
//! - `Clearing`: the main process has ended; the rest of its tree is being ended. No new incarnation starts
//!   before `Empty`, so that there are never two at once without an overlap that was asked for.
//!
//! The commands before the first start of a generation are incarnations of their own, one after the other: from
//! `Launching` to `Preparing`, which lasts until they end. One that succeeded is not run again in its generation,
//! whoever dies; one that failed is a failed start, and where `[restart]` tries again it goes on from there.
//!
//! A task goes from `Launching` to `Running` at once: it is neither ready nor proven before it has ended with
//! success, which an operator who starts it waits for.
//!
//! Every operation ends in exactly one outcome, which stays with the service (so a client that lost its
//! connection can ask again) until [`KEEP_OUTCOME_MS`] has passed.

pub use super::state::{
    Asked, Before, Codes, Goal, KEEP_OUTCOME_MS, Kind, MOST_OPERATIONS, Phase, Readiness, Service, Spec, Want,
};
use super::{Action, Event, Mono, Operation, Outcome, Run};

/// Milliseconds between KILLs of a tree that is still there; KILL is final, so this only covers forks that
/// raced with it where no cgroup holds the tree.
pub(super) const KILL_AGAIN_MS: u64 = 1_000;

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
            Event::Ready(run) => self.ready(run, step),
            Event::Extended(run, ms) => self.extended(run, ms, step),
            Event::Healed(run) => self.healed(run),
            Event::Signalled(run) => self.signalled(run),
            Event::Gone(run, exit) => self.gone(run, exit, step),
            Event::Empty(run) => self.empty(run, step),
            Event::Lost(run) => self.lost(run, step),
            Event::Tick => self.tick(step),
        }
        self.settle_operations(step);
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Mono) {
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
        // A task that runs has not done yet what is asked for.
        let was_up = matches!((self.phase, step.spec.kind), (Phase::Running { .. }, Kind::Service));
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
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
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
        self.prepared = 0;
        let floor = Run(self.last_run.0 + 1);
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::BackingOff { .. } => self.bring_up(step),
            Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
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
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // up, or up again once this one has ended
        }
    }

    pub(super) fn take_down(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed => {}
            Phase::BackingOff { .. } => self.enter(Phase::Stopped, step.now),
            // No process to signal yet: `cloned` sees what is wanted by then.
            Phase::Cloning { .. } | Phase::Stopping { .. } | Phase::Clearing { .. } => {}
            Phase::Launching { run, .. } => {
                // The command does not run yet, so there is nothing to end gracefully.
                step.out.push(Action::Kill(run));
                let kill_at = Some(step.now.after(KILL_AGAIN_MS));
                self.enter(Phase::Stopping { run, signalled: true, killed: true, kill_at }, step.now);
            }
            Phase::Preparing { run }
            | Phase::Starting { run, .. }
            | Phase::Settling { run, .. }
            | Phase::Running { run } => {
                step.out.push(Action::Terminate(run));
                let kill_at = step.spec.stop_timeout_ms.map(|ms| step.now.after(ms));
                self.enter(Phase::Stopping { run, signalled: false, killed: false, kill_at }, step.now);
            }
        }
    }

    pub(super) fn spawn(&mut self, step: &mut Step<'_>) {
        let run = *step.next_run;
        step.next_run.0 += 1;
        self.last_run = run;
        self.up_since = None;
        self.pending_end = None;
        let index = self.prepared;
        self.before = (index < step.spec.before).then_some(Before { index });
        self.run_generation = self.generation;
        step.out.push(Action::Spawn(run));
        self.enter(Phase::Cloning { run }, step.now);
    }
}
