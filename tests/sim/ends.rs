//! PURE. What follows from an end by which a server means something. Never random.

use supervise::policy::backoff::{Backoff, Policy};
use supervise::policy::service::{Codes, Rest, Service, Spec};
use supervise::policy::world::World;
use supervise::policy::{Event, Exit, Mono, Run, ServiceId};

use super::behaviour::PLAIN;

const ONE: ServiceId = ServiceId(0);
const AT: Mono = Mono(5_000);

/// How a service rests whose first incarnation has run for a while and then ended so.
fn rest_after(spec: Spec, exit: Exit) -> Option<Rest> {
    let mut world = World::new();
    world.add(ONE, spec, Service::new());
    let (run, mut out) = (Run(1), Vec::new());
    for event in [Event::Boot, Event::Cloned(run), Event::Executed(run)] {
        world.step(ONE, event, Mono(0), &mut out);
    }
    for event in [Event::Gone(run, exit), Event::Empty(run)] {
        world.step(ONE, event, AT, &mut out);
    }
    let instance = world.get(ONE)?.instances.first()?;
    instance.current.is_none().then_some(instance.rest)
}

#[test]
fn a_wrong_configuration_is_tried_again_after_the_longest_delay_at_once() {
    let spec = Spec { config_codes: Codes::of(&[3]), ..PLAIN };
    let cap = AT.after(PLAIN.backoff.max_delay_ms);
    assert_eq!(rest_after(spec, Exit::Code(3)), Some(Rest::BackingOff { until: cap }));
    let Some(Rest::BackingOff { until }) = rest_after(spec, Exit::Code(1)) else { panic!() };
    assert!(until < AT.after(1_000), "{until:?}");
}

#[test]
fn a_signal_by_which_a_server_ends_cleanly_is_a_success() {
    let backoff = Backoff { policy: Policy::OnFailure, ..PLAIN.backoff };
    let spec = Spec { clean_signals: Codes::of(&[15, 2]), backoff, ..PLAIN };
    assert_eq!(rest_after(spec, Exit::Signal(15)), Some(Rest::Done));
    for (spec, exit) in [(spec, Exit::Signal(9)), (Spec { backoff, ..PLAIN }, Exit::Signal(15))] {
        assert!(matches!(rest_after(spec, exit), Some(Rest::BackingOff { .. })), "{exit:?}");
    }
}
