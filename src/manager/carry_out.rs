//! ROOT. Actions to effects, after the state that wants them is written. Never decides.

use crate::sys::errno::reason;
use std::os::fd::AsFd;

use super::Manager;
use super::listeners::NotAll;
use super::processes::Stands;
use super::tree::Tree;
use crate::policy::{Action, End, Event, Run, ServiceId};
use crate::sys::{clock, process};
use crate::unit::{Gate, Reload};
use crate::wire::keeper::Kind;
use crate::wire::state;

impl Manager {
    /// Feeds one event in and carries out what follows. The state is written before the first action.
    pub(super) fn step(&mut self, id: ServiceId, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        actions.clear();
        let now = self.now;
        let changes = self.world.step(id, event, now, &mut actions);
        if changes.any() {
            self.note_told(id);
            self.save_service(id, Some(&changes));
            self.report_step(id, event, &actions);
        }
        for action in &actions {
            self.carry_out(id, *action);
        }
        self.actions = actions;
        self.plan_look(id, event);
        if let Event::Empty(run) | Event::Lost(run) = event {
            self.forget(run);
        }
        self.after_step(id, event);
        if self.may_have_cut(id, event) {
            self.restore_rooms(id);
        }
        self.let_waiting_go(id);
        self.above.stale = true;
        self.tend_probes(id);
        self.tell_watchers(id);
    }

    /// Whether a server may have begun to listen since the room of its sockets' queues was looked at: it has become ready,
    /// has proven itself or was looked at, or it is gone and can do so no more.
    fn may_have_cut(&self, id: ServiceId, event: Event) -> bool {
        let proven = || {
            let mut all = self.world.get(id).into_iter().flat_map(|service| service.incarnations());
            all.any(|(_, _, one)| one.is_proven() && one.since == self.now)
        };
        match event {
            Event::Ready(_) | Event::Healthy(_) | Event::Empty(_) | Event::Lost(_) | Event::Hold(_) => true,
            Event::Tick | Event::Executed(_) => proven(),
            Event::Boot
            | Event::Start(_)
            | Event::Stop(_)
            | Event::Restart(_)
            | Event::RestartStopFirst(_)
            | Event::Reload(_)
            | Event::Scale(..)
            | Event::Pull
            | Event::Alive(_)
            | Event::Trigger(_)
            | Event::Watched(..)
            | Event::Unhealthy(_)
            | Event::Unanswered(_)
            | Event::Unasked(_)
            | Event::Astray(_)
            | Event::Reloaded(_)
            | Event::NotReloaded(_)
            | Event::Close
            | Event::Cloned(_)
            | Event::NotCloned(..)
            | Event::NotExecuted(..)
            | Event::Signalled(_)
            | Event::Extended(..)
            | Event::Healed(_)
            | Event::Gone(..)
            | Event::Unrehearsed(_) => false,
        }
    }

    pub(super) fn carry_out(&mut self, id: ServiceId, action: Action) {
        match action {
            // Nothing runs unrecorded.
            Action::Spawn(run) if self.unsaved.contains(&id) => {
                self.feed(id, Event::NotCloned(run, End::NoProcess(libc::ENOSPC)));
            }
            Action::Spawn(run) => self.want_process(id, run),
            Action::Release(run) if self.unsaved.contains(&id) => self.kill(run), // its gate stays shut
            Action::Release(run) => {
                if let Some(gate) = self.processes.take_gate(run) {
                    self.write_mirror(); // nothing runs of which nobody would know
                    self.kept.open_gate(gate);
                }
            }
            Action::Terminate(run) => {
                let before = self.world.incarnation(id, run).is_some_and(|one| one.before.is_some());
                let signal = if before { libc::SIGTERM } else { self.stop_signal(id) };
                if let Some(pidfd) = self.kept.fd(Kind::Process, run.0) {
                    // ESRCH: it has ended, and its exit is on its way.
                    let _ = process::signal(pidfd, signal);
                }
                self.feed(id, Event::Signalled(run));
            }
            Action::Abort(run) => {
                if let Some(pidfd) = self.kept.fd(Kind::Process, run.0) {
                    let _ = process::signal(pidfd, libc::SIGABRT);
                }
                log::warn!("service={} run={} no sign of life: ABRT", self.name_of(id), run.0);
                self.feed(id, Event::Signalled(run));
            }
            Action::Probe(run) => self.probe_now(id, run),
            Action::Reload(run) => self.have_reloaded(id, run),
            Action::Kill(run) => self.kill(run),
            Action::Clear(run) => self.clear(id, run),
            Action::Answer(operation) => self.answered.push(operation),
        }
    }

    /// Has an incarnation read its configuration anew. One that says on its notify socket when it has done so is
    /// waited for; policy knows for how long.
    fn have_reloaded(&mut self, id: ServiceId, run: Run) {
        let Some(unit) = self.unit_of(id) else { return };
        let waits = unit.gate() == Gate::Notify;
        match &unit.service.reload {
            Some(Reload::Signal(signal)) => {
                let signal = signal.number();
                if waits {
                    let now_us = clock::monotonic_ns() / 1_000; // before the signal: what it begins by that is later
                    self.change_said(run, |said| said.asked_to_reload(now_us));
                }
                if let Some(pidfd) = self.kept.fd(Kind::Process, run.0) {
                    let _ = process::signal(pidfd, signal);
                }
                if !waits {
                    self.feed(id, Event::Reloaded(run));
                }
            }
            Some(Reload::Command(_)) => self.reload_now(id, run),
            None => self.feed(id, Event::Reloaded(run)),
        }
    }

    /// The processes of an incarnation. None where it is not known any more.
    pub(super) fn tree(&self, run: Run) -> Option<Tree<'_>> {
        let process = self.processes.get(run)?;
        if process.adopted.is_some_and(|adopted| adopted.stands == Stands::Nothing) {
            return None;
        }
        match (&process.cgroup, self.kept.fd(Kind::Cgroup, run.0)) {
            (Some(_), Some(group)) => Some(Tree::Group(group)),
            _ => {
                let ours = process.keeper == self.kept.keeper;
                let keeper = ours.then_some(self.kept.keeper_pid);
                Some(Tree::Session {
                    leader: process.pid,
                    start_time: process.start_time,
                    invocation: Some(&process.invocation),
                    keeper,
                })
            }
        }
    }

    pub(super) fn kill(&mut self, run: Run) {
        drop(self.processes.take_gate(run)); // one that waits there is let go, to its end
        if let Some(pidfd) = self.kept.fd(Kind::Process, run.0) {
            let _ = process::signal(pidfd, libc::SIGKILL);
        }
        if let Some(tree) = self.tree(run)
            && let Err(error) = tree.kill()
        {
            log::warn!("killing what is left of incarnation {}: {}", run.0, reason(&error));
        }
    }

    /// The main process is gone: ends the rest, or says that there is none.
    fn clear(&mut self, id: ServiceId, run: Run) {
        let Some(tree) = self.tree(run) else {
            self.feed(id, Event::Empty(run));
            return;
        };
        if tree.is_empty() {
            self.feed(id, Event::Empty(run));
            return;
        }
        tree.signal(libc::SIGTERM);
        self.watch_tree(id, run);
    }

    /// Looks whether a tree that is being cleared has become empty.
    pub(super) fn look_at_tree(&mut self, id: ServiceId, run: Run) -> bool {
        let empty = self.tree(run).is_none_or(|tree| tree.is_empty());
        if empty {
            self.feed(id, Event::Empty(run));
        }
        empty
    }

    /// Drops everything that is held for an incarnation of which nothing is left. Its log pipes stay until
    /// the logger has read them to their end.
    pub(super) fn forget(&mut self, run: Run) {
        self.unwatch(run);
        self.forget_voice(run);
        self.forget_probes(run);
        let process = self.processes.remove(run);
        let owner = process.as_ref().map(|process| process.service);
        self.remove_stand_ins(run, process.iter().flat_map(|process| &process.stand_ins));
        self.kept.drop_all(&[Kind::Report, Kind::Cgroup, Kind::Process], run.0);
        let group = process.and_then(|process| process.cgroup);
        match (owner, self.has_streams(run), group) {
            // The logger needs to know whose output it is, until it has read all of it.
            (Some(id), true, group) => {
                self.ended.insert(run, id);
                self.left_groups.extend(group.map(|group| (group, None)));
            }
            // The record goes behind the group, which nobody would find without it.
            (Some(_) | None, _, Some(group)) => self.left_groups.push((group, Some(run))),
            (Some(_) | None, _, None) => self.remove_record(state::Kind::Process, run.0),
        }
    }

    /// Removes the groups of those that were forgotten. A manager that dies before leaves the records to the next one.
    pub(super) fn remove_left_groups(&mut self) {
        for (name, record) in std::mem::take(&mut self.left_groups) {
            if let Some(Err(error)) = self.cgroups.as_ref().map(|base| base.remove_all(&name)) {
                log::warn!("removing the cgroup {name}: {}", reason(&error));
            }
            if let Some(run) = record {
                self.remove_record(state::Kind::Process, run.0);
            }
        }
    }

    /// What follows from the new state outside of policy: a service that was stopped gives its sockets up.
    fn after_step(&mut self, id: ServiceId, event: Event) {
        use crate::policy::service::Goal;
        let Some(service) = self.world.get(id) else { return };
        let held = service.is_down() && service.goal == Goal::Held;
        if held
            && matches!(event, Event::Hold(_))
            && let Err(NotAll::Wrong(words)) = self.bind_all(id, None)
        {
            self.say_words(id, words);
        }
        let Some(service) = self.world.get(id) else { return };
        if service.is_down() && service.goal == Goal::Down {
            // The init above has stored them, and gives them to the next of us, with their files where they were.
            if !(self.world.is_closing() && self.above.stores()) {
                self.release_sockets(id);
            }
            self.remove_runtime_directory(id);
        }
        self.tend_stored(id);
        self.drop_old_inputs(id);
    }

    /// Sends a signal to a process of ours by its pidfd.
    pub(super) fn process_has_ended(&self, run: Run) -> bool {
        self.kept.fd(Kind::Process, run.0).is_none_or(|fd| process::has_ended(fd.as_fd()))
    }
}
