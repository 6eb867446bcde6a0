//! PURE. Lives that `death` tells with the manager's death at every point: rehearsals, `scale`, `hold`, `reload`, and
//! services that need each other. Never plays one.

use supervise::policy::service::{Goal, Spec, Strategy};
use supervise::policy::world::Needs;
use supervise::policy::{Exit, ServiceId};

use super::behaviour::{Behaviour, GOOD, PLAIN, STEP_FAILED};
use super::death::{Act, DOWN, Kind, LATE_KILL_MS, Life, RESTART, START, STOP, crash, life, up};
use super::rehearsal::REHEARSING;
use super::sim::Verb;

const HOLD: Act = Act::Ask(Verb::Hold);
const HELD: (Goal, Kind, u32) = (Goal::Held, Kind::Stopped, 0);

const fn scale(count: u16) -> Act {
    Act::Ask(Verb::Scale(count))
}

/// A new generation that is rehearsed.
pub fn rehearsing() -> Vec<Life> {
    let of = |spec: Spec, life: Life| Life { spec, ..life };
    let rehearsed = |life: Life| of(REHEARSING, life);
    let of_three = Spec { instances: 3, ..REHEARSING };
    let prepared = Spec { before: 1, ..REHEARSING };
    let (ms, soon, long) = (Act::Pass(9_000), Act::Pass(500), Act::Pass(90_000));
    let bad = Behaviour { ill_ms: Some(0), ..GOOD };
    let ends = Behaviour { life_ms: Some(200), exit: Exit::Code(4), ready_ms: None, ..GOOD };
    let fails = Behaviour { fails: Some(STEP_FAILED), ..GOOD };
    let silent = Behaviour { ready_ms: None, ..GOOD };
    let slow = Behaviour { ready_ms: Some(2_000), ..GOOD };
    let stays = Behaviour { term_ms: Some(3_000), ..GOOD };
    let deaf = Behaviour { term_ms: None, ..GOOD };
    let dies = Behaviour { life_ms: Some(9_500), exit: Exit::Code(1), ..GOOD };
    let well = crash(Exit::Code(0));
    let good = &[GOOD];
    let later = |life: Life| Life { late_ms: LATE_KILL_MS, ..life };
    vec![
        rehearsed(life("a rehearsed roll", good, &[ms, RESTART, ms], up(0))),
        of(of_three, life("a rehearsed roll of three", good, &[ms, RESTART, ms, ms], up(0))),
        rehearsed(life("a bad rehearsal", &[GOOD, bad, GOOD], &[ms, RESTART, ms], up(0))),
        rehearsed(life("a rehearsal that ends", &[GOOD, ends, GOOD], &[ms, RESTART, ms], up(0))),
        rehearsed(life("a rehearsal that cannot", &[GOOD, fails, GOOD], &[ms, RESTART, ms], up(0))),
        rehearsed(life("a silent rehearsal", &[GOOD, silent, GOOD], &[ms, RESTART, long], up(0))),
        rehearsed(life("a rehearsal that lied", &[GOOD, GOOD, bad, GOOD], &[ms, RESTART, ms], up(0))),
        rehearsed(life("a rehearsal that is slow to go", &[GOOD, stays, GOOD], &[ms, RESTART, ms], up(0))),
        later(rehearsed(life("a deaf rehearsal", &[GOOD, deaf, GOOD], &[ms, RESTART, ms, ms], up(0)))),
        rehearsed(life("the old one ends meanwhile", &[dies, slow, GOOD], &[ms, RESTART, ms, ms], up(0))),
        rehearsed(life(
            "and the new one is bad",
            &[dies, slow, GOOD, bad, GOOD],
            &[ms, RESTART, ms, ms],
            up(1),
        )),
        rehearsed(life("two restarts at once", good, &[ms, RESTART, RESTART, ms], up(0))),
        rehearsed(life("another restart", &[GOOD, slow, GOOD], &[ms, RESTART, soon, RESTART, ms], up(0))),
        rehearsed(life("a stop meanwhile", &[GOOD, slow], &[ms, RESTART, soon, STOP, ms], DOWN)),
        rehearsed(life("held meanwhile", &[GOOD, slow], &[ms, RESTART, soon, HOLD, ms], HELD)),
        rehearsed(life("a start meanwhile", &[GOOD, slow, GOOD], &[ms, RESTART, soon, START, ms], up(0))),
        rehearsed(life("closed meanwhile", &[GOOD, slow], &[ms, RESTART, soon, Act::Close, ms], DOWN)),
        rehearsed(life(
            "the other way meanwhile",
            &[GOOD, slow, GOOD],
            &[ms, RESTART, soon, Act::Ask(Verb::StopFirst), ms],
            up(0),
        )),
        rehearsed(life("more meanwhile", &[GOOD, slow, GOOD], &[ms, RESTART, soon, scale(2), ms, ms], up(0))),
        rehearsed(life(
            "none meanwhile",
            &[GOOD, slow],
            &[ms, RESTART, soon, scale(0), ms],
            (Goal::Up, Kind::Stopped, 0),
        )),
        rehearsed(life("the zygote ends", good, &[ms, RESTART, Act::ZygoteEnds(true), ms], up(0))),
        of(prepared, life("prepared and rehearsed", &[well, GOOD, well, GOOD], &[ms, RESTART, ms], up(0))),
    ]
}

/// Everything else that operators ask for.
pub fn asked() -> Vec<Life> {
    let first = Spec { strategy: Strategy::StartFirst, ..PLAIN };
    let reloads = Spec { reload: true, ..PLAIN };
    let of = |spec: Spec, life: Life| Life { spec, ..life };
    let (ms, soon) = (Act::Pass(5_000), Act::Pass(500));
    let reload = Act::Ask(Verb::Reload);
    let bad = crash(Exit::Code(1));
    let good = &[GOOD];
    vec![
        life("more", good, &[ms, scale(3), ms], up(0)),
        life("more and fewer", good, &[ms, scale(3), ms, scale(1), ms], up(0)),
        life("more, fewer at once", good, &[ms, scale(3), scale(2), ms], up(0)),
        life("none", good, &[ms, scale(0), ms], (Goal::Up, Kind::Stopped, 0)),
        life("none and more", good, &[ms, scale(0), ms, scale(2), ms], up(0)),
        life("more of what is bad", &[GOOD, bad, GOOD], &[ms, scale(2), ms], up(1)),
        life("more while it is down", good, &[ms, STOP, ms, scale(2), soon, START, ms], up(0)),
        life("more at once", good, &[scale(2), ms], up(0)),
        of(first, life("more in a roll", good, &[ms, RESTART, soon, scale(2), ms], up(0))),
        of(first, life("fewer in a roll", good, &[ms, scale(3), ms, RESTART, soon, scale(1), ms], up(0))),
        life("held", good, &[ms, HOLD, ms], HELD),
        life("held and started", good, &[ms, HOLD, soon, START, ms], up(0)),
        life("held and stopped", good, &[ms, HOLD, soon, STOP, ms], DOWN),
        life("stopped and held", good, &[ms, STOP, soon, HOLD, ms], HELD),
        life("held at once", good, &[HOLD, ms], HELD),
        life("held and restarted", good, &[ms, HOLD, RESTART, ms], up(0)),
        of(first, life("held in a roll", good, &[ms, RESTART, soon, HOLD, ms], HELD)),
        of(reloads, life("read anew", good, &[ms, reload, ms], up(0))),
        of(reloads, life("read anew twice", good, &[ms, reload, reload, ms], up(0))),
        of(reloads, life("read anew and stopped", good, &[ms, reload, soon, STOP, ms], DOWN)),
        of(reloads, life("read anew while down", good, &[ms, STOP, ms, reload, ms], DOWN)),
        of(reloads, life("read anew and closed", good, &[ms, reload, soon, Act::Close, ms], DOWN)),
        life("read anew by a restart", good, &[ms, reload, ms], up(0)),
    ]
}

/// A second service, which the first one needs.
pub fn needing() -> Vec<Life> {
    let other = ServiceId(1);
    let requires = Needs { requires: vec![other], ..Needs::default() };
    let wants = Needs { wants: vec![other], ..Needs::default() };
    let after = Needs { after: vec![other], ..Needs::default() };
    let manual = Spec { start_at_boot: false, ..PLAIN };
    let with = |needs: &Needs, spec: Spec, life: Life| Life { other: Some((needs.clone(), spec)), ..life };
    let by_hand = |life: Life| Life { spec: manual, ..life };
    let (ms, soon) = (Act::Pass(5_000), Act::Pass(500));
    let (bad, good) = (crash(Exit::Code(1)), &[GOOD]);
    let stop_other = Act::AskOther(Verb::Stop);
    let late = Behaviour { steps_ms: Some(800), ..GOOD };
    vec![
        with(&requires, PLAIN, life("one after the other", good, &[ms], up(0))),
        with(&wants, PLAIN, life("one after the one it wants", good, &[ms], up(0))),
        with(&after, PLAIN, life("one after another", good, &[ms], up(0))),
        with(&requires, PLAIN, by_hand(life("pulled up", &[late], &[soon, START, ms], up(0)))),
        with(&requires, manual, by_hand(life("pulled up by a start", good, &[soon, START, ms], up(0)))),
        with(&requires, PLAIN, life("each tries for itself", &[bad, GOOD], &[ms, ms], up(1))),
        with(&wants, PLAIN, life("not held up by a failure", &[bad, GOOD], &[ms, ms], up(1))),
        with(&requires, PLAIN, life("the other is stopped", good, &[ms, stop_other, ms], up(0))),
        with(&requires, PLAIN, life("a stop while it waits", &[late], &[STOP, ms], DOWN)),
        with(&requires, PLAIN, life("a restart while it waits", &[late], &[RESTART, ms], up(0))),
        with(&requires, PLAIN, life("closed in order", good, &[ms, Act::Close, ms], DOWN)),
        with(&requires, PLAIN, life("closed while it waits", &[late], &[Act::Close, ms], DOWN)),
        with(&wants, PLAIN, life("both go", good, &[ms, stop_other, STOP, ms], DOWN)),
    ]
}
