//! PURE. Long random lives. Never the same twice but by the same seed.

use supervise::policy::service::Incarnation;
use supervise::policy::world::Needs;
use supervise::policy::{Event, Mono, Run, ServiceId};

use super::behaviour::{Commands, Random, wild_spec};
use super::sim::{Ran, Sim, Stop, Verb, wrong};

/// A number from the environment.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Milliseconds after which whatever misbehaves has had its time: the longest life, then the longest stop.
const OLD_LIVES_MS: u64 = 60_000 + 60_000 + 60_000;

/// What operators ask for.
const VERBS: [Verb; 10] = [
    Verb::Start,
    Verb::Stop,
    Verb::Restart,
    Verb::Restart,
    Verb::StopFirst,
    Verb::Hold,
    Verb::Reload,
    Verb::Scale(0),
    Verb::Scale(1),
    Verb::Scale(3),
];

struct Walk {
    sim: Sim,
    random: Random,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let services = 1 + random.below(3);
        let specs: Vec<_> = (0..services).map(|_| wild_spec(&mut random)).collect();
        let commands = Commands::Wild(Random(random.next()));
        let mut sim = Sim::new(&specs, commands);
        for id in 1..services as u32 {
            let mut needs = Needs::default();
            for other in (0..id).map(ServiceId) {
                match random.below(5) {
                    0 => needs.requires.push(other),
                    1 => needs.wants.push(other),
                    2 => needs.after.push(other),
                    _ => {}
                }
            }
            sim.needs.insert(ServiceId(id), needs);
        }
        Self { sim, random }
    }

    fn service(&mut self) -> ServiceId {
        ServiceId(self.random.below(self.sim.specs.len() as u64) as u32)
    }

    fn live(&mut self, events: u64) -> Ran {
        self.sim.begin()?;
        for _ in 0..events {
            self.one()?;
        }
        self.end()
    }

    fn one(&mut self) -> Ran {
        match self.random.below(32) {
            0..=9 => {
                let next = self.sim.next().unwrap_or(self.sim.now);
                self.sim.now = next;
                self.sim.kernel.advance(next);
                self.sim.go()
            }
            10..=12 => self.sim.go(),
            13..=14 => {
                let ms = self.random.below(40_000) >> self.random.below(14);
                self.sim.jump(ms)
            }
            15..=17 => {
                let ms = self.random.below(5_000);
                self.sim.pass_until(self.sim.now.after(ms))
            }
            18..=21 => {
                let service = self.service();
                let verb = self.random.pick(&VERBS);
                self.sim.ask(service, verb);
                self.sim.go()
            }
            22 => self.ask_again(),
            23..=24 => {
                self.sim.downtime_ms = self.random.below(3_000) >> self.random.below(12);
                self.sim.crash()?;
                self.sim.go()
            }
            25..=27 => {
                let first = self.sim.points + 1 + self.random.below(12);
                self.sim.fuses = vec![first];
                if self.random.once_in(3) {
                    self.sim.fuses.push(first + 1 + self.random.below(8));
                }
                self.sim.downtime_ms = self.random.below(3_000) >> self.random.below(12);
                self.sim.go()
            }
            28 => {
                let after = self.random.once_in(2);
                self.sim.note(|| "the zygote ends".into());
                self.sim.kernel.end_zygote(after);
                self.sim.go()
            }
            29 => self.murder(),
            30 => self.early_tick(),
            _ => self.stale(),
        }
    }

    fn murder(&mut self) -> Ran {
        let alive = self.sim.kernel.processes.iter().filter(|(_, process)| process.alive());
        let alive: Vec<Run> = alive.map(|(run, _)| *run).collect();
        if !alive.is_empty() {
            let run = self.random.pick(&alive);
            self.sim.note(|| format!("{run:?} is killed by somebody"));
            self.sim.kernel.murder(run);
        }
        self.sim.go()
    }

    fn early_tick(&mut self) -> Ran {
        let service = self.service();
        if self.random.once_in(2)
            && let Some(at) = self.sim.service(service).and_then(|service| service.deadline())
        {
            self.sim.pass_until(Mono(at.0.saturating_sub(1)))?; // as early as early can be
        }
        self.feed(service, Event::Tick)
    }

    /// An event of long ago, or of nobody: it must not do anything.
    fn stale(&mut self) -> Ran {
        let service = self.service();
        // What is due anyway would come of any event.
        self.feed(service, Event::Tick)?;
        let Some(state) = self.sim.service(service).cloned() else { return Ok(()) };
        let run = Run(self.random.below(state.last_run.0 + 3));
        if state.find(run).is_some() || state.waits {
            return Ok(());
        }
        let events = [
            Event::Cloned(run),
            Event::Executed(run),
            Event::Ready(run),
            Event::Extended(run, 10_000),
            Event::Healed(run),
            Event::Alive(run),
            Event::Trigger(run),
            Event::Watched(run, 5_000),
            Event::Healthy(run),
            Event::Unhealthy(run),
            Event::Unanswered(run),
            Event::Unasked(run),
            Event::Astray(run),
            Event::Reloaded(run),
            Event::NotReloaded(run),
            Event::Signalled(run),
            Event::Empty(run),
            Event::Lost(run),
            Event::Gone(run, supervise::policy::Exit::Code(0)),
            Event::NotExecuted(run, super::behaviour::STEP_FAILED),
            Event::NotCloned(run, super::behaviour::STEP_FAILED),
        ];
        let event = self.random.pick(&events);
        let mut actions = Vec::new();
        let now = self.sim.now;
        let changes = self.sim.manager.world.step(service, event, now, &mut actions);
        self.sim.write(service, &changes)?;
        let same = self.sim.service(service).is_some_and(|after| {
            after.instances == state.instances && after.goal == state.goal && after.ends == state.ends
        });
        if same && actions.is_empty() { Ok(()) } else { wrong(format!("{event:?} of another is believed")) }
    }

    fn feed(&mut self, service: ServiceId, event: Event) -> Ran {
        match self.sim.feed(service, event) {
            Err(Stop::Died) => self.sim.crash(),
            other => other,
        }
    }

    fn ask_again(&mut self) -> Ran {
        let known: Vec<usize> = (0..self.sim.clients.len())
            .filter(|n| {
                let client = self.sim.clients[*n];
                self.sim.service(client.service).is_some_and(|s| s.outcome(client.operation).is_some())
            })
            .collect();
        if known.is_empty() {
            return Ok(());
        }
        let index = self.random.pick(&known);
        let client = self.sim.clients[index];
        let Some(before) = self.sim.service(client.service).cloned() else { return Ok(()) };
        // One that waits for another may be told by any event what has become of that, and go on; nobody would
        // carry out what follows from it here.
        if before.waits {
            return Ok(());
        }
        let mut actions = Vec::new();
        let now = self.sim.now;
        let changes = self.sim.manager.world.step(client.service, client.event(), now, &mut actions);
        self.sim.write(client.service, &changes)?;
        let Some(after) = self.sim.service(client.service) else { return wrong("a service is lost") };
        let same = after.instances == before.instances
            && after.goal == before.goal
            && after.generation == before.generation
            && after.asked.len() <= before.asked.len()
            && actions.is_empty();
        if !same {
            return wrong(format!("{client:?} asked again and it was done again"));
        }
        if after.outcome(client.operation).is_none() {
            return Ok(()); // so old that it has just been forgotten
        }
        self.sim.queue.push_back(index);
        self.sim.go()
    }

    /// Everything behaves from here on, so everything must come right: first up, then closed.
    fn end(&mut self) -> Ran {
        let sim = &mut self.sim;
        sim.note(|| "everything behaves".into());
        sim.commands = Commands::good();
        sim.fuses.clear();
        sim.pass_until(sim.now.after(OLD_LIVES_MS))?;
        let longest = sim.specs.values().map(|spec| spec.backoff.max_delay_ms + spec.settle_ms).max();
        // One after the other: each may have waited for one that had just failed.
        for _ in 0..3 {
            sim.pass_until(sim.now.after(longest.unwrap_or(0) * 2 + 10_000))?;
        }
        sim.check_up()?;
        sim.check_answered()?;
        self.close()
    }

    fn close(&mut self) -> Ran {
        let last = self.random.below(3);
        let sim = &mut self.sim;
        if last > 0 {
            sim.fuses = vec![sim.points + last * self.random.below(20)];
        }
        sim.note(|| "close".into());
        sim.close()?;
        sim.ask(ServiceId(0), Verb::Start);
        sim.settle()?;
        sim.pass_until(Mono(sim.now.0 + 180_000))?;
        sim.check_closed()?;
        let up = sim.manager.world.incarnations().any(|(_, one)| Incarnation::is_proven(one));
        if up { wrong("up though closed") } else { Ok(()) }
    }
}

fn walk(seed: u64, events: u64, tracing: bool) -> Result<(u64, u64), String> {
    let mut walk = Walk::new(seed);
    walk.sim.tracing = tracing;
    match walk.live(events) {
        Ok(()) => Ok((walk.sim.deaths, walk.sim.kernel.asked.len() as u64)),
        Err(Stop::Died) => Err("died outside of a turn".into()),
        Err(Stop::Wrong(why)) => {
            let from = walk.sim.trace.len().saturating_sub(60);
            Err(format!("{why}\n{}", walk.sim.trace[from..].join("\n")))
        }
    }
}

#[test]
fn random_walks_keep_every_promise() {
    let events = setting("SIM_EVENTS", 150);
    let only = setting("SIM_SEED", u64::MAX);
    let seeds = if only == u64::MAX { 0..setting("SIM_WALKS", 1_200) } else { only..only + 1 };
    let mut seen = (0, 0);
    for seed in seeds {
        match walk(seed, events, false) {
            Ok((deaths, runs)) => seen = (seen.0 + deaths, seen.1 + runs),
            Err(_) => {
                let told = walk(seed, events, true).err().unwrap_or_default();
                panic!("SIM_SEED={seed} SIM_EVENTS={events}: {told}");
            }
        }
    }
    // A walk in which nothing happens proves nothing.
    assert!(seen.0 > 10 && seen.1 > 10, "{} deaths, {} incarnations", seen.0, seen.1);
}
