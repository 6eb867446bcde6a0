//! ROOT. One client of the control socket: what it has sent, what waits for it, how long it may take.
//! Never more memory than the limits say.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::Caller;
use super::{CALL_MS, ENOUGH_QUEUED, FIRST_BYTE_MS, Heard, MOST_QUEUED, Room, SessionId, WRITE_MS};
use crate::policy::Mono;
use crate::sys::{link, peer};
use crate::wire::control::{MOST_SENT, Refusal, Reply, StatusReply};
use crate::wire::request::{Request, Understood, understand};
use crate::wire::varlink::{Call, Frames, Garbled, MOST_CALL, Standard};
use crate::wire::verb::{Right, Rights};

const FRAMES_A_TURN: usize = 16;
const READ_BYTES: usize = 8 * 1024;
/// The parts of a status are written together up to this many bytes: one system call for a dozen of them.
const WRITE_BYTES: usize = 16 * 1024;

/// What an event of the poll says.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// There may be bytes, or the end of them.
    pub readable: bool,
    /// There may be room.
    pub writable: bool,
    /// The peer has closed both directions.
    pub hung_up: bool,
}

/// The call that is being answered.
#[derive(Debug)]
struct Flight {
    serial: u64,
    more: bool,
    /// The parts of one whole reply, and their length in bytes, for a client that takes one only.
    gathered: Option<(StatusReply, usize)>,
    /// It was told to hold its stream back.
    held_back: bool,
}

/// How far a client's bytes are looked at.
#[derive(Debug)]
enum Input {
    /// Cut into calls.
    Frames(Frames),
    /// Of somebody without any right: counted up to the first NUL, not kept and not looked at.
    Counted(usize),
}

/// One client.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    caller: Caller,
    rights: Rights,
    input: Input,
    flight: Option<Flight>,
    queue: Vec<u8>,
    sent: usize,
    /// Descriptors that go out with the byte at this place of the queue.
    attached: VecDeque<(usize, Vec<OwnedFd>)>,
    /// Bytes may wait in the kernel: reading has not come to EAGAIN since the last event.
    unread: bool,
    /// The kernel's buffer may have room: writing has not come to EAGAIN since the last event.
    unfilled: bool,
    /// The peer sends no more.
    ended: bool,
    /// The peer neither sends nor reads.
    hung_up: bool,
    /// Nothing more is read; over when the queue is empty.
    closing: bool,
    began: Mono,
    spoke: bool,
    call_since: Option<Mono>,
    queued_since: Option<Mono>,
}

impl Client {
    /// A client that has just been accepted.
    pub fn new(stream: UnixStream, caller: Caller, rights: Rights, now: Mono) -> Self {
        Self {
            stream,
            caller,
            rights,
            input: if rights.is_none() { Input::Counted(0) } else { Input::Frames(Frames::new(MOST_CALL)) },
            flight: None,
            queue: Vec::new(),
            sent: 0,
            attached: VecDeque::new(),
            unread: true,
            unfilled: true,
            ended: false,
            hung_up: false,
            closing: false,
            began: now,
            spoke: false,
            call_since: None,
            queued_since: None,
        }
    }

    /// What the poll watches.
    pub const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The user.
    pub const fn uid(&self) -> u32 {
        self.caller.uid
    }

    /// What that user may do.
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// Takes note of an event; [`Client::drive`] acts on it.
    pub fn wake(&mut self, wake: Wake) {
        self.unread |= wake.readable || wake.hung_up;
        self.unfilled |= wake.writable;
        // Asked again, since the event may be of the client that had this place before.
        self.hung_up |= wake.hung_up && peer::has_hung_up(&self.stream);
    }

    /// Whether it can be closed: everything is said, or nobody listens and nothing is left to hear.
    pub fn is_over(&self) -> bool {
        let heard_all = self.closing || (self.ended && self.flight.is_none() && !self.has_work());
        heard_all && (self.hung_up || self.queued() == 0)
    }

    /// Whether [`Client::drive`] would get further now.
    pub fn has_work(&self) -> bool {
        let fresh = match &self.input {
            Input::Frames(frames) => self.unread || frames.has_frame(),
            Input::Counted(_) => self.unread,
        };
        fresh && !self.is_blocked()
    }

    /// Whether a stream was held back that may go on.
    pub fn wants_room(&self) -> bool {
        self.queued() < ENOUGH_QUEUED
            && self.attached.is_empty()
            && self.flight.as_ref().is_some_and(|flight| flight.held_back)
    }

    /// When it has to be closed if nothing happens before.
    pub fn deadline(&self) -> Option<Mono> {
        let first = (!self.spoke).then(|| self.began.after(FIRST_BYTE_MS));
        let call = self.call_since.map(|since| since.after(CALL_MS));
        let write = self.queued_since.map(|since| since.after(WRITE_MS));
        [first, call, write].into_iter().flatten().min()
    }

    /// Gives the call that is being answered up, and says which it was.
    pub fn abandon(&mut self) -> Option<u64> {
        self.flight.take().map(|flight| flight.serial)
    }

    /// Writes what waits, reads what has come, and takes calls out of it, one at a time.
    pub fn drive(&mut self, place: usize, next_serial: &mut u64, now: Mono, out: &mut Vec<Heard>) {
        self.flush(now);
        if self.hung_up {
            self.discard();
            if let Some(serial) = self.abandon() {
                out.push(Heard::Gone(SessionId { serial, place }));
            }
        } else if self.wants_room()
            && let Some(flight) = &mut self.flight
        {
            flight.held_back = false;
            out.push(Heard::Room(SessionId { serial: flight.serial, place }));
        }
        for _ in 0..FRAMES_A_TURN {
            if self.is_blocked() {
                break;
            }
            match self.next_frame() {
                Ok(Some(frame)) => self.take_call(&frame, place, next_serial, now, out),
                Ok(None) => break,
                // There is no answer to what is no call; what was asked before is still answered.
                Err(_) => self.closing = true,
            }
        }
        let partial = matches!(&self.input, Input::Frames(frames) if !frames.is_empty());
        let partial = partial || matches!(self.input, Input::Counted(1..));
        if partial && !self.is_blocked() && !self.ended {
            self.call_since.get_or_insert(now);
        } else {
            self.call_since = None;
        }
    }

    /// The process at the other end, while it waits for the reply to the call `serial`.
    pub fn process(&self, serial: u64) -> Option<OwnedFd> {
        self.flight.as_ref().filter(|flight| flight.serial == serial)?;
        peer::process(&self.stream).ok()
    }

    /// Sends a reply to the call `serial`, or drops it where that is no longer waited for.
    pub fn reply(&mut self, serial: u64, reply: &Reply, last: bool, now: Mono) -> Room {
        let flight = match &mut self.flight {
            Some(flight) if flight.serial == serial => flight,
            Some(_) | None => return Room::Gone,
        };
        let frame = if flight.more {
            let step = !last && matches!(reply, Reply::Operation(_));
            if step && self.queue.len() - self.sent >= ENOUGH_QUEUED {
                return Room::Later;
            }
            Some(reply.encode(!last))
        } else {
            gather(flight, reply, last)
        };
        if last {
            self.flight = None;
        }
        if let Some(frame) = frame {
            self.queue_up(&frame, now);
            if last || self.queued() >= WRITE_BYTES || matches!(reply, Reply::Operation(_) | Reply::Event(_))
            {
                self.flush(now);
            }
        }
        if self.hung_up || self.closing {
            self.flight = None;
            return Room::Gone;
        }
        match &mut self.flight {
            Some(flight) if !self.attached.is_empty() || self.queue.len() - self.sent >= ENOUGH_QUEUED => {
                flight.held_back = true;
                Room::Later
            }
            Some(_) | None => Room::Now,
        }
    }

    /// The same with descriptors, which reach the client with the first byte of the reply.
    pub fn reply_with(
        &mut self,
        serial: u64,
        reply: &Reply,
        passed: Vec<OwnedFd>,
        last: bool,
        now: Mono,
    ) -> Room {
        let awaited = self.flight.as_ref().is_some_and(|flight| flight.serial == serial && flight.more);
        if awaited && !passed.is_empty() {
            self.attached.push_back((self.queue.len(), passed));
        }
        let room = self.reply(serial, reply, last, now);
        self.flush(now);
        if room == Room::Gone || self.attached.is_empty() { room } else { Room::Later }
    }

    /// Descriptors that wait to be passed to it.
    pub fn waiting_descriptors(&self) -> usize {
        self.attached.iter().map(|(_, passed)| passed.len()).sum()
    }

    /// Says nothing more to it and hears nothing more of it.
    pub fn give_up(&mut self) {
        (self.hung_up, self.closing, self.flight) = (true, true, None);
        self.discard();
    }

    /// Bytes of memory held for it.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        let input = match &self.input {
            Input::Frames(frames) => frames.held(),
            Input::Counted(_) => 0,
        };
        input + self.queue.capacity()
    }

    fn queued(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// One call is answered at a time, and nothing is heard from a client that does not read its answers.
    fn is_blocked(&self) -> bool {
        let passing = !self.attached.is_empty();
        self.closing || self.flight.is_some() || passing || self.queued() >= ENOUGH_QUEUED
    }

    /// The next whole call, reading as far as that needs.
    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Garbled> {
        loop {
            if let Input::Frames(frames) = &mut self.input
                && let Some(frame) = frames.take()?
            {
                return Ok(Some(frame));
            }
            if !self.unread {
                return Ok(None);
            }
            let mut bytes = [0; READ_BYTES];
            let room = match &self.input {
                Input::Frames(frames) => frames.room(),
                Input::Counted(_) => READ_BYTES,
            };
            let place = bytes.get_mut(..room.min(READ_BYTES)).unwrap_or_default();
            match self.stream.read(place) {
                Ok(0) => {
                    self.unread = false;
                    self.ended = true;
                    return Ok(None);
                }
                Ok(count) => {
                    self.spoke = true;
                    let fresh = bytes.get(..count).unwrap_or_default();
                    match &mut self.input {
                        Input::Frames(frames) => frames.push(fresh)?,
                        Input::Counted(counted) => {
                            *counted += count;
                            if fresh.contains(&0) {
                                return Ok(Some(Vec::new()));
                            }
                            if *counted > MOST_CALL {
                                return Err(Garbled::TooLong);
                            }
                        }
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        self.unread = false;
                        return Ok(None);
                    }
                    _ => {
                        (self.unread, self.ended, self.hung_up) = (false, true, true);
                        return Ok(None);
                    }
                },
            }
        }
    }

    fn take_call(
        &mut self,
        frame: &[u8],
        place: usize,
        next_serial: &mut u64,
        now: Mono,
        out: &mut Vec<Heard>,
    ) {
        if self.rights.is_none() {
            // Nothing this peer says is looked at, not even for what it asks.
            let refused = Reply::Refused(Refusal::NotPermitted(Right::Status, None));
            self.send(&refused.encode(false), now);
            self.closing = true;
            return;
        }
        let Ok(call) = Call::decode(frame) else {
            self.closing = true;
            return;
        };
        match understand(&call, self.rights) {
            Understood::Answer(answer) => {
                if !call.oneway {
                    self.send(&answer, now);
                }
            }
            Understood::Ask(request) => {
                let serial = *next_serial;
                *next_serial += 1;
                let more = call.more && !call.oneway;
                if !call.oneway && !self.hung_up {
                    let gathered = match &request {
                        Request::Status { .. } => Some((StatusReply::default(), 0)),
                        Request::Start(_)
                        | Request::Stop { .. }
                        | Request::Restart { .. }
                        | Request::Reload(_)
                        | Request::Scale { .. }
                        | Request::Kill { .. }
                        | Request::Events { .. }
                        | Request::Show { .. }
                        | Request::Logs { .. }
                        | Request::Exec { .. } => None,
                    };
                    self.flight = Some(Flight { serial, more, gathered, held_back: false });
                }
                let session = SessionId { serial, place };
                out.push(Heard::Asked { session, caller: self.caller.clone(), request, more });
            }
        }
    }

    fn send(&mut self, frame: &[u8], now: Mono) {
        self.queue_up(frame, now);
        self.flush(now);
    }

    fn queue_up(&mut self, frame: &[u8], now: Mono) {
        if self.hung_up {
            return;
        }
        if self.queued() + frame.len() > MOST_QUEUED {
            self.hung_up = true;
            self.closing = true;
            self.discard();
            return;
        }
        self.queue.extend_from_slice(frame);
        self.queued_since.get_or_insert(now);
    }

    /// Writes until nothing waits or the kernel takes no more.
    fn flush(&mut self, now: Mono) {
        while self.unfilled && !self.hung_up && self.queued() > 0 {
            match self.write_some() {
                Ok(count) => {
                    self.sent += count;
                    self.queued_since = Some(now);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => self.unfilled = false,
                    // Too many descriptors are on their way: tried again with the next that is said.
                    _ if error.raw_os_error() == Some(libc::ETOOMANYREFS) => self.unfilled = false,
                    _ => {
                        // The peer reads no more; what it sent before is still heard.
                        self.hung_up = true;
                        self.unread = true;
                    }
                },
            }
        }
        if self.queued() == 0 {
            self.discard();
        } else if self.sent > MOST_QUEUED / 4 {
            self.queue.drain(..self.sent);
            self.attached.iter_mut().for_each(|(at, _)| *at -= self.sent);
            self.sent = 0;
        }
    }

    /// Writes up to the next descriptors, or those with what follows them.
    fn write_some(&mut self) -> io::Result<usize> {
        let ends = self.attached.iter().map(|(at, _)| *at).find(|at| *at > self.sent);
        let bytes = self.queue.get(self.sent..ends.unwrap_or(self.queue.len())).unwrap_or_default();
        match self.attached.front() {
            // Descriptors that nobody takes out of a socket are open all the same, and the kernel lets a user have only so
            // many of them under way: all of ours would be kept from the keeper and the zygote.
            Some((at, _)) if *at == self.sent && !peer::has_read_all(&self.stream)? => {
                Err(ErrorKind::WouldBlock.into())
            }
            Some((at, passed)) if *at == self.sent => {
                let fds: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
                let count = link::send(self.stream.as_fd(), bytes, &fds)?;
                self.attached.pop_front();
                Ok(count)
            }
            Some(_) | None => self.stream.write(bytes),
        }
    }

    fn discard(&mut self) {
        self.queue = Vec::new();
        self.attached.clear();
        self.sent = 0;
        self.queued_since = None;
    }
}

/// The one reply of a call without `more`, when its last part has come.
fn gather(flight: &mut Flight, reply: &Reply, last: bool) -> Option<Vec<u8>> {
    let (whole, length) = match (&mut flight.gathered, reply) {
        (Some((whole, length)), Reply::Status(part)) => {
            *length += Reply::Status(part.clone()).encode(false).len();
            if *length <= MOST_SENT {
                whole.supervisor = part.supervisor.clone().or(whole.supervisor.take());
                whole.services.extend(part.services.iter().cloned());
            }
            (whole, *length)
        }
        // A step is for those who take more than one reply; an outcome and an error are one.
        (
            _,
            Reply::Operation(_)
            | Reply::Event(_)
            | Reply::Shown(_)
            | Reply::Log(_)
            | Reply::Executed(_)
            | Reply::Refused(_)
            | Reply::Standard(_),
        )
        | (None, Reply::Status(_)) => {
            return last.then(|| reply.encode(false));
        }
    };
    if !last {
        return None;
    }
    let fits = length <= MOST_SENT;
    let whole = std::mem::take(whole);
    Some(if fits { Reply::Status(whole) } else { Reply::Standard(Standard::ExpectedMore) }.encode(false))
}
