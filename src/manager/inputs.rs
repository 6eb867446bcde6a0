//! ROOT. The inputs of a generation, kept so that a restart after a crash repeats them; from them and the unit
//! to sockets and plans. Never reads the disk for what is kept.

use crate::sys::errno::reason;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::numbers::Numbers;
use super::read_units::Layer;
use super::{Manager, directories, notices, stored};
use crate::launch::Stage;
use crate::plan::{self, ExecPlan, Identity, Limit, Resource};
use crate::policy::backoff::{self, Backoff};
use crate::policy::service::{Codes, Ended, Health, Incarnation, Kind as For, Readiness, Spec, Strategy};
use crate::policy::{Run, ServiceId};
use crate::sys::{files, memfd};
use crate::unit::{self, Fault, RuleFault, Unit};
use crate::wire::accounts::{Account, Answer, Question};
use crate::wire::keeper::Kind;
use crate::wire::state;

/// What a generation is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The service's name.
    pub name: String,
    /// The unit's files.
    pub layers: Vec<Layer>,
    /// Those that could not be read.
    #[serde(default)]
    pub unreadable: Vec<Layer>,
    /// The account that the service runs as.
    pub account: Option<Rc<Account>>,
    /// Numbers of the groups that the unit names.
    pub groups: Numbers,
    /// Numbers of the users that the unit names for its sockets.
    pub users: Numbers,
    /// The working directory, symbolic links resolved.
    pub directory: String,
    /// Variables that the unit passes on from supervise's own environment, as they were there.
    #[serde(default)]
    pub passed: BTreeMap<String, String>,
    /// The variables of its environment files, in order.
    #[serde(default)]
    pub files: Vec<(String, String)>,
    /// Why those could not be read: then nothing starts.
    #[serde(default)]
    pub unread: Option<String>,
    /// Why there is no unit, or what is worth a warning of it.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Whether the first of these is so.
    #[serde(default)]
    pub refused: bool,
}

/// What is missing from the inputs of a generation, so that nothing of it can start.
#[derive(Debug)]
pub struct Lacking {
    /// In words, with what mends it.
    pub words: String,
    /// Nobody has said anything: it may be there.
    pub silent: bool,
}

impl Lacking {
    /// Something that has to be mended.
    pub const fn wrong(words: String) -> Self {
        Self { words, silent: false }
    }
}

/// What is said of inputs whose environment files are still to be read.
pub const NOT_READ: &str =
    "its environment files have not been read yet, or its directory not been looked at";

impl Inputs {
    /// Parses the unit that the layers make.
    pub fn unit(&self) -> Result<Unit, Vec<unit::Problem>> {
        let layers: Vec<unit::Layer<'_>> =
            self.layers.iter().map(|layer| unit::Layer { path: &layer.path, text: &layer.text }).collect();
        Unit::parse_layers(&self.name, &layers)
    }

    /// Whether a start is made of the same; what is said about them may be something else.
    pub fn is_same(&self, other: &Self) -> bool {
        let bare = |one: &Self| Self { problems: Vec::new(), unread: None, ..one.clone() };
        bare(self) == bare(other)
    }

    /// Whether nothing is missing of what a start needs.
    pub const fn are_whole(&self) -> bool {
        self.account.is_some() && self.unread.is_none()
    }

    /// Takes the answers that concern this unit; where name services failed or did not answer, what they said last
    /// holds, and true comes of it. The first name that has no answer is an error, and then there is no account either:
    /// nothing starts.
    pub fn resolve(
        &mut self,
        unit: &Unit,
        user: u32,
        answers: &BTreeMap<Question, Answer>,
    ) -> Result<bool, Lacking> {
        let (mut own, before, mut stale) = (None, self.account.take(), false);
        for question in questions(unit, user) {
            let silent = matches!(answers.get(&question), Some(Answer::Failed(_)) | None);
            if silent && self.holds_still(&question, unit, user, before.as_deref()) {
                if is_own(&question, unit, user) {
                    own.clone_from(&before);
                }
                stale = true;
                continue;
            }
            let missing = |what: &str, name: &str| {
                let database = if what == "user" { "passwd" } else { "group" };
                let asks =
                    format!("`getent {database} {name}` asks the same; a start is tried again by itself");
                let (why, hint) = match answers.get(&question) {
                    Some(Answer::Failed(why)) => (why.as_str(), asks),
                    Some(_) => {
                        ("there is none of that name", format!("`{what}add --system {name}` makes it"))
                    }
                    None => ("name services did not answer within 5 s", asks),
                };
                Lacking { words: format!("looking up the {what} `{name}`: {why}\nhint: {hint}"), silent }
            };
            match (&question, answers.get(&question)) {
                (Question::User(_) | Question::Id(_), Some(Answer::User(account))) => {
                    let name = match &question {
                        Question::User(name) => name.clone(),
                        Question::Id(id) => id.to_string(),
                        Question::Group(_) => continue,
                    };
                    self.users.insert(&name, account.uid);
                    if is_own(&question, unit, user) {
                        own = Some(Rc::new(account.clone()));
                    }
                }
                (Question::Group(name), Some(Answer::Group(id))) => {
                    self.groups.insert(name, *id);
                }
                (Question::Group(name), _) => return Err(missing("group", name)),
                (Question::User(name), _) => return Err(missing("user", name)),
                (Question::Id(id), _) => return Err(missing("user", &id.to_string())),
            }
        }
        if let Some(account) = own.as_deref().filter(|_| user != 0) {
            self.only_own(unit, user, account).map_err(Lacking::wrong)?;
        }
        if let (Some(account), Some(named)) = (own.as_ref().filter(|own| own.uid == 0), &unit.service.user)
            && user == 0
            && !named.is_root()
        {
            return Err(Lacking::wrong(format!(
                "the user `{}` has uid 0, which is root\nhint: nothing runs as root by accident: name a user of its own, \
                 or write out `user = \"root\"`",
                account.name
            )));
        }
        self.account = own;
        Ok(stale)
    }

    /// An ordinary user's services are in groups that are the user's already: what the unit names beyond them
    /// cannot be had, and what it leaves out stays all the same.
    fn only_own(&self, unit: &Unit, user: u32, account: &Account) -> Result<(), String> {
        let told = |fault: RuleFault| {
            let fault = Fault::from(fault);
            format!("{fault}\nhint: {}", fault.hint().unwrap_or_default())
        };
        if account.uid != user {
            return Err(told(RuleFault::OtherUser { user: account.name.clone(), runner: user.to_string() }));
        }
        let service = &unit.service;
        if let Some(group) = service.group.as_ref().filter(|group| self.group_of(group) != Some(account.gid))
        {
            return Err(told(RuleFault::OtherGroup {
                group: group.to_string(),
                runner: account.name.clone(),
            }));
        }
        let has = |group: &&unit::Account| {
            let number = self.group_of(group);
            number.is_some_and(|number| number == account.gid || account.groups.contains(&number))
        };
        match service.groups.iter().flatten().find(|group| !has(group)) {
            Some(group) => {
                Err(told(RuleFault::NotInGroup { group: group.to_string(), runner: account.name.clone() }))
            }
            None => Ok(()),
        }
    }

    /// Whether what was answered before is known still.
    fn holds_still(&self, question: &Question, unit: &Unit, user: u32, account: Option<&Account>) -> bool {
        match question {
            question if is_own(question, unit, user) => account.is_some(),
            Question::User(name) => self.users.get(name).is_some(),
            Question::Id(id) => self.users.get(&id.to_string()).is_some(),
            Question::Group(name) => self.groups.get(name).is_some(),
        }
    }

    fn group_of(&self, group: &unit::Account) -> Option<u32> {
        match group {
            unit::Account::Name(name) => self.groups.get(name),
            unit::Account::Id(id) => Some(*id),
        }
    }

    /// Takes what is so now beside the names and the files: the release, and what is passed on. The directory is told
    /// where that is not safe to be looked at from here.
    pub fn look_around(&mut self, unit: &Unit, directory: Option<String>) {
        self.directory = directory.unwrap_or_else(|| resolved(unit));
        self.pass_environment(unit);
    }

    /// Takes what the unit passes on from this process's environment. What is not text is not passed on.
    fn pass_environment(&mut self, unit: &Unit) {
        let value = |name: &String| std::env::var(name).ok().map(|value| (name.clone(), value));
        self.passed = unit.service.pass_environment.iter().filter_map(value).collect();
    }

    /// The unit's variables in the order in which later ones win.
    fn variables(&self, unit: &Unit) -> Vec<(String, String)> {
        let all = self.passed.iter().chain(&unit.service.environment.0);
        let all = all.map(|(name, value)| (name.clone(), value.clone()));
        all.chain(self.files.iter().cloned()).collect()
    }

    /// Whom the service runs as. The groups that the unit lists replace those of the account database; the
    /// primary group stays in any case.
    pub(super) fn identity(&self, unit: &Unit, account: &Account) -> Identity {
        let number = |group: &unit::Account| self.group_of(group);
        let gid = unit.service.group.as_ref().and_then(number).unwrap_or(account.gid);
        let mut groups: Vec<u32> = match &unit.service.groups {
            Some(listed) => listed.iter().filter_map(number).collect(),
            None => account.groups.clone(),
        };
        groups.push(gid);
        let identity = Identity::new(account.uid, gid, &groups);
        match unit.service.capabilities.as_slice() {
            // Written for root, it is all that root keeps.
            [] => identity,
            kept => identity
                .with_capabilities(kept.iter().fold(0, |bits, capability| bits | 1 << capability.number())),
        }
    }
}

fn is_own(question: &Question, unit: &Unit, user: u32) -> bool {
    match (&unit.service.user, question) {
        (Some(unit::Account::Name(name)), Question::User(asked)) => name == asked,
        (Some(unit::Account::Id(id)), Question::Id(asked)) => id == asked,
        (None, Question::Id(asked)) => *asked == user,
        (Some(_) | None, _) => false,
    }
}

/// What must be looked up for a unit, by a supervisor that runs as `user`.
pub fn questions(unit: &Unit, user: u32) -> Vec<Question> {
    let of_user = |user: &unit::Account| match user {
        unit::Account::Name(name) => Question::User(name.clone()),
        unit::Account::Id(id) => Question::Id(*id),
    };
    // A group by number needs nobody's answer.
    let of_group = |group: &unit::Account| match group {
        unit::Account::Name(name) => Some(Question::Group(name.clone())),
        unit::Account::Id(_) => None,
    };
    let mut all = vec![unit.service.user.as_ref().map_or(Question::Id(user), of_user)];
    all.extend(unit.sockets.iter().filter_map(|socket| socket.user.as_ref().map(of_user)));
    let groups = unit.service.group.iter().chain(unit.service.groups.iter().flatten());
    let groups = groups.chain(unit.sockets.iter().filter_map(|socket| socket.group.as_ref()));
    all.extend(groups.filter_map(of_group));
    let access = [&unit.access.status, &unit.access.logs, &unit.access.control];
    all.extend(access.into_iter().flatten().filter_map(|who| match who {
        unit::Who::User(name) => {
            Some(name.parse().map_or_else(|_| Question::User(name.clone()), Question::Id))
        }
        unit::Who::Group(name) if name.parse::<u32>().is_err() => Some(Question::Group(name.clone())),
        unit::Who::Group(_) | unit::Who::Everyone => None,
    }));
    all.sort();
    all.dedup();
    all
}

/// What policy needs to know of a unit.
pub fn spec(unit: &Unit) -> Spec {
    let policy = match unit.restart.policy {
        unit::Policy::Always => backoff::Policy::Always,
        unit::Policy::OnFailure => backoff::Policy::OnFailure,
        unit::Policy::Never => backoff::Policy::Never,
    };
    Spec {
        start_at_boot: unit.service.start == unit::Start::Boot,
        instances: match unit.service.kind {
            unit::Kind::Service => unit.service.instances,
            unit::Kind::Task => 1,
        },
        strategy: match unit.deploy.strategy {
            Some(unit::Strategy::StartFirst) => Strategy::StartFirst,
            Some(unit::Strategy::StopFirst) => Strategy::StopFirst,
            None if unit.sockets.is_empty() => Strategy::StopFirst,
            None => Strategy::StartFirst,
        },
        backoff: Backoff {
            policy,
            delay_ms: unit.restart.delay_ms,
            max_delay_ms: unit.restart.max_delay_ms,
            reset_after_ms: unit.restart.reset_after_ms,
            give_up_after: unit.restart.give_up_after,
        },
        stop_timeout_ms: unit.service.stop_timeout_ms,
        start_timeout_ms: unit.service.start_timeout_ms,
        ready: if unit.gate().is_told() { Readiness::Told } else { Readiness::Started },
        kind: match unit.service.kind {
            unit::Kind::Service => For::Service,
            unit::Kind::Task => For::Task,
        },
        before: u16::try_from(unit.service.before_start.len()).unwrap_or(u16::MAX),
        success: Codes::of(&unit.service.success_codes),
        settle_ms: unit.service.settle_ms,
        off: unit.service.start == unit::Start::Off,
        essential: unit.service.essential,
        reload: unit.service.reload.is_some(),
        watchdog_ms: unit.service.watchdog_ms,
        health: unit.health.as_ref().map(|health| Health {
            interval_ms: health.interval_ms,
            timeout_ms: health.timeout_ms,
            failures: health.failures,
        }),
        rehearse: unit.rehearses(),
        config_codes: Codes::of(&config_codes(unit)),
        clean_signals: Codes::of(unit.service.recognised().clean_signals()),
        deaf_ms: unit.service.recognised().deaf_ms(),
        exec_stage: Stage::Exec as u8,
    }
}

/// Exit codes that a new try does not mend: the server's own, EX_CONFIG, and what a shell says of a command that it
/// cannot execute.
fn config_codes(unit: &Unit) -> Vec<u8> {
    let server = unit.service.recognised().server;
    let mut codes = server.map_or_else(Vec::new, |server| server.config_codes().to_vec());
    codes.extend([78, 126, 127]);
    codes
}

/// Which incarnation.
#[derive(Clone, Copy, Debug)]
pub struct Which {
    /// Its id.
    pub run: Run,
    /// Its instance.
    pub instance: u16,
    /// The generation of its inputs.
    pub generation: u32,
    /// Which of the commands before the start it is, where it is one.
    pub before: Option<u16>,
    /// Whether it is a rehearsal.
    pub rehearsal: bool,
}

impl Which {
    /// The one that ended so.
    pub const fn of(ended: &Ended) -> Self {
        let Ended { run, instance, generation, before, rehearsal, .. } = *ended;
        Self { run, instance, generation, before, rehearsal }
    }
}

/// The slot id of a generation's inputs.
pub const fn inputs_id(id: ServiceId, generation: u32) -> u64 {
    (id.0 as u64) << 32 | generation as u64
}

/// The generation whose inputs are in this slot.
pub const fn inputs_of_id(number: u64) -> (ServiceId, u32) {
    (ServiceId((number >> 32) as u32), number as u32)
}

impl Manager {
    /// Has the inputs of a generation kept.
    pub(super) fn keep_inputs(&mut self, id: ServiceId, generation: u32) {
        let Some(inputs) = self.inputs_of(id, generation) else { return };
        let number = inputs_id(id, generation);
        let kept = serde_json::to_vec(inputs).map_err(std::io::Error::other).and_then(|bytes| {
            self.mirror.note(state::Kind::Inputs, number, &bytes);
            self.kept.put(Kind::Inputs, number, 0, memfd::sealed(c"supervise-inputs", &bytes)?)
        });
        if let Err(error) = kept {
            log::error!("service={} keeping its inputs: {}", self.name_of(id), reason(&error));
        }
    }

    /// Drops the inputs of generations that nothing is of any longer.
    pub(super) fn drop_old_inputs(&mut self, id: ServiceId) {
        let (Some(known), Some(service)) = (self.services.get_mut(&id), self.world.get(id)) else { return };
        let old = known.older.keys().copied().filter(|one| *one < service.newest && !service.needs(*one));
        let old: Vec<u32> = old.collect();
        for generation in old {
            known.older.remove(&generation);
            self.kept.drop(Kind::Inputs, inputs_id(id, generation));
            self.mirror.note(state::Kind::Inputs, inputs_id(id, generation), &[]);
        }
    }

    /// The inputs of a generation.
    pub(super) fn inputs_of(&self, id: ServiceId, generation: u32) -> Option<&Inputs> {
        let known = self.services.get(&id)?;
        Some(known.older.get(&generation).unwrap_or(&known.inputs))
    }

    /// What is to be known of an incarnation that exists or is being made.
    pub(super) fn which(&self, id: ServiceId, run: Run) -> Option<Which> {
        let (instance, _, one) = self.world.get(id)?.find(run)?;
        let Incarnation { generation, before, rehearsal, .. } = *one;
        Some(Which { run, instance: instance.number, generation, before, rehearsal })
    }

    /// Which start of its service an incarnation is; the next one, where it is none that there is.
    fn start_number(&self, id: ServiceId, run: Run) -> u32 {
        let Some(service) = self.world.get(id) else { return 1 };
        service.find(run).map_or(service.starts.saturating_add(1), |(_, _, one)| one.start)
    }

    /// The plan of an incarnation, encoded.
    pub(super) fn plan(&self, id: ServiceId, which: Which, invocation: &str) -> Result<Vec<u8>, String> {
        let plan = self.exec_plan(id, which, invocation)?;
        plan.encode().map_err(|unfit| unfit.to_string())
    }

    /// The plan of an incarnation, which may be one of the commands before the start: those get no sockets.
    pub(super) fn exec_plan(
        &self,
        id: ServiceId,
        which: Which,
        invocation: &str,
    ) -> Result<ExecPlan, String> {
        let Which { run, instance, generation, before, .. } = which;
        let known = self.services.get(&id).ok_or("there is no such service")?;
        let unit = known.unit.as_ref().ok_or("its unit has problems")?;
        let given = self.inputs_of(id, generation).ok_or("there is no such service")?;
        let account = given.account.as_ref().ok_or("its user is not known yet")?;
        if let Some(words) = &given.unread {
            return Err(words.clone());
        }
        let identity = given.identity(unit, account);
        let command = match before {
            Some(before) => unit.service.before_start.get(usize::from(before)),
            None => Some(&unit.service.command),
        };
        let command = command.ok_or("its unit has no such command")?;
        let sockets = if before.is_some() { Vec::new() } else { self.wanted_sockets(unit) };
        let private = unit.private().filter(|_| before.is_none()).map(|_| plan::Listener {
            name: plan::PRIVATE.to_owned(),
            address: self.probe_path(run).to_string_lossy().into_owned(),
        });
        let listeners: Vec<plan::Listener> = sockets
            .into_iter()
            .map(|(name, address)| plan::Listener { name, address: address.starter_key() })
            .chain(private)
            .collect();
        let numbered = listeners.iter().zip(plan::FIRST_SOCKET as i32..);
        let fds: Vec<(&str, i32)> = numbered.map(|(listener, fd)| (listener.name.as_str(), fd)).collect();
        let directories = self.directories(unit);
        let paths: Vec<_> = directories.iter().map(|(which, path)| (*which, path.as_str())).collect();
        let context = unit::Context {
            name: &known.name,
            instance: instance.into(),
            generation: generation.into(),
            fds: &fds,
            directories: &paths,
        };
        let limits = &unit.limits;
        let inputs = plan::Inputs {
            command: command.expand(&context),
            directory: given.directory.clone(),
            account: known_as(account),
            identity: (self.user == 0).then_some(identity),
            environment: given.variables(unit),
            protocols: self.protocols(unit, run, before.is_some()),
            watchdog_pid: unit.service.watchdog_ms.is_some() && before.is_none(),
            listeners: listeners.clone(),
            stored: self.stored_names(id, which),
            beside: if before.is_some() { Vec::new() } else { passed_beside(unit) },
            start: plan::Start {
                service: known.name.clone(),
                generation: generation.into(),
                instance: instance.into(),
                starts: self.start_number(id, run).into(),
                invocation: invocation.to_owned(),
            },
            umask: unit.service.umask,
            limits: self.process_limits(limits),
            nice: limits.nice,
            oom_score_adj: limits.oom_score_adjust.or((self.user == 0).then_some(0)),
            cpus: limits.cpu_affinity.iter().copied().map(u32::from).collect(),
        };
        plan::build(&inputs).map_err(|unfit| unfit.to_string())
    }

    /// Variables of the protocols that the unit's service is to speak.
    fn protocols(&self, unit: &Unit, run: Run, before: bool) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = self
            .directories(unit)
            .into_iter()
            .map(|(which, path)| (directories::variable(which).to_owned(), path))
            .collect();
        if notices::notifies(unit) && !before {
            let path = self.notify_path(run).to_string_lossy().into_owned();
            all.push(("NOTIFY_SOCKET".to_owned(), path));
            let most = stored::most_stored(unit);
            if most > 0 {
                all.push(("FDSTORE".to_owned(), most.to_string()));
            }
        }
        if let Some(ms) = unit.service.watchdog_ms.filter(|_| !before) {
            all.push(("WATCHDOG_USEC".to_owned(), ms.saturating_mul(1_000).to_string()));
        }
        all
    }

    /// The limits of each process.
    fn process_limits(&self, limits: &unit::Limits) -> Vec<Limit> {
        let both = |resource, most| Limit { resource, soft: most, hard: most };
        let mut all =
            vec![self.descriptor_limit(limits.nofile), both(Resource::Core, limits.core.unwrap_or(u64::MAX))];
        all.extend(limits.nproc.map(|most| both(Resource::Nproc, most)));
        all
    }

    /// Services get back the soft limit that the supervisor was started with; one that is written is both, so that
    /// the service cannot raise it.
    fn descriptor_limit(&self, wanted: Option<u64>) -> Limit {
        let soft = wanted.unwrap_or(self.soft_nofile);
        let own = || crate::sys::limits::limit(Resource::Nofile).map_or(soft, |(_, hard)| hard.max(soft));
        Limit { resource: Resource::Nofile, soft, hard: wanted.unwrap_or_else(own) }
    }
}

/// What the environment says of the user.
fn known_as(account: &Account) -> plan::Account {
    plan::Account { name: account.name.clone(), home: account.home.clone(), shell: account.shell.clone() }
}

/// What stands behind the sockets: nothing up to the descriptor that says when the service is ready.
fn passed_beside(unit: &Unit) -> Vec<plan::Passed> {
    let count = notices::beside(unit);
    let passed =
        |name: &str, address: &str| plan::Passed { name: name.to_owned(), address: address.to_owned() };
    (1..=count)
        .map(|place| if place == count { passed("ready", "pipe") } else { passed("null", "/dev/null") })
        .collect()
}

/// The working directory, where a process with the service's rights is to say where it really is: others can change
/// the way to it, or it is on a file system that may never answer.
pub fn directory_to_ask(unit: &Unit, user: u32) -> Option<PathBuf> {
    let directory = unit.service.directory.as_ref()?;
    match files::unsafe_or_remote_part(directory, user) {
        // One that is not there can be looked for here.
        Ok(None) => None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Ok(Some(_)) | Err(_) => Some(directory.clone()),
    }
}

/// The working directory with its symbolic links resolved; as it is written where that does not work: the
/// start then says why.
fn resolved(unit: &Unit) -> String {
    let Some(directory) = &unit.service.directory else { return "/".to_owned() };
    match std::fs::canonicalize(directory) {
        Ok(real) => real.to_string_lossy().into_owned(),
        Err(_) => directory.to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests;
