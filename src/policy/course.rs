//! PURE. What becomes of an incarnation: what actions brought, what it says of itself, and its end. Never takes
//! an operator's word.

use super::backoff::{self, Next};
use super::service::{Before, Goal, KILL_AGAIN_MS, Kind, Phase, Readiness, Service, Step};
use super::{Action, End, Exit, Mono, Run};

impl Service {
    // ---- what became of actions ----------------------------------------------------------------------

    pub(super) fn cloned(&mut self, run: Run, step: &mut Step<'_>) {
        match self.phase {
            Phase::Cloning { run: ours } if ours == run => {
                // A child that is no longer wanted goes through the same door, so that there is one way for
                // a process to be accounted for; the gate stays shut and KILL comes at once.
                let wanted =
                    matches!(self.goal, Goal::Up) && !self.newer_is_wanted(run) && !self.is_outdated();
                if wanted {
                    step.out.push(Action::Release(run));
                    let give_up_at = step.spec.start_timeout_ms.map(|ms| step.now.after(ms));
                    self.enter(Phase::Launching { run, give_up_at }, step.now);
                } else {
                    step.out.push(Action::Kill(run));
                    let kill_at = Some(step.now.after(KILL_AGAIN_MS));
                    self.enter(Phase::Stopping { run, signalled: true, killed: true, kill_at }, step.now);
                }
            }
            Phase::Cloning { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // a late report of one that was given up
        }
    }

    pub(super) fn not_cloned(&mut self, run: Run, end: End, step: &mut Step<'_>) {
        if matches!(self.phase, Phase::Cloning { run: ours } if ours == run) {
            self.ended(run, end, step);
        }
    }

    pub(super) fn executed(&mut self, run: Run, step: &mut Step<'_>) {
        match self.phase {
            Phase::Launching { run: ours, give_up_at } if ours == run => {
                self.up_since = Some(step.now);
                self.shortages = 0;
                if self.before.is_some() {
                    self.enter(Phase::Preparing { run }, step.now);
                    return;
                }
                self.enter(Phase::Starting { run, give_up_at }, step.now);
                match (step.spec.kind, step.spec.ready) {
                    (Kind::Task, _) => self.enter(Phase::Running { run }, step.now),
                    (Kind::Service, Readiness::Started) => self.ready(run, step),
                    (Kind::Service, Readiness::Told) => self.tick(step), // the time may be over already
                }
            }
            Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
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

    pub(super) fn ready(&mut self, run: Run, step: &mut Step<'_>) {
        match self.phase {
            Phase::Starting { run: ours, .. } if ours == run => {
                self.enter(Phase::Settling { run, until: step.now.after(step.spec.settle_ms) }, step.now);
                self.tick(step); // a `settle` of nothing is over at once
            }
            // The caller tells of the launch before it tells of what a command says.
            Phase::Launching { .. } | Phase::Preparing { .. } | Phase::Cloning { .. } => {}
            Phase::Starting { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // said again, too late, or by another
        }
    }

    pub(super) fn extended(&mut self, run: Run, ms: u64, step: &mut Step<'_>) {
        let later = |at: Mono| at.max(step.now.after(ms));
        match &mut self.phase {
            Phase::Starting { run: ours, give_up_at: Some(at) } if *ours == run => *at = later(*at),
            // Once KILL has been sent nothing that is left has a say.
            Phase::Stopping { run: ours, killed: false, kill_at: Some(at), .. } if *ours == run => {
                *at = later(*at);
            }
            Phase::Starting { .. }
            | Phase::Stopping { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Clearing { .. } => {} // nothing of its is limited
        }
    }

    pub(super) fn healed(&mut self, run: Run) {
        match self.phase {
            Phase::Starting { run: ours, .. }
            | Phase::Settling { run: ours, .. }
            | Phase::Running { run: ours }
                if ours == run =>
            {
                self.failures = 0;
            }
            Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // its end is decided, or it is another
        }
    }

    pub(super) fn not_executed(&mut self, run: Run, end: End) {
        if self.run() == Some(run) {
            self.pending_end = Some(end); // the exit that follows tells less
        }
    }

    pub(super) fn signalled(&mut self, run: Run) {
        if let Phase::Stopping { run: ours, signalled, .. } = &mut self.phase
            && *ours == run
        {
            *signalled = true;
        }
    }

    pub(super) fn gone(&mut self, run: Run, exit: Exit, step: &mut Step<'_>) {
        match self.phase {
            Phase::Launching { run: ours, .. }
            | Phase::Preparing { run: ours }
            | Phase::Starting { run: ours, .. }
            | Phase::Settling { run: ours, .. }
            | Phase::Running { run: ours }
            | Phase::Stopping { run: ours, .. }
                if ours == run =>
            {
                let succeeded = self.before.is_some() && exit == Exit::Code(0);
                self.pending_end = match self.pending_end {
                    // It did what it was to do, whatever had been decided about it.
                    Some(end) if !succeeded => Some(end),
                    Some(_) | None => Some(End::Exited(exit)),
                };
                // What is left keeps the time that the main process was given, and no more.
                let kill_at = match self.phase {
                    Phase::Stopping { kill_at, .. } => kill_at,
                    Phase::Stopped
                    | Phase::Done
                    | Phase::Failed
                    | Phase::BackingOff { .. }
                    | Phase::Cloning { .. }
                    | Phase::Launching { .. }
                    | Phase::Preparing { .. }
                    | Phase::Starting { .. }
                    | Phase::Settling { .. }
                    | Phase::Running { .. }
                    | Phase::Clearing { .. } => step.spec.stop_timeout_ms.map(|ms| step.now.after(ms)),
                };
                step.out.push(Action::Clear(run));
                self.enter(Phase::Clearing { run, kill_at }, step.now);
            }
            Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
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

    pub(super) fn empty(&mut self, run: Run, step: &mut Step<'_>) {
        if matches!(self.phase, Phase::Clearing { run: ours, .. } if ours == run) {
            let end = self.pending_end.take().unwrap_or(End::Exited(Exit::Unknown));
            self.ended(run, end, step);
        }
    }

    pub(super) fn lost(&mut self, run: Run, step: &mut Step<'_>) {
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
    pub(super) fn ended(&mut self, run: Run, end: End, step: &mut Step<'_>) {
        self.last_end = Some(end);
        self.last_before = self.before;
        let prepared = self.count_prepared(end);
        if matches!(self.goal, Goal::Down) {
            self.enter(Phase::Stopped, step.now);
            return;
        }
        if self.newer_is_wanted(run) || self.is_outdated() {
            self.spawn(step); // a restart: this end was asked for
            return;
        }
        if prepared {
            self.spawn(step); // the next of them, or what they were for
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
        let success = self.before.is_none() && step.spec.is_success(end);
        if success && step.spec.kind == Kind::Task {
            self.failures = 1;
            self.succeed_waiting(run, step);
        }
        self.fail_waiting(end, step);
        match step.spec.backoff.next(success, self.failures, run) {
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

    /// Whether the newest incarnation is of an older generation: a restart may have been overtaken by other
    /// commands, but not undone.
    const fn is_outdated(&self) -> bool {
        self.run_generation != self.generation
    }

    /// Whether this was the success of a command before the start, of this generation. It counts even where
    /// nobody wants the service any more: it is not to run again.
    fn count_prepared(&mut self, end: End) -> bool {
        match self.before {
            Some(Before { index }) if !self.is_outdated() && end == End::Exited(Exit::Code(0)) => {
                self.prepared = index.saturating_add(1);
                true
            }
            Some(_) | None => false,
        }
    }

    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
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
                self.enter(Phase::Stopping { run, signalled: true, killed: true, kill_at }, now);
            }
            Phase::Starting { run, give_up_at: Some(at) } if now >= at => {
                self.pending_end = Some(End::NotReady);
                self.take_down(step);
                // The stop may have no time at all.
                if self.deadline().is_some_and(|at| now >= at) {
                    self.kill_stopping(run, now, step);
                }
            }
            Phase::Stopping { run, kill_at: Some(at), .. } if now >= at => self.kill_stopping(run, now, step),
            Phase::Clearing { run, kill_at: Some(at) } if now >= at => {
                step.out.push(Action::Kill(run));
                self.phase = Phase::Clearing { run, kill_at: Some(now.after(KILL_AGAIN_MS)) };
            }
            Phase::BackingOff { .. }
            | Phase::Settling { .. }
            | Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::Cloning { .. }
            | Phase::Running { .. } => {} // an early tick
        }
    }

    fn kill_stopping(&mut self, run: Run, now: Mono, step: &mut Step<'_>) {
        step.out.push(Action::Kill(run));
        let kill_at = Some(now.after(KILL_AGAIN_MS));
        self.phase = Phase::Stopping { run, signalled: true, killed: true, kill_at };
    }
}
