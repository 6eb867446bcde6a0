//! ROOT. From an incarnation that is wanted to a process at its gate: pipes, cgroup, plan, and the zygote's
//! answer. Never opens a gate.
//!
//! A bounded number of clones is asked for at a time, so that the descriptors of a thousand starts at once
//! need no more room than those of a few.

use crate::sys::errno::reason;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::Manager;
use super::inputs::Which;
use super::kept::is_full;
use super::listeners::{self, NotAll, StandIn};
use super::logs::Output;
use super::processes::{Pipes, Process};
use crate::policy::{End, Event, Run, ServiceId};
use crate::sys::link::Link;
use crate::sys::{clock, dirs, fds, files, memfd, process};
use crate::wire::cri;
use crate::wire::keeper::Kind;
use crate::wire::state;
use crate::wire::zygote::{MESSAGE_BYTES, Reply, Spawn};

/// The most clones asked for at once.
const MOST_AT_ONCE: usize = 16;

/// What is held of a start until the zygote has answered.
#[derive(Debug)]
struct Prepared {
    service: ServiceId,
    generation: u32,
    instance: u16,
    gate: OwnedFd,
    report: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    cgroup: Option<(String, OwnedFd)>,
    voice: Vec<(Kind, OwnedFd)>,
    invocation: String,
    stand_ins: Vec<StandIn>,
}

/// Starts that are wanted. Each service has its turn, so that nobody waits behind the thousand instances of another.
#[derive(Debug, Default)]
struct Queue {
    lanes: BTreeMap<ServiceId, VecDeque<Run>>,
    turns: VecDeque<ServiceId>,
}

impl Queue {
    fn push(&mut self, id: ServiceId, run: Run) {
        let lane = self.lanes.entry(id).or_default();
        if lane.is_empty() {
            self.turns.push_back(id);
        }
        lane.push_back(run);
    }

    /// Puts one back that was taken last.
    fn put_back(&mut self, id: ServiceId, run: Run) {
        self.turns.retain(|one| *one != id);
        self.turns.push_front(id);
        self.lanes.entry(id).or_default().push_front(run);
    }

    fn take(&mut self) -> Option<(ServiceId, Run)> {
        let id = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&id)?;
        let run = lane.pop_front()?;
        if lane.is_empty() {
            self.lanes.remove(&id);
        } else {
            self.turns.push_back(id);
        }
        Some((id, run))
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

/// What goes to the zygote.
struct Parcel {
    spawn: Spawn,
    fds: Vec<OwnedFd>,
    /// The instance, where some of them are of a service's making.
    stored: Option<u16>,
}

/// The zygote, and what is asked of it.
#[derive(Debug, Default)]
pub struct Starts {
    link: Option<Link>,
    queue: Queue,
    asked: BTreeMap<u64, (Run, Prepared)>,
    requests: u64,
    /// Its link had no room for the last that was to be asked.
    full: Cell<bool>,
}

impl Starts {
    /// The link's number, to be watched.
    pub fn raw_link(&self) -> Option<RawFd> {
        self.link.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The link.
    pub fn link(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is a zygote.
    pub fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// The number of the next request: no two managers use the same.
    pub fn next_request(&mut self, manager: u64) -> u64 {
        self.requests += 1;
        (manager << 32) | self.requests
    }

    /// Asks for a clone.
    pub fn send(&self, spawn: &Spawn, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let link = self.link.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let sent = link.send(&spawn.encode(), fds);
        self.full.set(sent.as_ref().is_err_and(is_full));
        sent
    }

    /// Whether something waits for room on the link.
    pub fn waits(&self) -> bool {
        self.full.get()
    }

    /// Whether nothing is asked of the zygote, or waits to be.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.asked.is_empty()
    }
}

impl Manager {
    /// There is a new zygote.
    pub(super) fn attach_zygote(&mut self, link: Link) {
        self.zygote_ended();
        self.starts.link = Some(link);
        self.pump_starts();
        self.pump_probes();
        self.pump_lookups();
    }

    /// The zygote is gone. What was asked of it may exist, and ends at its gate.
    pub(super) fn zygote_ended(&mut self) {
        self.starts.link = None;
        self.starts.full.set(false);
        let asked = std::mem::take(&mut self.starts.asked);
        for (run, prepared) in asked.into_values() {
            self.abandon(run, prepared.service, End::NoProcess(libc::EPIPE));
        }
        self.probes_ungated();
        self.lookups_ungated();
        self.execs_ungated();
    }

    /// Wants a process for this incarnation.
    pub(super) fn want_process(&mut self, id: ServiceId, run: Run) {
        self.starts.queue.push(id, run);
        self.pump_starts();
    }

    /// Asks for as many clones as may be asked for.
    pub(super) fn pump_starts(&mut self) {
        while self.starts.link.is_some() && self.starts.asked.len() < MOST_AT_ONCE {
            let Some((id, run)) = self.starts.queue.take() else { return };
            let ready = self.prepare(id, run);
            if matches!(
                ready,
                Err(NotPrepared::Shortage(_) | NotPrepared::Words(_) | NotPrepared::Unbound(_))
            ) {
                self.discard_all(id, run);
            }
            let (prepared, parcel) = match ready {
                Ok(ready) => ready,
                Err(NotPrepared::Shortage(error)) => {
                    self.feed(id, Event::NotCloned(run, End::NoProcess(error.raw_os_error().unwrap_or(0))));
                    continue;
                }
                Err(NotPrepared::Words(words)) => {
                    self.say_words(id, words);
                    self.feed(id, Event::NotCloned(run, End::Unprepared));
                    continue;
                }
                Err(NotPrepared::Waiting) => continue,
                Err(NotPrepared::Unrehearsed(words)) => {
                    self.goes_unrehearsed(id, run, words);
                    continue;
                }
                Err(NotPrepared::Unbound(words)) => {
                    self.words.insert(id, words); // said with the event
                    self.feed(id, Event::NotCloned(run, End::Unbound));
                    continue;
                }
            };
            let borrowed: Vec<BorrowedFd<'_>> = parcel.fds.iter().map(AsFd::as_fd).collect();
            match self.starts.send(&parcel.spawn, &borrowed) {
                Ok(()) => {
                    self.starts.asked.insert(parcel.spawn.request, (run, prepared));
                }
                // Room would not help them, and all others would wait behind them.
                Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) && parcel.stored.is_some() => {
                    self.starts.full.set(false);
                    self.discard_all(id, run);
                    self.give_stored_up(id, parcel.stored.unwrap_or(0));
                    self.starts.queue.put_back(id, run);
                }
                Err(error) if is_full(&error) => {
                    self.discard_all(id, run);
                    self.starts.queue.put_back(id, run); // its link's room wakes us
                    return;
                }
                Err(error) => {
                    self.abandon(run, id, End::NoProcess(error.raw_os_error().unwrap_or(libc::EPIPE)));
                }
            }
        }
    }

    fn prepare(&mut self, id: ServiceId, run: Run) -> Result<(Prepared, Parcel), NotPrepared> {
        let which = self.which(id, run).ok_or_else(|| NotPrepared::Words("nobody wants it".to_owned()))?;
        let Which { generation, instance, .. } = which;
        if self.awaits_inputs(id, run, generation) {
            return Err(NotPrepared::Waiting);
        }
        // Sockets may lie in them.
        self.make_directories(id).map_err(NotPrepared::Words)?;
        let numbers = self.bound_for(id, which)?;
        let invocation = self.new_invocation(run);
        let stored = self.stored_for(id, which);
        let plan = self.plan(id, which, &invocation).map_err(NotPrepared::Words)?;
        let plan = memfd::sealed(c"supervise-plan", &plan)?;
        let (gate_read, gate) = fds::pipe(0)?;
        let (report, report_write) = fds::pipe(0)?;
        let [(stdout, stdout_write), (stderr, stderr_write)] = self.outputs(id)?;
        // Only our ends are to return at once; a service may find blocking writes more to its taste.
        for end in [Some(&report), stdout.as_ref(), stderr.as_ref()].into_iter().flatten() {
            fds::set_nonblocking(end.as_fd(), true)?;
        }
        let null = fds::duplicate(self.null.as_fd())?;
        let voice = self.make_voice(id, run).map_err(unheard)?;
        let (stand_ins, sockets) =
            self.sockets_for(id, which, &numbers).inspect_err(|_| self.discard_voice(run))?;
        let private = self.make_private_listener(id, run).map_err(unreached)?;
        let passed = sockets.len() + usize::from(private.is_some()) + stored.len() + voice.theirs.len();
        let cgroup = self.make_cgroup(id, run);
        self.limit_group(id, cgroup.as_ref().map(|(_, group)| group.as_fd()));
        let mut parcel = vec![plan, gate_read, report_write, null, stdout_write, stderr_write];
        parcel.extend(sockets);
        parcel.extend(private);
        for number in &stored {
            let fd = self.kept.fd(Kind::Stored, *number);
            parcel.push(fds::duplicate(fd.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?)?);
        }
        parcel.extend(voice.theirs);
        if let Some((_, directory)) = &cgroup {
            parcel.push(fds::duplicate(directory.as_fd())?);
        }
        self.starts.requests += 1;
        let request = (self.kept.manager << 32) | self.starts.requests;
        let spawn = Spawn { request, sockets: passed as u16, cgroup: cgroup.is_some() };
        let voice = voice.ours;
        let prepared = Prepared {
            service: id,
            generation,
            instance,
            gate,
            report,
            stdout,
            stderr,
            cgroup,
            voice,
            invocation,
            stand_ins,
        };
        let stored = (!stored.is_empty()).then_some(instance);
        Ok((prepared, Parcel { spawn, fds: parcel, stored }))
    }

    /// Sees to it that the service's sockets are bound; those that this incarnation gets. A rehearsal has nothing to do
    /// with them.
    fn bound_for(&mut self, id: ServiceId, which: Which) -> Result<Vec<u64>, NotPrepared> {
        if which.rehearsal {
            return Ok(Vec::new());
        }
        let mut numbers = self.bind_all(id, Some(which.run)).map_err(|not_all| match not_all {
            NotAll::Wrong(words) => NotPrepared::Unbound(words),
            NotAll::Waiting => {
                self.await_sockets(id, which.run);
                NotPrepared::Waiting
            }
        })?;
        if which.before.is_some() {
            numbers.clear(); // they are bound, and clients wait, but a command before the start has none
        }
        Ok(numbers)
    }

    /// The sockets that an incarnation gets: copies of those that are kept, or what a rehearsal has instead.
    fn sockets_for(
        &self,
        id: ServiceId,
        which: Which,
        numbers: &[u64],
    ) -> Result<(Vec<StandIn>, Vec<OwnedFd>), NotPrepared> {
        if which.rehearsal {
            return self
                .make_stand_ins(id, which.run)
                .map(|all| all.into_iter().unzip())
                .map_err(unrehearsed);
        }
        let lost = || io::Error::from_raw_os_error(libc::EBADF);
        let copy = |number: &u64| listeners::copy(self.kept.fd(Kind::Listener, *number).ok_or_else(lost)?);
        Ok((Vec::new(), numbers.iter().map(copy).collect::<io::Result<_>>()?))
    }

    /// Our ends of a service's standard output and error, where there are any, and its own.
    fn outputs(&self, id: ServiceId) -> io::Result<[(Option<OwnedFd>, OwnedFd); 2]> {
        let pipe = || -> io::Result<(Option<OwnedFd>, OwnedFd)> {
            let (read, write) = fds::pipe(0)?;
            let account = self.services.get(&id).and_then(|known| known.inputs.account.as_ref());
            if let (0, Some(account)) = (self.user, account) {
                // So that `/dev/stdout` can be opened by a service that is not root.
                files::give(write.as_fd(), account.uid, account.gid)?;
            }
            Ok((Some(read), write))
        };
        match self.output(id) {
            Output::Pipes => Ok([pipe()?, pipe()?]),
            Output::Own => {
                let (stdout, stderr) = (io::stdout(), io::stderr());
                Ok([(None, fds::duplicate(stdout.as_fd())?), (None, fds::duplicate(stderr.as_fd())?)])
            }
            Output::Null => {
                let null = std::fs::File::options().write(true).open("/dev/null")?;
                Ok([(None, null.try_clone()?.into()), (None, null.into())])
            }
        }
    }

    fn make_cgroup(&mut self, id: ServiceId, run: Run) -> Option<(String, OwnedFd)> {
        let base = self.cgroups.as_ref()?;
        let name = self.group_name(id, run);
        match base.make(&name) {
            Ok(directory) => Some((name, directory)),
            Err(error) => {
                log::warn!("{}: making the cgroup {name}: {}", self.name_of(id), reason(&error));
                None
            }
        }
    }

    fn group_name(&self, id: ServiceId, run: Run) -> String {
        format!("{}{}.{}", self.group_prefix(), self.name_of(id), run.0)
    }

    /// Removes whatever was made for a start that came to nothing, however far it had got: all of it has the number of
    /// the incarnation in its name.
    fn discard_all(&self, id: ServiceId, run: Run) {
        self.discard_voice(run);
        self.discard_private(run);
        self.discard_stand_ins(id, run);
        if let Some(base) = &self.cgroups {
            let _ = base.remove(&self.group_name(id, run)); // a child on its way out keeps it; the next start's sweep takes it
        }
    }

    fn abandon(&mut self, run: Run, id: ServiceId, end: End) {
        self.discard_all(id, run);
        self.feed(id, Event::NotCloned(run, end));
    }

    /// Takes what the zygote has answered. False where its link has ended.
    pub(super) fn hear_zygote(&mut self) -> bool {
        loop {
            let Some(link) = &self.starts.link else { return false };
            let mut bytes = [0; MESSAGE_BYTES];
            let mut place = [None];
            match link.receive(&mut bytes, &mut place) {
                Ok(Some(got)) => {
                    let [pidfd] = place;
                    match bytes.get(..got.bytes).and_then(Reply::decode) {
                        Some(reply) => self.take_answer(reply, pidfd),
                        None => log::error!("the zygote sent a message that makes no sense"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.starts.full.set(false);
                    self.pump_starts();
                    self.pump_probes();
                    self.pump_lookups();
                    return true;
                }
                Ok(None) | Err(_) => {
                    self.zygote_ended();
                    return false;
                }
            }
        }
    }

    fn take_answer(&mut self, reply: Reply, pidfd: Option<OwnedFd>) {
        match (reply, pidfd) {
            (Reply::Spawned { request, pid, cgroup_errno, .. }, Some(pidfd)) => {
                self.spawned(request, pid, cgroup_errno, pidfd);
            }
            (Reply::Refused { request, errno }, _) => self.refused(request, errno),
            (Reply::Spawned { .. }, None) => log::error!("the zygote sent a process without its descriptor"),
        }
    }

    fn refused(&mut self, request: u64, errno: i32) {
        self.probe_refused(request);
        self.lookup_refused(request, errno);
        self.courier_refused(request);
        if self.exec_refused(request, errno) {
            return;
        }
        if let Some((run, prepared)) = self.starts.asked.remove(&request) {
            self.abandon(run, prepared.service, End::NoProcess(errno));
        }
    }

    /// Writes a process down, has the keeper register it, and only then tells policy of it.
    fn spawned(&mut self, request: u64, pid: u32, cgroup_errno: u16, pidfd: OwnedFd) {
        let Err(pidfd) = self.probe_spawned(request, pidfd) else { return };
        let Err(pidfd) = self.courier_spawned(request, pidfd) else { return };
        let Err(pidfd) = self.exec_spawned(request, pid, cgroup_errno, pidfd) else { return };
        let Err(pidfd) = self.lookup_spawned(request, pidfd) else { return };
        // An answer to a manager that has died: its child ends at its gate, unregistered.
        let Some((run, prepared)) = self.starts.asked.remove(&request) else { return };
        let id = prepared.service;
        let start_time = process::stat(pid).map_or(0, |stat| stat.start_time);
        let pipes = pipes_of(&prepared);
        let mut cgroup = prepared.cgroup;
        if cgroup_errno != 0 {
            let error = io::Error::from_raw_os_error(cgroup_errno.into());
            log::warn!("{}: entering its cgroup: {}", self.name_of(id), reason(&error));
            if let (Some((name, _)), Some(base)) = (cgroup.take(), &self.cgroups) {
                let _ = base.remove(&name);
            }
            self.limit_group(id, None);
        }
        let process = Process {
            service: id,
            generation: prepared.generation,
            instance: prepared.instance,
            pid,
            start_time,
            heir: None,
            keeper: self.kept.keeper,
            cgroup: cgroup.as_ref().map(|(name, _)| name.clone()),
            invocation: prepared.invocation,
            since_ns: clock::realtime_ns(),
            pipes,
            adopted: None,
            stand_ins: prepared.stand_ins,
        };
        if !self.save(state::Kind::Process, run.0, &process) {
            // Dropping its gate ends it.
            self.kept.drop_all(&[Kind::Report], run.0);
            self.abandon(run, id, End::NoProcess(libc::ENOSPC));
            return;
        }
        let mut ends = vec![(Kind::Report, 0, prepared.report)];
        ends.extend(prepared.stdout.map(|end| (Kind::Stdout, 0, end)));
        ends.extend(prepared.stderr.map(|end| (Kind::Stderr, 0, end)));
        ends.extend(cgroup.map(|(_, directory)| (Kind::Cgroup, 0, directory)));
        ends.extend(prepared.voice.into_iter().map(|(kind, end)| (kind, 0, end)));
        ends.push((Kind::Process, pid, pidfd));
        if let Err(error) = self.kept.put_all(run.0, ends) {
            log::error!("{}: keeping a descriptor: {}", self.name_of(id), reason(&error));
            self.forget(run);
            self.abandon(run, id, End::NoProcess(libc::EMFILE));
            return;
        }
        if self.process_has_ended(run) {
            // Killed at its gate; if that was before its registration, nobody would tell of it.
            self.forget(run);
            self.abandon(run, id, End::NoProcess(libc::ESRCH));
            return;
        }
        self.processes.add(run, process, Some(prepared.gate));
        self.watch_process(run);
        let name = self.name_of(id).to_owned();
        let rule = self.log_rule(id);
        self.logs.begin(id, clock::realtime_ns());
        self.logs.add_new(&name, run, cri::Which::Stdout, rule);
        self.logs.add_new(&name, run, cri::Which::Stderr, rule);
        self.feed(id, Event::Cloned(run));
    }
}

/// The numbers by which a process's pipes are found again.
fn pipes_of(prepared: &Prepared) -> Pipes {
    let number = |end: &OwnedFd| dirs::facts(end.as_fd()).ok().map(|facts| facts.identity.inode);
    let ready = prepared.voice.iter().find(|(kind, _)| *kind == Kind::ReadyPipe);
    Pipes {
        stdout: prepared.stdout.as_ref().and_then(number),
        stderr: prepared.stderr.as_ref().and_then(number),
        ready: ready.and_then(|(_, end)| number(end)),
    }
}

/// Why there is nothing to ask the zygote for.
enum NotPrepared {
    /// The machine is short of something.
    Shortage(io::Error),
    /// The service cannot be started as it is; the words say why.
    Words(String),
    /// A socket is not bound; the words say why.
    Unbound(String),
    /// There are no sockets on which this rehearsal could be done; the words say why.
    Unrehearsed(String),
    /// Its inputs are being read, or a socket is being bound with the service's rights; then it is wanted again.
    Waiting,
}

/// Without its notify socket or pipe a service would never be ready.
fn unheard(error: io::Error) -> NotPrepared {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => NotPrepared::Shortage(error),
        _ => NotPrepared::Words(format!(
            "making its notify socket: {}\nhint: `ready = \"notify\"` needs a runtime directory that can be written",
            reason(&error)
        )),
    }
}

/// Without the listener on which it is asked it would never be ready.
fn unreached(error: io::Error) -> NotPrepared {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => NotPrepared::Shortage(error),
        _ => NotPrepared::Words(format!(
            "making the socket on which it is asked whether it answers: {}\nhint: it needs a runtime directory that can be \
             written, with a path of less than {} bytes; `ready = \"started\"` does without",
            reason(&error),
            crate::sys::sockets::MOST_PATH - 20
        )),
    }
}

/// Without sockets of its own a rehearsal would be heard by clients: there is none, and the start that counts is not
/// held up by that.
fn unrehearsed(error: io::Error) -> NotPrepared {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => NotPrepared::Shortage(error),
        _ => NotPrepared::Unrehearsed(format!("making its private sockets: {}", reason(&error))),
    }
}

impl From<io::Error> for NotPrepared {
    fn from(error: io::Error) -> Self {
        Self::Shortage(error)
    }
}
