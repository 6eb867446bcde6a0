//! PURE. The reply to a command in a service's context. Never the command's input or output: those go their own way.

use serde::{Deserialize, Serialize};

use super::control::Exit;

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
