//! ROOT. How incarnations ended, decoded: what an exit means for the server that it is of, whether a core was dumped,
//! whether memory had run out, whether it was supervise that sent KILL. Never decides what follows.
//!
//! That one ended, and how, is in the state. What is noted here besides is lost with the manager, and then not said.

use std::collections::BTreeMap;

use super::Manager;
use super::inputs::Which;
use super::last_words::has_words;
use super::report::{signal_name, wall};
use super::strain;
use crate::policy::service::{Ended, Phase, Service};
use crate::policy::{End, Exit, Run, ServiceId};
use crate::servers;
use crate::sys::cgroup::{self, Strain};
use crate::sys::clock;
use crate::unit::{Kind, Policy, Unit, duration_text};
use crate::wire::control;
use crate::wire::keeper;

/// How many ends are noted; the oldest give way.
const MOST_NOTES: usize = 4096;

/// What is known of an end besides its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// A core was dumped.
    pub core: bool,
    /// Whether supervise had sent it KILL; None where nobody knows any more.
    pub killed: Option<bool>,
    /// What its limits had done to it.
    pub strain: Strain,
    /// It ended with 0 and left other processes behind.
    pub left_others: bool,
    /// Milliseconds from its making to its end.
    pub lived_ms: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Notes {
    table: BTreeMap<Run, Note>,
    /// What was said of those that could not begin, as long as their service knows of them.
    told: BTreeMap<ServiceId, BTreeMap<Run, String>>,
}

impl Notes {
    /// What was said when it could not begin. Whatever it was that was in the way may be another thing by now.
    pub fn told(&self, id: ServiceId, run: Run) -> Option<&String> {
        self.told.get(&id)?.get(&run)
    }
}

impl Manager {
    /// A main process has ended: what is known of that now and not later.
    pub(super) fn note_end(&mut self, run: Run, exit: Exit, core: bool) {
        let Some(process) = self.processes.get(run) else { return };
        let lived_ms = clock::realtime_ns().saturating_sub(process.since_ns) / 1_000_000;
        let group = self.kept.fd(keeper::Kind::Cgroup, run.0);
        let strain = group.map(cgroup::strain).unwrap_or_default();
        let main = process.main().pid;
        let left_others = exit == Exit::Code(0)
            && self.tree(run).is_some_and(|tree| tree.pids().iter().any(|pid| *pid != main));
        let phase = self.world.incarnation(process.service, run).map(|one| one.phase);
        let killed = Some(matches!(phase, Some(Phase::Stopping { killed: true, .. })));
        self.end_notes.table.insert(run, Note { core, killed, strain, left_others, lived_ms });
        if self.end_notes.table.len() > MOST_NOTES {
            self.end_notes.table.pop_first();
        }
    }

    /// Says once why the newest ones of a service could not begin: paths lead elsewhere after the next release.
    pub(super) fn note_told(&mut self, id: ServiceId) {
        let fresh = |ended: &&Ended| !has_words(ended.end) && self.end_notes.told(id, ended.run).is_none();
        let Some(service) = self.world.get(id) else { return };
        let fresh = service.ends.iter().filter(fresh);
        let fresh: Vec<(Run, String)> =
            fresh.map(|ended| (ended.run, self.plain_words(id, Which::of(ended), ended.end))).collect();
        if !fresh.is_empty() {
            let told = self.end_notes.told.entry(id).or_default();
            told.retain(|run, _| service.ends.iter().any(|ended| ended.run == *run));
            told.extend(fresh);
        }
    }

    /// Whether the kernel had ended a process of one that has ended for want of memory.
    pub(super) fn ran_out_of_memory(&self, run: Run) -> bool {
        self.end_notes.table.get(&run).is_some_and(|note| note.strain.killed > 0)
    }

    /// How an incarnation's main process ended, in the control protocol's form; None where it did not run.
    pub(super) fn exit_of(&self, id: ServiceId, which: Which, end: End) -> Option<control::Exit> {
        let End::Exited(exit) = end else { return None };
        let note = self.end_notes.table.get(&which.run).copied().unwrap_or_default();
        let ends = self.world.get(id).map(|service| &service.ends);
        let ended = ends.and_then(|ends| ends.iter().rev().find(|ended| ended.run == which.run));
        let dismissed = ended.is_some_and(|ended| ended.dismissed);
        let service = self.unit_of(id).map(|unit| &unit.service);
        // A command before the start is another program.
        let server =
            service.filter(|_| which.before.is_none()).and_then(|service| service.recognised().server);
        let ended_as = match exit {
            Exit::Code(code) => Some(servers::Ended::Code(code)),
            Exit::Signal(signal) => Some(servers::Ended::Signal(signal)),
            Exit::Unknown => None,
        };
        let of_server = server.zip(ended_as).and_then(|(server, ended)| server.meaning(ended));
        let late = dismissed
            && note.killed == Some(true)
            && which.rehearsal
            && note.strain.killed == 0
            && exit == Exit::Signal(libc::SIGKILL);
        let of_server = if late { Some(LATE_REHEARSAL) } else { of_server };
        let is_task = service.is_some_and(|service| service.kind == Kind::Task);
        let is_gone = note.left_others && which.before.is_none() && !is_task && !dismissed;
        let background = is_gone.then(|| in_background(server));
        // What is known of an end says more: uvicorn leaves its workers behind when they fail.
        let of_server = of_server.or(background.as_deref());
        Some(control::Exit {
            code: if let Exit::Code(code) = exit { Some(code) } else { None },
            signal: if let Exit::Signal(signal) = exit { Some(signal_name(signal)) } else { None },
            meaning: meaning(exit, note, dismissed, is_task, of_server),
        })
    }

    /// That it gave no sign of life, and within what.
    pub(super) fn silence_words(&self, id: ServiceId) -> String {
        let within = self.unit_of(id).and_then(|unit| unit.service.watchdog_ms);
        let within = within.map_or_else(String::new, |ms| format!(" within {}", duration_text(ms)));
        format!("no sign of life{within}")
    }

    /// That one hangs and stays, for the time being.
    pub(super) fn hang_problem(&self, id: ServiceId, service: &Service) -> Option<String> {
        let hangs = service.incarnations().any(|(_, _, one)| one.hung && !one.is_ending());
        let comes = "another is started beside it, and takes its place when it has proven itself";
        hangs.then(|| format!("{}: {comes}", self.silence_words(id)))
    }

    /// Why the last one did not come that was to take the place of one that does not work any more.
    pub(super) fn failed_replacement(
        &self,
        id: ServiceId,
        service: &Service,
        healthy: Option<bool>,
    ) -> Option<String> {
        let hangs = service.incarnations().any(|(_, _, one)| one.hung && !one.is_ending());
        let tried = service.ends.iter().rev().filter(|_| hangs || healthy == Some(false));
        let of_this =
            |ended: &&Ended| ended.beside && !ended.rehearsal && ended.generation == service.generation;
        let ended =
            tried.take_while(|ended| ended.beside).find(|ended| of_this(ended) && !ended.dismissed)?;
        Some(format!("the last try to replace it failed: {}", self.words_of(id, ended)))
    }

    /// The last ends of a service, the newest at the end.
    pub(super) fn ends_of(&self, id: ServiceId) -> Vec<control::Ended> {
        let Some(service) = self.world.get(id) else { return Vec::new() };
        let told = |ended: &Ended| {
            let exit = self.exit_of(id, Which::of(ended), ended.end);
            let step = match (ended.end, ended.before) {
                _ if ended.passed => "its rehearsal passed",
                _ if ended.rehearsal && ended.dismissed => "its rehearsal was no longer wanted",
                _ if ended.rehearsal => "its rehearsal failed",
                _ if ended.beside && ended.dismissed => "it was no longer to take the place of what runs",
                _ if ended.beside => "taking the place of what runs",
                (End::Exited(_), Some(_)) => "preparing it",
                (End::Exited(_), None) => "running",
                (End::NotReady, _) => "becoming ready",
                (End::Unhealthy, _) => "being healthy",
                (End::Watchdog, _) => "giving a sign of life",
                (End::Unbound, _) => "binding its sockets",
                (End::Unanswered, _) => "looking up what it starts with",
                (End::Launch { .. } | End::NoProcess(_) | End::Unprepared | End::TimedOut, _) => {
                    "starting it"
                }
            };
            let note = self.end_notes.table.get(&ended.run).filter(|_| exit.is_some());
            control::Ended {
                at: wall(ended.at),
                instance: ended.instance.into(),
                generation: ended.generation.into(),
                step: step.to_owned(),
                reason: match &exit {
                    Some(exit) if ended.before.is_none() => exit.meaning.clone(),
                    Some(_) | None => self.words_of(id, ended),
                },
                exit,
                lived_ms: note.map(|note| note.lived_ms),
                beside: (ended.beside || ended.rehearsal) && !ended.passed && !ended.dismissed,
            }
        };
        service.ends.iter().map(told).collect()
    }
}

/// What is said of one that ended with 0 and left others: the main process is what is supervised.
fn in_background(server: Option<servers::Server>) -> String {
    let remedy = server.and_then(servers::Server::foreground);
    format!(
        "it went into the background: other processes of it went on and were ended; {}",
        remedy.unwrap_or("have it stay in the foreground")
    )
}

/// What of its unit keeps one down that has failed; a task and what is essential end once and for all by their nature.
pub(super) fn stays_down(unit: &Unit) -> Option<String> {
    let (restart, service) = (&unit.restart, &unit.service);
    if service.kind == Kind::Task || service.essential {
        return None;
    }
    match (restart.policy, restart.give_up_after) {
        (Policy::Never, _) => Some("it stays down: `[restart]` says `policy = \"never\"`".to_owned()),
        (Policy::Always | Policy::OnFailure, most) => {
            let most = most?;
            let times = if most == 1 { "once".to_owned() } else { format!("{most} times in a row") };
            Some(format!(
                "it stays down: it has failed {times}, and `[restart]` says `give-up-after = {most}`"
            ))
        }
    }
}

/// What an exit means, in a line.
fn meaning(exit: Exit, note: Note, dismissed: bool, is_task: bool, of_server: Option<&str>) -> String {
    let starved = strain::out_of_memory(&note.strain);
    let plain = match exit {
        Exit::Code(0) if is_task || dismissed => return "success".to_owned(),
        Exit::Code(0) => match of_server {
            Some(words) => format!("exit status 0: {words}"),
            None => "success: it ended by itself".to_owned(),
        },
        Exit::Code(code) => of_code(code, of_server),
        Exit::Signal(signal) => {
            let core = if note.core { " (core dumped)" } else { "" };
            let plain = format!("ended by SIG{}{core}", signal_name(signal));
            if let (libc::SIGKILL, Some(why)) = (signal, &starved) {
                return format!("{plain}: by the kernel, for want of memory: {why}");
            }
            match of_server.or_else(|| of_signal(signal, dismissed, note.killed)) {
                Some(words) => format!("{plain}: {words}"),
                None => plain,
            }
        }
        Exit::Unknown => "unknown: it outlived its parent, and nobody else was told".to_owned(),
    };
    match starved {
        Some(why) if !dismissed => {
            format!("{plain}; before that the kernel had ended a process of it for want of memory: {why}")
        }
        _ => plain,
    }
}

fn of_code(code: i32, of_server: Option<&str>) -> String {
    let plain = format!("exit status {code}");
    match (of_server, code) {
        (Some(words), _) => format!("{plain}: {words}"),
        (None, 78) => format!("{plain}: what programs say whose configuration is wrong"),
        (None, 126) => format!("{plain}: what a shell says of a file that it cannot execute"),
        (None, 127) => format!("{plain}: what a shell says of a command that is not there"),
        (None, 129..=192) => {
            let signal = signal_name(code - 128);
            format!("{plain}: what a shell says of a process that SIG{signal} has ended")
        }
        (None, _) => plain,
    }
}

/// KILL came of our own limit.
const LATE_REHEARSAL: &str =
    "it had not ended within `stop-timeout`, of which a rehearsal has 5s at the most";

/// What a signal says of a program that nothing particular is known of.
fn of_signal(signal: i32, dismissed: bool, killed: Option<bool>) -> Option<&'static str> {
    match signal {
        libc::SIGKILL if killed == Some(true) && dismissed => Some("it had not ended within `stop-timeout`"),
        libc::SIGKILL if killed == Some(true) => {
            Some("sent by supervise, as it had not ended when it was asked to")
        }
        libc::SIGKILL if killed.is_none() && dismissed => None,
        libc::SIGKILL => {
            Some("not sent by supervise: by an operator, or by the kernel for want of memory (`dmesg` says)")
        }
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE => Some("it crashed"),
        libc::SIGABRT => Some("it gave up (abort)"),
        libc::SIGSYS => Some("it made a system call that a filter forbids"),
        libc::SIGPIPE => Some("it wrote to somebody who had gone"),
        libc::SIGXCPU | libc::SIGXFSZ => Some("it reached a limit of processor time or of file size"),
        libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT | libc::SIGUSR1 | libc::SIGUSR2
            if !dismissed =>
        {
            Some("not sent by supervise on its own")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_by_who_sent_it() {
        let said = |killed: Option<bool>, dismissed: bool| {
            meaning(Exit::Signal(9), Note { killed, ..Note::default() }, dismissed, false, None)
        };
        let late = "ended by SIGKILL: it had not ended within `stop-timeout`";
        assert_eq!(said(Some(true), true), late);
        let hung = "ended by SIGKILL: sent by supervise, as it had not ended when it was asked to";
        assert_eq!(said(Some(true), false), hung);
        let others = "ended by SIGKILL: not sent by supervise: by an operator, or by the kernel for want of memory (`dmesg` \
                      says)";
        assert_eq!((said(Some(false), true), said(Some(false), false)), (others.into(), others.into()));
        assert_eq!(said(None, true), "ended by SIGKILL", "nobody knows any more");
    }

    #[test]
    fn what_stays_down_is_told_which_key_says_so() {
        let said = |more: &str| {
            let text = format!("[service]\ncommand = \"/bin/true\"\n{more}");
            stays_down(&Unit::parse("web", "web.toml", &text).unwrap())
        };
        assert_eq!(said(""), None);
        assert_eq!(said("kind = \"task\"\n"), None);
        let never = "it stays down: `[restart]` says `policy = \"never\"`";
        assert_eq!(said("[restart]\npolicy = \"never\"\n").as_deref(), Some(never));
        let thrice =
            "it stays down: it has failed 3 times in a row, and `[restart]` says `give-up-after = 3`";
        assert_eq!(said("[restart]\ngive-up-after = 3\n").as_deref(), Some(thrice));
        let once = "it stays down: it has failed once, and `[restart]` says `give-up-after = 1`";
        assert_eq!(said("[restart]\ngive-up-after = 1\n").as_deref(), Some(once));
    }

    #[test]
    fn an_exit_is_said_with_what_it_means() {
        let note = Note::default();
        let core = Note { core: true, ..note };
        let limit = Some(30 << 20);
        let strain = Strain {
            killed: 1,
            by_its_limit: true,
            most_memory: limit,
            memory_limit: limit,
            ..Strain::default()
        };
        let memory = Note { strain, ..note };
        for (exit, note, dismissed, expected) in [
            (Exit::Code(0), note, true, "success"),
            (Exit::Code(0), note, false, "success: it ended by itself"),
            (Exit::Code(1), note, false, "exit status 1"),
            (
                Exit::Code(127),
                note,
                false,
                "exit status 127: what a shell says of a command that is not there",
            ),
            (
                Exit::Code(137),
                note,
                false,
                "exit status 137: what a shell says of a process that SIGKILL has ended",
            ),
            (Exit::Signal(11), core, false, "ended by SIGSEGV (core dumped): it crashed"),
            (
                Exit::Signal(9),
                memory,
                false,
                "ended by SIGKILL: by the kernel, for want of memory: it had come to 30M, and `memory-max` is 30M",
            ),
            (
                Exit::Code(3),
                memory,
                false,
                "exit status 3; before that the kernel had ended a process of it for want of memory: it had come to \
                 30M, and `memory-max` is 30M",
            ),
            (Exit::Signal(15), memory, true, "ended by SIGTERM"),
            (
                Exit::Signal(9),
                note,
                false,
                "ended by SIGKILL: not sent by supervise: by an operator, or by the kernel for want of memory \
                 (`dmesg` says)",
            ),
            (Exit::Signal(15), note, true, "ended by SIGTERM"),
            (Exit::Signal(15), note, false, "ended by SIGTERM: not sent by supervise on its own"),
        ] {
            assert_eq!(meaning(exit, note, dismissed, false, None), expected);
        }
        let of_server = meaning(Exit::Code(3), note, false, false, Some("a worker could not boot"));
        assert_eq!(of_server, "exit status 3: a worker could not boot");
        // A server that says nothing by its status of what went wrong: not when it was asked to end.
        let of_server = |dismissed| meaning(Exit::Code(0), note, dismissed, false, Some("or it was broken"));
        assert_eq!(
            (of_server(false), of_server(true)),
            ("exit status 0: or it was broken".into(), "success".into())
        );
    }
}
