//! PURE. Scripted lives, told once without a death and then with one at every point where the manager can
//! die, and with a second one soon after: whoever looks in the end must see no difference.

use supervise::policy::backoff::{Backoff, Policy};
use supervise::policy::service::{
    Codes, Goal, Instance, Kind as For, Phase, Readiness, Rest, Role, Spec, Strategy,
};
use supervise::policy::world::Needs;
use supervise::policy::{Exit, Mono, Outcome, Run, ServiceId};

use super::behaviour::{Behaviour, Commands, GOOD, PLAIN, STEP_FAILED};
use super::commanded;
use super::sim::{Ran, Sim, Stop, Verb, wrong};

const ONE: ServiceId = ServiceId(0);
const OTHER: ServiceId = ServiceId(1);

/// What an operator does next.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Milliseconds pass.
    Pass(u64),
    Ask(Verb),
    /// The same of the service that the first one needs.
    AskOther(Verb),
    Close,
    /// The zygote ends, having made the process or not.
    ZygoteEnds(bool),
}

pub struct Life {
    pub name: &'static str,
    pub spec: Spec,
    /// A second service, and how the first one needs it.
    pub other: Option<(Needs, Spec)>,
    pub lives: Vec<Behaviour>,
    pub refusals: u32,
    pub acts: Vec<Act>,
    /// What the life without a death must come to, so that no life is a different one than it says.
    pub ends: (Goal, Kind, u32),
    pub late_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stopped,
    Waiting,
    Done,
    Failed,
    BackingOff,
    Cloning,
    Launching,
    Preparing,
    Starting,
    Settling,
    Proving,
    Running,
    Stopping,
    Clearing,
}

fn kind(instance: &Instance) -> Kind {
    match (instance.current.as_ref().map(|one| one.phase), instance.rest) {
        (None, Rest::Stopped) => Kind::Stopped,
        (None, Rest::Waiting) => Kind::Waiting,
        (None, Rest::Done) => Kind::Done,
        (None, Rest::Failed) => Kind::Failed,
        (None, Rest::BackingOff { .. }) => Kind::BackingOff,
        (Some(Phase::Cloning), _) => Kind::Cloning,
        (Some(Phase::Launching { .. }), _) => Kind::Launching,
        (Some(Phase::Preparing), _) => Kind::Preparing,
        (Some(Phase::Starting { .. }), _) => Kind::Starting,
        (Some(Phase::Settling { .. }), _) => Kind::Settling,
        (Some(Phase::Proving { .. }), _) => Kind::Proving,
        (Some(Phase::Running), _) => Kind::Running,
        (Some(Phase::Stopping { .. }), _) => Kind::Stopping,
        (Some(Phase::Clearing { .. }), _) => Kind::Clearing,
    }
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    goal: Goal,
    kind: Kind,
    failures: u32,
    generation: u32,
    /// What each instance has besides its current incarnation, and of which generation that is.
    others: Vec<(u32, Vec<(Role, u32)>)>,
    living: usize,
    /// Lives that got as far as their gate's opening: no start is repeated, none left out.
    opened: usize,
    outcomes: Vec<Option<Outcome>>,
    /// The second service.
    other: Option<(Goal, Kind, u32, usize)>,
    since: Mono,
}

/// Milliseconds by which two recoveries may delay the end: less than any second try that policy makes.
const LATE_MS: u64 = 900;

/// The same where a KILL after a grace can be lost, once by each death: the next one comes a second later.
pub const LATE_KILL_MS: u64 = 2_900;

impl Seen {
    /// Equal, but for the time: that is the same up to a delay where nothing failed, and where something did
    /// another incarnation has another jitter.
    fn is_like(&self, other: &Self, late_ms: u64) -> bool {
        let in_time = self.failures > 0 || self.since.since(other.since) < late_ms;
        in_time && Self { since: other.since, ..self.clone() } == *other
    }
}

fn tell(life: &Life, fuses: &[u64], tracing: bool) -> (Sim, Result<Seen, Stop>) {
    let commands = Commands::Script { lives: life.lives.clone(), refusals: life.refusals };
    let specs: Vec<Spec> =
        std::iter::once(life.spec).chain(life.other.iter().map(|(_, spec)| *spec)).collect();
    let mut sim = Sim::new(&specs, commands);
    sim.needs.extend(life.other.iter().map(|(needs, _)| (ONE, needs.clone())));
    sim.fuses = fuses.to_vec();
    sim.tracing = tracing;
    let seen = play(&mut sim, life).and_then(|()| look(&sim));
    (sim, seen)
}

fn play(sim: &mut Sim, life: &Life) -> Ran {
    sim.begin()?;
    for act in &life.acts {
        match act {
            Act::Pass(ms) => sim.pass_until(sim.now.after(*ms))?,
            Act::Ask(verb) | Act::AskOther(verb) => {
                let whom = if matches!(act, Act::Ask(_)) { ONE } else { OTHER };
                sim.ask(whom, *verb);
                sim.go()?;
            }
            Act::Close => sim.close()?,
            Act::ZygoteEnds(after) => sim.kernel.end_zygote(*after),
        }
    }
    sim.settle()
}

fn look(sim: &Sim) -> Result<Seen, Stop> {
    let Some(service) = sim.service(ONE) else { return Err(Stop::Wrong("a service is lost".into())) };
    let living = sim.kernel.processes.values().filter(|process| !process.empty()).count();
    Ok(Seen {
        goal: service.goal,
        kind: service.instances.first().map_or(Kind::Stopped, kind),
        failures: service.failures(),
        generation: service.generation,
        others: service.instances.iter().map(others).collect(),
        living,
        opened: sim.opened.get(&ONE).copied().unwrap_or(0),
        outcomes: sim.clients.iter().map(|client| client.answered).collect(),
        other: sim.service(OTHER).map(|other| {
            let kind = other.instances.first().map_or(Kind::Stopped, kind);
            (other.goal, kind, other.failures(), sim.opened.get(&OTHER).copied().unwrap_or(0))
        }),
        since: service.instances.iter().map(since).max().unwrap_or_default(),
    })
}

fn others(instance: &Instance) -> (u32, Vec<(Role, u32)>) {
    let current = instance.current.as_ref().map_or(0, |one| one.generation);
    let rest = instance.incarnations().filter(|(role, _)| *role != Role::Current);
    (current, rest.map(|(role, one)| (role, one.generation)).collect())
}

fn since(instance: &Instance) -> Mono {
    instance.current.as_ref().map_or(instance.rest_since, |one| one.since)
}

pub fn crash(exit: Exit) -> Behaviour {
    Behaviour { life_ms: Some(200), exit, ..GOOD }
}

fn with(policy: Policy, give_up_after: Option<u32>) -> Spec {
    Spec { backoff: Backoff { policy, give_up_after, ..PLAIN.backoff }, ..PLAIN }
}

pub const START: Act = Act::Ask(Verb::Start);
pub const STOP: Act = Act::Ask(Verb::Stop);
pub const RESTART: Act = Act::Ask(Verb::Restart);

pub const fn up(failures: u32) -> (Goal, Kind, u32) {
    (Goal::Up, Kind::Running, failures)
}

pub const DOWN: (Goal, Kind, u32) = (Goal::Down, Kind::Stopped, 0);

pub fn life(name: &'static str, lives: &[Behaviour], acts: &[Act], ends: (Goal, Kind, u32)) -> Life {
    Life {
        name,
        spec: PLAIN,
        other: None,
        lives: lives.to_vec(),
        refusals: 0,
        acts: acts.to_vec(),
        ends,
        late_ms: LATE_MS,
    }
}

fn manual(life: Life) -> Life {
    Life { spec: Spec { start_at_boot: false, ..PLAIN }, ..life }
}

fn obedient() -> Vec<Life> {
    let good = &[GOOD];
    let (ms, soon) = (Act::Pass(5_000), Act::Pass(500));
    vec![
        life("boot", good, &[ms], up(0)),
        manual(life("start", good, &[soon, START, ms], up(0))),
        life("stop", good, &[ms, STOP, ms], DOWN),
        life("restart", good, &[ms, RESTART, ms], up(0)),
        life("stop at once", good, &[STOP, ms], DOWN),
        life("restart at once", good, &[RESTART, ms], up(0)),
        life("restart while settling", good, &[soon, RESTART, ms], up(0)),
        life("stop, start", good, &[ms, STOP, START, ms], up(0)),
        life("restart, stop", good, &[ms, RESTART, STOP, ms], DOWN),
        life("restart twice", good, &[ms, RESTART, RESTART, ms, START], up(0)),
        life("close at once", good, &[Act::Close, ms], DOWN),
        manual(life("start, close, start", good, &[START, soon, Act::Close, START, ms], DOWN)),
        life("the zygote ends after a clone", good, &[Act::ZygoteEnds(true), ms], up(0)),
        manual(life("the zygote ends before it", good, &[START, Act::ZygoteEnds(false), ms], up(0))),
        Life { refusals: 4, ..life("shortage", good, &[ms], up(0)) },
    ]
}

fn stubborn() -> Vec<Life> {
    let deaf = Behaviour { term_ms: None, workers: 2, stubborn: 1, racers: 3, ..GOOD };
    let dies = Behaviour { life_ms: Some(3_000), workers: 2, stubborn: 1, exit: Exit::Code(1), ..GOOD };
    let (ms, long) = (Act::Pass(5_000), Act::Pass(40_000));
    vec![
        life("stubborn stop", &[deaf], &[ms, STOP, long], DOWN),
        life("stubborn restart", &[deaf, GOOD], &[ms, RESTART, long], up(0)),
        life("stubborn workers", &[dies, GOOD], &[long], up(1)),
        life("stop among stubborn workers", &[dies], &[ms, STOP, long], DOWN),
        life("close", &[deaf], &[ms, Act::Close, long], DOWN),
    ]
}

fn failing() -> Vec<Life> {
    let hangs = Behaviour { steps_ms: None, ..GOOD };
    let fails = Behaviour { fails: Some(STEP_FAILED), ..GOOD };
    let one = crash(Exit::Code(1));
    let (ms, long) = (Act::Pass(9_000), Act::Pass(90_000));
    let gives_up = life("gives up", &[one], &[long], (Goal::Up, Kind::Failed, 3));
    let task = life("a task", &[crash(Exit::Code(0))], &[ms], (Goal::Up, Kind::Done, 0));
    vec![
        life("crash loop", &[one, crash(Exit::Signal(11)), one, GOOD], &[long], up(3)),
        Life { spec: with(Policy::Always, Some(3)), ..gives_up },
        Life { spec: with(Policy::Never, None), ..task },
        life("exec failure", &[fails, GOOD], &[ms], up(1)),
        manual(life("failed start", &[fails, GOOD], &[START, ms], up(1))),
        manual(life(
            "failed start, started again",
            &[fails, GOOD],
            &[START, Act::Pass(100), START, ms],
            up(0),
        )),
        life("start timeout", &[hangs, GOOD], &[long], up(1)),
        life("restart of a hanging start", &[hangs, GOOD], &[ms, RESTART, ms], up(0)),
        life("failed restart", &[GOOD, crash(Exit::Code(4)), GOOD], &[ms, RESTART, ms], up(1)),
    ]
}

/// Those that have to say when they are ready.
fn telling() -> Vec<Life> {
    let told = |life: Life| Life { spec: Spec { ready: Readiness::Told, ..life.spec }, ..life };
    let slow = Behaviour { ready_ms: Some(2_500), ..GOOD };
    let silent = Behaviour { ready_ms: None, ..GOOD };
    let deaf = Behaviour { term_ms: None, workers: 1, stubborn: 1, ..silent };
    let says_and_dies = Behaviour { ready_ms: Some(30), life_ms: Some(30), exit: Exit::Code(1), ..GOOD };
    let (ms, long) = (Act::Pass(9_000), Act::Pass(90_000));
    let waiting = life("not ready yet", &[slow], &[Act::Pass(2_000)], (Goal::Up, Kind::Starting, 0));
    vec![
        told(life("ready in time", &[slow], &[ms], up(0))),
        told(waiting),
        told(manual(life("a start that waits for ready", &[slow], &[START, ms], up(0)))),
        told(life("never ready", &[silent, GOOD], &[long], up(1))),
        told(manual(life("a start that is never ready", &[silent, GOOD], &[START, long], up(1)))),
        told(life("never ready, and deaf", &[deaf, GOOD], &[long], up(1))),
        told(life("ready, and dead at once", &[says_and_dies, GOOD], &[ms], up(1))),
        told(life("stop before ready", &[silent], &[ms, STOP, ms], DOWN)),
        told(life("restart before ready", &[silent, slow], &[ms, RESTART, ms], up(0))),
        told(life("close before ready", &[silent], &[ms, Act::Close, ms], DOWN)),
    ]
}

/// Tasks: `start` waits for their end.
fn doing() -> Vec<Life> {
    let never = Spec { kind: For::Task, start_at_boot: false, ..with(Policy::Never, None) };
    let task = |life: Life| Life { spec: never, ..life };
    let odd = Spec { success: Codes::of(&[3]), ..never };
    let tries = Spec { backoff: Backoff { policy: Policy::OnFailure, ..never.backoff }, ..never };
    let (well, badly) = (crash(Exit::Code(0)), crash(Exit::Code(3)));
    let (ms, soon) = (Act::Pass(5_000), Act::Pass(100));
    let done = (Goal::Up, Kind::Done, 0);
    let slow = Behaviour { life_ms: Some(100_000), ..GOOD };
    vec![
        task(life("a task", &[well], &[START, ms], done)),
        task(life("a task, twice", &[well], &[START, ms, START, ms], done)),
        task(life("a task that runs already", &[well], &[START, soon, START, ms], done)),
        task(life("a task that fails", &[badly], &[START, ms], (Goal::Up, Kind::Failed, 1))),
        task(life("a task that is stopped", &[slow], &[START, ms, STOP, ms], DOWN)),
        task(life("a task that is restarted", &[slow, well], &[START, ms, RESTART, ms], done)),
        task(life("a task that runs", &[slow], &[START, Act::Pass(90_000)], (Goal::Up, Kind::Running, 0))),
        Life { spec: odd, ..life("another success", &[badly], &[START, ms], done) },
        Life { spec: tries, ..life("a second try", &[badly, well], &[START, ms], done) },
    ]
}

/// Commands before the start: once in a generation.
fn preparing() -> Vec<Life> {
    let prepared = |life: Life| Life { spec: Spec { before: 2, ..life.spec }, ..life };
    let (well, badly) = (crash(Exit::Code(0)), crash(Exit::Code(1)));
    let (ms, soon, long) = (Act::Pass(9_000), Act::Pass(100), Act::Pass(90_000));
    let slow = Behaviour { life_ms: Some(200_000), ..GOOD };
    let one_try = Spec { before: 2, ..with(Policy::Never, None) };
    vec![
        prepared(life("prepared", &[well, well, GOOD], &[ms], up(0))),
        prepared(life("a crash repeats nothing", &[well, well, badly, GOOD], &[ms], up(1))),
        prepared(life("the second fails once", &[well, badly, well, GOOD], &[ms], up(1))),
        prepared(manual(life("a failed start", &[well, badly, well, GOOD], &[START, ms], up(1)))),
        prepared(life(
            "a restart prepares again",
            &[well, well, GOOD, well, well, GOOD],
            &[ms, RESTART, ms],
            up(0),
        )),
        prepared(life("a stop and a start do not", &[well, well, GOOD], &[ms, STOP, ms, START, ms], up(0))),
        prepared(life("stop while preparing", &[slow], &[ms, STOP, ms], DOWN)),
        prepared(life("restart while preparing", &[slow, well, well, GOOD], &[ms, RESTART, ms], up(0))),
        prepared(life("close while preparing", &[well, slow], &[soon, Act::Close, ms], DOWN)),
        prepared(life("no time limit", &[slow], &[long], (Goal::Up, Kind::Preparing, 0))),
        Life { spec: one_try, ..life("never again", &[well, badly], &[ms], (Goal::Up, Kind::Failed, 1)) },
    ]
}

/// New before old.
fn rolling() -> Vec<Life> {
    let first = Spec { strategy: Strategy::StartFirst, ..PLAIN };
    let of = |instances, life: Life| Life { spec: Spec { instances, ..first }, ..life };
    let told = |life: Life| Life { spec: Spec { ready: Readiness::Told, ..first }, ..life };
    let prepared = |life: Life| Life { spec: Spec { before: 1, ..first }, ..life };
    let (ms, soon, long) = (Act::Pass(5_000), Act::Pass(500), Act::Pass(90_000));
    let bad = crash(Exit::Code(4));
    let fails = Behaviour { fails: Some(STEP_FAILED), ..GOOD };
    let silent = Behaviour { ready_ms: None, ..GOOD };
    let liar = Behaviour { ready_ms: Some(1), life_ms: Some(400), exit: Exit::Code(1), ..GOOD };
    let slow = Behaviour { term_ms: Some(4_000), ..GOOD };
    let dies = Behaviour { life_ms: Some(5_400), exit: Exit::Code(1), ..GOOD };
    let (well, badly) = (crash(Exit::Code(0)), crash(Exit::Code(1)));
    let good = &[GOOD];
    vec![
        of(1, life("a roll", good, &[ms, RESTART, ms], up(0))),
        of(3, life("a roll of three", good, &[ms, RESTART, ms], up(0))),
        of(1, life("a roll whose new one ends", &[GOOD, bad, GOOD], &[ms, RESTART, ms], up(0))),
        of(1, life("a roll whose new one cannot", &[GOOD, fails, GOOD], &[ms, RESTART, ms], up(0))),
        of(
            3,
            life("the third ends", &[GOOD, GOOD, GOOD, GOOD, GOOD, bad, GOOD], &[ms, RESTART, ms, ms], up(0)),
        ),
        told(life("a roll that is never ready", &[GOOD, silent, GOOD], &[ms, RESTART, long], up(0))),
        told(life("a roll that lies", &[GOOD, liar, GOOD], &[ms, RESTART, ms], up(0))),
        of(1, life("a slow drain", &[slow, GOOD], &[ms, RESTART, ms], up(0))),
        of(
            1,
            life(
                "a drain, and another roll",
                &[slow, GOOD],
                &[ms, RESTART, Act::Pass(1_500), RESTART, ms, ms],
                up(0),
            ),
        ),
        of(2, life("two restarts at once", good, &[ms, RESTART, RESTART, ms], up(0))),
        of(2, life("a restart in a roll", good, &[ms, RESTART, Act::Pass(1_500), RESTART, ms], up(0))),
        of(2, life("a stop in a roll", good, &[ms, RESTART, Act::Pass(1_500), STOP, ms], DOWN)),
        of(2, life("a stop and a start in a roll", good, &[ms, RESTART, soon, STOP, START, ms], up(0))),
        of(2, life("a start in a roll", good, &[ms, RESTART, soon, START, ms], up(0))),
        of(2, life("close in a roll", good, &[ms, RESTART, soon, Act::Close, ms], DOWN)),
        of(
            2,
            life("the other way in a roll", good, &[ms, RESTART, soon, Act::Ask(Verb::StopFirst), ms], up(0)),
        ),
        of(2, life("the other way", good, &[ms, Act::Ask(Verb::StopFirst), ms], up(0))),
        of(1, life("the old one ends meanwhile", &[dies, GOOD], &[ms, RESTART, ms], up(0))),
        of(1, life("both end", &[dies, bad, GOOD], &[ms, RESTART, ms], up(1))),
        of(2, life("start-first, from nothing", good, &[STOP, soon, RESTART, ms], up(0))),
        of(1, life("the zygote ends in a roll", good, &[ms, RESTART, Act::ZygoteEnds(true), ms], up(0))),
        prepared(life("a roll prepares", &[well, GOOD, well, GOOD], &[ms, RESTART, ms], up(0))),
        prepared(life("a roll that cannot prepare", &[well, GOOD, badly, GOOD], &[ms, RESTART, ms], up(0))),
    ]
}

fn lives() -> Vec<Life> {
    let late = |life: Life| Life { late_ms: LATE_KILL_MS, ..life };
    let stubborn = stubborn().into_iter().map(late);
    let plain = [obedient(), failing(), telling(), doing(), preparing(), rolling()];
    plain.into_iter().flatten().chain(stubborn).collect()
}

fn judge(life: &Life, fuses: &[u64], wanted: &Seen) {
    let why = |seen: Result<Seen, Stop>| match seen {
        Ok(seen) if seen.is_like(wanted, life.late_ms) => None,
        Ok(seen) => Some(format!("{seen:?}\n instead of {wanted:?}")),
        Err(Stop::Died) => Some("died outside of a turn".into()),
        Err(Stop::Wrong(why)) => Some(why),
    };
    if why(tell(life, fuses, false).1).is_some() {
        let (sim, seen) = tell(life, fuses, true);
        let told = why(seen).unwrap_or_default();
        panic!("{}, deaths at {fuses:?}: {told}\n{}", life.name, sim.trace.join("\n"));
    }
}

fn no_death_changes(lives: Vec<Life>) {
    for life in lives {
        let (sim, seen) = tell(&life, &[], false);
        let seen = match seen {
            Ok(seen) => seen,
            Err(why) => panic!("{}: {why:?}", life.name),
        };
        assert_eq!((seen.goal, seen.kind, seen.failures), life.ends, "{}", life.name);
        assert!(sim.points > 5, "{}: nothing to die at", life.name);
        for first in 1..=sim.points {
            judge(&life, &[first], &seen);
            for second in 1..=8 {
                judge(&life, &[first, first + second], &seen);
            }
        }
    }
}

#[test]
fn a_death_at_any_point_changes_nothing() {
    no_death_changes(lives());
}

#[test]
fn nor_does_one_in_a_restart_with_a_rehearsal() {
    no_death_changes(commanded::rehearsing());
}

#[test]
fn nor_does_one_in_other_commands() {
    no_death_changes(commanded::asked());
}

#[test]
fn nor_does_one_among_services_that_need_each_other() {
    no_death_changes(commanded::needing());
}

#[test]
fn a_service_is_up_as_soon_as_it_can_be() {
    // However many times it has crashed: back within the longest delay, the launch and `settle`.
    for crashes in 1..12 {
        let mut lives = vec![crash(Exit::Code(1)); crashes];
        lives.push(GOOD);
        let mut sim = Sim::new(&[PLAIN], Commands::Script { lives, refusals: 0 });
        let ran = up_in_time(&mut sim, crashes);
        assert!(ran.is_ok(), "{crashes} crashes: {ran:?}");
    }
}

fn up_in_time(sim: &mut Sim, crashes: usize) -> Ran {
    sim.begin()?;
    let ended = |sim: &Sim| sim.service(ONE).map(|service| service.failures()) == Some(crashes as u32);
    while !ended(sim) {
        let Some(next) = sim.next() else { return wrong("nothing happens any more") };
        sim.pass_until(next)?;
    }
    let launch_ms = 10;
    sim.pass_until(sim.now.after(PLAIN.backoff.max_delay_ms + launch_ms + PLAIN.settle_ms))?;
    sim.check_up()?;
    let newest = sim.service(ONE).map(|service| service.last_run);
    if newest == Some(Run(crashes as u64 + 1)) { Ok(()) } else { wrong(format!("{newest:?}")) }
}
