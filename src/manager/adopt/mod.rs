//! ROOT. Taking back what a supervisor left that was killed with all its processes: from its mirror to the state and
//! the descriptors that a living keeper would have handed over. Never starts, signals or ends anything.
//!
//! The mirror says what to look for, and the kernel whether it is that ([`proof`]). What is taken from the services
//! themselves is in [`holdings`]. From there on it is a recovery as any other; the state goes to the keeper last, so a
//! manager that dies on the way leaves the whole of it to the next. What is not taken back is ended by
//! [`Manager::end_leftovers`] where it is in a cgroup of ours, and else named.

mod holdings;
mod proof;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use super::inputs::{Inputs, inputs_id, inputs_of_id};
use super::listeners::Listener;
use super::mirror::Found;
use super::processes::{Adopted, Process, Stands};
use super::read_units::{self, Layer};
use super::{Manager, ServiceRecord, service_records};
use crate::policy::recover::{after_outage, unwanted};
use crate::policy::service::{Goal, Instance, Service};
use crate::policy::{Mono, Run, ServiceId};
use crate::sys::{clock, memfd};
use crate::wire::keeper::Kind;
use crate::wire::mirror::Words;
use crate::wire::state::{self, header};

use holdings::Holdings;
use proof::{Sessions, Standing};

/// What a mirror says, as far as it can be read.
#[derive(Default)]
struct Left {
    services: BTreeMap<ServiceId, ServiceRecord<Service>>,
    processes: BTreeMap<Run, Process>,
    listeners: BTreeMap<u64, Listener>,
    inputs: BTreeMap<u64, Inputs>,
    said: BTreeMap<u64, Vec<u8>>,
    words: Words,
}

impl Left {
    fn of(found: Vec<Found>) -> Self {
        let mut last: BTreeMap<(state::Kind, u64), Vec<u8>> = BTreeMap::new();
        for (key, body) in found {
            last.insert(key, body);
        }
        let mut left = Self::default();
        let mut instances: BTreeMap<ServiceId, Vec<Instance>> = BTreeMap::new();
        // An empty body is one that was removed.
        for ((kind, id), body) in last.into_iter().filter(|(_, body)| !body.is_empty()) {
            let read = match kind {
                state::Kind::Service => serde_json::from_slice(&body)
                    .map(|one| drop(left.services.insert(ServiceId(id as u32), one))),
                state::Kind::Instance => serde_json::from_slice(&body).map(|one| {
                    instances.entry(ServiceId(state::service_of_instance(id))).or_default().push(one)
                }),
                state::Kind::Process => {
                    serde_json::from_slice(&body).map(|one| drop(left.processes.insert(Run(id), one)))
                }
                state::Kind::Listener => {
                    serde_json::from_slice(&body).map(|one| drop(left.listeners.insert(id, one)))
                }
                state::Kind::Inputs => {
                    serde_json::from_slice(&body).map(|one| drop(left.inputs.insert(id, one)))
                }
                state::Kind::Said => {
                    left.said.insert(id, body);
                    Ok(())
                }
                state::Kind::Words => {
                    left.words = Words::decode(&body);
                    Ok(())
                }
                state::Kind::Stored => Ok(()),
            };
            if let Err(error) = read {
                log::error!("the mirror of the state: {kind:?} {id}: {error}");
            }
        }
        for (id, found) in instances {
            if let Some(service) = left.services.get_mut(&id) {
                service.policy.take_instances(found, Mono(clock::monotonic_ms()));
            }
        }
        left
    }

    fn inputs(&self, id: ServiceId, generation: u32) -> Option<&Inputs> {
        self.inputs.get(&inputs_id(id, generation))
    }

    /// Leaves out what is of no service any longer.
    fn prune(&mut self) {
        let services = &self.services;
        let lives = |run: Run, id: ServiceId| {
            services.get(&id).is_some_and(|service| service.policy.find(run).is_some())
        };
        self.processes.retain(|run, process| lives(*run, process.service));
        self.listeners.retain(|_, listener| services.contains_key(&listener.service));
        let processes = &self.processes;
        self.said.retain(|run, _| processes.contains_key(&Run(*run)));
        self.inputs.retain(|number, _| {
            let (id, generation) = inputs_of_id(*number);
            let policy = services.get(&id).map(|service| &service.policy);
            policy.is_some_and(|policy| generation == policy.newest || policy.needs(generation))
        });
    }
}

impl Manager {
    /// Takes back what a killed supervisor left, where something of it still stands. The state that is to be kept is
    /// the one that comes back.
    pub(super) fn adopt(&mut self, mut state: OwnedFd) -> io::Result<OwnedFd> {
        let Some(found) = self.read_mirror() else { return Ok(state) };
        let mut left = Left::of(found);
        let standing = self.stand_all(&left);
        if standing.is_empty() {
            log::info!("a supervisor was killed here, and nothing that it had written down runs any more");
            return Ok(state);
        }
        self.choose(&mut left, &standing);
        left.prune();
        let holdings = Holdings::of(&standing);
        self.keep_left_inputs(&left)?;
        let runs: Vec<Run> = left.processes.keys().copied().collect();
        let mut standing = standing;
        for run in runs {
            let one = standing.remove(&run);
            self.take_process(run, &mut left, one, &holdings)?;
        }
        let numbers: Vec<u64> = left.listeners.keys().copied().collect();
        for number in numbers {
            if !self.take_listener(number, &mut left, &holdings)? {
                left.listeners.remove(&number);
            }
        }
        self.write_down(&left, &mut state)?;
        Ok(state)
    }

    fn stand_all(&self, left: &Left) -> BTreeMap<Run, Standing> {
        let (mut all, sessions) = (BTreeMap::new(), Sessions::now());
        for (run, process) in &left.processes {
            let Some(service) = left.services.get(&process.service) else { continue };
            if service.policy.find(*run).is_none() {
                continue; // only its output was still being read
            }
            let account = left.inputs(process.service, process.generation);
            let uid = account.and_then(|inputs| inputs.account.as_ref()).map(|account| account.uid);
            match self.stand(process, uid, &sessions) {
                Ok(Some(one)) => drop(all.insert(*run, one)),
                Ok(None) => {}
                Err(why) => {
                    log::warn!("service={} run={} not taken back: {why}", service.name, run.0);
                }
            }
        }
        all
    }

    /// Which services go on as they were. What the units say now is the wish: one without a unit is stopped, and one of
    /// which nothing runs begins anew where its unit is another. What runs keeps the inputs that it was made of, as a
    /// kill is no apply; and whom an operator has stopped stays so.
    fn choose(&self, left: &mut Left, standing: &BTreeMap<Run, Standing>) {
        let (units, _) = read_units::read_all(&self.settings.units);
        let (inputs, closing) = (&left.inputs, left.words.closing);
        left.services.retain(|id, ServiceRecord { name, policy }| {
            let runs = policy.incarnations().any(|(_, _, one)| standing.contains_key(&one.run));
            let unit = units.get(name);
            let read = inputs.get(&inputs_id(*id, policy.newest)).filter(|inputs| !inputs.refused);
            let same = read.zip(unit).is_some_and(|(read, unit)| is_same(&read.layers, &unit.layers));
            let stopped = policy.goal != Goal::Up && !closing;
            if !runs && (closing || read.is_none() || unit.is_none() || !same && !stopped) {
                return false;
            }
            match unit {
                None => {
                    log::warn!("service={name} its unit is gone: it is stopped");
                    unwanted(policy);
                }
                Some(_) if !same => log::warn!(
                    "service={name} its unit has changed since it was read: what was read still counts, until supervise \
                     was stopped in order and starts again"
                ),
                Some(_) => {}
            }
            after_outage(policy, closing && unit.is_some(), self.now);
            true
        });
    }

    fn keep_left_inputs(&mut self, left: &Left) -> io::Result<()> {
        for (number, inputs) in &left.inputs {
            let bytes = serde_json::to_vec(inputs).map_err(io::Error::other)?;
            let fd = memfd::sealed(c"supervise-inputs", &bytes)?;
            self.kept.put(Kind::Inputs, *number, 0, fd)?;
        }
        Ok(())
    }

    /// Has the descriptors of an incarnation kept, and says in its record what was found.
    fn take_process(
        &mut self,
        run: Run,
        left: &mut Left,
        standing: Option<Standing>,
        holdings: &Holdings,
    ) -> io::Result<()> {
        let Some(process) = left.processes.get(&run).cloned() else { return Ok(()) };
        let name = left.services.get(&process.service).map_or("?", |service| service.name.as_str());
        let stands = match &standing {
            Some(Standing { pidfd: Some(_), .. }) => Stands::Main,
            Some(Standing { pidfd: None, .. }) => Stands::Rest,
            None => Stands::Nothing,
        };
        let adopted = Some(Adopted { at_ns: clock::realtime_ns(), stands });
        let record = Process { adopted, ..process.clone() };
        let Some(standing) = standing else {
            log::warn!("service={name} run={} has ended while no supervisor ran", run.0);
            left.processes.insert(run, record);
            return Ok(());
        };
        let mut ends = Vec::new();
        for (kind, pipe) in [
            (Kind::Stdout, process.pipes.stdout),
            (Kind::Stderr, process.pipes.stderr),
            (Kind::ReadyPipe, process.pipes.ready),
        ] {
            ends.extend(pipe.and_then(|pipe| holdings.reader(pipe)).map(|end| (kind, 0, end)));
        }
        let outputs = ends.iter().filter(|(kind, ..)| *kind != Kind::ReadyPipe).count();
        let asked = [process.pipes.stdout, process.pipes.stderr].iter().flatten().count();
        ends.extend(standing.group.map(|group| (Kind::Cgroup, 0, group)));
        // It is nobody's child here: no pid is registered.
        ends.extend(standing.pidfd.map(|pidfd| (Kind::Process, 0, pidfd)));
        ends.extend(self.voice_again(run, left, &process).map(|voice| (Kind::Notify, 0, voice)));
        self.kept.put_all(run.0, ends)?;
        let pid = process.main().pid;
        let how = if stands == Stands::Main { "adopted" } else { "has ended: what is left of it adopted" };
        log::info!(
            "service={name} gen={} run={} pid={pid} {how} after supervise was killed; pipes of its output: {outputs} of {asked}",
            process.generation,
            run.0
        );
        if let Some(why) = holdings.hidden().filter(|_| outputs < asked) {
            log::warn!(
                "service={name} run={} what it writes is not read any more, nor can it be: looking at what it has open: \
                 {why}\nhint: that needs CAP_SYS_PTRACE; a restart gives it another output",
                run.0
            );
        }
        left.processes.insert(run, record);
        Ok(())
    }

    /// Writes the state down as it is from now on.
    fn write_down(&mut self, left: &Left, state: &mut OwnedFd) -> io::Result<()> {
        let body = |body: serde_json::Result<Vec<u8>>| body.map_err(io::Error::other);
        let mut records: Vec<(state::Kind, u64, Vec<u8>)> = Vec::new();
        for (id, service) in &left.services {
            for (kind, number, written) in service_records(*id, &service.name, &service.policy, None) {
                records.push((kind, number, body(written)?));
            }
        }
        for (run, process) in &left.processes {
            records.push((state::Kind::Process, run.0, body(serde_json::to_vec(process))?));
        }
        for (number, listener) in &left.listeners {
            records.push((state::Kind::Listener, *number, body(serde_json::to_vec(listener))?));
        }
        records.extend(left.said.iter().map(|(run, said)| (state::Kind::Said, *run, said.clone())));
        for (kind, id, body) in records {
            if let Some(larger) = self.store.put(kind, id, &body)? {
                *state = larger;
            }
        }
        self.store.set(header::NEXT_LISTENER, left.words.next_listener);
        self.store.set(header::NEXT_RUN, left.words.next_run);
        Ok(())
    }
}

/// Whether two readings of a unit say the same.
fn is_same(one: &[Layer], other: &[Layer]) -> bool {
    let said = |layers: &[Layer]| -> Vec<(String, String)> {
        layers.iter().map(|layer| (layer.path.clone(), layer.text.clone())).collect()
    };
    said(one) == said(other)
}
