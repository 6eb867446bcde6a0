//! ROOT. Requests of clients to events, and outcomes to replies. Never decides an outcome.

use std::collections::{BTreeMap, BTreeSet};

use super::Manager;
use super::access::Caller;
use super::control::{Heard, Room, SessionId};
use super::exec::Wanted;
use super::last_words::has_words;
use super::parked::Order;
use super::report::WAITS;
use crate::policy::{Event, Operation, Outcome, ServiceId};
use crate::unit::{Kind, duration_text};
use crate::wire::control::{self, Failed, Failure, OperationReply, Refusal, Reply, StatusReply};
use crate::wire::request::{self, Request};
use crate::wire::verb::Right;

/// Who asks, and where the answer goes.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    /// Where.
    pub session: SessionId,
    /// Who.
    pub caller: &'a Caller,
}

/// A service of a status that is still to be sent.
#[derive(Debug)]
pub struct Part {
    id: ServiceId,
    /// With its last output.
    detail: bool,
    /// Whoever asks may read its output and its unit.
    readable: bool,
    /// Without those that it waits for.
    hides: bool,
}

/// Milliseconds for which the last words of what failed are waited for, where they are on their way.
const LAST_WORDS_MS: u64 = 2_000;

/// Who waits for which operation on what.
#[derive(Debug, Default)]
pub struct Waiting {
    table: BTreeMap<Operation, Wait>,
}

#[derive(Debug)]
struct Wait {
    sessions: Vec<SessionId>,
    services: Vec<ServiceId>,
    /// What whoever asked for it should know besides.
    notes: BTreeMap<ServiceId, String>,
    /// Until when the last words of what failed are waited for.
    words_until: Option<crate::policy::Mono>,
}

impl Waiting {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Who waits for something of this service.
    pub fn sessions_on(&self, id: ServiceId) -> Vec<SessionId> {
        let waits = self.table.values().filter(|wait| wait.services.contains(&id));
        waits.flat_map(|wait| &wait.sessions).copied().collect()
    }
}

impl Manager {
    /// Takes what a client said.
    pub(super) fn take_request(&mut self, heard: Heard) {
        match heard {
            Heard::Asked { session, request, caller, .. } => {
                self.answer(Asker { session, caller: &caller }, &request);
            }
            Heard::Room(session) => {
                self.go_on_with_status(session);
                self.go_on_with_logs(session);
                self.watchers.has_room(session);
            }
            Heard::Gone(session) => {
                self.streams.remove(&session);
                self.logs.readers.remove(&session);
                self.watchers.leave(session);
                self.exec_left(session);
                self.parked.leave(session);
                self.waiting.table.values_mut().for_each(|wait| wait.sessions.retain(|one| *one != session));
                self.waiting.table.retain(|_, wait| !wait.sessions.is_empty());
            }
        }
    }

    fn answer(&mut self, asker: Asker<'_>, request: &Request) {
        match request {
            Request::Status { names, detail } => self.answer_status(asker, names, *detail),
            Request::Start(order) => self.operate(asker, order, Event::Start),
            Request::Stop { order, hold: false } => self.operate(asker, order, Event::Stop),
            Request::Stop { order, hold: true } => self.operate(asker, order, Event::Hold),
            Request::Restart { order, stop_first: true } => {
                self.operate(asker, order, Event::RestartStopFirst);
            }
            Request::Restart { order, stop_first: false } => self.operate(asker, order, Event::Restart),
            Request::Reload(order) => self.operate(asker, order, Event::Reload),
            Request::Scale { order, instances } => {
                let instances = *instances;
                self.operate(asker, order, |operation| Event::Scale(operation, instances));
            }
            Request::Kill { names, signal, all } => self.answer_kill(asker, names, signal, *all),
            Request::Events { names } => self.subscribe(asker, names),
            Request::Show { name, exec } => self.answer_show(asker, name, *exec),
            Request::Exec { name, resume: Some(pid), .. } => self.resume_exec(asker, name, *pid),
            Request::Exec { name, argv, terminal, resume: None } => {
                self.answer_exec(asker, Wanted { name, argv, terminal: terminal.as_ref() });
            }
            Request::Logs { names } => self.answer_logs(asker, names),
        }
    }

    fn answer_status(&mut self, Asker { session, caller }: Asker<'_>, wanted: &[String], detail: bool) {
        let chosen = match self.resolve(wanted, caller, Right::Status) {
            Ok(chosen) => chosen,
            Err(refusal) => return self.refuse(session, refusal),
        };
        let supervisor = Some(self.supervisor_status());
        let first = StatusReply { supervisor, services: Vec::new() };
        self.reply(session, &Reply::Status(first), chosen.is_empty());
        if !chosen.is_empty() {
            let readable = |id| self.right_on(id, caller) >= Some(Right::Logs);
            // Who may not see one that is waited for is not told of it.
            let hidden = |id| self.world.awaited(id).iter().any(|one| self.right_on(*one, caller).is_none());
            let part = |id| Part { id, detail, readable: readable(id), hides: hidden(id) };
            let stream = chosen.into_iter().map(part).collect();
            self.streams.insert(session, stream);
            self.go_on_with_status(session);
        }
    }

    /// Sends services of a status until the client has enough to read for now.
    fn go_on_with_status(&mut self, session: SessionId) {
        let Some(mut rest) = self.streams.remove(&session) else { return };
        while let Some(Part { id, detail, readable, hides }) = rest.pop_front() {
            let mut services: Vec<control::Service> = self.service_status(id).into_iter().collect();
            for service in services.iter_mut().filter(|_| hides) {
                service.waiting_for.clear();
                service.problems.retain(|problem| !problem.starts_with(WAITS));
            }
            // As with `show`: an argument may be nobody else's business.
            services.iter_mut().filter(|_| !readable).for_each(|service| service.command.clear());
            if detail && readable {
                for service in &mut services {
                    let words = self.last_words(id);
                    (service.output, service.silent, service.output_of) =
                        (words.lines, words.nothing, words.of);
                    let rival = self.rival(id, &service.output);
                    service
                        .problems
                        .extend(rival.map(|rival| format!("{}\nhint: {}", rival.words, rival.hint)));
                }
            }
            let services = services.into_iter().map(control::Service::bounded).collect();
            let reply = Reply::Status(StatusReply { supervisor: None, services });
            match self.reply(session, &reply, rest.is_empty()) {
                Room::Now => {}
                Room::Later => {
                    if !rest.is_empty() {
                        self.streams.insert(session, rest);
                    }
                    return;
                }
                Room::Gone => return,
            }
        }
    }

    fn operate(&mut self, asker: Asker<'_>, asked: &request::Order, event: impl FnOnce(Operation) -> Event) {
        let Asker { session, caller } = asker;
        let chosen = match self.resolve(&asked.names, caller, Right::Control) {
            Ok(chosen) => chosen,
            Err(refusal) => return self.refuse(session, refusal),
        };
        let operation = Operation(asked.operation.0);
        let event = event(operation);
        if let Some(refusal) = self.refuse_bad_units(&chosen, event) {
            return self.refuse(session, refusal);
        }
        if self.parked.join(operation, session, asked.wait) {
            return;
        }
        if matches!(event, Event::Stop(_) | Event::Hold(_)) {
            self.overtake(&chosen);
        }
        let read = self.to_be_read(&chosen, event, operation);
        let sessions = vec![(session, asked.wait)];
        let notes = match event {
            Event::Stop(_) => self.left_behind(&chosen, caller),
            Event::Hold(_) => self.requirers(&chosen, caller),
            Event::Restart(_) => self.unproven(&chosen),
            _ => BTreeMap::new(),
        };
        let stranger = (!caller.is_ours).then_some(caller.uid);
        let order = Order { operation, event, chosen, overtaken: BTreeSet::new(), notes, sessions, stranger };
        if read.is_empty() || self.world.is_closing() {
            self.carry_on(order);
        } else {
            let next = !matches!(event, Event::Start(_));
            self.park(order, &read, next);
        }
    }

    /// Does to each service what is to be done, and has whoever waits told of it.
    pub(super) fn carry_on(&mut self, order: Order) {
        let Order { operation, event, chosen, overtaken, notes, sessions, stranger: _ } = order;
        let waits: Vec<SessionId> = sessions.iter().filter(|one| one.1).map(|one| one.0).collect();
        if !waits.is_empty() {
            // Before the first step, so that it is told.
            self.see(&chosen);
            let (services, notes) = (chosen.clone(), notes.clone());
            let new = || Wait { sessions: Vec::new(), services, notes, words_until: None };
            self.waiting.table.entry(operation).or_insert_with(new).sessions.extend(&waits);
        }
        for id in chosen.iter().filter(|id| !overtaken.contains(id)) {
            let known = self.world.get(*id).is_some_and(|service| service.outcome(operation).is_some());
            let starts = matches!(event, Event::Start(_) | Event::Restart(_) | Event::RestartStopFirst(_));
            if starts && !known {
                self.pull_for(*id);
            }
            self.feed(*id, event);
        }
        self.run_events();
        if !waits.is_empty() {
            self.answered.push(operation);
        }
        for (session, _) in sessions.iter().filter(|one| !one.1) {
            let services = chosen.iter().filter_map(|id| self.outcome_value(*id, None, &notes)).collect();
            self.reply(*session, &Reply::Operation(OperationReply { services, progress: None }), true);
        }
    }

    /// For services that are to stop: who goes on without each, and which of its sockets stay open.
    fn left_behind(&self, chosen: &[ServiceId], caller: &Caller) -> BTreeMap<ServiceId, String> {
        let mut notes = self.requirers(chosen, caller);
        for id in chosen {
            let Some(words) = self.stays_open(*id) else { continue };
            let note = notes.entry(*id).or_default();
            note.push_str(if note.is_empty() { "" } else { "; " });
            note.push_str(&words);
        }
        notes
    }

    /// For services that are to stop: who requires each, goes on without it, and may be known to who asks.
    fn requirers(&self, chosen: &[ServiceId], caller: &Caller) -> BTreeMap<ServiceId, String> {
        let note = |id: &ServiceId| {
            let mut all = self.world.requirers(*id);
            all.retain(|one| !chosen.contains(one) && self.right_on(*one, caller).is_some());
            let names: Vec<String> = all.iter().map(|one| format!("`{}`", self.name_of(*one))).collect();
            let (last, others) = names.split_last()?;
            let words = match others {
                [] => format!("{last} requires it, and goes on without it"),
                others => format!("{} and {last} require it, and go on without it", others.join(", ")),
            };
            Some((*id, words))
        };
        chosen.iter().filter_map(note).collect()
    }

    /// For services that are to be restarted: that nothing proves the new generation good.
    fn unproven(&self, chosen: &[ServiceId]) -> BTreeMap<ServiceId, String> {
        let note = |id: &ServiceId| {
            let unit = self.unit_of(*id).filter(|unit| unit.proves_nothing())?;
            let alive = duration_text(unit.service.settle_ms);
            let hint = match unit.sockets.is_empty() {
                true => "a longer `settle` waits until it has imported what it runs",
                false => "add `[health]`, and a restart goes on only when the new one answers",
            };
            Some((
                *id,
                format!(
                    "not proven: it has been alive for {alive}, and nothing was asked of it; hint: {hint}"
                ),
            ))
        };
        chosen.iter().filter_map(note).collect()
    }

    /// Those whose inputs are read first. A restart makes a generation; a start of what does not run reads the inputs of
    /// the one it has again. A client that asks again after its connection broke does neither.
    fn to_be_read(&self, chosen: &[ServiceId], event: Event, operation: Operation) -> Vec<ServiceId> {
        let restart = matches!(event, Event::Restart(_) | Event::RestartStopFirst(_) | Event::Reload(_));
        let start = matches!(event, Event::Start(_));
        let new = |id: &&ServiceId| {
            let service = self.world.get(**id);
            service.is_some_and(|service| {
                let reloads = matches!(event, Event::Reload(_))
                    && self.world.spec(**id).is_some_and(|spec| spec.reload);
                service.outcome(operation).is_none()
                    && !reloads
                    && (restart || start && service.incarnations().next().is_none())
            })
        };
        chosen.iter().filter(new).copied().collect()
    }

    /// Brings up what a service needs.
    pub(super) fn pull_for(&mut self, id: ServiceId) {
        if self.world.spec(id).is_some_and(|spec| spec.off) {
            return;
        }
        for other in self.world.pulls(id) {
            if self.unit_of(other).is_some() {
                self.feed(other, Event::Pull);
            }
        }
    }

    fn refuse_bad_units(&self, chosen: &[ServiceId], event: Event) -> Option<Refusal> {
        if matches!(event, Event::Stop(_) | Event::Hold(_)) {
            return None;
        }
        if matches!(event, Event::Scale(..)) {
            let task =
                |id: &&ServiceId| self.unit_of(**id).is_some_and(|unit| unit.service.kind == Kind::Task);
            let mut tasks = chosen.iter().filter(task).map(|id| Failure {
                service: self.name_of(*id).to_owned(),
                step: "changing its instances".to_owned(),
                reason: "it is a task, and has one".to_owned(),
                ..Failure::default()
            });
            if let Some(first) = tasks.next() {
                return Some(Refusal::Failed(Box::new(Failed { first, others: tasks.collect() })));
            }
        }
        if let Event::Scale(_, count) = event {
            let lacks = |id: &ServiceId| {
                let (reason, hint) = self.lacks_room(Some(*id), self.unit_of(*id)?, count)?;
                let service = self.name_of(*id).to_owned();
                let step = "changing its instances".to_owned();
                Some(Failure { service, step, reason, hint: Some(hint), ..Failure::default() })
            };
            let mut lacking = chosen.iter().filter_map(lacks);
            if let Some(first) = lacking.next() {
                return Some(Refusal::Failed(Box::new(Failed { first, others: lacking.collect() })));
            }
        }
        let mut failures = chosen.iter().filter(|id| self.unit_of(**id).is_none()).map(|id| Failure {
            service: self.name_of(*id).to_owned(),
            step: "reading its unit".to_owned(),
            reason: self.services.get(id).map(|known| known.inputs.problems.join("\n")).unwrap_or_default(),
            hint: Some("mend the unit file and start supervise again".to_owned()),
            ..Failure::default()
        });
        let first = failures.next()?;
        Some(Refusal::Failed(Box::new(Failed { first, others: failures.collect() })))
    }

    /// Tells whoever waits for operations that have their outcome on every service.
    pub(super) fn send_answers(&mut self) {
        if self.kept.is_closing() && !self.world.is_closing() {
            return; // whoever is told that a socket is closed finds it so; all are soon, where supervise ends
        }
        let mut operations = std::mem::take(&mut self.answered);
        operations.sort_unstable();
        operations.dedup();
        for operation in operations {
            let Some(wait) = self.waiting.table.get(&operation) else { continue };
            let outcome = |id: &ServiceId| {
                // One that was pushed out by newer operations has been overtaken by them.
                let known = self.world.get(*id).and_then(|service| service.outcome(operation));
                known.unwrap_or(Some(Outcome::Superseded)).map(|outcome| (*id, outcome))
            };
            let outcomes: Option<Vec<(ServiceId, Outcome)>> = wait.services.iter().map(outcome).collect();
            let Some(outcomes) = outcomes else { continue };
            if self.output_is_awaited(operation, &outcomes) {
                self.answered.push(operation);
                continue;
            }
            if let Some(wait) = self.waiting.table.remove(&operation) {
                let reply = self.operation_reply(&outcomes, &wait.notes);
                for session in wait.sessions {
                    self.reply(session, &reply, true);
                }
            }
        }
    }

    /// Whether the last words of a service that failed are on their way to its log, and may be waited for.
    fn output_is_awaited(&mut self, operation: Operation, outcomes: &[(ServiceId, Outcome)]) -> bool {
        let unread = outcomes.iter().any(|(id, outcome)| {
            let Outcome::Ended(end) = outcome else { return false };
            let ended = self.ended_like(*id, *end).filter(|_| has_words(*end));
            ended.is_some_and(|ended| self.has_unread_output(ended.run))
        });
        let now = self.now;
        let Some(wait) = self.waiting.table.get_mut(&operation).filter(|_| unread) else { return false };
        now < *wait.words_until.get_or_insert(now.after(LAST_WORDS_MS))
    }

    fn operation_reply(
        &self,
        outcomes: &[(ServiceId, Outcome)],
        notes: &BTreeMap<ServiceId, String>,
    ) -> Reply {
        let mut failures: Vec<Failure> =
            outcomes.iter().filter_map(|(id, outcome)| self.told_failure(*id, *outcome)).collect();
        if failures.is_empty() {
            let value = |(id, outcome): &(ServiceId, Outcome)| self.outcome_value(*id, Some(*outcome), notes);
            let services = outcomes.iter().filter_map(value).collect();
            return Reply::Operation(OperationReply { services, progress: None });
        }
        let first = failures.remove(0);
        Reply::Refused(Refusal::Failed(Box::new(Failed { first, others: failures })))
    }

    pub(super) fn outcome_value(
        &self,
        id: ServiceId,
        outcome: Option<Outcome>,
        notes: &BTreeMap<ServiceId, String>,
    ) -> Option<control::Outcome> {
        let status = self.service_status(id)?;
        let has_none = self.world.get(id).is_some_and(|service| service.instances.is_empty());
        let already = (outcome == Some(Outcome::Already)).then(|| match has_none {
            true => format!("it has no instances: `supervise scale {} 1` starts one", status.name),
            false => format!("already {}", status.state.word()),
        });
        let changed = self.changed_words(id);
        let run = self.world.get(id).and_then(|service| service.main()).map(|one| one.run);
        let wrong =
            run.filter(|_| notes.contains_key(&id)).and_then(|run| self.notices.of(run)?.wrong.clone());
        let wrong = wrong.map(|wrong| wrong.replace('\n', "; "));
        let notes = notes.get(&id).cloned().into_iter().chain(wrong);
        let all: Vec<String> = already.into_iter().chain(notes).chain(changed).collect();
        let note = (!all.is_empty()).then(|| all.join("; "));
        Some(control::Outcome { name: status.name, state: status.state, pid: status.pid, note })
    }

    /// The last reply to a call: that it may not be, or cannot.
    pub(super) fn refuse(&mut self, session: SessionId, refusal: Refusal) {
        self.reply(session, &Reply::Refused(refusal), true);
    }

    pub(super) fn reply(&mut self, session: SessionId, reply: &Reply, last: bool) -> Room {
        self.control.as_mut().map_or(Room::Gone, |control| control.reply(session, reply, last, self.now))
    }
}
