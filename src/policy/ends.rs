//! PURE. What follows from the end of an incarnation, by its role. Never starts one: `roll` does.

use super::backoff::{self, Next};
use super::service::Step;
use super::spec::Kind;
use super::state::{Ended, Goal, Incarnation, MOST_ENDS, Rest, Role, Service};
use super::{End, Exit, Run};

impl Service {
    /// The instance and the role of an incarnation.
    pub(super) fn place_of(&self, run: Run) -> Option<(usize, Role)> {
        self.instances.iter().enumerate().find_map(|(index, instance)| {
            let (role, _) = instance.incarnations().find(|(_, one)| one.run == run)?;
            Some((index, role))
        })
    }

    fn take(&mut self, run: Run) -> Option<(usize, Role, Incarnation)> {
        let (index, role) = self.place_of(run)?;
        let one = self.instances.get_mut(index)?.place(role).take()?;
        Some((index, role, *one))
    }

    /// Nobody is to blame but us: started again at once, and nothing counted.
    pub(super) fn lost(&mut self, run: Run, step: &Step<'_>) {
        let Some((index, Role::Current, _)) = self.take(run) else { return };
        let rest = if matches!(self.goal, Goal::Up) { Rest::Waiting } else { Rest::Stopped };
        self.rest(index, rest, step);
    }

    /// Nothing is left of `run`, which ended like this.
    pub(super) fn ended(&mut self, run: Run, end: End, step: &mut Step<'_>) {
        let Some((index, role, one)) = self.take(run) else { return };
        let instance = self.instances.get(index).map_or(0, |instance| instance.number);
        if self.ends.len() >= MOST_ENDS {
            self.ends.remove(0);
        }
        let Incarnation { generation, before, rehearsal, passed, dismissed, .. } = one;
        let current = self.instances.get(index).is_some_and(|instance| instance.current.is_some());
        let (at, beside) = (step.now, role == Role::Next && current);
        self.ends.push(Ended {
            run,
            instance,
            generation,
            before,
            rehearsal,
            passed,
            beside,
            dismissed,
            end,
            at,
        });
        let prepared = self.count_prepared(&one, end);
        // One that was to be replaced anyway makes room a little earlier.
        let outdated = self.roll.is_none() && one.generation != self.generation;
        let asked_for = !matches!(self.goal, Goal::Up) || one.dismissed || prepared || outdated;
        match role {
            Role::Draining => {}
            Role::Current if asked_for => {
                let rest = if matches!(self.goal, Goal::Up) { Rest::Waiting } else { Rest::Stopped };
                self.rest(index, rest, step);
            }
            Role::Next if asked_for => {}
            Role::Current => self.current_failed(index, &one, end, step),
            Role::Next => self.next_failed(index, &one, end, step),
        }
    }

    fn rest(&mut self, index: usize, rest: Rest, step: &Step<'_>) {
        if let Some(instance) = self.instances.get_mut(index) {
            instance.lie_down(rest, step.now);
        }
    }

    /// The one that counts has ended, and nobody wanted it to.
    fn current_failed(&mut self, index: usize, one: &Incarnation, end: End, step: &mut Step<'_>) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        if backoff::is_shortage(end) {
            instance.shortages = instance.shortages.saturating_add(1);
            let until = step.now.after(backoff::shortage_delay(instance.shortages));
            instance.lie_down(Rest::BackingOff { until }, step.now);
            return;
        }
        if matches!(end, End::Unbound | End::Unanswered) {
            self.current_withheld(index, one, end, step);
            return;
        }
        if let (Some(reset), Some(up_since)) = (step.spec.backoff.reset_after_ms, one.up_since)
            && step.now.since(up_since) >= reset
        {
            instance.failures = 0;
        }
        instance.failures = instance.failures.saturating_add(1);
        let success = one.before.is_none() && step.spec.is_success(end);
        if success && step.spec.kind == Kind::Task {
            instance.failures = 1;
            self.succeed_waiting(one.generation, step);
        }
        if self.roll.is_some_and(|roll| roll.to == one.generation) {
            // It had proven itself and fell before the others had followed: back to what is good.
            self.roll_back(end, step);
            self.rest(index, Rest::Waiting, step);
            return;
        }
        self.fail_waiting(end, one.generation, step);
        let Some(instance) = self.instances.get_mut(index) else { return };
        if instance.next.as_ref().is_some_and(|next| !next.rehearsal) {
            instance.lie_down(Rest::Waiting, step.now); // its successor is on its way already
            return;
        }
        let next = if step.spec.is_misconfigured(end) {
            step.spec.backoff.next_at_cap(instance.failures, one.run)
        } else {
            step.spec.backoff.next(success, instance.failures, one.run)
        };
        match next {
            Next::After(ms) => {
                instance.lie_down(Rest::BackingOff { until: step.now.after(ms) }, step.now);
            }
            Next::Done => {
                instance.failures = 0;
                instance.lie_down(Rest::Done, step.now);
            }
            Next::Failed => instance.lie_down(Rest::Failed, step.now),
        }
    }

    /// The one that counts lacks a socket, or an answer: whoever waits for it is told now, and the tries go on.
    fn current_withheld(&mut self, index: usize, one: &Incarnation, end: End, step: &mut Step<'_>) {
        if self.roll.is_some_and(|roll| roll.to == one.generation) {
            self.roll_back(end, step);
            self.rest(index, Rest::Waiting, step);
            return;
        }
        self.fail_waiting(end, one.generation, step);
        let Some(instance) = self.instances.get_mut(index) else { return };
        instance.shortages = instance.shortages.saturating_add(1);
        let until = step.now.after(backoff::unbound_delay(instance.shortages));
        instance.lie_down(Rest::BackingOff { until }, step.now);
    }

    /// A successor has not passed the gate.
    fn next_failed(&mut self, index: usize, one: &Incarnation, end: End, step: &mut Step<'_>) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        if backoff::is_shortage(end) {
            instance.shortages = instance.shortages.saturating_add(1);
            instance.retry_at = Some(step.now.after(backoff::shortage_delay(instance.shortages)));
            return;
        }
        if self.roll.is_some_and(|roll| roll.to == one.generation) {
            self.roll_back(end, step);
            return;
        }
        if instance.current.is_none() {
            self.current_failed(index, one, end, step); // nobody is left whom it could leave alone
            return;
        }
        instance.retries = instance.retries.saturating_add(1);
        let delay_ms = if step.spec.is_misconfigured(end) {
            step.spec.backoff.max_delay_ms
        } else {
            step.spec.backoff.delay(instance.retries, one.run)
        };
        instance.retry_at = Some(step.now.after(delay_ms));
    }

    /// The generation that was to come is given up. Who has moved already goes back through the same gate.
    fn roll_back(&mut self, end: End, step: &mut Step<'_>) {
        if self.roll.take().is_some() {
            self.fail_waiting_for_newer(end, self.generation, step);
        }
        for instance in &mut self.instances {
            instance.retry_at = None;
        }
    }

    /// Whether this was the success of a command before the start that counts. It counts even where nobody wants
    /// the service any more: it is not to run again.
    fn count_prepared(&mut self, one: &Incarnation, end: End) -> bool {
        let (Some(index), End::Exited(Exit::Code(0))) = (one.before, end) else { return false };
        let done = index.saturating_add(1);
        match &mut self.roll {
            Some(roll) if roll.to == one.generation => roll.prepared = done,
            Some(_) | None if one.generation == self.generation => self.prepared = done,
            Some(_) | None => return false,
        }
        true
    }
}
