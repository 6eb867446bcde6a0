//! ROOT. What only others can say: whose number a name is, and what is in a file that a service could have put there.
//! Asked of short-lived processes, which may hang or be held by whoever has their user. The loop never waits for one; a
//! boot does for a moment. Never judges an answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::Manager;
use super::kept::{News, is_full};
use super::own::Own;
use super::readings::Key;
use crate::plan::Identity;
use crate::policy::Mono;
use crate::sys::errno::reason;
use crate::sys::{clock, fds, parent, process};
use crate::unit::ENVIRONMENT_FILE_BYTES_MAX;
use crate::wire::accounts::{Answer, Question, lines, whole_file};

/// Milliseconds that one has.
const WITHIN_MS: u64 = 5_000;
/// Bytes that an answer may have: the longest file, and many accounts.
const MOST_ANSWER: usize = 4 * 1024 * 1024;
/// The most at a time, and the most of one user: who holds those of his user holds up nobody else's.
const MOST_AT_ONCE: usize = 64;
const MOST_OF_ONE: usize = 8;
/// The most that look up names.
const MOST_OF_NAMES: usize = 32;

/// What a process is to say.
#[derive(Debug)]
enum Sent {
    /// Whose numbers these names are.
    Names(Vec<Question>),
    /// What is in a file.
    File(ToRead),
}

/// A file that is to be read with the rights of a service.
#[derive(Debug)]
pub(super) struct ToRead {
    /// For whose inputs.
    pub key: Key,
    /// Which.
    pub path: PathBuf,
    /// Whether it is the working directory, of which is asked where it really is.
    pub is_directory: bool,
    /// By whom; None: by the supervisor's own user.
    pub identity: Option<Identity>,
}

impl Sent {
    /// Whose process it is.
    fn uid(&self) -> Option<u32> {
        match self {
            Self::Names(_) => None,
            Self::File(file) => file.identity.as_ref().map(|identity| identity.uid),
        }
    }
}

/// One that is under way.
#[derive(Debug)]
struct Flying {
    sent: Sent,
    out: OwnedFd,
    said: Vec<u8>,
    pidfd: Option<OwnedFd>,
    until: Mono,
}

/// All of them, and what is to be asked.
#[derive(Debug, Default)]
pub struct Lookups {
    flying: BTreeMap<u64, Flying>,
    /// Names that no process has been sent for yet, with the end of their time.
    names: BTreeMap<Question, Mono>,
    files: VecDeque<ToRead>,
    /// What was answered, while a boot waits for it.
    heard: Option<BTreeMap<Question, Answer>>,
}

impl Lookups {
    /// When the next has had its time.
    pub fn deadline(&self) -> Option<Mono> {
        let flying = self.flying.values().map(|one| one.until);
        flying.chain(self.names.values().copied()).min()
    }

    /// The names that are asked for.
    fn open(&self) -> BTreeSet<&Question> {
        let names = self.flying.values().filter_map(|one| match &one.sent {
            Sent::Names(names) => Some(names),
            Sent::File(_) => None,
        });
        names.flatten().chain(self.names.keys()).collect()
    }

    fn of_user(&self, uid: Option<u32>) -> usize {
        self.flying.values().filter(|one| one.sent.uid() == uid).count()
    }
}

impl Manager {
    // ---- asking --------------------------------------------------------------------------------------

    /// Has names looked up; those that are asked for already are not asked twice.
    pub(super) fn ask_names<'a>(&mut self, questions: impl IntoIterator<Item = &'a Question>) {
        let until = self.now.after(WITHIN_MS);
        let open: BTreeSet<Question> = self.lookups.open().into_iter().cloned().collect();
        let fresh = questions.into_iter().filter(|question| !open.contains(question));
        self.lookups.names.extend(fresh.map(|question| (question.clone(), until)));
    }

    /// Has a file read.
    pub(super) fn ask_file(&mut self, file: ToRead) {
        self.lookups.files.push_back(file);
    }

    /// The answers that come within some milliseconds. At a boot sockets come before services, and nothing runs yet
    /// that could be held up; what is not answered in time is still under way.
    pub(super) fn look_up_first(
        &mut self,
        questions: &[Question],
        most_ms: u64,
    ) -> BTreeMap<Question, Answer> {
        let deadline = clock::monotonic_ms() + most_ms;
        self.lookups.heard = Some(BTreeMap::new());
        self.ask_names(questions);
        while !self.lookups.open().is_empty() {
            self.now = Mono(clock::monotonic_ms());
            let left = deadline.saturating_sub(self.now.0);
            if left == 0 || !self.hear_first() {
                break;
            }
            let flying = self.lookups.flying.values().map(|one| one.out.as_fd());
            let links = [self.kept.link(), self.starts.link()].into_iter().flatten();
            let sources: Vec<BorrowedFd<'_>> = links.chain(flying).collect();
            let mut ready = vec![false; sources.len()];
            if self.lookups.open().is_empty() || parent::wait(&sources, left as i32, &mut ready).is_err() {
                break;
            }
        }
        self.lookups.heard.take().unwrap_or_default()
    }

    /// Takes what the keeper, the zygote and lookups say, before there is a loop that does. False where no answer can
    /// come any more.
    fn hear_first(&mut self) -> bool {
        let mut news = Vec::new();
        self.kept.listen(&mut news);
        for one in news {
            match one {
                News::Zygote(link) => self.attach_zygote(link),
                News::Logger(link) => self.attach_logger(link),
                News::Signal(signal) => self.early_signals.push(signal),
                News::Exits => {} // the cursor is in the state: the loop takes them
                News::Ended => {
                    self.keeper_ended();
                    return false;
                }
            }
        }
        self.pump_lookups();
        self.hear_zygote();
        let flying: Vec<u64> = self.lookups.flying.keys().copied().collect();
        for request in flying {
            self.hear_lookup(request);
        }
        self.keep_lookups();
        true
    }

    /// Sends processes for what is to be asked, as many as there may be.
    pub(super) fn pump_lookups(&mut self) {
        if !self.starts.is_linked() {
            return;
        }
        if !self.lookups.names.is_empty() && self.lookups.of_user(None) < MOST_OF_NAMES {
            let names: Vec<Question> = std::mem::take(&mut self.lookups.names).into_keys().collect();
            self.send_for(Sent::Names(names));
        }
        for _ in 0..self.lookups.files.len() {
            if self.lookups.flying.len() >= MOST_AT_ONCE {
                return;
            }
            let Some(file) = self.lookups.files.pop_front() else { return };
            let uid = file.identity.as_ref().map(|identity| identity.uid);
            if self.lookups.of_user(uid) >= MOST_OF_ONE {
                self.lookups.files.push_back(file);
            } else {
                self.send_for(Sent::File(file));
            }
        }
    }

    fn send_for(&mut self, sent: Sent) {
        match self.launch_lookup(&sent) {
            Ok((request, out)) => {
                self.watch_lookup(request, out.as_raw_fd());
                let until = self.now.after(WITHIN_MS);
                let flying = Flying { sent, out, said: Vec::new(), pidfd: None, until };
                self.lookups.flying.insert(request, flying);
            }
            Err(error) if is_full(&error) => self.ask_again(sent), // its link's room wakes us
            Err(error) => self.not_sent(sent, &error),
        }
    }

    fn launch_lookup(&mut self, sent: &Sent) -> io::Result<(u64, OwnedFd)> {
        let mut argv = Vec::new();
        let identity = match sent {
            Sent::Names(names) => {
                argv.push("lookup".to_owned());
                argv.extend(names.iter().map(Question::encode));
                (self.user == 0).then(|| Identity::new(0, 0, &[0]).with_capabilities(0))
            }
            Sent::File(file) if file.is_directory => {
                argv.extend(["resolve".to_owned(), file.path.to_string_lossy().into_owned()]);
                file.identity.clone()
            }
            Sent::File(file) => {
                let most = ENVIRONMENT_FILE_BYTES_MAX.to_string();
                argv.extend(["read".to_owned(), most, file.path.to_string_lossy().into_owned()]);
                file.identity.clone()
            }
        };
        let (out, out_write) = fds::pipe(0)?;
        fds::set_nonblocking(out.as_fd(), true)?;
        let own = Own { argv, identity, umask: 0o077, output: out_write.as_fd(), passed: None };
        Ok((self.send_own(c"supervise-lookup", own)?, out))
    }

    fn ask_again(&mut self, sent: Sent) {
        match sent {
            Sent::Names(names) => self.ask_names(&names),
            Sent::File(file) => self.lookups.files.push_front(file),
        }
    }

    // ---- what came of it -----------------------------------------------------------------------------

    /// The zygote has made a process. It comes back where it is none of these.
    pub(super) fn lookup_spawned(&mut self, request: u64, pidfd: OwnedFd) -> Result<(), OwnedFd> {
        match self.lookups.flying.get_mut(&request) {
            Some(one) => {
                one.pidfd = Some(pidfd);
                Ok(())
            }
            None => Err(pidfd),
        }
    }

    /// The zygote has made none.
    pub(super) fn lookup_refused(&mut self, request: u64, errno: i32) {
        if let Some(one) = self.land_lookup(request) {
            self.not_sent(one.sent, &io::Error::from_raw_os_error(errno));
        }
    }

    /// The zygote is gone; what it had been asked for may or may not exist.
    pub(super) fn lookups_ungated(&mut self) {
        let open = self.lookups.flying.iter().filter(|(_, one)| one.pidfd.is_none());
        let open: Vec<u64> = open.map(|(request, _)| *request).collect();
        for request in open {
            if let Some(one) = self.land_lookup(request) {
                self.ask_again(one.sent);
            }
        }
    }

    /// Takes one from the list. A process that is still there is ended, also one that somebody has stopped.
    fn land_lookup(&mut self, request: u64) -> Option<Flying> {
        let one = self.lookups.flying.remove(&request)?;
        self.unwatch_probe(one.out.as_raw_fd());
        if let Some(pidfd) = &one.pidfd {
            let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
        }
        Some(one)
    }

    /// Ends all of them.
    pub(super) fn end_lookups(&mut self) {
        let all: Vec<u64> = self.lookups.flying.keys().copied().collect();
        for request in all {
            drop(self.land_lookup(request));
        }
    }

    /// Reads what one says.
    pub(super) fn hear_lookup(&mut self, request: u64) {
        let mut part = [0; 4096];
        let ended = loop {
            let Some(one) = self.lookups.flying.get_mut(&request) else { return };
            match fds::read(one.out.as_fd(), &mut part) {
                Ok(0) => break true,
                Ok(count) => one.said.extend_from_slice(part.get(..count).unwrap_or_default()),
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
            if one.said.len() > MOST_ANSWER {
                break true;
            }
        };
        self.take_names(request);
        let Some(one) = self.lookups.flying.get(&request) else { return };
        let ended = ended || matches!(one.sent, Sent::File(_)) && whole_file(&one.said).is_some();
        if ended && let Some(one) = self.land_lookup(request) {
            self.no_more(one, "the process that was to say it ended without an answer");
        }
    }

    /// The answers that are there in whole lines.
    fn take_names(&mut self, request: u64) {
        let Some(one) = self.lookups.flying.get_mut(&request) else { return };
        let Sent::Names(names) = &mut one.sent else { return };
        let Some(end) = one.said.iter().rposition(|byte| *byte == b'\n') else { return };
        let whole: Vec<u8> = one.said.drain(..=end).collect();
        let mut answers: BTreeMap<Question, Option<Answer>> = BTreeMap::new();
        for (question, answer) in lines(&String::from_utf8_lossy(&whole)) {
            if let Some(at) = names.iter().position(|name| *name == question) {
                names.swap_remove(at);
                answers.insert(question, Some(answer));
            }
        }
        self.answered(answers);
    }

    /// It has ended, or had its time.
    fn no_more(&mut self, one: Flying, why: &str) {
        match one.sent {
            Sent::Names(names) => self.answered(names.into_iter().map(|name| (name, None)).collect()),
            Sent::File(file) => {
                self.take_file(&file, whole_file(&one.said).unwrap_or_else(|| Err(why.to_owned())));
            }
        }
        self.pump_lookups();
    }

    fn not_sent(&mut self, sent: Sent, error: &io::Error) {
        let why = format!("starting the process that asks: {}", reason(error));
        match sent {
            Sent::Names(names) => {
                let failed = |name| (name, Some(Answer::Failed(why.clone())));
                self.answered(names.into_iter().map(failed).collect());
            }
            Sent::File(file) => self.take_file(&file, Err(why)),
        }
    }

    fn answered(&mut self, answers: BTreeMap<Question, Option<Answer>>) {
        if let Some(heard) = &mut self.lookups.heard {
            let known = answers.iter().filter_map(|(question, answer)| Some((question, answer.as_ref()?)));
            heard.extend(known.map(|(question, answer)| (question.clone(), answer.clone())));
        }
        self.take_answers(&answers);
    }

    /// Gives those up that have had their time.
    pub(super) fn keep_lookups(&mut self) {
        let now = self.now;
        let late = self.lookups.names.iter().filter(|(_, until)| **until <= now);
        let late: BTreeMap<Question, Option<Answer>> =
            late.map(|(question, _)| (question.clone(), None)).collect();
        if !late.is_empty() {
            self.lookups.names.retain(|question, _| !late.contains_key(question));
            self.answered(late);
        }
        let over = self.lookups.flying.iter().filter(|(_, one)| one.until <= now);
        let over: Vec<u64> = over.map(|(request, _)| *request).collect();
        for request in over {
            let Some(one) = self.land_lookup(request) else { continue };
            match &one.sent {
                Sent::Names(names) => {
                    let names: Vec<String> = names.iter().map(Question::encode).collect();
                    log::warn!("name services said nothing within 5 s of {}", names.join(", "));
                }
                Sent::File(file) => {
                    log::warn!("reading {}: no end within 5 s", file.path.display());
                }
            }
            self.no_more(one, "the process that reads it as the service's user did not end within 5 s");
        }
    }
}
