//! USER. What of a unit whose text has mistakes is not sure enough to be held against the machine. Never has a doubt
//! of a unit without mistakes.

use crate::unit::{Fault, FileFault, Problem, Unit};

/// What is in doubt.
#[derive(Clone, Debug, Default)]
pub struct Doubt {
    /// Part of a file could not be read: what is not seen to be written may be written all the same.
    is_partial: bool,
    /// Files and lines with mistakes.
    lines: Vec<(String, usize)>,
    /// All words of what is said of them: a key among them may be what was meant.
    words: Vec<String>,
}

impl Doubt {
    /// What these problems of the text leave in doubt.
    pub fn of(problems: &[Problem]) -> Self {
        let partial = |problem: &Problem| match &problem.fault {
            Fault::File(FileFault::Name { .. } | FileFault::Twice { .. }) => false,
            Fault::File(_) => true,
            _ => false,
        };
        let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        let is_of_key = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        let words = text.split(|letter: char| !is_of_key(letter)).filter(|word| !word.is_empty());
        Self {
            is_partial: problems.iter().any(partial),
            lines: problems.iter().map(|one| (one.place.path.clone(), one.place.line)).collect(),
            words: words.map(str::to_owned).collect(),
        }
    }

    /// Whether a key, or its absence, may not be what somebody wrote.
    pub fn about(&self, unit: &Unit, key: &str) -> bool {
        let name = key.rsplit('.').next().unwrap_or(key);
        // Also of one that a file below has: what was to be laid over it may be misspelt.
        self.words.iter().any(|word| word == name)
            || match unit.places.of(key) {
                Some(place) => {
                    self.lines.iter().any(|(path, line)| *path == place.path && *line == place.line)
                }
                None => self.is_partial,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Layer;

    fn about(text: &str, keys: &[&str]) -> Vec<bool> {
        let (unit, problems) = Unit::parse_partly("web", &[Layer { path: "web.toml", text }]);
        let doubt = Doubt::of(&problems);
        keys.iter().map(|key| doubt.about(&unit, key)).collect()
    }

    #[test]
    fn what_may_have_been_meant_is_in_doubt_and_the_rest_is_not() {
        let keys = ["service.user", "service.directory", "service.command", "service.umask"];
        let text = "[service]\ncommand = \"x\"\ndirectry = \"/srv\"\nuser = \"al\"\n";
        assert_eq!(about(text, &keys), [false, true, false, false]);
        let text = "[service]\ncommand = \"x\"\ndirectory = \"/srv\"\nuser = 1.5\n";
        assert_eq!(about(text, &keys), [true, false, false, false]);
        // Of a file that is no TOML, what is not seen may be there.
        let text = "[service]\ncommand = \"x\"\ndirectory = \"/srv\nuser = \"al\"\n";
        assert_eq!(about(text, &keys), [false, true, false, true]);
        assert_eq!(about("[service]\ncommand = \"x\"\n", &keys), [false; 4]);
    }
}
