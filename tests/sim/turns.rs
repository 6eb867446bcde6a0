//! PURE. Single steps whose order the walks could not tell: whose turn it is, and what is forgiven after a gap. Feeds the
//! policy by hand.

use supervise::policy::backoff::{Backoff, Policy};
use supervise::policy::recover::{self, Found, Launched};
use supervise::policy::service::{Phase, Readiness, Service, Spec, Strategy};
use supervise::policy::world::World;
use supervise::policy::{Action, Event, Exit, Mono, Operation, Run, ServiceId};

use super::behaviour::{EAGAIN, LOOKED_AT, PLAIN};
use super::rehearsal::REHEARSING;

const ONE: ServiceId = ServiceId(0);

struct Hand {
    world: World,
    now: Mono,
}

impl Hand {
    fn new(spec: Spec) -> Self {
        let mut world = World::new();
        world.add(ONE, spec, Service::new());
        let mut hand = Self { world, now: Mono(1_000) };
        let begun = hand.feed(Event::Boot);
        assert_eq!(begun.len(), usize::from(spec.instances));
        begun.into_iter().for_each(|run| hand.prove(run));
        hand
    }

    /// Feeds one event; what is started by it.
    fn feed(&mut self, event: Event) -> Vec<Run> {
        self.actions(event)
            .iter()
            .filter_map(|action| if let Action::Spawn(run) = action { Some(*run) } else { None })
            .collect()
    }

    fn actions(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.world.step(ONE, event, self.now, &mut out);
        out
    }

    fn pass(&mut self, ms: u64) -> Vec<Action> {
        self.now = self.now.after(ms);
        self.actions(Event::Tick)
    }

    /// Lets one come up and live for `settle`.
    fn prove(&mut self, run: Run) {
        self.feed(Event::Cloned(run));
        self.feed(Event::Executed(run));
    }

    /// The one that is started when those that settle have.
    #[track_caller]
    fn settled(&mut self) -> Run {
        self.now = self.now.after(PLAIN.settle_ms);
        let begun = self.feed(Event::Tick);
        assert_eq!(begun.len(), 1, "{:?}", self.world.get(ONE));
        begun[0]
    }

    fn fail(&mut self, run: Run) -> Vec<Run> {
        self.prove(run);
        self.feed(Event::Gone(run, Exit::Code(1)));
        self.feed(Event::Empty(run))
    }

    /// The one that was replaced ends.
    fn drained(&mut self, run: Run) -> Vec<Run> {
        self.feed(Event::Gone(run, Exit::Signal(15)));
        self.feed(Event::Empty(run))
    }

    fn instance_of(&self, run: Run) -> Option<u16> {
        self.world.get(ONE)?.find(run).map(|(instance, _, _)| instance.number)
    }
}

const THREE: Spec = Spec { instances: 3, strategy: Strategy::StartFirst, ..PLAIN };

#[test]
fn in_a_roll_all_wait_for_one_that_is_tried_again() {
    let mut hand = Hand::new(THREE);
    hand.pass(PLAIN.settle_ms);
    let begun = hand.feed(Event::Restart(Operation(1)));
    assert_eq!(begun, [Run(4)]);
    let shortage = supervise::policy::End::NoProcess(EAGAIN);
    assert_eq!(hand.feed(Event::NotCloned(Run(4), shortage)), [], "another has gone before it");
    let again = hand.pass(1_000);
    assert_eq!(again, [Action::Spawn(Run(5))]);
    assert_eq!(hand.instance_of(Run(5)), Some(1));
}

#[test]
fn on_the_way_back_nobody_waits_for_one_that_is_tried_again() {
    let mut hand = Hand::new(THREE);
    hand.pass(PLAIN.settle_ms);
    assert_eq!(hand.feed(Event::Restart(Operation(1))), [Run(4)]);
    hand.prove(Run(4));
    let second = hand.settled();
    hand.drained(Run(1));
    hand.prove(second);
    let third = hand.settled();
    hand.drained(Run(2));
    let back = hand.fail(third);
    assert_eq!(back.len(), 1, "two have moved, and one after the other goes back");
    assert_eq!(hand.instance_of(back[0]), Some(1));
    let beside = hand.fail(back[0]);
    assert_eq!(beside.len(), 1, "the other is held up by it");
    assert_eq!(hand.instance_of(beside[0]), Some(2));
}

/// One that runs and is well, and the rehearsal of the next generation beside it.
#[track_caller]
fn in_rehearsal(spec: Spec) -> Hand {
    let mut hand = Hand::new(spec);
    hand.feed(Event::Ready(Run(1)));
    hand.pass(spec.settle_ms);
    hand.feed(Event::Healthy(Run(1)));
    hand.feed(Event::Healthy(Run(1)));
    assert_eq!(hand.feed(Event::Restart(Operation(1))), [Run(2)]);
    hand
}

#[test]
fn a_rehearsal_gets_no_more_time_to_end_and_nor_does_what_it_leaves() {
    let mut hand = in_rehearsal(Spec { stop_timeout_ms: Some(60_000), ..REHEARSING });
    hand.prove(Run(2));
    hand.feed(Event::Ready(Run(2)));
    assert_eq!(hand.actions(Event::Healthy(Run(2))), [Action::Terminate(Run(2))]);
    hand.feed(Event::Signalled(Run(2)));
    hand.feed(Event::Extended(Run(2), 60_000));
    assert_eq!(hand.pass(5_000), [Action::Kill(Run(2))]);
    // One that ends by itself leaves others no longer.
    let mut hand = in_rehearsal(Spec { stop_timeout_ms: Some(60_000), ..REHEARSING });
    hand.prove(Run(2));
    hand.feed(Event::Gone(Run(2), Exit::Code(1)));
    assert_eq!(hand.pass(5_000), [Action::Kill(Run(2))]);
}

#[test]
fn where_there_is_nothing_to_rehearse_on_the_roll_goes_on_without() {
    let mut hand = in_rehearsal(REHEARSING);
    assert_eq!(hand.feed(Event::Unrehearsed(Run(2))), [Run(3)]);
    let service = hand.world.get(ONE).unwrap();
    assert!(service.find(Run(3)).is_some_and(|(_, _, one)| !one.rehearsal && one.generation == 2));
    assert!(service.ends.is_empty() && service.failures() == 0, "nobody is to blame: {service:?}");
    // What has a process is not taken for one that has none.
    let mut hand = in_rehearsal(REHEARSING);
    hand.prove(Run(2));
    assert_eq!(hand.feed(Event::Unrehearsed(Run(2))), []);
}

#[test]
fn a_first_start_has_until_its_limit_to_be_well_and_gets_nobody_beside_it() {
    for strategy in [Strategy::StartFirst, Strategy::StopFirst] {
        let mut hand = Hand::new(Spec { strategy, health: Some(LOOKED_AT), ..PLAIN });
        for _ in 0..20 {
            assert_eq!(hand.actions(Event::Unhealthy(Run(1))), []);
            assert_eq!(hand.pass(1_000), [Action::Probe(Run(1))], "{strategy:?}");
        }
        hand.feed(Event::Healthy(Run(1)));
        // From here on it has something to lose.
        for _ in 0..LOOKED_AT.failures {
            assert_eq!(hand.pass(2_000), [Action::Probe(Run(1))]);
            let ill = hand.actions(Event::Unhealthy(Run(1)));
            let last = hand.world.incarnation(ONE, Run(1)).is_some_and(|one| one.ill == LOOKED_AT.failures);
            assert_eq!(ill.is_empty(), !last, "{ill:?}");
        }
    }
    let mut hand = Hand::new(Spec { health: Some(LOOKED_AT), ..PLAIN });
    assert_eq!(hand.pass(PLAIN.settle_ms), []);
    assert_eq!(hand.actions(Event::Unhealthy(Run(1))), []);
    assert_eq!(hand.pass(60_000), [Action::Terminate(Run(1))], "it has for ever");
}

#[test]
fn after_a_recovery_one_that_is_watched_has_a_whole_period_again() {
    let mut hand = Hand::new(Spec { watchdog_ms: Some(3_000), ..PLAIN });
    hand.pass(PLAIN.settle_ms);
    let one = hand.world.incarnation(ONE, Run(1)).cloned();
    let found = Found { registered: true, launched: Launched::Executed, exited: None };
    let events = one.map(|one| recover::missed(&one, found).events);
    assert_eq!(events, Some(vec![Event::Alive(Run(1))]));
}

#[test]
fn a_gap_in_which_nobody_listened_is_no_silence_of_the_service() {
    let spec = Spec { watchdog_ms: Some(3_000), ..PLAIN };
    let abort = |actions: &[Action]| actions.contains(&Action::Abort(Run(1)));
    let mut hand = Hand::new(spec);
    hand.pass(PLAIN.settle_ms);
    // A second late is the service's fault; three seconds are ours, and it has a whole period again.
    assert!(!abort(&hand.pass(6_000)), "it is blamed for what nobody heard");
    assert!(!abort(&hand.pass(2_999)), "it has less than a period");
    assert!(abort(&hand.pass(1)), "it is forgiven for ever");
    let mut hand = Hand::new(spec);
    hand.pass(PLAIN.settle_ms);
    assert!(abort(&hand.pass(4_000)), "it is forgiven what is its own");
    let phase = hand.world.incarnation(ONE, Run(1)).map(|one| one.phase);
    assert!(matches!(phase, Some(Phase::Stopping { .. })), "{phase:?}");
}

/// One that hangs, and the one that was started beside it.
const WATCHED: Spec = Spec { strategy: Strategy::StartFirst, watchdog_ms: Some(3_000), ..PLAIN };

#[test]
fn one_that_hangs_goes_when_another_has_proven_itself_beside_it() {
    let mut hand = Hand::new(WATCHED);
    hand.pass(PLAIN.settle_ms);
    assert_eq!(hand.pass(3_000), [Action::Spawn(Run(2))]);
    // One that fails is tried again after a while, and the first one stays.
    assert_eq!(hand.fail(Run(2)), []);
    let again = hand.pass(1_000);
    assert_eq!(again, [Action::Spawn(Run(3))]);
    hand.prove(Run(3));
    assert_eq!(hand.pass(PLAIN.settle_ms), [Action::Abort(Run(1))]);
    let ending = hand.world.incarnation(ONE, Run(1)).map(|one| (one.dismissed, one.pending_end));
    assert_eq!(ending, Some((true, Some(supervise::policy::End::Watchdog))));
    hand.feed(Event::Signalled(Run(1)));
    assert_eq!(hand.pass(2_000), []);
    hand.feed(Event::Alive(Run(3)));
    assert_eq!(hand.pass(2_000), []);
    hand.feed(Event::Alive(Run(3)));
    let (stop_ms, waited_ms) = (PLAIN.stop_timeout_ms.unwrap(), 4_000);
    hand.now = hand.now.after(stop_ms - waited_ms - 1);
    hand.feed(Event::Alive(Run(3)));
    assert_eq!(hand.pass(1), [Action::Kill(Run(1))]);
    assert_eq!(hand.drained(Run(1)), []);
    assert_eq!(hand.world.get(ONE).map(Service::failures), Some(0));
}

#[test]
fn one_that_gives_a_sign_again_ends_as_any_other_and_one_that_asked_to_go_does_not() {
    let mut hand = Hand::new(WATCHED);
    hand.pass(PLAIN.settle_ms);
    assert_eq!(hand.pass(3_000), [Action::Spawn(Run(2))]);
    hand.prove(Run(2));
    hand.feed(Event::Alive(Run(1)));
    assert_eq!(hand.pass(PLAIN.settle_ms), [Action::Terminate(Run(1))]);
    let mut hand = Hand::new(WATCHED);
    hand.pass(PLAIN.settle_ms);
    assert_eq!(hand.feed(Event::Trigger(Run(1))), [Run(2)]);
    hand.prove(Run(2));
    hand.feed(Event::Watched(Run(1), 5_000));
    hand.feed(Event::Alive(Run(1)));
    assert_eq!(hand.pass(PLAIN.settle_ms), [Action::Abort(Run(1))]);
}

#[test]
fn one_that_hangs_is_ended_at_once_where_nobody_can_be_beside_it() {
    let never = Backoff { policy: Policy::Never, ..PLAIN.backoff };
    for spec in [
        Spec { strategy: Strategy::StopFirst, ..WATCHED },
        Spec { backoff: never, ..WATCHED }, // none is to come
    ] {
        let mut hand = Hand::new(spec);
        hand.pass(PLAIN.settle_ms);
        assert_eq!(hand.pass(3_000), [Action::Abort(Run(1))]);
        hand.feed(Event::Signalled(Run(1)));
        assert_eq!(hand.pass(5_000), [Action::Kill(Run(1))], "it is waited for");
    }
}

#[test]
fn a_manager_that_takes_over_does_not_forget_that_one_hangs() {
    let mut hand = Hand::new(WATCHED);
    hand.pass(PLAIN.settle_ms);
    hand.pass(3_000);
    let hung = hand.world.incarnation(ONE, Run(1)).cloned().unwrap();
    let found = Found { registered: true, launched: Launched::Executed, exited: None };
    assert_eq!(recover::missed(&hung, found).events, []);
}

#[test]
fn one_that_has_just_become_ready_is_told_to_end_when_it_can_hear() {
    let mut hand = in_rehearsal(Spec { deaf_ms: 200, ..REHEARSING });
    hand.prove(Run(2));
    hand.feed(Event::Ready(Run(2)));
    hand.now = hand.now.after(20);
    assert_eq!(hand.actions(Event::Healthy(Run(2))), [], "it would not hear it");
    // A manager that takes over sends it no earlier.
    let ending = hand.world.incarnation(ONE, Run(2)).cloned().unwrap();
    let found = Found { registered: true, launched: Launched::Executed, exited: None };
    assert_eq!(recover::missed(&ending, found), recover::Missed::default());
    assert_eq!(hand.pass(179), []);
    assert_eq!(hand.pass(1), [Action::Terminate(Run(2))]);
    hand.feed(Event::Signalled(Run(2)));
    assert_eq!(hand.pass(4_999), [], "its time to end begins with the signal");
    assert_eq!(hand.pass(1), [Action::Kill(Run(2))]);
    // Any that is dismissed, and not one that has been ready for longer.
    let mut hand = Hand::new(Spec { deaf_ms: 2_000, ..PLAIN });
    assert_eq!(hand.actions(Event::Stop(Operation(1))), []);
    assert_eq!(hand.pass(2_000), [Action::Terminate(Run(1))]);
    let mut hand = Hand::new(Spec { deaf_ms: 200, ..PLAIN });
    hand.pass(PLAIN.settle_ms);
    assert_eq!(hand.actions(Event::Stop(Operation(1))), [Action::Terminate(Run(1))]);
    let mut hand = Hand::new(Spec { deaf_ms: 200, stop_timeout_ms: Some(0), ..PLAIN });
    let stopped = hand.actions(Event::Stop(Operation(1)));
    assert_eq!(stopped, [Action::Terminate(Run(1)), Action::Kill(Run(1))], "it has no time");
}

#[test]
fn start_timeout_is_one_for_ready_and_healthy() {
    let spec =
        Spec { start_timeout_ms: Some(15_000), ready: Readiness::Told, health: Some(LOOKED_AT), ..PLAIN };
    let gives_up = |ready_ms: u64| {
        let mut hand = Hand::new(spec);
        hand.pass(ready_ms);
        hand.feed(Event::Ready(Run(1)));
        let begun = hand.now;
        hand.pass(spec.settle_ms);
        while !hand.pass(100).contains(&Action::Terminate(Run(1))) {
            assert!(hand.now.since(begun) < 60_000, "it has for ever");
        }
        hand.now.since(begun) + ready_ms
    };
    assert_eq!(gives_up(7_000), 16_000, "15 s, and `settle`");
    let late = gives_up(14_900);
    assert!(late > 16_900 && late < 18_000, "one probe has its time: {late}");
}
