//! PURE. What a new manager has missed: from the state and from what is left in the world to the events and
//! actions that make it as if nobody had died. Never reads a unit: a crash is no apply.
//!
//! The order in which the manager writes things down is what makes this possible, per incarnation:
//!
//! 1. `Cloning` in the state, 2. the request to the zygote, 3. the process in the state and its pidfd
//!    registered with the keeper, 4. `Launching` in the state, 5. the gate.
//! 6. The end is recorded by the keeper before it reaps, 7. `Clearing` in the state, 8. the rest of the tree
//!    ended, 9. the next phase in the state, 10. the registration dropped.
//!
//! The gate's only write end dies with the manager, so an incarnation that was not let through ends by
//! itself and says so. In `Cloning` no gate has been opened, whatever is registered, so such an incarnation is
//! lost even where it has not said so, or was killed before it could. `Lost` means that nothing is left: the
//! caller keeps it back until that is so, which at a shut gate is soon, and feeds it in the place of `Gone`;
//! the same for a report of a lost gate that comes after the recovery.

use super::state::{Goal, Incarnation, Phase, Probe, Role, Service};
use super::{Action, End, Event, Exit, Mono, Run};

/// How far an incarnation got before its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launched {
    /// It has not said yet, and will.
    Pending,
    /// The command executes, or did.
    Executed,
    /// A step failed.
    Failed(End),
    /// It was never let through the gate.
    GateLost,
}

/// What is left of an incarnation in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The keeper has it registered.
    pub registered: bool,
    /// How far it got.
    pub launched: Launched,
    /// The exit the keeper has recorded and the state has not taken in.
    pub exited: Option<Exit>,
}

/// Events that were missed, in the order to feed them, and actions that may not have been carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// For the service's step, in this order, before the actions.
    pub events: Vec<Event>,
    /// To carry out again where the events have not moved the service on.
    pub again: Vec<Action>,
}

/// Compares the state of an incarnation with what is left of it.
pub fn missed(one: &Incarnation, found: Found) -> Missed {
    let mut missed = Missed::default();
    let run = one.run;
    let past_gate = !matches!(one.phase, Phase::Cloning);
    if !past_gate || !found.registered || found.launched == Launched::GateLost {
        match one.phase {
            // Its end is known and its registration may be gone already; the rest of its tree may not.
            Phase::Clearing { .. } => missed.again.push(Action::Clear(run)),
            Phase::Cloning
            | Phase::Launching { .. }
            | Phase::Preparing
            | Phase::Starting { .. }
            | Phase::Settling { .. }
            | Phase::Proving { .. }
            | Phase::Running
            | Phase::Stopping { .. } => missed.events.push(Event::Lost(run)),
        }
        return missed;
    }
    launch_news(one.phase, run, found.launched, &mut missed);
    if let Some(exit) = found.exited
        && !matches!(one.phase, Phase::Clearing { .. })
    {
        missed.events.push(Event::Gone(run, exit));
        return missed;
    }
    match one.phase {
        Phase::Stopping { signalled: false, .. } if one.pending_end == Some(End::Watchdog) => {
            missed.again.push(Action::Abort(run));
        }
        Phase::Stopping { signal_at: Some(_), .. } => {} // its time comes, or has come
        Phase::Stopping { signalled: false, .. } => missed.again.push(Action::Terminate(run)),
        Phase::Stopping { signalled: true, kill_at, .. } => {
            // Where KILL was the first signal (the command had not begun) it may not have been sent.
            // A KILL after a grace is not told from a grace that goes on; if it was lost, the next follows
            // within the second that policy leaves between two.
            if kill_at.is_some() && one.up_since.is_none() {
                missed.again.push(Action::Kill(run));
            }
        }
        Phase::Clearing { .. } => missed.again.push(Action::Clear(run)),
        // What a command has said waits in its socket, and is read after the launch was told of.
        Phase::Cloning // lost, above
        | Phase::Launching { .. }
        | Phase::Preparing
        | Phase::Starting { .. }
        | Phase::Settling { .. }
        | Phase::Proving { .. }
        | Phase::Running => {}
    }
    if one.watchdog.is_some() && !one.hung {
        missed.events.push(Event::Alive(run)); // nobody has listened meanwhile
    }
    if matches!(one.probe, Some(Probe::Asked { .. })) {
        missed.again.push(Action::Probe(run)); // what it found was told to one who is dead
    }
    if one.reload_until.is_some() {
        missed.again.push(Action::Reload(run));
    }
    missed
}

/// Nobody was there for a while, and then somebody who takes the service back: what had a time to do something in, and
/// to be asked about, has it anew. Where the supervisor was stopping when it was killed, what it had not ended yet is
/// wanted again: nobody has stopped it but the stop of all.
pub fn after_outage(service: &mut Service, closing: bool, now: Mono) {
    if closing && service.incarnations().next().is_some() {
        service.goal = Goal::Up;
        service.waits = false;
    }
    for instance in &mut service.instances {
        for role in [Role::Current, Role::Next, Role::Draining] {
            if let Some(one) = instance.place(role) {
                let began = one.since;
                let anew = |at: Mono| at.max(now.after(at.since(began)));
                match &mut one.phase {
                    Phase::Launching { give_up_at }
                    | Phase::Starting { give_up_at }
                    | Phase::Settling { give_up_at, .. }
                    | Phase::Proving { give_up_at } => *give_up_at = give_up_at.map(anew),
                    Phase::Stopping { signalled: false, kill_at, .. } => *kill_at = kill_at.map(anew),
                    // It knows that it is to end, and has had its time.
                    Phase::Stopping { signalled: true, .. } | Phase::Clearing { .. } => {}
                    Phase::Cloning | Phase::Preparing | Phase::Running => {}
                }
            }
        }
    }
}

/// The unit of a service is gone: it is stopped, after what needs it.
pub const fn unwanted(service: &mut Service) {
    service.goal = Goal::Down;
    service.waits = true;
}

fn launch_news(phase: Phase, run: Run, launched: Launched, missed: &mut Missed) {
    match launched {
        Launched::Pending | Launched::GateLost => {}
        Launched::Executed => {
            if matches!(phase, Phase::Launching { .. }) {
                missed.events.push(Event::Executed(run));
            }
        }
        Launched::Failed(end) => missed.events.push(Event::NotExecuted(run, end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::state::Instance;

    fn service(phase: Phase) -> Service {
        let one = Incarnation { phase, ..Incarnation::new(Run(3), 1, None, Mono(1_000)) };
        let mut instance = Instance::new(1, Mono(0));
        instance.current = Some(Box::new(one));
        Service { instances: vec![instance], ..Service::new() }
    }

    fn after(phase: Phase) -> Phase {
        let mut service = service(phase);
        after_outage(&mut service, false, Mono(90_000));
        service.main().unwrap().phase
    }

    #[test]
    fn what_has_a_time_has_it_anew_after_an_outage() {
        let at = Some(Mono(5_000));
        let anew = Some(Mono(94_000));
        assert_eq!(after(Phase::Starting { give_up_at: at }), Phase::Starting { give_up_at: anew });
        assert_eq!(after(Phase::Proving { give_up_at: at }), Phase::Proving { give_up_at: anew });
        assert_eq!(after(Phase::Proving { give_up_at: None }), Phase::Proving { give_up_at: None });
        let stopping =
            |signalled, kill_at| Phase::Stopping { signalled, killed: false, kill_at, signal_at: None };
        assert_eq!(after(stopping(false, at)), stopping(false, anew));
        assert_eq!(after(stopping(true, at)), stopping(true, at), "it had its time");
        assert_eq!(after(Phase::Running), Phase::Running);
    }

    #[test]
    fn a_stop_of_all_is_forgotten_and_that_of_an_operator_is_not() {
        let mut down = Service { goal: Goal::Down, waits: true, ..service(Phase::Running) };
        let asked = down.clone();
        after_outage(&mut down, true, Mono(90_000));
        assert_eq!((down.goal, down.waits), (Goal::Up, false));
        let mut down = asked.clone();
        after_outage(&mut down, false, Mono(90_000));
        assert_eq!(down, asked);
        let mut resting = Service::new();
        after_outage(&mut resting, true, Mono(90_000));
        assert_eq!(resting.goal, Goal::Down);
    }
}
