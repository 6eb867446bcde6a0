//! ROOT. The manager's side of the logger: which pipes it reads. Never reads one.
//!
//! A stream is a number that is never used again: incarnation × 2, plus one for standard error. The logger
//! takes a stream it knows for a repetition, so all are sent again to a new logger and by a new manager.
//!
//! Where the last lines of a stream that has ended stand in the file the logger says once. That is noted here, and lost
//! with the manager.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

use super::Manager;
use super::control::SessionId;
use super::kept::{Kept, is_full};
use crate::policy::{Run, ServiceId};
use crate::sys::link::Link;
use crate::unit::{LogTo, WhenFull};
use crate::wire::control;
use crate::wire::cri::Which;
use crate::wire::keeper::Kind;
use crate::wire::logger::{self as wire, Name, Order, Piece, Place, REPORT_BYTES, Report, Rule, To};
use crate::wire::shelf::CURRENT;

/// How many troubles are remembered; more than there may be services that have some.
const MOST_TROUBLES: usize = 16_384;
/// How many streams that have ended are remembered; the oldest give way.
const MOST_TRAILS: usize = 4096;

/// The number of a stream.
pub const fn stream(run: Run, which: Which) -> u64 {
    run.0 * 2
        + match which {
            Which::Stdout => 0,
            Which::Stderr => 1,
        }
}

/// Where the keeper has a stream's pipe.
const fn kept(stream: u64) -> (Kind, u64) {
    (if stream.is_multiple_of(2) { Kind::Stdout } else { Kind::Stderr }, stream / 2)
}

/// What is known of a stream that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Nothing ever came of it.
    pub silent: bool,
    /// Where its last entries stand in the file of its service, the newest last.
    pub pieces: Vec<Piece>,
}

/// The link, and what waits to be said.
#[derive(Debug, Default)]
pub struct Logs {
    link: Option<Link>,
    outbox: VecDeque<Order>,
    /// Clients that get log files, and of which services still.
    pub readers: BTreeMap<SessionId, VecDeque<ServiceId>>,
    began: BTreeMap<ServiceId, (u64, u32)>,
    /// Streams of which this logger has had everything.
    whole: BTreeSet<u64>,
    trails: BTreeMap<u64, Trail>,
    /// What keeps lines from where they are to go: the logger knows, and tells it again to whoever asks anew.
    troubles: BTreeMap<(Name, Place), String>,
}

/// What a service gets as its standard output and error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Pipes that the logger reads.
    Pipes,
    /// What supervise itself has.
    Own,
    /// /dev/null.
    Null,
}

impl Logs {
    /// There is a new logger, or we are new to it: everything waits to be said again.
    pub fn attach(&mut self, link: Link) {
        self.link = Some(link);
        self.outbox.clear();
        self.whole.clear();
        self.troubles.clear();
    }

    /// What keeps the lines of a service from where they are to go.
    pub fn troubles_of(&self, service: &str) -> Vec<&str> {
        let Some(name) = Name::new(service.as_bytes()) else { return Vec::new() };
        let both = [Place::Away, Place::Files].into_iter();
        both.filter_map(|place| self.troubles.get(&(name, place))).map(String::as_str).collect()
    }

    /// The link's number, to be watched.
    pub fn raw_link(&self) -> Option<RawFd> {
        self.link.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Has a stream read from the next turn on: whoever writes to it is let through first.
    pub fn add(&mut self, service: &str, run: Run, which: Which, rule: Rule) {
        if let Some(service) = Name::new(service.as_bytes()) {
            self.outbox.push_back(Order::Add { stream: stream(run, which), service, which, rule });
        }
    }

    /// The same of one from which nobody has read yet.
    pub fn add_new(&mut self, service: &str, run: Run, which: Which, rule: Rule) {
        self.whole.insert(stream(run, which));
        self.add(service, run, which, rule);
    }

    /// What is known of a stream of a run, if it has ended.
    pub fn trail(&self, run: Run, which: Which) -> Option<&Trail> {
        self.trails.get(&stream(run, which))
    }

    fn note(&mut self, stream: u64, trail: wire::Trail) {
        // A logger that had only the rest of it does not know.
        let silent = self.whole.remove(&stream) && !trail.wrote;
        self.trails.insert(stream, Trail { silent, pieces: trail.pieces });
        if self.trails.len() > MOST_TRAILS {
            self.trails.pop_first();
        }
    }

    /// Whether something waits to be said.
    pub fn waits(&self) -> bool {
        self.link.is_some() && !self.outbox.is_empty()
    }

    /// A service starts now: what it writes from here on is of this start.
    pub fn begin(&mut self, id: ServiceId, now_ns: u64) {
        self.began.insert(id, (now_ns / 1_000_000_000, (now_ns % 1_000_000_000) as u32));
    }

    /// When a service last started, as far as this manager knows.
    pub fn began(&self, id: ServiceId) -> (u64, u32) {
        self.began.get(&id).copied().unwrap_or_default()
    }

    /// Has everything read to its end, and the logger exit.
    pub fn drain(&mut self, within_ms: u32, kept: &Kept) {
        self.outbox.push_back(Order::Drain { within_ms });
        self.flush(kept);
    }

    /// Says what waits, until the queue is full.
    pub fn flush(&mut self, kept_table: &Kept) {
        let Some(link) = &self.link else { return };
        while let Some(order) = self.outbox.front() {
            let sent = match order {
                Order::Add { stream, .. } => {
                    let (kind, id) = kept(*stream);
                    match kept_table.fd(kind, id) {
                        Some(fd) => link.send(&order.encode(), &[fd]),
                        None => Ok(()), // it has ended meanwhile
                    }
                }
                Order::Remove { .. } | Order::Drain { .. } => link.send(&order.encode(), &[]),
            };
            match sent {
                Err(error) if is_full(&error) => return,
                Ok(()) | Err(_) => drop(self.outbox.pop_front()),
            }
        }
    }

    /// Takes what the logger has said: streams that ended are dropped. Streams that it lost come back, to be
    /// added again. False where the link has ended.
    pub fn listen(&mut self, kept_table: &mut Kept, lost: &mut Vec<(Run, Which)>) -> bool {
        loop {
            let Some(link) = &self.link else { return false };
            let mut bytes = [0; REPORT_BYTES];
            match link.receive(&mut bytes, &mut []) {
                Ok(Some(got)) => match bytes.get(..got.bytes).map(Report::decode) {
                    Some(Ok(Report::Closed { stream, trail })) => {
                        self.note(stream, trail);
                        let (kind, id) = kept(stream);
                        kept_table.drop(kind, id);
                    }
                    Some(Ok(Report::Lost { stream })) => {
                        let which = if stream.is_multiple_of(2) { Which::Stdout } else { Which::Stderr };
                        lost.push((Run(stream / 2), which));
                    }
                    Some(Ok(Report::Trouble { service, place, words })) => {
                        match words.is_empty() {
                            true => drop(self.troubles.remove(&(service, place))),
                            false => drop(self.troubles.insert((service, place), words)),
                        };
                        if self.troubles.len() > MOST_TROUBLES {
                            self.troubles.pop_first();
                        }
                    }
                    Some(Err(refused)) => log::warn!("the logger sent {refused}"),
                    None => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Ok(None) | Err(_) => {
                    self.link = None;
                    return false;
                }
            }
        }
    }
}

impl Manager {
    /// How the lines of a service are kept.
    pub(super) fn log_rule(&self, id: ServiceId) -> Rule {
        let Some(log) = self.unit_of(id).map(|unit| &unit.log) else { return Rule::default() };
        Rule {
            to: match self.log_to(id) {
                LogTo::File | LogTo::Null => To::File,
                LogTo::Inherit => To::Inherit,
                LogTo::Journal => To::Journal,
                LogTo::Syslog => To::Syslog,
            },
            when_full: match log.when_full {
                WhenFull::Drop => wire::WhenFull::Drop,
                WhenFull::Block => wire::WhenFull::Block,
            },
            compress: log.compress,
            keep: log.keep,
            max_size: log.max_size,
            max_age_ms: log.max_age_ms.unwrap_or(0),
        }
    }

    /// Where its output goes: what its unit says, and supervise's own output in a container whose first process
    /// supervise is.
    pub(super) fn log_to(&self, id: ServiceId) -> LogTo {
        match self.unit_of(id) {
            Some(unit) if !unit.is_written("log.to") && self.is_init_of_container() => LogTo::Inherit,
            Some(unit) => unit.log.to,
            None => LogTo::File,
        }
    }

    /// The file that grows, of what goes to files.
    pub(super) fn log_file(&self, id: ServiceId) -> PathBuf {
        self.settings.log_dir.join(self.name_of(id)).join(CURRENT)
    }

    /// What its unit says of it to people, and where its output is to be found.
    pub(super) fn described(&self, id: ServiceId) -> control::Service {
        let Some(unit) = self.unit_of(id) else { return control::Service::default() };
        let log_file = (self.log_to(id) == LogTo::File).then(|| self.log_file(id).display().to_string());
        control::Service {
            description: unit.description.clone(),
            documentation: unit.documentation.clone(),
            unit: Some(unit.path.clone()),
            command: unit.service.command.written(),
            log_to: Some(self.log_word(id).to_owned()),
            log_file,
            ..control::Service::default()
        }
    }

    /// The same as its word.
    pub(super) fn log_word(&self, id: ServiceId) -> &'static str {
        self.log_to(id).word()
    }

    /// What it gets. A unit that asks for supervise's own output gets just that; where it is only what containers
    /// do and there are several services, whole lines come through the logger, with their names.
    pub(super) fn output(&self, id: ServiceId) -> Output {
        let asked = self.unit_of(id).is_some_and(|unit| unit.is_written("log.to"));
        match self.log_to(id) {
            LogTo::Null => Output::Null,
            LogTo::Inherit if asked || self.services.len() == 1 => Output::Own,
            LogTo::Inherit | LogTo::File | LogTo::Journal | LogTo::Syslog => Output::Pipes,
        }
    }

    fn is_init_of_container(&self) -> bool {
        // The first pid namespace of a kernel has this number, always (include/linux/proc_ns.h).
        self.kept.keeper_pid == 1
            && std::fs::read_link("/proc/self/ns/pid")
                .is_ok_and(|name| name.as_os_str() != "pid:[4026531836]")
    }
}
