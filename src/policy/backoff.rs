//! PURE. How long to wait before the next start. Never gives up by itself: crash loops keep trying at the cap.

use super::{End, Exit, Run};

/// When a service that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// After every end.
    Always,
    /// After an end that was not a success.
    OnFailure,
    /// Never.
    Never,
}

/// The numbers of `[restart]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// When to start again at all.
    pub policy: Policy,
    /// Milliseconds before the first new start; doubles with each consecutive failure.
    pub delay_ms: u64,
    /// The most milliseconds between two starts, jitter included.
    pub max_delay_ms: u64,
    /// Milliseconds of running after which earlier failures no longer count; None: they always do.
    pub reset_after_ms: Option<u64>,
    /// Consecutive failures after which no new start is tried; None: never.
    pub give_up_after: Option<u32>,
}

/// What follows an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start again after so many milliseconds.
    After(u64),
    /// It did what it was to do.
    Done,
    /// It will not be started again by us.
    Failed,
}

/// Milliseconds between tries while the machine is short of processes or memory: doubling from the first,
/// up to the second, so that the service is back within a second of the shortage's end.
const SHORTAGE_MS: (u64, u64) = (100, 800);

impl Backoff {
    /// Decides after an end, which was a success or not. `failures` are the consecutive ones including this, at least 1; `run` is the
    /// incarnation that ended and seeds the jitter, so that services that fell together do not rise together.
    pub fn next(&self, success: bool, failures: u32, run: Run) -> Next {
        let wanted = match self.policy {
            Policy::Always => true,
            Policy::OnFailure => !success,
            Policy::Never => false,
        };
        if !wanted {
            return if success { Next::Done } else { Next::Failed };
        }
        match self.give_up_after {
            Some(most) if failures >= most => Next::Failed,
            Some(_) | None => Next::After(self.delay(failures, run)),
        }
    }

    /// The same where no try after a short while can help: at the cap at once.
    pub fn next_at_cap(&self, failures: u32, run: Run) -> Next {
        match self.next(false, failures, run) {
            Next::After(_) => Next::After(self.max_delay_ms),
            other @ (Next::Done | Next::Failed) => other,
        }
    }

    /// Milliseconds to wait after the `failures`-th consecutive failure: doubling, ±20 %, never over the cap.
    pub fn delay(&self, failures: u32, run: Run) -> u64 {
        let plain = doubled(self.delay_ms, failures.saturating_sub(1), self.max_delay_ms);
        let jittered = plain.saturating_mul(800 + scatter(run) % 401) / 1000;
        jittered.min(self.max_delay_ms)
    }
}

/// Milliseconds between tries to bind a socket: an address may come with its interface, a port with the end of
/// whoever has it.
const UNBOUND_MS: (u64, u64) = (1_000, 30_000);

/// Milliseconds to wait after the `tries`-th socket in a row that could not be bound.
pub fn unbound_delay(tries: u32) -> u64 {
    doubled(UNBOUND_MS.0, tries.saturating_sub(1), UNBOUND_MS.1)
}

/// Milliseconds to wait after the `tries`-th refusal of a process in a row.
pub fn shortage_delay(tries: u32) -> u64 {
    doubled(SHORTAGE_MS.0, tries.saturating_sub(1), SHORTAGE_MS.1)
}

/// Whether an end says that the machine, not the service, could not: such ends never count as failures.
pub const fn is_shortage(end: End) -> bool {
    match end {
        End::NoProcess(_) => true,
        End::Exited(Exit::Code(_) | Exit::Signal(_) | Exit::Unknown)
        | End::Launch { .. }
        | End::Unprepared
        | End::Unbound
        | End::Unanswered
        | End::TimedOut
        | End::NotReady
        | End::Unhealthy
        | End::Watchdog => false,
    }
}

fn doubled(first: u64, times: u32, cap: u64) -> u64 {
    let factor = 1u64.checked_shl(times).unwrap_or(u64::MAX);
    first.saturating_mul(factor).min(cap)
}

/// A number that looks random and is the same for the same incarnation (the finaliser of SplitMix64).
fn scatter(run: Run) -> u64 {
    let mixed = run.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Backoff = Backoff {
        policy: Policy::Always,
        delay_ms: 250,
        max_delay_ms: 30_000,
        reset_after_ms: Some(30_000),
        give_up_after: None,
    };

    #[test]
    fn delays_double_within_the_jitter_and_stop_at_the_cap() {
        for run in (0..500).map(Run) {
            for failures in 1..80 {
                let plain =
                    250u64.saturating_mul(1u64.checked_shl(failures - 1).unwrap_or(u64::MAX)).min(30_000);
                let delay = PLAIN.delay(failures, run);
                assert!(
                    delay >= plain * 8 / 10 && delay <= (plain * 12 / 10).min(30_000),
                    "{failures} {delay}"
                );
            }
        }
    }

    #[test]
    fn jitter_uses_the_whole_width() {
        let delays: Vec<u64> = (0..1000).map(|run| PLAIN.delay(1, Run(run))).collect();
        assert!(delays.iter().min() < Some(&205) && delays.iter().max() > Some(&295));
    }

    #[test]
    fn policies_differ_where_they_say() {
        let (clean, crash) = (true, false);
        let with = |policy| Backoff { policy, ..PLAIN };
        assert!(matches!(with(Policy::Always).next(clean, 1, Run(1)), Next::After(_)));
        assert_eq!(with(Policy::OnFailure).next(clean, 1, Run(1)), Next::Done);
        assert!(matches!(with(Policy::OnFailure).next(crash, 1, Run(1)), Next::After(_)));
        assert_eq!(with(Policy::Never).next(crash, 1, Run(1)), Next::Failed);
        assert_eq!(with(Policy::Never).next(clean, 1, Run(1)), Next::Done);
        let limited = Backoff { give_up_after: Some(3), ..PLAIN };
        assert!(matches!(limited.next(crash, 2, Run(1)), Next::After(_)));
        assert_eq!(limited.next(crash, 3, Run(1)), Next::Failed);
    }

    #[test]
    fn a_socket_is_tried_again_after_one_second_and_then_ever_more_seldom() {
        let delays: Vec<u64> = (1..8).map(unbound_delay).collect();
        assert_eq!(delays, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn a_shortage_is_retried_within_a_second_for_ever() {
        assert_eq!((1..7).map(shortage_delay).collect::<Vec<_>>(), [100, 200, 400, 800, 800, 800]);
        assert_eq!(shortage_delay(u32::MAX), 800);
    }
}
