//! ROOT. How a service, an instance and an incarnation are, in the words of the control protocol. Never changes one.

use super::notices::Said;
use crate::policy::Mono;
use crate::policy::service::{Goal, Incarnation, Instance, Phase, Rest, Service};
use crate::wire::control;

/// How a service is: as its instances are, and where they differ, as the one that is worst off.
pub fn state(service: &Service, said: Option<&Said>) -> control::State {
    let main = service.main().map(|one| one.run);
    let states = service.instances.iter().map(|instance| {
        let said = said.filter(|_| instance.current.as_ref().map(|one| one.run) == main);
        instance_state(service, instance, said)
    });
    let state = states.max_by_key(|state| badness(*state)).unwrap_or(control::State::Stopped);
    let holds = service.goal == Goal::Held || service.goal == Goal::Up && service.instances.is_empty();
    match state {
        control::State::Stopped if service.waits && service.goal == Goal::Up => control::State::Waiting,
        control::State::Stopped if holds => control::State::Listening,
        state => state,
    }
}

/// Whether a service is as it is because of how it ended last.
pub fn comes_of_its_end(service: &Service, state: control::State) -> bool {
    match state {
        control::State::BackingOff | control::State::Failed => true,
        // Whether that was a failure; a start that somebody asked for has forgiven all.
        control::State::Starting => {
            service.instances.iter().any(|instance| instance.failures > 0 || instance.shortages > 0)
        }
        control::State::Stopped
        | control::State::Listening
        | control::State::Waiting
        | control::State::Running
        | control::State::Reloading
        | control::State::Stopping
        | control::State::Done => false,
    }
}

/// How much it is to be worried about.
pub const fn badness(state: control::State) -> u8 {
    match state {
        control::State::Stopped => 0,
        control::State::Listening => 1,
        control::State::Done => 2,
        control::State::Running => 3,
        control::State::Reloading => 4,
        control::State::Stopping => 5,
        control::State::Waiting => 6,
        control::State::Starting => 7,
        control::State::BackingOff => 8,
        control::State::Failed => 9,
    }
}

/// How one of its places is.
pub fn instance_state(service: &Service, instance: &Instance, said: Option<&Said>) -> control::State {
    if let Some(current) = &instance.current {
        let state = incarnation_state(current, said);
        return match (state, current.phase) {
            // It ended by itself, and what follows is that it starts again.
            (control::State::Stopping, Phase::Clearing { .. })
                if service.goal == Goal::Up && !current.dismissed =>
            {
                control::State::BackingOff
            }
            (control::State::Running, _) if instance.next.is_some() => control::State::Reloading,
            (state, _) => state,
        };
    }
    match (instance.rest, &instance.next, &instance.draining) {
        (Rest::Stopped | Rest::Done | Rest::Failed, Some(_), _)
        | (Rest::Stopped | Rest::Done | Rest::Failed, None, Some(_)) => control::State::Stopping,
        (Rest::Stopped, None, None) => control::State::Stopped,
        (Rest::Done, None, None) => control::State::Done,
        (Rest::Failed, None, None) => control::State::Failed,
        (Rest::BackingOff { .. }, ..) => control::State::BackingOff,
        (Rest::Waiting, None, None) if service.waits => control::State::Waiting,
        (Rest::Waiting, ..) => control::State::Starting,
    }
}

/// How one start of it is.
pub fn incarnation_state(one: &Incarnation, said: Option<&Said>) -> control::State {
    match one.phase {
        Phase::Cloning
        | Phase::Launching { .. }
        | Phase::Preparing
        | Phase::Starting { .. }
        | Phase::Settling { .. }
        | Phase::Proving { .. } => control::State::Starting,
        Phase::Running => match said {
            Some(Said { stopping: true, .. }) => control::State::Stopping,
            Some(Said { reloading: true, .. }) => control::State::Reloading,
            Some(_) | None => control::State::Running,
        },
        Phase::Stopping { .. } | Phase::Clearing { .. } => control::State::Stopping,
    }
}

/// When the service, or its first instance, came to be as it is.
pub fn since(service: &Service) -> Option<Mono> {
    let first = service.instances.first().map(|instance| instance.rest_since);
    service.main().map(|one| one.since).or(first)
}

/// When an instance is tried again.
pub fn next_start(instance: &Instance) -> Option<Mono> {
    match (instance.rest, &instance.current) {
        (Rest::BackingOff { until }, None) => Some(until),
        (Rest::BackingOff { .. } | Rest::Stopped | Rest::Waiting | Rest::Done | Rest::Failed, _) => None,
    }
}
