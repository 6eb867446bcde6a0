//! USER. What `check` has found: where, how bad, what, and the remedy; as text and as JSON. Never decides what is wrong.

use serde_json::{Value, json};

use crate::unit::{Place, Problem, Severity, Unit};

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The unit.
    pub unit: String,
    /// Where; None where it is of a whole directory.
    pub place: Option<Place>,
    /// Whether the unit cannot work.
    pub is_error: bool,
    /// What, on one line.
    pub text: String,
    /// The remedy.
    pub hint: Option<String>,
}

/// Everything of one run, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Findings {
    /// What was found.
    pub all: Vec<Finding>,
    /// What was not checked, and why.
    pub unchecked: Vec<String>,
}

impl Finding {
    /// What the parser or a rule says.
    pub fn of(unit: &str, problem: &Problem) -> Self {
        Self {
            unit: unit.to_owned(),
            place: Some(problem.place.clone()),
            is_error: problem.severity == Severity::Error,
            text: problem.fault.to_string(),
            hint: problem.hint(),
        }
    }

    /// As it is printed: like a problem of a unit's text.
    pub fn rendered(&self) -> String {
        let kind = if self.is_error { "" } else { "warning: " };
        let mut text = match &self.place {
            Some(place) => format!("{place}: {kind}{}\n{}\n", self.text, place.picture()),
            None => format!("{kind}{}\n", self.text),
        };
        if let Some(hint) = &self.hint {
            text += &format!("hint: {hint}\n");
        }
        text
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let place = self.place.as_ref();
        json!({
            "unit": self.unit,
            "path": place.map(|place| place.path.as_str()),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "severity": if self.is_error { "error" } else { "warning" },
            "message": self.text,
            "hint": self.hint,
        })
    }
}

impl Findings {
    /// Adds one at a key of a unit.
    pub fn add(&mut self, unit: &Unit, key: &str, is_error: bool, text: String, hint: Option<String>) {
        let place = Some(unit.place(key));
        self.all.push(Finding { unit: unit.name.clone(), place, is_error, text, hint });
    }

    /// The unit cannot work.
    pub fn error(&mut self, unit: &Unit, key: &str, text: String, hint: impl Into<String>) {
        self.add(unit, key, true, text, Some(hint.into()));
    }

    /// It works, and somebody should know.
    pub fn warn(&mut self, unit: &Unit, key: &str, text: String, hint: impl Into<String>) {
        self.add(unit, key, false, text, Some(hint.into()));
    }

    /// Something could not be looked at.
    pub fn not_checked(&mut self, unit: &Unit, what: &str) {
        self.unchecked.push(format!("{}: {what}", unit.name));
    }

    /// Puts them into the order of files and lines, each once.
    pub fn sort(&mut self) {
        let key = |finding: &Finding| {
            // What is of a whole file begins with its name, and what is of no unit comes first.
            let (path, at) = match &finding.place {
                Some(place) => (place.path.clone(), place.span.start),
                None if finding.unit.is_empty() => (String::new(), 0),
                None => (finding.text.split(": ").next().unwrap_or_default().to_owned(), 0),
            };
            (path, at, finding.text.clone())
        };
        self.all.sort_by_key(key);
        self.all.dedup_by(|one, other| one.place == other.place && one.text == other.text);
        self.unchecked.sort();
        self.unchecked.dedup();
    }
}
