//! PURE. Whether an incarnation works: probes, signs of life, and reading its configuration anew. Never knows what else
//! its service has.

use super::service::Step;
use super::state::{Incarnation, Phase, Probe};
use super::{Action, End, Mono};

/// Milliseconds between two probes of one that has yet to be found healthy.
const GATE_MS: u64 = 300;
/// Milliseconds that a probe may be late before it counts as lost.
const LATE_PROBE_MS: u64 = 5_000;
/// Milliseconds from ABRT to KILL, at least: time to write a core.
const ABORT_MS: u64 = 5_000;
/// A tick that is later than this many milliseconds says that nobody listened meanwhile.
const GAP_MS: u64 = 2_000;
/// Milliseconds for which it is waited that one says it has read its configuration anew; more where it says so.
pub const RELOAD_MS: u64 = 5_000;

impl Incarnation {
    /// It has lived for long enough. What is left of `start-timeout` is its time to be found healthy, and at least that
    /// of one probe.
    pub(super) fn settled(&mut self, give_up_at: Option<Mono>, step: &mut Step<'_>) {
        let Some(health) = step.spec.health else {
            self.run_on(step);
            return;
        };
        let once = step.now.after(health.timeout_ms.saturating_add(GATE_MS));
        let give_up_at = give_up_at.map(|at| at.max(once));
        self.enter(Phase::Proving { give_up_at }, step.now);
        if !matches!(self.probe, Some(Probe::Asked { .. })) {
            self.look(step);
        }
    }

    /// It is ready. One that shares its sockets with the one that it is to replace answers clients from here on, so
    /// it is looked at without waiting for `settle`: wrong answers are to end soon.
    pub(super) fn watch_settling(&mut self, step: &mut Step<'_>) {
        if step.spec.health.is_some() {
            self.look(step);
        }
    }

    /// It has proven itself.
    pub(super) fn run_on(&mut self, step: &Step<'_>) {
        self.enter(Phase::Running, step.now);
        self.ill = 0;
        self.probe = self.next_probe(step);
        self.watchdog = self.period(step).map(|ms| step.now.after(ms));
    }

    /// Nothing more is asked of it, and nothing more expected.
    pub(super) const fn unwatch(&mut self) {
        self.probe = None;
        self.watchdog = None;
        self.reload_until = None;
    }

    fn period(&self, step: &Step<'_>) -> Option<u64> {
        self.watchdog_ms.or(step.spec.watchdog_ms).filter(|ms| *ms > 0)
    }

    fn next_probe(&self, step: &Step<'_>) -> Option<Probe> {
        let interval_ms = step.spec.health.and_then(|health| health.interval_ms)?;
        Some(Probe::Due(step.now.after(interval_ms)))
    }

    fn look(&mut self, step: &mut Step<'_>) {
        let timeout_ms = step.spec.health.map_or(0, |health| health.timeout_ms);
        step.out.push(Action::Probe(self.run));
        self.probe = Some(Probe::Asked { lost_at: step.now.after(timeout_ms.saturating_add(LATE_PROBE_MS)) });
    }

    /// What a probe found; None where it did not get through, which says nothing of this one. A probe that nobody waits
    /// for says nothing either.
    pub(super) fn looked_at(&mut self, found: Option<bool>, step: &mut Step<'_>) {
        if !matches!(self.probe, Some(Probe::Asked { .. })) {
            return;
        }
        if let Phase::Settling { until, give_up_at } = self.phase
            && step.now >= until
        {
            self.settled(give_up_at, step); // the time may be over in the same turn
        }
        self.ill = match found {
            Some(true) => 0,
            Some(false) => self.ill.saturating_add(1),
            None => self.ill,
        };
        match self.phase {
            Phase::Proving { .. } if found == Some(true) => self.run_on(step),
            // It is asked again when it has settled.
            Phase::Settling { .. } if found == Some(true) => self.probe = None,
            Phase::Settling { .. } | Phase::Proving { .. } => {
                self.probe = Some(Probe::Due(step.now.after(GATE_MS)));
            }
            Phase::Running => {
                self.probe = self.next_probe(step);
            }
            Phase::Cloning
            | Phase::Launching { .. }
            | Phase::Preparing
            | Phase::Starting { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => {} // nobody looks at it
        }
    }

    /// A probe had no answer from it. Clients would wait for that too, but for a rehearsal nobody waits: it has until
    /// `start-timeout`.
    pub(super) fn unanswered(&mut self, step: &mut Step<'_>) {
        let found = if self.rehearsal { None } else { Some(false) };
        self.looked_at(found, step);
    }

    /// Whether so many probes found it ill that it is to be replaced.
    pub(super) fn is_ill(&self, step: &Step<'_>) -> bool {
        step.spec.health.is_some_and(|health| self.ill >= health.failures)
    }

    /// A sign of life. One that hung and does not any more is not replaced for that; what is on its way to replace it
    /// comes all the same. Who asked to be replaced is not listened to.
    pub(super) fn alive(&mut self, step: &Step<'_>) {
        if self.watchdog.is_some() {
            self.hung = false;
            self.listen_anew(step);
        }
    }

    fn listen_anew(&mut self, step: &Step<'_>) {
        self.watchdog = self.period(step).map(|ms| step.now.after(ms));
    }

    /// It says how often it will give a sign of life.
    pub(super) fn watched(&mut self, ms: u64, step: &Step<'_>) {
        if !self.has_a_say() {
            return;
        }
        self.watchdog_ms = Some(ms);
        let asked_to_go = self.hung && self.watchdog.is_none();
        if matches!(self.phase, Phase::Running) && !asked_to_go {
            self.listen_anew(step);
        }
    }

    /// It has given no sign of life. Where one can be started beside it, it stays until that has proven itself: others
    /// of its processes may serve, and nobody else does.
    fn hangs(&mut self, step: &mut Step<'_>) {
        if step.spec.replaces_hung() && matches!(self.phase, Phase::Running) {
            self.hung = true;
            self.listen_anew(step);
        } else {
            self.abort(step);
        }
    }

    /// It says that it is to be treated as if it had given no sign of life; later ones take nothing back.
    pub(super) fn give_up(&mut self, step: &mut Step<'_>) {
        if self.has_a_say() {
            self.hangs(step);
            self.watchdog = None;
        }
    }

    /// ABRT ends it, so that it can leave a core or a stack of what it hangs in.
    fn abort(&mut self, step: &mut Step<'_>) {
        self.pending_end = Some(End::Watchdog);
        step.out.push(Action::Abort(self.run));
        self.unwatch();
        // While nothing else serves it is ended soon.
        let limit_ms = if self.dismissed { step.spec.stop_timeout_ms } else { Some(0) };
        let kill_at = limit_ms.map(|ms| step.now.after(ms.max(ABORT_MS)));
        self.enter(Phase::Stopping { signalled: false, killed: false, kill_at, signal_at: None }, step.now);
    }

    /// Another has proven itself in its place.
    pub(super) fn give_way(&mut self, step: &mut Step<'_>) {
        if self.hung && matches!(self.phase, Phase::Running) && !self.dismissed {
            self.dismissed = true;
            self.abort(step);
        } else {
            self.dismiss(step);
        }
    }

    /// It is ill, and nothing is started beside it.
    pub(super) fn end_of_illness(&mut self, step: &mut Step<'_>) {
        self.pending_end = Some(End::Unhealthy);
        self.terminate(step);
    }

    /// It is to read its configuration anew.
    pub(super) fn reload(&mut self, step: &mut Step<'_>) {
        step.out.push(Action::Reload(self.run));
        self.reload_until = Some(step.now.after(RELOAD_MS));
    }

    /// What is due besides the phase.
    pub(super) fn keep_watch(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        match self.probe {
            Some(Probe::Due(at) | Probe::Asked { lost_at: at }) if now >= at => self.look(step),
            Some(Probe::Due(_) | Probe::Asked { .. }) | None => {}
        }
        if self.reload_until.is_some_and(|at| now >= at) {
            self.reload_until = None; // it says nothing of it: it was told, and that is all
        }
        if let Some(at) = self.watchdog.filter(|at: &Mono| now >= *at) {
            if now.since(at) > GAP_MS {
                self.listen_anew(step); // we were away, not it
            } else {
                self.hangs(step);
            }
        }
    }
}
