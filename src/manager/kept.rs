//! ROOT. The manager's side of the keeper: what is kept there, with a copy of each descriptor here, and what
//! the keeper says. Never decides what is kept.
//!
//! Messages go out in order. One that finds the queue full waits here, and everything behind it waits too,
//! gates included: a process may only run once its registration has been sent.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::sys::link::Link;
use crate::sys::{clock, fds, files, parent};
use crate::wire::keeper::{BATCH, Entry, FIRST_FREE_SLOT, HEAD, Head, Kind, MESSAGE, Verb, several};

/// Milliseconds that a keeper has to answer at the start; it does nothing that takes longer.
const ANSWER_MS: u64 = 5_000;
/// Milliseconds for which whoever has sockets closed waits for the keeper's copies.
const CLOSING_MS: u64 = 5_000;

/// A kept descriptor and its slot.
#[derive(Debug)]
pub struct Held {
    /// Where the keeper has it.
    pub slot: u32,
    /// Our copy.
    pub fd: OwnedFd,
}

/// What the keeper said.
#[derive(Debug)]
pub enum News {
    /// There are exit records.
    Exits,
    /// There is a new zygote.
    Zygote(Link),
    /// There is a new logger.
    Logger(Link),
    /// A signal came for the supervisor.
    Signal(i32),
    /// The keeper has ended.
    Ended,
}

#[derive(Debug)]
enum Out {
    Plain(Head),
    With(Head, OwnedFd),
    Gate(OwnedFd),
}

/// Everything kept.
#[derive(Debug)]
pub struct Kept {
    link: Option<Link>,
    outbox: VecDeque<Out>,
    table: BTreeMap<(Kind, u64), Held>,
    free: Vec<u32>,
    /// Free slots in which the keeper still has what was there: the next to be used, and then nothing need be said.
    vacated: Vec<u32>,
    next: u32,
    capacity: u32,
    graves: super::graves::Graves,
    closing_until_ms: u64,
    /// Number of this manager among those of its keeper.
    pub manager: u64,
    /// The keeper's own id, which tells its children from those of one that has died.
    pub keeper: u64,
    /// The keeper's pid.
    pub keeper_pid: u32,
}

fn protocol(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the keeper {what}"))
}

impl Kept {
    /// Before anything is known of the keeper at the other end.
    fn new(link: Link) -> Self {
        Self {
            link: Some(link),
            outbox: VecDeque::new(),
            table: BTreeMap::new(),
            free: Vec::new(),
            vacated: Vec::new(),
            next: FIRST_FREE_SLOT,
            capacity: 0,
            graves: super::graves::Graves::default(),
            closing_until_ms: 0,
            manager: 0,
            keeper: 0,
            keeper_pid: 0,
        }
    }

    /// Greets the keeper and takes a copy of everything it has; also what it said meanwhile.
    pub fn take(link: Link) -> io::Result<(Self, Vec<News>)> {
        let mut kept = Self::new(link);
        let mut news = Vec::new();
        kept.say(Head::plain(Verb::Hello, 0));
        while kept.capacity == 0 {
            kept.take_one(&mut news)?;
        }
        let mut from = Some(0);
        while let Some(slot) = from {
            let mut head = Head::plain(Verb::Give, 0);
            head.entry.slot = slot;
            kept.say(head);
            from = loop {
                if let Some(next) = kept.take_one(&mut news)? {
                    break (next != 0).then_some(next);
                }
            };
        }
        let used: Vec<u32> = kept.table.values().map(|held| held.slot).collect();
        kept.next = used.iter().max().map_or(FIRST_FREE_SLOT, |most| (most + 1).max(FIRST_FREE_SLOT));
        kept.free = (FIRST_FREE_SLOT..kept.next).filter(|slot| !used.contains(slot)).collect();
        Ok((kept, news))
    }

    /// Waits for one message of the greeting; the next slot where it was a batch.
    fn take_one(&mut self, news: &mut Vec<News>) -> io::Result<Option<u32>> {
        let deadline = clock::monotonic_ms() + ANSWER_MS;
        loop {
            let mut bytes = [0; MESSAGE];
            let mut fds: [Option<OwnedFd>; BATCH] = [const { None }; BATCH];
            let link = self.link.as_ref().ok_or_else(|| protocol("has ended"))?;
            match link.receive(&mut bytes, &mut fds) {
                Ok(Some(got)) => {
                    let head = bytes.get(..got.bytes).and_then(Head::decode);
                    let head = head.ok_or_else(|| protocol("speaks another version"))?;
                    if head.verb == Verb::Batch {
                        let entries = bytes.get(HEAD..got.bytes).unwrap_or_default();
                        self.take_batch(entries, &mut fds)?;
                        return Ok(Some(head.entry.slot));
                    }
                    let [first, ..] = fds;
                    self.heed(head, first, news);
                    return Ok(None);
                }
                Ok(None) => return Err(protocol("has ended")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_sub(clock::monotonic_ms());
                    if left == 0 {
                        return Err(protocol("does not answer"));
                    }
                    parent::wait(&[link.as_fd()], left as i32, &mut [false])?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take_batch(&mut self, entries: &[u8], fds: &mut [Option<OwnedFd>]) -> io::Result<()> {
        for (piece, fd) in entries.chunks_exact(crate::wire::keeper::ENTRY).zip(fds) {
            let entry = Entry::decode(piece).ok_or_else(|| protocol("sent half an entry"))?;
            let fd = fd.take().ok_or_else(|| protocol("sent an entry without its descriptor"))?;
            // A kind of another version stays where it is: the keeper's copy is not touched.
            if let Some(kind) = Kind::from_number(entry.kind) {
                self.table.insert((kind, entry.id), Held { slot: entry.slot, fd });
            }
        }
        Ok(())
    }

    fn heed(&mut self, head: Head, fd: Option<OwnedFd>, news: &mut Vec<News>) {
        match (head.verb, fd) {
            (Verb::Welcome, _) => {
                self.capacity = head.entry.slot;
                self.keeper = head.entry.id;
                self.keeper_pid = head.entry.pid;
                self.manager = head.value;
            }
            (Verb::Exited, _) => news.push(News::Exits),
            (Verb::Zygote, Some(fd)) => news.push(News::Zygote(Link::from_fd(fd))),
            (Verb::Logger, Some(fd)) => news.push(News::Logger(Link::from_fd(fd))),
            (Verb::Signal, _) => news.push(News::Signal(head.value as i32)),
            (Verb::Batch, _) => {
                if self.graves.answered() {
                    self.ask_for_answer();
                }
            }
            (
                Verb::Zygote
                | Verb::Logger
                | Verb::Hello
                | Verb::Give
                | Verb::Put
                | Verb::Drop
                | Verb::Ready
                | Verb::Finish,
                _,
            ) => log::warn!("the keeper sent a message that makes no sense here"),
        }
    }

    /// Takes everything the keeper has said.
    pub fn listen(&mut self, news: &mut Vec<News>) {
        loop {
            let Some(link) = &self.link else { return };
            let mut bytes = [0; MESSAGE];
            let mut fd = [None];
            match link.receive(&mut bytes, &mut fd) {
                Ok(Some(got)) => {
                    let [fd] = fd;
                    if let Some(head) = bytes.get(..got.bytes).and_then(Head::decode) {
                        self.heed(head, fd, news);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => {
                    self.link = None;
                    self.graves.keeper_ended();
                    news.push(News::Ended);
                    self.flush(); // nobody registers any more: what waits goes on as it is
                }
            }
        }
    }

    /// The link.
    pub fn link(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(AsFd::as_fd)
    }

    /// The link's number, to be watched.
    pub fn raw_link(&self) -> Option<RawFd> {
        self.link.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Keeps no more than so many from now on: each takes a descriptor here as well, and others need some.
    pub fn keep_at_most(&mut self, slots: u32) {
        self.capacity = self.capacity.min(slots);
    }

    /// Keeps a descriptor. Refused where the table is full: the number of slots follows from the limit on
    /// open descriptors.
    pub fn put(&mut self, kind: Kind, id: u64, pid: u32, fd: OwnedFd) -> io::Result<()> {
        let slot = match self.table.remove(&(kind, id)) {
            Some(held) => held.slot,
            None => self.free_slot().ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?,
        };
        let mut head = Head::plain(Verb::Put, 0);
        head.entry = Entry { slot, kind: kind as u32, id, pid };
        let sent_now = self.outbox.is_empty()
            && self.link.as_ref().is_some_and(|link| link.send(&head.encode(), &[fd.as_fd()]).is_ok());
        if !sent_now && self.link.is_some() {
            self.outbox.push_back(Out::With(head, fds::duplicate(fd.as_fd())?));
        }
        self.table.insert((kind, id), Held { slot, fd });
        Ok(())
    }

    /// Keeps several descriptors of one owner, with one message where that is possible. None of them where
    /// there is no room for all.
    pub fn put_all(&mut self, id: u64, owned: Vec<(Kind, u32, OwnedFd)>) -> io::Result<()> {
        let fresh = owned.iter().filter(|(kind, ..)| !self.table.contains_key(&(*kind, id))).count();
        if fresh > self.room() {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let mut entries = Vec::with_capacity(owned.len());
        for (kind, pid, _) in &owned {
            let slot = match self.table.get(&(*kind, id)) {
                Some(held) => held.slot,
                None => self.free_slot().ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?,
            };
            entries.push(Entry { slot, kind: *kind as u32, id, pid: *pid });
        }
        let sent_now = self.outbox.is_empty() && self.send_several(&entries, &owned);
        if !sent_now && self.link.is_some() {
            let copies: io::Result<Vec<OwnedFd>> =
                owned.iter().map(|(_, _, fd)| fds::duplicate(fd.as_fd())).collect();
            let copies = copies.inspect_err(|_| {
                let fresh = entries
                    .iter()
                    .zip(&owned)
                    .filter(|(_, (kind, ..))| !self.table.contains_key(&(*kind, id)));
                self.vacated.extend(fresh.map(|(entry, _)| entry.slot));
            })?;
            let heads = entries.iter().map(|entry| Head { verb: Verb::Put, entry: *entry, value: 0 });
            self.outbox.extend(heads.zip(copies).map(|(head, copy)| Out::With(head, copy)));
        }
        for (entry, (kind, _, fd)) in entries.into_iter().zip(owned) {
            self.table.insert((kind, id), Held { slot: entry.slot, fd });
        }
        Ok(())
    }

    fn send_several(&self, entries: &[Entry], fds: &[(Kind, u32, OwnedFd)]) -> bool {
        let mut place = [0; MESSAGE];
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|(_, _, fd)| fd.as_fd()).collect();
        match (&self.link, several(Verb::Put, entries, &mut place)) {
            (Some(link), Some(bytes)) => link.send(bytes, &borrowed).is_ok(),
            (Some(_) | None, _) => false,
        }
    }

    /// Keeps none of these kinds of an owner any longer.
    pub fn drop_all(&mut self, kinds: &[Kind], id: u64) {
        for kind in kinds {
            self.drop(*kind, id);
        }
    }

    /// Keeps it no longer. What nobody outside can miss goes from the keeper when something takes its place, or
    /// with [`Kept::give_up`].
    pub fn drop(&mut self, kind: Kind, id: u64) {
        let Some(held) = self.table.remove(&(kind, id)) else { return };
        if matches!(kind, Kind::Process | Kind::Stdout | Kind::Stderr | Kind::Report | Kind::Cgroup) {
            self.vacated.push(held.slot);
            if self.vacated.len() >= BATCH {
                self.give_up();
            }
            return;
        }
        self.free.push(held.slot);
        let mut head = Head::plain(Verb::Drop, 0);
        head.entry.slot = held.slot;
        self.say(head);
    }

    /// The same for what others may want at once: its address. [`Self::is_closing`] until the keeper has closed it too.
    pub fn close(&mut self, kind: Kind, id: u64) {
        self.drop(kind, id);
        if self.link.is_some() {
            self.closing_until_ms = clock::monotonic_ms() + CLOSING_MS;
            if self.graves.wait() {
                self.ask_for_answer();
            }
        }
    }

    /// Whether the keeper still has what was closed, as far as that is waited for.
    pub fn is_closing(&self) -> bool {
        self.graves.is_awaited() && clock::monotonic_ms() < self.closing_until_ms
    }

    /// Has the keeper drop everything that is not kept any longer, with one message where that is possible.
    pub fn give_up(&mut self) {
        let slots = std::mem::take(&mut self.vacated);
        let entries: Vec<Entry> =
            slots.iter().map(|slot| Entry { slot: *slot, ..Entry::default() }).collect();
        self.free.extend(slots);
        let mut place = [0; MESSAGE];
        let sent = match (&self.link, several(Verb::Drop, &entries, &mut place)) {
            (Some(link), Some(bytes)) if self.outbox.is_empty() => link.send(bytes, &[]).is_ok(),
            (Some(_) | None, _) => false,
        };
        if !sent {
            for entry in entries {
                self.say(Head { verb: Verb::Drop, entry, value: 0 });
            }
        }
    }

    /// Gives up the lock of a path. Its file goes first: the keeper's copy is closed only after a while, and whoever wants
    /// the path meanwhile makes another.
    pub fn drop_lock(&mut self, id: u64) {
        if let Some(lock) = self.fd(Kind::PathLock, id) {
            files::remove_lock(lock);
        }
        self.drop(Kind::PathLock, id);
    }

    /// Keeps a descriptor of somebody's making: at once or not at all. One that cannot travel (ETOOMANYREFS) would
    /// hold up everything behind it. The table keeps room for our own.
    pub fn put_now(&mut self, kind: Kind, id: u64, fd: OwnedFd) -> Result<(), (io::Error, OwnedFd)> {
        let Some(slot) = self.free_slot() else {
            return Err((io::Error::from_raw_os_error(libc::EMFILE), fd));
        };
        let mut head = Head::plain(Verb::Put, 0);
        head.entry = Entry { slot, kind: kind as u32, id, pid: 0 };
        let sent = match &self.link {
            Some(link) if self.outbox.is_empty() => link.send(&head.encode(), &[fd.as_fd()]),
            Some(_) => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            None => Ok(()), // the table itself is handed over later
        };
        if let Err(error) = sent {
            self.vacated.push(slot); // the keeper may have something there still
            return Err((error, fd));
        }
        self.table.insert((kind, id), Held { slot, fd });
        Ok(())
    }

    /// How many descriptors of services' making the table has room for, beside ours.
    pub fn most_foreign(&self) -> usize {
        self.capacity as usize / 2
    }

    /// Keeps a descriptor of somebody's making no longer. Whoever closes the last copy may have to wait for somebody,
    /// so ours stays open until the keeper has closed its own, and is then let go by [`Self::exhumed`].
    pub fn bury(&mut self, kind: Kind, id: u64) {
        let Some(held) = self.table.remove(&(kind, id)) else { return };
        self.free.push(held.slot);
        let mut head = Head::plain(Verb::Drop, 0);
        head.entry.slot = held.slot;
        self.say(head);
        if self.graves.dig(held.fd, self.link.is_some()) {
            self.ask_for_answer();
        }
    }

    /// What the keeper has closed.
    pub fn exhumed(&mut self) -> Vec<OwnedFd> {
        self.graves.exhumed()
    }

    /// Asks for what is in no slot: the answer comes behind all that was said before.
    fn ask_for_answer(&mut self) {
        let mut head = Head::plain(Verb::Give, 0);
        head.entry.slot = u32::MAX;
        self.say(head);
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.vacated.pop().or_else(|| self.free.pop()) {
            return Some(slot);
        }
        if self.next >= self.capacity {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// How many descriptors it has room for in all.
    pub const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Slots that are not used.
    fn room(&self) -> usize {
        self.vacated.len() + self.free.len() + self.capacity.saturating_sub(self.next) as usize
    }

    /// Our copy of a kept descriptor.
    pub fn fd(&self, kind: Kind, id: u64) -> Option<BorrowedFd<'_>> {
        self.table.get(&(kind, id)).map(|held| held.fd.as_fd())
    }

    /// The ids of a kind, in order.
    pub fn ids(&self, kind: Kind) -> Vec<u64> {
        self.table.range((kind, 0)..=(kind, u64::MAX)).map(|((_, id), _)| *id).collect()
    }

    /// Everything that is kept.
    pub fn all(&self) -> impl Iterator<Item = (Kind, u64, &Held)> {
        self.table.iter().map(|((kind, id), held)| (*kind, *id, held))
    }

    /// Opens a gate behind everything that has been said so far.
    pub fn open_gate(&mut self, gate: OwnedFd) {
        self.outbox.push_back(Out::Gate(gate));
        self.flush();
    }

    /// Says that this manager works.
    pub fn ready(&mut self) {
        self.say(Head::plain(Verb::Ready, 0));
    }

    /// Says that all is done.
    pub fn finish(&mut self, status: u8) {
        self.say(Head::plain(Verb::Finish, status.into()));
    }

    fn say(&mut self, head: Head) {
        self.outbox.push_back(Out::Plain(head));
        self.flush();
    }

    /// Whether something waits for room in the queue.
    pub fn waits(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what waits, until the queue is full. True where all is sent.
    pub fn flush(&mut self) -> bool {
        while let Some(out) = self.outbox.front() {
            let sent = match (out, &self.link) {
                (Out::Gate(gate), _) => {
                    // A child that is gone already needs no gate; its exit tells the rest.
                    let _ = fds::write(gate.as_fd(), b"1");
                    Ok(())
                }
                (Out::Plain(head), Some(link)) => link.send(&head.encode(), &[]),
                (Out::With(head, fd), Some(link)) => link.send(&head.encode(), &[fd.as_fd()]),
                (Out::Plain(_) | Out::With(..), None) => Ok(()), // the table itself is handed over later
            };
            match sent {
                Err(error) if is_full(&error) => return false,
                // A keeper that is gone is news of its own.
                Ok(()) | Err(_) => drop(self.outbox.pop_front()),
            }
        }
        true
    }

    /// Waits until all is sent, at most some milliseconds.
    pub fn flush_within(&mut self, most_ms: u64) {
        let deadline = clock::monotonic_ms() + most_ms;
        while !self.flush() && clock::monotonic_ms() < deadline {
            let _ = parent::wait(&[], 1, &mut []);
        }
    }
}

/// Whether a send failed only because the peer has not read yet.
pub fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

#[cfg(test)]
mod tests;
