//! PURE. What a rehearsal may do and what it may not, asked after every event; and what comes of restarts with one.
//! Never knows how policy decides.

use supervise::policy::backoff::{Backoff, Policy};
use supervise::policy::service::{Goal, Health, Readiness, Rest, Role, Service, Spec, Strategy};
use supervise::policy::{End, Exit, Outcome, Run, ServiceId};

use super::behaviour::{Behaviour, Commands, GOOD, LOOKED_AT, PLAIN, STEP_FAILED};
use super::sim::{Ran, Sim, Verb, wrong};

const ONE: ServiceId = ServiceId(0);

/// A unit that rehearses.
pub const REHEARSING: Spec = Spec {
    strategy: Strategy::StartFirst,
    ready: Readiness::Told,
    health: Some(Health { interval_ms: None, ..LOOKED_AT }),
    rehearse: true,
    ..PLAIN
};

impl Sim {
    fn serves(service: &Service) -> bool {
        service.instances.iter().any(|one| one.current.as_ref().is_some_and(|current| current.is_proven()))
    }

    /// What is so of the rehearsals of a service.
    pub fn check_rehearsals(&self, id: ServiceId, service: &Service) -> Ran {
        for (_, role, one) in service.incarnations() {
            let made = self.oracle.made.get(&one.run).filter(|made| made.service == id);
            if made.is_some_and(|made| made.rehearsal != one.rehearsal) {
                return wrong(format!("{:?} was made as something else", one.run));
            }
            if !one.rehearsal {
                continue;
            }
            match role {
                Role::Current => return wrong(format!("{:?} serves, and has no socket to do so", one.run)),
                Role::Draining => return wrong(format!("{:?} has never served, and drains", one.run)),
                Role::Next => {}
            }
        }
        // A service that goes down waits for others, and nothing of it changes meanwhile.
        let goes_on = service.goal == Goal::Up && !service.waits && !self.store.closing;
        for instance in service.instances.iter().filter(|_| goes_on) {
            let rehearsal = instance.next.as_ref().filter(|next| next.rehearsal);
            if let Some(one) = rehearsal
                && instance.current.is_none()
                && instance.rest == Rest::Waiting
            {
                return wrong(format!("clients wait for {:?}, which is a rehearsal", one.run));
            }
        }
        let rehearsals = service.incarnations().filter(|(_, _, one)| one.rehearsal && !one.is_ending());
        if rehearsals.count() > 1 {
            return wrong(format!("{id:?} is rehearsed twice at once"));
        }
        Ok(())
    }

    /// What comes before what, of an incarnation that is asked for.
    pub fn check_stage(&self, id: ServiceId, run: Run) -> Ran {
        let (Some(service), Some(spec)) = (self.service(id), self.specs.get(&id)) else { return Ok(()) };
        let Some((_, role, one)) = service.find(run) else { return Ok(()) };
        if one.before.is_some() {
            return Ok(());
        }
        let rolls = service.roll.is_some_and(|roll| roll.to == one.generation) && role == Role::Next;
        let same = |made: &&super::sim::Made| {
            (made.service, made.generation, made.before) == (id, one.generation, None)
        };
        let mut earlier = self.oracle.made.iter().filter(|(other, made)| **other < run && same(made));
        let found_good = |other: &Run| self.oracle.healthy.contains_key(other);
        if one.rehearsal {
            if !rolls || !spec.rehearse || !Self::serves(service) {
                return wrong(format!("{run:?} is a rehearsal of nothing: {service:?}"));
            }
            // One that never began, or that another command ended, is done again.
            return match earlier.find(|(other, made)| !made.rehearsal || found_good(other)) {
                Some((other, _)) => wrong(format!("{run:?} is a rehearsal after {other:?}")),
                None => Ok(()),
            };
        }
        if !rolls || !spec.rehearse || !Self::serves(service) {
            return Ok(());
        }
        // Somebody serves: it was rehearsed and nothing of that is left, or nobody served when it had its turn.
        let good =
            earlier.any(|(other, made)| !made.rehearsal || found_good(other) && self.kernel.is_empty(*other));
        if good { Ok(()) } else { wrong(format!("{run:?} is heard by clients and was never rehearsed")) }
    }
}

/// What a restart of something that serves has come to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    /// Generation and life of what serves; a life is counted by the gates that were opened.
    serves: Option<(u32, Run)>,
    outcomes: Vec<Option<Outcome>>,
    /// Which starts were rehearsals, in order.
    rehearsals: Vec<bool>,
    /// Starts that count.
    starts: u32,
    failures: u32,
}

enum Do {
    Ask(Verb),
    Pass(u64),
    Murder(u64),
}

const RESTART: Do = Do::Ask(Verb::Restart);

#[track_caller]
fn came(spec: Spec, lives: &[Behaviour], acts: &[Do]) -> Came {
    let mut sim = Sim::new(&[spec], Commands::Script { lives: lives.to_vec(), refusals: 0 });
    sim.tracing = true;
    let ran = play(&mut sim, acts);
    assert!(ran.is_ok(), "{ran:?}\n{}", sim.trace.join("\n"));
    let Some(service) = sim.service(ONE) else { panic!("a service is lost") };
    let current = service.instances.first().and_then(|one| one.current.as_ref());
    Came {
        serves: current.filter(|one| one.is_proven()).map(|one| (one.generation, one.run)),
        outcomes: sim.clients.iter().map(|client| client.answered).collect(),
        rehearsals: sim.oracle.made.values().map(|made| made.rehearsal).collect(),
        starts: service.starts,
        failures: service.failures(),
    }
}

fn play(sim: &mut Sim, acts: &[Do]) -> Ran {
    sim.begin()?;
    sim.pass_until(sim.now.after(5_000))?;
    for act in acts {
        match act {
            Do::Ask(verb) => {
                sim.ask(ONE, *verb);
                sim.settle()?;
            }
            Do::Pass(ms) => sim.pass_until(sim.now.after(*ms))?,
            Do::Murder(run) => {
                sim.kernel.murder(Run(*run));
                sim.settle()?;
            }
        }
    }
    Ok(())
}

const SLOW: Behaviour = Behaviour { ready_ms: Some(2_000), ..GOOD };
const BAD: Behaviour = Behaviour { ill_ms: Some(0), ..GOOD };
const DONE: Option<Outcome> = Some(Outcome::Done);
const OVERTAKEN: Option<Outcome> = Some(Outcome::Superseded);

const fn ended(end: End) -> Option<Outcome> {
    Some(Outcome::Ended(end))
}

#[test]
fn a_generation_is_rehearsed_once_and_then_comes() {
    let came = came(REHEARSING, &[GOOD], &[RESTART, Do::Pass(5_000)]);
    let serves = Some((2, Run(3)));
    let rehearsals = vec![false, true, false];
    assert_eq!(came, Came { serves, outcomes: vec![DONE], rehearsals, starts: 2, failures: 0 });
}

#[test]
fn of_three_instances_the_first_is_rehearsed() {
    let spec = Spec { instances: 3, ..REHEARSING };
    let came = came(spec, &[GOOD], &[RESTART, Do::Pass(9_000)]);
    assert_eq!(came.rehearsals, [false, false, false, true, false, false, false]);
    assert_eq!((came.outcomes, came.starts), (vec![DONE], 6));
}

#[test]
fn what_is_bad_in_its_rehearsal_never_comes() {
    let exits = Behaviour { life_ms: Some(50), exit: Exit::Code(4), ready_ms: None, ..GOOD };
    let well = Behaviour { exit: Exit::Code(0), ..exits };
    let silent = Behaviour { ready_ms: None, ..GOOD };
    let fails = Behaviour { fails: Some(STEP_FAILED), ..GOOD };
    let hangs = Behaviour { steps_ms: None, ..GOOD };
    let ready_and_dead = Behaviour { life_ms: Some(8), exit: Exit::Signal(11), healthy_ms: 1_000, ..GOOD };
    let deaf = Behaviour { term_ms: None, workers: 1, stubborn: 1, ..BAD };
    let slowly = Behaviour { healthy_ms: u64::MAX, ..GOOD };
    for (life, end) in [
        (BAD, End::Unhealthy),
        (slowly, End::Unhealthy),
        (deaf, End::Unhealthy),
        (exits, End::Exited(Exit::Code(4))),
        (well, End::Exited(Exit::Code(0))),
        (ready_and_dead, End::Exited(Exit::Signal(11))),
        (silent, End::NotReady),
        (fails, STEP_FAILED),
        (hangs, End::TimedOut),
    ] {
        let came = came(REHEARSING, &[GOOD, life, GOOD], &[RESTART, Do::Pass(90_000)]);
        let serves = Some((1, Run(1)));
        let (outcomes, rehearsals) = (vec![ended(end)], vec![false, true]);
        assert_eq!(came, Came { serves, outcomes, rehearsals, starts: 1, failures: 0 }, "{end:?}");
    }
}

#[test]
fn in_a_rehearsal_it_may_take_its_time_to_the_first_answer() {
    let late = Behaviour { healthy_ms: 20_000, ..GOOD };
    let came = came(REHEARSING, &[GOOD, late, GOOD], &[RESTART, Do::Pass(25_000)]);
    assert_eq!((came.serves, came.outcomes), (Some((2, Run(3))), vec![DONE]));
    assert_eq!(came.rehearsals, [false, true, false]);
}

#[test]
fn one_that_probes_did_not_get_through_to_is_not_ill() {
    let behind = Behaviour { heard_ms: 5_000, ..GOOD };
    let came = came(REHEARSING, &[GOOD, GOOD, behind], &[RESTART, Do::Pass(9_000)]);
    assert_eq!((came.serves, came.outcomes), (Some((2, Run(3))), vec![DONE]));
}

#[test]
fn one_that_was_good_in_its_rehearsal_has_to_be_good_again() {
    let came = came(REHEARSING, &[GOOD, GOOD, BAD, GOOD], &[RESTART, Do::Pass(9_000)]);
    let serves = Some((1, Run(1)));
    let (outcomes, rehearsals) = (vec![ended(End::Unhealthy)], vec![false, true, false]);
    assert_eq!(came, Came { serves, outcomes, rehearsals, starts: 2, failures: 0 });
}

#[test]
fn a_rehearsal_that_does_not_end_is_killed_soon() {
    let deaf = Behaviour { term_ms: None, ..GOOD };
    for (limit, within) in [(Some(35_000), 5_100), (None, 5_100), (Some(1_000), 1_100)] {
        let spec = Spec { stop_timeout_ms: limit, ..REHEARSING };
        let came = came(spec, &[GOOD, deaf, GOOD], &[RESTART, Do::Pass(within)]);
        assert_eq!(came.rehearsals, [false, true, false], "{limit:?}: nothing comes after it");
    }
}

#[test]
fn where_the_old_one_falls_it_is_the_old_generation_that_comes_back() {
    let fall = |lives: &[Behaviour], ms| {
        came(REHEARSING, lives, &[RESTART, Do::Pass(500), Do::Murder(1), Do::Pass(ms)])
    };
    // The rehearsal hangs, and nobody waits for it.
    let silent = Behaviour { ready_ms: None, ..GOOD };
    let hangs = fall(&[GOOD, silent, GOOD], 2_000);
    assert_eq!((hangs.serves, hangs.outcomes), (Some((1, Run(3))), vec![None]));
    assert_eq!(hangs.rehearsals, [false, true, false]);
    // When it has been found good the real one comes.
    let good = fall(&[GOOD, SLOW, GOOD], 9_000);
    let serves = Some((2, Run(4)));
    let rehearsals = vec![false, true, false, false];
    assert_eq!(good, Came { serves, outcomes: vec![DONE], rehearsals, starts: 3, failures: 0 });
    // Where it is bad the old one goes on.
    let bad = fall(&[GOOD, Behaviour { ill_ms: Some(0), ..SLOW }, GOOD], 9_000);
    let (serves, outcomes) = (Some((1, Run(3))), vec![ended(End::Unhealthy)]);
    assert_eq!(bad, Came { serves, outcomes, rehearsals: vec![false, true, false], starts: 2, failures: 1 });
    // Neither does anybody wait until one that was good has ended.
    let stays = Behaviour { term_ms: Some(3_000), ..GOOD };
    let drains = fall(&[GOOD, stays, GOOD], 2_000);
    assert_eq!((drains.serves, drains.outcomes), (Some((1, Run(3))), vec![None]));
}

#[test]
fn one_that_does_not_come_back_makes_room_for_what_was_rehearsed() {
    let never = Backoff { policy: Policy::Never, ..REHEARSING.backoff };
    let spec = Spec { backoff: never, ..REHEARSING };
    let came = came(spec, &[GOOD, SLOW, GOOD], &[RESTART, Do::Pass(500), Do::Murder(1), Do::Pass(9_000)]);
    assert_eq!((came.serves, came.outcomes), (Some((2, Run(3))), vec![DONE]));
    assert_eq!(came.rehearsals, [false, true, false]);
}

#[test]
fn one_that_falls_beside_others_comes_back_too() {
    let spec = Spec { instances: 2, ..REHEARSING };
    let came =
        came(spec, &[GOOD, GOOD, SLOW, GOOD], &[RESTART, Do::Pass(500), Do::Murder(1), Do::Pass(9_000)]);
    assert_eq!(came.rehearsals, [false, false, true, false, false, false]);
    assert_eq!(came.outcomes, [DONE]);
}

#[test]
fn whoever_falls_there_is_one_rehearsal() {
    let spec = Spec { instances: 2, ..REHEARSING };
    let murder = [Do::Murder(1), Do::Murder(2)];
    let acts = [RESTART, Do::Pass(500)].into_iter().chain(murder).chain([Do::Pass(9_000)]);
    let came = came(spec, &[GOOD, GOOD, SLOW, GOOD], &acts.collect::<Vec<_>>());
    assert_eq!(came.rehearsals, [false, false, true, false, false, false, false], "{came:?}");
    assert_eq!(came.outcomes, [DONE]);
}

#[test]
fn other_commands_end_a_rehearsal_without_blame() {
    let after = |verb| {
        came(REHEARSING, &[GOOD, SLOW, GOOD], &[RESTART, Do::Pass(500), Do::Ask(verb), Do::Pass(9_000)])
    };
    let stop = after(Verb::Stop);
    assert_eq!((stop.serves, stop.outcomes), (None, vec![OVERTAKEN, DONE]));
    let hold = after(Verb::Hold);
    assert_eq!((hold.serves, hold.outcomes), (None, vec![OVERTAKEN, DONE]));
    let again = after(Verb::Restart);
    assert_eq!(again.rehearsals, [false, true, true, false]);
    assert_eq!((again.serves, again.outcomes), (Some((3, Run(4))), vec![DONE, DONE]));
    let other_way = after(Verb::StopFirst);
    assert_eq!(other_way.rehearsals, [false, true, false]);
    assert_eq!((other_way.serves, other_way.outcomes), (Some((3, Run(3))), vec![DONE, DONE]));
    let more = after(Verb::Scale(2));
    assert_eq!(more.rehearsals, [false, true, false, false, false], "one more of the old, and both anew");
    assert_eq!(more.outcomes, [DONE, DONE]);
    let none = after(Verb::Scale(0));
    assert_eq!(none.serves, None);
    assert_eq!(none.outcomes[1], DONE);
}

#[test]
fn nothing_is_rehearsed_but_a_new_generation_that_comes_beside_the_old_one() {
    let crash = Behaviour { life_ms: Some(4_000), exit: Exit::Code(1), ..GOOD };
    let first = came(REHEARSING, &[crash, GOOD], &[Do::Pass(9_000)]);
    assert_eq!(first.rehearsals, [false, false], "a crash");
    let watched = Spec { health: Some(LOOKED_AT), ..REHEARSING };
    let ill = came(watched, &[Behaviour { ill_ms: Some(4_000), ..GOOD }, GOOD], &[Do::Pass(20_000)]);
    assert_eq!(ill.rehearsals, [false, false], "one that is ill");
    let other_way = came(REHEARSING, &[GOOD], &[Do::Ask(Verb::StopFirst), Do::Pass(9_000)]);
    assert_eq!(other_way.rehearsals, [false, false], "stop-first");
    let from_nothing =
        came(REHEARSING, &[GOOD], &[Do::Ask(Verb::Stop), Do::Pass(500), RESTART, Do::Pass(9_000)]);
    assert_eq!(from_nothing.rehearsals, [false, false], "a restart of what does not run");
    let cannot = came(Spec { rehearse: false, ..REHEARSING }, &[GOOD], &[RESTART, Do::Pass(9_000)]);
    assert_eq!(cannot.rehearsals, [false, false], "nothing tells good from bad");
    let reload = came(REHEARSING, &[GOOD], &[Do::Ask(Verb::Reload), Do::Pass(9_000)]);
    assert_eq!(reload.rehearsals, [false, true, false], "a reload that is a restart");
}

#[test]
fn what_prepares_a_generation_comes_before_its_rehearsal() {
    let spec = Spec { before: 1, ..REHEARSING };
    let well = Behaviour { life_ms: Some(200), ..GOOD };
    let came = came(spec, &[well, GOOD, well, GOOD, GOOD], &[RESTART, Do::Pass(9_000)]);
    assert_eq!(came.rehearsals, [false, false, false, true, false]);
    assert_eq!((came.starts, came.outcomes), (2, vec![DONE]));
}
