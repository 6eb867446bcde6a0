//! PURE. What policy needs to know of a unit. Never a name, a path or a command.

use super::backoff::{Backoff, Policy};
use super::state::Strategy;
use super::{End, Exit};

/// What the unit says, as far as policy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Whether the supervisor starts it by itself.
    pub start_at_boot: bool,
    /// How many instances there are to be.
    pub instances: u16,
    /// How one incarnation replaces another.
    pub strategy: Strategy,
    /// `[restart]`.
    pub backoff: Backoff,
    /// Milliseconds from the stop signal to KILL; None: no limit.
    pub stop_timeout_ms: Option<u64>,
    /// Milliseconds from the gate to ready; None: no limit.
    pub start_timeout_ms: Option<u64>,
    /// What makes an incarnation ready.
    pub ready: Readiness,
    /// What it is for.
    pub kind: Kind,
    /// Exit codes that are a success.
    pub success: Codes,
    /// How many commands run before the first incarnation of a generation.
    pub before: u16,
    /// Milliseconds of life that prove an incarnation good.
    pub settle_ms: u64,
    /// Whether it is never to start.
    pub off: bool,
    /// When it ends for good, everything does.
    pub essential: bool,
    /// Whether it can read its configuration anew.
    pub reload: bool,
    /// Milliseconds within which it gives a sign of life.
    pub watchdog_ms: Option<u64>,
    /// `[health]`.
    pub health: Option<Health>,
    /// Whether a new generation is rehearsed on sockets of its own before it gets the real ones.
    pub rehearse: bool,
    /// Exit codes of one whose configuration is wrong.
    pub config_codes: Codes,
    /// Signals by which one ends itself that was asked to and has finished what it had begun.
    pub clean_signals: Codes,
    /// Milliseconds after it is ready for which it loses the signal that asks it to end.
    pub deaf_ms: u64,
    /// Number of the step that executes the command.
    pub exec_stage: u8,
}

impl Spec {
    /// Whether an incarnation that ended like this did what it was to do.
    pub fn is_success(&self, end: End) -> bool {
        match end {
            End::Exited(Exit::Code(code)) => self.success.has(code),
            End::Exited(Exit::Signal(signal)) => self.clean_signals.has(signal),
            End::Exited(Exit::Unknown)
            | End::Launch { .. }
            | End::NoProcess(_)
            | End::Unprepared
            | End::Unbound
            | End::Unanswered
            | End::TimedOut
            | End::NotReady
            | End::Unhealthy
            | End::Watchdog => false,
        }
    }

    /// Whether one that hangs stays until another has proven itself beside it. Where `[restart]` wants no other after a
    /// failure, its end is the service's.
    pub fn replaces_hung(&self) -> bool {
        let starts_again = self.backoff.policy != Policy::Never;
        self.kind == Kind::Service && self.strategy == Strategy::StartFirst && starts_again
    }

    /// Whether an end says that it will be the same at every start until somebody mends something.
    pub fn is_misconfigured(&self, end: End) -> bool {
        match end {
            End::Exited(Exit::Code(code)) => self.config_codes.has(code) && !self.success.has(code),
            End::Launch { stage, .. } => stage == self.exec_stage,
            End::Exited(Exit::Signal(_) | Exit::Unknown)
            | End::NoProcess(_)
            | End::Unprepared
            | End::Unbound
            | End::Unanswered
            | End::TimedOut
            | End::NotReady
            | End::Unhealthy
            | End::Watchdog => false,
        }
    }

    /// How many instances there are to be where an operator has said `scale`.
    pub fn count(&self, scale: Option<u16>) -> usize {
        match self.kind {
            Kind::Service => scale.unwrap_or(self.instances).into(),
            Kind::Task => 1,
        }
    }
}

/// When it is looked whether a service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Milliseconds between two looks at one that has proven itself; None: there are none.
    pub interval_ms: Option<u64>,
    /// Milliseconds that a look takes at most.
    pub timeout_ms: u64,
    /// How many in a row that find it ill make it ill, at least 1.
    pub failures: u32,
}

/// What a service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To run until it is stopped.
    Service,
    /// To run until it is done: it proves itself by its success.
    Task,
}

/// A set of exit codes or signals, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes([u64; 4]);

impl Codes {
    /// None.
    pub const NONE: Self = Self([0; 4]);

    /// 0 alone.
    pub const ZERO: Self = Self([1, 0, 0, 0]);

    /// Those of a list.
    pub fn of(list: &[u8]) -> Self {
        let mut words = [0u64; 4];
        for code in list {
            if let Some(word) = words.get_mut(usize::from(code / 64)) {
                *word |= 1 << (code % 64);
            }
        }
        Self(words)
    }

    /// Whether it is one of them.
    pub fn has(&self, code: i32) -> bool {
        let place = u8::try_from(code).ok();
        let word = place.and_then(|code| self.0.get(usize::from(code / 64)).map(|word| word >> (code % 64)));
        word.is_some_and(|word| word & 1 == 1)
    }
}

/// What makes an incarnation ready, from where on it has to live for `settle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Its command executes.
    Started,
    /// It says so.
    Told,
}
