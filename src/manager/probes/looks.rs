//! ROOT. Who is looked at and when, to see where its processes listen; and what follows from that. Never looks itself.

use super::super::{Manager, errands};
use crate::policy::{Event, Run, ServiceId};
use crate::sys::sockets;
use crate::unit::{self, Gate};

/// Milliseconds after it is ready, and after its start where it is not, at which an incarnation is looked at; earlier where
/// its time is over before, and where a probe finds it ill.
const LOOK_MS: (u64, u64) = (2_000, 5_000);
/// Milliseconds until it is looked at again while nothing of it listens where it should: a program may take its time.
const LOOK_AGAIN_MS: [u64; 3] = [3_000, 10_000, 30_000];

impl Manager {
    /// After an event of an incarnation: looks are due some time after it began or became ready.
    pub(in super::super) fn plan_look(&mut self, id: ServiceId, event: Event) {
        let Some(unit) = self.unit_of(id) else { return };
        let half = |ms: Option<u64>| ms.map_or(u64::MAX, |ms| ms / 2);
        let (run, after_ms) = match event {
            Event::Executed(run) => (run, LOOK_MS.1.min(half(unit.service.start_timeout_ms))),
            // Where nothing else proves it this does, before it has lived for long enough.
            Event::Ready(run) if unit.proves_nothing() => (run, LOOK_MS.0.min(unit.service.settle_ms / 2)),
            Event::Ready(run) => (run, LOOK_MS.0.min(half(unit.service.start_timeout_ms))),
            _ => return,
        };
        // One that has answered on its own listener is where it should be.
        let told = !matches!((event, unit.gate()), (Event::Ready(_), Gate::Answer(_)));
        let looked_at = unit.service.kind == unit::Kind::Service
            && unit.service.server != unit::Server::None
            && !unit.sockets.is_empty();
        if looked_at && told && self.runs_of(id).iter().any(|(one, _)| *one == run) {
            self.probes.looks.insert(run, self.now.after(after_ms));
        } else {
            self.probes.looks.remove(&run);
        }
    }

    /// Whether the processes of an incarnation listen where they should.
    pub(super) fn judge(
        &mut self,
        id: ServiceId,
        run: Run,
        held: bool,
        waits: bool,
        other: Option<(u32, String)>,
    ) {
        let Some(main) = self.processes.get(run).map(|process| process.main().pid) else { return };
        let Some(unit) = self.unit_of(id) else { return };
        let elsewhere = other.is_some();
        let words = errands::wrong(unit, main, held, waits, other);
        if words.is_some() || held && !waits && !elsewhere {
            let times = self.probes.vain.entry(run).or_default();
            if let Some(after_ms) = LOOK_AGAIN_MS.get(*times) {
                *times += 1;
                self.probes.looks.insert(run, self.now.after(*after_ms));
            }
        }
        self.restore_rooms(id); // it listens by now, where it ever does
        let before = self.notices.of(run).and_then(|said| said.wrong.as_ref());
        if let Some(words) = words.as_ref().filter(|words| before != Some(words)) {
            log::warn!("service={} {words}", self.name_of(id));
        }
        self.change_said(run, |said| said.wrong = words);
        if elsewhere && !held && !self.holds_a_socket(id, run) {
            self.feed(id, Event::Astray(run));
            self.run_events();
        }
    }

    /// Whether any process of an incarnation, its main process's child or not, has one of its sockets; also where that
    /// cannot be seen.
    fn holds_a_socket(&self, id: ServiceId, run: Run) -> bool {
        let (Some(unit), Some(tree)) = (self.unit_of(id), self.tree(run)) else { return true };
        let inodes = self.inodes(unit, run);
        let found = sockets::listeners_of(&tree.pids());
        inodes.is_empty() || found.iter().any(|one| inodes.contains(&one.inode))
    }
}
