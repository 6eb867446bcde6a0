//! ROOT. The inputs of a generation while they are being made: accounts looked up, environment files and what is passed
//! on read, the release resolved. When an operator acts, and for a start whose generation never had all of them; never
//! for a crash. Never waits: what others are to say comes as it comes, and only who asked for it is held up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Manager;
use super::inputs::{Inputs, Lacking, directory_to_ask, questions};
use super::lookups::ToRead;
use crate::plan::Identity;
use crate::policy::backoff::unbound_delay;
use crate::policy::{End, Event, Mono, Operation, Run, ServiceId};
use crate::sys::errno::reason;
use crate::sys::files;
use crate::unit::{self, ENVIRONMENT_FILE_BYTES_MAX, Unit};
use crate::wire::accounts::{Answer, Question};

/// Whose: a service's, for an operation or, without one, for whatever of it is to start.
pub(super) type Key = (ServiceId, Option<Operation>);

/// One that is under way.
#[derive(Debug)]
struct Reading {
    unit: Unit,
    inputs: Inputs,
    /// Whose number was it before?
    uid: Option<u32>,
    /// The generation that it is for, where it is for one that there is.
    generation: u32,
    open: BTreeSet<Question>,
    answers: BTreeMap<Question, Answer>,
    /// The variables of those environment files that have been read.
    files: Vec<Vec<(String, String)>>,
    /// Where the working directory really is, once that is known.
    directory: Option<String>,
}

/// Why a service has no inputs yet, and when it is tried again where nothing of it is to start.
#[derive(Debug)]
struct Failed {
    words: String,
    tries: u32,
    again: Option<Mono>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Readings {
    under_way: BTreeMap<Key, Reading>,
    /// Incarnations that start when their inputs are there.
    waiting: BTreeSet<(ServiceId, Run)>,
    /// Services that are to be read in this turn.
    wanted: BTreeSet<ServiceId>,
    failed: BTreeMap<ServiceId, Failed>,
}

impl Readings {
    /// When there is something to do.
    pub fn deadline(&self) -> Option<Mono> {
        let again = self.failed.values().filter_map(|failed| failed.again).min();
        if self.wanted.is_empty() { again } else { Some(Mono(0)) }
    }

    /// Why a service of which nothing starts has no inputs.
    pub fn words_of(&self, id: ServiceId) -> Option<&str> {
        self.failed.get(&id).map(|failed| failed.words.as_str())
    }

    /// Nobody waits for these inputs any more.
    pub fn forget(&mut self, key: Key) {
        self.under_way.remove(&key);
    }
}

impl Manager {
    // ---- for what is to start ------------------------------------------------------------------------

    /// Whether an incarnation has to wait for its inputs; it is started when they are there.
    pub(super) fn awaits_inputs(&mut self, id: ServiceId, run: Run, generation: u32) -> bool {
        let newest = self.world.get(id).map(|service| service.newest);
        let lacks = newest == Some(generation) && self.lacks_inputs(id);
        if lacks {
            self.readings.waiting.insert((id, run));
            self.readings.wanted.insert(id);
        }
        lacks
    }

    fn lacks_inputs(&self, id: ServiceId) -> bool {
        self.services.get(&id).is_some_and(|known| known.unit.is_some() && !known.inputs.are_whole())
    }

    /// Asks again for what a boot was not told, or what an earlier manager has asked for: somebody may have rights by a
    /// name, though nothing starts.
    pub(super) fn read_what_lacks(&mut self) {
        let lacking = self.services.keys().copied().filter(|id| self.lacks_inputs(*id));
        self.readings.wanted.extend(lacking.collect::<Vec<_>>());
    }

    /// Begins what is due.
    pub(super) fn keep_readings(&mut self) {
        let now = self.now;
        for (id, failed) in &mut self.readings.failed {
            if failed.again.take_if(|at| *at <= now).is_some() {
                // A service that tries to start asks by itself.
                let tries = self.world.get(*id).is_some_and(|service| service.deadline().is_some());
                self.readings.wanted.extend((!tries).then_some(*id));
            }
        }
        for id in std::mem::take(&mut self.readings.wanted) {
            if !self.readings.under_way.contains_key(&(id, None)) {
                self.begin_reading((id, None));
            }
        }
        self.pump_lookups();
        self.run_events();
    }

    /// What was to start and is not wanted any more does not wait either.
    pub(super) fn let_waiting_go(&mut self, id: ServiceId) {
        let theirs = self.readings.waiting.iter().filter(|one| one.0 == id);
        let unwanted = |run: &Run| self.world.incarnation(id, *run).is_none_or(|one| one.dismissed);
        let gone: Vec<Run> = theirs.map(|one| one.1).filter(unwanted).collect();
        for run in gone {
            self.readings.waiting.remove(&(id, run));
            self.feed(id, Event::Lost(run));
        }
    }

    // ---- one reading ---------------------------------------------------------------------------------

    /// Begins one. What comes of it goes to who asked for it, at once where nobody else has to say anything.
    pub(super) fn begin_reading(&mut self, key: Key) {
        let (id, operation) = key;
        let Some(known) = self.services.get(&id) else { return };
        let Some(unit) = known.unit.clone() else { return };
        let inputs = known.inputs.clone();
        // An account that was found stays that of its generation.
        let known_already = operation.is_none() && inputs.account.is_some();
        let asked = if known_already { Vec::new() } else { questions(&unit, self.user) };
        let reading = Reading {
            uid: inputs.account.as_ref().map(|account| account.uid),
            generation: self.world.get(id).map_or(1, |service| service.newest),
            open: asked.iter().cloned().collect(),
            answers: BTreeMap::new(),
            files: Vec::new(),
            directory: None,
            unit,
            inputs,
        };
        self.readings.under_way.insert(key, reading);
        self.ask_names(&asked);
        self.go_on_reading(key);
    }

    /// Answers to questions; None where nobody gave one in time.
    pub(super) fn take_answers(&mut self, answers: &BTreeMap<Question, Option<Answer>>) {
        let mut moved = Vec::new();
        for (key, reading) in &mut self.readings.under_way {
            let before = reading.open.len();
            for (question, answer) in answers {
                if reading.open.remove(question) {
                    reading.answers.extend(answer.clone().map(|answer| (question.clone(), answer)));
                }
            }
            if reading.open.len() != before {
                moved.push(*key);
            }
        }
        for key in moved {
            self.go_on_reading(key);
        }
    }

    /// What is in the file that was waited for, or where the directory is. The error is the end of a sentence.
    pub(super) fn take_file(&mut self, asked: &ToRead, read: Result<Vec<u8>, String>) {
        let key = asked.key;
        let Some(reading) = self.readings.under_way.get_mut(&key) else { return };
        if asked.is_directory {
            let real = read.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            // As it is written where nobody can say it: the start then says why.
            reading.directory = Some(real.unwrap_or_else(|| asked.path.to_string_lossy().into_owned()));
            return self.go_on_reading(key);
        }
        let path = reading.unit.service.environment_files.get(reading.files.len());
        let Some(path) = path else { return };
        match variables(path, read) {
            Ok(variables) => {
                reading.files.push(variables);
                self.go_on_reading(key);
            }
            Err(words) => self.end_reading(key, Err(Lacking::wrong(words))),
        }
    }

    fn go_on_reading(&mut self, key: Key) {
        let user = self.user;
        let Some(reading) = self.readings.under_way.get_mut(&key) else { return };
        if !reading.open.is_empty() {
            return;
        }
        let files = reading.unit.service.environment_files.clone();
        if reading.files.is_empty() {
            match reading.resolve(user, key.1.is_none()) {
                Ok(false) => {}
                Ok(true) => {
                    let name = self.name_of(key.0);
                    log::warn!("service={name} name services do not answer: what they said before holds");
                }
                Err(lacking) => return self.end_reading(key, Err(lacking)),
            }
        }
        while let Some(reading) = self.readings.under_way.get_mut(&key) {
            let Some(path) = files.get(reading.files.len()) else { break };
            // With root's rights, and here, only where nobody else could have put something else in its way, or says whose
            // it is, or decides when it answers; otherwise as the service itself would.
            if user != 0 || !matches!(files::unsafe_or_remote_part(path, 0), Ok(None)) {
                let identity = reading.reader(user);
                self.ask_file(ToRead { key, path: path.clone(), is_directory: false, identity });
                return self.pump_lookups();
            }
            match variables(path, read_as_root(path)) {
                Ok(variables) => reading.files.push(variables),
                Err(words) => return self.end_reading(key, Err(Lacking::wrong(words))),
            }
        }
        let Some(reading) = self.readings.under_way.get_mut(&key) else { return };
        if reading.directory.is_none()
            && let Some(path) = directory_to_ask(&reading.unit, user)
        {
            let identity = reading.reader(user);
            self.ask_file(ToRead { key, path, is_directory: true, identity });
            return self.pump_lookups();
        }
        let mut inputs = reading.inputs.clone();
        inputs.look_around(&reading.unit, reading.directory.take());
        (inputs.files, inputs.unread) = (reading.files.concat(), None);
        self.end_reading(key, Ok(inputs));
    }

    fn end_reading(&mut self, key: Key, read: Result<Inputs, Lacking>) {
        let Some(reading) = self.readings.under_way.remove(&key) else { return };
        match key {
            (id, Some(operation)) => self.take_inputs(operation, id, read),
            (id, None) => self.inputs_are_read(id, reading.generation, read),
        }
    }

    /// The inputs of the generation that is started, or why there are none: whoever waits for them goes on.
    fn inputs_are_read(&mut self, id: ServiceId, generation: u32, read: Result<Inputs, Lacking>) {
        let waiting: Vec<Run> =
            self.readings.waiting.iter().filter(|one| one.0 == id).map(|one| one.1).collect();
        self.readings.waiting.retain(|one| one.0 != id);
        let newest = self.world.get(id).map(|service| service.newest);
        let lacking = match read {
            // Where an operator's start has brought them meanwhile, those are newer.
            Ok(_) if newest != Some(generation) || !self.lacks_inputs(id) => None,
            Ok(inputs) => {
                self.put_inputs(id, generation, inputs);
                None
            }
            Err(lacking) => Some(lacking),
        };
        let Some(Lacking { words, silent }) = lacking.filter(|_| self.lacks_inputs(id)) else {
            self.readings.failed.remove(&id);
            for run in waiting {
                self.want_process(id, run);
            }
            return;
        };
        let tries = self.readings.failed.get(&id).map_or(1, |failed| failed.tries.saturating_add(1));
        let again = self.now.after(unbound_delay(tries));
        if waiting.is_empty() {
            log::warn!("service={} {words}", self.name_of(id));
        }
        self.words.insert(id, words.clone()); // said with the event
        self.readings.failed.insert(id, Failed { words, tries, again: Some(again) });
        let end = if silent { End::Unanswered } else { End::Unprepared };
        for run in waiting {
            self.feed(id, Event::NotCloned(run, end));
        }
    }

    /// Takes new inputs of a generation in use. They are kept before anything of it is in the state.
    pub(super) fn put_inputs(&mut self, id: ServiceId, generation: u32, inputs: Inputs) {
        if let Some(known) = self.services.get_mut(&id) {
            match known.older.get_mut(&generation) {
                Some(older) => *older = inputs,
                None => known.inputs = inputs,
            }
            self.readings.failed.remove(&id);
            self.keep_inputs(id, generation);
            self.write_book();
        }
    }
}

impl Reading {
    /// By whom something of it is read that a service could have put there; None: by the supervisor's own user.
    fn reader(&self, user: u32) -> Option<Identity> {
        let account = self.inputs.account.as_ref().filter(|_| user == 0);
        account.map(|account| self.inputs.identity(&self.unit, account))
    }

    /// Names to numbers; true where some are those of before, since nobody answers. A name that has become somebody
    /// else's since is refused.
    fn resolve(&mut self, user: u32, first: bool) -> Result<bool, Lacking> {
        if first && self.inputs.account.is_some() {
            return Ok(false);
        }
        let stale = self.inputs.resolve(&self.unit, user, &self.answers)?;
        if let (Some(old), Some(new)) = (self.uid, &self.inputs.account)
            && old != new.uid
        {
            return Err(Lacking::wrong(format!(
                "the user `{}` has become number {}; it was {old}, whose files are not the new one's\n\
                 hint: give the name its number back, or its files to {} and start supervise again",
                new.name, new.uid, new.uid
            )));
        }
        Ok(stale)
    }
}

/// What is in a file that nobody but root could have put there.
fn read_as_root(path: &Path) -> Result<Vec<u8>, String> {
    let read = files::read_steady(path, ENVIRONMENT_FILE_BYTES_MAX as u64);
    read.map(|(bytes, ..)| bytes).map_err(|error| reason(&error))
}

/// The variables of an environment file. The error has the file and the line, and no value.
fn variables(path: &Path, read: Result<Vec<u8>, String>) -> Result<Vec<(String, String)>, String> {
    let shown = path.display();
    let bytes = read.map_err(|why| {
        format!(
            "reading the environment file {shown}: {why}\nhint: mend it, or take it out of `environment-files`"
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown}: not UTF-8\nhint: save it as UTF-8"))?;
    unit::environment_file(&text).map_err(|(line, words)| format!("{shown}:{line}: {words}"))
}
