//! PURE. The reply to a command in a service's context. Never the command's input or output: those go their own way.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::Exit;
use super::varlink::Answer;

/// The longest name of a kind of terminal, in bytes.
const MOST_TERM: usize = 64;

/// The terminal that a command is to have, as the client's own is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Its kind, for the variable TERM.
    pub term: String,
    /// Rows of its window.
    pub rows: u16,
    /// Columns of its window.
    pub columns: u16,
}

impl Terminal {
    /// From a parameter of a call; None where that is no such thing.
    pub fn of(value: &Value) -> Option<Self> {
        let terminal: Self = serde_json::from_value(value.clone()).ok()?;
        Self::is_name(&terminal.term).then_some(terminal)
    }

    /// Whether that can be the name of a kind of terminal. It becomes part of a file's path in programs that believe
    /// it, so it has no slash and does not begin with a dot.
    pub fn is_name(name: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
        name.len() <= MOST_TERM
            && name.bytes().all(fits)
            && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
    }
}

/// A reply to `Exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecReply {
    /// Its pid, once it runs.
    pub pid: Option<i64>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Why it did not get to run, in words.
    pub problem: Option<String>,
}

impl ExecReply {
    /// From an answer; of one that is none, an empty one.
    pub fn of(answer: Answer) -> Self {
        serde_json::from_value(answer.parameters).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_terminal_is_what_programs_can_be_told() {
        let of = |term: &str| Terminal::of(&json!({ "term": term, "rows": 24, "columns": 80 }));
        assert!(of("xterm-256color").is_some() && of("screen.xterm").is_some() && of("dumb").is_some());
        for term in ["", "../x", ".x", "a/b", "a b", "a\n", "\u{1b}[2J", "a=b", &"x".repeat(65)] {
            assert_eq!(of(term), None, "{term:?}");
        }
        for wrong in [
            json!(true),
            json!({ "term": "xterm", "rows": 24 }),
            json!({ "term": "xterm", "rows": -1, "columns": 80 }),
            json!({ "term": "xterm", "rows": 24, "columns": 70_000 }),
            json!({ "term": "xterm", "rows": 24, "columns": 80, "raw": true }),
        ] {
            assert_eq!(Terminal::of(&wrong), None, "{wrong}");
        }
    }
}
