//! PURE. Unit, sockets and identity to an execution plan, a value that prints and compares. Never resolves a name.
//!
//! Everything that can fail politely has failed before a plan exists: names are numbers, paths are resolved,
//! the environment is whole. What is left is carried out by `launch`, step by step, in the child.

mod build;
mod check;
pub mod image;

use std::fmt;

pub use crate::unit::{HIGHEST_CAPABILITY, capability_name, capability_number};
pub use build::{Account, FIXED_PATH, Inputs, Listener, PRIVATE, Start, build, candidates, environment};
pub use check::Unfit;

/// Bytes of all variables together, terminators included, at most.
pub const MOST_ENVIRONMENT_BYTES: usize = 128 << 10;
/// Bytes of arguments and variables together, at most: half of what execve(2) takes under the default stack.
pub const MOST_ARGUMENT_BYTES: usize = 1 << 20;
/// Bytes of one argument or variable, terminator included, at most (`MAX_ARG_STRLEN` in execve(2)).
pub const MOST_STRING_BYTES: usize = 128 << 10;
/// Bytes of a path, terminator included, at most (`PATH_MAX`).
pub const MOST_PATH_BYTES: usize = 4096;
/// Sockets passed to one process, at most.
pub const MOST_SOCKETS: usize = 64;
/// Supplementary groups, at most; the child reads them back into a fixed place.
pub const MOST_GROUPS: usize = 1024;
/// Places a program is looked for, at most.
pub const MOST_CANDIDATES: usize = 64;
/// Processor numbers are below this.
pub const MOST_CPUS: usize = 8192;
/// Variables that hold the process's own number, at most.
pub const MOST_PID_VARIABLES: usize = 4;

/// The descriptor number of the first passed socket (sd_listen_fds(3)).
pub const FIRST_SOCKET: u32 = 3;

/// Who the command runs as: numbers alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved user; never `u32::MAX`.
    pub uid: u32,
    /// Real, effective and saved group; never `u32::MAX`.
    pub gid: u32,
    /// Supplementary groups, ascending and without doubles, exactly these.
    pub groups: Vec<u32>,
    /// Capabilities that stay in the bounding set, one bit each (capabilities(7)).
    pub bounding: u64,
    /// Capabilities the command has although its user is not root; all of them in `bounding`.
    pub ambient: u64,
}

impl Identity {
    /// An identity with what follows from its user alone: root keeps its capabilities, anybody else has none.
    pub fn new(uid: u32, gid: u32, groups: &[u32]) -> Self {
        let mut groups = groups.to_vec();
        groups.sort_unstable();
        groups.dedup();
        Self { uid, gid, groups, bounding: if uid == 0 { u64::MAX } else { 0 }, ambient: 0 }
    }

    /// The same with these capabilities (bits) and no others.
    pub fn with_capabilities(mut self, granted: u64) -> Self {
        self.bounding = granted;
        self.ambient = if self.uid == 0 { 0 } else { granted };
        self
    }
}

/// A resource that has a limit per process (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Resource {
    /// Highest descriptor number plus one.
    Nofile = 1,
    /// Bytes of a core file.
    Core,
    /// Processes of the user.
    Nproc,
}

impl Resource {
    /// Every resource, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Nofile, Self::Core, Self::Nproc];

    /// The unit key that sets it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nofile => "nofile",
            Self::Core => "core",
            Self::Nproc => "nproc",
        }
    }

    /// The resource with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| *resource as u32 == code)
    }
}

/// One limit. `u64::MAX` is "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// What holds.
    pub soft: u64,
    /// What the command may raise it to.
    pub hard: u64,
}

/// A socket the command gets, for people to read; the descriptor itself travels beside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The name in `LISTEN_FDNAMES`.
    pub name: String,
    /// The address as the unit says it.
    pub address: String,
}

/// How one command is executed, down to the last number.
///
/// Prints for people without the values of the environment, and as the same text where Rust asks for a
/// debugging form, so that no secret ends in a log by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExecPlan {
    /// The arguments, the program's name first.
    pub argv: Vec<String>,
    /// Files to execute, tried in order as execvp(3) does; one with a slash but without a leading one is
    /// below `directory`.
    pub candidates: Vec<String>,
    /// `NAME=value`, whole: nothing is inherited.
    pub env: Vec<String>,
    /// Names of variables that hold the number of the process itself, known to the child alone.
    pub pid_variables: Vec<String>,
    /// The working directory, absolute and resolved.
    pub directory: String,
    /// Who to become; None where an ordinary user runs its own services.
    pub identity: Option<Identity>,
    /// Permission bits taken from new files, 0 to 0o777.
    pub umask: u32,
    /// Limits to set, each resource at most once.
    pub limits: Vec<Limit>,
    /// -20 to 19; None leaves it.
    pub nice: Option<i32>,
    /// -1000 to 1000; None leaves it.
    pub oom_score_adj: Option<i32>,
    /// Processors to run on; empty leaves it.
    pub cpus: Vec<u32>,
    /// Sockets at descriptors 3 and up, in order.
    pub sockets: Vec<Passed>,
    /// Whether standard input is a terminal that is to control the command's session.
    pub terminal: bool,
}

impl fmt::Debug for ExecPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ExecPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "command", &joined(self.argv.iter().map(|word| quoted(word)), " "))?;
        line(f, "program", &joined(self.candidates.iter().map(|path| quoted(path)), " "))?;
        line(f, "directory", &quoted(&self.directory))?;
        match &self.identity {
            Some(identity) => {
                line(f, "user", &identity.uid.to_string())?;
                line(f, "group", &identity.gid.to_string())?;
                line(f, "groups", &or_none(&joined(identity.groups.iter().map(u32::to_string), " ")))?;
                line(f, "capabilities", &capabilities(identity))?;
            }
            None => line(f, "user", "as it is")?,
        }
        line(f, "umask", &format!("{:04o}", self.umask))?;
        for limit in &self.limits {
            let value = format!("{}:{}", amount(limit.soft), amount(limit.hard));
            line(f, limit.resource.name(), &value)?;
        }
        if let Some(nice) = self.nice {
            line(f, "nice", &nice.to_string())?;
        }
        if let Some(score) = self.oom_score_adj {
            line(f, "oom-score-adjust", &score.to_string())?;
        }
        if !self.cpus.is_empty() {
            line(f, "cpu-affinity", &joined(self.cpus.iter().map(u32::to_string), " "))?;
        }
        line(f, "no-new-privileges", "yes")?;
        if self.terminal {
            line(f, "terminal", "its own")?;
        }
        for (number, socket) in (FIRST_SOCKET..).zip(&self.sockets) {
            line(
                f,
                &format!("descriptor {number}"),
                &format!("{} {}", socket.name, quoted(&socket.address)),
            )?;
        }
        let names = self.env.iter().map(|pair| pair.split_once('=').map_or(pair.as_str(), |(name, _)| name));
        let names = names.chain(self.pid_variables.iter().map(String::as_str)).map(str::to_owned);
        line(f, "environment", &joined(names, " "))
    }
}

fn line(f: &mut fmt::Formatter<'_>, key: &str, value: &str) -> fmt::Result {
    writeln!(f, "{key:<18} {value}")
}

fn joined(words: impl Iterator<Item = String>, between: &str) -> String {
    words.collect::<Vec<_>>().join(between)
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

/// A limit as people write it.
pub fn amount(value: u64) -> String {
    if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() }
}

fn capabilities(identity: &Identity) -> String {
    let kept = if identity.uid == 0 { identity.bounding } else { identity.ambient };
    let known = crate::unit::KNOWN_CAPABILITIES;
    if kept & known == known {
        return "all".to_owned();
    }
    let names = (0..=HIGHEST_CAPABILITY).filter(|number| kept & (1 << number) != 0);
    or_none(&joined(names.filter_map(capability_name).map(str::to_owned), " "))
}

/// A word as a person may type it; anything that could move the cursor or end the word is escaped.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() || !c.is_ascii() && !c.is_alphanumeric() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests;
