//! PURE. The operations that wait on one service: taking, answering, forgetting. Never moves a phase.

use super::service::Step;
use super::spec::{Kind, Spec};
use super::state::{Asked, Instance, KEEP_OUTCOME_MS, MOST_OPERATIONS, Service, Want};
use super::{Action, End, Operation, Outcome};

impl Service {
    pub(super) fn ask(
        &mut self,
        operation: Operation,
        want: Want,
        known: Option<Outcome>,
        step: &mut Step<'_>,
    ) {
        self.make_room(step);
        let outcome = known.map(|outcome| (outcome, step.now));
        self.asked.push(Asked { operation, want, outcome });
        if outcome.is_some() {
            step.out.push(Action::Answer(operation));
        }
    }

    fn make_room(&mut self, step: &mut Step<'_>) {
        while self.asked.len() >= MOST_OPERATIONS
            && let Some(oldest) = self.asked.iter().position(|asked| asked.outcome.is_some())
        {
            self.asked.remove(oldest);
        }
        // All of them wait. The oldest gets its answer, and is remembered until the next one comes, so that
        // it can be told what the answer is.
        if self.asked.len() >= MOST_OPERATIONS
            && let Some(oldest) = self.asked.first_mut()
        {
            oldest.outcome = Some((Outcome::Superseded, step.now));
            step.out.push(Action::Answer(oldest.operation));
        }
    }

    pub(super) fn supersede(&mut self, step: &mut Step<'_>, which: impl Fn(Want) -> bool) {
        self.conclude(step, Outcome::Superseded, which);
    }

    pub(super) fn answer_waiting(&mut self, outcome: Outcome, step: &mut Step<'_>) {
        self.conclude(step, outcome, |want| !matches!(want, Want::Gone));
    }

    /// What is of `generation` has failed: nobody waits for that, or for what is older, any longer.
    pub(super) fn fail_waiting(&mut self, end: End, generation: u32, step: &mut Step<'_>) {
        let of = |want| match want {
            Want::Proven(floor) => floor <= generation,
            Want::Scaled | Want::Reloaded => true,
            Want::Gone => false,
        };
        self.conclude(step, Outcome::Ended(end), of);
    }

    /// What is newer than `generation` has failed.
    pub(super) fn fail_waiting_for_newer(&mut self, end: End, generation: u32, step: &mut Step<'_>) {
        let of = |want| matches!(want, Want::Proven(floor) if floor > generation);
        self.conclude(step, Outcome::Ended(end), of);
    }

    /// A task of `generation` has succeeded, which is what was waited for.
    pub(super) fn succeed_waiting(&mut self, generation: u32, step: &mut Step<'_>) {
        let of = |want| matches!(want, Want::Proven(floor) if floor <= generation);
        self.conclude(step, Outcome::Done, of);
    }

    pub(super) fn conclude(&mut self, step: &mut Step<'_>, outcome: Outcome, which: impl Fn(Want) -> bool) {
        for asked in &mut self.asked {
            if asked.outcome.is_none() && which(asked.want) {
                asked.outcome = Some((outcome, step.now));
                step.out.push(Action::Answer(asked.operation));
            }
        }
    }

    /// Whether every instance has proven itself, in a generation that is not older than `floor`.
    pub(super) fn is_proven(&self, floor: u32, spec: &Spec) -> bool {
        let proven = |instance: &Instance| {
            instance.current.as_ref().is_some_and(|one| one.is_proven() && one.generation >= floor)
        };
        spec.kind == Kind::Service
            && self.instances.len() >= spec.count(self.scale)
            && self.instances.iter().take(spec.count(self.scale)).all(proven)
    }

    /// Whether there are as many instances as are wanted, and no others.
    pub(super) fn is_scaled(&self, spec: &Spec) -> bool {
        self.instances.len() == spec.count(self.scale) && self.is_proven(0, spec)
    }

    pub(super) fn settle_operations(&mut self, step: &mut Step<'_>) {
        if !self.asked.is_empty() {
            let spec = step.spec;
            let down = self.is_down();
            let scaled = self.is_scaled(spec);
            let reloaded = !self.incarnations().any(|(_, _, one)| one.reload_until.is_some());
            let floors: Vec<u32> = self
                .asked
                .iter()
                .filter_map(|asked| match (asked.want, asked.outcome) {
                    (Want::Proven(floor), None) => Some(floor),
                    (Want::Proven(_) | Want::Gone | Want::Scaled | Want::Reloaded, _) => None,
                })
                .filter(|floor| self.is_proven(*floor, spec))
                .collect();
            self.conclude(step, Outcome::Done, |want| match want {
                Want::Proven(floor) => floors.contains(&floor),
                Want::Gone => down,
                Want::Scaled => scaled,
                Want::Reloaded => reloaded,
            });
        }
        let now = step.now;
        self.asked.retain(|asked| asked.outcome.is_none_or(|(_, at)| now.since(at) < KEEP_OUTCOME_MS));
    }
}
