//! ROOT. Operations of clients that wait for the inputs of what they start. Everything else goes on meanwhile, also
//! other operations; those on one service keep their order, and a stop overtakes. Never in the state: a client whose
//! manager has died asks again.

use std::collections::{BTreeMap, BTreeSet};

use super::Manager;
use super::control::SessionId;
use super::inputs::{Inputs, Lacking};
use crate::policy::{Event, Operation, ServiceId};
use crate::wire::control::{Failed, Failure, Refusal};

/// The most that wait.
const MOST_PARKED: usize = 256;
/// How many of them only root and the supervisor's own user may have.
const RESERVED: usize = 64;
/// The most of any other user.
const MOST_PER_UID: usize = 64;
/// The most on one service. Root and the supervisor's own user may have as many again behind those of others.
const MOST_PER_SERVICE: usize = 16;

/// One operation.
#[derive(Debug)]
pub(super) struct Order {
    /// Whose outcome it is.
    pub operation: Operation,
    /// What is done to each service.
    pub event: Event,
    /// To which.
    pub chosen: Vec<ServiceId>,
    /// Those of them that were stopped before it began: they have no outcome of it, which is told as being overtaken.
    pub overtaken: BTreeSet<ServiceId>,
    /// What the answer says beside the outcome.
    pub notes: BTreeMap<ServiceId, String>,
    /// Who has asked, with whether that one waits for the outcome.
    pub sessions: Vec<(SessionId, bool)>,
    /// The user who has asked first, where that is neither root nor the supervisor's own.
    pub stranger: Option<u32>,
}

#[derive(Debug)]
struct One {
    order: Order,
    /// Whether its inputs are those of a generation that is still to be made.
    next: bool,
    missing: BTreeSet<ServiceId>,
    fresh: Vec<(ServiceId, Inputs)>,
    failures: Vec<Failure>,
}

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub struct Parked(Vec<One>);

impl Parked {
    /// Whoever asks again for what waits already waits with it.
    pub fn join(&mut self, operation: Operation, session: SessionId, wait: bool) -> bool {
        let one = self.0.iter_mut().find(|one| one.order.operation == operation);
        one.map(|one| one.order.sessions.push((session, wait))).is_some()
    }

    /// Why there is no room for another: the service that it is about, and the reason.
    fn lacks_room(&self, order: &Order) -> Option<(ServiceId, String)> {
        let most = match order.stranger {
            Some(_) => MOST_PER_SERVICE,
            None => 2 * MOST_PER_SERVICE,
        };
        for id in &order.chosen {
            let on_it = self.0.iter().filter(|one| one.order.chosen.contains(id)).count();
            if on_it >= most {
                return Some((*id, format!("{on_it} commands wait already for this to be read")));
            }
        }
        let first = *order.chosen.first()?;
        let strangers = self.0.iter().filter(|one| one.order.stranger.is_some()).count();
        if let Some(uid) = order.stranger {
            let own = self.0.iter().filter(|one| one.order.stranger == Some(uid)).count();
            if own >= MOST_PER_UID {
                return Some((
                    first,
                    format!("{own} commands of user {uid} wait already for services to be read"),
                ));
            }
            if strangers >= MOST_PARKED - RESERVED {
                return Some((first, format!("{strangers} commands wait already for services to be read")));
            }
        }
        let all = self.0.len();
        (all >= MOST_PARKED).then(|| (first, format!("{all} commands wait already for services to be read")))
    }

    /// A client has gone; what it has asked for is done all the same.
    pub fn leave(&mut self, session: SessionId) {
        self.0.iter_mut().for_each(|one| one.order.sessions.retain(|(other, _)| *other != session));
    }
}

impl Manager {
    /// Has the inputs of some services read, and the operation go on when they are there.
    pub(super) fn park(&mut self, order: Order, read: &[ServiceId], next: bool) {
        if let Some((id, why)) = self.parked.lacks_room(&order) {
            let hint = "a name service or an environment file does not answer, or too much is asked at a time; try again \
                        in a few seconds";
            let first = failure(self.name_of(id), &format!("{why}\nhint: {hint}"));
            return self.refuse_order(&order, Failed { first, others: Vec::new() });
        }
        let operation = order.operation;
        let missing = read.iter().copied().collect();
        self.parked.0.push(One { order, next, missing, fresh: Vec::new(), failures: Vec::new() });
        for id in read {
            self.begin_reading((*id, Some(operation)));
        }
        self.pump_lookups();
        self.settle_parked();
    }

    /// What came of reading the inputs of one service for an operation.
    pub(super) fn take_inputs(&mut self, operation: Operation, id: ServiceId, read: Result<Inputs, Lacking>) {
        let failure = read.as_ref().err().map(|lacking| {
            let mut failure = failure(self.name_of(id), &lacking.words);
            if let Some(changed) = self.changed_words(id) {
                failure.hint_also(changed);
            }
            failure
        });
        let Some(one) = self.parked.0.iter_mut().find(|one| one.order.operation == operation) else { return };
        if one.missing.remove(&id) {
            one.failures.extend(failure);
            one.fresh.extend(read.ok().map(|inputs| (id, inputs)));
        }
        if one.missing.is_empty() {
            self.settle_parked();
        }
    }

    /// A stop of these services comes before what has not begun: that is overtaken, and told so.
    pub(super) fn overtake(&mut self, ids: &[ServiceId]) {
        for one in &mut self.parked.0 {
            for id in ids.iter().filter(|id| one.order.chosen.contains(id)) {
                one.order.overtaken.insert(*id);
                one.missing.remove(id);
                one.fresh.retain(|(other, _)| other != id);
                self.readings.forget((*id, Some(one.order.operation)));
            }
        }
        self.settle_parked();
    }

    /// The supervisor stops: nothing is waited for, and policy has the answer.
    pub(super) fn release_parked(&mut self) {
        for one in std::mem::take(&mut self.parked.0) {
            self.carry_on(one.order);
        }
    }

    /// Lets those go on that have all that they need and are before all others of their services.
    fn settle_parked(&mut self) {
        let mut before: BTreeSet<ServiceId> = BTreeSet::new();
        let mut at = 0;
        while let Some(one) = self.parked.0.get(at) {
            let mine = one.order.chosen.iter().copied();
            if !one.missing.is_empty() || mine.clone().any(|id| before.contains(&id)) {
                before.extend(mine);
                at += 1;
                continue;
            }
            let one = self.parked.0.remove(at);
            self.conclude(one);
            (before, at) = (BTreeSet::new(), 0); // others may have gone on with it
        }
    }

    fn conclude(&mut self, mut one: One) {
        if !one.failures.is_empty() {
            let first = one.failures.remove(0);
            return self.refuse_order(&one.order, Failed { first, others: one.failures });
        }
        for (id, inputs) in one.fresh {
            let Some(service) = self.world.get(id) else { continue };
            let (newest, current) = (service.newest, service.generation);
            if !one.next {
                if service.incarnations().next().is_some() {
                    continue; // what runs by now has its inputs already
                }
                let known = self.services.get(&id);
                let known = known.map(|known| known.older.get(&current).unwrap_or(&known.inputs));
                if known.is_none_or(|known| !known.are_whole() || known.is_same(&inputs)) {
                    // Not the newest, where that has failed: it is the one before it that starts.
                    self.put_inputs(id, current, inputs);
                    continue;
                }
            }
            if let Some(known) = self.services.get_mut(&id) {
                // Those before stay for as long as anything is of them.
                known.older.entry(newest).or_insert_with(|| known.inputs.clone());
            }
            self.put_inputs(id, newest + 1, inputs);
            if !one.next {
                // A restart counts it by itself.
                let changes = self.world.renew(id);
                self.save_service(id, Some(&changes));
            }
        }
        self.carry_on(one.order);
    }

    fn refuse_order(&mut self, order: &Order, failed: Failed) {
        for (session, _) in &order.sessions {
            self.refuse(*session, Refusal::Failed(Box::new(failed.clone())));
        }
    }
}

fn failure(service: &str, words: &str) -> Failure {
    let (said, hint) = match words.split_once("\nhint: ") {
        Some((said, hint)) => (said, Some(hint.to_owned())),
        None => (words, None),
    };
    Failure {
        service: service.to_owned(),
        step: "reading what it starts with".to_owned(),
        reason: said.to_owned(),
        hint,
        ..Failure::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(services: &[u32], stranger: Option<u32>) -> Order {
        Order {
            operation: Operation(1),
            event: Event::Restart(Operation(1)),
            chosen: services.iter().copied().map(ServiceId).collect(),
            overtaken: BTreeSet::new(),
            notes: BTreeMap::new(),
            sessions: Vec::new(),
            stranger,
        }
    }

    /// Has as many wait as there is room for, and says how many that were.
    fn fill(parked: &mut Parked, services: impl Iterator<Item = u32>, stranger: Option<u32>) -> usize {
        let before = parked.0.len();
        for service in services {
            let order = order(&[service], stranger);
            if parked.lacks_room(&order).is_none() {
                let (missing, fresh, failures) = (BTreeSet::new(), Vec::new(), Vec::new());
                parked.0.push(One { order, next: true, missing, fresh, failures });
            }
        }
        parked.0.len() - before
    }

    fn why(parked: &Parked, order: &Order) -> (u32, String) {
        let (id, why) = parked.lacks_room(order).unwrap();
        (id.0, why)
    }

    #[test]
    fn nobody_takes_all_the_room_from_others() {
        let mut parked = Parked::default();
        assert_eq!(fill(&mut parked, std::iter::repeat_n(1, 300), Some(1000)), MOST_PER_SERVICE);
        let expected = (1, "16 commands wait already for this to be read".to_owned());
        assert_eq!(why(&parked, &order(&[7, 1], Some(1001))), expected);
        assert_eq!(fill(&mut parked, std::iter::repeat_n(1, 300), None), MOST_PER_SERVICE);
        assert!(parked.lacks_room(&order(&[2], None)).is_none());
        assert_eq!(fill(&mut parked, 100..400, Some(1000)), MOST_PER_UID - MOST_PER_SERVICE);
        let expected = (2, "64 commands of user 1000 wait already for services to be read".to_owned());
        assert_eq!(why(&parked, &order(&[2], Some(1000))), expected);
        let others: usize = (1001..1010).map(|uid| fill(&mut parked, 100..400, Some(uid))).sum();
        assert_eq!(others + MOST_PER_UID, MOST_PARKED - RESERVED);
        let expected = (2, "192 commands wait already for services to be read".to_owned());
        assert_eq!(why(&parked, &order(&[2], Some(1010))), expected);
        assert_eq!(fill(&mut parked, 400..800, None), RESERVED - MOST_PER_SERVICE);
        let expected = (2, "256 commands wait already for services to be read".to_owned());
        assert_eq!(why(&parked, &order(&[2], None)), expected);
    }
}
