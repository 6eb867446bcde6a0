//! ROOT. How the descriptors that this process may have are shared out, so that clients take none from services and
//! none from root. Never takes one.
//!
//! Where there are plenty, and that is nearly everywhere, each share is its most. With few of them each is smaller, and
//! what is left is for what services need.

use super::notices::notifies;
use super::{Manager, control, exec};
use crate::policy::{Run, ServiceId};
use crate::unit::{Gate, LogTo, Unit};

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

/// What the supervisor keeps of each instance of a unit while it runs: its process, its group, its output, and what it
/// says by.
fn kept_of_each(unit: &Unit, grouped: bool) -> usize {
    let output = if unit.log.to == LogTo::Null { 0 } else { 2 };
    let line = matches!(unit.gate(), Gate::Line(_));
    1 + usize::from(grouped) + output + usize::from(line) + usize::from(notifies(unit))
}

impl Manager {
    /// Why so many instances of a unit are more than there is room for, in words, and what would help.
    pub(super) fn lacks_room(
        &self,
        id: Option<ServiceId>,
        unit: &Unit,
        count: u16,
    ) -> Option<(String, String)> {
        let own = |run| id.is_some() && self.service_of(run) == id;
        let taken =
            self.kept.all().filter(|(kind, number, _)| !(kind.is_of_incarnation() && own(Run(*number))));
        // While one takes the place of another there is one more.
        let needed =
            (usize::from(count) + 1) * kept_of_each(unit, self.cgroups.is_some()) + unit.sockets.len();
        let free = self.kept.capacity().saturating_sub(taken.count());
        (needed > free).then(|| {
            (
                format!("{count} instances need {needed} descriptors, and there is room for {free}"),
                "raise the limit on open files of the supervisor (`ulimit -n`, `LimitNOFILE=`)".to_owned(),
            )
        })
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
