//! ROOT. The one way in which a manager starts: take what the keeper has, take the state up again, read the
//! units if they have never been read, open the control socket. Never starts a service itself.

use crate::sys::errno::reason;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::budget::Budget;
use super::inputs::{self, Inputs, questions};
use super::kept::{Kept, News};
use super::listeners::NotAll;
use super::processes::Process;
use super::read_units::{self, Found};
use super::shares::Unlimited;
use super::store::Store;
use super::{Known, Manager, control, open_null, watch};
use crate::launch::Stage;
use crate::plan::Resource;
use crate::policy::backoff::{Backoff, Policy};
use crate::policy::service::{Codes, Goal, Kind as For, Readiness, Service, Spec, Strategy};
use crate::policy::world::World;
use crate::policy::{Event, Mono, Run, ServiceId};
use crate::sys::link::Link;
use crate::sys::{cgroup, clock, exec, fds, files, limits, lock, memfd, parent, sockets};
use crate::unit::{Severity, Unit, rules};
use crate::wire::accounts::{Answer, Question};
use crate::wire::handover::lock_in;
use crate::wire::keeper::{self, Kind};
use crate::wire::settings::Settings;
use crate::wire::state::{self, header};

/// Milliseconds for which the end of what a dead supervisor left is waited for.
const LEFT_MS: u64 = 5_000;

/// Milliseconds for which a boot waits for name services; with `--strict` all that they have.
const NAMES_MS: u64 = 500;
const ALL_NAMES_MS: u64 = 6_000;

/// Milliseconds between two tries to make the control socket.
const CONTROL_AGAIN_MS: u64 = 10_000;

/// Exit status where unit files have problems and `--strict` was given.
const BAD_UNITS: u8 = 3;

fn wrong(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_string())
}

/// The first limits on descriptors, and the settings.
fn read_arguments(mut arguments: Vec<OsString>) -> io::Result<(u64, Settings)> {
    if arguments.len() < 2 || arguments.first().is_none_or(|first| first != "--soft-nofile") {
        return Err(wrong("`manager` is started by supervise itself"));
    }
    let rest = arguments.split_off(2);
    let soft = arguments.get(1).and_then(|text| text.to_str()?.parse().ok());
    let settings = Settings::from_args(rest).map_err(wrong)?;
    Ok((soft.ok_or_else(|| wrong("--soft-nofile"))?, settings))
}

/// Puts the process in order; its link to the keeper, from descriptor 3.
fn link_to_keeper() -> io::Result<Link> {
    fds::fill_standard()?;
    parent::plain_signals();
    exec::set_umask(0o022);
    let link = Link::from_fd(fds::inherited(3)?);
    fds::close_on_exec_from(3)?;
    fds::set_nonblocking(link.as_fd(), true)?;
    Ok(link)
}

/// The state that is kept; or an empty one, which is still to be kept.
fn take_state(kept: &Kept, exits: &memfd::Map) -> io::Result<(Store, Option<OwnedFd>)> {
    if let Some(fd) = kept.fd(Kind::State, 0) {
        return Ok((Store::open(fd)?, None));
    }
    let (store, fd) = Store::create()?;
    store.set(header::SINCE, clock::realtime_ns());
    store.set(header::BEGAN, super::strays::now_ticks());
    // What ended before there was a state is nobody's.
    let written = exits.word64(keeper::exits::WRITTEN).map_or(0, |word| word.load(Ordering::Acquire));
    store.set(header::EXIT_CURSOR, written);
    Ok((store, Some(fd)))
}

/// Where our cgroups are made; said once where that is nowhere.
fn find_cgroups(fresh: bool) -> (Option<cgroup::Base>, Unlimited) {
    match cgroup::Base::find() {
        Ok(base) => (Some(base), Unlimited::default()),
        Err(error) => {
            let why = reason(&error);
            if fresh {
                log::info!("no cgroups ({why}): services are followed as process trees");
            }
            (None, Unlimited { nowhere: Some(why), ..Unlimited::default() })
        }
    }
}

/// What tells our cgroups from those of other supervisors: the runtime directory's path, and its lock, which is another
/// one in another container or chroot. Without a lock nobody is to take ours for his own, nor we another's.
fn cgroup_tag(runtime_dir: &Path, kept: &Kept) -> String {
    let path = crc32fast::hash(runtime_dir.as_os_str().as_encoded_bytes());
    let lock = kept.fd(Kind::Lock, 0).and_then(|lock| files::identity(lock).ok());
    let (device, inode) = lock.unwrap_or((u64::MAX, kept.keeper));
    let own = crc32fast::hash(&[device.to_le_bytes(), inode.to_le_bytes()].concat());
    format!("{path:08x}-{own:08x}")
}

/// Takes everything there is, and brings it up to date.
pub fn start(arguments: Vec<OsString>) -> io::Result<Manager> {
    let (soft_nofile, settings) = read_arguments(arguments)?;
    let link = link_to_keeper()?;
    let (mut kept, news) = Kept::take(link)?;
    let budget = Budget::of(limits::limit(Resource::Nofile)?.0);
    kept.keep_at_most(budget.slots);
    let exits = kept.fd(Kind::Exits, 0).ok_or_else(|| wrong("the keeper has no exit records"))?;
    let exits = memfd::Map::new(exits, false)?;
    let (store, fresh) = take_state(&kept, &exits)?;
    let (cgroups, unlimited) = find_cgroups(fresh.is_some());
    let mut manager = Manager {
        soft_nofile,
        user: files::effective_user(),
        now: Mono(clock::monotonic_ms()),
        since_ns: store.get(header::SINCE),
        binary: parent::own_binary()?,
        null: open_null()?,
        poll: mio::Poll::new()?,
        watched: watch::Watched::default(),
        exits,
        store,
        mirror: super::mirror::Mirror::default(),
        world: World::new(),
        services: BTreeMap::new(),
        words: BTreeMap::new(),
        unsaved: BTreeSet::new(),
        processes: super::processes::Processes::default(),
        listeners: super::listeners::Listeners::default(),
        starts: super::start::Starts::default(),
        logs: super::logs::Logs::default(),
        notices: super::notices::Notices::default(),
        couriers: super::couriers::Couriers::default(),
        stores: super::stored::Stores::default(),
        above: super::above::Above::of_environment(Mono(clock::monotonic_ms())),
        probes: super::probes::Probes::default(),
        lookups: super::lookups::Lookups::default(),
        readings: super::readings::Readings::default(),
        parked: super::parked::Parked::default(),
        control: None,
        control_at: None,
        is_second: false,
        waiting: super::answer::Waiting::default(),
        answered: Vec::new(),
        events: std::collections::VecDeque::new(),
        actions: Vec::new(),
        cgroups,
        unlimited,
        left_groups: Vec::new(),
        execs: super::exec::Execs::new(budget.commands),
        budget,
        lacking: BTreeMap::new(),
        unrehearsed: BTreeMap::new(),
        made: std::collections::BTreeSet::new(),
        cgroup_tag: cgroup_tag(&settings.runtime_dir, &kept),
        handover: None,
        stop_at: None,
        early_signals: Vec::new(),
        ended: BTreeMap::new(),
        streams: BTreeMap::new(),
        watchers: super::events::Watchers::default(),
        end_notes: super::ends::Notes::default(),
        launch_facts: super::launches::Facts::default(),
        untidy: true,
        kept,
        settings,
    };
    manager.bring_up(fresh, news)?;
    Ok(manager)
}

impl Manager {
    /// Makes the control socket where there was no room for it before.
    pub(super) fn keep_control(&mut self) {
        if self.control_at.is_some_and(|at| at <= self.now) {
            self.open_control();
            if self.control.is_some() {
                log::info!("there is a control socket now");
                self.write_book();
            }
        }
    }

    /// Takes up what an earlier manager left, or begins; from here on there is a loop.
    fn bring_up(&mut self, fresh: Option<OwnedFd>, news: Vec<News>) -> io::Result<()> {
        if let Some(state) = fresh {
            let state = self.adopt(state)?;
            self.kept.put(Kind::State, 0, 0, state)?;
        }
        if self.store.get(header::CLOSING) != 0 {
            self.world.close(); // before the first event: nothing may come up any more
        }
        let anew = self.enable_controllers();
        self.adopt_execs();
        self.sweep_exec_groups();
        if self.store.get(header::BOOTED) == 0 {
            self.end_leftovers();
        }
        self.take_up(news);
        if anew {
            self.limit_again();
        }
        if self.store.get(header::BOOTED) == 0 {
            self.read_units_first()?;
        }
        self.read_what_lacks();
        self.open_control();
        self.write_book();
        self.begin();
        Ok(())
    }

    /// Takes up what there is. The zygote first: what services have said, descriptors and all, comes before their ends.
    fn take_up(&mut self, news: Vec<News>) {
        let (zygotes, news) = news.into_iter().partition(|one| matches!(one, News::Zygote(_)));
        self.take_first_news(zygotes);
        self.recover();
        self.take_first_news(news);
    }

    /// Everything is there: whoever waits for it is told, and what has come meanwhile is done.
    fn begin(&mut self) {
        self.drop_given();
        self.kept.ready();
        self.run_events();
        self.tell_ready();
        for signal in std::mem::take(&mut self.early_signals) {
            self.take_signal(signal);
        }
        if self.store.get(header::CLOSING) != 0 {
            self.close();
        }
    }

    fn take_first_news(&mut self, news: Vec<News>) {
        for one in news {
            match one {
                News::Zygote(link) => self.attach_zygote(link),
                News::Logger(link) => self.attach_logger(link),
                News::Signal(signal) => self.early_signals.push(signal),
                News::Exits => {} // taken in by the recovery
                News::Ended => self.keeper_ended(),
            }
        }
    }

    /// Ends what a supervisor of this runtime directory left when it was killed whole and was not taken back: nobody
    /// knows what it is, and nothing may be started twice.
    fn end_leftovers(&self) {
        let Some(base) = &self.cgroups else { return };
        let deadline = clock::monotonic_ms() + LEFT_MS;
        let known = self.written_groups();
        for name in base.names(&self.group_prefix()).unwrap_or_default() {
            if known.contains(&name) {
                continue;
            }
            let Ok(group) = base.open(&name) else { continue };
            if cgroup::is_populated(group.as_fd()).unwrap_or(false) {
                log::warn!("ending what a dead supervisor left in the cgroup {name}");
                let _ = cgroup::kill(group.as_fd());
            }
            while let Err(error) = base.remove_all(&name) {
                if clock::monotonic_ms() >= deadline {
                    log::error!("removing the cgroup {name}: {}", reason(&error));
                    break;
                }
                let _ = parent::wait(&[], 5, &mut []);
            }
        }
    }

    /// The cgroups of incarnations that are written down.
    fn written_groups(&self) -> BTreeSet<String> {
        let records = self.store.bodies(state::Kind::Process).into_iter();
        records.filter_map(|(_, body)| serde_json::from_slice::<Process>(&body).ok()?.cgroup).collect()
    }

    /// The first reading of the units: everything is bound before anything starts, but for what waits for name services
    /// that do not answer at once.
    fn read_units_first(&mut self) -> io::Result<()> {
        let (found, problems) = read_units::read_all(&self.settings.units);
        read_units::tell(&found, &problems, &self.settings.units);
        let mut fresh: Vec<(String, Known)> = Vec::new();
        for (name, found) in found {
            // A manager that died in the middle of this has left those that it got to.
            if !self.services.values().any(|known| known.name == name) {
                fresh.push((name.clone(), parse(name, found)));
            }
        }
        let answers = self.first_answers(&fresh);
        self.check_each(&mut fresh, &answers);
        self.check_set(&mut fresh);
        self.resolve_accounts(&mut fresh, &answers);
        for (name, known) in &fresh {
            for problem in &known.inputs.problems {
                log::error!("unit={name} {problem}");
            }
        }
        let is_bad = |known: &Known| known.unit.is_none() || known.inputs.account.is_none();
        let bad = fresh.iter().filter(|(_, known)| is_bad(known)).count();
        if self.settings.strict && (bad > 0 || !problems.is_empty()) {
            log::error!("{}: nothing is started (--strict)", read_units::with_problems(bad));
            self.kept.finish(BAD_UNITS);
            self.kept.flush_within(1_000);
            return Err(wrong("refused"));
        }
        let mut ids = Vec::new();
        for (_, known) in fresh {
            ids.push(self.add_service(known));
        }
        self.link_dependencies();
        for id in &ids {
            let boots = self.world.spec(*id).is_some_and(|spec| spec.start_at_boot);
            let is_known = self.services.get(id).is_some_and(|known| known.inputs.account.is_some());
            if boots
                && is_known
                && let Err(words) = self.bind_early(*id)
            {
                self.say_words(*id, words); // tried again at the start, which then fails with these words
            }
        }
        self.bind_what_rests();
        // Those too that an earlier manager wrote down and did not get to start.
        let untouched = |service: &Service| service.last_run == Run(0) && service.asked.is_empty();
        let begun = self.world.iter().filter(|(_, service)| untouched(service)).map(|(id, _)| id);
        ids = begun.collect();
        for id in ids {
            let boots = self.world.spec(id).is_some_and(|spec| spec.start_at_boot);
            if boots {
                self.pull_for(id);
            }
            self.feed(id, Event::Boot);
        }
        self.run_events();
        self.store.set(header::BOOTED, 1);
        Ok(())
    }

    /// The sockets of services that were taken back and of which nothing runs: nobody had kept them.
    fn bind_what_rests(&mut self) {
        let rests = |service: &Service| {
            let wanted = service.goal == Goal::Held || service.goal == Goal::Up && !service.is_down();
            wanted && service.last_run != Run(0) && service.incarnations().next().is_none()
        };
        let resting = self.world.iter().filter(|(_, service)| rests(service)).map(|(id, _)| id);
        for id in resting.collect::<Vec<ServiceId>>() {
            if let Err(words) = self.bind_early(id) {
                self.say_words(id, words);
            }
        }
    }

    /// What name services say at once of all that the units ask. With `--strict` all of it is waited for.
    fn first_answers(&mut self, fresh: &[(String, Known)]) -> BTreeMap<Question, Answer> {
        let units = fresh.iter().filter_map(|(_, known)| known.unit.as_ref());
        let mut asked: Vec<Question> = units.flat_map(|unit| questions(unit, self.user)).collect();
        asked.extend((self.user != 0).then_some(Question::Id(self.user)));
        asked.sort();
        asked.dedup();
        let most_ms = if self.settings.strict { ALL_NAMES_MS } else { NAMES_MS };
        self.look_up_first(&asked, most_ms)
    }

    /// Binds the sockets of a service before anything starts; those that are bound with its own rights take a while.
    fn bind_early(&mut self, id: ServiceId) -> Result<(), String> {
        self.make_directories(id)?;
        match self.bind_all(id, None) {
            Ok(_) | Err(NotAll::Waiting) => Ok(()),
            Err(NotAll::Wrong(words)) => Err(words),
        }
    }

    /// What is wrong with each unit for who runs it.
    fn check_each(&self, fresh: &mut [(String, Known)], answers: &BTreeMap<Question, Answer>) {
        let runner = match answers.get(&Question::Id(self.user)) {
            Some(Answer::User(account)) => account.name.clone(),
            // Whose number it is, is compared again when that is known.
            _ => std::env::var("USER").unwrap_or_else(|_| self.user.to_string()),
        };
        let runner = match self.user {
            0 => rules::Runner::Root,
            uid => rules::Runner::User { uid, name: &runner },
        };
        for (_, known) in fresh {
            let Some(unit) = &known.unit else { continue };
            let mut rules = rules::check_identity(unit, runner);
            rules.extend(crate::unit::check_server(unit));
            known.inputs.problems.extend(rules.iter().map(|problem| problem.to_string()));
            let lacks = self.lacks_room(None, unit, unit.service.instances);
            known.inputs.problems.extend(lacks.iter().map(|(words, hint)| format!("{words}\nhint: {hint}")));
            if lacks.is_some() || rules.iter().any(|problem| problem.severity == Severity::Error) {
                known.unit = None;
            }
        }
    }

    /// What is wrong between units: an address in two of them, what there is not, those that wait for each other.
    fn check_set(&self, fresh: &mut [(String, Known)]) {
        let units: Vec<Unit> = fresh.iter().filter_map(|(_, known)| known.unit.clone()).collect();
        let refused: Vec<String> =
            fresh.iter().filter(|(_, known)| known.unit.is_none()).map(|(name, _)| name.clone()).collect();
        let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
        for (unit, problem) in rules::check_set(&units, &refused) {
            if let Some((_, known)) = fresh.iter_mut().find(|(name, _)| *name == unit) {
                known.inputs.problems.push(problem.to_string());
                if problem.severity == Severity::Error {
                    known.unit = None;
                }
            }
        }
    }

    /// Takes what is known of names. Whose are not known yet, or wrong, cannot start, and are asked for again.
    fn resolve_accounts(&mut self, fresh: &mut [(String, Known)], answers: &BTreeMap<Question, Answer>) {
        let mut lacking = Vec::new();
        for (name, known) in fresh {
            let Some(unit) = &known.unit else {
                known.inputs.refused = true;
                continue;
            };
            match known.inputs.resolve(unit, self.user, answers) {
                Ok(_)
                    if unit.service.environment_files.is_empty()
                        && inputs::directory_to_ask(unit, self.user).is_none() =>
                {
                    known.inputs.look_around(unit, None);
                }
                Ok(_) => known.inputs.unread = Some(inputs::NOT_READ.to_owned()),
                Err(found) => lacking.push(format!("unit={name} {}", found.words)),
            }
        }
        if self.settings.strict {
            lacking.iter().for_each(|words| log::error!("{words}"));
        }
    }

    /// Adds a service that has never been; one without a unit has failed before it began.
    fn add_service(&mut self, mut known: Known) -> ServiceId {
        known.slim(self.services.values().next_back().map(Box::as_ref));
        let id = ServiceId(self.services.keys().last().map_or(1, |last| last.0 + 1));
        let mut service = Service::new();
        let spec = match &known.unit {
            Some(unit) => inputs::spec(unit),
            None => {
                service = Service::failed(self.now);
                never()
            }
        };
        self.services.insert(id, Box::new(known));
        self.keep_inputs(id, service.newest);
        self.world.add(id, spec, service);
        self.save_service(id, None);
        id
    }

    /// Opens the control socket, or takes it up again. Without a runtime directory there is none, and without its lock what
    /// is in there is another's; both have been told at the beginning, and are tried again.
    fn open_control(&mut self) {
        self.control_at = None;
        if self.kept.fd(Kind::Control, 0).is_none() && self.kept.fd(Kind::Lock, 0).is_none() {
            self.take_lock();
            if self.kept.fd(Kind::Lock, 0).is_none() {
                self.control_at = Some(self.now.after(CONTROL_AGAIN_MS));
                return;
            }
        }
        if self.kept.fd(Kind::Control, 0).is_none()
            && let Err(error) = self.bind_control()
        {
            let path = self.settings.control();
            log::warn!(
                "no control socket at {}: {}\nhint: services run on, and no command reaches them; it is tried again \
                 every {} s",
                path.display(),
                reason(&error),
                CONTROL_AGAIN_MS / 1_000
            );
            self.control_at = Some(self.now.after(CONTROL_AGAIN_MS));
            return;
        }
        let listener = self.kept.fd(Kind::Control, 0).map(fds::duplicate);
        let Some(Ok(listener)) = listener else { return };
        match control::Control::new(listener, self.user, self.poll.registry(), watch::CONTROL) {
            Ok(control) => self.control = Some(control.within(self.budget)),
            Err(error) => log::error!("the control socket: {}", reason(&error)),
        }
    }

    /// Takes the lock of the runtime directory where that was not possible at the beginning.
    fn take_lock(&mut self) {
        let directory = &self.settings.runtime_dir;
        let path = lock_in(directory);
        let mode = if self.user == 0 { 0o755 } else { 0o700 };
        match files::make_directory(directory, mode).and_then(|()| files::try_lock(&path)) {
            Ok(Some(file)) => {
                // It is the keeper's, who outlives us.
                if let Err(error) = lock::claim_for(file.as_fd(), self.kept.keeper_pid) {
                    log::warn!("writing into the lock {}: {}", path.display(), reason(&error));
                }
                if let Err(error) = self.kept.put(Kind::Lock, 0, 0, file.into()) {
                    return log::warn!("keeping the lock {}: {}", path.display(), reason(&error));
                }
                self.cgroup_tag = cgroup_tag(&self.settings.runtime_dir, &self.kept);
            }
            Ok(None) if !self.is_second => {
                self.is_second = true;
                let who = lock::living_holder(&path).map_or_else(
                    || "somebody else".to_owned(),
                    |pid| format!("another supervisor (pid {pid})"),
                );
                log::warn!(
                    "{who} has the lock {} by now: this supervisor (pid {}) runs on beside it, without a control \
                     socket\nhint: where both have the same units, end one of them",
                    path.display(),
                    self.kept.keeper_pid
                );
            }
            Ok(None) | Err(_) => {}
        }
    }

    fn bind_control(&mut self) -> io::Result<()> {
        let directory = files::open_directory(&self.settings.runtime_dir)?;
        let name = Path::new("control");
        // The lock of the runtime directory is ours, so what is there belongs to somebody who is gone.
        if files::look(directory.as_fd(), name)?.is_some_and(|named| named.is_socket) {
            files::remove(directory.as_fd(), name)?;
        }
        let socket = sockets::bind_unix_in(directory.as_fd(), &self.settings.control(), libc::SOCK_STREAM)?;
        // Everybody may connect; the kernel says who they are, and that decides.
        files::own(directory.as_fd(), name, None, None, 0o666)?;
        sockets::listen(socket.as_fd(), 128)?;
        self.kept.put(Kind::Control, 0, 0, socket)
    }
}

/// A unit by its text alone.
fn parse(name: String, found: Found) -> Known {
    let mut layers = found.layers;
    layers.shrink_to_fit(); // they are kept
    let mut inputs = Inputs { name: name.clone(), layers, unreadable: found.unreadable, ..Inputs::default() };
    let mut problems = found.problems;
    let mut unit = None;
    if problems.is_empty() {
        match inputs.unit() {
            Ok(parsed) => unit = Some(parsed),
            Err(found) => problems.extend(found.iter().map(|problem| problem.to_string())),
        }
    }
    inputs.problems = problems;
    Known { name, unit, inputs, older: BTreeMap::new() }
}

/// The numbers of a service that has no unit.
pub fn never() -> Spec {
    Spec {
        start_at_boot: false,
        instances: 1,
        strategy: Strategy::StopFirst,
        backoff: Backoff {
            policy: Policy::Never,
            delay_ms: 0,
            max_delay_ms: 0,
            reset_after_ms: None,
            give_up_after: None,
        },
        stop_timeout_ms: Some(10_000),
        start_timeout_ms: None,
        ready: Readiness::Started,
        kind: For::Service,
        before: 0,
        success: Codes::ZERO,
        settle_ms: 0,
        off: false,
        essential: false,
        reload: false,
        watchdog_ms: None,
        health: None,
        rehearse: false,
        config_codes: Codes::NONE,
        clean_signals: Codes::NONE,
        deaf_ms: 0,
        exec_stage: Stage::Exec as u8,
    }
}
