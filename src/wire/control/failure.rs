//! PURE. Why an operation failed. Never decides that it did.

use serde::{Deserialize, Serialize};

use super::{Exit, MOST_FAILURES, MOST_LINES, cut};

/// Why an operation failed on one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// The service.
    pub service: String,
    /// What was being done.
    pub step: String,
    /// Why that did not work.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// How the main process ended.
    pub exit: Option<Exit>,
    /// The last lines of its output.
    pub output: Vec<String>,
    /// It is known that it wrote nothing.
    pub silent: bool,
}

impl Failure {
    /// One more thing to know or to do, behind what is said already.
    pub fn hint_also(&mut self, more: String) {
        self.hint = Some(match self.hint.take() {
            Some(first) => format!("{first}; {more}"),
            None => more,
        });
    }

    /// Cuts long lists and texts to their limits.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        // The last lines are the ones that tell.
        let surplus = self.output.len().saturating_sub(MOST_LINES);
        self.output.drain(..surplus);
        self.output.iter_mut().for_each(cut);
        [&mut self.service, &mut self.step, &mut self.reason].into_iter().for_each(cut);
        self.hint.iter_mut().for_each(cut);
        self.exit.iter_mut().for_each(|exit| cut(&mut exit.meaning));
        self
    }
}

/// The parameters of the error `Failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The first service that failed.
    #[serde(flatten)]
    pub first: Failure,
    /// Others of the same operation.
    #[serde(default)]
    pub others: Vec<Failure>,
}

impl Failed {
    /// Cuts long lists and texts to their limits; only the first failure keeps its output.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.first = self.first.bounded();
        self.others.truncate(MOST_FAILURES);
        self.others =
            self.others.into_iter().map(|other| Failure { output: Vec::new(), ..other }.bounded()).collect();
        self
    }
}
