//! ROOT. `MAINPID=`: a service says that another of its processes is its main one from now on. Never follows one that
//! is not its own, or has more rights than it.
//!
//! The number is held by a pidfd before anything is asked about it, and the pidfd has not ended after the last answer:
//! so all of the answers are about one process. What is written down comes first, then the keeper's registration; a
//! manager that dies between the two leaves that to the next ([`Manager::settle_heirs`]). The end of an heir is seen
//! by its pidfd too: while its parent lives it is not the keeper's child.

use std::os::fd::{AsFd, OwnedFd};

use super::Manager;
use super::processes::{Heir, Process};
use crate::policy::service::Phase;
use crate::policy::{Run, ServiceId};
use crate::sys::datagrams::Sender;
use crate::sys::errno::reason;
use crate::sys::process;
use crate::wire::keeper::Kind;
use crate::wire::state;

/// What is claimed.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The process that is to be the main one; None where a descriptor alone says which.
    pub pid: Option<u32>,
    /// The number that no other process of this boot has.
    pub id: Option<u64>,
    /// Who says so.
    pub sender: Option<Sender>,
}

impl Manager {
    /// `MAINPIDFD=1`: the process of a descriptor that came with the message. Only its number is used.
    pub(super) fn hear_main_of(&mut self, run: Run, claim: Claim, brought: &[OwnedFd]) {
        let of = |fd: &OwnedFd| process::pid_of(fd.as_fd());
        let Some(pidfd) = brought.first() else { return };
        let (pid, id) = (of(pidfd), process::id_of(pidfd.as_fd()).or(claim.id));
        if pid.is_none() || claim.pid.is_some_and(|claimed| Some(claimed) != pid) {
            return;
        }
        self.hear_main(run, Claim { pid, id, ..claim });
    }

    /// A service calls a process its main one.
    pub(super) fn hear_main(&mut self, run: Run, claim: Claim) {
        let Some(pid) = claim.pid else { return };
        let Some(known) = self.processes.get(run) else { return };
        let Some(id) = self.service_of(run) else { return };
        if known.main().pid == pid {
            // What was refused before is taken back.
            return self.change_said(run, |said| said.not_inherited = None);
        }
        match self.may_inherit(id, run, known, pid, claim) {
            Ok((heir, pidfd)) => self.inherit(id, run, heir, pidfd),
            Err(why) => {
                let words = format!(
                    "it says that process {} is its main one (MAINPID=), which is not believed: {why}",
                    pid
                );
                if self.notices.may_tell(run) {
                    log::warn!("service={} run={} {words}", self.name_of(id), run.0);
                }
                self.change_said(run, |said| said.not_inherited = Some(words));
            }
        }
    }

    /// Whether it can be the main process; why not, in words.
    fn may_inherit(
        &self,
        id: ServiceId,
        run: Run,
        known: &Process,
        pid: u32,
        claim: Claim,
    ) -> Result<(Heir, OwnedFd), String> {
        let sender = claim.sender;
        match self.world.incarnation(id, run).map(|one| one.phase) {
            Some(
                Phase::Starting { .. }
                | Phase::Settling { .. }
                | Phase::Proving { .. }
                | Phase::Running
                | Phase::Stopping { .. },
            ) => {}
            Some(Phase::Clearing { .. }) => return Err("the main process had ended before".to_owned()),
            Some(Phase::Cloning | Phase::Launching { .. } | Phase::Preparing) | None => {
                return Err("its command does not run".to_owned());
            }
        }
        if pid == std::process::id() || pid == self.kept.keeper_pid {
            return Err("it is one of the supervisor's own".to_owned());
        }
        if pid == 1 {
            return Err("it is init".to_owned());
        }
        let pidfd =
            process::open(pid).map_err(|error| format!("there is no such process ({})", reason(&error)))?;
        let ended = || "it has ended".to_owned();
        let stat = process::stat(pid).map_err(|_| ended())?;
        if claim.id.is_some_and(|id| process::id_of(pidfd.as_fd()).is_some_and(|its| its != id)) {
            return Err("the process of that number is another one (MAINPIDFDID=)".to_owned());
        }
        let tree = self.tree(run).ok_or_else(ended)?;
        if !tree.holds(pid) {
            let how = match known.cgroup {
                Some(_) => "it is not in the service's cgroup",
                None => {
                    "it is not in the session of the process that was started, which is all that is followed here"
                }
            };
            return Err(format!("{how}\nhint: let it run in the foreground, without forking"));
        }
        let users = process::users(pid).map_err(|_| ended())?;
        let account = self.inputs_of(id, known.generation).and_then(|inputs| inputs.account.as_ref());
        let own = account.is_some_and(|account| users == [account.uid; 4]);
        if !own && sender.is_none_or(|sender| sender.uid != 0) {
            return Err(format!("it runs as uid {}, which is not the service's", users[1]));
        }
        if process::has_ended(pidfd.as_fd()) {
            return Err(ended());
        }
        Ok((Heir { pid, start_time: stat.start_time }, pidfd))
    }

    fn inherit(&mut self, id: ServiceId, run: Run, heir: Heir, pidfd: OwnedFd) {
        let before = self.processes.get(run).map_or(0, |known| known.main().pid);
        let Some(record) = self.processes.get(run).map(|known| Process { heir: Some(heir), ..known.clone() })
        else {
            return;
        };
        if !self.save(state::Kind::Process, run.0, &record) {
            return;
        }
        self.processes.inherit(run, heir);
        self.register_heir(run, heir, pidfd);
        if self.notices.may_tell(run) {
            log::info!(
                "service={} run={} pid={} is the main process now, after {before}",
                self.name_of(id),
                run.0,
                heir.pid
            );
        }
        self.change_said(run, |said| said.not_inherited = None);
        if let Some(Phase::Stopping { signalled: true, .. }) =
            self.world.incarnation(id, run).map(|one| one.phase)
            && let Some(pidfd) = self.kept.fd(Kind::Process, run.0)
        {
            // The one before got the signal; ESRCH: its end is on its way.
            let _ = process::signal(pidfd, self.stop_signal(id));
        }
        self.tell_watchers(id);
    }

    /// Has the keeper write down its end, in place of that of the one before, and watches for it here.
    fn register_heir(&mut self, run: Run, heir: Heir, pidfd: OwnedFd) {
        self.unwatch_pidfd(run);
        // What a dead keeper left behind is nobody's child here.
        let ours = self.processes.get(run).is_some_and(|known| known.keeper == self.kept.keeper);
        if let Err(error) = self.kept.put(Kind::Process, run.0, if ours { heir.pid } else { 0 }, pidfd) {
            log::error!("keeping the main process of incarnation {}: {}", run.0, reason(&error));
        }
        self.watch_process(run);
        // What ended before it was watched rings no more, and was nobody's for the keeper.
        if self.process_has_ended(run) {
            self.watched.unsettled.entry(run).or_insert(self.now.0);
        }
    }

    /// Does what a manager that died in the middle had written down and not done.
    pub(super) fn settle_heirs(&mut self) {
        let heirs: Vec<(Run, Heir)> =
            self.processes.iter().filter_map(|(run, known)| Some((run, known.heir?))).collect();
        for (run, heir) in heirs {
            let kept = self.kept.fd(Kind::Process, run.0).and_then(process::pid_of);
            if kept == Some(heir.pid) {
                continue;
            }
            if let Ok(pidfd) = process::open(heir.pid)
                && process::stat(heir.pid).is_ok_and(|stat| stat.start_time == heir.start_time)
            {
                self.register_heir(run, heir, pidfd);
            }
        }
    }
}
