//! PURE. What becomes of one incarnation: what actions brought, what it says of itself, and its end. Never
//! knows what else its service has.

use super::service::{KILL_AGAIN_MS, Step};
use super::spec::{Kind, Readiness};
use super::state::{Incarnation, Phase};
use super::{Action, End, Exit, Mono};

/// The most milliseconds that a rehearsal has to end.
const REHEARSAL_STOP_MS: u64 = 5_000;

impl Incarnation {
    pub(super) const fn enter(&mut self, phase: Phase, now: Mono) {
        self.phase = phase;
        self.since = now;
    }

    // ---- what became of actions ----------------------------------------------------------------------

    pub(super) fn cloned(&mut self, step: &mut Step<'_>) {
        match self.phase {
            // A child that is no longer wanted goes through the same door, so that there is one way for a
            // process to be accounted for; the gate stays shut and KILL comes at once.
            Phase::Cloning if self.dismissed => self.kill_at_gate(step),
            Phase::Cloning => {
                step.out.push(Action::Release(self.run));
                let give_up_at = step.spec.start_timeout_ms.map(|ms| step.now.after(ms));
                self.enter(Phase::Launching { give_up_at }, step.now);
            }
            Phase::Launching { .. }
            | Phase::Preparing
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Running
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // a late report
        }
    }

    fn kill_at_gate(&mut self, step: &mut Step<'_>) {
        step.out.push(Action::Kill(self.run));
        let kill_at = Some(step.now.after(KILL_AGAIN_MS));
        let phase = Phase::Stopping { signalled: true, killed: true, kill_at, signal_at: None };
        self.enter(phase, step.now);
    }

    /// True where the command executes from now on.
    pub(super) fn executed(&mut self, step: &mut Step<'_>) -> bool {
        match self.phase {
            Phase::Launching { give_up_at } => {
                self.up_since = Some(step.now);
                if self.before.is_some() {
                    self.enter(Phase::Preparing, step.now);
                    return true;
                }
                self.enter(Phase::Starting { give_up_at }, step.now);
                match (step.spec.kind, step.spec.ready) {
                    (Kind::Task, _) => self.run_on(step),
                    (Kind::Service, Readiness::Started) => self.ready(step),
                    (Kind::Service, Readiness::Told) => self.tick(step), // the time may be over already
                }
                true
            }
            Phase::Cloning
            | Phase::Preparing
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Running
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => false,
        }
    }

    pub(super) fn ready(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Starting { give_up_at } => {
                self.deaf_until = Some(step.spec.deaf_ms).filter(|ms| *ms > 0).map(|ms| step.now.after(ms));
                if self.rehearsal {
                    self.settled(give_up_at, step); // whether it lasts is seen of the real one
                    return;
                }
                let settle_ms = step.spec.settle_ms;
                let give_up_at = give_up_at.map(|at| at.after(settle_ms));
                self.enter(Phase::Settling { until: step.now.after(settle_ms), give_up_at }, step.now);
                self.watch_settling(step);
                self.tick(step); // a `settle` of nothing is over at once
            }
            // The caller tells of the launch before it tells of what a command says.
            Phase::Cloning | Phase::Launching { .. } | Phase::Preparing => {}
            Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Running
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // said again, or too late
        }
    }

    pub(super) fn extended(&mut self, ms: u64, step: &mut Step<'_>) {
        let later = |at: Mono| at.max(step.now.after(ms));
        match &mut self.phase {
            Phase::Starting { give_up_at: Some(at) } => *at = later(*at),
            Phase::Running if self.reload_until.is_some() => {
                self.reload_until = self.reload_until.map(later);
            }
            // Once KILL has been sent nothing that is left has a say; nor has one that serves nobody.
            Phase::Stopping { killed: false, kill_at: Some(at), .. } if !self.rehearsal => *at = later(*at),
            Phase::Starting { give_up_at: None }
            | Phase::Stopping { .. }
            | Phase::Cloning
            | Phase::Launching { .. }
            | Phase::Preparing
            | Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Running
            | Phase::Clearing { .. } => {} // nothing of its is limited
        }
    }

    /// Whether what it says of its health is believed: its end is not decided.
    pub(super) const fn has_a_say(&self) -> bool {
        match self.phase {
            Phase::Starting { .. } | Phase::Settling { .. } | Phase::Proving { .. } | Phase::Running => true,
            Phase::Cloning
            | Phase::Launching { .. }
            | Phase::Preparing
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => false,
        }
    }

    pub(super) const fn signalled(&mut self) {
        if let Phase::Stopping { signalled, .. } = &mut self.phase {
            *signalled = true;
        }
    }

    pub(super) fn gone(&mut self, exit: Exit, step: &mut Step<'_>) {
        // What is left keeps the time that the main process was given, and no more.
        let kill_at = match self.phase {
            Phase::Stopping { kill_at, .. } => kill_at,
            Phase::Launching { .. }
            | Phase::Preparing
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Running => self.stop_timeout_ms(step).map(|ms| step.now.after(ms)),
            Phase::Cloning | Phase::Clearing { .. } => return, // of nobody yet, or told already
        };
        let succeeded = self.before.is_some() && exit == Exit::Code(0);
        self.pending_end = match self.pending_end {
            // It did what it was to do, whatever had been decided about it.
            Some(end) if !succeeded => Some(end),
            Some(_) | None => Some(End::Exited(exit)),
        };
        step.out.push(Action::Clear(self.run));
        self.unwatch();
        self.enter(Phase::Clearing { kill_at }, step.now);
    }

    // ---- time, and what others decide ----------------------------------------------------------------

    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        self.tick_phase(step);
        self.keep_watch(step); // of one that goes on
    }

    fn tick_phase(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        match self.phase {
            Phase::Settling { until, give_up_at } if now >= until => self.settled(give_up_at, step),
            Phase::Proving { give_up_at: Some(at) } if now >= at => {
                self.pending_end = Some(End::Unhealthy);
                self.terminate(step);
            }
            Phase::Launching { give_up_at: Some(at) } if now >= at => {
                self.pending_end = Some(End::TimedOut);
                self.kill_at_gate(step);
            }
            Phase::Starting { give_up_at: Some(at) } if now >= at => {
                self.pending_end = Some(End::NotReady);
                self.terminate(step);
            }
            Phase::Stopping { kill_at: Some(at), .. } if now >= at => self.kill(step),
            Phase::Stopping { signalled, killed, kill_at, signal_at: Some(at) } if now >= at => {
                step.out.push(Action::Terminate(self.run));
                self.phase = Phase::Stopping { signalled, killed, kill_at, signal_at: None };
            }
            Phase::Clearing { kill_at: Some(at) } if now >= at => {
                step.out.push(Action::Kill(self.run));
                self.phase = Phase::Clearing { kill_at: Some(now.after(KILL_AGAIN_MS)) };
            }
            Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Launching { .. }
            | Phase::Preparing
            | Phase::Starting { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Cloning
            | Phase::Running => {} // an early tick
        }
    }

    /// It is not wanted any longer, and that is not its fault.
    pub(super) fn dismiss(&mut self, step: &mut Step<'_>) {
        self.dismissed = true;
        match self.phase {
            // No process to signal yet: `cloned` sees to it.
            Phase::Cloning | Phase::Stopping { .. } | Phase::Clearing { .. } => {}
            // The command does not run yet, so there is nothing to end gracefully.
            Phase::Launching { .. } => self.kill_at_gate(step),
            Phase::Preparing
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Running => self.terminate(step),
        }
    }

    pub(super) fn terminate(&mut self, step: &mut Step<'_>) {
        let limit_ms = self.stop_timeout_ms(step);
        // One that has no time is not asked, but killed.
        let signal_at = self.deaf_until.filter(|at| step.now < *at && limit_ms != Some(0));
        if signal_at.is_none() {
            step.out.push(Action::Terminate(self.run));
        }
        self.unwatch();
        let kill_at = limit_ms.map(|ms| signal_at.unwrap_or(step.now).after(ms));
        self.enter(Phase::Stopping { signalled: false, killed: false, kill_at, signal_at }, step.now);
        if kill_at.is_some_and(|at| step.now >= at) {
            self.kill(step); // a stop may have no time at all
        }
    }

    /// Milliseconds that its stop may take; None: no limit. A rehearsal has no client to finish with, and somebody
    /// waits for what comes after it.
    fn stop_timeout_ms(&self, step: &Step<'_>) -> Option<u64> {
        let unit = step.spec.stop_timeout_ms;
        if self.rehearsal {
            Some(unit.map_or(REHEARSAL_STOP_MS, |ms| ms.min(REHEARSAL_STOP_MS)))
        } else {
            unit
        }
    }

    fn kill(&mut self, step: &mut Step<'_>) {
        step.out.push(Action::Kill(self.run));
        let kill_at = Some(step.now.after(KILL_AGAIN_MS));
        self.phase = Phase::Stopping { signalled: true, killed: true, kill_at, signal_at: None };
    }
}
