//! LOG. One step: bytes of one pipe to entries in one file, exactly once. Never waits, never holds bytes from
//! one step to the next.
//!
//! A step looks into the pipe without taking anything (tee), writes the entries, and only then takes out the
//! bytes they were made of. `state` says how a successor finishes what a killed logger began.

use std::io;
use std::os::fd::AsFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use memchr::{memchr_iter, memrchr};

use crate::sys::dirs::Identity;
use crate::sys::{fds, pipes};
use crate::wire::cri::{self, Framed, LONGEST_ENTRY, Stamp, Tail, Which, parse_stamp};
use crate::wire::logger::{Name, Place, TRAY_BYTES, To, WhenFull};

use super::away::{self, Away, Refused};
use super::glass::{Glass, Look};
use super::shelf::{Shelf, Target, Trouble, Written};
use super::state::{Dropped, Record, State, Unfinished};
use super::stream::Stream;

/// Bytes looked at in one step, and so the most that one service gets before the next has its turn.
pub const LOOK_BYTES: usize = TRAY_BYTES;
/// Room for the entries of one step: lines of 60 bytes and more pass without a second step.
const OUT_BYTES: usize = 2 * LOOK_BYTES;
/// One slot of a pipe.
const PAGE_BYTES: usize = 4096;
/// Pipes that are larger at a time: a quarter of what the kernel grants an ordinary user altogether.
const MOST_LARGE: usize = 16;

const _: () = assert!(OUT_BYTES >= 2 * LONGEST_ENTRY);

/// What a step says about the next one of the same stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There may be more.
    Again,
    /// Not before something comes.
    Wait,
    /// The kernel had no memory for it, or who takes the lines no room: a little later.
    Later,
    /// The disk is full, and the service waits: some time later.
    Full,
    /// There will never be more, and everything is written.
    Closed,
}

/// What became of the entries of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// Nothing: there is no room, and the service is to wait.
    Not,
    /// They are dropped and counted, all of them or some.
    Dropped,
    /// They are in the file from here on.
    At(u64),
}

/// The buffers and the files.
#[derive(Debug)]
pub struct Intake {
    /// What a successor will want to know.
    pub state: State,
    /// Where entries go.
    pub shelf: Shelf,
    /// Where lines go that are not for files.
    pub away: Away,
    /// Nothing may wait any longer: what finds no room is dropped.
    pub last: bool,
    raw: Box<[u8]>,
    out: Box<[u8]>,
    glass: Glass,
    large: usize,
}

impl Intake {
    /// With the buffers every step uses; nothing else here grows with what comes.
    pub fn new(state: State, shelf: Shelf, away: Away, glass: Glass) -> Self {
        let (raw, out) = (vec![0; LOOK_BYTES].into(), vec![0; OUT_BYTES].into());
        Self { state, shelf, away, last: false, raw, out, glass, large: 0 }
    }

    /// Brings a predecessor's last step to an end. Every part of it may be done again after another death.
    pub fn recover(&mut self) -> io::Result<Option<Trouble>> {
        let mut trouble = None;
        match self.state.unfinished()? {
            Unfinished::Nothing => {}
            Unfinished::Consuming(record, rest) => {
                self.state.keep_count(record.dropped);
                self.state.owe(record.stream, rest);
            }
            Unfinished::Writing(record) => {
                match self.shelf.settle(&record.service, record.file, record.before, record.length) {
                    Ok(Written::All) => {
                        self.state.keep_count(record.dropped);
                        self.state.owe(record.stream, record.taken);
                    }
                    Ok(Written::Nothing) => {} // everything is still in the pipe
                    Err(error) => trouble = Some(error),
                }
            }
        }
        self.state.finish();
        Ok(trouble)
    }

    /// One step for one stream.
    pub fn step(&mut self, stream: &mut Stream, now: Instant) -> Next {
        (stream.parked, stream.not_before) = (None, None);
        self.try_step(stream, now).unwrap_or(Next::Later)
    }

    fn try_step(&mut self, stream: &mut Stream, now: Instant) -> io::Result<Next> {
        if stream.owed > 0 {
            self.pay(stream)?;
            return Ok(Next::Again);
        }
        let seen = match self.glass.look(stream, &mut self.raw)? {
            Look::Nothing => return self.rest(stream),
            Look::End => return Ok(Next::Closed),
            Look::Bytes(seen) => seen,
        };
        let stamp = stamp();
        let to = self.shelf.rule(&stream.service).to;
        let to = if to != To::File && self.away.is_there(to, now) { to } else { To::File };
        if to == To::Inherit && !self.away.flush() {
            return Ok(Next::Later);
        }
        let ended = stream.hung_up && pipes::available(stream.pipe.as_fd())? == seen;
        let first = if to == To::File { self.announce(&stream.service, &stamp) } else { 0 };
        let mut tail = if ended { Tail::End } else { Tail::Hold };
        let mut framed = self.frame(stream, first, seen, &stamp, (to, tail));
        if framed.taken == 0 {
            if stream.tail && self.glass.is_full(stream, self.state.void())? {
                let empty = stream.capacity <= PAGE_BYTES || seen == 1;
                tail = if empty { Tail::Empty } else { Tail::Squeeze };
                framed = self.frame(stream, first, seen, &stamp, (to, tail));
            } else if !stream.tail {
                stream.tail = true;
                return Ok(Next::Again);
            } else if stream.listens() {
                // Everything from here on raises a signal, and nothing came since the look.
                if pipes::available(stream.pipe.as_fd())? != seen {
                    return Ok(Next::Again);
                }
                stream.parked = Some(seen);
                return Ok(Next::Wait);
            } else {
                // A writer could fill this pipe unheard, so it must not be left with half a line in it.
                tail = Tail::Empty;
                framed = self.frame(stream, first, seen, &stamp, (to, tail));
            }
        }
        let done = match to {
            To::File => self.put_away(stream, first, framed, &stamp, now)?,
            To::Inherit | To::Journal | To::Syslog => {
                self.send_away(stream, to, (seen, tail), framed.entries, &stamp, now)?
            }
        };
        if done != Next::Again {
            return Ok(done);
        }
        stream.steps.wrote();
        if stream.is_pressed(framed.taken) && self.large < MOST_LARGE && stream.grow() {
            self.large += 1;
        }
        stream.tail = framed.taken < seen;
        if !stream.hung_up && pipes::available(stream.pipe.as_fd())? == 0 {
            return self.rest(stream);
        }
        Ok(Next::Again)
    }

    /// The pipe is empty: whatever comes next wakes the poller.
    fn rest(&mut self, stream: &mut Stream) -> io::Result<Next> {
        stream.tail = false;
        if stream.rest() {
            self.large -= 1;
        }
        Ok(Next::Wait)
    }

    /// The stream comes to no step any more: its pipe is left as it was found.
    pub fn release(&mut self, stream: &mut Stream) {
        stream.release();
        if stream.shrink() {
            self.large -= 1;
        }
    }

    /// The entry about lines that could not be written, at the start of `out`: its length, 0 for none.
    fn announce(&mut self, service: &Name, stamp: &Stamp) -> usize {
        match self.shelf.dropped(service) {
            0 => 0,
            count => {
                let text = dropped_lines(count) + "\n";
                cri::frame(text.as_bytes(), Which::Stderr, stamp, Tail::Hold, &mut self.out).written
            }
        }
    }

    fn frame(
        &mut self,
        stream: &Stream,
        first: usize,
        seen: usize,
        stamp: &Stamp,
        (to, tail): (To, Tail),
    ) -> Framed {
        let input = self.raw.get(..seen).unwrap_or_default();
        if to != To::File {
            let counted = |sum: Framed, piece: cri::Piece<'_>| Framed {
                taken: piece.taken,
                written: 0,
                entries: sum.entries + 1,
            };
            return cri::pieces(input, tail).fold(Framed::default(), counted);
        }
        let most = self.most_at_once(&stream.service);
        let out = self.out.get_mut(first..most).unwrap_or_default();
        cri::frame(input, stream.which, stamp, tail, out)
    }

    /// How much may be written in one step: a file gives way between steps, so more than it may hold would make it
    /// larger than that. Two entries have room in any case, of which one may be that about lines that were dropped.
    fn most_at_once(&self, service: &Name) -> usize {
        let max_size = usize::try_from(self.shelf.rule(service).max_size).unwrap_or(usize::MAX);
        max_size.clamp(2 * LONGEST_ENTRY, OUT_BYTES)
    }

    /// Writes the entries in `out` and takes the bytes they were made of out of the pipe.
    fn put_away(
        &mut self,
        stream: &mut Stream,
        first: usize,
        framed: Framed,
        stamp: &Stamp,
        now: Instant,
    ) -> io::Result<Next> {
        let settled = self.write(stream.id, &stream.service, first, framed, stamp, now)?;
        if settled != Settled::Not {
            self.consume(stream, framed.taken);
        }
        if let Settled::At(offset) = settled {
            stream.steps.at(offset, framed.written, stamp);
        }
        self.state.finish();
        Ok(if settled == Settled::Not { Next::Full } else { Next::Again })
    }

    /// Gives lines to whoever takes them, one by one, each settled when it is taken.
    fn send_away(
        &mut self,
        stream: &Stream,
        to: To,
        (seen, tail): (usize, Tail),
        entries: u64,
        stamp: &Stamp,
        now: Instant,
    ) -> io::Result<Next> {
        let service = &stream.service;
        let seconds = parse_stamp(stamp.as_bytes()).map_or(0, |(seconds, _)| seconds);
        let nothing = Record { stream: stream.id, service: *service, ..Record::default() };
        self.state.begin_settled(&nothing)?;
        let (mut taken, mut sent, mut refused) = (0, 0, self.send_count(to, service, seconds, now).err());
        let input = self.raw.get(..seen).unwrap_or_default();
        for piece in cri::pieces(input, tail) {
            if refused.is_some() {
                break;
            }
            let what = (piece.content, piece.ends);
            match self.away.send(to, service, stream.which, what, (seconds, now)) {
                Ok(()) => {
                    (taken, sent) = (piece.taken, sent + 1);
                    self.state.settled(taken as u64);
                }
                Err(error) => refused = Some(error),
            }
        }
        let since = self.away.full_since(to);
        let patient = self.shelf.rule(service).when_full == WhenFull::Block
            || since.is_some_and(|since| now.duration_since(since) < away::PATIENCE);
        let next = match refused {
            None => {
                self.shelf.troubles.is_well(service, Place::Away);
                self.shelf.troubles.is_well(service, Place::Files);
                Next::Again
            }
            Some(Refused::Absent(error)) => {
                // The next step finds it absent, and writes to the file.
                let place = self.away.place(to);
                self.shelf.complain_of_absence(service, (to, &place), &error, now);
                Next::Again
            }
            Some(Refused::Full) if patient && !self.last => Next::Later,
            Some(Refused::Full) => {
                let place = self.away.place(to);
                self.shelf.complain_of_fullness(service, &place, now);
                let dropped = self.shelf.dropped(service).saturating_add(entries.saturating_sub(sent));
                let kept = self.count(service, dropped);
                self.state.keep_count(kept);
                self.shelf.set_dropped(service, dropped);
                let input = self.raw.get(..seen).unwrap_or_default();
                taken = cri::pieces(input, tail).last().map_or(taken, |piece| piece.taken);
                self.state.settled(taken as u64);
                Next::Again
            }
        };
        self.consume(stream, taken);
        self.state.finish();
        Ok(next)
    }

    /// Says there how many lines were dropped, if any were.
    fn send_count(&mut self, to: To, service: &Name, seconds: u64, now: Instant) -> Result<(), Refused> {
        let count = self.shelf.dropped(service);
        if count > 0 {
            let text = dropped_lines(count);
            self.away.send(to, service, Which::Stderr, (text.as_bytes(), true), (seconds, now))?;
            let none = self.count(service, 0);
            self.state.keep_count(none);
            self.shelf.set_dropped(service, 0);
        }
        Ok(())
    }

    /// The first half of a step: afterwards its entries are settled, in the file or dropped and counted. Nothing is done
    /// where there is no room and the service is to wait.
    fn write(
        &mut self,
        stream: u64,
        service: &Name,
        first: usize,
        framed: Framed,
        stamp: &Stamp,
        now: Instant,
    ) -> io::Result<Settled> {
        let length = first + framed.written;
        let waits = self.shelf.rule(service).when_full == WhenFull::Block && !self.last;
        let before = self.shelf.dropped(service);
        let nowhere = Target { identity: Identity::default(), size: 0 };
        let target = self.shelf.target(service, length as u64, stamp, now);
        if self.shelf.is_lost() && !self.last {
            return Ok(Settled::Not); // nothing is lost that a successor can write
        }
        let (target, no_file) = match target {
            Ok(target) => (target, None),
            Err(trouble) => (nowhere, Some(trouble)),
        };
        let reported = if first > 0 { self.count(service, 0) } else { None };
        let mut record = Record {
            stream,
            service: *service,
            taken: framed.taken as u64,
            file: target.identity,
            before: target.size,
            length: length as u64,
            dropped: reported,
        };
        if let Some(trouble) = no_file {
            self.shelf.complain(service, &trouble, now);
            if waits {
                return Ok(Settled::Not);
            }
            record.dropped = self.count(service, before.saturating_add(framed.entries));
            self.state.begin_settled(&record)?;
            self.shelf.set_dropped(service, before.saturating_add(framed.entries));
            return Ok(Settled::Dropped);
        }
        self.state.begin(&record)?;
        let appended = self.shelf.append(service, self.out.get(..length).unwrap_or_default());
        let at = Settled::At(target.size + first as u64);
        let settled = if appended.is_ok() { at } else { Settled::Dropped };
        let count = match appended {
            Ok(()) if first > 0 => 0,
            Ok(()) => before,
            Err((_, trouble)) if waits => {
                self.shelf.complain(service, &trouble, now);
                if let Err(trouble) = self.shelf.cut(service, target.size) {
                    self.shelf.complain(service, &trouble, now);
                }
                return Ok(Settled::Not);
            }
            Err((done, trouble)) => {
                self.shelf.complain(service, &trouble, now);
                let kept = self.keep_whole_entries(service, target.size, done, now);
                if first > 0 && kept > 0 {
                    framed.entries.saturating_sub(kept - 1)
                } else {
                    before.saturating_add(framed.entries.saturating_sub(kept))
                }
            }
        };
        let dropped = if count == before { None } else { self.count(service, count) };
        self.state.settle(dropped);
        self.shelf.set_dropped(service, count);
        Ok(settled)
    }

    /// After a write that ended in the middle: cuts off what follows the last whole entry and says how many
    /// of them there are.
    fn keep_whole_entries(&mut self, service: &Name, size: u64, done: u64, now: Instant) -> u64 {
        let done = self.out.get(..usize::try_from(done).unwrap_or(0)).unwrap_or_default();
        let whole = memrchr(b'\n', done).map_or(0, |at| at + 1);
        let kept = memchr_iter(b'\n', done).count() as u64;
        if whole < done.len()
            && let Err(trouble) = self.shelf.cut(service, size.saturating_add(whole as u64))
        {
            self.shelf.complain(service, &trouble, now);
        }
        kept
    }

    fn count(&mut self, service: &Name, count: u64) -> Option<Dropped> {
        self.state.drop_slot(service).map(|slot| Dropped { slot, count })
    }

    /// Takes `count` bytes out of the pipe, counted where a successor can read it.
    fn consume(&mut self, stream: &Stream, count: usize) {
        let mut left = count;
        while left > 0 {
            match self.state.take_out(stream.pipe.as_fd(), left) {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                // Gone already: a service of our own uid can read from its own pipe.
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.state.make_room(left as u64) {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(_) => return self.pour_away(stream, left),
                    }
                }
                // Bytes that are written must go all the same; a death just now could write them twice.
                Err(_) => return self.pour_away(stream, left),
            }
        }
    }

    fn pour_away(&mut self, stream: &Stream, mut left: usize) {
        while left > 0 && pipes::available(stream.pipe.as_fd()).is_ok_and(|now| now > 0) {
            let place = self.raw.get_mut(..left.min(LOOK_BYTES)).unwrap_or_default();
            match fds::read(stream.pipe.as_fd(), place) {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => return,
            }
        }
    }

    /// Takes out what a predecessor wrote already.
    fn pay(&mut self, stream: &mut Stream) -> io::Result<()> {
        let record = Record {
            stream: stream.id,
            service: stream.service,
            taken: stream.owed,
            file: Identity::default(),
            before: 0,
            length: 0,
            dropped: None,
        };
        stream.steps.wrote();
        self.state.begin_settled(&record)?;
        self.state.owe(stream.id, 0);
        self.consume(stream, usize::try_from(stream.owed).unwrap_or(usize::MAX));
        stream.owed = 0;
        self.state.finish();
        Ok(())
    }

    /// Looks whether somebody takes the lines of a service that are not for files.
    pub fn look_away(&mut self, service: &Name, now: Instant) {
        let to = self.shelf.rule(service).to;
        match self.away.look(to) {
            None | Some(Err(Refused::Full)) => {}
            Some(Ok(())) => self.shelf.troubles.is_well(service, Place::Away),
            Some(Err(Refused::Absent(error))) => {
                let place = self.away.place(to);
                self.shelf.complain_of_absence(service, (to, &place), &error, now);
            }
        }
    }

    /// Tries to report dropped lines of services that have not written since, and looks for who takes those of others.
    pub fn report_dropped(&mut self, now: Instant) {
        for service in self.shelf.troubles.without_taker() {
            self.look_away(&service, now);
        }
        for service in self.shelf.with_dropped() {
            let (stamp, to) = (stamp(), self.shelf.rule(&service).to);
            if to != To::File && self.away.is_there(to, now) {
                let seconds = parse_stamp(stamp.as_bytes()).map_or(0, |(seconds, _)| seconds);
                let _ = self.send_count(to, &service, seconds, now); // full or absent: the next time
                continue;
            }
            let first = self.announce(&service, &stamp);
            if self.write(0, &service, first, Framed::default(), &stamp, now).is_ok() {
                self.state.finish();
            }
        }
    }
}

fn dropped_lines(count: u64) -> String {
    let lines = if count == 1 { "line" } else { "lines" };
    format!("dropped {count} {lines}")
}

fn stamp() -> Stamp {
    // A clock before 1970 writes 1970: the line counts more than its time.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp::new(now.as_secs(), now.subsec_nanos())
}
