//! ROOT. How commands of operators end: by themselves, with their client, with the supervisor; and what becomes of
//! those that an earlier manager was asked for. Never ends one whose client may still come back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::answer::Asker;
use super::super::launches::{self, Told};
use super::super::tree::Tree;
use super::super::{Manager, report, strain};
use super::{Command, FIRST, GRACE_MS, GROUP};
use crate::launch::{Stage, words};
use crate::policy::{Exit, Mono, Run};
use crate::sys::errno::{self, reason};
use crate::sys::{cgroup, parent, process};
use crate::wire::control::{self, Reply};
use crate::wire::exec::ExecReply;
use crate::wire::keeper::Kind;

/// Milliseconds that a killed command has until it is no longer waited for.
const GONE_MS: u64 = 1_000;
/// Milliseconds that a group has to become empty once it is killed.
const EMPTY_MS: i32 = 50;

impl Manager {
    /// One has ended: the client is told how, or remembered to be told.
    pub(in crate::manager) fn exec_ended(&mut self, number: u64, pid: Option<u32>, exit: Exit) {
        self.unwatch(Run(number));
        self.kept.drop(Kind::Process, number);
        let Some(mut command) = self.execs.running.remove(&number) else { return };
        let told_by_child =
            command.launch.as_ref().map(|(_, report)| launches::read(report.as_fd(), &mut Vec::new()));
        let (exit, problem) = match (told_by_child, &command.launch) {
            (Some(Told::Failed(report, fact)), Some((plan, _))) => {
                let code = match (report.stage == Stage::Exec as u8, report.errno) {
                    (true, errno::ENOENT) => 127,
                    (true, _) => 126,
                    (false, _) => 125,
                };
                (Exit::Code(code), Some(words::explain(plan, &report, fact.as_ref()).to_string()))
            }
            _ => (exit, self.starved(&command, exit)),
        };
        let problem = problem.or_else(|| command.why.take());
        match command.session {
            Some(session) => {
                self.kept.drop(Kind::Client, number);
                let reply = Reply::Executed(ExecReply { pid: None, exit: told(exit), problem });
                self.reply(session, &reply, true);
                self.bury(&command);
            }
            None => {
                self.bury(&command);
                // Its client has as long to come back as that of one which runs.
                (command.ended, command.group, command.why) = (Some(exit), None, problem);
                command.kill_at = Some(self.now.after(GRACE_MS));
                command.process = command.process.or(pid.map(|pid| (pid, 0)));
                self.execs.running.insert(number, command);
            }
        }
    }

    /// That a command was killed for want of memory: the limit is that of all commands of the service together.
    fn starved(&self, command: &Command, exit: Exit) -> Option<String> {
        let (above, _) = command.group.as_ref()?.0.rsplit_once('/')?;
        let group =
            self.cgroups.as_ref()?.open(above).ok().filter(|_| exit == Exit::Signal(libc::SIGKILL))?;
        let why = strain::out_of_memory(&cgroup::strain(group.as_fd()))?;
        Some(format!("{}: the kernel ended the command for want of memory: {why}", command.name))
    }

    /// A client whose connection broke is back.
    pub(in crate::manager) fn resume_exec(&mut self, asker: Asker<'_>, name: &str, pid: u32) {
        let Asker { session, caller } = asker;
        let lost = self.execs.running.iter().find(|(_, command)| {
            let theirs = caller.is_ours || command.uid == Some(caller.uid);
            command.session.is_none() && theirs && command.process.is_some_and(|(one, _)| one == pid)
        });
        let Some((number, ended)) = lost.map(|(number, command)| (*number, command.ended)) else {
            let hint = "look at what it was to do before it is run again".to_owned();
            let why = "how the command ended is not known any more";
            return self.not_executed(session, name, why, Some(hint));
        };
        if let Some(exit) = ended {
            let problem = self.execs.running.remove(&number).and_then(|command| command.why);
            self.kept.drop(Kind::Client, number);
            let reply = ExecReply { pid: None, exit: told(exit), problem };
            self.reply(session, &Reply::Executed(reply), true);
        } else if let Some(command) = self.execs.running.get_mut(&number) {
            command.session = Some(session);
            if command.why.is_none() {
                command.kill_at = None;
            }
            let reply = ExecReply { pid: Some(pid.into()), ..ExecReply::default() };
            self.reply(session, &Reply::Executed(reply), false);
        }
    }

    /// A client has gone: its command is told so, and has a moment.
    pub(in crate::manager) fn exec_left(&mut self, session: super::SessionId) {
        let at = self.now.after(GRACE_MS);
        let own = |command: &&mut Command| command.session == Some(session);
        for command in self.execs.running.values_mut().filter(own) {
            command.kill_at = Some(at);
            if let Some(pidfd) = self.kept.fd(Kind::Process, command.number) {
                let _ = process::signal(pidfd, libc::SIGHUP);
            }
        }
    }

    /// Kills those whose time is over, and forgets how others ended that nobody has asked for. One of an earlier manager
    /// has more time while its client's process lives, which may be stopped, and asks when it goes on.
    pub(in crate::manager) fn keep_execs(&mut self) {
        let (now, keeper) = (self.now, self.kept.keeper_pid);
        let over = |command: &Command| command.kill_at.is_some_and(|at| at <= now);
        let mut forgotten = Vec::new();
        for (number, command) in self.execs.running.iter_mut().filter(|(_, command)| over(command)) {
            let client = self.kept.fd(Kind::Client, *number);
            let lives = client.is_some_and(|client| !process::has_ended(client));
            if command.session.is_none() && command.why.is_none() && lives {
                command.kill_at = Some(now.after(GRACE_MS));
            } else if command.ended.is_some() {
                forgotten.push(*number);
            } else if command.killed {
                command.kill_at = None;
            } else {
                (command.killed, command.kill_at) = (true, Some(now.after(GONE_MS)));
                if let Some(why) = &mut command.why {
                    *why += ", and killed as it did not end";
                }
                kill(command, self.kept.fd(Kind::Process, *number), keeper);
            }
        }
        for number in forgotten {
            self.execs.running.remove(&number);
            self.kept.drop(Kind::Client, number);
        }
    }

    /// Supervise stops: each is asked to end, and has a moment.
    pub(in crate::manager) fn close_execs(&mut self) {
        let at = self.stop_at.map_or(self.now.after(GRACE_MS), |at| at.min(self.now.after(GRACE_MS)));
        let asked = |command: &Command| command.ended.is_some() || command.why.is_some();
        for command in self.execs.running.values_mut().filter(|command| !asked(command)) {
            let (signal, name) =
                if command.terminal { (libc::SIGHUP, "HUP") } else { (libc::SIGTERM, "TERM") };
            command.why = Some(format!("stopped while the command ran, which was sent SIG{name}"));
            command.kill_at = Some(command.kill_at.map_or(at, |before| before.min(at)));
            if let Some(pidfd) = self.kept.fd(Kind::Process, command.number) {
                let _ = process::signal(pidfd, signal);
                let _ = process::signal(pidfd, libc::SIGCONT); // one that is stopped would not hear it
            }
        }
    }

    /// Nobody has a moment any more.
    pub(in crate::manager) fn hurry_execs(&mut self) {
        let now: Mono = self.now;
        for command in self.execs.running.values_mut().filter(|command| !command.killed) {
            command.kill_at = command.kill_at.map(|at| at.min(now));
        }
    }

    /// Takes up those that an earlier manager was asked for. Each is its client's as before once that comes back, and
    /// without a client it ends.
    pub(in crate::manager) fn adopt_execs(&mut self) {
        let numbers: Vec<u64> =
            self.kept.ids(Kind::Process).into_iter().filter(|number| *number >= FIRST).collect();
        for number in numbers {
            self.execs.last = self.execs.last.max(number - FIRST);
            let pid = self.kept.fd(Kind::Process, number).and_then(process::pid_of);
            // One that has been reaped has its exit among those that are taken in later.
            let process = pid.map(|pid| (pid, began(pid)));
            let command = Command {
                session: None,
                name: String::new(),
                uid: pid.and_then(|pid| process::users(pid).ok()).map(|[uid, ..]| uid),
                number,
                launch: None,
                process,
                group: self.group_of_exec(number),
                gate: None,
                kill_at: Some(self.now.after(GRACE_MS)),
                killed: false,
                terminal: pid.and_then(|pid| process::stat(pid).ok()).is_some_and(|stat| stat.terminal != 0),
                why: None,
                ended: None,
            };
            self.execs.running.insert(number, command);
        }
        self.watch_execs();
        // One whose process is gone is nobody's any more.
        let clients = self.kept.ids(Kind::Client);
        for number in clients.into_iter().filter(|number| !self.execs.running.contains_key(number)) {
            self.kept.drop(Kind::Client, number);
        }
        if self.world.is_closing() {
            self.close_execs();
        }
    }

    fn group_of_exec(&self, number: u64) -> Option<(String, OwnedFd)> {
        let base = self.cgroups.as_ref()?;
        let all = base.names(&self.group_prefix()).unwrap_or_default();
        all.iter().filter(|name| name.ends_with(GROUP)).find_map(|all| {
            let name = format!("{all}/{number}");
            base.open(&name).ok().map(|group| (name, group))
        })
    }

    /// Ends all of them.
    pub(in crate::manager) fn end_execs(&mut self) {
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
            self.kept.drop(Kind::Client, number);
        }
        for command in std::mem::take(&mut self.execs.running).into_values() {
            self.bury(&command);
        }
        self.sweep_exec_groups();
    }

    /// Removes the groups of commands that nobody knows of any more: what was being made when a manager died.
    pub(in crate::manager) fn sweep_exec_groups(&self) {
        let Some(base) = &self.cgroups else { return };
        let known: Vec<&str> = self
            .execs
            .running
            .values()
            .filter_map(|command| Some(command.group.as_ref()?.0.as_str()))
            .collect();
        for all in base.names(&self.group_prefix()).unwrap_or_default() {
            // What it ends with tells it from incarnations, whose groups end with a number: a service can have any name.
            if !all.ends_with(GROUP) {
                continue;
            }
            for name in base.names_below(&all).unwrap_or_default() {
                let name = format!("{all}/{name}");
                if !known.contains(&name.as_str())
                    && let Ok(group) = base.open(&name)
                {
                    clear(group.as_fd());
                    let _ = base.remove_all(&name);
                }
            }
            let _ = base.remove(&all); // another command may be in there
        }
    }

    /// Ends what a command has left behind, and removes its group.
    pub(super) fn bury(&self, command: &Command) {
        let Some((name, group)) = &command.group else {
            if let Some(process) = command.process {
                end_session(process, self.kept.keeper_pid);
            }
            return;
        };
        clear(group.as_fd());
        self.remove_exec_group(name);
    }

    /// Removes the empty group of a command, and the one above it where no other command of the service is in there.
    pub(super) fn remove_exec_group(&self, name: &str) {
        let Some(base) = &self.cgroups else { return };
        if let Err(error) = base.remove_all(name) {
            log::warn!("removing the cgroup {name}: {}", reason(&error));
        }
        if let Some((above, _)) = name.rsplit_once('/') {
            let _ = base.remove(above);
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
pub(super) fn began(pid: u32) -> u64 {
    process::stat(pid).map_or(0, |stat| stat.start_time)
}

/// Ends what is left of the session that a command led, where no cgroup says what is its own.
fn end_session((leader, start_time): (u32, u64), keeper: u32) {
    let _ = Tree::Session { leader, start_time, invocation: None, keeper: Some(keeper) }.kill();
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
