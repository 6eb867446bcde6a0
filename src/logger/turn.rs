//! LOG. The loop: what comes wakes a stream, each stream gets a step in its turn. Never sleeps while one has
//! something to do, never wakes while none has.
//!
//! Pipes are watched edge-triggered, since half a line may stay in one for ever; a stream that is not done
//! stands in the queue. A pipe left with half a line also raises SIGIO on every write, because a writer that
//! fills it wakes no poller (`sys::pipes::raise_sigio`); the signal says only that some pipe moved, so it
//! starts a look at all that wait like this, at most a hundred times a second.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::link::Link;
use crate::sys::poller::{Interest, Poller};
use crate::sys::{fds, memory, poller};
use crate::wire::cri::Which;
use crate::wire::logger::{MESSAGE_BYTES, Name, Order, Report, Rule};

use super::intake::{Intake, Next};
use super::say::say;
use super::stream::Stream;

const LINK: u64 = 0;
const SIGNAL: u64 = 1;
const FIRST_STREAM: u64 = 2;

/// The least time between two looks at all half lines.
const SWEEP_EVERY: Duration = Duration::from_millis(10);
/// How long a service waits for a full disk before its lines are tried again.
const FULL_EVERY: Duration = Duration::from_millis(500);
/// How long until dropped lines of a silent service are tried to be reported again, and until it is looked again whether
/// somebody takes lines.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How long what is to be reported may wait for more of it: at the end of a service something better is to be done.
const TELL_WITHIN: Duration = Duration::from_millis(20);
/// Orders taken in one turn.
const MOST_ORDERS: usize = 64;
/// Steps done in one turn.
const MOST_STEPS: usize = 64;
/// Steps for one stream at the end of a drain: more than any pipe of 1 MiB needs.
const LAST_STEPS: usize = 64;

/// Whether the process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Goes,
    Ends,
}

/// The logger.
#[derive(Debug)]
pub struct Logger {
    intake: Intake,
    link: Link,
    poller: Poller,
    signal: OwnedFd,
    streams: BTreeMap<u64, Box<Stream>>,
    tokens: BTreeMap<u64, u64>,
    next_token: u64,
    queue: VecDeque<u64>,
    reports: VecDeque<Report>,
    /// When they are sent.
    tell_at: Option<Instant>,
    /// Some of them wait for room on the link.
    tells: bool,
    /// How many streams there were when memory was last given back: more bring more with them.
    tidied: usize,
    sweep_due: bool,
    sweep_after: Instant,
    full_at: Option<Instant>,
    report_at: Option<Instant>,
    drain_until: Option<Instant>,
}

impl Logger {
    /// Watches the link; the streams come over it.
    pub fn new(intake: Intake, link: Link) -> io::Result<Self> {
        let poller = Poller::new()?;
        let signal = poller::sigio()?;
        poller.add(link.as_fd(), LINK, Interest::Read)?;
        poller.add(signal.as_fd(), SIGNAL, Interest::ReadEdge)?;
        Ok(Self {
            intake,
            link,
            poller,
            signal,
            streams: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next_token: FIRST_STREAM,
            queue: VecDeque::new(),
            reports: VecDeque::new(),
            tell_at: None,
            tells: false,
            tidied: 0,
            sweep_due: false,
            sweep_after: Instant::now(),
            full_at: None,
            report_at: None,
            drain_until: None,
        })
    }

    /// Runs until the link ends or a drain is over.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            let patience = self.patience(Instant::now());
            if patience.is_none() && self.streams.len() > 2 * self.tidied {
                self.tidied = self.streams.len();
                memory::give_back();
            }
            self.poller.wait(patience)?;
            if self.hear()? == Life::Ends {
                return Ok(());
            }
            let now = Instant::now();
            self.sweep(now);
            for _ in 0..self.queue.len().min(MOST_STEPS) {
                self.step(now);
            }
            self.report_dropped(now);
            self.send_reports(now);
            if self.intake.shelf.is_lost() && self.drain_until.is_none() {
                say("the log directory is gone: a successor makes it again");
                return Ok(());
            }
            if self.drained(now) {
                return Ok(());
            }
        }
    }

    fn patience(&self, now: Instant) -> Option<Duration> {
        if !self.queue.is_empty() || (self.drain_until.is_some() && self.streams.is_empty()) {
            return Some(Duration::ZERO);
        }
        let sweep = self.sweep_due.then_some(self.sweep_after);
        let news = self.intake.shelf.troubles.due(now);
        let due = [sweep, self.full_at, self.report_at, self.tell_at, news, self.drain_until];
        let first = due.into_iter().flatten().min();
        first.map(|at| at.saturating_duration_since(now))
    }

    fn hear(&mut self) -> io::Result<Life> {
        let mut link = false;
        for ready in self.poller.ready() {
            match ready.token {
                LINK => link = true,
                SIGNAL => self.sweep_due = true,
                token => {
                    if let Some(stream) = self.streams.get_mut(&token) {
                        stream.hung_up |= ready.hung_up;
                        if !stream.queued {
                            stream.queued = true;
                            self.queue.push_back(token);
                        }
                    }
                }
            }
        }
        if link { self.take_orders() } else { Ok(Life::Goes) }
    }

    fn take_orders(&mut self) -> io::Result<Life> {
        for _ in 0..MOST_ORDERS {
            let mut bytes = [0; MESSAGE_BYTES];
            let mut places = [None];
            match self.link.receive(&mut bytes, &mut places) {
                Ok(None) => return Ok(Life::Ends),
                Ok(Some(received)) => {
                    let [pipe] = places;
                    match Order::decode(bytes.get(..received.bytes).unwrap_or_default()) {
                        Ok(order) => self.obey(order, pipe),
                        Err(refused) => say(&format!("ignoring {refused} from the manager")),
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(Life::Goes),
                    io::ErrorKind::ConnectionReset => return Ok(Life::Ends),
                    // The descriptor found no place in our table, but the message itself is here.
                    _ => match Order::decode(&bytes) {
                        Ok(Order::Add { stream, .. }) => self.reports.push_back(Report::Lost { stream }),
                        Ok(Order::Remove { .. } | Order::Drain { .. }) | Err(_) => return Ok(Life::Goes),
                    },
                },
            }
        }
        Ok(Life::Goes)
    }

    fn obey(&mut self, order: Order, pipe: Option<OwnedFd>) {
        match order {
            Order::Add { stream, service, which, rule } => {
                if self.tokens.contains_key(&stream) {
                    self.intake.shelf.set_rule(&service, rule);
                    // A new manager asks.
                    self.intake.shelf.troubles.repeat(&service);
                    return;
                }
                let added = pipe.ok_or_else(|| io::ErrorKind::NotFound.into());
                if let Err(error) = added.and_then(|pipe| self.add(stream, service, which, rule, pipe)) {
                    let reason = super::say::reason(&error);
                    say(&format!("log of `{service}`: watching its output: {reason}"));
                    self.reports.push_back(Report::Lost { stream });
                }
            }
            Order::Remove { stream } => {
                if let Some(token) = self.tokens.get(&stream).copied() {
                    self.forget(token);
                }
            }
            Order::Drain { within_ms } => {
                self.drain_until = Instant::now().checked_add(Duration::from_millis(within_ms.into()));
            }
        }
    }

    fn add(&mut self, id: u64, service: Name, which: Which, rule: Rule, pipe: OwnedFd) -> io::Result<()> {
        let token = self.next_token;
        let mut stream = Stream::new(id, service, which, pipe, self.intake.state.owed(id))?;
        self.poller.add(stream.pipe.as_fd(), token, Interest::ReadEdge)?;
        self.next_token += 1;
        let dropped = self.intake.state.dropped(&service).map_or(0, |dropped| dropped.count);
        self.intake.shelf.join(service, dropped, rule);
        self.intake.look_away(&service, Instant::now());
        if dropped > 0 {
            self.report_at = Some(Instant::now()); // whether there is room by now
        }
        stream.queued = true;
        self.queue.push_back(token);
        self.tokens.insert(id, token);
        self.streams.insert(token, Box::new(stream));
        Ok(())
    }

    fn forget(&mut self, token: u64) {
        if let Some(mut stream) = self.streams.remove(&token) {
            self.tokens.remove(&stream.id);
            self.intake.release(&mut stream);
            let _ = self.poller.remove(stream.pipe.as_fd()); // fails only if it is not watched
            self.intake.shelf.leave(&stream.service);
        }
    }

    fn step(&mut self, now: Instant) {
        let Some(token) = self.queue.pop_front() else { return };
        let Some(stream) = self.streams.get_mut(&token) else { return };
        stream.queued = false;
        match self.intake.step(stream, now) {
            Next::Again => {
                stream.queued = true;
                self.queue.push_back(token);
            }
            Next::Wait => {}
            Next::Later => {
                stream.parked = Some(usize::MAX); // no pipe holds that much: the next sweep tries again
                self.sweep_due = true;
                self.sweep_after = now + SWEEP_EVERY;
            }
            Next::Full => {
                stream.parked = Some(usize::MAX);
                stream.not_before = now.checked_add(FULL_EVERY);
                self.full_at = [self.full_at, stream.not_before].into_iter().flatten().min();
            }
            Next::Closed => {
                let report = Report::Closed { stream: stream.id, trail: stream.steps.trail() };
                self.forget(token);
                self.reports.push_back(report);
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.full_at.is_some_and(|at| now >= at) {
            self.sweep_due = true;
        }
        if !self.sweep_due || now < self.sweep_after {
            return;
        }
        self.full_at = None;
        self.sweep_due = false;
        self.sweep_after = now + SWEEP_EVERY;
        // Until it is read no second signal is queued, so a flood of writes costs one signal for each sweep.
        let _ = fds::read(self.signal.as_fd(), &mut [0; 512]);
        for (token, stream) in &mut self.streams {
            if let Some(at) = stream.not_before.filter(|at| now < *at) {
                self.full_at = Some(self.full_at.map_or(at, |other| other.min(at)));
            } else if !stream.queued && stream.has_news() {
                stream.queued = true;
                self.queue.push_back(*token);
            }
        }
    }

    fn report_dropped(&mut self, now: Instant) {
        if self.report_at.is_some_and(|at| now >= at) {
            self.intake.report_dropped(now);
            self.report_at = None;
        }
        let waits = self.intake.shelf.has_dropped() || self.intake.shelf.troubles.has_without_taker();
        if self.report_at.is_none() && waits {
            self.report_at = now.checked_add(REPORT_EVERY);
        }
    }

    fn send_reports(&mut self, now: Instant) {
        let news = self.intake.shelf.troubles.take_news(now);
        let at_once = !news.is_empty();
        self.reports.extend(news);
        if self.reports.is_empty() {
            return;
        }
        if !self.tells && !at_once {
            let at = *self.tell_at.get_or_insert(now + TELL_WITHIN);
            if now < at && self.drain_until.is_none() {
                return;
            }
        }
        self.tell_at = None;
        while let Some(report) = self.reports.front() {
            match self.link.send(&report.encode(), &[]) {
                Ok(()) => drop(self.reports.pop_front()),
                Err(_) => break, // full: the poller says when there is room; gone: the poller says that too
            }
        }
        let left = !self.reports.is_empty();
        if left != self.tells {
            self.tells = left;
            let interest = if left { Interest::ReadWrite } else { Interest::Read };
            let _ = self.poller.change(self.link.as_fd(), LINK, interest);
        }
    }

    /// Whether a drain is over. At its end what is still in the pipes is written, whole lines or not.
    fn drained(&mut self, now: Instant) -> bool {
        let Some(until) = self.drain_until else { return false };
        if now >= until {
            self.intake.last = true;
            for stream in self.streams.values_mut() {
                stream.hung_up = true;
                let mut steps = 0..LAST_STEPS;
                while steps.next().is_some() && self.intake.step(stream, now) == Next::Again {}
            }
            return true;
        }
        self.streams.is_empty()
    }
}
