//! PURE. The typed unit: plain values, every default filled in. Never holds anything that was not checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use super::account::Account;
use super::address::{self, Listen};
use super::capability::Capability;
use super::choices::{Kind, LogTo, Policy, Profile, Ready, Server, SocketType, Start, Strategy, WhenFull};
use super::command::{Command, Directory};
use super::fault::FileFault;
use super::signal::Signal;
use super::source::Place;

/// A unit: one service and its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name, which is that of its file: `[a-z0-9][a-z0-9._-]{0,62}`.
    pub name: String,
    /// The unit's own file, as the caller named it.
    pub path: String,
    /// What it is, for people.
    pub description: Option<String>,
    /// Where to read more.
    pub documentation: Vec<String>,
    /// What runs.
    pub service: Service,
    /// When it runs again.
    pub restart: Rc<Restart>,
    /// What it listens on, in file order, which is descriptor order.
    pub sockets: Vec<Socket>,
    /// How to see that it works; None where nobody said.
    pub health: Option<Rc<Health>>,
    /// How a new generation takes over.
    pub deploy: Rc<Deploy>,
    /// Which other units it needs.
    pub dependencies: Rc<Dependencies>,
    /// What becomes of its output.
    pub log: Rc<Log>,
    /// What it may use.
    pub limits: Rc<Limits>,
    /// What it cannot reach.
    pub sandbox: Sandbox,
    /// Who else may see and control it.
    pub access: Rc<Access>,
    /// Where each of these was written.
    pub places: Places,
}

/// `[service]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What to execute.
    pub command: Command,
    /// Whether to recognise the server by its command.
    pub server: Server,
    /// What it is for.
    pub kind: Kind,
    /// Exit codes that are a success.
    pub success_codes: Vec<u8>,
    /// When to start.
    pub start: Start,
    /// Whom to run as; [`super::rules::check_identity`] says whether None is good enough.
    pub user: Option<Account>,
    /// The group; None for the user's own.
    pub group: Option<Account>,
    /// Supplementary groups; None for the user's own, empty for none.
    pub groups: Option<Vec<Account>>,
    /// The working directory, absolute.
    pub directory: Option<PathBuf>,
    /// Capabilities that it keeps, each once, in order.
    pub capabilities: Vec<Capability>,
    /// Variables on top of the clean environment.
    pub environment: Environment,
    /// Files with more of them, absolute, in order.
    pub environment_files: Vec<PathBuf>,
    /// Names of variables that are passed on from supervise's own environment.
    pub pass_environment: Vec<String>,
    /// The umask, 0 to 0o777.
    pub umask: u32,
    /// How many of it run, 0 to 1024.
    pub instances: u16,
    /// What runs before the first incarnation of a generation, in order.
    pub before_start: Vec<Command>,
    /// When it is ready.
    pub ready: Ready,
    /// How long it has to live after that, in milliseconds.
    pub settle_ms: u64,
    /// How long it may take to be ready, in milliseconds; None for no limit.
    pub start_timeout_ms: Option<u64>,
    /// What asks it to end.
    pub stop_signal: Signal,
    /// How long it may take to end, in milliseconds; None for no limit.
    pub stop_timeout_ms: Option<u64>,
    /// How it reads its configuration anew; None for a restart.
    pub reload: Option<Reload>,
    /// How long it may go without a sign of life, in milliseconds; None for as long as it wants.
    pub watchdog_ms: Option<u64>,
    /// How long it may go without a connection before it is put to sleep, in milliseconds; None for ever.
    pub idle_stop_ms: Option<u64>,
    /// Whether supervise ends when it ends.
    pub essential: bool,
    /// When a task runs.
    pub schedule: Option<String>,
    /// Whether it gets a terminal of its own.
    pub tty: bool,
    /// Name of a directory below /run.
    pub runtime_directory: Option<String>,
    /// Name of a directory below /var/lib.
    pub state_directory: Option<String>,
    /// Name of a directory below /var/cache.
    pub cache_directory: Option<String>,
}

impl Service {
    /// The name of the directory that the unit wants of this kind.
    pub fn directory_of(&self, which: Directory) -> Option<&str> {
        match which {
            Directory::Runtime => self.runtime_directory.as_deref(),
            Directory::State => self.state_directory.as_deref(),
            Directory::Cache => self.cache_directory.as_deref(),
        }
    }
}

/// `reload`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// This signal to the main process.
    Signal(Signal),
    /// This command, beside the service.
    Command(Command),
}

/// `[restart]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Whether to restart.
    pub policy: Policy,
    /// Milliseconds before the first restart, at least 1.
    pub delay_ms: u64,
    /// The most that grows to, in milliseconds, at least `delay_ms`.
    pub max_delay_ms: u64,
    /// Milliseconds after which failures are forgotten; None for never.
    pub reset_after_ms: Option<u64>,
    /// Failures in a row after which to stop trying, at least 1; None for never.
    pub give_up_after: Option<u32>,
}

/// `[socket.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its name, of the same form as a unit's.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// Its type; one of `listen = "HOST:PORT"` is TCP or UDP by it.
    pub kind: SocketType,
    /// Permissions of a Unix socket, 0 to 0o777.
    pub mode: u32,
    /// Owner of a Unix socket; None for whom supervise runs as.
    pub user: Option<Account>,
    /// Group of a Unix socket; None for that of whom supervise runs as.
    pub group: Option<Account>,
    /// How many connections may wait, from 1 to 2147483647.
    pub backlog: u32,
    /// Whether TCP_NODELAY is set; means nothing for anything but TCP.
    pub nodelay: bool,
    /// Whether SO_KEEPALIVE is set; means nothing for anything but TCP.
    pub keepalive: bool,
    /// Whether an address is bound that the machine does not have yet; means nothing for a Unix socket.
    pub freebind: bool,
    /// The name under which the init that started supervise has it; None to bind it.
    pub inherit: Option<String>,
}

impl Socket {
    /// Whether the kernel refuses to bind both.
    pub fn clashes(&self, other: &Self) -> bool {
        address::clash((&self.listen, self.kind), (&other.listen, other.kind))
    }
}

/// `[health]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// The host name that a request asks for.
    pub host: String,
    /// Which of the unit's sockets is asked; None for the first, or for the private one where the command has
    /// `{fd:health}` ([`Unit::has_private_probe`]). The parser sees to it that there is one.
    pub socket: Option<String>,
    /// How often, in milliseconds; None for only before a new generation takes over.
    pub interval_ms: Option<u64>,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many failures in a row are one too many, at least 1.
    pub failures: u32,
}

/// What is asked to see whether a service works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// This path, over HTTP.
    Http(String),
    /// This path, in the uwsgi protocol.
    Uwsgi(String),
    /// A connection is enough.
    Tcp,
    /// This command, which succeeds while the service is healthy. It gets no sockets.
    Command(Command),
}

/// `[deploy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deploy {
    /// Which goes first; None for the new one where there are sockets, else the old one.
    pub strategy: Option<Strategy>,
    /// The link that a deploy moves, absolute.
    pub release: Option<PathBuf>,
}

/// `[dependencies]`: names of other units, none of them the unit's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// Starts after these are ready, and not without them.
    pub requires: Vec<String>,
    /// Starts after these are ready or have failed.
    pub wants: Vec<String>,
    /// Starts after these where both start.
    pub after: Vec<String>,
}

impl Dependencies {
    /// Every name with the key that it stands under.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let lists = [("requires", &self.requires), ("wants", &self.wants), ("after", &self.after)];
        lists.into_iter().flat_map(|(key, names)| names.iter().map(move |name| (key, name.as_str())))
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where output goes.
    pub to: LogTo,
    /// Bytes that a file grows to before it is rotated, at least 64 KiB; [`u64::MAX`] for no limit.
    pub max_size: u64,
    /// Milliseconds after which it is rotated all the same; None for never.
    pub max_age_ms: Option<u64>,
    /// How many rotated files stay.
    pub keep: u32,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// What gives way on a full disk.
    pub when_full: WhenFull,
}

/// `[sandbox]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// How much of one.
    pub profile: Profile,
}

/// `[access]`. Who may control may read logs, and who may read logs may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Who may see how it does.
    pub status: Vec<Who>,
    /// Who may read its output.
    pub logs: Vec<Who>,
    /// Who may start, stop and deploy it.
    pub control: Vec<Who>,
}

/// One entry of `[access]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// `user:NAME`; a name in digits is a uid, which needs no account.
    User(String),
    /// `group:NAME`; a name in digits is a gid.
    Group(String),
    /// `*`
    Everyone,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open descriptors, at least 16; None to leave them as they were given to supervise.
    pub nofile: Option<u64>,
    /// Bytes of a core dump; None for no limit.
    pub core: Option<u64>,
    /// -20 to 19; None to leave it.
    pub nice: Option<i32>,
    /// -1000 to 1000; None to leave it.
    pub oom_score_adjust: Option<i32>,
    /// Processes and threads of the user, at least 1; None to leave them.
    pub nproc: Option<u64>,
    /// Processors that it runs on, each once, in order; empty for all.
    pub cpu_affinity: Vec<u16>,
    /// Bytes of memory that an instance cannot pass; None for no limit.
    pub memory_max: Option<u64>,
    /// Bytes of memory from which on an instance is slowed down; None for no limit.
    pub memory_high: Option<u64>,
    /// Processor time of an instance in hundredths of one processor, at least 1; None for no limit.
    pub cpu_max: Option<u32>,
    /// Its share of the processors, 1 to 10000; None to leave it.
    pub cpu_weight: Option<u32>,
    /// Its share of the disks, 1 to 10000; None to leave it.
    pub io_weight: Option<u32>,
    /// Processes and threads of an instance.
    pub pids_max: u32,
}

/// Variables by name. Its `Debug` form has the names alone, because values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(pub BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where things were written, by `table.key`: `service.user`, `socket.http`, `socket.http.listen`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    written: Box<[(Box<str>, Place)]>, // by name; there are a thousand of these, and they are seldom looked at
}

impl Places {
    /// Where this was written; None for what nobody wrote, which has its default.
    pub fn of(&self, key: &str) -> Option<&Place> {
        let at = self.written.binary_search_by(|(name, _)| (**name).cmp(key)).ok()?;
        self.written.get(at).map(|(_, place)| place)
    }

    /// Everything that was written, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.written.iter().map(|(key, place)| (&**key, place))
    }

    pub(super) fn new(written: BTreeMap<String, Place>) -> Self {
        Self { written: written.into_iter().map(|(name, place)| (name.into_boxed_str(), place)).collect() }
    }
}

impl Unit {
    /// Whether the two say the same, wherever in their files they say it.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self { name, path: _, description, documentation, service, restart, sockets, limits, .. } = self;
        let Self { health, deploy, dependencies, log, sandbox, access, places: _, .. } = self;
        (name, description, documentation) == (&other.name, &other.description, &other.documentation)
            && (service, restart) == (&other.service, &other.restart)
            && (sockets, limits, health) == (&other.sockets, &other.limits, &other.health)
            && (deploy, dependencies, log) == (&other.deploy, &other.dependencies, &other.log)
            && (sandbox, access) == (&other.sandbox, &other.access)
    }

    /// Whether its command takes `{fd:health}`: a listener that this process alone has, to be asked by probes.
    pub fn has_private_probe(&self) -> bool {
        self.service.command.sockets().any(|name| name == "health")
    }

    /// The socket that `[health]` asks; None where it asks none, or the private one.
    pub fn health_socket(&self) -> Option<&Socket> {
        let health = self.health.as_ref().filter(|_| !self.has_private_probe())?;
        match (&health.probe, &health.socket) {
            (Probe::Command(_), _) => None,
            (_, Some(name)) => self.sockets.iter().find(|socket| socket.name == *name),
            (_, None) => self.sockets.first(),
        }
    }

    /// Has the same tables in memory as another unit, where they say the same: of a thousand units most leave most
    /// tables out.
    pub fn share_with(&mut self, other: &Self) {
        fn share<T: PartialEq>(mine: &mut Rc<T>, theirs: &Rc<T>) {
            if mine == theirs {
                mine.clone_from(theirs);
            }
        }
        share(&mut self.restart, &other.restart);
        share(&mut self.deploy, &other.deploy);
        share(&mut self.dependencies, &other.dependencies);
        share(&mut self.log, &other.log);
        share(&mut self.limits, &other.limits);
        share(&mut self.access, &other.access);
        if let (Some(mine), Some(theirs)) = (&mut self.health, &other.health) {
            share(mine, theirs);
        }
    }

    /// Forgets where things were written, for those who keep many units and have shown their problems: but for keys of
    /// which it matters later whether somebody wrote them ([`Unit::is_written`]).
    pub fn forget_places(&mut self) {
        let written = std::mem::take(&mut self.places.written).into_iter();
        self.places.written = written.filter(|(key, _)| is_told_later(key)).collect();
    }

    /// Whether somebody wrote this key of `[limits]`, or `log.to`: what is asked for and cannot be had is told, and
    /// a container's own default gives way.
    pub fn is_written(&self, key: &str) -> bool {
        debug_assert!(is_told_later(key), "{key} is forgotten with its place");
        self.places.of(key).is_some()
    }

    /// The place of `key`, or else of its table, or else the start of the file.
    pub fn place(&self, key: &str) -> Place {
        let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
        let place = self.places.of(key).or_else(|| self.places.of(table));
        place.cloned().unwrap_or_else(|| Place::whole_file(&self.path))
    }
}

/// Whether it is known of this key, as long as a unit is kept, that it was written.
fn is_told_later(key: &str) -> bool {
    key == "log.to" || key.starts_with("limits.")
}

/// Says whether this can be a unit's name: `[a-z0-9][a-z0-9._-]{0,62}`. Such a name is a safe part of a path.
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if is_name(name) { Ok(()) } else { Err(NameFault(FileFault::Name { name: name.to_owned() })) }
}

/// A name that cannot be a unit's. Shown, the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFault(pub(super) FileFault);

impl fmt::Display for NameFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl std::error::Error for NameFault {}

/// Longest name of a unit or socket, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// `[a-z0-9][a-z0-9._-]{0,62}`
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

/// `[A-Za-z_][A-Za-z0-9_]*`
pub(super) fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Layer;

    #[test]
    fn names_are_safe_parts_of_paths() {
        for name in ["a", "0", "web", "bagels-2.0_x", &"a".repeat(63)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "-a", "_a", "A", "a/b", "a b", "a\0", "é", "a@b", &"a".repeat(64)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_service_may_start_again_at_once() {
        let text = "[service]\ncommand = \"/bin/true\"\n[restart]\ndelay = \"0ms\"\n";
        let unit = Unit::parse_layers("web", &[Layer { path: "web.toml", text }]).unwrap();
        assert_eq!((unit.restart.delay_ms, unit.restart.max_delay_ms), (0, 30_000));
    }

    #[test]
    fn units_share_the_tables_that_say_the_same_and_no_others() {
        let unit = |name: &str, more: &str| {
            let text = format!("[service]\ncommand = \"/bin/true\"\n{more}");
            Unit::parse_layers(name, &[Layer { path: "unit.toml", text: &text }]).unwrap()
        };
        let (one, plain) = (unit("one", ""), unit("two", "[limits]\nnofile = 99\n"));
        let mut two = plain.clone();
        two.share_with(&one);
        assert_eq!(two, plain, "it says what it said");
        assert!(Rc::ptr_eq(&one.log, &two.log) && Rc::ptr_eq(&one.access, &two.access));
        assert!(!Rc::ptr_eq(&one.limits, &two.limits));
    }

    #[test]
    fn what_was_written_is_known_where_it_matters_when_the_places_are_forgotten() {
        let text = "[service]\ncommand = \"/bin/true\"\n[log]\nto = \"file\"\n[limits]\ncpu-weight = 7\n";
        let mut unit = Unit::parse_layers("web", &[Layer { path: "web.toml", text }]).unwrap();
        unit.forget_places();
        let written = ["log.to", "limits.cpu-weight", "limits.memory-max"].map(|key| unit.is_written(key));
        assert_eq!(written, [true, true, false]);
        assert_eq!(unit.places.iter().count(), 2, "{:?}", unit.places);
    }

    #[test]
    fn values_of_the_environment_are_not_shown() {
        let environment = Environment([("KEY".to_owned(), "hunter2".to_owned())].into());
        assert_eq!(format!("{environment:?}"), "{\"KEY\"}");
    }
}
