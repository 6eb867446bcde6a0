//! PURE. One problem: how bad, where, what, and the remedy; and how it is shown. Never decides what a problem is.

use std::fmt;

use super::fault::Fault;
use super::source::Place;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The unit does not run.
    Error,
    /// It runs, and somebody should know.
    Warning,
}

/// One problem. Shown, it is the first line, the line of the file with a caret, and the hint:
///
/// ```text
/// /etc/supervise/shop.toml:7:1: unknown key `restart-dealy` in `[service]`
///   7 | restart-dealy = "1s"
///     | ^^^^^^^^^^^^^
/// hint: did you mean `delay` in `[restart]`?
/// ```
///
/// without a line end after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// What it is; shown, its message.
    pub fault: Fault,
}

impl Problem {
    /// What makes the unit not run.
    pub(super) fn error(place: Place, fault: impl Into<Fault>) -> Self {
        Self { severity: Severity::Error, place, fault: fault.into() }
    }

    /// What somebody should know.
    pub(super) fn warning(place: Place, fault: impl Into<Fault>) -> Self {
        Self { severity: Severity::Warning, place, fault: fault.into() }
    }

    /// The remedy, where there is one to give.
    pub fn hint(&self) -> Option<String> {
        self.fault.hint()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(out, "{}: {kind}{}\n{}", self.place, self.fault, self.place.picture())?;
        match self.hint() {
            Some(hint) => write!(out, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Puts problems of many units into the order of their files' names and lines, and each in only once: what is
/// wrong in a file that lies under all units is found with every one of them.
pub fn in_order(problems: &mut Vec<Problem>) {
    problems.sort_by(|one, other| {
        let key = |problem: &Problem| (problem.place.path.clone(), problem.place.span.start);
        key(one).cmp(&key(other))
    });
    problems.dedup();
}
