//! LOG. What the logger is doing, where it outlives it: the state memfd and the tray. Never touches a service's
//! pipe or a log file.
//!
//! One step at a time is under way, for one stream. Its record is stored first and the phase word last, so a
//! successor finds either no step or a whole record:
//!
//! | phase | the entries are | the bytes are |
//! |---|---|---|
//! | idle | – | – |
//! | writing | perhaps in the file; its size tells | all in the pipe |
//! | consuming | settled: in the file, or dropped and counted | in the pipe, but for those that are in the tray |
//! | clearing | the same | as many in the pipe as the record says, whatever is in the tray |
//!
//! The tray is a pipe: what is taken out of a service's pipe moves there without being copied, and stays until
//! the step is over (`sys::pipes::hand_over`). So the kernel counts for us what is out, and the one place where
//! a byte can be is the one or the other. Memfd and tray are held by the keeper as well. A process
//! that is killed ends between two instructions of its own or after a system call is through, and its stores
//! up to there are in the shared pages: so nothing here needs to be undone, only looked at.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use crate::sys::dirs::Identity;
use crate::sys::memfd::{self, Map};
use crate::sys::pipes::{self, Void};
use crate::wire::logger::{LONGEST_NAME, Name, STATE_BYTES};

/// Layout version in the low byte below a word that no other use of a memfd has.
const MAGIC: u64 = u64::from_le_bytes(*b"\x02suplog\0");

const MAGIC_AT: usize = 0;
const PHASE_AT: usize = 8;
const STREAM_AT: usize = 16;
const TAKEN_AT: usize = 24;
const DEVICE_AT: usize = 32;
const INODE_AT: usize = 40;
const BEFORE_AT: usize = 48;
const LENGTH_AT: usize = 56;
const SLOT_AT: usize = 64;
const COUNT_AT: usize = 72;
const NAME_LENGTH_AT: usize = 80;
const NAME_AT: usize = 88;
const REST_AT: usize = 152;
const SLOTS_USED_AT: usize = 160;
const NEXT_OWED_AT: usize = 168;
const OWED_AT: usize = 1024;
const OWED_PLACES: usize = 64;
const DROPS_AT: usize = 4096;
const DROP_SLOTS: usize = (STATE_BYTES - DROPS_AT) / 16;

const IDLE: u64 = 0;
const WRITING: u64 = 1;
const CONSUMING: u64 = 2;
const CLEARING: u64 = 3;

/// A new count of dropped lines for one service, stored together with the step that made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Where this service's count is kept.
    pub slot: usize,
    /// The count from this step on.
    pub count: u64,
}

/// One step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Whose pipe.
    pub stream: u64,
    /// Whose log.
    pub service: Name,
    /// Bytes of the pipe that the step is about.
    pub taken: u64,
    /// The file they go to.
    pub file: Identity,
    /// Its size before.
    pub before: u64,
    /// Bytes to be appended.
    pub length: u64,
    /// What becomes of the service's count of dropped lines.
    pub dropped: Option<Dropped>,
}

/// What a predecessor left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Nothing.
    Nothing,
    /// A step whose entries may be in the file, whole or in part, or not.
    Writing(Record),
    /// A step whose entries are settled, with the bytes that are still in the pipe.
    Consuming(Record, u64),
}

/// The two of them. The memfd also carries the lock that makes this the only logger: it stays open until the
/// process ends, and no other descriptor of it is ever opened here, as closing one would give the lock up.
#[derive(Debug)]
pub struct State {
    map: Map,
    tray: OwnedFd,
    void: Void,
    /// Nothing is in the tray.
    clear: bool,
    _lock: OwnedFd,
}

impl State {
    /// Waits until no other logger runs on this memory, then takes it over.
    ///
    /// Errors: `InvalidData` where the state is not of [`STATE_BYTES`], or of a layout this logger does not know.
    pub fn take(state: OwnedFd, tray: OwnedFd, void: Void) -> io::Result<Self> {
        pipes::lock_whole(state.as_fd())?;
        if memfd::size(state.as_fd())? != STATE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let map = Map::new(state.as_fd(), true)?;
        let mut this = Self { map, tray, void, clear: false, _lock: state };
        match this.get(MAGIC_AT) {
            0 => this.put(MAGIC_AT, MAGIC),
            MAGIC => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        fence(Acquire);
        Ok(this)
    }

    /// Where bytes go that nobody needs.
    pub fn void(&self) -> &Void {
        &self.void
    }

    /// Moves up to `most` bytes out of a service's pipe, in a step that is settled, as `pipes::hand_over` does.
    pub fn take_out(&mut self, pipe: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.clear = false;
        pipes::hand_over(pipe, self.tray.as_fd(), most)
    }

    /// Makes room in the tray in the middle of a step, of which `left` bytes are still in the pipe. False where it
    /// is empty, so that nothing is gained.
    pub fn make_room(&mut self, left: u64) -> io::Result<bool> {
        if pipes::available(self.tray.as_fd())? == 0 {
            return Ok(false);
        }
        self.put(REST_AT, left);
        self.phase(CLEARING);
        self.void.swallow(self.tray.as_fd())?;
        self.put(TAKEN_AT, left);
        self.phase(CONSUMING);
        Ok(true)
    }

    fn clear(&mut self) -> io::Result<()> {
        if !self.clear {
            self.void.swallow(self.tray.as_fd())?;
            self.clear = true;
        }
        Ok(())
    }

    fn get(&self, at: usize) -> u64 {
        self.map.word64(at).map_or(0, |word| word.load(Acquire))
    }

    fn put(&mut self, at: usize, value: u64) {
        if let Some(word) = self.map.word64(at) {
            word.store(value, Relaxed);
        }
    }

    /// Stores the phase after everything stored so far, and before everything stored later.
    fn phase(&mut self, phase: u64) {
        fence(Release);
        if let Some(word) = self.map.word64(PHASE_AT) {
            word.store(phase, Release);
        }
        fence(Release);
    }

    fn record(&mut self, record: &Record) {
        self.put(STREAM_AT, record.stream);
        self.put(TAKEN_AT, record.taken);
        self.put(DEVICE_AT, record.file.device);
        self.put(INODE_AT, record.file.inode);
        self.put(BEFORE_AT, record.before);
        self.put(LENGTH_AT, record.length);
        self.put_dropped(record.dropped);
        let name = record.service.as_str().as_bytes();
        self.put(NAME_LENGTH_AT, name.len() as u64);
        self.map.store(NAME_AT, name);
    }

    fn put_dropped(&mut self, dropped: Option<Dropped>) {
        self.put(SLOT_AT, dropped.map_or(0, |dropped| dropped.slot as u64 + 1));
        self.put(COUNT_AT, dropped.map_or(0, |dropped| dropped.count));
    }

    fn read_record(&self) -> Option<Record> {
        let mut name = [0; LONGEST_NAME];
        let name = name.get_mut(..usize::try_from(self.get(NAME_LENGTH_AT)).ok()?)?;
        self.map.load(NAME_AT, name);
        let slot = usize::try_from(self.get(SLOT_AT)).ok()?;
        let dropped = slot.checked_sub(1).map(|slot| Dropped { slot, count: self.get(COUNT_AT) });
        Some(Record {
            stream: self.get(STREAM_AT),
            service: Name::new(name)?,
            taken: self.get(TAKEN_AT),
            file: Identity { device: self.get(DEVICE_AT), inode: self.get(INODE_AT) },
            before: self.get(BEFORE_AT),
            length: self.get(LENGTH_AT),
            dropped,
        })
    }

    /// Before the write: from here on a successor asks the file.
    pub fn begin(&mut self, record: &Record) -> io::Result<()> {
        self.clear()?;
        self.record(record);
        self.phase(WRITING);
        Ok(())
    }

    /// After the write, or after it was given up: from here on a successor only takes bytes out of the pipe.
    /// The count of dropped lines is this one, whatever [`State::begin`] was told.
    pub fn settle(&mut self, dropped: Option<Dropped>) {
        self.put_dropped(dropped);
        self.phase(CONSUMING);
        self.keep_count(dropped);
    }

    /// A step that only takes bytes out of the pipe, for entries written before.
    pub fn begin_settled(&mut self, record: &Record) -> io::Result<()> {
        self.clear()?;
        self.record(record);
        self.phase(CONSUMING);
        self.keep_count(record.dropped);
        Ok(())
    }

    /// In a step that began settled: so many bytes of the pipe are settled by now.
    pub fn settled(&mut self, taken: u64) {
        fence(Release);
        self.put(TAKEN_AT, taken);
        fence(Release);
    }

    /// The step is over.
    pub fn finish(&mut self) {
        self.phase(IDLE);
        let _ = self.clear(); // else the next step does it, or does not begin
    }

    /// What a predecessor left. Changes nothing, so that it says the same after another death.
    pub fn unfinished(&self) -> io::Result<Unfinished> {
        let (phase, record) = (self.get(PHASE_AT), self.read_record());
        Ok(match (phase, record) {
            (WRITING, Some(record)) => Unfinished::Writing(record),
            (CONSUMING, Some(record)) => {
                let out = pipes::available(self.tray.as_fd())?;
                Unfinished::Consuming(record, record.taken.saturating_sub(out as u64))
            }
            (CLEARING, Some(record)) => Unfinished::Consuming(record, self.get(REST_AT)),
            _ => Unfinished::Nothing,
        })
    }

    /// Notes that `bytes` (0: none any more) of a stream's pipe are written already and only to be taken out.
    ///
    /// There is room for 64 such streams. Each death of a logger leaves one at most, which is cleared when
    /// the stream is added again; the oldest gives way, as streams that never come back stay.
    pub fn owe(&mut self, stream: u64, bytes: u64) {
        let held = self.owed_place(stream);
        if bytes == 0 {
            if let Some(at) = held {
                self.put(at + 8, 0);
            }
            return;
        }
        let free = (0..OWED_PLACES).map(|place| OWED_AT + place * 16).find(|at| self.get(at + 8) == 0);
        let at = held.or(free).unwrap_or_else(|| {
            let next = self.get(NEXT_OWED_AT);
            self.put(NEXT_OWED_AT, next.wrapping_add(1));
            OWED_AT + next as usize % OWED_PLACES * 16
        });
        self.put(at + 8, 0);
        fence(Release);
        self.put(at, stream);
        fence(Release);
        self.put(at + 8, bytes);
        fence(Release);
    }

    /// Bytes of this stream's pipe that are written already.
    pub fn owed(&self, stream: u64) -> u64 {
        self.owed_place(stream).map_or(0, |at| self.get(at + 8))
    }

    fn owed_place(&self, stream: u64) -> Option<usize> {
        let mut places = (0..OWED_PLACES).map(|place| OWED_AT + place * 16);
        places.find(|at| self.get(*at) == stream && self.get(at + 8) != 0)
    }

    /// Where the count of dropped lines of a service is kept: its own place, or a free one, or None when all
    /// are in use; then a death of the logger loses that count.
    pub fn drop_slot(&mut self, service: &Name) -> Option<usize> {
        let name = hash(service);
        let used = usize::try_from(self.get(SLOTS_USED_AT)).unwrap_or(0).min(DROP_SLOTS);
        let at = |slot: usize| DROPS_AT + slot * 16;
        if let Some(slot) = (0..used).find(|slot| self.get(at(*slot)) == name) {
            return Some(slot);
        }
        let slot = match (0..used).find(|slot| self.get(at(*slot) + 8) == 0) {
            Some(free) => free,
            None if used < DROP_SLOTS => used,
            None => return None,
        };
        self.put(at(slot), name);
        self.put(at(slot) + 8, 0);
        fence(Release);
        self.put(SLOTS_USED_AT, used.max(slot + 1) as u64);
        Some(slot)
    }

    /// The count that a predecessor left for a service, with its place.
    pub fn dropped(&self, service: &Name) -> Option<Dropped> {
        let name = hash(service);
        let used = usize::try_from(self.get(SLOTS_USED_AT)).unwrap_or(0).min(DROP_SLOTS);
        let slot = (0..used).find(|slot| self.get(DROPS_AT + slot * 16) == name)?;
        let count = self.get(DROPS_AT + slot * 16 + 8);
        (count > 0).then_some(Dropped { slot, count })
    }

    /// Stores a count by itself.
    pub fn keep_count(&mut self, dropped: Option<Dropped>) {
        if let Some(Dropped { slot, count }) = dropped
            && slot < DROP_SLOTS
        {
            self.put(DROPS_AT + slot * 16 + 8, count);
        }
    }
}

/// FNV-1a, 64 bits: told apart are names that an operator chose, not ones that an attacker did.
fn hash(name: &Name) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    name.as_str().bytes().fold(start, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
