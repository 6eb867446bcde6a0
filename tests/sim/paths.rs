//! PURE. Every short sequence of inputs, from every phase: what random walks meet late or never.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use supervise::policy::backoff::{Backoff, Policy};
use supervise::policy::service::{Phase, Readiness, Rest, Service, Spec, Strategy};
use supervise::policy::{Exit, Run, ServiceId};

use super::behaviour::{Behaviour, Commands, GOOD, PLAIN, STEP_FAILED};
use super::sim::{Ran, Sim, Stop, Verb};
use super::walk::setting;

const ONE: ServiceId = ServiceId(0);

/// One letter of the alphabet; a turn follows each.
#[derive(Clone, Copy, Debug)]
enum Input {
    /// The clock moves to whatever comes next.
    Next,
    /// The clock jumps over everything that comes soon.
    Late,
    Ask(Verb),
    /// The manager dies now.
    Dies,
    /// The manager dies so many points on.
    WillDie(u64),
    /// The zygote ends after a clone that it has not told of.
    ZygoteEnds,
    /// Somebody kills the newest main process.
    Murder,
    Close,
}

const ALPHABET: [Input; 11] = [
    Input::Next,
    Input::Late,
    Input::Ask(Verb::Start),
    Input::Ask(Verb::Stop),
    Input::Ask(Verb::Restart),
    Input::Dies,
    Input::WillDie(2),
    Input::WillDie(4),
    Input::ZygoteEnds,
    Input::Murder,
    Input::Close,
];

fn take(sim: &mut Sim, input: Input) -> Ran {
    sim.note(|| format!("{input:?}"));
    match input {
        Input::Next => {
            sim.now = sim.next().unwrap_or(sim.now);
            sim.go()
        }
        Input::Late => sim.jump(2_000),
        Input::Ask(verb) => {
            sim.ask(ONE, verb);
            sim.go()
        }
        Input::Dies => sim.crash(),
        Input::WillDie(points) => {
            sim.fuses = vec![sim.points + points];
            sim.go()
        }
        Input::ZygoteEnds => {
            sim.kernel.end_zygote(true);
            sim.go()
        }
        Input::Murder => {
            let newest = sim.kernel.processes.keys().next_back().copied().unwrap_or(Run(0));
            sim.kernel.murder(newest);
            sim.go()
        }
        Input::Close => {
            sim.close()?;
            sim.go()
        }
    }
}

/// Whatever the path was: it comes right in the end.
fn finish(mut sim: Sim) -> (Sim, Ran) {
    sim.commands = Commands::good();
    sim.fuses.clear();
    let ran = come_right(&mut sim);
    (sim, ran)
}

fn come_right(sim: &mut Sim) -> Ran {
    sim.note(|| "everything behaves".into());
    sim.pass_until(sim.now.after(20_000))?;
    sim.check_answered()?;
    if sim.store.closing {
        return sim.check_closed();
    }
    sim.check_up()
}

fn is(name: &str, service: &Service) -> bool {
    let Some(instance) = service.instances.first() else { return name == "stopped" };
    match name {
        "rolling" => {
            return instance.next.as_ref().is_some_and(|one| matches!(one.phase, Phase::Settling { .. }));
        }
        "draining" => return instance.draining.is_some(),
        _ => {}
    }
    match (instance.current.as_ref().map(|one| one.phase), instance.rest) {
        (None, Rest::Stopped) => name == "stopped",
        (None, Rest::Waiting) => name == "waiting",
        (None, Rest::Done) => name == "done",
        (None, Rest::Failed) => name == "failed",
        (None, Rest::BackingOff { .. }) => name == "backing off",
        (Some(Phase::Cloning), _) => name == "cloning",
        (Some(Phase::Launching { .. }), _) => name == "launching",
        (Some(Phase::Preparing), _) => name == "preparing",
        (Some(Phase::Starting { .. }), _) => name == "starting",
        (Some(Phase::Settling { .. }), _) => name == "settling",
        (Some(Phase::Proving { .. }), _) => name == "proving",
        (Some(Phase::Running), _) => name == "running",
        (Some(Phase::Stopping { .. }), _) => name == "stopping",
        (Some(Phase::Clearing { .. }), _) => name == "clearing",
    }
}

/// A service in the phase of this name, on its straightest way there.
fn from(name: &str) -> Sim {
    let overlaps = matches!(name, "rolling" | "draining");
    let spec = Spec {
        backoff: Backoff { max_delay_ms: 1_000, ..PLAIN.backoff },
        stop_timeout_ms: Some(1_500),
        start_timeout_ms: Some(1_500),
        start_at_boot: name != "stopped",
        before: if name == "preparing" { 2 } else { 0 },
        instances: if overlaps { 2 } else { 1 },
        strategy: if overlaps { Strategy::StartFirst } else { Strategy::StopFirst },
        ready: if name == "starting" { Readiness::Told } else { Readiness::Started },
        ..PLAIN
    };
    let spec = match name {
        "done" | "failed" => Spec { backoff: Backoff { policy: Policy::Never, ..spec.backoff }, ..spec },
        _ => spec,
    };
    let ends = |exit| Behaviour { life_ms: Some(100), exit, ..GOOD };
    let mess = Behaviour { life_ms: Some(1_200), exit: Exit::Code(1), workers: 1, racers: 2, ..GOOD };
    let first = match name {
        "done" => ends(Exit::Code(0)),
        "failed" | "backing off" => ends(Exit::Code(1)),
        "clearing" => mess,
        "stopping" => Behaviour { term_ms: None, workers: 1, stubborn: 1, ..GOOD },
        "draining" => Behaviour { term_ms: None, ..GOOD },
        _ => GOOD,
    };
    let fails = Behaviour { fails: Some(STEP_FAILED), ..GOOD };
    let hangs = Behaviour { steps_ms: None, ..GOOD };
    let lives = match name {
        "rolling" | "draining" => vec![first, first, GOOD, mess, fails, hangs, GOOD],
        _ => vec![first, mess, fails, hangs, GOOD],
    };
    let mut sim = Sim::new(&[spec], Commands::Script { lives, refusals: 0 });
    let ran = reach(&mut sim, name);
    assert!(ran.is_ok(), "the way to {name}: {ran:?}");
    sim
}

fn reach(sim: &mut Sim, name: &str) -> Ran {
    sim.begin()?;
    match name {
        "stopping" => {
            sim.pass_until(sim.now.after(1_100))?;
            sim.ask(ONE, Verb::Stop);
        }
        "rolling" | "draining" => {
            sim.pass_until(sim.now.after(1_100))?;
            sim.ask(ONE, Verb::Restart);
        }
        _ => {}
    }
    for _ in 0..100 {
        if sim.service(ONE).is_some_and(|service| is(name, service)) {
            return Ok(());
        }
        sim.go()?;
        if !sim.service(ONE).is_some_and(|service| is(name, service)) && !sim.has_news() {
            sim.now = sim.next().unwrap_or(sim.now);
        }
    }
    super::sim::wrong("not reached")
}

struct Search {
    start: Sim,
    name: &'static str,
    path: Vec<Input>,
    /// What has been looked at, by the inputs left from there: most paths meet again.
    seen: BTreeSet<(u64, u64)>,
    ends: u64,
}

impl Search {
    fn below(&mut self, sim: &Sim, depth: u64) {
        let fuses: Vec<u64> = sim.fuses.iter().map(|at| at.saturating_sub(sim.points)).collect();
        let mut hasher = DefaultHasher::new();
        format!("{:?}", (&sim.store, &sim.kernel, &sim.manager, &sim.clients, sim.now, &sim.opened, fuses))
            .hash(&mut hasher);
        if !self.seen.insert((depth, hasher.finish())) {
            return;
        }
        if depth == 0 {
            self.ends += 1;
            if let (_, Err(why)) = finish(sim.clone()) {
                self.explain(why);
            }
            return;
        }
        for input in ALPHABET {
            let mut next = sim.clone();
            self.path.push(input);
            match take(&mut next, input) {
                Ok(()) => self.below(&next, depth - 1),
                Err(why) => self.explain(why),
            }
            self.path.pop();
        }
    }

    fn explain(&self, why: Stop) {
        let mut sim = self.start.clone();
        sim.tracing = true;
        let ran = self.path.iter().try_for_each(|input| take(&mut sim, *input));
        if ran.is_ok() {
            sim = finish(sim).0;
        }
        let Stop::Wrong(why) = why else { panic!("died outside of a turn") };
        panic!("from {}, {:?}: {why}\n{}", self.name, self.path, sim.trace.join("\n"));
    }
}

#[test]
fn every_short_path_from_every_phase_comes_right() {
    let names = [
        "stopped",
        "done",
        "failed",
        "backing off",
        "cloning",
        "launching",
        "preparing",
        "starting",
        "settling",
        "running",
        "stopping",
        "clearing",
        "rolling",
        "draining",
    ];
    for name in names {
        let start = from(name);
        let mut search =
            Search { start: start.clone(), name, path: Vec::new(), seen: BTreeSet::new(), ends: 0 };
        search.below(&start, setting("SIM_DEPTH", 4));
        assert!(search.ends > 100, "from {name}: only {} ends", search.ends);
    }
}
