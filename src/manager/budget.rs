//! ROOT. How the descriptors that this process may have are shared out, so that clients take none from services and
//! none from root. Never takes one.
//!
//! Where there are plenty, and that is nearly everywhere, each share is its most. With few of them each is smaller, and
//! what is left is for what services need.

use super::{control, exec};

/// For this process itself, and for what passes through it at a start.
const SPARE: u64 = 40;
/// What a command of an operator takes at the most while it runs.
const PER_COMMAND: u64 = 3;

/// The shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Clients of the control socket.
    pub clients: usize,
    /// Descriptors that wait to be passed to clients other than root and our own user.
    pub passed: usize,
    /// Commands of operators.
    pub commands: usize,
    /// What the keeper has a copy of: everything of services.
    pub slots: u32,
}

impl Budget {
    /// Of so many.
    pub fn of(limit: u64) -> Self {
        let share = |part: u64, least: u64, most: usize| (limit / part).max(least).min(most as u64);
        let clients = share(8, 16, control::MOST_CLIENTS);
        let passed = share(16, 8, control::MOST_PASSED);
        let commands = share(32, 4, exec::MOST_AT_ONCE);
        let rest = limit.saturating_sub(SPARE + clients + passed + commands * PER_COMMAND);
        Self {
            clients: clients as usize,
            passed: passed as usize,
            commands: commands as usize,
            slots: u32::try_from(rest).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_never_more_than_there_is() {
        for limit in [128, 200, 256, 1024, 4096, 65_536, 1 << 30] {
            let budget = Budget::of(limit);
            let all = SPARE
                + budget.clients as u64
                + budget.passed as u64
                + PER_COMMAND * budget.commands as u64
                + u64::from(budget.slots);
            assert_eq!(all, limit);
            assert!(u64::from(budget.slots) * 5 >= limit * 2, "little is left of {limit}: {budget:?}");
        }
        let most = Budget::of(1 << 20);
        assert_eq!((most.clients, most.commands), (control::MOST_CLIENTS, exec::MOST_AT_ONCE));
    }
}
