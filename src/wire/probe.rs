//! PURE. What the manager has looked at by a process with the service's rights, and what that process found. Never
//! looks itself.
//!
//! A task is one argument, in JSON; a finding is one line of at most [`MOST_BYTES`] bytes, a word and a text. The
//! process has the rights of the service and so may say anything: a text is shown, and nothing else is done with it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest finding, with its line end.
pub const MOST_BYTES: usize = 1024;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// A Unix socket's path.
    Path(PathBuf),
    /// An abstract Unix socket, without the NUL.
    Abstract(String),
    /// A TCP socket: address and port.
    Tcp(String),
    /// So many connections that are there already, from descriptor 3 on: the socket's file may let others in than
    /// the service itself.
    Given {
        /// How many.
        count: u8,
    },
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A path, over HTTP.
    Http {
        /// The path.
        path: String,
        /// The host name.
        host: String,
    },
    /// A path, in the uwsgi protocol.
    Uwsgi {
        /// The path.
        path: String,
        /// The host name.
        host: String,
    },
    /// Nothing: a connection is enough.
    Connection,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Wait until any of these is answered, whatever the answer.
    Answer {
        /// Where.
        at: At,
        /// What is asked, each on a connection of its own.
        asks: Vec<Ask>,
    },
    /// Wait until a process of the tree below this one waits for connections on one of these sockets.
    Listens {
        /// The main process.
        main: u32,
        /// Inodes of the sockets.
        sockets: Vec<u64>,
    },
    /// Ask whether all is well.
    Health {
        /// Where.
        at: At,
        /// What is asked.
        ask: Ask,
        /// The main process, where an answer counts only if it comes from its tree.
        only: Option<u32>,
        /// Milliseconds until an answer comes too late.
        timeout_ms: u64,
        /// Milliseconds until it is asked again while it is not well; None: it is asked once.
        again_ms: Option<u64>,
    },
    /// Run a command that succeeds while all is well.
    Command {
        /// The command.
        argv: Vec<String>,
        /// Milliseconds until it is killed.
        timeout_ms: u64,
        /// As above.
        again_ms: Option<u64>,
    },
    /// See who holds the sockets, and what else the tree listens on.
    Look {
        /// The main process.
        main: u32,
        /// Inodes of the sockets.
        sockets: Vec<u64>,
    },
}

impl Task {
    /// As an argument.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From an argument.
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// What is said of one that took the connection and said nothing.
pub const CLOSED: &str = "it closed the connection without an answer";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is ready.
    Ready,
    /// All is well, in words.
    Healthy(String),
    /// It is not, in words.
    Unhealthy(String),
    /// It gave no answer, in words.
    Silent(String),
    /// It could not be asked: every connection went to another incarnation.
    Others,
    /// It was not asked, for want of something that is not its own; in words.
    Unasked(String),
    /// Who listens where.
    Seen {
        /// Whether anybody of the tree holds one of the sockets.
        held: bool,
        /// Whether anybody of it waits for connections on one of them.
        waits: bool,
        /// Another address that one of them listens on, and its process.
        other: Option<(u32, String)>,
    },
}

impl Finding {
    /// There was no answer: for want of something of `ours`, or it gave none.
    pub const fn without_answer(words: String, ours: bool) -> Self {
        if ours { Self::Unasked(words) } else { Self::Silent(words) }
    }

    /// As a line.
    pub fn encode(&self) -> String {
        let plain = |text: &str| {
            let letters = text.chars().map(|one| if one.is_control() { ' ' } else { one });
            let mut text: String = letters.collect();
            while text.len() > MOST_BYTES - 64 {
                text.pop();
            }
            text
        };
        match self {
            Self::Ready => "ready\n".to_owned(),
            Self::Healthy(words) => format!("healthy {}\n", plain(words)),
            Self::Others => "others\n".to_owned(),
            Self::Unhealthy(words) => format!("unhealthy {}\n", plain(words)),
            Self::Silent(words) => format!("silent {}\n", plain(words)),
            Self::Unasked(words) => format!("unasked {}\n", plain(words)),
            Self::Seen { held, waits, other } => {
                let other =
                    other.as_ref().map(|(pid, at)| format!(" {pid} {}", plain(at))).unwrap_or_default();
                format!("seen {held} {waits}{other}\n")
            }
        }
    }

    /// From a line, with its end.
    pub fn decode(line: &str) -> Option<Self> {
        let line = line.strip_suffix('\n').filter(|line| !line.contains(char::is_control))?;
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" if text.is_empty() => Some(Self::Ready),
            "others" if text.is_empty() => Some(Self::Others),
            "healthy" => Some(Self::Healthy(text.to_owned())),
            "unhealthy" => Some(Self::Unhealthy(text.to_owned())),
            "silent" => Some(Self::Silent(text.to_owned())),
            "unasked" => Some(Self::Unasked(text.to_owned())),
            "seen" => {
                let mut words = text.splitn(4, ' ');
                let (held, waits) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let other = match (words.next(), words.next()) {
                    (Some(pid), Some(at)) => Some((pid.parse().ok()?, at.to_owned())),
                    (None, None) => None,
                    _ => return None,
                };
                Some(Self::Seen { held, waits, other })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let other = Some((7, "127.0.0.1:8000".to_owned()));
        for finding in [
            Finding::Ready,
            Finding::Others,
            Finding::Healthy("answered 200".into()),
            Finding::Unhealthy(String::new()),
            Finding::Silent("no answer within 5s".into()),
            Finding::Unasked("too many open files".into()),
            Finding::Seen { held: true, waits: false, other: None },
            Finding::Seen { held: false, waits: true, other },
        ] {
            assert_eq!(Finding::decode(&finding.encode()), Some(finding));
        }
        let long = Finding::Unhealthy("é\n".repeat(MOST_BYTES)).encode();
        assert!(long.len() <= MOST_BYTES && Finding::decode(&long).is_some());
        for wrong in
            ["ready", "ready now\n", "seen true\n", "seen true true 7\n", "what\n", "healthy a\nready\n", ""]
        {
            assert_eq!(Finding::decode(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_task_is_one_argument() {
        let ask = Ask::Http { path: "/healthz".into(), host: "localhost".into() };
        let task = Task::Health {
            at: At::Tcp("127.0.0.1:80".into()),
            ask,
            only: Some(3),
            timeout_ms: 5_000,
            again_ms: None,
        };
        assert_eq!(Task::decode(&task.encode()), Some(task));
        assert_eq!(Task::decode("{}"), None);
    }
}
