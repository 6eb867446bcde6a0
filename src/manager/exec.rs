//! ROOT. Commands that an operator runs in a service's context: from the call to a process with exactly the service's
//! rights, and from its end to the answer. Never takes a descriptor from a client: it is given ends of ours.
//!
//! Such a command belongs to its client: where that goes, it gets HUP and then KILL. Its input and output, pipes or a
//! terminal, are between the two of them alone, so they go on where this manager dies. Nothing of it is in the state:
//! the next manager finds it, and the client's process, by its number among what the keeper has. Where supervise stops
//! it gets TERM, or HUP on a terminal, and then KILL, and its client is told.

mod ends;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Manager;
use super::access::Caller;
use super::answer::Asker;
use super::control::{Room, SessionId};
use super::inputs::Which;
use super::kept::is_full;
use crate::plan::{self, ExecPlan, FIXED_PATH};
use crate::policy::{Exit, Mono, Run, ServiceId};
use crate::sys::errno::{self, reason};
use crate::sys::pty::{self, Manner, Window};
use crate::sys::{fds, memfd, peer};
use crate::wire::control::{Failed, Failure, Refusal, Reply};
use crate::wire::exec::{ExecReply, Terminal};
use crate::wire::keeper::Kind;
use crate::wire::verb::Right;
use crate::wire::zygote::Spawn;

/// The most commands at a time.
pub const MOST_AT_ONCE: usize = 64;
/// How many of them only root and the supervisor's own user may have.
pub const RESERVED: usize = 16;
/// The most of any other user.
pub const MOST_PER_UID: usize = 16;
/// Numbers of commands are from here on, far above those of incarnations.
pub const FIRST: u64 = 1 << 48;
/// Milliseconds between HUP and KILL for one whose client has gone, and for which a client whose connection broke is
/// waited for.
const GRACE_MS: u64 = 5_000;
/// What the group ends with in which all commands of a service are, each in one of its own: an incarnation's ends with
/// a number.
const GROUP: &str = ".exec";

/// Variables that are meant for a service's main process alone.
const ONLY_MAIN: [&str; 8] = [
    "LISTEN_FDS=",
    "LISTEN_FDNAMES=",
    "SERVER_STARTER_PORT=",
    "SERVER_STARTER_GENERATION=",
    "NOTIFY_SOCKET=",
    "FDSTORE=",
    "WATCHDOG_USEC=",
    "WATCHDOG_PID=",
];

/// A command as a client asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The name of the service.
    pub name: &'a str,
    /// The command.
    pub argv: &'a [String],
    /// Its terminal.
    pub terminal: Option<&'a Terminal>,
}

/// What is held of one from the call on.
#[derive(Debug)]
struct Command {
    /// Where its end is told; None where the client's connection broke with an earlier manager.
    session: Option<SessionId>,
    /// The name of its service; empty where an earlier manager was asked.
    name: String,
    /// Who asked; of one that an earlier manager was asked for, whom it runs as.
    uid: Option<u32>,
    number: u64,
    /// The plan and the pipe of its report, which are lost with the manager that made them.
    launch: Option<(ExecPlan, OwnedFd)>,
    /// Its process and when that began, which are its session too.
    process: Option<(u32, u64)>,
    /// Its cgroup, where it has one.
    group: Option<(String, OwnedFd)>,
    /// Until it is there: the gate, and the client's ends.
    gate: Option<(OwnedFd, Vec<OwnedFd>)>,
    kill_at: Option<Mono>,
    /// Whether it has been killed.
    killed: bool,
    /// Whether it is on a terminal.
    terminal: bool,
    /// What was done to it, for its client.
    why: Option<String>,
    /// How it ended, where there is nobody yet to be told.
    ended: Option<Exit>,
}

/// A command's input and output: the standard three, and what the client gets of them.
struct Ends {
    ours: [OwnedFd; 3],
    theirs: Vec<OwnedFd>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Execs {
    asked: BTreeMap<u64, Command>,
    running: BTreeMap<u64, Command>,
    last: u64,
    /// The most of them at a time, where there are descriptors for no more.
    most: usize,
}

impl Execs {
    /// None yet, and so many at a time.
    pub fn new(most: usize) -> Self {
        Self { most: most.min(MOST_AT_ONCE), ..Self::default() }
    }

    /// Whether there is a place for one more of this caller, or why not and what to do.
    fn has_room(&self, caller: &Caller) -> Result<(), (&'static str, &'static str)> {
        let all = || self.asked.values().chain(self.running.values());
        let own = all().filter(|command| command.uid == Some(caller.uid)).count();
        let part = |share: usize| (self.most * share / MOST_AT_ONCE).max(1);
        match all().count() {
            count if count >= self.most => {
                Err(("too many commands run already", "wait until one of them has ended"))
            }
            _ if caller.is_ours => Ok(()),
            _ if own >= part(MOST_PER_UID) => {
                Err(("this user runs too many commands already", "wait until one of them has ended"))
            }
            count if count >= self.most - part(RESERVED) => {
                Err(("too many commands run already", "what is left is for root; wait until one has ended"))
            }
            _ => Ok(()),
        }
    }

    /// The process of one, and when it began.
    pub fn process(&self, number: u64) -> Option<(u32, u64)> {
        self.running.get(&number)?.process
    }

    /// Whether the end of supervise waits for one: it has a moment to end, or its client is still to be told.
    pub fn hold(&self) -> bool {
        let waits = |command: &Command| command.ended.is_none() && command.kill_at.is_some();
        !self.asked.is_empty() || self.running.values().any(waits)
    }

    /// When one has to be killed.
    pub fn deadline(&self) -> Option<Mono> {
        self.running.values().filter_map(|command| command.kill_at).min()
    }
}

impl Manager {
    /// Has a command cloned. The answer comes when it is there, and the last when it has ended.
    pub(super) fn answer_exec(&mut self, asker: Asker<'_>, wanted: Wanted<'_>) {
        let Asker { session, caller } = asker;
        let name = wanted.name;
        let chosen = match self.resolve(&[name.to_owned()], caller, Right::Logs) {
            Ok(chosen) => chosen,
            Err(refusal) => return self.refuse(session, refusal),
        };
        let [id] = chosen.as_slice() else {
            let hint = Some("name the one that is meant".to_owned());
            return self.not_executed(session, name, "it is more than one service", hint);
        };
        // Its own name, where a glob was given.
        let name = self.name_of(*id).to_owned();
        let (wanted, name) = (Wanted { name: &name, ..wanted }, name.as_str());
        let (number, plan) = match self.context_of(*id) {
            Ok(planned) => planned,
            Err(words) => return self.not_executed_as(session, name, &words),
        };
        if !may_execute(&plan, caller) {
            return self.refuse(session, Refusal::NotPermitted(Right::Everything, Some(name.to_owned())));
        }
        if self.world.is_closing() {
            let hint = Some("ask again when it runs again".to_owned());
            return self.not_executed(session, name, "supervise is stopping", hint);
        }
        if let Err((why, hint)) = self.execs.has_room(caller) {
            return self.not_executed(session, name, why, Some(hint.to_owned()));
        }
        if let Err(words) = self.ask_for_command(asker, *id, (number, plan), wanted) {
            self.not_executed_as(session, name, &words);
        }
    }

    /// The number of a command, and the plan of the generation that is in force, with the unit's own command still in it.
    fn context_of(&mut self, id: ServiceId) -> Result<(u64, ExecPlan), String> {
        let generation = self.world.get(id).map_or(1, |service| service.generation);
        let which = Which { run: Run(0), instance: 1, generation, before: None, rehearsal: false };
        self.execs.last += 1;
        let number = FIRST + self.execs.last;
        self.exec_plan(id, which, &self.new_invocation(Run(number))).map(|plan| (number, plan))
    }

    /// The same as [`Manager::not_executed`] with words that may end with a hint.
    fn not_executed_as(&mut self, session: SessionId, name: &str, words: &str) {
        let (said, hint) = words.split_once("\nhint: ").unwrap_or((words, ""));
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.not_executed(session, name, said, hint);
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

    /// For want of something of the machine's.
    fn not_executed_of(&mut self, command: &Command, why: &str) {
        if let Some(session) = command.session {
            let hint = "it is the machine or a limit of supervise's own that is at its end; try again, and look at \
                        `supervise logs` and `dmesg` where that goes on";
            self.not_executed(session, &command.name, why, Some(hint.to_owned()));
        }
    }

    fn ask_for_command(
        &mut self,
        asker: Asker<'_>,
        id: ServiceId,
        (number, mut plan): (u64, ExecPlan),
        wanted: Wanted<'_>,
    ) -> Result<(), String> {
        let Wanted { argv, terminal, .. } = wanted;
        self.make_directories(id)?;
        plan.env.retain(|pair| !ONLY_MAIN.iter().any(|name| pair.starts_with(name)));
        plan.pid_variables.clear();
        plan.sockets.clear();
        let path = plan.env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(FIXED_PATH);
        plan.candidates = plan::candidates(argv.first().map_or("", String::as_str), path);
        plan.argv = argv.to_vec();
        if let Some(terminal) = terminal {
            plan.terminal = true;
            plan.env.retain(|pair| !pair.starts_with("TERM="));
            plan.env.push(format!("TERM={}", terminal.term));
        }
        plan.check().map_err(|unfit| unfit.to_string())?;
        let short = |error: io::Error| reason(&error);
        let image = plan.encode().map_err(|unfit| unfit.to_string())?;
        let image = memfd::sealed(c"supervise-exec", &image).map_err(short)?;
        let (gate_read, gate) = fds::pipe(0).map_err(short)?;
        let (report, report_write) = fds::pipe(0).map_err(short)?;
        fds::set_nonblocking(report.as_fd(), true).map_err(short)?;
        let Ends { ours, theirs } = match terminal {
            Some(terminal) => on_terminal(terminal, plan.identity.as_ref().map(|identity| identity.uid))?,
            None => on_pipes().map_err(short)?,
        };
        let group = self.exec_group(id, number);
        let mut parcel: Vec<BorrowedFd<'_>> = vec![image.as_fd(), gate_read.as_fd(), report_write.as_fd()];
        parcel.extend(ours.iter().map(AsFd::as_fd));
        parcel.extend(group.as_ref().map(|(_, group)| group.as_fd()));
        let request = self.starts.next_request(self.kept.manager);
        let spawn = Spawn { request, sockets: 0, cgroup: group.is_some() };
        if let Err(error) = self.starts.send(&spawn, &parcel) {
            if let Some((name, _)) = &group {
                self.remove_exec_group(name);
            }
            let busy =
                if is_full(&error) { "too much starts at the moment".to_owned() } else { reason(&error) };
            return Err(format!("{busy}\nhint: try again"));
        }
        let command = Command {
            session: Some(asker.session),
            name: wanted.name.to_owned(),
            uid: Some(asker.caller.uid),
            number,
            launch: Some((plan, report)),
            process: None,
            group,
            gate: Some((gate, theirs)),
            kill_at: None,
            killed: false,
            terminal: terminal.is_some(),
            why: None,
            ended: None,
        };
        self.execs.asked.insert(request, command);
        Ok(())
    }

    /// A group for a command, below the one that holds all of them to the service's limits together.
    fn exec_group(&mut self, id: ServiceId, number: u64) -> Option<(String, OwnedFd)> {
        let all = format!("{}{}{GROUP}", self.group_prefix(), self.name_of(id));
        let base = self.cgroups.as_ref()?;
        let above = base.make(&all).or_else(|_| base.open(&all)).ok();
        self.limit_group(id, above.as_ref().map(AsFd::as_fd));
        let name = format!("{all}/{number}");
        self.cgroups.as_ref()?.make(&name).ok().map(|group| (name, group))
    }

    /// Takes the zygote's answer; gives the descriptor back where it is to somebody else's request.
    pub(super) fn exec_spawned(
        &mut self,
        request: u64,
        pid: u32,
        cgroup_errno: u16,
        pidfd: OwnedFd,
    ) -> Result<(), OwnedFd> {
        let Some(mut command) = self.execs.asked.remove(&request) else { return Err(pidfd) };
        if cgroup_errno != 0
            && let Some((group, _)) = command.group.take()
        {
            // From here on its session says what is its own.
            self.remove_exec_group(&group);
            let error = io::Error::from_raw_os_error(cgroup_errno.into());
            log::warn!("service={} a command enters its cgroup: {}", command.name, reason(&error));
        }
        // The keeper keeps the status of those alone that it is told of before their gate opens.
        if let Err(error) = self.kept.put(Kind::Process, command.number, pid, pidfd) {
            self.not_executed_of(&command, &reason(&error));
            self.bury(&command);
            return Ok(());
        }
        command.process = Some((pid, ends::began(pid)));
        // Where the kernel does not say who that is, or there is no room, a next manager waits for a moment alone.
        let client = self.control.as_ref().zip(command.session);
        if let Some(client) = client.and_then(|(control, session)| control.process_of(session)) {
            let _ = self.kept.put(Kind::Client, command.number, 0, client);
        }
        let Some((gate, ends)) = command.gate.take() else { return Ok(()) };
        let reply = Reply::Executed(ExecReply { pid: Some(pid.into()), ..ExecReply::default() });
        let now = self.now;
        // With its pidfd the client passes signals on by its own right, and the kernel judges it.
        let pidfd = self.kept.fd(Kind::Process, command.number).and_then(|fd| fd.try_clone_to_owned().ok());
        let passed = ends.into_iter().chain(pidfd).collect();
        let room =
            self.control.as_mut().zip(command.session).map_or(Room::Gone, |(control, session)| {
                control.reply_with(session, &reply, passed, false, now)
            });
        if room == Room::Gone {
            // Its client has gone; the gate closes and the child ends.
            self.kept.drop(Kind::Process, command.number);
            self.kept.drop(Kind::Client, command.number);
            self.bury(&command);
            return Ok(());
        }
        log::info!(
            "service={} pid={pid} a command of an operator: {}",
            command.name,
            command.launch.as_ref().and_then(|(plan, _)| plan.argv.first()).map_or("", String::as_str)
        );
        self.kept.open_gate(gate);
        let is_closing = self.world.is_closing();
        self.execs.running.insert(command.number, command);
        if is_closing {
            self.close_execs();
        }
        Ok(())
    }

    /// The zygote would not. False where that was somebody else's request.
    pub(super) fn exec_refused(&mut self, request: u64, errno: i32) -> bool {
        let Some(command) = self.execs.asked.remove(&request) else { return false };
        let why = format!("no process could be made: {}", errno::words(errno));
        self.not_executed_of(&command, &why);
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
}

/// Root and ours may, and who has all that the command would have: its user, its groups, and no capability. Nobody is to
/// gain anything by it, neither by `[access]` nor as another service of the same user. Judged is the very plan that runs:
/// after a restart that failed what was read last is not what the service has.
fn may_execute(plan: &ExecPlan, caller: &Caller) -> bool {
    let Some(has) = &plan.identity else { return caller.is_ours };
    let gains = has.ambient != 0 || !has.groups.iter().all(|group| caller.groups.contains(group));
    caller.is_ours || has.uid == caller.uid && !gains
}

/// Pipes for a command and its client.
fn on_pipes() -> io::Result<Ends> {
    let (input, input_theirs) = fds::pipe(0)?;
    let (output_theirs, output) = fds::pipe(0)?;
    let (error_theirs, error) = fds::pipe(0)?;
    Ok(Ends { ours: [input, output, error], theirs: vec![input_theirs, output_theirs, error_theirs] })
}

/// A terminal of its own for a command, which belongs to whom the command runs as; the client gets the master and
/// nobody else has it. Without a user to become that is this process's own.
fn on_terminal(terminal: &Terminal, uid: Option<u32>) -> Result<Ends, String> {
    let said = |error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => "mount devpts at /dev/pts, or use `exec -T`",
            Some(libc::ENOSPC) => "the sysctl kernel.pty.max says how many there may be; or use `exec -T`",
            _ => "`exec -T` runs it with pipes and no terminal",
        };
        format!("making a terminal: {}\nhint: {hint}", reason(&error))
    };
    let (master, slave) = pty::open().map_err(said)?;
    pty::give(slave.as_fd(), uid.unwrap_or_else(peer::own_uid)).map_err(said)?;
    let window = Window { rows: terminal.rows, columns: terminal.columns, pixels: (0, 0) };
    pty::set_window(master.as_fd(), window).map_err(said)?;
    Manner::of(slave.as_fd()).and_then(|manner| manner.of_utf8().set(slave.as_fd())).map_err(said)?;
    let copy = || slave.try_clone().map_err(said);
    Ok(Ends { ours: [copy()?, copy()?, copy()?], theirs: vec![master] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(execs: &mut Execs, uid: u32, count: usize) {
        for _ in 0..count {
            execs.last += 1;
            let command = Command {
                session: None,
                name: String::new(),
                uid: Some(uid),
                number: execs.last,
                launch: None,
                process: None,
                group: None,
                gate: None,
                kill_at: None,
                killed: false,
                terminal: false,
                why: None,
                ended: None,
            };
            match count % 2 {
                0 => execs.asked.insert(execs.last, command),
                _ => execs.running.insert(execs.last, command),
            };
        }
    }

    #[test]
    fn no_user_takes_all_places_and_no_users_take_those_of_root() {
        let caller = |uid| Caller { uid, groups: vec![], is_ours: uid == 0 };
        let mut execs = Execs::new(MOST_AT_ONCE);
        of(&mut execs, 1, MOST_PER_UID - 1);
        assert!(execs.has_room(&caller(1)).is_ok());
        of(&mut execs, 1, 1);
        assert!(execs.has_room(&caller(1)).unwrap_err().0.contains("this user"));
        assert!(execs.has_room(&caller(2)).is_ok() && execs.has_room(&caller(0)).is_ok());
        of(&mut execs, 2, MOST_AT_ONCE - RESERVED - MOST_PER_UID - 1);
        assert!(execs.has_room(&caller(3)).is_ok());
        of(&mut execs, 2, 1);
        assert!(execs.has_room(&caller(3)).unwrap_err().1.contains("for root"));
        of(&mut execs, 0, RESERVED - 1);
        assert!(execs.has_room(&caller(0)).is_ok() && execs.has_room(&caller(3)).is_err());
        of(&mut execs, 0, 1);
        assert!(execs.has_room(&caller(0)).is_err());
    }
}
