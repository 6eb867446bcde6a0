//! ROOT. One thread, one loop: reads units, asks policy, acts through sys, answers control. Never decides,
//! never unsafe.
//!
//! There is one way to start a manager: take the descriptors and the state from the keeper, look at the
//! world, go on ([`boot`]). A cold start is the case where there is nothing to take, a crash the case where
//! nobody asked. [`turn`] is the loop, [`carry_out`] turns policy's actions into effects, [`start`] makes
//! processes, [`handover`] is what happens when the keeper itself dies.

mod above;
mod access;
mod adopt;
mod answer;
mod boot;
mod budget;
mod carry_out;
pub mod control;
mod couriers;
mod directories;
mod ends;
mod errands;
mod events;
pub mod exec;
mod failures;
mod graves;
mod handover;
mod heirs;
mod inputs;
mod instances;
mod kept;
mod kill;
mod last_words;
mod launches;
pub mod listeners;
mod log_files;
mod logs;
mod lookups;
mod mirror;
mod notices;
mod numbers;
mod own;
mod parked;
mod private;
mod probes;
mod processes;
pub mod read_units;
mod readings;
mod recovery;
mod report;
mod rival;
mod shares;
mod show;
mod start;
mod states;
mod store;
mod stored;
mod strain;
mod strays;
mod tree;
mod turn;
mod watch;

use crate::sys::errno::reason;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use serde::Serialize;

use crate::policy::service::Service;
use crate::policy::world::{Changes, World};
use crate::policy::{Action, Event, Mono, Operation, Run, ServiceId};
use crate::sys::{cgroup, fds, memfd};
use crate::unit::Unit;
use crate::wire::keeper::Kind;
use crate::wire::settings::Settings;
use crate::wire::state;

/// What is known of a service besides policy's state.
#[derive(Debug)]
struct Known {
    /// Its name.
    name: String,
    /// Its unit; None where that has problems.
    unit: Option<Unit>,
    /// The inputs of its newest generation, with what is wrong with them.
    inputs: inputs::Inputs,
    /// Those of generations before that are still needed.
    older: BTreeMap<u32, inputs::Inputs>,
}

impl Known {
    /// Lets go what is not needed once problems are told, and shares with another one what both have: there may be a
    /// thousand.
    fn slim(&mut self, other: Option<&Self>) {
        if let Some(unit) = &mut self.unit {
            unit.forget_places();
            if let Some(theirs) = other.and_then(|other| other.unit.as_ref()) {
                unit.share_with(theirs);
            }
            // What is gone has left holes between what stays: a copy of that has no spare room, and lies closer.
            *unit = unit.clone();
        }
        if let (Some(mine), Some(theirs)) =
            (&mut self.inputs.account, other.and_then(|other| other.inputs.account.as_ref()))
            && mine == theirs
        {
            mine.clone_from(theirs);
        }
        for layer in &mut self.inputs.layers {
            layer.text.shrink_to_fit();
        }
    }
}

/// The body of a service's record. The instances have their own.
#[derive(Serialize, serde::Deserialize)]
struct ServiceRecord<P> {
    name: String,
    policy: P,
}

/// A record: what it is about, which, and its body, which is empty where there is nothing any more.
type Body = (state::Kind, u64, serde_json::Result<Vec<u8>>);

/// The records of a service: those that an event has changed, or all. Instances first: a mirror may be cut off between
/// two, and an incarnation of which only the service knows would be none.
fn service_records(id: ServiceId, name: &str, service: &Service, changes: Option<&Changes>) -> Vec<Body> {
    let instance = |number: u16| {
        let body = service.instances.get(usize::from(number).wrapping_sub(1)).map(serde_json::to_vec);
        (state::Kind::Instance, state::instance_id(id.0, number), body.unwrap_or_else(|| Ok(Vec::new())))
    };
    let mut records: Vec<Body> = match changes {
        Some(changes) => changes.instances.iter().copied().map(instance).collect(),
        None => service.instances.iter().map(|one| instance(one.number)).collect(),
    };
    if changes.is_none_or(|changes| changes.service) {
        let record = ServiceRecord { name: name.to_owned(), policy: service.without_instances() };
        records.push((state::Kind::Service, id.0.into(), serde_json::to_vec(&record)));
    }
    records
}

/// Everything a manager has.
struct Manager {
    settings: Settings,
    soft_nofile: u64,
    user: u32,
    now: Mono,
    since_ns: u64,
    binary: OwnedFd,
    null: OwnedFd,
    poll: mio::Poll,
    watched: watch::Watched,
    kept: kept::Kept,
    exits: memfd::Map,
    store: store::Store,
    mirror: mirror::Mirror,
    world: World,
    services: BTreeMap<ServiceId, Box<Known>>,
    words: BTreeMap<ServiceId, String>,
    /// Services whose last state could not be written: nothing of them is started before it is.
    unsaved: BTreeSet<ServiceId>,
    processes: processes::Processes,
    listeners: listeners::Listeners,
    starts: start::Starts,
    logs: logs::Logs,
    notices: notices::Notices,
    couriers: couriers::Couriers,
    stores: stored::Stores,
    above: above::Above,
    probes: probes::Probes,
    lookups: lookups::Lookups,
    readings: readings::Readings,
    parked: parked::Parked,
    control: Option<control::Control>,
    /// When it is tried again to have one.
    control_at: Option<Mono>,
    /// Whether it has been told that somebody else has taken the runtime directory that we could not have.
    is_second: bool,
    waiting: answer::Waiting,
    answered: Vec<Operation>,
    events: VecDeque<(ServiceId, Event)>,
    actions: Vec<Action>,
    cgroups: Option<cgroup::Base>,
    /// Groups of which nothing is left, to be removed when nothing else is to be done, and whose record goes then.
    left_groups: Vec<(String, Option<Run>)>,
    execs: exec::Execs,
    budget: budget::Budget,
    /// Limits that a service asks for and does not have, in words.
    lacking: BTreeMap<ServiceId, Vec<String>>,
    unlimited: shares::Unlimited,
    /// Generations that came without the rehearsal that their unit asks for, and why; lost with the manager.
    unrehearsed: BTreeMap<ServiceId, (u32, String)>,
    /// Services whose runtime directory this manager has made.
    made: BTreeSet<ServiceId>,
    cgroup_tag: String,
    handover: Option<handover::Waiting>,
    stop_at: Option<Mono>,
    early_signals: Vec<i32>,
    ended: BTreeMap<Run, ServiceId>,
    /// Services of a status that are still to be sent.
    streams: BTreeMap<control::SessionId, VecDeque<answer::Part>>,
    watchers: events::Watchers,
    end_notes: ends::Notes,
    launch_facts: launches::Facts,
    /// The reading of the units has left memory that is not needed again.
    untidy: bool,
}

/// The manager's life. Its link to the keeper is descriptor 3; arguments: `--soft-nofile N`, then the
/// settings as [`Settings::to_args`] writes them.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    log_to_stderr();
    match boot::start(arguments).and_then(Manager::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("the manager cannot go on: {}", reason(&error));
            ExitCode::from(125)
        }
    }
}

impl Manager {
    /// Puts an event into the queue of this turn.
    fn feed(&mut self, id: ServiceId, event: Event) {
        self.events.push_back((id, event));
    }

    /// Steps through the queue until it is empty.
    fn run_events(&mut self) {
        while let Some((id, event)) = self.events.pop_front() {
            self.step(id, event);
        }
    }

    fn name_of(&self, id: ServiceId) -> &str {
        self.services.get(&id).map_or("?", |known| known.name.as_str())
    }

    fn unit_of(&self, id: ServiceId) -> Option<&Unit> {
        self.services.get(&id)?.unit.as_ref()
    }

    fn stop_signal(&self, id: ServiceId) -> i32 {
        self.unit_of(id).map_or(libc::SIGTERM, |unit| unit.service.stop_signal.number())
    }

    /// The service whose incarnation this is.
    fn service_of(&self, run: Run) -> Option<ServiceId> {
        self.processes.get(run).map(|process| process.service)
    }

    /// How the names of our cgroups begin: two supervisors never meet.
    fn group_prefix(&self) -> String {
        format!("supervise.{}.", self.cgroup_tag)
    }

    fn say_words(&mut self, id: ServiceId, words: String) {
        log::warn!("service={} {words}", self.name_of(id));
        self.words.insert(id, words);
    }

    // ---- the state -----------------------------------------------------------------------------------

    /// Writes down what has changed of a service; all of it where that is not said.
    fn save_service(&mut self, id: ServiceId, changes: Option<&Changes>) {
        let Some(service) = self.world.get(id) else { return };
        let changes = changes.filter(|_| !self.unsaved.contains(&id));
        let records = service_records(id, self.name_of(id), service, changes);
        match self.write(records) {
            Ok(()) => drop(self.unsaved.remove(&id)),
            Err(error) if self.unsaved.insert(id) => log::error!(
                "service={} its state cannot be written: {}\nhint: what runs goes on and can be stopped; nothing of it is \
                 started before there is room",
                self.name_of(id),
                reason(&error)
            ),
            Err(_) => {} // told
        }
    }

    /// Tries again to write down what could not be.
    fn save_unsaved(&mut self) {
        for id in self.unsaved.clone() {
            self.save_service(id, None);
        }
    }

    /// Writes a record down. False where that was not possible: then what it was written for must not happen.
    fn save(&mut self, kind: state::Kind, id: u64, body: &impl Serialize) -> bool {
        let result = self.write(vec![(kind, id, serde_json::to_vec(body))]);
        result.inspect_err(|error| log::error!("the state cannot be written: {}", reason(error))).is_ok()
    }

    fn remove_record(&mut self, kind: state::Kind, id: u64) {
        if let Err(error) = self.write(vec![(kind, id, Ok(Vec::new()))]) {
            log::error!("the state cannot be written: {}", reason(&error));
        }
    }

    /// Writes records, all of them or none.
    fn write(&mut self, bodies: Vec<Body>) -> io::Result<()> {
        let mut all = Vec::with_capacity(bodies.len());
        for (kind, id, body) in bodies {
            all.push((kind, id, body.map_err(io::Error::other)?));
        }
        let records: Vec<state::Record<'_>> =
            all.iter().map(|(kind, id, body)| state::Record { kind: *kind, id: *id, body }).collect();
        if let Some(larger) = self.store.put_all(&records)? {
            // Until the keeper has the larger one the old one counts, and it has all but these records.
            self.kept.put(Kind::State, 0, 0, larger)?;
        }
        for state::Record { kind, id, body } in records {
            self.mirror.note(kind, id, body);
        }
        Ok(())
    }

    /// 32 hexadecimal digits that no other incarnation has: the keeper's id, the manager's number, the run.
    fn new_invocation(&self, run: Run) -> String {
        let high = self.kept.keeper ^ self.since_ns.rotate_left(17);
        format!("{high:016x}{:016x}", run.0 ^ (self.kept.manager << 48))
    }
}

/// The runs that are waited for to become empty without a descriptor that says so.
type Runs = BTreeSet<Run>;

/// Lines of the form `supervise: …` on standard error. One that cannot be written is lost, and that is all.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info && metadata.target().starts_with("supervise")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            // Paths and words of units are in it, and its reader is a terminal.
            let line = format!("supervise: {}\n", crate::unit::visible_lines(&record.args().to_string()));
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn log_to_stderr() {
    static LOGGER: Stderr = Stderr;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// /dev/null for reading, or an empty pipe where there is none.
fn open_null() -> io::Result<OwnedFd> {
    match std::fs::File::open("/dev/null") {
        Ok(file) => Ok(file.into()),
        Err(_) => fds::pipe(0).map(|(read, _)| read),
    }
}
