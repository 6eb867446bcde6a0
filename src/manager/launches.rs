//! ROOT. What a child says on its way to a command: its report, and what it found out about its failure. Never waits
//! for more, never looks at a file itself.
//!
//! That a launch failed is in the state. What was found besides is lost with the manager, and then not said.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use crate::launch::words::Fact;
use crate::policy::{Run, ServiceId};
use crate::sys::fds;
use crate::wire::zygote::{MOST_CLUE, Piece, REPORT_BYTES, Report, Weight};

/// How many facts are noted; the oldest give way.
const MOST_NOTES: usize = 1024;

/// How far it has got.
pub enum Told {
    /// Nothing yet.
    Pending,
    /// The report has ended: the command executes.
    Executed,
    /// A step failed, and what the child found.
    Failed(Report, Option<Fact>),
}

/// Reads as far as it goes. What was left out on the way is added to the second.
pub fn read(fd: BorrowedFd<'_>, left_out: &mut Vec<Report>) -> Told {
    let mut clue: Option<(u8, Vec<u8>)> = None;
    loop {
        let mut bytes = [0; REPORT_BYTES];
        let bytes = match fds::read(fd, &mut bytes) {
            Ok(0) => return Told::Executed,
            Ok(count) => bytes.get(..count).unwrap_or_default(),
            Err(_) => return Told::Pending,
        };
        match (Report::decode(bytes), Piece::decode(bytes)) {
            (Some(report), _) if report.weight == Weight::Warning => {
                left_out.push(report);
            }
            (Some(report), _) => {
                return Told::Failed(report, clue.and_then(|(clue, text)| Fact::new(clue, text)));
            }
            (None, Some(piece)) => {
                let (_, text) = clue.get_or_insert_with(|| (piece.clue, Vec::new()));
                if text.len() < MOST_CLUE {
                    text.extend_from_slice(piece.text());
                }
            }
            (None, None) => log::error!("a report before a command makes no sense"),
        }
    }
}

/// What was found, by incarnation.
#[derive(Debug, Default)]
pub struct Facts {
    table: BTreeMap<Run, Fact>,
    left_out: BTreeMap<ServiceId, String>,
}

impl Facts {
    /// Notes it, where something was found.
    pub fn note(&mut self, run: Run, fact: Option<Fact>) {
        let Some(fact) = fact else { return };
        self.table.insert(run, fact);
        if self.table.len() > MOST_NOTES {
            self.table.pop_first();
        }
    }

    /// Notes what is left out of the starts of a service, as its unit and the system have it; true where that is new.
    pub fn leave_out(&mut self, id: ServiceId, words: &str) -> bool {
        self.left_out.insert(id, words.to_owned()).is_none_or(|before| before != words)
    }

    /// What is left out of its starts.
    pub fn left_out(&self, id: ServiceId) -> Option<&str> {
        self.left_out.get(&id).map(String::as_str)
    }

    /// What was found about this one.
    pub fn of(&self, run: Run) -> Option<&Fact> {
        self.table.get(&run)
    }
}
