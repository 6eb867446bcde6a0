//! ROOT. What is said of all instances of a service: which are there, how each is, and what is wrong with which. Never
//! changes anything.

use super::Manager;
use super::report::wall;
use super::states::{badness, incarnation_state, instance_state};
use crate::policy::service::{Incarnation, Instance, Rest, Role, Service};
use crate::wire::control;

impl Manager {
    /// How the health of those that count is, of all of them, and what is wrong with which.
    pub(super) fn health_of(&self, service: &Service) -> (Option<bool>, Vec<String>) {
        let (mut all, mut ill) = (Some(true), Vec::new());
        let several = service.instances.len() > 1;
        let current = service.instances.iter().filter_map(|one| Some((one.number, one.current.as_deref()?)));
        // Where none is current, the one that speaks for the service.
        let fallback = service.main().filter(|_| service.instances.iter().all(|one| one.current.is_none()));
        let mut any = false;
        for (number, one) in current.chain(fallback.map(|one| (1, one))) {
            any = true;
            let health = self.notices.of(one.run).and_then(|said| said.health.as_ref());
            all = match (all, health.map(|health| health.healthy)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                (Some(true) | None, None) | (None, Some(true)) => None,
            };
            if let Some(health) = health.filter(|health| !health.healthy) {
                let whose = if several { format!("instance {number}: ") } else { String::new() };
                ill.push(format!("{whose}not healthy: {}", health.words));
            }
        }
        (all.filter(|_| any), ill)
    }

    pub(super) fn instance_status(&self, service: &Service) -> Vec<control::Instance> {
        let status = |(instance, role, one): (&Instance, Role, &Incarnation)| {
            let process = self.processes.get(one.run)?;
            Some(control::Instance {
                instance: instance.number.into(),
                generation: process.generation.into(),
                role: match role {
                    Role::Current => control::Role::Current,
                    Role::Next => control::Role::Next,
                    Role::Draining => control::Role::Draining,
                },
                pid: Some(process.main().pid as i32),
                state: incarnation_state(one, self.notices.of(one.run)),
                since: Some(wall(one.since)),
            })
        };
        let mut all: Vec<control::Instance> = service.incarnations().filter_map(status).collect();
        let rests = |one: &&Instance| {
            one.is_empty() && matches!(one.rest, Rest::BackingOff { .. } | Rest::Failed | Rest::Waiting)
        };
        // Of one alone the service says it all.
        let resting = service.instances.iter().filter(|_| service.instances.len() > 1).filter(rests);
        all.extend(resting.map(|one| control::Instance {
            instance: one.number.into(),
            generation: service.generation.into(),
            role: control::Role::Current,
            pid: None,
            state: instance_state(service, one, None),
            since: Some(wall(one.rest_since)),
        }));
        if all.len() > control::MOST_INSTANCES {
            // Of very many those are told with which something is wrong.
            all.sort_by_key(|one| std::cmp::Reverse(badness(one.state)));
            all.truncate(control::MOST_INSTANCES);
        }
        all.sort_by_key(|one| one.instance);
        all
    }
}
