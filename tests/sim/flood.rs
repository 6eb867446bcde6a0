//! PURE. Clients that never stop asking, and services that come and go. Never random.

use supervise::policy::service::{MOST_OPERATIONS, Service};
use supervise::policy::world::World;
use supervise::policy::{Action, Event, Mono, Operation, Run, ServiceId};

use super::behaviour::{Commands, PLAIN};
use super::sim::{Ran, Sim, Verb};

const ONE: ServiceId = ServiceId(0);

fn flooded(sim: &mut Sim, verb: Verb) -> Ran {
    sim.begin()?;
    sim.pass_until(Mono(9_000))?;
    for _ in 0..4 * MOST_OPERATIONS {
        sim.ask(ONE, verb);
        sim.go()?;
    }
    sim.crash()?;
    sim.pass_until(Mono(60_000))?;
    sim.check_up()?;
    sim.check_answered()
}

#[test]
fn a_flood_of_operations_is_bounded_and_everybody_is_answered() {
    for verb in [Verb::Restart, Verb::StopFirst, Verb::Start] {
        let mut sim = Sim::new(&[PLAIN], Commands::good());
        let ran = flooded(&mut sim, verb);
        assert!(ran.is_ok(), "{verb:?}: {ran:?}");
    }
}

#[test]
fn a_removed_service_takes_no_incarnation_with_it() {
    let mut world = World::new();
    world.add(ONE, PLAIN, Service::new());
    let mut out = Vec::new();
    world.step(ONE, Event::Start(Operation(1)), Mono(0), &mut out);
    assert_eq!(out, [Action::Spawn(Run(1))]);
    let kept = world.next_run();
    world.remove(ONE);
    // The next manager finds no service that remembers it.
    let mut world = World::new();
    world.reserve(kept);
    world.add(ServiceId(1), PLAIN, Service::new());
    out.clear();
    world.step(ServiceId(1), Event::Start(Operation(2)), Mono(0), &mut out);
    assert_eq!(out, [Action::Spawn(Run(2))]);
}
