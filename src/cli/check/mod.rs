//! USER. `supervise check`: units, and the world around them, before anything runs. Never changes anything, never
//! needs root: what only root could see is said to be not checked.

mod doubt;
mod finding;
mod holders;
mod limits;
mod people;
mod program;
mod rights;
mod socket_file;
mod sockets;
mod walk;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::exit::Exit;
use super::place::{self, Surroundings, Wanted};
use super::text;
use super::trouble::{self, Trouble, reason, shown_path};
use crate::manager::read_units::{Found, Judge, no_unit, read_directories, read_file};
use crate::plan::FIXED_PATH;
use crate::sys::files;
use crate::unit::{
    self, Account, Command, Context, ENVIRONMENT_FILE_BYTES_MAX, Fault, Listen, LogTo, Probe, Problem,
    Reload, RuleFault, Socket, Unit, Who, rules,
};
use crate::wire::settings::{LogUser, Settings};
use doubt::Doubt;
use finding::{Finding, Findings};
use limits::Controllers;
use people::People;
use program::Unfit;
use rights::Rights;
use socket_file::ForWhom;
use sockets::Machine;
use walk::{Barrier, Person, Want};

/// What the user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Files and directories; those of the supervisor that is meant without any.
    pub paths: Vec<PathBuf>,
    /// Text alone, and not the machine.
    pub offline: bool,
    /// Warnings are problems.
    pub deny_warnings: bool,
    /// As JSON.
    pub json: bool,
    /// Where everything is.
    pub wanted: Wanted,
}

/// Checks and prints.
pub fn check(asked: &Check, around: &Surroundings) -> ExitCode {
    match checked(asked, around) {
        Ok(exit) => exit.into(),
        Err(trouble) => trouble::tell(&trouble),
    }
}

fn checked(asked: &Check, around: &Surroundings) -> Result<Exit, Trouble> {
    let mut out = Findings::default();
    let found = read(asked, around, &mut out)?;
    let mut people = People::default();
    let own = people.user(&Account::Id(around.uid)).ok();
    // The system's units are run by root, whoever checks them; one's own by oneself.
    let is_user = asked.wanted.place.user;
    let name = own.map(|own| own.name).unwrap_or_default();
    let runner =
        if is_user { rules::Runner::User { uid: around.uid, name: &name } } else { rules::Runner::Root };
    let count = found.len();
    let (mut units, mut doubts, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (name, found) in &found {
        match parsed(name, found, runner, &mut out) {
            Some((unit, doubt)) => {
                units.push(unit);
                doubts.push(doubt);
            }
            None => refused.push(name.as_str()),
        }
    }
    for (unit, problem) in rules::check_set(&units, &refused) {
        out.all.push(Finding::of(&unit, &problem));
    }
    if !asked.offline {
        let meant = settings(asked, around).map(|settings| settings.runtime_dir).ok();
        let machine = Machine::look(is_user, people.proxies(), meant, &units);
        let controllers = Controllers::look(is_user);
        let rights = Rights::look(is_user, around.uid);
        if asked.paths.is_empty() && !is_user {
            check_log_account(&units, &mut people, &mut out);
        }
        for (unit, doubt) in units.iter().zip(&doubts) {
            controllers.check(unit, &mut out);
            rights.check(unit, doubt, &mut out);
            World {
                people: &mut people,
                machine: &machine,
                doubt,
                runner_uid: if is_user { around.uid } else { 0 },
            }
            .check(unit, &mut out);
        }
    }
    out.sort();
    let errors = out.all.iter().filter(|one| one.is_error).count();
    let warnings = out.all.len() - errors;
    let judged_for = if is_user { name.as_str() } else { "root" };
    trouble::print(&if asked.json { as_json(count, judged_for, &out) } else { as_text(&out) })?;
    if !asked.json {
        // Root's are what root asks for; anybody else may have meant his own.
        if is_user {
            trouble::say(&format!("checked as for the supervisor of user `{}`", text::shown(&name)));
        } else if around.uid != 0 {
            trouble::say("checked as for root's supervisor; `--user` checks as for your own");
        }
        trouble::say(&summary(count, errors, warnings, out.unchecked.len()));
    }
    Ok(if errors > 0 || asked.deny_warnings && warnings > 0 { Exit::NotAsWanted } else { Exit::Done })
}

/// Those of the supervisor that is meant: root's is root's whoever asks.
fn settings(asked: &Check, around: &Surroundings) -> Result<Settings, Trouble> {
    let of_user = asked.wanted.place.user;
    let place = Surroundings { uid: if of_user { around.uid.max(1) } else { 0 }, ..around.clone() };
    place::settings(&asked.wanted, &place)
}

/// The files that are meant.
fn read(asked: &Check, around: &Surroundings, out: &mut Findings) -> Result<Vec<(String, Found)>, Trouble> {
    let mut found: Vec<(String, Found)> = Vec::new();
    let mut directories = Vec::new();
    if asked.paths.is_empty() {
        directories = settings(asked, around)?.units;
    }
    for path in &asked.paths {
        if path.is_dir() {
            directories.push(path.clone());
        } else if let Err(error) = path.symlink_metadata() {
            let why = match error.kind() {
                ErrorKind::NotFound => "there is no such file or directory".to_owned(),
                _ => reason(&error),
            };
            let trouble = Trouble::plain(Exit::Usage, format!("`{}`: {why}", shown_path(path)));
            return Err(match error.kind() {
                ErrorKind::PermissionDenied => trouble
                    .hint("this user may not enter a directory above it: check as root, or as its owner"),
                _ => trouble,
            });
        } else {
            found.push(read_file(path, Judge::Warn));
        }
    }
    if !directories.is_empty() {
        let (more, problems) = read_directories(&directories, Judge::Warn);
        if found.is_empty() && more.is_empty() && problems.is_empty() {
            let (text, hint) = no_unit(&directories);
            let (text, hint) = (text.to_owned(), Some(hint));
            out.all.push(Finding { unit: String::new(), place: None, is_error: false, text, hint });
        }
        found.extend(more);
        for text in problems {
            let hint = Some("name the files or directories of units to check".to_owned());
            out.all.push(Finding { unit: String::new(), place: None, is_error: true, text, hint });
        }
    }
    Ok(found)
}

/// Where there is no account for the logger it stays root's, without capabilities.
fn check_log_account(units: &[Unit], people: &mut People, out: &mut Findings) {
    let name = LogUser::NAME;
    let is_file = |unit: &Unit| unit.log.to == LogTo::File;
    if units.iter().any(is_file) && people.user(&Account::Name(name.to_owned())).is_err() {
        let text = format!("there is no user `{name}`: log files are written with root's uid");
        let hint = Some(format!("`useradd --system --shell /usr/sbin/nologin {name}` makes it"));
        out.all.push(Finding { unit: String::new(), place: None, is_error: false, text, hint });
    }
}

/// The unit, as far as it could be read, and what of it is in doubt; None where not all of its files could be.
fn parsed(name: &str, found: &Found, runner: rules::Runner<'_>, out: &mut Findings) -> Option<(Unit, Doubt)> {
    let said = |text: &str, is_error: bool| {
        let (text, hint) = text.split_once("\nhint: ").unwrap_or((text, ""));
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Finding { unit: name.to_owned(), place: None, is_error, text: text.to_owned(), hint }
    };
    out.all.extend(found.problems.iter().map(|text| said(text, true)));
    out.all.extend(found.warnings.iter().map(|text| said(text, false)));
    // What is laid over a unit that could not be read says nothing without it.
    if found.layers.iter().all(|layer| Path::new(&layer.path).file_stem() != Some(name.as_ref())) {
        return None;
    }
    let layers: Vec<unit::Layer<'_>> =
        found.layers.iter().map(|layer| unit::Layer { path: &layer.path, text: &layer.text }).collect();
    let (mut unit, problems) = Unit::parse_partly(name, &layers);
    let (doubt, is_whole) = (Doubt::of(&problems), problems.is_empty());
    let mut add = |problems: Vec<Problem>| {
        out.all.extend(problems.iter().map(|problem| Finding::of(name, problem)));
    };
    add(problems);
    let mut identity = rules::check_identity(&unit, runner);
    let has_user = !doubt.about(&unit, "service.user");
    identity.retain(|problem| has_user || problem.fault != Fault::Rule(RuleFault::NoUser));
    add(identity);
    if is_whole {
        add(unit::check_server(&unit));
        for file in unit.service.recognised().files() {
            let what = format!("what `{file}` says: options in files of a server are not read");
            out.not_checked(&unit, &what);
        }
    }
    let sockets = std::mem::take(&mut unit.sockets);
    let is_sure = |socket: &Socket| {
        let in_doubt = |key: &&str| doubt.about(&unit, &format!("socket.{}.{key}", socket.name));
        !["listen", "type", "inherit"].iter().any(in_doubt)
    };
    let sockets = sockets.into_iter().filter(is_sure).collect();
    unit.sockets = sockets;
    for socket in &unit.sockets {
        check_abstract(&unit, socket, out);
    }
    found.problems.is_empty().then_some((unit, doubt))
}

/// Nothing says who may connect to what has no file.
fn check_abstract(unit: &Unit, socket: &Socket, out: &mut Findings) {
    if let Listen::Abstract(_) = &socket.listen {
        let text = "an abstract socket has no permissions: every process in the network namespace can connect, also of \
                    containers that share it";
        let hint = format!(
            "`listen = \"/run/{}/{}.sock\"` has an owner, a group and a mode",
            unit.name, socket.name
        );
        out.warn(unit, &format!("socket.{}.listen", socket.name), text.to_owned(), hint);
    }
}

fn as_text(out: &Findings) -> String {
    let mut text: String = out.all.iter().map(|one| one.rendered()).collect();
    for one in &out.unchecked {
        text += &format!("not checked: {one}\n");
    }
    unit::visible_lines(&text)
}

fn as_json(count: usize, judged_for: &str, out: &Findings) -> String {
    let problems: Vec<_> = out.all.iter().map(Finding::json).collect();
    let whole = json!({
        "units": count, "judged_for": judged_for, "problems": problems, "not_checked": out.unchecked
    });
    text::json(&format!("{whole:#}\n"))
}

fn summary(count: usize, errors: usize, warnings: usize, unchecked: usize) -> String {
    let some = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let mut parts = vec![match errors {
        0 => "no problems".to_owned(),
        _ => some(errors, "problem"),
    }];
    if warnings > 0 {
        parts.push(some(warnings, "warning"));
    }
    if unchecked > 0 {
        parts.push(format!("{unchecked} not checked"));
    }
    format!("{}: {}", some(count, "unit"), parts.join(", "))
}

/// The machine as the units would find it.
struct World<'a> {
    people: &'a mut People,
    machine: &'a Machine,
    doubt: &'a Doubt,
    runner_uid: u32,
}

impl World<'_> {
    fn check(&mut self, unit: &Unit, out: &mut Findings) {
        let (person, is_known) = self.person(unit, out);
        self.check_access(unit, out);
        for socket in &unit.sockets {
            self.check_socket(unit, socket, is_known.then_some(&person), out);
        }
        if self.doubt.about(unit, "service.directory") {
            self.check_commands(unit, None, &person, out);
        } else {
            self.check_directory(unit, &person, out);
        }
        self.check_environment_files(unit, &person, out);
    }

    /// Its directory, and what is found from there.
    fn check_directory(&self, unit: &Unit, person: &Person, out: &mut Findings) {
        let directory = unit.service.directory.clone().unwrap_or_else(|| PathBuf::from("/"));
        let entered = person.reaches(&directory, Want::Enter);
        let can_enter = entered.is_ok();
        match entered {
            Ok(_) => {}
            Err(Barrier::Unseen(part, why)) => out.not_checked(
                unit,
                &format!(
                    "whether `{}` can enter `{}`: `{}`: {why}",
                    person.name,
                    directory.display(),
                    part.display()
                ),
            ),
            Err(barrier @ Barrier::Closed { .. }) => {
                let hint = format!(
                    "let `{}` in: `chown {} {}`, or `chmod o+x` what is in the way",
                    person.name,
                    person.name,
                    directory.display()
                );
                out.error(unit, "service.directory", format!("`{}` {barrier}", person.name), hint);
            }
            Err(barrier) => {
                let hint = format!("`install -d -o {} {}` makes it", person.name, directory.display());
                out.error(unit, "service.directory", barrier.to_string(), hint);
            }
        }
        self.check_commands(unit, can_enter.then_some(directory.as_path()), person, out);
        let found = unit.service.recognised();
        if let Some(path) =
            found.changes_to().map(|path| directory.join(path)).filter(|path| walk::has_link(path))
        {
            let shown = path.display();
            let text = format!(
                "`--chdir {shown}` follows a link anew for each worker: one that starts after a release has moved runs new \
                 code in an old generation"
            );
            let hint = format!(
                "write `directory = \"{shown}\"` instead, which is resolved once for each generation"
            );
            out.warn(unit, "service.command", text, hint);
        }
        // It is read without being named.
        let unnamed = directory.join("gunicorn.conf.py");
        if unit.service.recognised().reads_unnamed_file() && unnamed.exists() {
            let what =
                format!("what `{}` says: options in files of a server are not read", unnamed.display());
            out.not_checked(unit, &what);
        }
    }

    /// Whom the service runs as. Where that is not known, which has been said, somebody with root's rights stands for
    /// him: what he could not do, nobody could. Also whether it is known.
    fn person(&mut self, unit: &Unit, out: &mut Findings) -> (Person, bool) {
        let account = unit.service.user.clone().unwrap_or(Account::Id(self.runner_uid));
        let doubt = self.doubt;
        let mut is_known = !doubt.about(unit, "service.user");
        let nobody = Person { name: account.to_string(), uid: 0, groups: Vec::new() };
        let mut person = self.people.user(&account).unwrap_or_else(|text| {
            if is_known {
                out.error(unit, "service.user", text, format!("`useradd --system {account}` makes it"));
            }
            is_known = false;
            nobody.clone()
        });
        if let Account::Name(_) = &account
            && is_known
            && person.uid == 0
            && self.runner_uid == 0
            && !account.is_root()
        {
            let text = format!("the user `{account}` has uid 0, which is root");
            let hint =
                "nothing runs as root by accident: name a user of its own, or write out `user = \"root\"`";
            out.error(unit, "service.user", text, hint.to_owned());
        }
        let mut groups = Vec::new();
        let own = unit.service.group.iter().map(|group| ("service.group", group));
        let others = unit.service.groups.iter().flatten().map(|group| ("service.groups", group));
        for (key, group) in own.chain(others) {
            match self.people.group(group) {
                Ok(id) => {
                    let fault = rights::not_ones_own(key, group, id, &person);
                    if let Some(fault) = fault.filter(|_| is_known && self.runner_uid != 0) {
                        out.add(unit, key, true, fault.to_string(), fault.hint());
                    }
                    groups.push(id);
                }
                Err(text) => {
                    out.error(unit, key, text, format!("`groupadd --system {group}` makes it"));
                    is_known = false;
                }
            }
        }
        if !is_known || ["service.group", "service.groups"].iter().any(|key| doubt.about(unit, key)) {
            return (Person { name: person.name, ..nobody }, false);
        }
        if unit.service.groups.is_some() {
            // In place of the account's, of which the primary one stays.
            person.groups.truncate(usize::from(unit.service.group.is_none()));
        }
        person.groups.extend(groups);
        (person, true)
    }

    fn check_access(&mut self, unit: &Unit, out: &mut Findings) {
        let lists = [
            ("access.status", &unit.access.status),
            ("access.logs", &unit.access.logs),
            ("access.control", &unit.access.control),
        ];
        for (key, list) in lists {
            for who in list.iter().filter(|_| !self.doubt.about(unit, key)) {
                let number = |name: &str| match name.parse() {
                    Ok(id) => Account::Id(id),
                    Err(_) => Account::Name(name.to_owned()),
                };
                let (wrong, tool) = match who {
                    Who::User(name) => (self.people.user(&number(name)).err(), "useradd"),
                    Who::Group(name) => (self.people.group(&number(name)).err(), "groupadd"),
                    Who::Everyone => (None, ""),
                };
                if let (Some(text), Who::User(name) | Who::Group(name)) = (wrong, who) {
                    out.error(unit, key, text, format!("`{tool} {name}` makes it"));
                }
            }
        }
    }

    fn check_socket(&mut self, unit: &Unit, socket: &Socket, person: Option<&Person>, out: &mut Findings) {
        let key = |name: &str| format!("socket.{}.{name}", socket.name);
        let mut for_whom = Some(ForWhom { owner: self.runner_uid, group: None });
        if let Some(user) = socket.user.as_ref().filter(|_| !self.doubt.about(unit, &key("user"))) {
            match self.people.user(user) {
                Ok(person) => for_whom = Some(ForWhom { owner: person.uid, group: None }),
                Err(text) => {
                    out.error(unit, &key("user"), text, format!("`useradd {user}` makes it"));
                    for_whom = None;
                }
            }
        }
        if let Some(named) = socket.group.as_ref().filter(|_| !self.doubt.about(unit, &key("group"))) {
            match self.people.group(named) {
                Ok(id) => {
                    for_whom = for_whom.map(|of| ForWhom { group: Some((id, named.to_string())), ..of });
                }
                Err(text) => {
                    out.error(unit, &key("group"), text, format!("`groupadd {named}` makes it"));
                    for_whom = None;
                }
            }
        }
        let in_doubt = |name: &str| self.doubt.about(unit, &key(name));
        let for_whom = for_whom.filter(|_| !["user", "group", "mode"].iter().any(|name| in_doubt(name)));
        self.machine.check(unit, socket, person, for_whom.as_ref(), self.runner_uid, out);
    }

    /// Without a directory that can be entered, what is below it is not told again.
    fn check_commands(&self, unit: &Unit, directory: Option<&Path>, person: &Person, out: &mut Findings) {
        let service = &unit.service;
        let path = service.environment.0.get("PATH").map_or(FIXED_PATH, String::as_str);
        let mut commands: Vec<(&str, &Command)> = vec![("service.command", &service.command)];
        commands.extend(service.before_start.iter().map(|command| ("service.before-start", command)));
        if let Some(Reload::Command(command)) = &service.reload {
            commands.push(("service.reload", command));
        }
        if let Some(Probe::Command(command)) = unit.health.as_ref().map(|health| &health.probe) {
            commands.push(("health.command", command));
        }
        let context = Context { name: &unit.name, instance: 1, generation: 1, fds: &[], directories: &[] };
        for (key, command) in commands {
            let words = command.expand(&context);
            let Some(program) = words.first() else { continue };
            // Where it would be looked for is not known.
            let is_sought = !program.contains('/') && self.doubt.about(unit, "service.environment");
            if is_sought || self.doubt.about(unit, key) {
                continue;
            }
            let is_below = program.contains('/') && !program.starts_with('/');
            let directory = match directory {
                Some(directory) => directory,
                None if is_below => continue,
                None => Path::new("/"),
            };
            match program::check(program, path, directory, person) {
                Ok(()) => {}
                Err(Unfit::No(text, hint)) => out.error(unit, key, text, hint),
                Err(Unfit::Unseen(what)) => out.not_checked(unit, &format!("whether it can execute {what}")),
            }
        }
    }

    /// Read with root's rights where the whole path is root's, else with the service's.
    fn check_environment_files(&self, unit: &Unit, person: &Person, out: &mut Findings) {
        let key = "service.environment-files";
        if self.doubt.about(unit, key) {
            return;
        }
        for path in &unit.service.environment_files {
            let by_root = self.runner_uid == 0 && matches!(files::unsafe_part(path, 0), Ok(None));
            match person.reaches(path, Want::Read) {
                Ok(_) => check_variables(unit, path, out),
                Err(Barrier::Closed { .. }) if by_root => check_variables(unit, path, out),
                Err(Barrier::Unseen(part, why)) => {
                    out.not_checked(unit, &format!("`{}`: `{}`: {why}", path.display(), part.display()));
                }
                Err(barrier @ Barrier::Closed { .. }) => {
                    let hint = "give the file and every directory above it to root, or let the service's user read it";
                    out.error(unit, key, format!("`{}` {barrier}", person.name), hint);
                }
                Err(barrier) => {
                    out.error(unit, key, barrier.to_string(), "a missing file is an error at the start")
                }
            }
        }
    }
}

/// What is in an environment file, with the words of a start. One that we may not read ourselves is not checked.
fn check_variables(unit: &Unit, path: &Path, out: &mut Findings) {
    let shown = path.display();
    let mend = "mend it, or take it out of `environment-files`";
    let mut wrong = |words: &str, otherwise: &str| {
        let (text, hint) = words.split_once("\nhint: ").unwrap_or((words, otherwise));
        out.error(unit, "service.environment-files", text.to_owned(), hint);
    };
    // Looked at before, as opening a pipe would be seen by whoever writes into it.
    if path.metadata().is_ok_and(|data| !data.is_file()) {
        return wrong(&format!("reading the environment file {shown}: not a regular file"), mend);
    }
    match files::read_steady(path, ENVIRONMENT_FILE_BYTES_MAX as u64) {
        Ok((bytes, ..)) => match String::from_utf8(bytes) {
            Ok(text) => {
                if let Err((line, words)) = unit::environment_file(&text) {
                    wrong(&format!("{shown}:{line}: {words}"), mend);
                }
            }
            Err(_) => wrong(&format!("{shown}: not UTF-8"), "save it as UTF-8"),
        },
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            out.not_checked(unit, &format!("what `{shown}` says: only its owner or root can read it"));
        }
        Err(error) => wrong(&format!("reading the environment file {shown}: {error}"), mend),
    }
}
