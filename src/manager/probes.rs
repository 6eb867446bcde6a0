//! ROOT. Looking at services by processes with their own rights: whether they answer, whether they are healthy, who
//! listens where. Never asks a service anything itself.
//!
//! A probe is cloned by the zygote with the service's identity and says what it found in a line on a pipe. It ends
//! when nobody reads that any more, so nothing of it is kept: a manager that takes over begins those that are still
//! needed again. A private listener is the incarnation's alone; where it is gone, a probe is refused at once.

mod looks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::inputs::Which;
use super::kept::is_full;
use super::launches::{self, Told};
use super::{Manager, errands};
use crate::launch::words;
use crate::plan::{ExecPlan, FIXED_PATH, Passed};
use crate::policy::service::{Incarnation, Phase};
use crate::policy::{Event, Mono, Run, ServiceId};
use crate::sys::errno::{is_shortage, reason};
use crate::sys::{fds, memfd, process};
use crate::unit::Unit;
use crate::wire::keeper::Kind;
use crate::wire::probe::{Finding, MOST_BYTES, Task};
use crate::wire::zygote::Spawn;

/// The most probes at a time; others wait.
const MOST_AT_ONCE: usize = 16;
/// Milliseconds for which one that asks again and again keeps its place although others wait, beyond what one answer
/// may take.
const TURN_MS: u64 = 1_000;
/// Lines of one probe that are heard within [`AGAIN_MS`]; no probe of ours has as many to say.
const MOST_LINES: u32 = 64;
/// Milliseconds until a probe that came to nothing is tried again.
const AGAIN_MS: u64 = 1_000;
/// The same where another has taken its connections: who wakes first takes them all, so it is a matter of tries.
const OTHERS_AGAIN_MS: u64 = 100;
/// Milliseconds that a probe has beyond its own time to say that it is over.
const GRACE_MS: u64 = 2_000;
/// What is said where no connection came to the incarnation that is asked.
const OTHERS: &str = "only another incarnation of it answers";

/// What is said where the machine or the supervisor was short of what a probe takes.
const NO_PROBE: &str = "no probe could be started";

/// What the last probe said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether all is well.
    pub healthy: bool,
    /// In words.
    pub words: String,
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// To say when it is ready.
    Ready,
    /// To say whether it is healthy.
    Health,
    /// To see whether its processes listen where they should.
    Look,
    /// To have it read its configuration anew.
    Reload,
}

/// One that is under way.
#[derive(Debug)]
struct Flying {
    service: ServiceId,
    run: Run,
    what: For,
    out: OwnedFd,
    report: OwnedFd,
    pidfd: Option<OwnedFd>,
    until: Option<Mono>,
    /// Until then it has its place, whoever else waits.
    turn: Mono,
    said: Vec<u8>,
    /// It runs a command of the unit's.
    commands: bool,
    /// Lines that it has said since then.
    lines: (Mono, u32),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Probes {
    wanted: VecDeque<(ServiceId, Run, For)>,
    flying: BTreeMap<u64, Flying>,
    again: BTreeMap<Run, Mono>,
    looks: BTreeMap<Run, Mono>,
    /// How often one has been looked at in vain.
    vain: BTreeMap<Run, usize>,
}

impl Probes {
    /// When something is due.
    pub fn deadline(&self) -> Option<Mono> {
        let until = self.flying.values().filter_map(|one| one.until);
        let turn = self.over_first().map(|(_, turn)| turn).filter(|_| !self.wanted.is_empty());
        until.chain(turn).chain(self.again.values().copied()).chain(self.looks.values().copied()).min()
    }

    /// Which gives its place up first to one that waits: of those that ask without end. None while there is room.
    fn over_first(&self) -> Option<(u64, Mono)> {
        let endless = self.flying.iter().filter(|(_, one)| one.until.is_none());
        let first = endless.min_by_key(|(_, one)| one.turn).map(|(request, one)| (*request, one.turn));
        first.filter(|_| self.flying.len() >= MOST_AT_ONCE)
    }

    fn has(&self, run: Run, what: For) -> bool {
        self.wanted.iter().any(|(_, one, is)| (*one, *is) == (run, what))
            || self.flying.values().any(|one| (one.run, one.what) == (run, what))
    }
}

impl Manager {
    /// Nothing is left of an incarnation, or it never was.
    pub(super) fn forget_probes(&mut self, run: Run) {
        self.cancel(run, None);
        self.probes.again.remove(&run);
        self.probes.looks.remove(&run);
        self.probes.vain.remove(&run);
        self.discard_private(run);
    }

    // ---- what is wanted ------------------------------------------------------------------------------

    /// Sees to it that whatever waits for a probe has one, and that nothing else has.
    pub(super) fn tend_probes(&mut self, id: ServiceId) {
        let Some(gate) = self.unit_of(id).map(Unit::gate) else { return };
        // All of them at once: looking for each among a thousand others would take most of an event's time.
        let ending: BTreeSet<Run> = self
            .world
            .get(id)
            .into_iter()
            .flat_map(|service| service.incarnations())
            .filter(|(_, _, one)| one.is_ending())
            .map(|(_, _, one)| one.run)
            .collect();
        for (run, starting) in self.runs_of(id) {
            if ending.contains(&run) {
                // What its end does to it is not how it was.
                self.probes.looks.remove(&run);
                [For::Health, For::Look].into_iter().for_each(|what| self.cancel(run, Some(what)));
            }
            if !starting {
                self.probes.again.remove(&run);
                self.cancel(run, Some(For::Ready));
            } else if gate.is_probed()
                && !self.probes.has(run, For::Ready)
                && !self.probes.again.contains_key(&run)
            {
                self.want_probe(id, run, For::Ready);
            }
        }
    }

    /// The incarnations of a service, and whether each executes and is not ready.
    pub(super) fn runs_of(&self, id: ServiceId) -> Vec<(Run, bool)> {
        let Some(service) = self.world.get(id) else { return Vec::new() };
        let starting = |one: &Incarnation| matches!(one.phase, Phase::Starting { .. });
        service.incarnations().map(|(_, _, one)| (one.run, starting(one))).collect()
    }

    /// Does one health probe of an incarnation now; there is at most one at a time.
    pub(super) fn probe_now(&mut self, id: ServiceId, run: Run) {
        if !self.probes.has(run, For::Health) {
            self.want_probe(id, run, For::Health);
        }
    }

    /// Has the unit's `reload` command run.
    pub(super) fn reload_now(&mut self, id: ServiceId, run: Run) {
        if !self.probes.has(run, For::Reload) {
            self.want_probe(id, run, For::Reload);
        }
    }

    fn want_probe(&mut self, id: ServiceId, run: Run, what: For) {
        self.probes.wanted.push_back((id, run, what));
        self.pump_probes();
    }

    /// Ends what is under way for an incarnation: of one purpose, or all.
    fn cancel(&mut self, run: Run, what: Option<For>) {
        let is = |one: Run, its: For| one == run && what.is_none_or(|what| what == its);
        self.probes.wanted.retain(|(_, one, its)| !is(*one, *its));
        let over = self.probes.flying.iter().filter(|(_, one)| is(one.run, one.what));
        let over: Vec<u64> = over.map(|(request, _)| *request).collect();
        for request in over {
            drop(self.land(request));
        }
    }

    /// What is due by now.
    pub(super) fn keep_probes(&mut self) {
        let now = self.now;
        let due = |table: &BTreeMap<Run, Mono>| {
            table.iter().filter(|(_, at)| **at <= now).map(|(run, _)| *run).collect::<Vec<_>>()
        };
        for run in due(&self.probes.again) {
            self.probes.again.remove(&run);
            if let Some(id) = self.service_of(run) {
                self.tend_probes(id);
            }
        }
        for run in due(&self.probes.looks) {
            self.probes.looks.remove(&run);
            if let Some(id) = self.service_of(run) {
                self.want_probe(id, run, For::Look);
            }
        }
        let over = self.probes.flying.iter().filter(|(_, one)| one.until.is_some_and(|until| until <= now));
        let over: Vec<u64> = over.map(|(request, _)| *request).collect();
        for request in over {
            match self.land(request) {
                Some(one) if one.what == For::Health => self.heed_late(&one),
                Some(one) if one.what == For::Reload => {
                    let words = "its `reload` command did not end in time".to_owned();
                    self.heed_reload(one.service, one.run, Err(words));
                }
                Some(_) | None => {}
            }
        }
        // What asks until it has its answer takes turns, or a few services that hang would keep all others from starting.
        let waiting = self.probes.wanted.len();
        for _ in 0..waiting {
            let Some((request, _)) = self.probes.over_first().filter(|(_, turn)| *turn <= now) else { break };
            if let Some(one) = self.land(request) {
                self.probes.wanted.push_back((one.service, one.run, one.what));
            }
            self.pump_probes();
        }
        self.pump_probes();
    }

    // ---- from one that is wanted to a process --------------------------------------------------------

    /// Has as many probes cloned as there may be.
    pub(super) fn pump_probes(&mut self) {
        while self.starts.is_linked() && self.probes.flying.len() < MOST_AT_ONCE {
            let Some((id, run, what)) = self.probes.wanted.pop_front() else { return };
            let Some(task) = self.task(id, run, what) else { continue };
            match self.launch_probe(id, run, what, &task) {
                Ok(()) => {}
                Err(error) if is_full(&error) => {
                    self.probes.wanted.push_front((id, run, what)); // its link's room wakes us
                    return;
                }
                Err(error) => {
                    log::warn!("service={} starting a probe: {}", self.name_of(id), reason(&error));
                    self.came_to_nothing(id, run, what, format!("{NO_PROBE}: {}", reason(&error)));
                }
            }
        }
    }

    fn launch_probe(&mut self, id: ServiceId, run: Run, what: For, task: &Task) -> io::Result<()> {
        let connections = match self.connections(id, task) {
            Ok(connections) => connections,
            Err(error) => {
                // As if the probe itself had not got through, or had not been able to ask.
                let words = reason(&error).to_lowercase();
                self.heed_probe(id, run, what, Finding::without_answer(words, is_shortage(&error)));
                return Ok(());
            }
        };
        let mut plan = self.probe_plan(id, run, task).map_err(io::Error::other)?;
        let passed = |_: &OwnedFd| Passed { name: "connection".to_owned(), address: "connection".to_owned() };
        plan.sockets = connections.iter().map(passed).collect();
        let plan = plan.encode().map_err(|unfit| io::Error::other(unfit.to_string()))?;
        let plan = memfd::sealed(c"supervise-probe", &plan)?;
        let (gate_read, gate) = fds::pipe(0)?;
        fds::write(gate.as_fd(), b"1")?; // nobody has to know of it before it runs
        let (report, report_write) = fds::pipe(libc::O_NONBLOCK)?;
        let (out, out_write) = fds::pipe(0)?;
        fds::set_nonblocking(out.as_fd(), true)?;
        // Whoever has the same user could take from it what it holds, so it gets nothing of ours.
        let mut parcel = vec![
            plan.as_fd(),
            gate_read.as_fd(),
            report_write.as_fd(),
            self.null.as_fd(),
            out_write.as_fd(),
            self.null.as_fd(),
        ];
        // The service's own command belongs into its cgroup, with its limits.
        let cgroup = match task {
            Task::Command { .. } => self.kept.fd(Kind::Cgroup, run.0),
            Task::Answer { .. } | Task::Listens { .. } | Task::Health { .. } | Task::Look { .. } => None,
        };
        parcel.extend(connections.iter().map(AsFd::as_fd));
        parcel.extend(cgroup);
        let request = self.starts.next_request(self.kept.manager);
        self.starts
            .send(&Spawn { request, sockets: connections.len() as u16, cgroup: cgroup.is_some() }, &parcel)?;
        let limit_ms = match task {
            Task::Health { timeout_ms, again_ms: None, .. }
            | Task::Command { timeout_ms, again_ms: None, .. } => Some(timeout_ms.saturating_add(GRACE_MS)),
            Task::Look { .. } => Some(GRACE_MS * 5),
            Task::Health { .. } | Task::Command { .. } | Task::Answer { .. } | Task::Listens { .. } => None,
        };
        let until = limit_ms.map(|ms| self.now.after(ms));
        let answer_ms = match task {
            Task::Health { timeout_ms, .. } | Task::Command { timeout_ms, .. } => *timeout_ms,
            Task::Answer { .. } | Task::Listens { .. } | Task::Look { .. } => TURN_MS,
        };
        let (turn, lines) = (self.now.after(answer_ms.saturating_add(TURN_MS)), (self.now, 0));
        self.watch_probe(request, out.as_raw_fd());
        let (pidfd, said, commands) = (None, Vec::new(), matches!(task, Task::Command { .. }));
        let flying =
            Flying { service: id, run, what, out, report, pidfd, until, turn, said, commands, lines };
        self.probes.flying.insert(request, flying);
        Ok(())
    }

    /// The zygote has made a process: true where it is a probe.
    pub(super) fn probe_spawned(&mut self, request: u64, pidfd: OwnedFd) -> Result<(), OwnedFd> {
        match self.probes.flying.get_mut(&request) {
            Some(one) => {
                one.pidfd = Some(pidfd);
                Ok(())
            }
            None => Err(pidfd),
        }
    }

    /// The zygote has made none.
    pub(super) fn probe_refused(&mut self, request: u64) {
        if let Some(one) = self.land(request) {
            self.came_to_nothing(one.service, one.run, one.what, NO_PROBE.to_owned());
        }
    }

    /// The zygote is gone; what it had been asked for may or may not exist.
    pub(super) fn probes_ungated(&mut self) {
        let open = self.probes.flying.iter().filter(|(_, one)| one.pidfd.is_none());
        let open: Vec<u64> = open.map(|(request, _)| *request).collect();
        for request in open {
            self.probe_refused(request);
        }
    }

    /// Nobody was asked anything. That is our own want, and says nothing of the service.
    fn came_to_nothing(&mut self, id: ServiceId, run: Run, what: For, words: String) {
        match what {
            For::Ready => drop(self.probes.again.insert(run, self.now.after(AGAIN_MS))),
            For::Look => drop(self.probes.looks.insert(run, self.now.after(AGAIN_MS))),
            For::Health => self.heed_unasked(id, run, words),
            For::Reload => {
                self.heed_reload(id, run, Err("its `reload` command could not be started".to_owned()));
            }
        }
    }

    /// The service's own plan with another command, and without what is meant for its main process alone.
    fn probe_plan(&self, id: ServiceId, run: Run, task: &Task) -> Result<ExecPlan, String> {
        let which = self.which(id, run).ok_or("it is gone")?;
        // What it runs asks of this incarnation, and can tell which one that is.
        let invocation = self.processes.get(run).map_or("", |process| process.invocation.as_str());
        let mut plan = self.exec_plan(id, Which { before: None, ..which }, invocation)?;
        plan.argv = vec!["supervise".to_owned(), "probe".to_owned(), task.encode()];
        // In a clone of the zygote this is our own binary, whatever has become of the file.
        plan.candidates = vec!["/proc/self/exe".to_owned()];
        plan.sockets.clear();
        plan.pid_variables.clear();
        if matches!(task, Task::Command { .. }) {
            const ONLY_MAIN: [&str; 6] = [
                "LISTEN_FDS=",
                "LISTEN_FDNAMES=",
                "SERVER_STARTER_PORT=",
                "NOTIFY_SOCKET=",
                "FDSTORE=",
                "WATCHDOG_USEC=",
            ];
            plan.env.retain(|pair| !ONLY_MAIN.iter().any(|name| pair.starts_with(name)));
        } else {
            plan.env = vec![format!("PATH={FIXED_PATH}"), "LANG=C.UTF-8".to_owned()];
            plan.directory = "/".to_owned();
        }
        Ok(plan)
    }

    // ---- what came of it -----------------------------------------------------------------------------

    /// Takes one from the list. A process that is still there is ended.
    fn land(&mut self, request: u64) -> Option<Flying> {
        let one = self.probes.flying.remove(&request)?;
        self.unwatch_probe(one.out.as_raw_fd());
        // One that runs a command ends that with itself when nobody listens any more, and could not if it was killed.
        if let Some(pidfd) = one.pidfd.as_ref().filter(|_| !one.commands) {
            let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
        }
        Some(one)
    }

    /// Reads what a probe says, line by line.
    pub(super) fn hear_probe(&mut self, request: u64) {
        let now = self.now;
        loop {
            let Some(one) = self.probes.flying.get_mut(&request) else { return };
            let mut bytes = [0; MOST_BYTES];
            match fds::read(one.out.as_fd(), &mut bytes) {
                Ok(0) => break,
                Ok(count) => one.said.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
            while let Some(one) = self.probes.flying.get_mut(&request) {
                let Some(end) = one.said.iter().position(|byte| *byte == b'\n') else { break };
                let line: Vec<u8> = one.said.drain(..=end).collect();
                if now.since(one.lines.0) >= AGAIN_MS {
                    one.lines = (now, 0);
                }
                one.lines.1 += 1;
                let finding = std::str::from_utf8(&line).ok().and_then(Finding::decode);
                self.heed_finding(request, finding);
            }
            let too_much = |one: &Flying| one.said.len() >= MOST_BYTES || one.lines.1 > MOST_LINES;
            if self.probes.flying.get(&request).is_some_and(too_much) {
                break;
            }
        }
        // It has ended without saying all.
        if let Some(one) = self.land(request) {
            let words = self.words_of_probe(&one);
            log::warn!("service={} {words}", self.name_of(one.service));
            self.came_to_nothing(one.service, one.run, one.what, words);
        }
        self.pump_probes();
    }

    fn words_of_probe(&self, one: &Flying) -> String {
        let task = Task::Look { main: 0, sockets: Vec::new() };
        match (
            launches::read(one.report.as_fd(), &mut Vec::new()),
            self.probe_plan(one.service, one.run, &task),
        ) {
            (Told::Failed(report, fact), Ok(plan)) => {
                format!("its probe could not begin: {}", words::explain(&plan, &report, fact.as_ref()))
            }
            (Told::Failed(..) | Told::Executed | Told::Pending, _) => {
                "its probe ended without an answer".to_owned()
            }
        }
    }

    fn heed_finding(&mut self, request: u64, finding: Option<Finding>) {
        let (Some(one), Some(finding)) = (self.probes.flying.get(&request), finding) else { return };
        let (id, run, what) = (one.service, one.run, one.what);
        // One that asks again and again goes on.
        let goes_on = what == For::Ready && one.until.is_none();
        let finding = match (finding, self.unit_of(id)) {
            (Finding::Silent(words), Some(unit)) => Finding::Silent(errands::explained(unit, words)),
            (finding, _) => finding,
        };
        match finding {
            Finding::Unhealthy(words) | Finding::Silent(words) if goes_on => {
                return self.note_health(run, false, words);
            }
            Finding::Others if goes_on => return self.note_others(run),
            Finding::Unasked(words) if goes_on => return self.note_unasked(run, words),
            _ => {}
        }
        drop(self.land(request));
        self.heed_probe(id, run, what, finding);
    }

    fn heed_probe(&mut self, id: ServiceId, run: Run, what: For, finding: Finding) {
        match (what, finding) {
            (For::Ready, Finding::Ready) => self.is_ready(id, run),
            (For::Ready, Finding::Healthy(words)) => {
                self.note_health(run, true, words);
                self.is_ready(id, run);
            }
            (For::Ready, Finding::Unhealthy(words) | Finding::Silent(words)) => {
                self.note_health(run, false, words);
                self.probes.again.insert(run, self.now.after(AGAIN_MS));
            }
            (For::Ready, Finding::Others) => {
                self.note_others(run);
                self.probes.again.insert(run, self.now.after(OTHERS_AGAIN_MS));
            }
            (For::Ready, Finding::Unasked(words)) => {
                self.note_unasked(run, words);
                self.probes.again.insert(run, self.now.after(AGAIN_MS));
            }
            (For::Health, Finding::Unasked(words)) => self.heed_unasked(id, run, words),
            (For::Health, Finding::Others) => {
                self.note_others(run);
                self.feed(id, Event::Unasked(run));
                self.run_events();
            }
            (For::Health, Finding::Healthy(words)) => self.heed_health(id, run, Event::Healthy(run), words),
            (For::Health, Finding::Unhealthy(said)) => self.heed_health(id, run, Event::Unhealthy(run), said),
            (For::Health, Finding::Silent(words)) => self.heed_health(id, run, Event::Unanswered(run), words),
            (For::Look, Finding::Seen { held, waits, other }) => self.judge(id, run, held, waits, other),
            (For::Reload, Finding::Healthy(_)) => self.heed_reload(id, run, Ok(())),
            (For::Reload, Finding::Unhealthy(words) | Finding::Unasked(words)) => {
                self.heed_reload(id, run, Err(format!("its `reload` command: {words}")));
            }
            // Nothing that it was sent for.
            (what @ (For::Ready | For::Health | For::Look | For::Reload), _) => {
                self.came_to_nothing(id, run, what, "its probe said something else".to_owned())
            }
        }
    }

    /// How its launch went comes before what was seen of it.
    fn is_ready(&mut self, id: ServiceId, run: Run) {
        self.take_report(run);
        self.run_events();
        self.feed(id, Event::Ready(run));
        self.run_events();
    }

    fn heed_health(&mut self, id: ServiceId, run: Run, found: Event, words: String) {
        let healthy = matches!(found, Event::Healthy(_));
        self.note_health(run, healthy, words);
        if !healthy && self.probes.looks.remove(&run).is_some() {
            self.want_probe(id, run, For::Look); // before it is told to end
        }
        self.feed(id, found);
        self.run_events();
    }

    /// It was not asked. It is again when the next look is due, as after an answer.
    fn heed_unasked(&mut self, id: ServiceId, run: Run, words: String) {
        self.note_unasked(run, words);
        self.feed(id, Event::Unasked(run));
        self.run_events();
    }

    /// A probe of its health did not end in time. Whether that is the service's doing depends on whether it ran.
    fn heed_late(&mut self, one: &Flying) {
        if one.pidfd.is_some()
            && matches!(launches::read(one.report.as_fd(), &mut Vec::new()), Told::Executed)
        {
            let words = "the probe did not end in time".to_owned();
            self.heed_health(one.service, one.run, Event::Unanswered(one.run), words);
        } else {
            self.heed_unasked(one.service, one.run, "the probe did not begin in time".to_owned());
        }
    }

    fn heed_reload(&mut self, id: ServiceId, run: Run, done: Result<(), String>) {
        let event = match done {
            Ok(()) => Event::Reloaded(run),
            Err(words) => {
                self.say_words(id, words);
                Event::NotReloaded(run)
            }
        };
        self.feed(id, event);
        self.run_events();
    }

    fn note_health(&mut self, run: Run, healthy: bool, words: String) {
        self.change_said(run, |said| {
            said.health = Some(Health { healthy, words });
            said.unasked = None;
        });
    }

    /// What was found of it before is not known to be otherwise now, and stays.
    fn note_unasked(&mut self, run: Run, words: String) {
        self.change_said(run, |said| said.unasked = Some(words));
    }

    /// It could not be asked. What was found wrong with it before says more than that, and stays; that all was well does
    /// not, for one that has yet to prove itself.
    fn note_others(&mut self, run: Run) {
        let proven = self.service_of(run).and_then(|id| self.world.incarnation(id, run));
        let proven = proven.is_some_and(Incarnation::is_proven);
        let stays = |health: &Health| proven || !health.healthy;
        if !self.notices.of(run).is_some_and(|said| said.health.as_ref().is_some_and(stays)) {
            self.note_health(run, false, OTHERS.to_owned());
        }
    }
}
