//! ROOT. The control socket: accepts clients, judges them by the kernel's credentials, cuts and checks what
//! they send, queues what they get. Never carries anything out, never lets one client hold up another.
//!
//! Everything a stranger can make this hold has a named limit. Polling is edge-triggered, so whatever stops
//! before EAGAIN is kept in a list of those that are still ready: see [`Control::has_ready`].

mod client;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::access::{Book, Caller};
use super::budget::Budget;
use crate::policy::Mono;
use crate::sys::peer;
use crate::wire::control::Reply;
use crate::wire::request::Request;
use crate::wire::verb::Rights;
use client::{Client, Wake};

/// How many clients there may be at once.
pub const MOST_CLIENTS: usize = 256;
/// How many of them may belong to one user who is neither root nor the supervisor's own.
pub const MOST_PER_UID: usize = 32;
/// How many places only root and the supervisor's own user may take.
pub const RESERVED: usize = 32;
/// How many descriptors may wait to be passed to all clients but those two. Whoever gets more is hung up on.
pub const MOST_PASSED: usize = 512;
/// How long a client may stay silent before its first byte, in milliseconds.
pub const FIRST_BYTE_MS: u64 = 5_000;
/// How long a call may take from its first byte to its last, in milliseconds.
pub const CALL_MS: u64 = 5_000;
/// How long a client may read nothing of what waits for it, in milliseconds.
pub const WRITE_MS: u64 = 10_000;
/// How many bytes may wait for a client. It is closed before it gets more.
pub const MOST_QUEUED: usize = 256 * 1024;
/// From how many bytes on a stream of replies should pause: see [`Room::Later`].
pub const ENOUGH_QUEUED: usize = 64 * 1024;
/// How long nobody is accepted when there is no descriptor left, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 1_000;

const ACCEPTS_A_TURN: usize = 64;

/// One call of one client. Never used twice, so a late reply to a client that has gone reaches nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    serial: u64,
    place: usize,
}

/// What the manager hears from its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A client asks for something it may have. Answer with [`Control::reply`].
    Asked {
        /// Where the replies go.
        session: SessionId,
        /// Who asks, by the kernel's word.
        caller: Caller,
        /// What for.
        request: Request,
        /// Whether it takes more than one reply; [`Control::reply`] sees to it either way.
        more: bool,
    },
    /// A stream of replies that was told [`Room::Later`] may go on.
    Room(SessionId),
    /// Nobody waits for this any more. What was begun goes on.
    Gone(SessionId),
}

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Taken, and more may follow.
    Now,
    /// Taken; hold the rest of a stream back until [`Heard::Room`]. Steps of an operation may still be sent:
    /// they are left out where there is no room.
    Later,
    /// Nobody is there: send no more.
    Gone,
}

/// The server side of the control socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    own_uid: u32,
    most: Budget,
    book: Book,
    base: usize,
    places: Vec<Option<Client>>,
    ready: Vec<usize>,
    next_serial: u64,
    accepting: bool,
    paused_until: Option<Mono>,
}

impl Control {
    /// How many tokens it takes from `token_base` on: its own and one for each client.
    pub const TOKENS: usize = 1 + MOST_CLIENTS;

    /// Serves a listener that is bound, listening and non-blocking. Errors: those of epoll_ctl(2).
    pub fn new(listener: OwnedFd, own_uid: u32, registry: &Registry, token_base: usize) -> io::Result<Self> {
        let listener = UnixListener::from(listener);
        // Linux before 6.16 does not know it; each accepted socket then just drops what it is passed.
        let _ = peer::refuse_descriptors(&listener);
        watch(registry, &listener, Token(token_base), Interest::READABLE)?;
        Ok(Self {
            listener,
            own_uid,
            most: Budget::of(u64::MAX),
            book: Book::default(),
            base: token_base,
            places: (0..MOST_CLIENTS).map(|_| None).collect(),
            ready: Vec::new(),
            next_serial: 0,
            // Somebody may have been waiting since before this process began.
            accepting: true,
            paused_until: None,
        })
    }

    /// The same with no more clients, and no more waiting for them, than there are descriptors for.
    pub fn within(mut self, most: Budget) -> Self {
        self.places.truncate(most.clients);
        self.most = most;
        self
    }

    /// From now on these decide whom is listened to. Clients that are there already keep the most they could have; each
    /// of their calls is judged by the service it is about.
    pub fn judge_by(&mut self, book: Book) {
        self.book = book;
    }

    /// Whether an event with this token is for [`Control::on_event`].
    pub fn owns(&self, token: Token) -> bool {
        (self.base..self.base + Self::TOKENS).contains(&token.0)
    }

    /// Takes one event of the poll; what it means for the manager goes to `out`.
    pub fn on_event(&mut self, registry: &Registry, event: &Event, now: Mono, out: &mut Vec<Heard>) {
        let wake = Wake {
            readable: event.is_readable() || event.is_read_closed(),
            writable: event.is_writable(),
            hung_up: event.is_write_closed() || event.is_error(),
        };
        match event.token().0.checked_sub(self.base) {
            Some(0) => {
                self.accepting = true;
                self.accept(registry, now, out);
            }
            Some(place) => {
                if let Some(client) = self.client(place - 1) {
                    client.wake(wake);
                    self.drive(place - 1, now, out);
                }
            }
            None => {}
        }
    }

    /// Whether something is left to do without any event: call [`Control::again`] before polling, and poll
    /// without waiting.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() || (self.accepting && self.paused_until.is_none())
    }

    /// Goes on with what a turn's caps, or an answered call, left over.
    pub fn again(&mut self, registry: &Registry, now: Mono, out: &mut Vec<Heard>) {
        for place in std::mem::take(&mut self.ready) {
            self.drive(place, now, out);
        }
        if self.accepting && self.paused_until.is_none() {
            self.accept(registry, now, out);
        }
    }

    /// Sends a reply; with `last`, or an error, the call is over. Of a client that takes one reply only, the
    /// parts are gathered, and steps left out.
    pub fn reply(&mut self, session: SessionId, reply: &Reply, last: bool, now: Mono) -> Room {
        let last = last || reply.is_error();
        let Some(client) = self.client(session.place) else {
            return Room::Gone;
        };
        let room = client.reply(session.serial, reply, last, now);
        if client.is_over() {
            self.close(session.place);
        } else if client.has_work() || client.wants_room() {
            self.make_ready(session.place);
        }
        room
    }

    /// The process at the other end, where the kernel says which that is.
    pub fn process_of(&self, session: SessionId) -> Option<OwnedFd> {
        self.places.get(session.place)?.as_ref()?.process(session.serial)
    }

    /// The same with descriptors, of which at most one reply's wait for a client.
    pub fn reply_with(
        &mut self,
        session: SessionId,
        reply: &Reply,
        passed: Vec<OwnedFd>,
        last: bool,
        now: Mono,
    ) -> Room {
        let Some(client) = self.client(session.place) else {
            return Room::Gone;
        };
        let mut room = client.reply_with(session.serial, reply, passed, last, now);
        let is_ours = client.rights() == Rights::EVERYTHING;
        let others = self.places.iter().flatten().filter(|client| client.rights() != Rights::EVERYTHING);
        let too_many = others.map(Client::waiting_descriptors).sum::<usize>() > self.most.passed;
        let Some(client) = self.client(session.place) else {
            return Room::Gone;
        };
        if !is_ours && too_many && client.waiting_descriptors() > 0 {
            client.give_up();
            room = Room::Gone;
        }
        if client.is_over() {
            self.close(session.place);
        } else if client.has_work() || client.wants_room() {
            self.make_ready(session.place);
        }
        room
    }

    /// When [`Control::tick`] has something to do, if nothing happens before.
    pub fn deadline(&self) -> Option<Mono> {
        self.places.iter().flatten().filter_map(Client::deadline).chain(self.paused_until).min()
    }

    /// Time has passed: hangs up on the slow, accepts again. An early tick changes nothing.
    pub fn tick(&mut self, registry: &Registry, now: Mono, out: &mut Vec<Heard>) {
        for place in 0..self.places.len() {
            let late = self.client(place).and_then(|client| client.deadline()).is_some_and(|at| at <= now);
            if late {
                self.hang_up(place, out);
            }
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.accept(registry, now, out);
        }
    }

    fn client(&mut self, place: usize) -> Option<&mut Client> {
        self.places.get_mut(place)?.as_mut()
    }

    fn close(&mut self, place: usize) {
        if let Some(client) = self.places.get_mut(place) {
            // Closing the only descriptor takes it out of the poll (epoll(7)).
            *client = None;
        }
    }

    fn hang_up(&mut self, place: usize, out: &mut Vec<Heard>) {
        if let Some(serial) = self.client(place).and_then(Client::abandon) {
            out.push(Heard::Gone(SessionId { serial, place }));
        }
        self.close(place);
    }

    fn make_ready(&mut self, place: usize) {
        if !self.ready.contains(&place) {
            self.ready.push(place);
        }
    }

    /// Lets one client go on as far as it can.
    fn drive(&mut self, place: usize, now: Mono, out: &mut Vec<Heard>) {
        let Some(Some(client)) = self.places.get_mut(place) else {
            return;
        };
        client.drive(place, &mut self.next_serial, now, out);
        if client.is_over() {
            self.hang_up(place, out);
        } else if client.has_work() {
            self.make_ready(place);
        }
    }

    fn accept(&mut self, registry: &Registry, now: Mono, out: &mut Vec<Heard>) {
        self.paused_until = None;
        for _ in 0..ACCEPTS_A_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(registry, stream, now, out),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        self.accepting = false;
                        return;
                    }
                    // The client is already gone, or a signal came: the next one.
                    Some(libc::ECONNABORTED | libc::EINTR) => {}
                    // No descriptor or no memory: the clients keep waiting in the queue, and trying again
                    // at once would spin.
                    Some(_) | None => {
                        self.paused_until = Some(now.after(ACCEPT_PAUSE_MS));
                        return;
                    }
                },
            }
        }
    }

    /// Gives a client a place, or hangs up where there is none for it.
    fn welcome(&mut self, registry: &Registry, stream: UnixStream, now: Mono, out: &mut Vec<Heard>) {
        let Ok(who) = peer::credentials(&stream) else {
            return;
        };
        let is_ours = who.uid == 0 || who.uid == self.own_uid;
        let mut groups = if is_ours { Vec::new() } else { peer::groups(&stream).unwrap_or_default() };
        groups.push(who.gid);
        let caller = Caller { uid: who.uid, groups, is_ours };
        let rights = self.book.rights(&caller);
        let Some(place) = self.place_for(who.uid, rights) else {
            return;
        };
        let _ = peer::refuse_descriptors(&stream);
        let client = Client::new(stream, caller, rights, now);
        let token = Token(self.base + 1 + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if client.stream().set_nonblocking(true).is_err()
            || watch(registry, client.stream(), token, interest).is_err()
        {
            return; // out of memory or of epoll watches: the client sees the end and tries again
        }
        if let Some(free) = self.places.get_mut(place) {
            *free = Some(client);
        }
        self.drive(place, now, out);
    }

    fn place_for(&self, uid: u32, rights: Rights) -> Option<usize> {
        if rights != Rights::EVERYTHING {
            let others = self.places.iter().flatten().filter(|client| client.rights() != Rights::EVERYTHING);
            let own = others.clone().filter(|client| client.uid() == uid).count();
            let part = |share: usize| self.places.len() * share / MOST_CLIENTS;
            if own >= part(MOST_PER_UID) || others.count() >= self.places.len() - part(RESERVED) {
                return None;
            }
        }
        self.places.iter().position(Option::is_none)
    }
}

fn watch(registry: &Registry, socket: &impl AsRawFd, token: Token, interest: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&socket.as_raw_fd()), token, interest)
}

#[cfg(test)]
mod tests;
