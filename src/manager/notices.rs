//! ROOT. What services say of themselves: a notify socket or a pipe for each incarnation, kept by the keeper, so
//! that nothing said is lost with a manager. Never believes more than policy asks about.
//!
//! Whose a message is is no question: its socket belongs to one incarnation, and its file lets in the service's
//! user and root alone. Who sent it counts where it wants more than to be heard. A message leaves the socket only after what it says is written down. Nobody who talks
//! without end keeps the loop busy: his messages wait in his socket, where he waits for room.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Manager;
use super::couriers::Want;
use super::heirs::Claim;
use super::probes::Health;
use super::stored::{UNNAMED, most_stored};
use crate::policy::{Event, Mono, Run, ServiceId};
use crate::sys::datagrams::{self, Sender};
use crate::sys::errno::reason;
use crate::sys::{fds, files, pipes, sockets};
use crate::unit::{Gate, Unit};
use crate::wire::keeper::Kind;
use crate::wire::{notify, state};

/// Messages of one incarnation that are read within [`WINDOW_MS`].
const MOST_IN_WINDOW: u32 = 64;
/// Milliseconds that one may take that has said that it reads its configuration anew.
const MOST_RELOADING_MS: u64 = 60_000;
/// Lines about one incarnation that asks for what it does not get; `status` has the last of it all the same.
const MOST_LINES: u32 = 4;
/// As how many messages one with descriptors counts, which needs a process.
const COST_OF_DESCRIPTORS: u32 = 4;
/// Of how many incarnations of a service that are gone it is known what they said: of one that failed, and those that
/// went because of it.
const MOST_LAST: usize = 4;
/// Milliseconds of a window.
const WINDOW_MS: u64 = 500;
/// Bytes read of a pipe at once; what a service writes before its line is of no interest.
const PIECE: usize = 512;

/// What an incarnation has said, as far as `status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// It reads its configuration again.
    pub reloading: bool,
    /// When it was last sent the signal to do so, in microseconds of CLOCK_MONOTONIC.
    pub reload_us: Option<u64>,
    /// The reload that it is in was begun before that signal, so its end is not the end of the one that was asked for.
    pub reloads_earlier: bool,
    /// It goes down.
    pub stopping: bool,
    /// How it is, in a line.
    pub status: Option<String>,
    /// What went wrong, as errno(3).
    pub errno: Option<i32>,
    /// The same as the name of a D-Bus error.
    pub bus_error: Option<String>,
    /// The same as the name of a Varlink error.
    pub varlink_error: Option<String>,
    /// Why a process that it calls its main one is not followed.
    pub not_inherited: Option<String>,
    /// Whom of it to believe; None for all.
    pub access: Option<notify::Access>,
    /// What the last probe said of it.
    pub health: Option<Health>,
    /// Why the last probe did not ask it, where that was not its own fault.
    pub unasked: Option<String>,
    /// What is wrong with where its processes listen.
    pub wrong: Option<String>,
}

impl Said {
    /// What it says is wrong with itself.
    pub fn complaints(&self) -> Vec<String> {
        let errno = self.errno.map(|errno| reason(&io::Error::from_raw_os_error(errno)).to_string());
        let all = [errno, self.bus_error.clone(), self.varlink_error.clone()];
        all.into_iter().flatten().map(|what| format!("it says of itself: {what}")).collect()
    }

    /// Whether a reload that began then is one from before the last signal (`Type=notify-reload` of systemd).
    fn is_earlier(&self, begun_us: Option<u64>) -> bool {
        begun_us.zip(self.reload_us).is_some_and(|(begun, asked)| begun < asked)
    }

    /// It is sent the signal to read its configuration again.
    pub const fn asked_to_reload(&mut self, now_us: u64) {
        (self.reload_us, self.reloads_earlier) = (Some(now_us), self.reloading);
    }

    /// That a process that it calls its main one is not followed.
    pub fn not_inherited(&self) -> Option<String> {
        self.not_inherited.clone()
    }
}

/// What all of them have said.
#[derive(Debug, Default)]
pub struct Notices {
    said: BTreeMap<Run, Said>,
    windows: BTreeMap<Run, (Mono, u32)>,
    paused: BTreeMap<Run, Mono>,
    dropped: BTreeMap<Run, u64>,
    told: BTreeMap<Run, u32>,
    /// What those have said that ended last, of each service.
    last: BTreeMap<ServiceId, VecDeque<(Run, Said)>>,
}

impl Notices {
    /// What this incarnation has said.
    pub fn of(&self, run: Run) -> Option<&Said> {
        self.said.get(&run)
    }

    /// The same of one that may be gone, if it was one of the last of its service that had said something.
    pub fn of_last(&self, id: ServiceId, run: Run) -> Option<&Said> {
        let mut last = self.last.get(&id).into_iter().flatten();
        self.of(run).or_else(|| last.find(|(last, _)| *last == run).map(|(_, said)| said))
    }

    /// Those that have said something.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        self.said.keys().copied()
    }

    /// When one that talks too much is listened to again.
    pub fn deadline(&self) -> Option<Mono> {
        self.paused.values().min().copied()
    }

    /// Takes up what an earlier manager wrote down.
    pub fn restore(&mut self, run: Run, said: Said) {
        self.said.insert(run, said);
    }

    /// However much it has said, it is listened to now.
    pub fn listen_again(&mut self, run: Run) {
        self.windows.remove(&run);
        self.paused.remove(&run);
    }

    /// It is not listened to for a while.
    pub fn pause(&mut self, run: Run, until: Mono) {
        self.paused.insert(run, until);
    }

    /// Whether one more message may be read now, which costs as much as so many.
    fn may_read(&mut self, run: Run, now: Mono, cost: u32) -> bool {
        let (since, count) = self.windows.entry(run).or_insert((now, 0));
        if now.since(*since) >= WINDOW_MS {
            (*since, *count) = (now, 0);
        }
        *count += cost;
        let may = *count <= MOST_IN_WINDOW;
        if may {
            self.paused.remove(&run);
        } else {
            self.paused.insert(run, since.after(WINDOW_MS));
        }
        may
    }

    /// Whether one more line may be written about what an incarnation asks for and does not get.
    pub fn may_tell(&mut self, run: Run) -> bool {
        let told = self.told.entry(run).or_default();
        *told = told.saturating_add(1);
        *told <= MOST_LINES
    }

    fn forget(&mut self, run: Run) {
        self.told.remove(&run);
        self.said.remove(&run);
        self.windows.remove(&run);
        self.paused.remove(&run);
        self.dropped.remove(&run);
    }
}

/// How an incarnation will say that it is ready: our end, and what the service gets of it.
#[derive(Debug, Default)]
pub struct Voice {
    /// To be kept.
    pub ours: Vec<(Kind, OwnedFd)>,
    /// For the descriptors behind the sockets.
    pub theirs: Vec<OwnedFd>,
}

/// Whether a service is given a notify socket: to say that it is ready, or that it lives.
pub fn notifies(unit: &Unit) -> bool {
    unit.gate() == Gate::Notify || unit.service.watchdog_ms.is_some()
}

/// Descriptors behind the sockets that `ready = { fd = N }` needs: /dev/null up to N, and N.
pub fn beside(unit: &Unit) -> usize {
    let private = usize::from(unit.private().is_some());
    let first = crate::plan::FIRST_SOCKET as usize + unit.sockets.len() + private;
    match unit.gate() {
        Gate::Line(number) => (number as usize + 1).saturating_sub(first),
        Gate::Success | Gate::Started | Gate::Notify | Gate::Answer(_) | Gate::Listens | Gate::Health => 0,
    }
}

impl Manager {
    pub(super) fn notify_directory(&self) -> PathBuf {
        self.settings.runtime_dir.join("notify")
    }

    /// Where an incarnation says how it is.
    pub(super) fn notify_path(&self, run: Run) -> PathBuf {
        self.notify_directory().join(run.0.to_string())
    }

    /// Makes what the unit's `ready` needs.
    pub(super) fn make_voice(&self, id: ServiceId, run: Run) -> io::Result<Voice> {
        let mut voice = Voice::default();
        let Some(known) = self.services.get(&id) else { return Ok(voice) };
        let Some(unit) = &known.unit else { return Ok(voice) };
        if self.world.incarnation(id, run).is_some_and(|one| one.before.is_some()) {
            return Ok(voice);
        }
        match unit.gate() {
            Gate::Success | Gate::Started | Gate::Answer(_) | Gate::Listens | Gate::Health | Gate::Notify => {
            }
            Gate::Line(_) => {
                let (read, write) = fds::pipe(0)?;
                fds::set_nonblocking(read.as_fd(), true)?;
                for _ in 1..beside(unit) {
                    voice.theirs.push(fds::duplicate(self.null.as_fd())?);
                }
                voice.theirs.push(write);
                voice.ours.push((Kind::ReadyPipe, read));
            }
        }
        if notifies(unit) {
            let owner = known.inputs.account.as_ref().map(|account| account.uid);
            voice.ours.push((Kind::Notify, self.bind_notify(run, owner)?));
        }
        Ok(voice)
    }

    pub(super) fn bind_notify(&self, run: Run, owner: Option<u32>) -> io::Result<OwnedFd> {
        let path = self.notify_path(run);
        files::make_directory(&self.notify_directory(), 0o711)?;
        let directory = files::open_directory(&self.notify_directory())?;
        let name = PathBuf::from(run.0.to_string());
        // The lock of the runtime directory is ours, so what is there belongs to somebody who is gone.
        if files::look(directory.as_fd(), &name)?.is_some() {
            files::remove(directory.as_fd(), &name)?;
        }
        let socket = sockets::bind_unix(&path, libc::SOCK_DGRAM)?;
        datagrams::ask_senders(socket.as_fd())?;
        let owner = owner.filter(|_| self.user == 0);
        if let Err(error) = files::own(directory.as_fd(), &name, owner, None, 0o600) {
            let _ = files::remove(directory.as_fd(), &name);
            return Err(error);
        }
        Ok(socket)
    }

    /// Removes the sockets of incarnations that are gone.
    pub(super) fn sweep_notify(&self, living: &[Run]) {
        let Ok(entries) = std::fs::read_dir(self.notify_directory()) else { return };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let run = name.to_str().and_then(|name| name.parse().ok()).map(Run);
            if run.is_some_and(|run| !living.contains(&run)) {
                self.remove_notify(Path::new(&name));
            }
        }
    }

    fn remove_notify(&self, name: &Path) {
        if let Ok(directory) = files::open_directory(&self.notify_directory()) {
            let _ = files::remove(directory.as_fd(), name);
        }
    }

    /// Nothing is left of an incarnation, or it never was: what it said is forgotten.
    pub(super) fn forget_voice(&mut self, run: Run) {
        if let Some(dropped) = self.notices.dropped.get(&run) {
            log::warn!("incarnation {}: {dropped} messages on its notify socket made no sense", run.0);
        }
        if let (Some(id), Some(said)) = (self.service_of(run), self.notices.of(run)) {
            let said = said.clone(); // why it was not ready is asked for when it is gone
            let last = self.notices.last.entry(id).or_default();
            last.truncate(MOST_LAST - 1);
            last.push_front((run, said));
        }
        self.notices.forget(run);
        self.remove_record(state::Kind::Said, run.0);
        self.forget_couriers(run);
        if let Some(socket) = self.kept.fd(Kind::Notify, run.0) {
            let _ = sockets::shut(socket);
            let unread = datagrams::peek(socket, &mut []).is_ok();
            self.remove_notify(&PathBuf::from(run.0.to_string()));
            // What lies in it may have descriptors with it.
            if unread {
                self.kept.bury(Kind::Notify, run.0);
            }
        }
        self.kept.drop(Kind::Notify, run.0);
        self.kept.drop(Kind::ReadyPipe, run.0);
    }

    /// The start came to nothing before there was anything to keep.
    pub(super) fn discard_voice(&self, run: Run) {
        self.remove_notify(&PathBuf::from(run.0.to_string()));
    }

    /// Takes what an incarnation has said so far; how its launch went comes first.
    pub(super) fn hear(&mut self, run: Run) {
        self.take_report(run);
        self.run_events();
        self.hear_messages(run);
        self.hear_line(run);
    }

    /// Those that were not listened to for a while.
    pub(super) fn hear_paused(&mut self) {
        let due = self.notices.paused.iter().filter(|(_, until)| **until <= self.now);
        let due: Vec<Run> = due.map(|(run, _)| *run).collect();
        for run in due {
            self.notices.paused.remove(&run);
            self.hear(run);
        }
    }

    pub(super) fn hear_messages(&mut self, run: Run) {
        let mut bytes = [0; notify::MOST_BYTES];
        loop {
            if self.couriers.has(run) {
                return; // the first message is being taken
            }
            let Some(socket) = self.kept.fd(Kind::Notify, run.0) else { return };
            let waiting = match datagrams::peek(socket, &mut bytes) {
                Ok(waiting) => waiting,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        log::error!("the notify socket of incarnation {}: {}", run.0, reason(&error));
                    }
                    return;
                }
            };
            let cost = if waiting.carries { COST_OF_DESCRIPTORS } else { 1 };
            if !self.notices.may_read(run, self.now, cost) {
                return;
            }
            let notice = bytes.get(..waiting.size).and_then(notify::parse);
            let want = match notice.filter(|_| self.believes(run, waiting.sender)) {
                Some(notice) => {
                    let want = self.wanted(run, &notice, waiting.sender);
                    self.heed(run, notice, waiting.sender);
                    want
                }
                None => {
                    *self.notices.dropped.entry(run).or_default() += 1;
                    Want::Nothing
                }
            };
            // What it says is written down by now. What came with it is another process's to take, and to close.
            if let (true, Some(id)) = (waiting.carries, self.service_of(run)) {
                self.send_courier(id, run, want);
                return;
            }
            let Some(socket) = self.kept.fd(Kind::Notify, run.0) else { return };
            if let Err(error) = sockets::discard(socket) {
                log::error!("the notify socket of incarnation {}: {}", run.0, reason(&error));
                return;
            }
        }
    }

    /// Whether a message counts, by what an incarnation has said of whom to believe.
    fn believes(&self, run: Run, sender: Option<Sender>) -> bool {
        match self.notices.of(run).and_then(|said| said.access) {
            None | Some(notify::Access::All) => true,
            Some(notify::Access::None) => false,
            Some(notify::Access::Main) => {
                let main = self.processes.get(run).map(|process| process.main().pid);
                sender.is_some_and(|sender| Some(sender.pid) == main)
            }
        }
    }

    /// What of its descriptors is wanted.
    fn wanted(&self, run: Run, notice: &notify::Notice, sender: Option<Sender>) -> Want {
        let unit = self.service_of(run).and_then(|id| self.unit_of(id));
        if notice.main_pidfd {
            return Want::Main(Claim { pid: notice.main_pid, id: notice.main_id, sender });
        }
        if notice.stores && !notice.removes && unit.is_some_and(|unit| most_stored(unit) > 0) {
            let name = notice.fd_name.clone().unwrap_or_else(|| UNNAMED.to_owned());
            return Want::Store { name, polled: !notice.unpolled };
        }
        Want::Nothing
    }

    fn heed(&mut self, run: Run, notice: notify::Notice, sender: Option<Sender>) {
        let Some(id) = self.service_of(run) else { return };
        // The main process first: what else it says may be about the new one.
        if let (Some(pid), false) = (notice.main_pid, notice.main_pidfd) {
            self.hear_main(run, Claim { pid: Some(pid), id: notice.main_id, sender });
        }
        if let (true, Some(name)) = (notice.removes, &notice.fd_name) {
            self.remove_stored(id, run, name);
        }
        if notice.healed {
            self.feed(id, Event::Healed(run));
        }
        if let Some(ms) = notice.extend_ms {
            self.feed(id, Event::Extended(run, ms));
        }
        if let Some(us) = notice.watchdog_us {
            self.feed(id, Event::Watched(run, us.div_ceil(1_000)));
        }
        if notice.alive {
            self.feed(id, Event::Alive(run));
        }
        if notice.trigger {
            self.feed(id, Event::Trigger(run));
        }
        if notice.reloading {
            self.feed(id, Event::Extended(run, MOST_RELOADING_MS));
        }
        // Where it is probed instead, its own word is not enough.
        let believed = self.unit_of(id).is_some_and(|unit| unit.gate() == Gate::Notify);
        let said = self.notices.of(run);
        let earlier = match notice.reloading {
            true => said.is_some_and(|said| said.is_earlier(notice.monotonic_us)),
            false => said.is_some_and(|said| said.reloads_earlier),
        };
        if notice.ready && believed {
            self.feed(id, Event::Ready(run));
            if !notice.reloading && !earlier {
                self.feed(id, Event::Reloaded(run));
            }
        }
        self.run_events();
        let stores = notice.stores && !notice.removes;
        if stores && self.unit_of(id).is_some_and(|unit| most_stored(unit) == 0) && self.notices.may_tell(run)
        {
            let name = self.name_of(id);
            log::warn!("service={name} run={} FDSTORE=1: none is kept beside `ready = {{ fd = … }}`", run.0);
        }
        self.change_said(run, |said| {
            said.access = notice.access.or(said.access);
            said.reloading = notice.reloading || said.reloading && !notice.ready;
            said.reloads_earlier = earlier && (notice.reloading || !notice.ready);
            said.stopping |= notice.stopping;
            said.errno = notice.errno.or(said.errno).filter(|errno| *errno != 0);
            take_up(&mut said.bus_error, notice.bus_error);
            take_up(&mut said.varlink_error, notice.varlink_error);
            take_up(&mut said.status, notice.status);
        });
    }

    /// Changes what is known of an incarnation from outside of policy; written down where it is something new.
    pub(super) fn change_said(&mut self, run: Run, change: impl FnOnce(&mut Said)) {
        let before = self.notices.said.get(&run).cloned().unwrap_or_default();
        let mut said = before.clone();
        change(&mut said);
        if said != before {
            // Where there is no room for it this manager alone knows it.
            let _ = self.save(state::Kind::Said, run.0, &said);
            self.notices.said.insert(run, said);
            if let Some(id) = self.service_of(run) {
                self.tell_watchers(id);
            }
        }
    }

    /// A line on the pipe of `ready = { fd = N }`.
    fn hear_line(&mut self, run: Run) {
        let Some(pipe) = self.kept.fd(Kind::ReadyPipe, run.0) else { return };
        match line_waits(pipe) {
            Ok(Some(true)) => {
                if let Some(id) = self.service_of(run) {
                    self.feed(id, Event::Ready(run));
                    self.run_events();
                }
            }
            Ok(Some(false)) => {} // closed without a word: `start-timeout` judges that
            Ok(None) => return,
            Err(error) => log::error!("the pipe of incarnation {}: {}", run.0, reason(&error)),
        }
        self.unwatch_voice(run);
        self.kept.drop(Kind::ReadyPipe, run.0);
    }
}

/// Takes up what is new; what is empty takes the old back.
fn take_up(old: &mut Option<String>, new: Option<String>) {
    if let Some(new) = new {
        *old = Some(new).filter(|new| !new.is_empty());
    }
}

/// Whether there is a line end in what a pipe holds: None where there may be one later, false where there will be
/// none. What stands before a line end is taken out; the line end itself stays, for whoever comes after us.
fn line_waits(pipe: std::os::fd::BorrowedFd<'_>) -> io::Result<Option<bool>> {
    let (look, copy) = fds::pipe(libc::O_NONBLOCK)?;
    loop {
        let most = match pipes::tee(pipe, copy.as_fd(), PIECE) {
            Ok(0) => return Ok(Some(false)),
            Ok(count) => count.min(PIECE),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; PIECE];
        let room = bytes.get_mut(..most).unwrap_or_default();
        let count = fds::read(look.as_fd(), room)?;
        if room.get(..count).is_some_and(|seen| seen.contains(&b'\n')) {
            return Ok(Some(true));
        }
        let room = bytes.get_mut(..count).unwrap_or_default();
        fds::read(pipe, room)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_is_found_behind_anything_and_stays() {
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        assert_eq!(line_waits(read.as_fd()).unwrap(), None);
        fds::write(write.as_fd(), &[b'x'; 1_500]).unwrap();
        assert_eq!(line_waits(read.as_fd()).unwrap(), None);
        fds::write(write.as_fd(), b"ready\nmore").unwrap();
        for _ in 0..2 {
            assert_eq!(line_waits(read.as_fd()).unwrap(), Some(true), "a manager that dies now loses it");
        }
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        fds::write(write.as_fd(), b"no line").unwrap();
        drop(write);
        assert_eq!(line_waits(read.as_fd()).unwrap(), Some(false));
    }

    #[test]
    fn one_that_talks_without_end_is_listened_to_now_and_then() {
        let mut notices = Notices::default();
        let read =
            |notices: &mut Notices, at| (0..1_000).filter(|_| notices.may_read(Run(1), Mono(at), 1)).count();
        assert_eq!(read(&mut notices, 100), MOST_IN_WINDOW as usize);
        assert_eq!((read(&mut notices, 599), notices.deadline()), (0, Some(Mono(600))));
        assert_eq!(read(&mut notices, 600), MOST_IN_WINDOW as usize);
        assert!(notices.may_read(Run(2), Mono(601), 1), "another's words are his own");
    }
}
