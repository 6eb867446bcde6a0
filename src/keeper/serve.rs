//! ROOT. The keeper's loop: take what the manager puts, write exits down before reaping, pass signals on,
//! start again who died. Never allocates.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::children::Child;
use super::say;
use super::start::EXITS_SLOT;
use crate::sys::link::Link;
use crate::sys::memfd::Map;
use crate::sys::slots::Slots;
use crate::sys::{clock, memory, parent};
use crate::wire::keeper::{BATCH, ENTRY, ExitRecord, HEAD, Head, Kind, MESSAGE, Verb, entries, exits};

/// Exits taken in one turn, so that an orphan storm cannot keep the manager waiting.
const REAPS_A_TURN: usize = 64;
/// Milliseconds after which a message that found the manager's queue full is tried again.
const AGAIN_MS: u64 = 10;
/// Milliseconds that the logger has for the last lines when everything ends.
const LAST_LINES_MS: u64 = 2_000;
/// Milliseconds more after which killed children are waited for no longer.
const LAST_ENDS_MS: u64 = 1_000;

/// News for the manager that found no room in its queue yet. Each is a fact, not a count, so none is lost.
#[derive(Default)]
struct Owed {
    welcome: bool,
    zygote: bool,
    logger: bool,
    exits: bool,
    signals: u64,
    batch: Option<u32>,
}

/// Everything the keeper has.
pub struct Keeper {
    slots: Slots,
    exits: Map,
    signals: OwnedFd,
    binary: OwnedFd,
    id: u64,
    zygote: Child,
    logger: Child,
    manager: Child,
    managers: u64,
    attached: bool,
    owed: Owed,
    finish: Option<(u8, u64)>,
}

impl Keeper {
    /// A keeper that has started nothing yet.
    pub fn new(
        slots: Slots,
        exits: Map,
        signals: OwnedFd,
        binary: OwnedFd,
        id: u64,
        [zygote, logger, manager]: [Child; 3],
    ) -> Self {
        Self {
            slots,
            exits,
            signals,
            binary,
            id,
            zygote,
            logger,
            manager,
            managers: 0,
            attached: false,
            owed: Owed::default(),
            finish: None,
        }
    }

    /// Runs until the manager says `Finish`; the status it gave.
    pub fn serve(mut self) -> io::Result<u8> {
        loop {
            let now_ms = clock::monotonic_ms();
            if let Some((status, until_ms)) = self.finish {
                let logger_done = self.logger.pid.is_none() || now_ms >= until_ms;
                if self.manager.pid.is_none() && logger_done {
                    self.zygote.kill();
                    self.logger.kill();
                    // Nothing of us is left when our parent learns of our end.
                    let all_gone = self.zygote.pid.is_none() && self.logger.pid.is_none();
                    if all_gone || now_ms >= until_ms + LAST_ENDS_MS {
                        return Ok(status);
                    }
                }
            } else {
                self.start_due(now_ms);
            }
            self.pay();
            self.wait(now_ms)?;
            self.take_signals()?;
            self.listen();
            self.reap()?;
        }
    }

    fn start_due(&mut self, now_ms: u64) {
        let is_due = |child: &Child| child.due().is_some_and(|at| now_ms >= at);
        if is_due(&self.zygote) {
            self.zygote.start(self.binary.as_fd(), &[], now_ms);
            self.owed.zygote = self.zygote.pid.is_some();
        }
        if is_due(&self.logger) {
            let state = self.slots.get(1).map(|(_, fd)| fd);
            let tray = self.slots.get(2).map(|(_, fd)| fd);
            if let (Some(state), Some(tray)) = (state, tray) {
                self.logger.start(self.binary.as_fd(), &[state, tray], now_ms);
                self.owed.logger = self.logger.pid.is_some();
            }
        }
        if is_due(&self.manager) {
            self.attached = false;
            self.manager.start(self.binary.as_fd(), &[], now_ms);
        }
    }

    fn wait(&mut self, now_ms: u64) -> io::Result<()> {
        let mut until = None;
        let mut soonest = |at: u64| until = Some(until.map_or(at, |other: u64| other.min(at)));
        match self.finish {
            Some((_, at)) => soonest(at.max(now_ms + AGAIN_MS)),
            None => [&self.zygote, &self.logger, &self.manager]
                .into_iter()
                .filter_map(Child::due)
                .for_each(&mut soonest),
        }
        if self.attached && self.owes() {
            soonest(now_ms + AGAIN_MS);
        }
        let timeout = until.map_or(-1, |at| at.saturating_sub(now_ms).min(60_000) as i32);
        let mut ready = [false; 2];
        match &self.manager.link {
            Some(link) => parent::wait(&[self.signals.as_fd(), link.as_fd()], timeout, &mut ready),
            None => parent::wait(&[self.signals.as_fd()], timeout, &mut ready),
        }
    }

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = parent::next_signal(self.signals.as_fd())? {
            if signal == libc::SIGCHLD {
                continue; // `reap` looks anyway
            }
            let ends = matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT);
            if ends && self.manager.is_hopeless() {
                say(format_args!("no manager can be started: exiting; the services run on"));
                self.finish = Some((1, 0));
                self.manager.kill();
            }
            self.owed.signals |= 1 << (signal & 63);
        }
        Ok(())
    }

    // ---- the manager ---------------------------------------------------------------------------------

    /// Takes every message that is there. A link that ended is dropped; SIGCHLD brings the rest.
    fn listen(&mut self) {
        let mut bytes = [0; MESSAGE];
        loop {
            let mut fds = [const { None }; BATCH];
            let Some(link) = &self.manager.link else { return };
            match link.receive(&mut bytes, &mut fds) {
                Ok(Some(got)) => {
                    let bytes = bytes.get(..got.bytes).unwrap_or_default();
                    match Head::decode(bytes) {
                        Some(head) => self.heed(head, bytes, &mut fds),
                        None => say(format_args!("the manager said something that is not understood")),
                    }
                }
                Ok(None) => {
                    self.manager.link = None;
                    self.attached = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    say(format_args!("cannot hear the manager: {error}"));
                    self.manager.link = None;
                    self.attached = false;
                    self.manager.kill(); // a manager that is not heard cannot record anything
                }
            }
        }
    }

    fn heed(&mut self, head: Head, bytes: &[u8], fds: &mut [Option<OwnedFd>]) {
        match head.verb {
            Verb::Hello => {
                self.managers += 1;
                self.attached = true;
                let signals = self.owed.signals;
                self.owed =
                    Owed { welcome: true, zygote: true, logger: true, exits: true, signals, batch: None };
            }
            Verb::Give => self.owed.batch = Some(head.entry.slot),
            Verb::Put => {
                for (entry, fd) in entries(&head, bytes).zip(fds) {
                    if let Some(fd) = fd.take()
                        && !self.slots.put(entry, fd)
                    {
                        say(format_args!("there is no slot {} for a descriptor", entry.slot));
                    }
                }
            }
            Verb::Drop => entries(&head, bytes).for_each(|entry| self.slots.clear(entry.slot)),
            Verb::Ready => {
                self.manager.steady();
                memory::give_back(); // what only the start needed
            }
            Verb::Finish => {
                self.finish = Some((head.value as u8, clock::monotonic_ms() + LAST_LINES_MS));
            }
            Verb::Welcome | Verb::Batch | Verb::Exited | Verb::Zygote | Verb::Logger | Verb::Signal => {}
        }
        if matches!(head.verb, Verb::Hello | Verb::Give) {
            self.pay();
        }
    }

    fn owes(&self) -> bool {
        let owed = &self.owed;
        owed.welcome || owed.zygote || owed.logger || owed.exits || owed.signals != 0 || owed.batch.is_some()
    }

    /// Sends what is owed, until all is or the queue is full.
    fn pay(&mut self) {
        let Some(link) = &self.manager.link else { return };
        if !self.attached {
            return;
        }
        let owed = &mut self.owed;
        let plain = |due: &mut bool, head: Head, fd: Option<BorrowedFd<'_>>| {
            if *due {
                let sent = match fd {
                    Some(fd) => link.send(&head.encode(), &[fd]),
                    None => link.send(&head.encode(), &[]),
                };
                *due = sent.is_err();
            }
        };
        let mut welcome = Head::plain(Verb::Welcome, self.managers);
        welcome.entry.slot = self.slots.len() as u32;
        welcome.entry.id = self.id;
        welcome.entry.pid = std::process::id();
        plain(&mut owed.welcome, welcome, None);
        match &self.zygote.link {
            Some(zygote) => plain(&mut owed.zygote, Head::plain(Verb::Zygote, 0), Some(zygote.as_fd())),
            None => owed.zygote = false, // a new one brings the news itself
        }
        match &self.logger.link {
            Some(logger) => plain(&mut owed.logger, Head::plain(Verb::Logger, 0), Some(logger.as_fd())),
            None => owed.logger = false,
        }
        let written = self.exits.word64(exits::WRITTEN).map_or(0, |word| word.load(Ordering::Acquire));
        plain(&mut owed.exits, Head::plain(Verb::Exited, written), None);
        for signal in 1..64u64 {
            let mut due = owed.signals & (1 << signal) != 0;
            if due {
                plain(&mut due, Head::plain(Verb::Signal, signal), None);
                if !due {
                    owed.signals &= !(1 << signal);
                }
            }
        }
        if let Some(from) = owed.batch
            && give(&self.slots, link, from)
        {
            owed.batch = None;
        }
    }

    // ---- exits ---------------------------------------------------------------------------------------

    /// Writes down and reaps ended children, a bounded number a turn.
    fn reap(&mut self) -> io::Result<()> {
        for _ in 0..REAPS_A_TURN {
            let Some(ended) = parent::peek()? else { return Ok(()) };
            // A registration that was sent before the process could end is in the queue by now.
            self.listen();
            let now_ms = clock::monotonic_ms();
            let pid = Some(ended.pid);
            let finishing = self.finish.is_some();
            let ours = [&mut self.zygote, &mut self.logger, &mut self.manager]
                .into_iter()
                .find(|child| child.pid == pid);
            if let Some(child) = ours {
                if finishing {
                    child.pid = None;
                } else {
                    child.ended(ended.code, ended.status, now_ms);
                }
            } else if let Some(run) = self.slots.take_registered(ended.pid) {
                let record =
                    ExitRecord { run, pid: ended.pid, code: ended.code, status: ended.status, at_ms: now_ms };
                self.write_down(record);
            } else if let Some(strangers) = self.exits.word64(exits::STRANGERS) {
                strangers.fetch_add(1, Ordering::Relaxed);
            }
            parent::reap(ended.pid)?;
        }
        // There may be more: come back without waiting. A signal that was merged away rings no more.
        self.owed.exits = true;
        parent::signal_child(std::process::id(), libc::SIGCHLD)
    }

    fn write_down(&mut self, record: ExitRecord) {
        let (Some(written), Some(places)) =
            (self.exits.word64(exits::WRITTEN), self.exits.word64(exits::PLACES))
        else {
            return;
        };
        let (count, places) = (written.load(Ordering::Acquire), places.load(Ordering::Acquire));
        self.exits.store(exits::offset(count, places), &record.encode());
        written.store(count + 1, Ordering::Release);
        self.owed.exits = true;
    }
}

/// Sends up to [`BATCH`] entries from `from` on; false where the queue was full. What a service has made goes alone,
/// and where it cannot travel (ETOOMANYREFS) it is passed over: nothing else may wait for it.
fn give(slots: &Slots, link: &Link, from: u32) -> bool {
    let Some((_, filler)) = slots.get(EXITS_SLOT) else { return true };
    let mut bytes = [0; MESSAGE];
    let mut fds = [filler; BATCH];
    let mut count = 0;
    let mut slot = from;
    let mut alone = false;
    while (slot as usize) < slots.end() && count < BATCH && !alone {
        if let Some((entry, fd)) = slots.get(slot) {
            alone = entry.kind == Kind::Stored as u32;
            if alone && count > 0 {
                break;
            }
            let at = HEAD + count * ENTRY;
            if let (Some(place), Some(carried)) = (bytes.get_mut(at..at + ENTRY), fds.get_mut(count)) {
                place.copy_from_slice(&entry.encode());
                *carried = fd;
                count += 1;
            }
        }
        slot += 1;
    }
    let mut head = Head::plain(Verb::Batch, count as u64);
    head.entry.slot = if (slot as usize) < slots.end() { slot } else { 0 };
    if let Some(place) = bytes.get_mut(..HEAD) {
        place.copy_from_slice(&head.encode());
    }
    let (Some(message), Some(fds)) = (bytes.get(..HEAD + count * ENTRY), fds.get(..count)) else {
        return true;
    };
    match link.send(message, fds) {
        Err(error) if alone && error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
            head.value = 0;
            link.send(&head.encode(), &[]).is_ok()
        }
        sent => sent.is_ok(),
    }
}
