//! ROOT. Messages of services that have descriptors with them: a short-lived process takes each out of its socket and
//! sends on what may be kept (`src/courier`). Never has a descriptor that it has not asked for.
//!
//! Until that process ends nothing more is read of the same socket, so messages stay in their order. A process that
//! fails leaves the message where it was. One that a service's own file system keeps from ending is nobody's trouble
//! but that service's: it is not listened to while there are many of those.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::Manager;
use super::heirs::Claim;
use super::own::Own;
use crate::plan::{Identity, Passed};
use crate::policy::{Mono, Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::link::Link;
use crate::sys::{clock, fds, objects, parent, process, sockets};
use crate::wire::courier::{MOST, Word};
use crate::wire::keeper::Kind;

/// Milliseconds that one has.
const WITHIN_MS: u64 = 5_000;
/// Milliseconds for which the end of a service waits for what it said last.
const LAST_WORDS_MS: u64 = 1_000;
/// The same of one that has used all of that up before: everybody else waits as well.
const LAST_WORDS_OF_SLOW_MS: u64 = 5;
/// Failures after which a message goes without what came with it.
const MOST_FAILURES: u32 = 3;
/// Processes of one service that do not end.
const MOST_STUCK: usize = 16;
/// Milliseconds after which a socket is looked at again that could not be read.
const AGAIN_MS: u64 = 500;
/// The same where an end waits for it.
const AGAIN_AT_END_MS: u64 = 20;

/// What is wanted of the descriptors.
#[derive(Clone, Debug)]
pub enum Want {
    /// None of them.
    Nothing,
    /// All that may be kept, under a name.
    Store {
        /// The name.
        name: String,
        /// Whether they are dropped when nobody is at their other end.
        polled: bool,
    },
    /// The one that is the main process.
    Main(Claim),
}

/// One that is under way.
#[derive(Debug)]
struct Courier {
    run: Run,
    service: ServiceId,
    want: Want,
    link: Link,
    process: Option<OwnedFd>,
    until: Mono,
    brought: Vec<OwnedFd>,
    done: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Couriers {
    flying: BTreeMap<u64, Courier>,
    failures: BTreeMap<Run, u32>,
    /// Those whose message waits because there is no process to be had.
    short: BTreeSet<Run>,
    ending: BTreeMap<ServiceId, Vec<OwnedFd>>,
    /// Services whose last words did not come to their end in time: once is a slow machine, or enough.
    slow: BTreeSet<ServiceId>,
}

impl Couriers {
    /// When the next has had its time.
    pub fn deadline(&self) -> Option<Mono> {
        self.flying.values().map(|one| one.until).min()
    }

    /// Whether a message of this incarnation is being taken.
    pub fn has(&self, run: Run) -> bool {
        self.flying.values().any(|one| one.run == run)
    }

    /// Milliseconds that the end of this service waits for what it said last.
    fn last_words_ms(&self, id: ServiceId) -> u64 {
        if self.slow.contains(&id) { LAST_WORDS_OF_SLOW_MS } else { LAST_WORDS_MS }
    }

    fn are_stuck(&mut self, id: ServiceId) -> bool {
        let Some(ending) = self.ending.get_mut(&id) else { return false };
        ending.retain(|process| !process::has_ended(process.as_fd()));
        ending.len() >= MOST_STUCK
    }
}

impl Manager {
    /// Has the first message of an incarnation taken, which has been heeded but for its descriptors.
    pub(super) fn send_courier(&mut self, id: ServiceId, run: Run, want: Want) {
        if self.couriers.are_stuck(id) || !self.starts.is_linked() {
            return self.notices.pause(run, self.now.after(AGAIN_MS));
        }
        match self.launch_courier(run, &want) {
            Ok((request, link)) => {
                self.watch_courier(request, link.as_raw_fd());
                let until = self.now.after(WITHIN_MS);
                let (process, brought) = (None, Vec::new());
                let courier = Courier { run, service: id, want, link, process, until, brought, done: false };
                self.couriers.flying.insert(request, courier);
            }
            Err(error) => {
                log::warn!(
                    "service={} taking a message with descriptors: {}",
                    self.name_of(id),
                    reason(&error)
                );
                self.notices.pause(run, self.now.after(AGAIN_MS));
            }
        }
    }

    fn launch_courier(&mut self, run: Run, want: &Want) -> io::Result<(u64, Link)> {
        let most = match want {
            Want::Nothing => 0,
            Want::Store { .. } => MOST,
            Want::Main(_) => 1,
        };
        let socket =
            self.kept.fd(Kind::Notify, run.0).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let socket = fds::duplicate(socket)?;
        let passed = Passed { name: "notify".to_owned(), address: "socket".to_owned() };
        let (ours, theirs) = Link::pair()?;
        let own = Own {
            argv: vec!["carry".to_owned(), most.to_string()],
            // Not the service's user, who could make it say what he likes; and without a capability.
            identity: (self.user == 0).then(|| Identity::new(0, 0, &[0]).with_capabilities(0)),
            umask: 0o077,
            output: theirs.as_fd(),
            passed: Some((passed, socket.as_fd())),
        };
        Ok((self.send_own(c"supervise-carry", own)?, ours))
    }

    /// Takes the zygote's answer; gives the descriptor back where it is to somebody else's request.
    pub(super) fn courier_spawned(&mut self, request: u64, pidfd: OwnedFd) -> Result<(), OwnedFd> {
        match self.couriers.flying.get_mut(&request) {
            Some(courier) => {
                courier.process = Some(pidfd);
                Ok(())
            }
            None => Err(pidfd),
        }
    }

    /// The zygote could not: the machine is short of something, which passes. The message and what came with it wait.
    pub(super) fn courier_refused(&mut self, request: u64) {
        let Some(courier) = self.couriers.flying.remove(&request) else { return };
        self.unwatch_probe(courier.link.as_raw_fd());
        let Courier { run, service, brought, .. } = courier;
        objects::let_go(brought);
        self.notices.pause(run, self.now.after(AGAIN_MS));
        if self.couriers.short.insert(run) && self.notices.may_tell(run) {
            let name = self.name_of(service);
            log::warn!(
                "service={name} run={} a message with descriptors waits: no process can be had to take it",
                run.0
            );
        }
    }

    /// Takes what one brings, or its end.
    pub(super) fn hear_courier(&mut self, request: u64) {
        loop {
            let Some(courier) = self.couriers.flying.get_mut(&request) else { return };
            let (mut byte, mut place) = ([0], [None]);
            let word = match courier.link.receive(&mut byte, &mut place) {
                Ok(Some(_)) => Word::of(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody has said that it runs: the zygote is gone, or its refusal is on its way.
                Ok(None) | Err(_) if courier.process.is_none() => return self.courier_refused(request),
                Ok(None) | Err(_) => return self.courier_ended(request),
            };
            let [fd] = place;
            match word {
                Some(Word::Descriptor) => courier.brought.extend(fd),
                Some(Word::All) => self.take_brought(request, true),
                Some(Word::NotAll) => self.take_brought(request, false),
                Some(Word::Taken) => {
                    courier.done = true;
                    return self.courier_ended(request);
                }
                Some(Word::Go) | None => return self.courier_ended(request),
            }
        }
    }

    /// It has brought what there was: that is written down, and the message may go.
    fn take_brought(&mut self, request: u64, all: bool) {
        let Some(courier) = self.couriers.flying.get_mut(&request) else { return };
        let (id, run, want) = (courier.service, courier.run, courier.want.clone());
        let brought = std::mem::take(&mut courier.brought);
        match want {
            Want::Nothing => objects::let_go(brought),
            Want::Store { name, polled } => self.store_brought(id, run, &name, polled, brought, all),
            Want::Main(claim) => {
                self.hear_main_of(run, claim, &brought);
                objects::let_go(brought);
            }
        }
        if let Some(courier) = self.couriers.flying.get_mut(&request) {
            let _ = courier.link.send(&[Word::Go as u8], &[]); // it has ended: then its link tells
        }
    }

    /// It ends, with the message or without.
    fn courier_ended(&mut self, request: u64) {
        let Some(courier) = self.couriers.flying.remove(&request) else { return };
        self.unwatch_probe(courier.link.as_raw_fd());
        let Courier { run, service, process, brought, done, .. } = courier;
        objects::let_go(brought);
        // It may still wait for what it has to close.
        self.couriers.ending.entry(service).or_default().extend(process);
        self.couriers.short.remove(&run);
        if done {
            self.couriers.failures.remove(&run);
        } else {
            let failures = self.couriers.failures.entry(run).or_default();
            *failures += 1;
            if *failures >= MOST_FAILURES {
                self.couriers.failures.remove(&run);
                log::warn!(
                    "service={} run={} a message is taken without its descriptors",
                    self.name_of(service),
                    run.0
                );
                if let Some(socket) = self.kept.fd(Kind::Notify, run.0) {
                    let _ = sockets::discard(socket);
                }
            }
        }
        self.hear_messages(run);
    }

    /// Gives those up that have had their time.
    pub(super) fn keep_couriers(&mut self) {
        let now = self.now;
        let over = self.couriers.flying.iter().filter(|(_, one)| one.until <= now);
        let over: Vec<u64> = over.map(|(request, _)| *request).collect();
        for request in over {
            if let Some(process) = self.couriers.flying.get(&request).and_then(|one| one.process.as_ref()) {
                let _ = process::signal(process.as_fd(), libc::SIGKILL);
            }
            self.courier_ended(request);
        }
    }

    /// Hears an incarnation to its end: what it said before it ended counts, descriptors and all. A service can hold up
    /// the loop by that for a second once, and for a few milliseconds at each end after it.
    pub(super) fn hear_last(&mut self, run: Run) {
        let Some(id) = self.service_of(run) else { return };
        let deadline = clock::monotonic_ms() + self.couriers.last_words_ms(id);
        self.notices.listen_again(run);
        self.hear(run);
        loop {
            let left = deadline.saturating_sub(clock::monotonic_ms());
            let flying = self.couriers.flying.iter().find(|(_, one)| one.run == run);
            if let Some((request, link)) = flying.map(|(request, one)| (*request, &one.link)) {
                if left == 0 {
                    self.couriers.slow.insert(id);
                    return;
                }
                if parent::wait(&[link.as_fd()], left as i32, &mut [false]).is_err() {
                    return;
                }
                self.hear_courier(request);
            } else {
                // A shortage may pass before the time is over.
                let again = self.couriers.short.contains(&run) && self.starts.is_linked();
                if !again || left == 0 {
                    return;
                }
                let pause = left.min(AGAIN_AT_END_MS);
                if parent::wait(&[], pause as i32, &mut []).is_err() {
                    return;
                }
                self.notices.listen_again(run);
                self.hear_messages(run);
            }
        }
    }

    /// Nothing is left of an incarnation.
    pub(super) fn forget_couriers(&mut self, run: Run) {
        let flying: Vec<u64> = self
            .couriers
            .flying
            .iter()
            .filter(|(_, one)| one.run == run)
            .map(|(request, _)| *request)
            .collect();
        for request in flying {
            if let Some(courier) = self.couriers.flying.remove(&request) {
                self.unwatch_probe(courier.link.as_raw_fd());
                objects::let_go(courier.brought);
            }
        }
        self.couriers.failures.remove(&run);
        self.couriers.short.remove(&run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_kept_everybody_waiting_once_does_not_do_it_again() {
        let (mut couriers, id) = (Couriers::default(), ServiceId(1));
        assert_eq!(couriers.last_words_ms(id), LAST_WORDS_MS);
        couriers.slow.insert(id);
        assert_eq!(couriers.last_words_ms(id), LAST_WORDS_OF_SLOW_MS);
        assert_eq!(couriers.last_words_ms(ServiceId(2)), LAST_WORDS_MS);
    }
}
