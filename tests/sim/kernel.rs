//! PURE. The made-up kernel with the two processes that survive the manager: keeper and zygote. Knows what
//! is so, not what should be; never decides anything.

use std::collections::{BTreeMap, BTreeSet};

use supervise::policy::recover::Launched;
use supervise::policy::{Exit, Mono, Run, ServiceId};

use super::behaviour::{Behaviour, Clone3, WORKER_MS};

/// Where a main process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its gate.
    Gate,
    /// In the steps before the command.
    Steps,
    /// In the command.
    Executing,
    /// Ended.
    Dead(Exit),
}

/// One incarnation's tree.
#[derive(Clone, Debug)]
pub struct Process {
    pub service: ServiceId,
    pub place: Place,
    /// The gate's write end is held by a living manager.
    pub gate_held: bool,
    /// The gate was opened.
    pub opened: bool,
    /// What it has said of its launch; the pipe keeps it for the next manager.
    pub report: Launched,
    /// It has said that it is ready; its socket keeps it for the next manager.
    pub said: bool,
    /// Signs of life that nobody has read; its socket keeps them too.
    pub signs: u32,
    executing_since: Mono,
    sign_every_ms: Option<u64>,
    behaviour: Option<Behaviour>,
    workers: u8,
    stubborn: u8,
    racers: u8,
}

impl Process {
    pub fn alive(&self) -> bool {
        !matches!(self.place, Place::Dead(_))
    }

    pub fn empty(&self) -> bool {
        !self.alive() && self.workers == 0 && self.stubborn == 0 && self.racers == 0
    }

    /// Whether anything of it runs or could ever run the service's command.
    pub fn matters(&self) -> bool {
        !self.empty() && (self.opened || self.gate_held)
    }
}

/// What a probe finds.
#[derive(Clone, Copy, Debug)]
pub enum Finding {
    Well,
    Ill,
    /// There was no answer.
    Silent,
    /// It did not get through.
    Unheard,
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    CloneOver(Run),
    GateEof(Run),
    StepsOver(Run),
    ReadyOver(Run),
    LifeOver(Run),
    TermOver(Run),
    WorkersOver(Run),
    SignOver(Run),
    ProbeOver(Run, u32),
    AbortOver(Run),
}

#[derive(Clone, Copy, Debug)]
struct Request {
    run: Run,
    service: ServiceId,
    epoch: u32,
    refused: Option<i32>,
}

/// What the zygote tells one manager: the process, or the errno.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub run: Run,
    pub made: Result<u32, i32>,
}

#[derive(Clone, Debug, Default)]
pub struct Kernel {
    now: Mono,
    sequence: u64,
    agenda: BTreeMap<(Mono, u64), Happening>,
    pub processes: BTreeMap<Run, Process>,
    /// The manager that lives now; an older one's gates are shut for ever.
    pub epoch: u32,
    /// The keeper's registrations.
    pub registered: BTreeMap<Run, u32>,
    /// The keeper's exit records.
    pub exits: BTreeMap<Run, Exit>,
    /// Exits that the keeper only counted.
    pub counted: u32,
    requests: BTreeMap<Run, Request>,
    /// The zygote's reports that nobody has read.
    pub reports: Vec<Report>,
    /// What probes found, for the manager that lives now.
    pub findings: Vec<(Run, Finding)>,
    /// The zygote has ended and the manager does not know yet.
    pub zygote_ended: bool,
    /// Every incarnation that was ever asked for.
    pub asked: BTreeSet<Run>,
}

impl Kernel {
    fn at(&mut self, ms: u64, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((self.now.after(ms), self.sequence), happening);
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Mono> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether a happening that concerns `run` is still to come.
    pub fn expects(&self, run: Run) -> bool {
        self.agenda.values().any(|happening| match happening {
            Happening::CloneOver(of)
            | Happening::GateEof(of)
            | Happening::StepsOver(of)
            | Happening::ReadyOver(of)
            | Happening::LifeOver(of)
            | Happening::TermOver(of)
            | Happening::WorkersOver(of)
            | Happening::SignOver(of)
            | Happening::ProbeOver(of, _)
            | Happening::AbortOver(of) => *of == run,
        })
    }

    /// Lets everything happen up to `now`.
    pub fn advance(&mut self, now: Mono) {
        while let Some(entry) = self.agenda.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                break;
            }
            let happening = entry.remove();
            self.now = at;
            self.happen(happening);
        }
        self.now = now;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::CloneOver(run) => self.clone_over(run),
            Happening::GateEof(run) => {
                if self.place(run) == Some(Place::Gate) {
                    self.report(run, Launched::GateLost);
                    self.die(run, Exit::Code(125));
                }
            }
            Happening::StepsOver(run) => self.steps_over(run),
            Happening::ReadyOver(run) => {
                if let Some(process) =
                    self.processes.get_mut(&run).filter(|process| process.place == Place::Executing)
                {
                    process.said = true;
                }
            }
            Happening::LifeOver(run) => {
                if self.place(run) == Some(Place::Executing) {
                    let exit = self.behaviour(run).map_or(Exit::Code(0), |behaviour| behaviour.exit);
                    self.die(run, exit);
                }
            }
            Happening::TermOver(run) => {
                if self.place(run) == Some(Place::Executing) {
                    self.die(run, Exit::Signal(15));
                }
            }
            Happening::SignOver(run) => self.sign_over(run),
            Happening::ProbeOver(run, epoch) => {
                if epoch == self.epoch {
                    self.findings.push((run, self.found(run)));
                }
            }
            Happening::AbortOver(run) => {
                if self.place(run) == Some(Place::Executing) {
                    self.die(run, Exit::Signal(6));
                }
            }
            Happening::WorkersOver(run) => {
                if let Some(process) = self.processes.get_mut(&run) {
                    process.workers = 0;
                }
            }
        }
    }

    fn sign_over(&mut self, run: Run) {
        if self.is_hung(run) {
            return;
        }
        if let Some(process) =
            self.processes.get_mut(&run).filter(|process| process.place == Place::Executing)
            && let Some(ms) = process.sign_every_ms
        {
            process.signs += 1;
            self.at(ms, Happening::SignOver(run));
        }
    }

    /// Milliseconds for which the command has been executing.
    fn age(&self, run: Run) -> u64 {
        self.processes.get(&run).map_or(0, |process| self.now.since(process.executing_since))
    }

    /// Whether it gives no sign of life any more.
    pub fn is_hung(&self, run: Run) -> bool {
        let hangs = self.behaviour(run).and_then(|behaviour| behaviour.hangs_ms);
        self.place(run) != Some(Place::Executing) || hangs.is_some_and(|ms| self.age(run) >= ms)
    }

    /// What a probe finds.
    fn found(&self, run: Run) -> Finding {
        let Some(behaviour) = self.behaviour(run) else { return Finding::Silent };
        let age = self.age(run);
        if age < behaviour.heard_ms {
            Finding::Unheard
        } else if self.place(run) != Some(Place::Executing) {
            Finding::Silent
        } else if behaviour.ill_ms.is_some_and(|ms| age >= ms) {
            Finding::Ill
        } else if age < behaviour.healthy_ms {
            Finding::Silent
        } else {
            Finding::Well
        }
    }

    /// A probe, for the manager that lives now.
    pub fn probe(&mut self, run: Run) {
        self.at(5, Happening::ProbeOver(run, self.epoch));
    }

    /// ABRT to the main process.
    pub fn abort(&mut self, run: Run) {
        if self.behaviour(run).is_some_and(|behaviour| behaviour.term_ms.is_some()) {
            self.at(20, Happening::AbortOver(run));
        }
    }

    fn place(&self, run: Run) -> Option<Place> {
        self.processes.get(&run).map(|process| process.place)
    }

    fn behaviour(&self, run: Run) -> Option<Behaviour> {
        self.processes.get(&run).and_then(|process| process.behaviour)
    }

    fn report(&mut self, run: Run, report: Launched) {
        if let Some(process) = self.processes.get_mut(&run) {
            process.report = report;
        }
    }

    fn die(&mut self, run: Run, exit: Exit) {
        if let Some(process) = self.processes.get_mut(&run).filter(|process| process.alive()) {
            process.place = Place::Dead(exit);
            if self.registered.contains_key(&run) {
                self.exits.insert(run, exit);
            } else {
                self.counted += 1;
            }
        }
    }

    fn steps_over(&mut self, run: Run) {
        let Some(process) = self.processes.get_mut(&run).filter(|process| process.place == Place::Steps)
        else {
            return;
        };
        let Some(behaviour) = process.behaviour else { return };
        if let Some(end) = behaviour.fails {
            process.report = Launched::Failed(end);
            self.die(run, Exit::Code(205));
            return;
        }
        process.report = Launched::Executed;
        process.place = Place::Executing;
        process.executing_since = self.now;
        process.workers = behaviour.workers;
        process.stubborn = behaviour.stubborn;
        process.racers = behaviour.racers;
        if let Some(ms) = process.sign_every_ms {
            self.at(ms, Happening::SignOver(run));
        }
        if let Some(ms) = behaviour.ready_ms {
            self.at(ms, Happening::ReadyOver(run));
        }
        if let Some(ms) = behaviour.life_ms {
            self.at(ms, Happening::LifeOver(run));
        }
    }

    // ---- what the manager can do ---------------------------------------------------------------------

    /// A request to the zygote.
    pub fn request(&mut self, run: Run, service: ServiceId, fate: Clone3) {
        self.asked.insert(run);
        if self.zygote_ended {
            return; // into a socket that nobody reads
        }
        self.requests.insert(run, Request { run, service, epoch: self.epoch, refused: fate.refused });
        self.at(fate.ms, Happening::CloneOver(run));
    }

    /// Whether the zygote still has this request.
    pub fn requested(&self, run: Run) -> bool {
        self.requests.contains_key(&run)
    }

    fn clone_over(&mut self, run: Run) {
        let Some(request) = self.requests.remove(&run) else { return };
        let made = match request.refused {
            Some(errno) => Err(errno),
            None => Ok(self.make(request)),
        };
        // A manager that is dead reads nothing any more.
        if request.epoch == self.epoch {
            self.reports.push(Report { run, made });
        }
    }

    fn make(&mut self, request: Request) -> u32 {
        let pid = 1_000 + request.run.0 as u32 % 300; // pids come again, incarnations do not
        let gate_held = request.epoch == self.epoch;
        self.processes.insert(
            request.run,
            Process {
                service: request.service,
                place: Place::Gate,
                gate_held,
                opened: false,
                report: Launched::Pending,
                said: false,
                signs: 0,
                executing_since: self.now,
                sign_every_ms: None,
                behaviour: None,
                workers: 0,
                stubborn: 0,
                racers: 0,
            },
        );
        if !gate_held {
            self.at(1, Happening::GateEof(request.run));
        }
        pid
    }

    /// The zygote ends, with or without having made the process of its first request.
    pub fn end_zygote(&mut self, after_clone: bool) {
        let requests = std::mem::take(&mut self.requests);
        if after_clone && let Some(request) = requests.values().find(|request| request.refused.is_none()) {
            self.make(*request);
        }
        self.zygote_ended = true;
    }

    /// The manager lets a process through its gate.
    pub fn open_gate(&mut self, run: Run, behaviour: Behaviour, watchdog_ms: Option<u64>) {
        let Some(process) = self.processes.get_mut(&run) else { return };
        process.sign_every_ms = watchdog_ms.map(|ms| ms / 2);
        process.opened = true;
        process.gate_held = false;
        process.behaviour = Some(behaviour);
        if process.place == Place::Gate {
            process.place = Place::Steps;
            if let Some(ms) = behaviour.steps_ms {
                self.at(ms, Happening::StepsOver(run));
            }
        }
    }

    /// The manager closes the write end of a gate.
    pub fn shut_gate(&mut self, run: Run) {
        if let Some(process) = self.processes.get_mut(&run).filter(|process| process.gate_held) {
            process.gate_held = false;
            self.at(1, Happening::GateEof(run));
        }
    }

    /// The stop signal to the main process.
    pub fn terminate(&mut self, run: Run) {
        if self.place(run) == Some(Place::Executing)
            && let Some(ms) = self.behaviour(run).and_then(|behaviour| behaviour.term_ms)
        {
            self.at(ms, Happening::TermOver(run));
        }
    }

    /// TERM to what is left.
    pub fn clear(&mut self, run: Run) {
        if self.processes.get(&run).is_some_and(|process| process.workers > 0) {
            self.at(WORKER_MS, Happening::WorkersOver(run));
        }
    }

    /// KILL to the whole tree; what forks faster is left for the next one.
    pub fn kill(&mut self, run: Run) {
        self.die(run, Exit::Signal(9));
        if let Some(process) = self.processes.get_mut(&run) {
            process.workers = 0;
            process.stubborn = 0;
            process.racers = process.racers.saturating_sub(1);
        }
    }

    /// Somebody else, the OOM killer say, kills a main process.
    pub fn murder(&mut self, run: Run) {
        self.die(run, Exit::Signal(9));
    }

    /// The manager is dead: its gates read EOF, the zygote's reports to it are lost.
    pub fn manager_died(&mut self) {
        self.epoch += 1;
        self.reports.clear();
        self.findings.clear();
        self.zygote_ended = false;
        let held: Vec<Run> =
            self.processes.iter().filter(|(_, process)| process.gate_held).map(|(run, _)| *run).collect();
        for run in held {
            self.shut_gate(run);
        }
    }

    /// Whether nothing is left of an incarnation, which may never have been.
    pub fn is_empty(&self, run: Run) -> bool {
        self.processes.get(&run).is_none_or(Process::empty)
    }

    /// Forgets what has ended and is registered no more.
    pub fn forget(&mut self, known: &BTreeMap<Run, ServiceId>) {
        self.processes.retain(|run, process| !process.empty() || known.contains_key(run));
    }
}
