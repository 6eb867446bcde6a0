//! PURE. The typed unit: plain values, every default filled in. Never holds anything that was not checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::account::Account;
use super::address::Listen;
use super::command::Command;
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
    pub restart: Restart,
    /// What it listens on, in file order, which is descriptor order.
    pub sockets: Vec<Socket>,
    /// What it may use.
    pub limits: Limits,
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
    /// Variables on top of the clean environment.
    pub environment: Environment,
    /// The umask, 0 to 0o777.
    pub umask: u32,
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
    /// Permissions of a Unix socket, 0 to 0o777.
    pub mode: u32,
    /// Owner of a Unix socket; None for whom supervise runs as.
    pub user: Option<Account>,
    /// Group of a Unix socket; None for that of whom supervise runs as.
    pub group: Option<Account>,
    /// How many connections may wait, from 1 to 2147483647.
    pub backlog: u32,
    /// Whether TCP_NODELAY is set; means nothing for a Unix socket.
    pub nodelay: bool,
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
}

macro_rules! words {
    ($(#[$doc:meta])* $kind:ident { $($(#[$note:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$note])* $variant,)* }
        impl $kind {
            /// The word in the unit file.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
            /// What the word means; None for what is not one of them.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// `server`
    Server {
        /// Recognised by the command.
        Auto "auto",
        /// Taken for nothing in particular.
        None "none",
    }
}
words! {
    /// `kind`
    Kind {
        /// Runs until it is stopped.
        Service "service",
        /// Runs until it is done.
        Task "task",
    }
}
words! {
    /// `start`
    Start {
        /// With supervise.
        Boot "boot",
        /// When an operator says so.
        Manual "manual",
    }
}
/// `ready`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// As the server allows.
    Auto,
    /// As soon as it runs.
    Started,
    /// When it says so on its notify socket.
    Notify,
    /// When it writes a line to this descriptor, one behind its sockets.
    Fd(u32),
}

impl Ready {
    /// What the word means; None for what is not one of them.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "started" => Some(Self::Started),
            "notify" => Some(Self::Notify),
            _ => None,
        }
    }
}

words! {
    /// `policy`
    Policy {
        /// However it ended.
        Always "always",
        /// Unless it ended well.
        OnFailure "on-failure",
        /// Not at all.
        Never "never",
    }
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
    pub(super) written: BTreeMap<String, Place>,
}

impl Places {
    /// Where this was written; None for what nobody wrote, which has its default.
    pub fn of(&self, key: &str) -> Option<&Place> {
        self.written.get(key)
    }

    /// Everything that was written, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.written.iter().map(|(key, place)| (key.as_str(), place))
    }
}

impl Unit {
    /// Whether the two say the same, wherever in their files they say it.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self { name, path: _, description, documentation, service, restart, sockets, limits, places: _ } =
            self;
        (name, description, documentation) == (&other.name, &other.description, &other.documentation)
            && (service, restart) == (&other.service, &other.restart)
            && (sockets, limits) == (&other.sockets, &other.limits)
    }

    /// Forgets where everything was written: for those who keep many units and have shown their problems.
    pub fn forget_places(&mut self) {
        self.places = Places::default();
    }

    /// The place of `key`, or else of its table, or else the start of the file.
    pub(super) fn place(&self, key: &str) -> Place {
        let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
        let place = self.places.of(key).or_else(|| self.places.of(table));
        place.cloned().unwrap_or_else(|| Place::whole_file(&self.path))
    }
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
    use crate::unit::keys::{KEYS, Shape, Since};

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
    fn every_choice_that_can_be_made_means_something() {
        for key in KEYS.iter().filter(|key| key.since == Since::Now) {
            let Shape::Choice(words) = key.shape else { continue };
            for (word, _) in words.iter().filter(|(_, since)| *since == Since::Now) {
                let known = match key.name {
                    "server" => Server::from_word(word).is_some_and(|server| server.word() == *word),
                    "start" => Start::from_word(word).is_some_and(|start| start.word() == *word),
                    "ready" => Ready::from_word(word).is_some() || *word == "{ fd = N }",
                    "policy" => Policy::from_word(word).is_some_and(|policy| policy.word() == *word),
                    "kind" => Kind::from_word(word).is_some_and(|kind| kind.word() == *word),
                    "type" => *word == "stream",
                    _ => false,
                };
                assert!(known, "{} = {word}", key.name);
            }
        }
    }

    #[test]
    fn values_of_the_environment_are_not_shown() {
        let environment = Environment([("KEY".to_owned(), "hunter2".to_owned())].into());
        assert_eq!(format!("{environment:?}"), "{\"KEY\"}");
    }
}
