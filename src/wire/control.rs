//! PURE. The values of the control protocol: how services are, what came of operations, why not. Used by both
//! sides of the socket. Never decides what a value is.
//!
//! Within a major version fields are added, never renamed. Every field is written, unknown ones as `null` or
//! empty; a field that is missing reads as unknown, so that neighbouring versions understand each other.

mod failure;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use failure::{Failed, Failure};

use super::names::Unknown;
use super::varlink::{Answer, Standard};
use super::verb::{INTERFACE, Right};

/// The most processes of a service that a reply lists.
pub const MOST_PIDS: usize = 1024;
/// The most instances of a service that a reply lists.
pub const MOST_INSTANCES: usize = 256;
/// The most sockets of a service that a reply lists.
pub const MOST_SOCKETS: usize = 64;
/// The most problems, names waited for, or lines of output that a reply lists.
pub const MOST_LINES: usize = 32;
/// The most ends of a service that a reply lists: the last ones.
pub const MOST_ENDS: usize = 8;
/// The most bytes of one text of a reply, as JSON writes it.
pub const MOST_TEXT: usize = 1024;
/// The most bytes of the name and of the address of a socket, as JSON writes it.
pub const MOST_ADDRESS: usize = 256;
/// The most further failures that one error carries.
pub const MOST_FAILURES: usize = 24;
/// The longest reply, in bytes: a longer one is cut down to what matters.
pub const MOST_SENT: usize = 160 * 1024;

/// The state of a service, in the user's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing runs and nothing will.
    #[default]
    Stopped,
    /// The sockets are held, nothing runs; the first connection starts it.
    Listening,
    /// Waits for other services.
    Waiting,
    /// On its way to ready.
    Starting,
    /// Ready.
    Running,
    /// Ready, and reading its configuration again or giving way to the next generation.
    Reloading,
    /// On its way down.
    Stopping,
    /// Ended, and starts again after a pause.
    BackingOff,
    /// Ended, or never began, and does not start again on its own.
    Failed,
    /// A task that succeeded.
    Done,
}

impl State {
    /// The word for it, as in `status` and in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Listening => "listening",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Reloading => "reloading",
            Self::Stopping => "stopping",
            Self::BackingOff => "backing-off",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }

    /// Whether a service in this state is as wanted: `status NAME` exits with 0.
    pub const fn is_as_wanted(self) -> bool {
        match self {
            Self::Listening | Self::Running | Self::Done => true,
            Self::Stopped
            | Self::Waiting
            | Self::Starting
            | Self::Reloading
            | Self::Stopping
            | Self::BackingOff
            | Self::Failed => false,
        }
    }
}

/// The supervisor itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Supervisor {
    /// The version of the program.
    pub version: String,
    /// The manager.
    pub pid: i32,
    /// The keeper: the process that the init sees.
    pub keeper_pid: Option<i32>,
    /// When the supervisor began, RFC 3339.
    pub since: String,
}

/// Which generation an instance belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The one that serves.
    #[default]
    Current,
    /// The one that has to prove itself.
    Next,
    /// The one that finishes what it has begun.
    Draining,
}

impl Role {
    /// The word for it, as in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Draining => "draining",
        }
    }
}

/// One of a service's places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Which place, from 1.
    pub instance: u32,
    /// The generation that runs there.
    pub generation: u64,
    /// What that generation is to the service.
    pub role: Role,
    /// The main process.
    pub pid: Option<i32>,
    /// How it is.
    pub state: State,
    /// Since when, RFC 3339.
    pub since: Option<String>,
}

/// How a main process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// The status it exited with.
    pub code: Option<i32>,
    /// The signal that ended it, a name without SIG.
    pub signal: Option<String>,
    /// What that means, in words.
    pub meaning: String,
}

/// One socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Socket {
    /// Its name in the unit.
    pub name: String,
    /// Its address as in a unit.
    pub address: String,
    /// Connections that wait to be accepted.
    pub queue: Option<u64>,
    /// How many may wait.
    pub backlog: Option<u64>,
    /// It is that of whoever started supervise, and goes on listening when the service is stopped.
    pub inherited: bool,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What it waits for while `waiting`.
    pub waiting_for: Vec<String>,
    /// What its health check says; `None` without one, and before its first answer.
    pub healthy: Option<bool>,
    /// Main process of the first instance of the current generation.
    pub pid: Option<i32>,
    /// Every process of it.
    pub pids: Vec<i32>,
    /// The current generation, from 1; 0 before the first.
    pub generation: u64,
    /// Its places.
    pub instances: Vec<Instance>,
    /// Starts after the first of this generation.
    pub restarts: u64,
    /// When it came into this state, RFC 3339.
    pub since: Option<String>,
    /// How its main process last ended.
    pub exit: Option<Exit>,
    /// When it starts again, RFC 3339.
    pub next_start: Option<String>,
    /// What proves a new generation good.
    pub gate: Option<String>,
    /// Its sockets, in descriptor order.
    pub sockets: Vec<Socket>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time used, in seconds.
    pub cpu_seconds: Option<f64>,
    /// What it says of itself (`STATUS=`).
    pub status_text: Option<String>,
    /// How its processes are kept track of.
    pub tracking: Option<String>,
    /// What is wrong with its unit or its running, each with the remedy.
    pub problems: Vec<String>,
    /// Whom it runs as.
    pub user: Option<String>,
    /// Its last ends, the newest at the end.
    pub ends: Vec<Ended>,
    /// Files of its unit that have changed since they were read.
    pub changed: Vec<String>,
    /// When it was adopted after all of supervise had been killed, RFC 3339.
    pub adopted: Option<String>,
    /// The last lines of its output, where they were asked for and may be read.
    pub output: Vec<String>,
    /// Descriptors that it has stored for its next start (`FDSTORE=1`), of all its instances.
    pub stored: u64,
    /// Whose they are, where that is not what runs.
    pub output_of: Option<String>,
    /// It is known that it wrote nothing.
    pub silent: bool,
    /// What it is, for people.
    pub description: Option<String>,
    /// Where to read more.
    pub documentation: Vec<String>,
    /// Its unit's own file.
    pub unit: Option<String>,
    /// The words of its command as its unit has them, for whoever may read its output.
    pub command: Vec<String>,
    /// Where its output goes, as in its unit.
    pub log_to: Option<String>,
    /// The file that its output goes to, where it goes to one.
    pub log_file: Option<String>,
}

/// How one incarnation ended, or why it never began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// When, RFC 3339.
    pub at: String,
    /// Which place.
    pub instance: u32,
    /// Of which generation.
    pub generation: u64,
    /// What it was about: `running`, or the step that failed.
    pub step: String,
    /// Why, in words.
    pub reason: String,
    /// How its main process ended, where it ran.
    pub exit: Option<Exit>,
    /// Milliseconds for which its command had run, where it did.
    pub lived_ms: Option<u64>,
    /// It was beside what runs, to take its place or to be rehearsed, and failed.
    pub beside: bool,
}

impl Service {
    /// Cuts long lists and texts to their limits, so that one reply stays far below the reply queue.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.pids.truncate(MOST_PIDS);
        self.instances.truncate(MOST_INSTANCES);
        self.sockets.truncate(MOST_SOCKETS);
        self.ends.drain(..self.ends.len().saturating_sub(MOST_ENDS));
        for ended in &mut self.ends {
            cut_to(&mut ended.step, MOST_ADDRESS);
            cut(&mut ended.reason); // with a remedy
            ended.exit.iter_mut().for_each(|exit| cut_to(&mut exit.meaning, MOST_ADDRESS));
        }
        let lists = [&mut self.problems, &mut self.waiting_for, &mut self.changed, &mut self.output];
        for list in lists.into_iter().chain([&mut self.documentation, &mut self.command]) {
            list.truncate(MOST_LINES);
            list.iter_mut().for_each(cut);
        }
        let of_sockets = self.sockets.iter_mut().flat_map(|one| [&mut one.name, &mut one.address]);
        of_sockets.for_each(|text| cut_to(text, MOST_ADDRESS));
        let texts = [&mut self.gate, &mut self.status_text, &mut self.tracking, &mut self.output_of];
        texts.into_iter().flatten().for_each(cut);
        let texts = [&mut self.description, &mut self.unit, &mut self.log_file];
        texts.into_iter().flatten().for_each(cut);
        self.exit.iter_mut().for_each(|exit| cut(&mut exit.meaning));
        self
    }
}

fn cut(text: &mut String) {
    cut_to(text, MOST_TEXT);
}

/// Cuts a text where JSON would need more than `most` bytes for it: what a service says of itself may be
/// nothing but control characters, and those become six bytes each.
fn cut_to(text: &mut String, most: usize) {
    let mut length = 0;
    let end = text.char_indices().find(|(_, character)| {
        length += match character {
            '"' | '\\' => 2,
            '\0'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        length > most
    });
    if let Some((end, _)) = end {
        text.truncate(end);
    }
}

/// A reply to `Status`: one part of a stream, or all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReply {
    /// In the first reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Supervisor>,
    /// In each further reply, one.
    pub services: Vec<Service>,
}

/// What came of an operation on one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// The service.
    pub name: String,
    /// How it is now.
    pub state: State,
    /// Its main process.
    pub pid: Option<i32>,
    /// What the operator should know besides.
    pub note: Option<String>,
}

/// A step of an operation that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The service.
    pub service: String,
    /// What happens to it.
    pub step: String,
}

/// A reply to `Start`, `Stop`, `Restart`, `Reload`, `Scale` and `Kill`: a step, or the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationReply {
    /// What came of it, one for each service.
    pub services: Vec<Outcome>,
    /// A step on the way there.
    pub progress: Option<Progress>,
}

/// What happened to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// When, RFC 3339.
    pub at: String,
    /// To which.
    pub service: String,
    /// How it is since then.
    pub state: State,
    /// How it was.
    pub was: State,
    /// Its generation.
    pub generation: u64,
    /// Its main process.
    pub pid: Option<i32>,
    /// How its main process ended, where that is what happened.
    pub exit: Option<Exit>,
    /// What else there is to say.
    pub text: Option<String>,
}

/// A reply to `Events`. The first holds neither: from then on nothing is missed, or it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventReply {
    /// What happened.
    pub event: Option<Box<Event>>,
    /// How many events there were before this one for which the reader was too slow.
    pub missed: u64,
}

/// One value of a unit, or of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The table and the key: `service.user`.
    pub key: String,
    /// The value as one would write it.
    pub value: String,
    /// Where it was written: `file:line:column`, or `default`.
    pub from: String,
}

/// The reply to `Show`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shown {
    /// The service.
    pub service: String,
    /// Its generation.
    pub generation: u64,
    /// Every value.
    pub rows: Vec<Row>,
}

impl OperationReply {
    /// Leaves the notes out, and the outcomes where even their names are too many, so that it can be sent.
    fn shorter(&self) -> Self {
        let plain = |outcome: &Outcome| Outcome { note: None, ..outcome.clone() };
        // 96: the words around a name, a state and a pid at their longest.
        let length: usize = self.services.iter().map(|outcome| outcome.name.len() + 96).sum();
        let services = if length > MOST_SENT - 1024 { &[][..] } else { &self.services };
        Self { services: services.iter().map(plain).collect(), progress: None }
    }
}

/// A reply to `Logs`: the log files of one service. Descriptors travel with it: first that of the directory, then one
/// for each name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogReply {
    /// Whose; empty where there are no services at all.
    pub service: String,
    /// Where its lines go, as in its unit.
    pub to: String,
    /// The directory of its files.
    pub directory: String,
    /// The names of the files, the oldest first.
    pub files: Vec<String>,
    /// How many descriptors travel with this.
    pub descriptors: u32,
    /// Why there are no files.
    pub note: Option<String>,
    /// What keeps its lines from where they are to go, each with the remedy.
    pub troubles: Vec<String>,
}

/// An error of our own interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No service has that name, or none matches that glob.
    NoSuchService(Unknown),
    /// The peer lacks this right, on this service where it is one.
    NotPermitted(Right, Option<String>),
    /// The operation failed.
    Failed(Box<Failed>),
}

/// One reply of the manager to one call.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Status`.
    Status(StatusReply),
    /// To `Start`, `Stop`, `Restart`, `Reload`, `Scale` and `Kill`.
    Operation(OperationReply),
    /// To `Events`.
    Event(EventReply),
    /// To `Show`.
    Shown(Shown),
    /// To `Exec`: that it runs, with descriptors beside it, or how it ended.
    Executed(super::exec::ExecReply),
    /// To `Logs`.
    Log(Box<LogReply>),
    /// An error of our own; always the last reply.
    Refused(Refusal),
    /// An error that every Varlink service has; always the last reply.
    Standard(Standard),
}

impl Reply {
    /// Whether this can only be the last reply to its call.
    pub const fn is_error(&self) -> bool {
        match self {
            Self::Status(_)
            | Self::Operation(_)
            | Self::Event(_)
            | Self::Shown(_)
            | Self::Log(_)
            | Self::Executed(_) => false,
            Self::Refused(_) | Self::Standard(_) => true,
        }
    }

    /// The frame with its NUL. `continues` is ignored for errors.
    pub fn encode(&self, continues: bool) -> Vec<u8> {
        match self {
            Self::Status(reply) => framed(None, reply, continues),
            Self::Operation(reply) => {
                let frame = framed(None, reply, continues);
                if frame.len() <= MOST_SENT { frame } else { framed(None, &reply.shorter(), continues) }
            }
            Self::Event(reply) => framed(None, reply, continues),
            Self::Shown(shown) => framed(None, shown, continues),
            Self::Executed(reply) => framed(None, reply, continues),
            Self::Log(reply) => framed(None, reply, continues),
            Self::Refused(refusal) => refusal.encode(),
            Self::Standard(error) => error.answer().encode(),
        }
    }
}

impl Refusal {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::NoSuchService(unknown) => {
                let mut parameters = serde_json::json!({ "name": unknown.name, "near": unknown.near });
                if let (Some(file), Some(all)) = (&unknown.file, parameters.as_object_mut()) {
                    all.insert("file".to_owned(), file.as_str().into());
                }
                framed(Some("NoSuchService"), &parameters, false)
            }
            Self::NotPermitted(right, None) => {
                framed(Some("NotPermitted"), &serde_json::json!({ "needs": right.word() }), false)
            }
            Self::NotPermitted(right, service) => {
                let parameters = serde_json::json!({ "needs": right.word(), "service": service });
                framed(Some("NotPermitted"), &parameters, false)
            }
            Self::Failed(failed) => framed(Some("Failed"), &failed.as_ref().clone().bounded(), false),
        }
    }

    /// The error that a reply carries, where it is one of these.
    pub fn read(answer: &Answer) -> Option<Self> {
        let name = answer.error.as_deref()?.strip_prefix(INTERFACE)?.strip_prefix('.')?;
        let text = |field: &str| answer.parameters.get(field).and_then(Value::as_str).map(str::to_owned);
        match name {
            "NoSuchService" => Some(Self::NoSuchService(Unknown {
                name: text("name")?,
                near: text("near"),
                file: text("file"),
            })),
            "NotPermitted" => {
                // A right that only a newer supervisor knows is more than these.
                let needs = text("needs").and_then(|word| Right::of_word(&word));
                Some(Self::NotPermitted(needs.unwrap_or(Right::Everything), text("service")))
            }
            "Failed" => serde_json::from_value(answer.parameters.clone()).ok().map(Self::Failed),
            _ => None,
        }
    }
}

/// Serialises without building a tree first: `status` of a thousand services is a thousand of these.
fn framed(error: Option<&str>, parameters: &impl Serialize, continues: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Frame<'a, P> {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        parameters: &'a P,
        #[serde(skip_serializing_if = "Option::is_none")]
        continues: Option<bool>,
    }
    let frame = Frame {
        error: error.map(|name| format!("{INTERFACE}.{name}")),
        parameters,
        continues: continues.then_some(true),
    };
    // String keys and no custom serialiser: there is nothing that could fail.
    let mut bytes = serde_json::to_vec(&frame).unwrap_or_default();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests;
