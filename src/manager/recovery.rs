//! ROOT. Taking up what an earlier manager left: the state, the descriptors, and what happened meanwhile.
//! Never reads a unit from disk: a crash is no apply. Where there is nothing to take up this does nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::{self, Inputs, inputs_id, inputs_of_id};
use super::listeners::Listener;
use super::processes::{Adopted, Process, Stands};
use super::turn::Launched;
use super::{Known, Manager, ServiceRecord, boot};
use crate::policy::recover::{self, Found, missed};
use crate::policy::service::{Incarnation, Instance, Phase, Probe, Service};
use crate::policy::world::Needs;
use crate::policy::{Action, Event, Exit, Run, ServiceId};
use crate::sys::{clock, memfd};
use crate::unit;
use crate::wire::keeper::Kind;
use crate::wire::state::{self, header};

/// Nanoseconds after its start during which looks at a process may be due.
const YOUNG_NS: u64 = 60_000_000_000;

impl Manager {
    /// Takes everything up again.
    pub(super) fn recover(&mut self) {
        self.restore_listeners();
        self.restore_processes();
        self.restore_services();
        self.link_dependencies();
        self.restore_words();
        self.drop_leftovers();
        self.restore_stored();
        self.settle_heirs();
        self.world.reserve(Run(self.store.get(header::NEXT_RUN)));
        let mut again = Vec::new();
        let known: Vec<ServiceId> = self.services.keys().copied().collect();
        for id in known {
            let Some(service) = self.world.get(id) else { continue };
            let all: Vec<Incarnation> = service.incarnations().map(|(_, _, one)| one.clone()).collect();
            for one in all {
                let found = self.what_is_left(one.run);
                let missed = missed(&one, found);
                if found.launched != recover::Launched::Pending {
                    self.kept.drop(Kind::Report, one.run.0);
                }
                for event in missed.events {
                    self.feed(id, event);
                }
                again.extend(missed.again.into_iter().map(|action| (id, action)));
            }
        }
        self.run_events();
        self.take_exits();
        for (id, action) in again {
            // What has moved on meanwhile needs nothing again.
            self.redo(id, action);
        }
        self.run_events();
        let runs: Vec<Run> = self.processes.iter().map(|(run, _)| run).collect();
        for run in runs {
            self.watch_process(run);
            self.take_if_ended(run);
        }
        let known: Vec<ServiceId> = self.services.keys().copied().collect();
        for id in known {
            self.tend_probes(id);
            if self.world.get(id).is_some_and(|service| service.waits) {
                self.feed(id, Event::Tick); // what it waits for may have come
            }
        }
        self.run_events();
        self.plan_looks();
    }

    /// Looks at what has begun a short time ago were due, and are lost with the manager that had planned them.
    fn plan_looks(&mut self) {
        let now_ns = clock::realtime_ns();
        let young = self.processes.iter().filter(|(_, one)| now_ns.saturating_sub(one.since_ns) < YOUNG_NS);
        let young: Vec<(ServiceId, Run)> = young.map(|(run, one)| (one.service, run)).collect();
        for (id, run) in young {
            self.plan_look(id, Event::Executed(run));
        }
    }

    fn what_is_left(&mut self, run: Run) -> Found {
        let adopted = self.processes.get(run).and_then(|process| process.adopted);
        if let Some(Adopted { stands: stands @ (Stands::Rest | Stands::Nothing), .. }) = adopted {
            let mut launching = self.world.incarnations().filter(|(_, one)| one.run == run);
            let launching = launching.any(|(_, one)| matches!(one.phase, Phase::Launching { .. }));
            // Whether it got beyond its gate nobody knows: then it has not begun.
            let launched = match stands {
                Stands::Nothing if launching => recover::Launched::GateLost,
                Stands::Nothing | Stands::Rest | Stands::Main => recover::Launched::Executed,
            };
            return Found { registered: true, launched, exited: Some(Exit::Unknown) };
        }
        Found {
            registered: self.kept.fd(Kind::Process, run.0).is_some(),
            launched: match self.read_report(run) {
                Launched::Pending => recover::Launched::Pending,
                Launched::Executed => recover::Launched::Executed,
                Launched::Failed(end) => recover::Launched::Failed(end),
                Launched::GateLost => recover::Launched::GateLost,
            },
            exited: None, // the exits are taken in later, in their order
        }
    }

    fn restore_listeners(&mut self) {
        for (number, body) in self.store.bodies(state::Kind::Listener) {
            match serde_json::from_slice::<Listener>(&body) {
                Ok(listener) if self.kept.fd(Kind::Listener, number).is_some() => {
                    self.listeners.restore(number, listener);
                }
                Ok(_) | Err(_) => self.remove_record(state::Kind::Listener, number),
            }
        }
        for number in self.kept.ids(Kind::Listener) {
            if !self.listeners.iter().any(|(one, _)| one == number) {
                // Bound, but its record was never written: bound again when it is wanted.
                self.kept.drop(Kind::Listener, number);
            }
        }
        self.drop_orphan_locks();
    }

    fn restore_processes(&mut self) {
        for (run, body) in self.store.bodies(state::Kind::Process) {
            match serde_json::from_slice::<Process>(&body) {
                Ok(process) => self.processes.add(Run(run), process, None),
                Err(error) => log::error!("the record of incarnation {run}: {error}"),
            }
        }
    }

    /// Says who depends on whom, by the units that run now.
    pub(super) fn link_dependencies(&mut self) {
        let ids: BTreeMap<&str, ServiceId> =
            self.services.iter().map(|(id, known)| (known.name.as_str(), *id)).collect();
        let of = |names: &[String]| names.iter().filter_map(|name| ids.get(name.as_str()).copied()).collect();
        let with_units = self.services.iter().filter_map(|(id, known)| Some((*id, known.unit.as_ref()?)));
        let all: Vec<(ServiceId, Needs)> = with_units
            .filter(|(_, unit)| unit.dependencies.all().next().is_some())
            .map(|(id, unit)| {
                let unit::Dependencies { requires, wants, after } = &*unit.dependencies;
                (id, Needs { requires: of(requires), wants: of(wants), after: of(after) })
            })
            .collect();
        for (id, needs) in all {
            self.world.depend(id, needs);
        }
    }

    fn restore_words(&mut self) {
        for (run, body) in self.store.bodies(state::Kind::Said) {
            match serde_json::from_slice(&body) {
                Ok(said) => self.notices.restore(Run(run), said),
                Err(error) => log::error!("what incarnation {run} said: {error}"),
            }
        }
    }

    fn restore_services(&mut self) {
        let mut instances: BTreeMap<u32, Vec<Instance>> = BTreeMap::new();
        for (number, body) in self.store.bodies(state::Kind::Instance) {
            match serde_json::from_slice(&body) {
                Ok(one) => instances.entry(state::service_of_instance(number)).or_default().push(one),
                Err(error) => log::error!("the record of instance {number:#x}: {error}"),
            }
        }
        for (number, body) in self.store.bodies(state::Kind::Service) {
            let id = ServiceId(number as u32);
            let mut record: ServiceRecord<Service> = match serde_json::from_slice(&body) {
                Ok(record) => record,
                Err(error) => {
                    log::error!("the record of service {number}: {error}");
                    continue;
                }
            };
            record.policy.take_instances(instances.remove(&id.0).unwrap_or_default(), self.now);
            let newest = record.policy.newest;
            let inputs = self
                .kept_inputs(id, newest)
                .unwrap_or_else(|| Inputs { name: record.name.clone(), ..Inputs::default() });
            let needed = (1..newest).rev().filter(|generation| record.policy.needs(*generation));
            let older = needed.filter_map(|one| Some((one, self.kept_inputs(id, one)?))).collect();
            let unit = Some(&inputs).filter(|inputs| !inputs.refused).and_then(|inputs| inputs.unit().ok());
            let spec = unit.as_ref().map_or_else(boot::never, inputs::spec);
            let mut known = Known { name: record.name, unit, inputs, older };
            known.slim(self.services.values().next_back().map(Box::as_ref));
            self.services.insert(id, Box::new(known));
            self.world.add(id, spec, record.policy);
        }
    }

    fn kept_inputs(&self, id: ServiceId, generation: u32) -> Option<Inputs> {
        let bytes = memfd::content(self.kept.fd(Kind::Inputs, inputs_id(id, generation))?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Drops what belongs to no living incarnation: the state had moved on, the drop had not come.
    fn drop_leftovers(&mut self) {
        let living: Vec<Run> = self.world.incarnations().map(|(_, one)| one.run).collect();
        let mut old: Vec<Run> = self.processes.iter().map(|(run, _)| run).collect();
        for kind in [Kind::Process, Kind::Report, Kind::Cgroup, Kind::Notify, Kind::ReadyPipe] {
            old.extend(self.kept.ids(kind).into_iter().map(Run));
        }
        old.extend(self.notices.runs());
        old.sort_unstable();
        old.dedup();
        for run in old {
            // Commands of operators have no place in the state.
            if !living.contains(&run) && run.0 < super::exec::FIRST {
                self.forget(run);
            }
        }
        for kind in [Kind::Stdout, Kind::Stderr] {
            for run in self.kept.ids(kind) {
                if self.owner_of_stream(Run(run)).is_none() {
                    self.kept.drop(kind, run); // read to its end
                }
            }
        }
        self.drop_left_inputs();
        self.sweep_groups();
        self.sweep_notify(&living);
        self.sweep_probes(&living);
    }

    /// Drops the inputs of generations that nothing is of. Of a service that is not known here nobody can tell.
    fn drop_left_inputs(&mut self) {
        for number in self.kept.ids(Kind::Inputs) {
            let (id, generation) = inputs_of_id(number);
            let old = self.world.get(id).filter(|one| generation != one.newest && !one.needs(generation));
            if old.is_some() {
                self.kept.drop(Kind::Inputs, number);
                self.mirror.note(state::Kind::Inputs, number, &[]);
            }
        }
    }

    /// Removes the empty groups of incarnations of which there is no record any longer.
    fn sweep_groups(&self) {
        let Some(base) = &self.cgroups else { return };
        let known: Vec<&String> = self.processes.iter().filter_map(|(_, one)| one.cgroup.as_ref()).collect();
        let left = self.left_groups.iter().map(|(name, _)| name);
        let known: BTreeSet<&String> = known.into_iter().chain(left).collect();
        for name in base.names(&self.group_prefix()).unwrap_or_default() {
            // An incarnation's ends with its number.
            let is_one = name.rsplit('.').next().is_some_and(|end| end.parse::<u64>().is_ok());
            if is_one && !known.contains(&name) {
                let _ = base.remove_all(&name); // one that is not empty stays
            }
        }
    }

    fn take_if_ended(&mut self, run: Run) {
        if self.tells_by_pidfd(run) && self.process_has_ended(run) {
            self.watched.unsettled.insert(run, self.now.0);
        }
    }

    /// The service that a stream belongs to.
    pub(super) fn owner_of_stream(&self, run: Run) -> Option<ServiceId> {
        self.service_of(run).or_else(|| self.ended.get(&run).copied())
    }

    /// Does again what an action was to do, where the service has not moved on since.
    fn redo(&mut self, id: ServiceId, action: Action) {
        let phase = |run| self.world.incarnation(id, run).map(|one| one.phase);
        let due = match action {
            Action::Terminate(run) => matches!(phase(run), Some(Phase::Stopping { signalled: false, .. })),
            Action::Kill(run) => matches!(phase(run), Some(Phase::Stopping { .. })),
            Action::Clear(run) => matches!(phase(run), Some(Phase::Clearing { .. })),
            Action::Abort(run) => matches!(phase(run), Some(Phase::Stopping { signalled: false, .. })),
            Action::Probe(run) => {
                let one = self.world.incarnation(id, run);
                one.is_some_and(|one| matches!(one.probe, Some(Probe::Asked { .. })))
            }
            Action::Reload(run) => {
                self.world.incarnation(id, run).is_some_and(|one| one.reload_until.is_some())
            }
            Action::Spawn(_) | Action::Release(_) | Action::Answer(_) => false,
        };
        if due {
            self.carry_out(id, action);
        }
    }

    /// Forgets ended incarnations whose output has been read to its end.
    pub(super) fn drop_old_records(&mut self) {
        let read: Vec<Run> = self.ended.keys().copied().filter(|run| !self.has_streams(*run)).collect();
        if !read.is_empty() {
            self.remove_left_groups();
        }
        for run in read {
            self.ended.remove(&run);
            self.remove_record(state::Kind::Process, run.0);
        }
    }

    /// Whether output of an incarnation may still be unread.
    pub(super) fn has_streams(&self, run: Run) -> bool {
        [Kind::Stdout, Kind::Stderr].into_iter().any(|kind| self.kept.fd(kind, run.0).is_some())
    }
}
