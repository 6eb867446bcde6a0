//! PURE. How made-up commands behave, and the random numbers they are drawn from. Never acts.

use supervise::policy::backoff::{Backoff, Policy};
use supervise::policy::service::{Codes, Health, Kind, Readiness, Spec, Strategy};
use supervise::policy::{End, Exit};

/// SplitMix64: small, good enough, the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `below` - 1.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    /// True once in `of`.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What one incarnation does once its gate is open.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Milliseconds of the steps before the command; None: they hang.
    pub steps_ms: Option<u64>,
    /// The steps end in a failure instead of the command.
    pub fails: Option<End>,
    /// Milliseconds in the command until it says that it is ready; None: it never does.
    pub ready_ms: Option<u64>,
    /// Milliseconds in the command until it answers probes.
    pub healthy_ms: u64,
    /// Milliseconds in the command until they get through to it.
    pub heard_ms: u64,
    /// Milliseconds in the command until they find it ill; None: never.
    pub ill_ms: Option<u64>,
    /// Milliseconds in the command until it gives no sign of life any more; None: it always does.
    pub hangs_ms: Option<u64>,
    /// Milliseconds after which the command ends by itself; None: it does not.
    pub life_ms: Option<u64>,
    /// How it ends by itself.
    pub exit: Exit,
    /// Milliseconds from TERM to the end; None: TERM is ignored.
    pub term_ms: Option<u64>,
    /// Processes it leaves behind that end a while after TERM.
    pub workers: u8,
    /// Processes it leaves behind that only KILL ends.
    pub stubborn: u8,
    /// How many KILLs a fork of its tree outruns.
    pub racers: u8,
}

/// Milliseconds a worker takes to obey TERM.
pub const WORKER_MS: u64 = 70;

/// Milliseconds of a task that does not say otherwise.
pub const TASK_MS: u64 = 1_500;

/// What the launch says of a step that failed.
pub const STEP_FAILED: End = End::Launch { stage: 5, errno: 2, detail: 0 };

/// Starts, lives, obeys.
pub const GOOD: Behaviour = Behaviour {
    steps_ms: Some(3),
    fails: None,
    ready_ms: Some(5),
    healthy_ms: 0,
    heard_ms: 0,
    ill_ms: None,
    hangs_ms: None,
    life_ms: None,
    exit: Exit::Code(0),
    term_ms: Some(40),
    workers: 0,
    stubborn: 0,
    racers: 0,
};

/// What becomes of a request to the zygote.
#[derive(Clone, Copy, Debug)]
pub struct Clone3 {
    pub ms: u64,
    pub refused: Option<i32>,
}

/// Where commands take their behaviour from.
#[derive(Clone, Debug)]
pub enum Commands {
    /// Anything.
    Wild(Random),
    /// This sequence, counted by opened gates, then the last for ever; refusals of the first clones first.
    Script { lives: Vec<Behaviour>, refusals: u32 },
}

impl Commands {
    pub fn good() -> Self {
        Self::Script { lives: vec![GOOD], refusals: 0 }
    }

    /// The `opened`-th life of a service; `ends` where it is one that cannot last for ever.
    pub fn life(&mut self, opened: usize, spec: &Spec, ends: bool) -> Behaviour {
        let life = match self {
            Self::Script { lives, .. } => lives.get(opened).or(lives.last()).copied().unwrap_or(GOOD),
            Self::Wild(random) => wild(random, spec),
        };
        // What is never done would never be proven.
        let life_ms = if ends { life.life_ms.or(Some(TASK_MS)) } else { life.life_ms };
        Behaviour { life_ms, ..life }
    }

    /// The fate of the `asked`-th request.
    pub fn clone3(&mut self, asked: u32) -> Clone3 {
        match self {
            Self::Script { refusals, .. } => Clone3 { ms: 1, refused: (asked < *refusals).then_some(EAGAIN) },
            Self::Wild(random) => {
                Clone3 { ms: random.below(4), refused: random.once_in(6).then_some(EAGAIN) }
            }
        }
    }
}

/// No process now, as clone(2) puts it.
pub const EAGAIN: i32 = 11;

fn wild(random: &mut Random, spec: &Spec) -> Behaviour {
    // What only a limit could end is for units that have that limit.
    let limited_start = spec.start_timeout_ms.is_some();
    let limited_stop = spec.stop_timeout_ms.is_some();
    let hangs = limited_start && random.once_in(10);
    Behaviour {
        steps_ms: if hangs { None } else { Some(random.below(30)) },
        fails: random.once_in(8).then_some(STEP_FAILED),
        ready_ms: if limited_start && random.once_in(5) {
            None
        } else {
            Some(random.below(3_000) >> random.below(10))
        },
        healthy_ms: random.below(4_000) >> random.below(10),
        heard_ms: if random.once_in(3) { random.below(3_000) } else { 0 },
        ill_ms: if limited_start && random.once_in(3) { Some(random.below(20_000)) } else { None },
        hangs_ms: if random.once_in(4) { Some(random.below(20_000)) } else { None },
        life_ms: if random.once_in(3) { None } else { Some(random.below(60_000) >> random.below(16)) },
        exit: random.pick(&[Exit::Code(0), Exit::Code(1), Exit::Code(3), Exit::Signal(11)]),
        term_ms: if limited_stop && random.once_in(5) { None } else { Some(random.below(3_000)) },
        workers: random.below(3) as u8,
        stubborn: if limited_stop && random.once_in(4) { 1 } else { 0 },
        racers: if limited_stop && random.once_in(6) { random.below(3) as u8 } else { 0 },
    }
}

/// The numbers of a unit without any of its own.
pub const PLAIN: Spec = Spec {
    start_at_boot: true,
    instances: 1,
    strategy: Strategy::StopFirst,
    backoff: Backoff {
        policy: Policy::Always,
        delay_ms: 250,
        max_delay_ms: 30_000,
        reset_after_ms: Some(30_000),
        give_up_after: None,
    },
    stop_timeout_ms: Some(10_000),
    start_timeout_ms: Some(60_000),
    ready: Readiness::Started,
    kind: Kind::Service,
    before: 0,
    success: Codes::ZERO,
    settle_ms: 1_000,
    off: false,
    essential: false,
    reload: false,
    watchdog_ms: None,
    health: None,
    rehearse: false,
    config_codes: Codes::NONE,
    clean_signals: Codes::NONE,
    deaf_ms: 0,
    exec_stage: 12,
};

/// A look every two seconds; two that find it ill are too many.
pub const LOOKED_AT: Health = Health { interval_ms: Some(2_000), timeout_ms: 1_000, failures: 2 };

/// A unit that somebody might write.
pub fn wild_spec(random: &mut Random) -> Spec {
    let kind = random.pick(&[Kind::Service, Kind::Service, Kind::Service, Kind::Task]);
    let instances = random.pick(&[1, 1, 1, 2, 3]);
    let spec = Spec {
        instances: if kind == Kind::Task { 1 } else { instances },
        strategy: random.pick(&[Strategy::StartFirst, Strategy::StartFirst, Strategy::StopFirst]),
        start_at_boot: !random.once_in(3),
        backoff: Backoff {
            policy: random.pick(&[Policy::Always, Policy::Always, Policy::OnFailure, Policy::Never]),
            delay_ms: random.pick(&[250, 250, 0, 1]),
            max_delay_ms: random.pick(&[30_000, 5_000, 250]),
            reset_after_ms: random.pick(&[Some(30_000), Some(0), None]),
            give_up_after: random.pick(&[None, None, Some(3), Some(1)]),
        },
        stop_timeout_ms: random.pick(&[Some(10_000), Some(1_000), Some(0), None]),
        start_timeout_ms: random.pick(&[Some(60_000), Some(10), None]),
        kind,
        before: random.pick(&[0, 0, 1, 2]),
        success: if random.once_in(4) { Codes::of(&[0, 3]) } else { Codes::ZERO },
        ready: random.pick(&[Readiness::Started, Readiness::Told]),
        settle_ms: random.pick(&[1_000, 1_000, 0, 5_000]),
        off: random.once_in(16),
        essential: false,
        reload: random.once_in(2),
        watchdog_ms: random.pick(&[None, None, Some(3_000)]),
        health: if kind == Kind::Task {
            None
        } else {
            let gate = Health { interval_ms: None, ..LOOKED_AT };
            random.pick(&[None, None, Some(gate), Some(LOOKED_AT), Some(Health { failures: 1, ..LOOKED_AT })])
        },
        rehearse: false,
        config_codes: if random.once_in(4) { Codes::of(&[1, 3]) } else { Codes::NONE },
        clean_signals: if random.once_in(4) { Codes::of(&[15, 11]) } else { Codes::NONE },
        deaf_ms: random.pick(&[0, 0, 200]),
        exec_stage: random.pick(&[12, 5]),
    };
    // Only what is asked how it is can be told good from bad.
    Spec { rehearse: spec.health.is_some() && !random.once_in(4), ..spec }
}
