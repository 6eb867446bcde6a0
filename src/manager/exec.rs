//! ROOT. Commands that an operator runs in a service's context: from the call to a process with exactly the service's
//! rights, and from its end to the answer. Never takes a descriptor from a client: it is given ends of ours.
//!
//! Such a command belongs to its client. Where that goes, or this manager does, it gets HUP and then KILL; nothing
//! of it is in the state.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::access::Caller;
use super::answer::Asker;
use super::control::{Room, SessionId};
use super::inputs::Which;
use super::kept::is_full;
use super::launches::{self, Told};
use super::tree::Tree;
use super::{Manager, report};
use crate::launch::{Stage, words};
use crate::plan::{self, ExecPlan, FIXED_PATH};
use crate::policy::{Exit, Mono, Run, ServiceId};
use crate::sys::errno::{self, reason};
use crate::sys::{cgroup, fds, memfd, parent, process};
use crate::wire::control::{self, Failed, Failure, Refusal, Reply};
use crate::wire::exec::ExecReply;
use crate::wire::keeper::Kind;
use crate::wire::verb::Right;
use crate::wire::zygote::Spawn;

/// The most commands at a time.
const MOST_AT_ONCE: usize = 64;
/// Numbers of commands are from here on, far above those of incarnations.
pub const FIRST: u64 = 1 << 48;
/// Milliseconds between HUP and KILL for one whose client has gone.
const GRACE_MS: u64 = 5_000;
/// Milliseconds that a group has to become empty once it is killed.
const EMPTY_MS: i32 = 50;

/// Variables that are meant for a service's main process alone.
const ONLY_MAIN: [&str; 7] = [
    "LISTEN_FDS=",
    "LISTEN_FDNAMES=",
    "SERVER_STARTER_PORT=",
    "SERVER_STARTER_GENERATION=",
    "NOTIFY_SOCKET=",
    "WATCHDOG_USEC=",
    "WATCHDOG_PID=",
];

/// What is held of one from the call on.
#[derive(Debug)]
struct Command {
    session: SessionId,
    service: ServiceId,
    number: u64,
    plan: ExecPlan,
    report: OwnedFd,
    /// Its process and when that began, which are its session too.
    process: Option<(u32, u64)>,
    /// Its cgroup, where it has one.
    group: Option<(String, OwnedFd)>,
    /// Until it is asked for: the gate, and the client's ends of its standard input, output and error.
    gate: Option<(OwnedFd, [OwnedFd; 3])>,
    kill_at: Option<Mono>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Execs {
    asked: BTreeMap<u64, Command>,
    running: BTreeMap<u64, Command>,
    last: u64,
}

impl Execs {
    /// When one has to be killed.
    pub fn deadline(&self) -> Option<Mono> {
        self.running.values().filter_map(|command| command.kill_at).min()
    }
}

impl Manager {
    /// Has a command cloned. The answer comes when it is there, and the last when it has ended.
    pub(super) fn answer_exec(&mut self, asker: Asker<'_>, name: &str, argv: &[String]) {
        let Asker { session, caller } = asker;
        let chosen = match self.resolve(&[name.to_owned()], caller, Right::Logs) {
            Ok(chosen) => chosen,
            Err(refusal) => return self.refuse(session, refusal),
        };
        let [id] = chosen.as_slice() else {
            return self.not_executed(session, name, "it is more than one service", None);
        };
        if !self.may_execute(*id, caller) {
            return self.refuse(session, Refusal::NotPermitted(Right::Everything));
        }
        if self.execs.asked.len() + self.execs.running.len() >= MOST_AT_ONCE {
            return self.not_executed(session, name, "too many commands run already", None);
        }
        match self.ask_for_command(session, *id, argv) {
            Ok(()) => {}
            Err(words) => {
                let (said, hint) = words.split_once("\nhint: ").unwrap_or((&words, ""));
                let hint = (!hint.is_empty()).then(|| hint.to_owned());
                self.not_executed(session, name, said, hint);
            }
        }
    }

    /// Root and ours may, and who has all that the service has: its user, its groups, and no capability. Nobody is to
    /// gain anything by it, neither by `[access]` nor as another service of the same user.
    fn may_execute(&self, id: ServiceId, caller: &Caller) -> bool {
        let Some(known) = self.services.get(&id) else { return false };
        let (Some(unit), Some(account)) = (&known.unit, &known.inputs.account) else { return caller.is_ours };
        let has = known.inputs.identity(unit, account);
        let gains = has.ambient != 0 || !has.groups.iter().all(|group| caller.groups.contains(group));
        caller.is_ours || has.uid == caller.uid && !gains
    }

    fn not_executed(&mut self, session: SessionId, name: &str, why: &str, hint: Option<String>) {
        let first = Failure {
            service: name.to_owned(),
            step: "running a command".to_owned(),
            reason: why.to_owned(),
            hint,
            ..Failure::default()
        };
        let failed = Failed { first, others: Vec::new() };
        self.reply(session, &Reply::Refused(Refusal::Failed(Box::new(failed))), true);
    }

    fn ask_for_command(&mut self, session: SessionId, id: ServiceId, argv: &[String]) -> Result<(), String> {
        self.make_directories(id)?;
        let generation = self.world.get(id).map_or(1, |service| service.generation);
        let which = Which { run: Run(0), instance: 1, generation, before: None, rehearsal: false };
        self.execs.last += 1;
        let number = FIRST + self.execs.last;
        let mut plan = self.exec_plan(id, which, &self.new_invocation(Run(number)))?;
        plan.env.retain(|pair| !ONLY_MAIN.iter().any(|name| pair.starts_with(name)));
        plan.pid_variables.clear();
        plan.sockets.clear();
        let path = plan.env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(FIXED_PATH);
        plan.candidates = plan::candidates(argv.first().map_or("", String::as_str), path);
        plan.argv = argv.to_vec();
        plan.check().map_err(|unfit| unfit.to_string())?;
        let short = |error: io::Error| reason(&error);
        let image = plan.encode().map_err(|unfit| unfit.to_string())?;
        let image = memfd::sealed(c"supervise-exec", &image).map_err(short)?;
        let (gate_read, gate) = fds::pipe(0).map_err(short)?;
        let (report, report_write) = fds::pipe(0).map_err(short)?;
        fds::set_nonblocking(report.as_fd(), true).map_err(short)?;
        let (input, input_theirs) = fds::pipe(0).map_err(short)?;
        let (output_theirs, output) = fds::pipe(0).map_err(short)?;
        let (error_theirs, error) = fds::pipe(0).map_err(short)?;
        let group = self.exec_group(id, number);
        self.limit_group(id, group.as_ref().map(|(_, group)| group.as_fd()));
        let mut parcel: Vec<BorrowedFd<'_>> = vec![
            image.as_fd(),
            gate_read.as_fd(),
            report_write.as_fd(),
            input.as_fd(),
            output.as_fd(),
            error.as_fd(),
        ];
        parcel.extend(group.as_ref().map(|(_, group)| group.as_fd()));
        let request = self.starts.next_request(self.kept.manager);
        let spawn = Spawn { request, sockets: 0, cgroup: group.is_some() };
        self.starts.send(&spawn, &parcel).map_err(|error| {
            let busy =
                if is_full(&error) { "too much starts at the moment".to_owned() } else { reason(&error) };
            format!("{busy}\nhint: try again")
        })?;
        let gate = Some((gate, [input_theirs, output_theirs, error_theirs]));
        let (process, kill_at) = (None, None);
        let command = Command { session, service: id, number, plan, report, process, group, gate, kill_at };
        self.execs.asked.insert(request, command);
        Ok(())
    }

    fn exec_group(&self, id: ServiceId, number: u64) -> Option<(String, OwnedFd)> {
        let base = self.cgroups.as_ref()?;
        let name = format!("{}{}.{number}", self.group_prefix(), self.name_of(id));
        base.make(&name).ok().map(|group| (name, group))
    }

    /// Takes the zygote's answer; gives the descriptor back where it is to somebody else's request.
    pub(super) fn exec_spawned(&mut self, request: u64, pid: u32, pidfd: OwnedFd) -> Result<(), OwnedFd> {
        let Some(mut command) = self.execs.asked.remove(&request) else { return Err(pidfd) };
        let name = self.name_of(command.service).to_owned();
        // The keeper keeps the status of those alone that it is told of before their gate opens.
        if let Err(error) = self.kept.put(Kind::Process, command.number, pid, pidfd) {
            self.not_executed(command.session, &name, &reason(&error), None);
            self.bury(&command);
            return Ok(());
        }
        command.process = Some((pid, began(pid)));
        let Some((gate, ends)) = command.gate.take() else { return Ok(()) };
        let reply = Reply::Executed(ExecReply { pid: Some(pid.into()), ..ExecReply::default() });
        let now = self.now;
        // With its pidfd the client passes signals on by its own right, and the kernel judges it.
        let pidfd = self.kept.fd(Kind::Process, command.number).and_then(|fd| fd.try_clone_to_owned().ok());
        let passed = ends.into_iter().chain(pidfd).collect();
        let room = self
            .control
            .as_mut()
            .map_or(Room::Gone, |control| control.reply_with(command.session, &reply, passed, false, now));
        if room == Room::Gone {
            // Its client has gone; the gate closes and the child ends.
            self.kept.drop(Kind::Process, command.number);
            self.bury(&command);
            return Ok(());
        }
        log::info!(
            "service={name} pid={pid} a command of an operator: {}",
            command.plan.argv.first().map_or("", String::as_str)
        );
        self.kept.open_gate(gate);
        self.execs.running.insert(command.number, command);
        Ok(())
    }

    /// The zygote would not. False where that was somebody else's request.
    pub(super) fn exec_refused(&mut self, request: u64, errno: i32) -> bool {
        let Some(command) = self.execs.asked.remove(&request) else { return false };
        let name = self.name_of(command.service).to_owned();
        let why = format!("no process could be made: {}", errno::words(errno));
        self.not_executed(command.session, &name, &why, None);
        self.bury(&command);
        true
    }

    /// The zygote has ended, and with it what was asked of it.
    pub(super) fn execs_ungated(&mut self) {
        let asked: Vec<u64> = self.execs.asked.keys().copied().collect();
        for request in asked {
            self.exec_refused(request, libc::EPIPE);
        }
    }

    /// One has ended: the client is told how.
    pub(super) fn exec_ended(&mut self, number: u64, exit: Exit) {
        self.kept.drop(Kind::Process, number);
        let Some(command) = self.execs.running.remove(&number) else { return };
        let (exit, problem) = match launches::read(command.report.as_fd()) {
            Told::Failed(report, fact) => {
                let code = match (report.stage == Stage::Exec as u8, report.errno) {
                    (true, errno::ENOENT) => 127,
                    (true, _) => 126,
                    (false, _) => 125,
                };
                let words = words::explain(&command.plan, &report, fact.as_ref()).to_string();
                (told(Exit::Code(code)), Some(words))
            }
            Told::Executed | Told::Pending => (told(exit), None),
        };
        let reply = Reply::Executed(ExecReply { pid: None, exit, problem });
        self.reply(command.session, &reply, true);
        self.bury(&command);
    }

    /// A client has gone: its command is told so, and has a moment.
    pub(super) fn exec_left(&mut self, session: SessionId) {
        let at = self.now.after(GRACE_MS);
        for command in self.execs.running.values_mut().filter(|command| command.session == session) {
            command.kill_at = Some(at);
            if let Some(pidfd) = self.kept.fd(Kind::Process, command.number) {
                let _ = process::signal(pidfd, libc::SIGHUP);
            }
        }
    }

    /// Kills those whose time is over.
    pub(super) fn keep_execs(&mut self) {
        let (now, keeper) = (self.now, self.kept.keeper_pid);
        for command in self.execs.running.values_mut() {
            if command.kill_at.is_some_and(|at| at <= now) {
                command.kill_at = None;
                kill(command, self.kept.fd(Kind::Process, command.number), keeper);
            }
        }
    }

    /// Ends all of them: those of this manager, and those of one before it, which have no client any more.
    pub(super) fn end_execs(&mut self) {
        for number in self.kept.ids(Kind::Process).into_iter().filter(|number| *number >= FIRST) {
            if let Some(pidfd) = self.kept.fd(Kind::Process, number) {
                let pid = process::pid_of(pidfd);
                let began = pid.map_or(0, began);
                let _ = process::signal(pidfd, libc::SIGKILL);
                if let Some(pid) = pid {
                    end_session((pid, began), self.kept.keeper_pid);
                }
            }
            self.kept.drop(Kind::Process, number);
        }
        for command in std::mem::take(&mut self.execs.running).into_values() {
            self.bury(&command);
        }
        let Some(base) = &self.cgroups else { return };
        // The number alone tells them from incarnations: a service can have any name.
        let ours = |name: &&String| {
            name.rsplit('.').next().and_then(|end| end.parse().ok()).is_some_and(|end: u64| end >= FIRST)
        };
        for name in base.names(&self.group_prefix()).unwrap_or_default().iter().filter(ours) {
            if let Ok(group) = base.open(name) {
                clear(group.as_fd());
                let _ = base.remove(name);
            }
        }
    }

    /// Ends what a command has left behind, and removes its group.
    fn bury(&self, command: &Command) {
        let (Some((name, group)), Some(base)) = (&command.group, &self.cgroups) else {
            if let Some(process) = command.process {
                end_session(process, self.kept.keeper_pid);
            }
            return;
        };
        clear(group.as_fd());
        if let Err(error) = base.remove(name) {
            log::warn!("removing the cgroup {name}: {}", reason(&error));
        }
    }
}

/// Kills what is in a group, and gives it a moment to be gone.
fn clear(group: BorrowedFd<'_>) {
    for _ in 0..EMPTY_MS {
        match cgroup::is_populated(group) {
            Ok(true) => {
                let _ = cgroup::kill(group);
                let _ = parent::wait(&[], 1, &mut []);
            }
            Ok(false) | Err(_) => return,
        }
    }
}

/// When a process began, by which its session is told from a later one of the same number.
fn began(pid: u32) -> u64 {
    process::stat(pid).map_or(0, |stat| stat.start_time)
}

/// Ends what is left of the session that a command led, where no cgroup says what is its own.
fn end_session((leader, start_time): (u32, u64), keeper: u32) {
    let _ = Tree::Session { leader, start_time, keeper: Some(keeper) }.kill();
}

fn kill(command: &Command, pidfd: Option<BorrowedFd<'_>>, keeper: u32) {
    match (&command.group, command.process) {
        (Some((_, group)), _) => drop(cgroup::kill(group.as_fd())),
        (None, Some(process)) => end_session(process, keeper),
        (None, None) => {}
    }
    if let Some(pidfd) = pidfd {
        let _ = process::signal(pidfd, libc::SIGKILL);
    }
}

/// How it ended, as a client reads it; None where nobody knows.
fn told(exit: Exit) -> Option<control::Exit> {
    match exit {
        Exit::Code(code) => Some(control::Exit {
            code: Some(code),
            meaning: format!("exit status {code}"),
            ..control::Exit::default()
        }),
        Exit::Signal(number) => {
            let name = report::signal_name(number);
            let meaning = format!("ended by SIG{name}");
            Some(control::Exit { signal: Some(name), meaning, ..control::Exit::default() })
        }
        Exit::Unknown => None,
    }
}
