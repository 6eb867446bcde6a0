//! PURE. From what is wanted to what is started, replaced and let go. Looked at after every event, so that nothing
//! depends on which event it was. Never judges an end: `ends` does.
//!
//! An instance that is of another generation than it is to be gets a successor. With `start-first` that is its
//! *next*, beside the *current* one; it becomes current as soon as it has proven itself, and the old one drains.
//! With `stop-first` the old one ends before. One instance at a time is replaced: the first that is not there yet.
//!
//! A roll that is to be rehearsed begins with that, in the place of the first next one. It is beside the current one as
//! that would be, so there are never more than two; nobody is served by it, so it is never promoted and is nobody's
//! successor. Where the current one ends meanwhile, the old generation is started again as after any crash, for that
//! is the one that has proven itself, and the rehearsal goes on beside it.
//!
//! While a *roll* goes on the old generation is the good one: any end of an incarnation of the new one gives it
//! up, and what has moved goes back through the same gate.

use super::service::Step;
use super::state::{Goal, Incarnation, Instance, Phase, Rest, Role, Roll, Service, Strategy};
use super::{Action, End, Run};

impl Service {
    /// Brings everything on its way that can be.
    pub(super) fn advance(&mut self, step: &mut Step<'_>) {
        self.fit(step);
        if !matches!(self.goal, Goal::Up) || step.closing || self.waits {
            return;
        }
        for index in 0..self.instances.len() {
            self.promote(index, step);
        }
        let count = step.spec.count(self.scale);
        self.finish_roll(count);
        let turn = self.turn(count);
        // Counted once, as there may be a thousand of them.
        let mut next = self.instances.iter().filter(|one| one.next.is_some()).count();
        for index in 0..self.instances.len().min(count) {
            let others = next - self.has_next(index);
            self.advance_one(index, turn == Some(index), others > 0, step);
            next = others + self.has_next(index);
        }
    }

    /// Makes the places that are wanted, and lets those go that are not.
    fn fit(&mut self, step: &mut Step<'_>) {
        let count = step.spec.count(self.scale);
        for instance in self.instances.iter_mut().skip(count) {
            instance.let_go(step);
        }
        while self.instances.len() > count && self.instances.last().is_some_and(Instance::is_empty) {
            self.instances.pop();
        }
        if !matches!(self.goal, Goal::Up) || step.closing {
            return;
        }
        while self.instances.len() < count {
            let number = u16::try_from(self.instances.len() + 1).unwrap_or(u16::MAX);
            let mut one = Instance::new(number, step.now);
            one.lie_down(Rest::Waiting, step.now);
            self.instances.reserve_exact(1); // most services have one, and it is large
            self.instances.push(one);
        }
    }

    /// A successor that has proven itself takes the place; the old one drains. A rehearsal that has makes way for it.
    fn promote(&mut self, index: usize, step: &mut Step<'_>) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        let Some(next) = instance.next.as_mut().filter(|next| next.is_proven()) else { return };
        if next.rehearsal {
            let generation = next.generation;
            next.passed = true;
            next.dismiss(step);
            if let Some(roll) = self.roll.as_mut().filter(|roll| roll.to == generation) {
                roll.rehearsed = true;
            }
            return;
        }
        let generation = instance.next.as_ref().map(|next| next.generation);
        if self.roll.is_some_and(|roll| Some(roll.to) == generation) {
            instance.failures = 0; // those were of another
        }
        instance.retries = 0;
        if let Some(mut old) = instance.current.take() {
            if old.is_ill(step) {
                old.pending_end = old.pending_end.or(Some(End::Unhealthy));
            }
            old.give_way(step);
            instance.draining = Some(old);
        }
        instance.current = instance.next.take();
    }

    /// There is nothing to rehearse it on: its generation comes without, and nobody is to blame.
    pub(super) fn unrehearsed(&mut self, run: Run) {
        let asked =
            |one: &Incarnation| one.run == run && one.rehearsal && matches!(one.phase, Phase::Cloning);
        for instance in &mut self.instances {
            for role in [Role::Next, Role::Draining] {
                let Some(one) = instance.place(role).take_if(|one| asked(one)) else { continue };
                if let Some(roll) = self.roll.as_mut().filter(|roll| roll.to == one.generation) {
                    roll.rehearsed = true;
                }
            }
        }
    }

    fn finish_roll(&mut self, count: usize) {
        let Some(roll) = self.roll else { return };
        if self.instances.iter().take(count).all(|instance| is_there(instance, roll.to)) {
            self.generation = roll.to;
            self.prepared = roll.prepared;
            self.restarts = 0; // those were of another
            self.roll = None;
        }
    }

    /// The instance whose turn it is to be replaced.
    fn turn(&self, count: usize) -> Option<usize> {
        let target = self.roll.map_or(self.generation, |roll| roll.to);
        self.instances.iter().take(count).position(|instance| {
            // One that waits for another try holds up nobody, but in a roll, where all wait for each other.
            !is_there(instance, target) && (self.roll.is_some() || instance.retry_at.is_none())
        })
    }

    fn has_next(&self, index: usize) -> usize {
        self.instances.get(index).map_or(0, |one| one.next.is_some().into())
    }

    fn advance_one(&mut self, index: usize, its_turn: bool, others_next: bool, step: &mut Step<'_>) {
        let rolling = self.roll.filter(|_| its_turn);
        let (generation, roll_to) = (self.generation, self.roll.map(|roll| roll.to));
        if self.tend_next(index, step) {
            return;
        }
        let rehearses = rolling.is_some_and(|roll| self.is_due_to_rehearse(roll, step));
        let Some(instance) = self.instances.get_mut(index) else { return };
        let Some(current) = &mut instance.current else {
            // What is rehearsed beside it comes later, if it comes, and is not waited for.
            let waits = matches!(instance.rest, Rest::Stopped | Rest::Waiting);
            let comes = rolling.filter(|_| instance.next.is_none() && !(rehearses && waits));
            self.fill(index, comes.map(|roll| roll.to), others_next, step);
            let filled = self.instances.get(index).is_some_and(|instance| instance.current.is_some());
            if rehearses && filled {
                self.advance_one(index, its_turn, others_next, step); // and the rehearsal begins beside it
            }
            return;
        };
        let wanted = rolling.map_or(generation, |roll| roll.to);
        // In a roll those that have moved are where they are to be.
        let outdated = current.generation != wanted && roll_to != Some(current.generation);
        if current.is_ending() {
            return;
        }
        if !outdated {
            // In a roll its turn comes anyway, and one in its gate has until `start-timeout`.
            if roll_to.is_none() && current.is_proven() {
                if current.hung {
                    self.replace_beside(index, others_next, step);
                } else if current.is_ill(step) {
                    self.replace_ill(index, others_next, step);
                }
            }
            return;
        }
        match self.replace {
            Strategy::StopFirst if its_turn || !current.is_proven() => current.dismiss(step),
            Strategy::StartFirst if its_turn && !others_next => {
                if instance.draining.is_none() && instance.retry_at.is_none() {
                    self.spawn(index, Role::Next, wanted, step);
                }
            }
            Strategy::StopFirst | Strategy::StartFirst => {} // not yet
        }
    }

    /// Looks whether the next one of an instance is still wanted. True where there is one to wait for: who lacks a
    /// current one does not wait for a rehearsal.
    fn tend_next(&mut self, index: usize, step: &mut Step<'_>) -> bool {
        let wanted = self.roll.map_or(self.generation, |roll| roll.to);
        // Where nobody else serves, and there is nothing good to go back to, it has until `start-timeout`.
        let rolling = self.roll.is_some();
        let Some(instance) = self.instances.get_mut(index) else { return false };
        let Some(next) = &mut instance.next else { return false };
        let rehearsal = next.rehearsal;
        if !next.dismissed && next.generation != wanted {
            next.dismiss(step);
        } else if next.is_ill(step) && !next.is_ending() && (rolling || instance.current.is_some()) {
            next.end_of_illness(step);
        }
        !rehearsal || instance.current.is_some()
    }

    /// Probes have found it ill. What takes its place is of the same generation.
    fn replace_ill(&mut self, index: usize, others_next: bool, step: &mut Step<'_>) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        let Some(current) = &mut instance.current else { return };
        match step.spec.strategy {
            Strategy::StopFirst => current.end_of_illness(step),
            Strategy::StartFirst => self.replace_beside(index, others_next, step),
        }
    }

    /// Starts one of the same generation beside one that does not work any more: one instance after the other, and
    /// after one that failed only when its time has come.
    fn replace_beside(&mut self, index: usize, others_next: bool, step: &mut Step<'_>) {
        let Some(instance) = self.instances.get_mut(index) else { return };
        let Some(generation) = instance.current.as_ref().map(|current| current.generation) else { return };
        if !others_next && instance.draining.is_none() && instance.retry_at.is_none() {
            self.spawn(index, Role::Next, generation, step);
        }
    }

    /// An instance without a current incarnation and without a next one.
    fn fill(&mut self, index: usize, rolling: Option<u32>, others_next: bool, step: &mut Step<'_>) {
        let generation = rolling.unwrap_or(self.generation);
        let unprepared = self.prepared_of(generation) < step.spec.before;
        let gave_up = self.instances.first().is_some_and(Instance::has_given_up);
        let rehearses = self.roll.is_some_and(|roll| self.is_due_to_rehearse(roll, step));
        let Some(instance) = self.instances.get_mut(index) else { return };
        match instance.rest {
            Rest::Stopped | Rest::Waiting => {}
            // What is to come does not wait for what was.
            Rest::BackingOff { .. } | Rest::Done | Rest::Failed if rolling.is_some() => {}
            Rest::BackingOff { .. } | Rest::Done | Rest::Failed => return,
        }
        // The old generation is back when its time has come, whatever is rehearsed beside it.
        if !matches!(instance.rest, Rest::Waiting) && !rehearses {
            instance.lie_down(Rest::Waiting, step.now);
        }
        if instance.retry_at.is_some() {
            return;
        }
        match rolling {
            Some(_) if others_next => {}
            Some(to) => self.spawn(index, Role::Next, to, step),
            // The first of all prepares for all.
            None if unprepared && index != 0 => {
                if gave_up {
                    instance.lie_down(Rest::Failed, step.now); // nobody prepares it any more
                }
            }
            None => self.spawn(index, Role::Current, generation, step),
        }
    }

    const fn prepared_of(&self, generation: u32) -> u16 {
        match self.roll {
            Some(roll) if roll.to == generation => roll.prepared,
            Some(_) | None => self.prepared,
        }
    }

    fn spawn(&mut self, index: usize, role: Role, generation: u32, step: &mut Step<'_>) {
        let done = self.prepared_of(generation);
        let before = (done < step.spec.before).then_some(done);
        let rehearsal = before.is_none() && self.is_to_rehearse(role, generation, step);
        let Some(instance) = self.instances.get_mut(index) else { return };
        let run = *step.next_run;
        *step.next_run = Run(run.0 + 1);
        self.last_run = run;
        let start = self.starts.saturating_add(1);
        if before.is_none() && !rehearsal {
            self.starts = start;
        }
        let one = Incarnation { start, rehearsal, ..Incarnation::new(run, generation, before, step.now) };
        *instance.place(role) = Some(Box::new(one));
        step.out.push(Action::Spawn(run));
    }

    /// Whether the next that comes of a roll is its rehearsal.
    fn is_due_to_rehearse(&self, roll: Roll, step: &Step<'_>) -> bool {
        step.spec.rehearse && !roll.rehearsed && roll.prepared >= step.spec.before && self.is_serving()
    }

    /// Whether what comes now is the rehearsal of its generation. Without anybody who serves there is none, and none
    /// comes later: what has once had the real sockets has nothing to hide.
    fn is_to_rehearse(&mut self, role: Role, generation: u32, step: &Step<'_>) -> bool {
        let serving = self.is_serving();
        let Some(roll) = self.roll.as_mut().filter(|roll| roll.to == generation) else { return false };
        if role != Role::Next {
            return false;
        }
        roll.rehearsed |= !serving || !step.spec.rehearse;
        !roll.rehearsed
    }
}

impl Instance {
    /// Takes down everything of it.
    fn let_go(&mut self, step: &mut Step<'_>) {
        for role in [Role::Current, Role::Next, Role::Draining] {
            if let Some(one) = self.place(role)
                && !one.dismissed
            {
                one.dismiss(step);
            }
        }
        self.retry_at = None;
        match self.rest {
            Rest::Waiting | Rest::BackingOff { .. } => self.lie_down(Rest::Stopped, step.now),
            Rest::Stopped | Rest::Done | Rest::Failed => {}
        }
    }
}

/// Whether an instance is where a roll is to bring it.
fn is_there(instance: &Instance, generation: u32) -> bool {
    instance.current.as_ref().is_some_and(|one| one.is_proven() && one.generation == generation)
        && instance.next.is_none()
}

impl Service {
    /// Takes down everything that runs or would; nothing of it is blamed.
    pub(super) fn take_down(&mut self, step: &mut Step<'_>) {
        for instance in &mut self.instances {
            instance.let_go(step);
        }
        // What was asked for last may have been overtaken by other commands, but not undone.
        if let Some(roll) = self.roll.take() {
            self.generation = roll.to;
            self.prepared = roll.prepared;
            self.restarts = 0;
        }
    }

    /// Whether somebody is served now.
    pub(super) fn is_serving(&self) -> bool {
        let proven = |instance: &Instance| instance.current.as_deref().is_some_and(Incarnation::is_proven);
        self.instances.iter().any(proven)
    }

    /// Takes down what serves nobody yet.
    pub(super) fn dismiss_unproven(&mut self, step: &mut Step<'_>) {
        for one in self.instances.iter_mut().filter_map(|instance| instance.current.as_mut()) {
            if !one.is_proven() {
                one.dismiss(step);
            }
        }
    }

    /// Every instance that rests is to be tried again now, whatever became of it before.
    pub(super) fn wake_up(&mut self, step: &Step<'_>) {
        for instance in &mut self.instances {
            instance.failures = 0;
            if instance.current.is_none() {
                instance.lie_down(Rest::Waiting, step.now);
            }
            if let Some(one) = &mut instance.current
                && matches!(one.phase, Phase::Stopping { .. } | Phase::Clearing { .. })
            {
                one.dismissed = true; // the one that is ending cannot prove anything any more
            }
        }
    }
}
