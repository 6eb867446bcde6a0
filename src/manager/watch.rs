//! ROOT. What the loop waits for: which descriptor means what. Never reads one.
//!
//! mio polls edge-triggered, so everything that is watched is read until there is nothing left. The keeper
//! holds copies of most of these descriptors, and closing ours does not take them out of the poll: what is
//! no longer wanted is deregistered first.

use crate::sys::errno::reason;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::{Manager, Runs};
use crate::policy::{Run, ServiceId};
use crate::sys::cgroup;
use crate::wire::keeper::Kind;

/// The keeper's link.
pub const KEEPER: Token = Token(1);
/// The zygote's link.
pub const ZYGOTE: Token = Token(2);
/// The logger's link.
pub const LOGGER: Token = Token(3);
/// The socket on which a new keeper takes over.
pub const HANDOVER: Token = Token(4);
/// Changes of the files of sockets.
pub const FILES: Token = Token(5);
/// Stored descriptors that have lost their other end.
pub const STORES: Token = Token(6);
/// The control server's tokens are from here on, below the next class.
pub const CONTROL: usize = 1 << 32;
const REPORT: usize = 1 << 56;
const TREE: usize = 2 << 56;
const PIDFD: usize = 3 << 56;
const VOICE: usize = 4 << 56;
const PROBE: usize = 5 << 56;
const BINDER: usize = 6 << 56;
const LOOKUP: usize = 7 << 56;
const COURIER: usize = 8 << 56;
const CLASS: usize = 0xFF << 56;

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// The keeper.
    Keeper,
    /// The zygote.
    Zygote,
    /// The logger.
    Logger,
    /// A new keeper.
    Handover,
    /// The files of sockets.
    Files,
    /// Stored descriptors.
    Stores,
    /// The control server.
    Control,
    /// The launch report of an incarnation.
    Report(Run),
    /// The cgroup of an incarnation that is being cleared.
    Tree(Run),
    /// A process that is not the keeper's child.
    Pidfd(Run),
    /// What an incarnation says of itself.
    Voice(Run),
    /// What is bound with a service's rights, by the number of its request.
    Binder(u64),
    /// What is brought of a message with descriptors, by the number of its request.
    Courier(u64),
    /// What a probe says, by the number of its request.
    Probe(u64),
    /// What others say of names and files, by the number of the request.
    Lookup(u64),
}

/// What a token stands for.
pub fn meaning(token: Token) -> Watch {
    let run = Run((token.0 & !CLASS) as u64);
    match token {
        KEEPER => Watch::Keeper,
        ZYGOTE => Watch::Zygote,
        LOGGER => Watch::Logger,
        HANDOVER => Watch::Handover,
        FILES => Watch::Files,
        STORES => Watch::Stores,
        Token(number) => match number & CLASS {
            REPORT => Watch::Report(run),
            TREE => Watch::Tree(run),
            PIDFD => Watch::Pidfd(run),
            VOICE => Watch::Voice(run),
            BINDER => Watch::Binder(run.0),
            PROBE => Watch::Probe(run.0),
            LOOKUP => Watch::Lookup(run.0),
            COURIER => Watch::Courier(run.0),
            _ => Watch::Control,
        },
    }
}

/// What is registered.
#[derive(Debug, Default)]
pub struct Watched {
    links: BTreeMap<usize, (RawFd, bool)>,
    /// Incarnations on their way to a command.
    pub reports: BTreeMap<Run, RawFd>,
    trees: BTreeMap<Run, OwnedFd>,
    pidfds: BTreeMap<Run, RawFd>,
    voices: BTreeMap<Run, RawFd>,
    /// Trees without a descriptor that tells: looked at again and again while they are cleared.
    pub polled: Runs,
    /// Processes of others that have ended and whose status is not known yet, since when.
    pub unsettled: BTreeMap<Run, u64>,
}

impl Manager {
    /// Watches a link under its token, in place of the one before it; for room only while something waits for it, as
    /// every message that the other side reads would wake this process else.
    pub(super) fn watch_link(&mut self, token: Token, raw: Option<RawFd>, waits: bool) {
        let before = self.watched.links.get(&token.0).copied();
        let wanted = raw.map(|raw| (raw, waits));
        if before == wanted {
            return;
        }
        // A link that ended was closed before: nothing of it is left in the poll.
        self.watched.links.remove(&token.0);
        if let Some(raw) = raw {
            let interest = if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let (registry, source) = (self.poll.registry(), &mut SourceFd(&raw));
            let result = match before {
                // Tells at once where there is room by now.
                Some((one, _)) if one == raw => registry.reregister(source, token, interest),
                Some(_) | None => registry.register(source, token, interest),
            };
            let result = result.or_else(|error| match error.kind() {
                // The number was taken again by another link meanwhile.
                io::ErrorKind::AlreadyExists => registry.reregister(source, token, interest),
                io::ErrorKind::NotFound => registry.register(source, token, interest),
                _ => Err(error),
            });
            match result {
                Ok(()) => drop(self.watched.links.insert(token.0, (raw, waits))),
                Err(error) => log::error!("watching a link: {}", reason(&error)),
            }
        }
    }

    /// Forgets what is registered of a link, so that the next one is registered even under the same number.
    pub(super) fn unwatch_link(&mut self, token: Token) {
        self.watched.links.remove(&token.0);
    }

    /// Watches what an incarnation has to say before its command, and its end where nobody else will tell.
    pub(super) fn watch_process(&mut self, run: Run) {
        if let Some(raw) = self.kept.fd(Kind::Report, run.0).map(|fd| fd.as_raw_fd())
            && self.register(raw, REPORT, run, Interest::READABLE)
        {
            self.watched.reports.insert(run, raw);
        }
        for kind in [Kind::Notify, Kind::ReadyPipe] {
            if let Some(raw) = self.kept.fd(kind, run.0).map(|fd| fd.as_raw_fd())
                && self.register(raw, VOICE, run, Interest::READABLE)
            {
                self.watched.voices.insert(run, raw);
            }
        }
        if self.tells_by_pidfd(run)
            && let Some(raw) = self.kept.fd(Kind::Process, run.0).map(|fd| fd.as_raw_fd())
            && !self.watched.pidfds.contains_key(&run)
            && self.register(raw, PIDFD, run, Interest::READABLE)
        {
            self.watched.pidfds.insert(run, raw);
        }
    }

    /// Whether the end of a main process is to be seen by its descriptor: the keeper tells of its own children, and an
    /// heir may be another's.
    pub(super) fn tells_by_pidfd(&self, run: Run) -> bool {
        let known = self.processes.get(run);
        known.is_some_and(|process| process.keeper != self.kept.keeper || process.heir.is_some())
    }

    /// Another process is the main one of an incarnation: the end of the one before is of no interest.
    pub(super) fn unwatch_pidfd(&mut self, run: Run) {
        if let Some(raw) = self.watched.pidfds.remove(&run) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
        }
    }

    /// Watches the ends of commands of operators that no keeper may tell.
    pub(super) fn watch_execs(&mut self) {
        for number in self.kept.ids(Kind::Process).into_iter().filter(|number| *number >= super::exec::FIRST)
        {
            if let Some(raw) = self.kept.fd(Kind::Process, number).map(|fd| fd.as_raw_fd())
                && self.register(raw, PIDFD, Run(number), Interest::READABLE)
            {
                self.watched.pidfds.insert(Run(number), raw);
            }
        }
    }

    /// Watches a tree that is being cleared.
    pub(super) fn watch_tree(&mut self, id: ServiceId, run: Run) {
        if self.watched.trees.contains_key(&run) {
            return;
        }
        let events = self.kept.fd(Kind::Cgroup, run.0).map(cgroup::events);
        if let Some(Ok(events)) = events
            && self.register(events.as_raw_fd(), TREE, run, Interest::PRIORITY)
        {
            self.watched.trees.insert(run, events);
            // What ended between the look before and now rings no more.
            self.look_at_tree(id, run);
            return;
        }
        self.watched.polled.insert(run);
    }

    fn register(&self, raw: RawFd, class: usize, run: Run, interest: Interest) -> bool {
        let token = Token(class | run.0 as usize);
        match self.poll.registry().register(&mut SourceFd(&raw), token, interest) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            Err(error) => {
                log::error!("watching incarnation {}: {}", run.0, reason(&error));
                false
            }
        }
    }

    /// The report has been read to its end.
    pub(super) fn unwatch_report(&mut self, run: Run) {
        if let Some(raw) = self.watched.reports.remove(&run) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
        }
    }

    /// Watches what binds a socket with a service's rights.
    pub(super) fn watch_binder(&mut self, request: u64, raw: RawFd) {
        self.register(raw, BINDER, Run(request), Interest::READABLE);
    }

    /// Watches what brings a message's descriptors.
    pub(super) fn watch_courier(&mut self, request: u64, raw: RawFd) {
        self.register(raw, COURIER, Run(request), Interest::READABLE);
    }

    /// Watches for stored descriptors that lose their other end.
    pub(super) fn watch_stores(&mut self, raw: RawFd) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&raw), STORES, Interest::READABLE)
    }

    /// Watches what a probe says.
    pub(super) fn watch_probe(&mut self, request: u64, raw: RawFd) {
        self.register(raw, PROBE, Run(request), Interest::READABLE);
    }

    /// Watches what is said of names and files.
    pub(super) fn watch_lookup(&mut self, request: u64, raw: RawFd) {
        self.register(raw, LOOKUP, Run(request), Interest::READABLE);
    }

    /// It has said what it had to say.
    pub(super) fn unwatch_probe(&mut self, raw: RawFd) {
        let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
    }

    /// It has nothing more to say.
    pub(super) fn unwatch_voice(&mut self, run: Run) {
        if let Some(raw) = self.watched.voices.remove(&run) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
        }
    }

    /// Nothing of an incarnation is watched any longer.
    pub(super) fn unwatch(&mut self, run: Run) {
        self.unwatch_report(run);
        self.unwatch_voice(run);
        if let Some(events) = self.watched.trees.remove(&run) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&events.as_raw_fd()));
        }
        self.unwatch_pidfd(run);
        self.watched.polled.remove(&run);
        self.watched.unsettled.remove(&run);
    }
}
