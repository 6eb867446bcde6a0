//! ROOT. How services are, as `status` tells it; and each decision as a line on standard error. Never changes
//! anything.

use super::Manager;
use super::ends::stays_down;
use super::events::Seen;
use super::inputs::Which;
use super::last_words::has_words;
use super::notices::Said;
use super::states::{comes_of_its_end, next_start, since, state};
use super::{errands, read_units, strain};
use crate::launch::words;
use crate::policy::service::{Ended, Incarnation, Instance, Rest, Role, Service};
use crate::policy::{Action, End, Event, Exit, Mono, Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::{cgroup, clock};
use crate::unit::{Gate, duration_text};
use crate::wire::zygote::{Report, Weight};
use crate::wire::{control, keeper};

/// The step at which a rehearsal fails.
pub(super) const REHEARSING: &str = "rehearsing it on private sockets";

/// What is said where nothing more is known.
const UNHEALTHY: &str = "not healthy";

/// RFC 3339 in UTC of so many nanoseconds since 1970.
pub fn instant(ns: u64) -> String {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{timestamp:.3}")
}

/// What a monotonic moment is on the wall clock now.
pub(super) fn wall(at: Mono) -> String {
    let (now_ms, now_ns) = (clock::monotonic_ms() as i128, clock::realtime_ns() as i128);
    let ns = now_ns + (i128::from(at.0) - now_ms) * 1_000_000;
    instant(ns.clamp(0, i128::from(u64::MAX)) as u64)
}

/// A signal's name without SIG, or its number.
pub fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => known.as_str().trim_start_matches("SIG").to_owned(),
        Err(_) => signal.to_string(),
    }
}

/// How a problem begins that is another service's.
pub const WAITS: &str = "it waits for ";

impl Manager {
    /// How an incarnation ended, or why it never began, in words.
    pub(super) fn words_of(&self, id: ServiceId, ended: &Ended) -> String {
        self.words_of_one(id, Which::of(ended), ended.end)
    }

    fn words_of_one(&self, id: ServiceId, which: Which, end: End) -> String {
        let told = self.end_notes.told(id, which.run).filter(|_| !has_words(end)).cloned();
        let words = told.unwrap_or_else(|| self.plain_words(id, which, end));
        let Some(before) = which.before else { return words };
        let count = self.unit_of(id).map_or(0, |unit| unit.service.before_start.len());
        format!("before-start {} of {count}: {words}", before + 1)
    }

    pub(super) fn plain_words(&self, id: ServiceId, which: Which, end: End) -> String {
        match end {
            End::Exited(_) => self.exit_of(id, which, end).map(|exit| exit.meaning).unwrap_or_default(),
            End::Launch { stage, errno, detail } => {
                let report = Report { weight: Weight::Failure, stage, errno, detail };
                match self.exec_plan(id, which, "") {
                    Ok(plan) => words::explain(&plan, &report, self.launch_facts.of(which.run)).to_string(),
                    Err(words) => words,
                }
            }
            End::NoProcess(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                format!("no process could be made: {}", reason(&error))
            }
            End::Unprepared | End::Unbound | End::Unanswered => {
                self.words.get(&id).cloned().unwrap_or_else(|| "it could not be prepared".to_owned())
            }
            End::NotReady => {
                let words = self.with_wrong(id, which.run, &self.unready_words(id, which.run));
                match self.unit_of(id).and_then(errands::unready_hint) {
                    Some(hint) if !words.contains("\nhint: ") => format!("{words}\nhint: {hint}"),
                    Some(_) | None => words,
                }
            }
            End::Unhealthy => {
                let said = self.notices.of_last(id, which.run);
                let health = said.and_then(|said| said.health.as_ref()).map(|health| &health.words);
                let words = health.or_else(|| said.and_then(|said| said.unasked.as_ref()));
                let words = words.map_or_else(String::new, |words| format!(": {words}"));
                self.with_wrong(id, which.run, &format!("{UNHEALTHY}{words}"))
            }
            End::Watchdog => format!("{}: no WATCHDOG=1 on its notify socket", self.silence_words(id)),
            End::TimedOut => "the steps before the command took longer than `start-timeout`".to_owned(),
        }
    }

    fn unready_words(&self, id: ServiceId, run: Run) -> String {
        let Some(unit) = self.unit_of(id) else { return "not ready".to_owned() };
        let within = unit.service.start_timeout_ms.map(duration_text).unwrap_or_default();
        let said = self.notices.of_last(id, run);
        let reason = match unit.gate() {
            Gate::Notify => "no READY=1 on its notify socket".to_owned(),
            Gate::Line(number) => format!("no line on descriptor {number}"),
            Gate::Answer(_) => errands::silent(unit),
            Gate::Listens => "none of its processes waits for connections".to_owned(),
            Gate::Health => match said.and_then(|said| said.health.as_ref()) {
                Some(health) => format!("not healthy: {}", health.words),
                None => said.and_then(|said| said.unasked.as_ref()).map_or_else(
                    || "no probe found it healthy".to_owned(),
                    |words| format!("it was not asked: {words}"),
                ),
            },
            Gate::Success | Gate::Started => return format!("not ready within {within}"),
        };
        format!("not ready within {within}: {reason}")
    }

    /// Where one was seen to listen instead comes first, with the remedy: everything else follows from it.
    fn with_wrong(&self, id: ServiceId, run: Run, words: &str) -> String {
        let wrong = self.notices.of_last(id, run).and_then(|said| said.wrong.as_deref());
        match wrong.map(|wrong| wrong.split_once("\nhint: ").unwrap_or((wrong, ""))) {
            None => words.to_owned(),
            // No probe has said more than that.
            Some(_) if words == UNHEALTHY => wrong.unwrap_or_default().to_owned(),
            Some((what, "")) => format!("{what}; {words}"),
            Some((what, hint)) => format!("{what}; {words}\nhint: {hint}"),
        }
    }

    /// The supervisor itself.
    pub(super) fn supervisor_status(&self) -> control::Supervisor {
        control::Supervisor {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id() as i32,
            keeper_pid: self.kept.raw_link().map(|_| self.kept.keeper_pid as i32),
            since: instant(self.since_ns),
        }
    }

    /// One service.
    pub(super) fn service_status(&self, id: ServiceId) -> Option<control::Service> {
        let service = self.world.get(id)?;
        let run = service.main().map(|one| one.run);
        let process = run.and_then(|run| self.processes.get(run));
        let said = run.and_then(|run| self.notices.of(run));
        let state = state(service, said);
        let pid = process.map(|process| process.main().pid as i32);
        let trees = service.incarnations().filter_map(|(_, _, one)| self.tree(one.run));
        let mut pids: Vec<i32> = trees.flat_map(|tree| tree.pids()).map(|pid| pid as i32).collect();
        pids.sort_unstable();
        let tracking = process.map(|process| match &process.cgroup {
            Some(_) => "cgroup".to_owned(),
            None => "process-tree (weak)".to_owned(),
        });
        let awaited = self.world.awaited(id);
        let mut problems =
            self.services.get(&id).map(|known| known.inputs.problems.clone()).unwrap_or_default();
        problems.extend(self.end_problems(id, service, state));
        problems.extend(self.limit_problems(id, service));
        problems.extend(self.hang_problem(id, service).into_iter().chain(self.socket_problems(id)));
        let next_start = service.instances.iter().filter_map(next_start).min().map(wall);
        problems.extend(said.into_iter().flat_map(Said::complaints));
        problems.extend(self.not_inherited(service, id, state));
        problems.extend(self.wrongs(service, said));
        let kept_out = self.logs.troubles_of(self.name_of(id)).into_iter();
        problems.extend(kept_out.map(|words| format!("its output: {words}")));
        let (healthy, ill) = self.health_of(service);
        problems.extend(awaited.iter().map(|other| self.unready(*other)).chain(ill));
        problems.extend(self.failed_replacement(id, service, healthy));
        if let Some(words) = said.and_then(|said| said.unasked.as_ref()) {
            problems.push(format!("it was not asked how it is: {words}; that counts for nothing"));
        }
        let gate = self.gate_text(id, service);
        let (memory_bytes, cpu_seconds) = self.usage(service);
        let account = self.services.get(&id).and_then(|known| known.inputs.account.as_ref());
        Some(
            control::Service {
                name: self.name_of(id).to_owned(),
                state,
                healthy,
                waiting_for: awaited.iter().map(|other| self.name_of(*other).to_owned()).collect(),
                pid,
                pids,
                generation: service.generation.into(),
                instances: self.instance_status(service),
                restarts: service.restarts.into(),
                since: since(service).map(wall),
                exit: service.last_end().and_then(|ended| self.exit_of(id, Which::of(ended), ended.end)),
                next_start,
                gate,
                sockets: self.socket_status(id),
                status_text: said.and_then(|said| said.status.clone()),
                tracking,
                problems,
                memory_bytes,
                cpu_seconds,
                user: account.map(|account| account.name.clone()),
                ends: self.ends_of(id),
                changed: self.changed_files(id),
                adopted: process.and_then(|process| process.adopted).map(|adopted| instant(adopted.at_ns)),
                stored: self.stores.count(id),
                ..self.described(id)
            }
            .bounded(),
        )
    }

    /// What its last end has to do with how it is now.
    fn end_problems(&self, id: ServiceId, service: &Service, state: control::State) -> Vec<String> {
        let Some(ended) = service.last_end() else {
            return self.readings.words_of(id).map(str::to_owned).into_iter().collect();
        };
        let succeeded = ended.before.is_none() || ended.end == SUCCESS;
        let told = !(matches!(ended.end, End::Exited(_)) && succeeded) && comes_of_its_end(service, state);
        let words = told.then(|| self.words_of(id, ended));
        let given_up = state == control::State::Failed;
        words.into_iter().chain(self.unit_of(id).filter(|_| given_up).and_then(stays_down)).collect()
    }

    /// That a service is waited for, how it is, and why it is not ready.
    fn unready(&self, id: ServiceId) -> String {
        let name = self.name_of(id);
        let Some(service) = self.world.get(id) else { return format!("`{name}` is not ready") };
        let said = service.main().and_then(|one| self.notices.of(one.run));
        let state = state(service, said);
        let why = service.last_end().filter(|_| comes_of_its_end(service, state));
        let words = why.map(|ended| self.words_of(id, ended));
        let words = words.as_deref().and_then(|words| words.lines().next()).unwrap_or_default();
        let colon = if words.is_empty() { "" } else { ": " };
        format!("{WAITS}`{name}`, which is {}{colon}{words}", state.word())
    }

    /// That it calls a process its main one that is not followed; after its end as well, which may have come of that.
    fn not_inherited(&self, service: &Service, id: ServiceId, state: control::State) -> Option<String> {
        let last = service.last_end().filter(|_| !matches!(state, control::State::Running));
        let run = service.main().map(|one| one.run);
        let now = run.and_then(|run| self.notices.of(run)).and_then(Said::not_inherited);
        let before = last.and_then(|ended| self.notices.of_last(id, ended.run));
        now.or_else(|| before.and_then(Said::not_inherited))
    }

    /// What is wrong with where the main one listens, and those that are to become current.
    fn wrongs(&self, service: &Service, main: Option<&Said>) -> Vec<String> {
        let next = service.incarnations().filter(|(_, role, _)| *role == Role::Next);
        let wrong = |(_, _, one): (&Instance, Role, &Incarnation)| {
            let wrong = self.notices.of(one.run)?.wrong.as_deref()?;
            Some(format!("generation {}, which is to come: {wrong}", one.generation))
        };
        main.and_then(|said| said.wrong.clone()).into_iter().chain(next.filter_map(wrong)).collect()
    }

    /// Files of its unit that are not as they were when they were read; what runs goes by what was read.
    pub(super) fn changed_files(&self, id: ServiceId) -> Vec<String> {
        self.services
            .get(&id)
            .map(|known| read_units::changed(&known.name, &known.inputs.layers, &known.inputs.unreadable))
            .unwrap_or_default()
    }

    /// The limits that do not hold, and what those that do have done to its incarnations.
    fn limit_problems(&self, id: ServiceId, service: &Service) -> Vec<String> {
        let groups =
            service.incarnations().filter_map(|(_, _, one)| self.kept.fd(keeper::Kind::Cgroup, one.run.0));
        let lacking = self.lacking.get(&id).into_iter().flatten().cloned();
        let done = groups.flat_map(|group| strain::complaints(&cgroup::strain(group)));
        let left_out = self.launch_facts.left_out(id).filter(|_| service.incarnations().next().is_some());
        let mut all: Vec<String> = lacking.chain(left_out.map(str::to_owned)).chain(done).collect();
        all.dedup();
        all
    }

    /// Memory and seconds of processor time of all its incarnations.
    fn usage(&self, service: &Service) -> (Option<u64>, Option<f64>) {
        let (mut memory, mut processor) = (None, None);
        for tree in service.incarnations().filter_map(|(_, _, one)| self.tree(one.run)) {
            let (bytes, us) = tree.usage();
            memory = bytes.map(|bytes| memory.unwrap_or(0) + bytes).or(memory);
            processor = us.map(|us| processor.unwrap_or(0.0) + us as f64 / 1e6).or(processor);
        }
        (memory, processor)
    }

    /// What of a service those who watch are told the changes of; costs no system call.
    pub(super) fn seen(&self, id: ServiceId) -> Option<Seen> {
        let service = self.world.get(id)?;
        let run = service.main().map(|one| one.run);
        let said = run.and_then(|run| self.notices.of(run));
        Some(Seen {
            state: state(service, said),
            generation: service.generation.into(),
            pid: run.and_then(|run| self.processes.get(run)).map(|process| process.main().pid as i32),
            restarts: service.restarts.into(),
            exit: service.last_end().and_then(|ended| self.exit_of(id, Which::of(ended), ended.end)),
            text: self.lost_text(id).or_else(|| said.and_then(|said| said.status.clone())),
            rehearsal: self.rehearsal_text(id, service),
        })
    }

    /// What proves it good, and whether a rehearsal does so before or could not.
    fn gate_text(&self, id: ServiceId, service: &Service) -> Option<String> {
        let rehearsing = service.incarnations().any(|(_, _, one)| one.rehearsal && !one.dismissed);
        let text = self.unit_of(id)?.gate_text(rehearsing);
        Some(match self.unrehearsed_words(id) {
            Some(words) => format!("{text}; no rehearsal: {words}"),
            None => text,
        })
    }

    /// That a generation is being rehearsed, or that the last thing that ended was a rehearsal that failed.
    fn rehearsal_text(&self, id: ServiceId, service: &Service) -> Option<String> {
        if let Some((_, _, one)) = service.incarnations().find(|(_, _, one)| one.rehearsal && !one.dismissed)
        {
            let wrong = self.notices.of(one.run).and_then(|said| said.wrong.as_deref());
            let wrong = wrong.and_then(|wrong| wrong.lines().next()).map(|wrong| format!(": {wrong}"));
            let text = format!("rehearsal of generation {} on private sockets", one.generation);
            return Some(text + &wrong.unwrap_or_default());
        }
        let ended = service.ends.last().filter(|ended| ended.rehearsal && !ended.dismissed)?;
        // One that comes after it is what there is to say something of.
        if service.incarnations().any(|(_, _, one)| one.generation > ended.generation) {
            return None;
        }
        let words = self.words_of(id, ended);
        Some(format!("generation {} failed its rehearsal on private sockets: {words}", ended.generation))
    }

    fn socket_status(&self, id: ServiceId) -> Vec<control::Socket> {
        let Some(unit) = self.unit_of(id) else { return Vec::new() };
        self.wanted_sockets(unit)
            .into_iter()
            .map(|(name, address)| {
                let queue = self.queue_at(&address);
                control::Socket {
                    name,
                    address: address.to_string(),
                    queue: queue.map(|(waiting, _)| waiting.into()),
                    backlog: queue.map(|(_, most)| most.into()),
                    inherited: self.given_at(&address).is_some(),
                }
            })
            .collect()
    }

    /// One line for one decision.
    pub(super) fn report_step(&self, id: ServiceId, event: Event, actions: &[Action]) {
        let Some(service) = self.world.get(id) else { return };
        let name = self.name_of(id);
        let about = |run: Run| format!("service={name}{}", self.about(service, run));
        let next = self.next_words(service, event, actions);
        match event {
            Event::Executed(run) => {
                let pid = self.processes.get(run).map_or(0, |process| process.main().pid);
                log::info!("{} pid={pid} started", about(run));
            }
            Event::Gone(run, exit) => {
                let how = match exit {
                    Exit::Code(code) => format!("exited status={code}"),
                    Exit::Signal(signal) => format!("ended signal={}", signal_name(signal)),
                    Exit::Unknown => "ended status=unknown".to_owned(),
                };
                let memory = if self.ran_out_of_memory(run) { " out_of_memory" } else { "" };
                log::info!("{} {how}{memory}", about(run));
            }
            Event::NotCloned(run, end) | Event::NotExecuted(run, end) => {
                let ended = service.ends.iter().rev().find(|ended| ended.run == run);
                let which = self.which(id, run).or_else(|| ended.map(Which::of));
                let words = which.map_or_else(String::new, |which| self.words_of_one(id, which, end));
                log::warn!("{} {}", about(run), with_fields(&words, &next));
            }
            Event::Ready(run) => log::info!("{} ready", about(run)),
            Event::Empty(run) => log::info!("{} gone{next}", about(run)),
            Event::Lost(run) => log::info!("{} never began{next}", about(run)),
            Event::Unrehearsed(run) => log::info!("{} left out{next}", about(run)),
            Event::Boot
            | Event::Start(_)
            | Event::Stop(_)
            | Event::Restart(_)
            | Event::RestartStopFirst(_)
            | Event::Hold(_)
            | Event::Reload(_)
            | Event::Scale(..)
            | Event::Pull
            | Event::Alive(_)
            | Event::Trigger(_)
            | Event::Watched(..)
            | Event::Healthy(_)
            | Event::Unhealthy(_)
            | Event::Unanswered(_)
            | Event::Unasked(_)
            | Event::Astray(_)
            | Event::Reloaded(_)
            | Event::NotReloaded(_)
            | Event::Close
            | Event::Cloned(_)
            | Event::Signalled(_)
            | Event::Extended(..)
            | Event::Healed(_)
            | Event::Tick => {}
        }
    }
}

impl Manager {
    /// Which incarnation a line is about: as the service has it, or had it, else as its process was written down.
    fn about(&self, service: &Service, run: Run) -> String {
        let found = service.find(run);
        let found = found.map(|(instance, _, one)| (instance.number, one.generation, one.rehearsal));
        let ended = service.ends.iter().rev().find(|ended| ended.run == run);
        let ended = ended.map(|ended| (ended.instance, ended.generation, ended.rehearsal));
        let process = self.processes.get(run);
        let process = process.map(|process| (process.instance, process.generation, false));
        let Some((instance, generation, rehearsal)) = found.or(ended).or(process) else {
            return format!(" run={}", run.0);
        };
        let instance =
            if service.instances.len() > 1 { format!(" instance={instance}") } else { String::new() };
        let rehearsal = if rehearsal { " rehearsal" } else { "" };
        format!("{instance} gen={generation} run={}{rehearsal}", run.0)
    }

    /// What follows from an end.
    fn next_words(&self, service: &Service, event: Event, actions: &[Action]) -> String {
        let spawned = actions.iter().find_map(|action| match action {
            Action::Spawn(run) => Some(*run),
            Action::Release(_)
            | Action::Terminate(_)
            | Action::Kill(_)
            | Action::Abort(_)
            | Action::Probe(_)
            | Action::Reload(_)
            | Action::Clear(_)
            | Action::Answer(_) => None,
        });
        if let Some(run) = spawned {
            return format!(" next=start run={}", run.0);
        }
        let (Event::NotCloned(run, _) | Event::Empty(run)) = event else { return String::new() };
        let Some(ended) = service.ends.iter().rev().find(|ended| ended.run == run) else {
            return String::new();
        };
        let instance = service.instances.iter().find(|instance| instance.number == ended.instance);
        let Some(instance) = instance.filter(|instance| instance.current.is_none()) else {
            return String::new();
        };
        match instance.rest {
            Rest::BackingOff { until } => {
                format!(" next=start in_ms={} failures={}", until.since(self.now), instance.failures)
            }
            Rest::Failed => " next=none state=failed".to_owned(),
            Rest::Done => " next=none state=done".to_owned(),
            Rest::Stopped => " next=none".to_owned(),
            Rest::Waiting => String::new(),
        }
    }
}

const SUCCESS: End = End::Exited(Exit::Code(0));

impl Manager {
    /// The word for the state of each service.
    pub(super) fn states(&self) -> Vec<&'static str> {
        let said = |service: &Service| service.main().and_then(|one| self.notices.of(one.run));
        self.world.iter().map(|(_, service)| state(service, said(service)).word()).collect()
    }
}

/// Fields belong to what happened: they come before the lines that explain it, and before the hint.
fn with_fields(words: &str, fields: &str) -> String {
    let end = words.find('\n').unwrap_or(words.len());
    let (first, rest) = words.split_at(end);
    format!("{first}{fields}{rest}")
}

#[cfg(test)]
mod tests {
    use super::with_fields;

    #[test]
    fn fields_come_before_the_hint() {
        let next = " next=start in_ms=250 failures=1";
        assert_eq!(with_fields("it failed", next), format!("it failed{next}"));
        assert_eq!(with_fields("no\n  at all\nhint: mend", next), format!("no{next}\n  at all\nhint: mend"));
        assert_eq!(with_fields("", ""), "");
    }
}
