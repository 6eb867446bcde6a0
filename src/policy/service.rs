//! PURE. One service: goal × phase. Never touches another service.
//!
//! A service has *instances*; each has a *current* incarnation, and while one replaces another a *next* or a
//! *draining* one: never more than two. The life of an incarnation, and what is true in each phase:
//!
//! ```text
//!   Spawn            Release           Executed         Ready          settle over
//!  ─────► Cloning ─────────► Launching ─────────► Starting ─────► Settling ─────► Running
//!            │ NotCloned        │ Gone               │ Gone          │ Gone          │ Gone
//!            ▼                  ▼                    ▼               ▼               ▼
//!          ended ◄─────────── Clearing ◄──────────────────────────────────────────  Stopping
//! ```
//!
//! - `Cloning`: the intent is written down; a process may or may not exist; nothing of the command runs.
//! - `Launching`: the process is written down and registered, the gate is or will be open.
//! - `Starting`: the command executes and has not said that it is ready; where nobody waits for such a word
//!   (`ready = "started"`) this phase is passed at once. `start-timeout` runs from the gate to its end.
//! - `Settling`: it is ready; it proves itself by living for `settle`.
//! - `Running`: it has proven itself.
//! - `Stopping`: the stop intent is written down; `signalled` once the signal is known to have been sent.
//! - `Clearing`: the main process has ended; the rest of its tree is being ended. Nothing takes its place
//!   before `Empty`, so that there are never two at once without an overlap that was asked for.
//!
//! What is so where an instance has no current incarnation is its *rest*. An incarnation that was *dismissed* is to
//! end because somebody wanted it to: its end fails nothing and counts nowhere.
//!
//! The commands before the first start of a generation are incarnations of their own, one after the other: from
//! `Launching` to `Preparing`, which lasts until they end. The first instance runs them for all, or in a roll the
//! first that is replaced. One that succeeded is not run again in its generation, whoever dies; one that failed is
//! a failed start, and where `[restart]` tries again it goes on from there.
//!
//! Where the unit can tell good from bad, a new generation that comes beside a serving one is *rehearsed* once: an
//! incarnation of it in the place of the next one, on sockets of its own, where no client hears it. It goes from
//! `Starting` to `Proving` at once, as there is nobody for whom it would have to live, and when a probe has found that
//! it works it has done what it was for: it is dismissed, and the real next one begins. One that fails is a next one
//! that has failed. One for which there are no sockets is left out, and nobody is to blame.
//!
//! A task goes from `Launching` to `Running` at once: it is neither ready nor proven before it has ended with
//! success, which an operator who starts it waits for.
//!
//! Every operation ends in exactly one outcome, which stays with the service (so a client that lost its
//! connection can ask again) until [`KEEP_OUTCOME_MS`] has passed.

pub use super::spec::{Codes, Health, Kind, Readiness, Spec};
pub use super::state::{
    Asked, Ended, Goal, Incarnation, Instance, KEEP_OUTCOME_MS, MOST_ENDS, MOST_OPERATIONS, Phase, Probe,
    Rest, Role, Roll, Service, Strategy, Want,
};
use super::{Action, Event, Mono, Operation, Outcome, Run, ServiceId};

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
    /// What has to be ready before this one comes up, and is not.
    pub lacks: Option<Lack>,
    /// Whether something that needs this one is not down yet.
    pub needed: bool,
    /// The next unused incarnation.
    pub next_run: &'a mut Run,
    /// The actions, in order.
    pub out: &'a mut Vec<Action>,
}

/// What keeps a service from coming up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The service that has to be ready.
    pub of: ServiceId,
    /// It has failed, or nobody wants it.
    pub failed: bool,
}

impl Service {
    /// Takes one event.
    pub fn step(&mut self, event: Event, step: &mut Step<'_>) {
        match event {
            Event::Boot => {
                if step.spec.start_at_boot && !step.closing {
                    self.want_up();
                }
            }
            Event::Pull => self.pull(step),
            Event::Start(operation) => self.start(operation, step),
            Event::Stop(operation) => self.stop(operation, Goal::Down, step),
            Event::Hold(operation) => self.stop(operation, Goal::Held, step),
            Event::Scale(operation, count) => self.scale_to(operation, count, step),
            Event::Reload(operation) if step.spec.reload => self.reload(operation, step),
            Event::Reload(one) | Event::Restart(one) => self.restart(one, step.spec.strategy, step),
            Event::RestartStopFirst(operation) => self.restart(operation, Strategy::StopFirst, step),
            Event::Close => {
                self.goal = Goal::Down;
                self.answer_waiting(Outcome::Closing, step);
                self.waits = true;
            }
            Event::Cloned(run) => self.with(run, |one| one.cloned(step)),
            Event::NotCloned(run, end) => {
                if self.find(run).is_some_and(|(_, _, one)| matches!(one.phase, Phase::Cloning)) {
                    self.ended(run, end, step);
                }
            }
            Event::Executed(run) => self.executed(run, step),
            // The exit that follows tells less.
            Event::NotExecuted(run, end) => self.with(run, |one| one.pending_end = Some(end)),
            Event::Ready(run) => self.with(run, |one| one.ready(step)),
            Event::Extended(run, ms) => self.with(run, |one| one.extended(ms, step)),
            Event::Healed(run) => self.healed(run),
            Event::Alive(run) => self.with(run, |one| one.alive(step)),
            Event::Trigger(run) => self.with(run, |one| one.give_up(step)),
            Event::Watched(run, ms) => self.with(run, |one| one.watched(ms, step)),
            Event::Healthy(run) => self.with(run, |one| one.looked_at(Some(true), step)),
            Event::Unhealthy(run) => self.with(run, |one| one.looked_at(Some(false), step)),
            Event::Unanswered(run) => self.with(run, |one| one.unanswered(step)),
            Event::Unasked(run) => self.with(run, |one| one.looked_at(None, step)),
            Event::Astray(run) => self.astray(run, step),
            Event::Reloaded(run) => self.with(run, |one| one.reload_until = None),
            Event::NotReloaded(run) => {
                if self.find(run).is_some_and(|(_, _, one)| one.reload_until.is_some()) {
                    self.with(run, |one| one.reload_until = None);
                    self.conclude(step, Outcome::NotReloaded, |want| matches!(want, Want::Reloaded));
                }
            }
            Event::Signalled(run) => self.with(run, Incarnation::signalled),
            Event::Gone(run, exit) => self.with(run, |one| one.gone(exit, step)),
            Event::Empty(run) => self.empty(run, step),
            Event::Lost(run) => self.lost(run, step),
            Event::Unrehearsed(run) => self.unrehearsed(run),
            Event::Tick => self.tick(step),
        }
        self.take_turns(step);
        self.advance(step);
        self.settle_operations(step);
        // What the same step has let go is not looked at any more.
        step.out.retain(|action| match action {
            Action::Probe(run) => self.find(*run).is_none_or(|(_, _, one)| one.probe.is_some()),
            Action::Spawn(_)
            | Action::Release(_)
            | Action::Terminate(_)
            | Action::Abort(_)
            | Action::Reload(_)
            | Action::Kill(_)
            | Action::Clear(_)
            | Action::Answer(_) => true,
        });
    }

    /// Lets an incarnation take what concerns it. One that is not known was given up, or is of another.
    fn with(&mut self, run: Run, what: impl FnOnce(&mut Incarnation)) {
        if let Some((index, role)) = self.place_of(run)
            && let Some(instance) = self.instances.get_mut(index)
            && let Some(one) = instance.place(role)
        {
            what(one);
        }
    }

    fn executed(&mut self, run: Run, step: &mut Step<'_>) {
        if let Some((index, role)) = self.place_of(run)
            && let Some(instance) = self.instances.get_mut(index)
            && let Some(one) = instance.place(role)
            && one.executed(step)
        {
            instance.shortages = 0;
        }
    }

    fn healed(&mut self, run: Run) {
        if let Some((index, Role::Current)) = self.place_of(run)
            && let Some(instance) = self.instances.get_mut(index)
            && instance.current.as_deref().is_some_and(Incarnation::has_a_say)
        {
            instance.failures = 0;
        }
    }

    /// One that is to take the place of another and would serve nobody there does not pass; where it is the only one there
    /// is nobody whom it could leave alone.
    fn astray(&mut self, run: Run, step: &mut Step<'_>) {
        let to = self.roll.map(|roll| roll.to);
        if let Some((index, Role::Next)) = self.place_of(run)
            && let Some(instance) = self.instances.get_mut(index)
            && let Some(next) = &mut instance.next
            && Some(next.generation) == to
            && next.has_a_say()
        {
            next.end_of_illness(step);
        }
    }

    fn empty(&mut self, run: Run, step: &mut Step<'_>) {
        let clearing = self.find(run).filter(|(_, _, one)| matches!(one.phase, Phase::Clearing { .. }));
        if let Some((_, _, one)) = clearing {
            let end = one.pending_end.unwrap_or(super::End::Exited(super::Exit::Unknown));
            self.ended(run, end, step);
        }
    }

    fn tick(&mut self, step: &mut Step<'_>) {
        for instance in &mut self.instances {
            for role in [Role::Current, Role::Next, Role::Draining] {
                if let Some(one) = instance.place(role) {
                    one.tick(step);
                }
            }
            if instance.retry_at.is_some_and(|at| step.now >= at) {
                instance.retry_at = None;
            }
            if let (Rest::BackingOff { until }, None) = (instance.rest, &instance.current)
                && step.now >= until
            {
                self.restarts = self.restarts.saturating_add(1);
                instance.lie_down(Rest::Waiting, step.now);
            }
        }
    }

    // ---- what operators want -------------------------------------------------------------------------

    fn start(&mut self, operation: Operation, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return; // asked again after a broken connection
        }
        if step.closing {
            self.ask(operation, Want::Proven(self.generation), Some(Outcome::Closing), step);
            return;
        }
        if step.spec.off {
            self.ask(operation, Want::Proven(self.generation), Some(Outcome::Off), step);
            return;
        }
        self.supersede(step, |want| matches!(want, Want::Gone));
        let up = matches!(self.goal, Goal::Up) && self.is_proven(self.generation, step.spec);
        self.want_up();
        self.wake_up(step);
        self.ask(operation, Want::Proven(self.generation), up.then_some(Outcome::Already), step);
    }

    /// It is to be up from now on, after what it needs.
    const fn want_up(&mut self) {
        if !matches!(self.goal, Goal::Up) {
            self.goal = Goal::Up;
            self.waits = true;
        }
    }

    /// Another needs it: like a start, but nobody waits for it.
    fn pull(&mut self, step: &mut Step<'_>) {
        if step.closing || step.spec.off {
            return;
        }
        let ended = step.spec.kind == Kind::Service && self.instances.iter().any(Instance::has_given_up);
        if self.has_failed() || ended || !matches!(self.goal, Goal::Up) {
            self.supersede(step, |want| matches!(want, Want::Gone));
            self.want_up();
            self.wake_up(step);
        }
    }

    /// What comes first has come, or has not.
    fn take_turns(&mut self, step: &mut Step<'_>) {
        if !self.waits {
            return;
        }
        match self.goal {
            Goal::Up => match step.lacks {
                None => self.waits = false,
                Some(Lack { of, failed: true }) => self.answer_waiting(Outcome::Requires(of), step),
                Some(Lack { failed: false, .. }) => {}
            },
            Goal::Down | Goal::Held if step.needed => {}
            Goal::Down | Goal::Held => {
                self.waits = false;
                self.take_down(step);
            }
        }
    }

    fn stop(&mut self, operation: Operation, goal: Goal, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return;
        }
        self.supersede(step, |want| !matches!(want, Want::Gone));
        // Who stops everything has said more already.
        if !step.closing {
            self.goal = goal;
            self.waits = false;
        }
        let was_down = self.is_down();
        self.take_down(step);
        self.ask(operation, Want::Gone, was_down.then_some(Outcome::Already), step);
    }

    fn restart(&mut self, operation: Operation, strategy: Strategy, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return;
        }
        if step.closing {
            self.ask(operation, Want::Proven(self.newest), Some(Outcome::Closing), step);
            return;
        }
        if step.spec.off {
            self.ask(operation, Want::Proven(self.newest), Some(Outcome::Off), step);
            return;
        }
        self.supersede(step, |want| matches!(want, Want::Gone));
        self.tick(step); // one whose time has come has proven itself, though nobody has looked
        let serving = matches!(self.goal, Goal::Up) && self.is_serving();
        self.want_up();
        self.newest = self.newest.saturating_add(1);
        self.replace = match step.spec.kind {
            Kind::Service => strategy,
            Kind::Task => Strategy::StopFirst, // it has nothing to hand over
        };
        for instance in &mut self.instances {
            instance.retry_at = None;
            instance.retries = 0;
        }
        if serving && self.replace == Strategy::StartFirst {
            self.roll = Some(Roll { to: self.newest, prepared: 0, rehearsed: !step.spec.rehearse });
        } else {
            self.roll = None;
            self.generation = self.newest;
            self.prepared = 0;
            self.restarts = 0;
            self.wake_up(step);
            self.dismiss_unproven(step);
        }
        self.ask(operation, Want::Proven(self.newest), None, step);
    }

    fn scale_to(&mut self, operation: Operation, count: u16, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return;
        }
        if step.closing {
            self.ask(operation, Want::Scaled, Some(Outcome::Closing), step);
            return;
        }
        self.supersede(step, |want| matches!(want, Want::Scaled));
        let same = step.spec.count(self.scale) == step.spec.count(Some(count)) && self.is_scaled(step.spec);
        self.scale = Some(count);
        if !same && matches!(self.goal, Goal::Up) {
            self.wake_up(step);
        }
        // What does not run, or is always one, has nothing to wait for.
        let known = match self.goal {
            Goal::Up if step.spec.kind == Kind::Task => Some(Outcome::Done),
            Goal::Up => same.then_some(Outcome::Already),
            Goal::Down | Goal::Held => Some(Outcome::Done),
        };
        self.ask(operation, Want::Scaled, known, step);
    }

    fn reload(&mut self, operation: Operation, step: &mut Step<'_>) {
        if self.outcome(operation).is_some() {
            return;
        }
        let known = match (step.closing, matches!(self.goal, Goal::Up) && self.is_serving()) {
            (true, _) => Some(Outcome::Closing),
            (false, false) => Some(Outcome::NotRunning),
            (false, true) => None,
        };
        if known.is_none() {
            for one in self.instances.iter_mut().filter_map(|instance| instance.current.as_mut()) {
                if one.is_proven() {
                    one.reload(step);
                }
            }
        }
        self.ask(operation, Want::Reloaded, known, step);
    }
}
