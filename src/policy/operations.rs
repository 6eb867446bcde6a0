//! PURE. The operations that wait on one service: taking, answering, forgetting. Never moves a phase.

use super::service::{Asked, KEEP_OUTCOME_MS, Kind, MOST_OPERATIONS, Phase, Service, Step, Want};
use super::{Action, End, Operation, Outcome, Run};

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
        self.conclude(step, outcome, |want| matches!(want, Want::Proven(_)));
    }

    pub(super) fn fail_waiting(&mut self, end: End, step: &mut Step<'_>) {
        self.conclude(step, Outcome::Ended(end), |want| matches!(want, Want::Proven(_)));
    }

    /// The task `run` has succeeded, which is what was waited for.
    pub(super) fn succeed_waiting(&mut self, run: Run, step: &mut Step<'_>) {
        self.conclude(step, Outcome::Done, |want| matches!(want, Want::Proven(floor) if run >= floor));
    }

    fn conclude(&mut self, step: &mut Step<'_>, outcome: Outcome, which: impl Fn(Want) -> bool) {
        for asked in &mut self.asked {
            if asked.outcome.is_none() && which(asked.want) {
                asked.outcome = Some((outcome, step.now));
                step.out.push(Action::Answer(asked.operation));
            }
        }
    }

    /// Whether an operator waits for an incarnation younger than `run`.
    pub(super) fn newer_is_wanted(&self, run: Run) -> bool {
        self.asked
            .iter()
            .any(|asked| asked.outcome.is_none() && matches!(asked.want, Want::Proven(floor) if floor > run))
    }

    pub(super) fn settle_operations(&mut self, step: &mut Step<'_>) {
        let proven = match self.phase {
            Phase::Running { run } => (step.spec.kind == Kind::Service).then_some(run),
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::BackingOff { .. }
            | Phase::Cloning { .. }
            | Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => None,
        };
        let down = self.is_down();
        self.conclude(step, Outcome::Done, |want| match want {
            Want::Proven(floor) => proven.is_some_and(|run| run >= floor),
            Want::Gone => down,
        });
        let now = step.now;
        self.asked.retain(|asked| asked.outcome.is_none_or(|(_, at)| now.since(at) < KEEP_OUTCOME_MS));
    }
}
