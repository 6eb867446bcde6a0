//! ROOT. How services are, as `status` tells it; and each decision as a line on standard error. Never changes
//! anything.

use super::Manager;
use super::events::Seen;
use super::listeners::Address;
use super::notices::Said;
use crate::launch::words;
use crate::policy::service::{Before, Goal, Phase, Service};
use crate::policy::{End, Event, Exit, Mono, Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::{clock, sockets};
use crate::unit::{Kind as For, Ready, Unit, duration_text};
use crate::wire::control;
use crate::wire::keeper::Kind;
use crate::wire::zygote::{Report, Weight};

/// RFC 3339 in UTC of so many nanoseconds since 1970.
pub fn instant(ns: u64) -> String {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{timestamp:.3}")
}

/// What a monotonic moment is on the wall clock now.
fn wall(at: Mono) -> String {
    let (now_ms, now_ns) = (clock::monotonic_ms() as i128, clock::realtime_ns() as i128);
    let ns = now_ns + (i128::from(at.0) - now_ms) * 1_000_000;
    instant(ns.clamp(0, i128::from(u64::MAX)) as u64)
}

/// How a main process ended, in the control protocol's form.
pub fn exit(end: End) -> Option<control::Exit> {
    let End::Exited(exit) = end else { return None };
    Some(match exit {
        Exit::Code(code) => control::Exit {
            code: Some(code),
            signal: None,
            meaning: if code == 0 { "success".to_owned() } else { format!("exit status {code}") },
        },
        Exit::Signal(signal) => {
            let name = signal_name(signal);
            control::Exit { code: None, meaning: format!("ended by SIG{name}"), signal: Some(name) }
        }
        Exit::Unknown => control::Exit {
            code: None,
            signal: None,
            meaning: "unknown: its parent had ended, and this kernel does not tell others".to_owned(),
        },
    })
}

/// A signal's name without SIG, or its number.
pub fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => known.as_str().trim_start_matches("SIG").to_owned(),
        Err(_) => signal.to_string(),
    }
}

impl Manager {
    /// How the incarnation that ended last did, or why it never began, in words.
    pub(super) fn words_of(&self, id: ServiceId, end: End) -> String {
        self.words_of_one(id, end, self.world.get(id).and_then(|service| service.last_before))
    }

    /// The same of one that may have been a command before the start.
    fn words_of_one(&self, id: ServiceId, end: End, before: Option<Before>) -> String {
        let words = self.plain_words(id, end, before);
        let Some(before) = before else { return words };
        let count = self.unit_of(id).map_or(0, |unit| unit.service.before_start.len());
        format!("before-start {} of {count}: {words}", before.index + 1)
    }

    fn plain_words(&self, id: ServiceId, end: End, before: Option<Before>) -> String {
        match end {
            End::Exited(_) => exit(end).map(|exit| exit.meaning).unwrap_or_default(),
            End::Launch { stage, errno, detail } => {
                let report = Report { weight: Weight::Failure, stage, errno, detail };
                let run = self.world.get(id).map_or(Run(0), |service| service.last_run);
                match self.exec_plan(id, run, before, "") {
                    Ok(plan) => words::explain(&plan, &report, &[]).to_string(),
                    Err(words) => words,
                }
            }
            End::NoProcess(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                format!("no process could be made: {}", reason(&error))
            }
            End::Unprepared => {
                self.words.get(&id).cloned().unwrap_or_else(|| "it could not be prepared".to_owned())
            }
            End::NotReady => self.unready_words(id),
            End::TimedOut => "the steps before the command took longer than `start-timeout`".to_owned(),
        }
    }

    fn unready_words(&self, id: ServiceId) -> String {
        let Some(service) = self.unit_of(id).map(|unit| &unit.service) else { return "not ready".to_owned() };
        let within = service.start_timeout_ms.map(duration_text).unwrap_or_default();
        match service.ready {
            Ready::Notify => format!("not ready within {within}: no READY=1 on its notify socket"),
            Ready::Fd(number) => format!("not ready within {within}: no line on descriptor {number}"),
            Ready::Auto | Ready::Started => format!("not ready within {within}"),
            Ready::Health => format!("not ready within {within}: no probe found it healthy"),
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
        let run = service.run();
        let process = run.and_then(|run| self.processes.get(run));
        let said = run.and_then(|run| self.notices.of(run));
        let state = state(service, said);
        let pid = process.map(|process| process.pid as i32);
        let pids: Vec<i32> = run
            .and_then(|run| self.tree(run))
            .map(|tree| tree.pids().into_iter().map(|pid| pid as i32).collect())
            .unwrap_or_default();
        let tracking = process.map(|process| match &process.cgroup {
            Some(_) => "cgroup".to_owned(),
            None => "process-tree (weak)".to_owned(),
        });
        let instances = process
            .map(|process| control::Instance {
                instance: 1,
                generation: process.generation.into(),
                role: control::Role::Current,
                pid,
                state,
                since: Some(wall(service.since)),
            })
            .into_iter()
            .collect();
        let mut problems =
            self.services.get(&id).map(|known| known.inputs.problems.clone()).unwrap_or_default();
        if let (Some(end), false) = (service.last_end, matches!(service.phase, Phase::Running { .. }))
            && (!matches!(end, End::Exited(_)) || service.last_before.is_some() && end != SUCCESS)
        {
            problems.push(self.words_of(id, end));
        }
        problems.extend(self.lacking.get(&id).into_iter().flatten().cloned());
        let next_start = match service.phase {
            Phase::BackingOff { until } => Some(wall(until)),
            _ => None,
        };
        if let Some(errno) = said.and_then(|said| said.errno) {
            let error = std::io::Error::from_raw_os_error(errno);
            problems.push(format!("it says of itself: {}", reason(&error)));
        }
        let gate = self.unit_of(id).map(gate);
        Some(
            control::Service {
                name: self.name_of(id).to_owned(),
                state,
                pid,
                pids,
                generation: service.generation.into(),
                instances,
                restarts: service.restarts.into(),
                since: Some(wall(service.since)),
                exit: service.last_end.and_then(exit),
                next_start,
                gate,
                sockets: self.socket_status(id),
                status_text: said.and_then(|said| said.status.clone()),
                tracking,
                problems,
                ..control::Service::default()
            }
            .bounded(),
        )
    }

    /// What of a service those who watch are told the changes of; costs no system call.
    pub(super) fn seen(&self, id: ServiceId) -> Option<Seen> {
        let service = self.world.get(id)?;
        let run = service.run();
        let said = run.and_then(|run| self.notices.of(run));
        Some(Seen {
            state: state(service, said),
            generation: service.generation.into(),
            pid: run.and_then(|run| self.processes.get(run)).map(|process| process.pid as i32),
            restarts: service.restarts.into(),
            exit: service.last_end.and_then(exit),
            text: said.and_then(|said| said.status.clone()),
        })
    }

    fn socket_status(&self, id: ServiceId) -> Vec<control::Socket> {
        let Some(unit) = self.unit_of(id) else { return Vec::new() };
        self.wanted_sockets(unit)
            .into_iter()
            .map(|(name, address)| {
                let bound = self.listeners.at(&address).and_then(|(id, _)| self.kept.fd(Kind::Listener, id));
                let queue = match (&address, bound) {
                    (Address::Tcp { .. }, Some(fd)) => sockets::tcp_queue(fd).ok(),
                    (Address::Tcp { .. }, None) | (Address::Unix(_), _) => None,
                };
                control::Socket {
                    name,
                    address: address.to_string(),
                    queue: queue.map(|(waiting, _)| waiting.into()),
                    backlog: queue.map(|(_, most)| most.into()),
                }
            })
            .collect()
    }

    /// One line for one decision.
    pub(super) fn report_step(&self, id: ServiceId, event: Event) {
        let Some(service) = self.world.get(id) else { return };
        let name = self.name_of(id);
        let generation = service.generation;
        let next = match service.phase {
            Phase::BackingOff { until } => {
                format!(" next=start in_ms={} failures={}", until.since(self.now), service.failures)
            }
            Phase::Cloning { run } => format!(" next=start run={}", run.0),
            Phase::Failed => " next=none state=failed".to_owned(),
            Phase::Done => " next=none state=done".to_owned(),
            Phase::Stopped => " next=none".to_owned(),
            Phase::Launching { .. }
            | Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. } => String::new(),
        };
        match event {
            Event::Executed(run) => {
                let pid = self.processes.get(run).map_or(0, |process| process.pid);
                log::info!("service={name} gen={generation} run={} pid={pid} started", run.0);
            }
            Event::Gone(run, exit) => {
                let how = match exit {
                    Exit::Code(code) => format!("exited status={code}"),
                    Exit::Signal(signal) => format!("ended signal={}", signal_name(signal)),
                    Exit::Unknown => "ended status=unknown".to_owned(),
                };
                log::info!("service={name} gen={generation} run={} {how}", run.0);
            }
            Event::NotCloned(run, end) | Event::NotExecuted(run, end) => {
                log::warn!(
                    "service={name} gen={generation} run={} {}{next}",
                    run.0,
                    self.words_of_one(id, end, service.before)
                );
            }
            Event::Ready(run) => log::info!("service={name} gen={generation} run={} ready", run.0),
            Event::Empty(run) => log::info!("service={name} gen={generation} run={} gone{next}", run.0),
            Event::Lost(run) => log::info!("service={name} gen={generation} run={} never began{next}", run.0),
            Event::Boot
            | Event::Start(_)
            | Event::Stop(_)
            | Event::Restart(_)
            | Event::Close
            | Event::Cloned(_)
            | Event::Signalled(_)
            | Event::Extended(..)
            | Event::Healed(_)
            | Event::Tick => {}
        }
    }
}

const SUCCESS: End = End::Exited(Exit::Code(0));

impl Manager {
    /// The word for the state of each service.
    pub(super) fn states(&self) -> Vec<&'static str> {
        let said = |service: &Service| service.run().and_then(|run| self.notices.of(run));
        self.world.iter().map(|(_, service)| state(service, said(service)).word()).collect()
    }
}

/// What proves an incarnation good.
fn gate(unit: &Unit) -> String {
    let alive = format!("alive for {}", duration_text(unit.service.settle_ms));
    if unit.service.kind == For::Task {
        return "its success".to_owned();
    }
    match unit.service.ready {
        Ready::Auto | Ready::Started => format!("settle only: {alive} (not proven)"),
        Ready::Health => format!("public probe, then {alive}"),
        Ready::Notify => format!("notify: READY=1, then {alive}"),
        Ready::Fd(number) => format!("notify: a line on descriptor {number}, then {alive}"),
    }
}

fn state(service: &Service, said: Option<&Said>) -> control::State {
    match service.phase {
        Phase::Stopped => control::State::Stopped,
        Phase::Done => control::State::Done,
        Phase::Failed => control::State::Failed,
        Phase::BackingOff { .. } => control::State::BackingOff,
        Phase::Cloning { .. }
        | Phase::Launching { .. }
        | Phase::Preparing { .. }
        | Phase::Starting { .. }
        | Phase::Settling { .. } => control::State::Starting,
        Phase::Running { .. } => match said {
            Some(Said { stopping: true, .. }) => control::State::Stopping,
            Some(Said { reloading: true, .. }) => control::State::Reloading,
            Some(_) | None => control::State::Running,
        },
        Phase::Stopping { .. } => control::State::Stopping,
        Phase::Clearing { .. } => match service.goal {
            Goal::Down => control::State::Stopping,
            Goal::Up => control::State::BackingOff,
        },
    }
}
