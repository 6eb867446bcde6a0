//! LOG. What keeps the lines of services from where they are to go, as the manager is told of it. Never says it twice,
//! and never more than one word of a service at a time: what changed meanwhile is told as it is when it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::wire::logger::{Name, Place, Report};

/// The least time between two times that something is told: a disk on the brink is full and not full at every line.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// All of them.
#[derive(Debug, Default)]
pub struct Troubles {
    table: BTreeMap<(Name, Place), String>,
    news: BTreeSet<(Name, Place)>,
    not_before: Option<Instant>,
}

impl Troubles {
    /// Something is wrong with one.
    pub fn is_wrong(&mut self, service: &Name, place: Place, words: String) {
        let key = (*service, place);
        if self.table.get(&key) != Some(&words) {
            self.table.insert(key, words);
            self.news.insert(key);
        }
    }

    /// Nothing is, any more.
    pub fn is_well(&mut self, service: &Name, place: Place) {
        if !self.table.is_empty() && self.table.remove(&(*service, place)).is_some() {
            self.news.insert((*service, place));
        }
    }

    /// Somebody asks who has not been told: what is wrong with this service is told again.
    pub fn repeat(&mut self, service: &Name) {
        for key in [(*service, Place::Files), (*service, Place::Away)] {
            if self.table.contains_key(&key) {
                self.news.insert(key);
            }
        }
    }

    /// The services whose lines nobody takes elsewhere.
    pub fn without_taker(&self) -> Vec<Name> {
        let away = self.table.keys().filter(|(_, place)| *place == Place::Away);
        away.map(|(name, _)| *name).collect()
    }

    /// Whether there are any.
    pub fn has_without_taker(&self) -> bool {
        self.table.keys().any(|(_, place)| *place == Place::Away)
    }

    /// When something is to be told.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        (!self.news.is_empty()).then(|| self.not_before.unwrap_or(now))
    }

    /// What is to be told now.
    pub fn take_news(&mut self, now: Instant) -> Vec<Report> {
        if self.due(now).is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.not_before = now.checked_add(TELL_EVERY);
        let news = std::mem::take(&mut self.news);
        let words = |key| self.table.get(key).cloned().unwrap_or_default();
        news.iter().map(|key| Report::Trouble { service: key.0, place: key.1, words: words(key) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_once_and_as_it_is_when_it_is_told() {
        let (web, other) = (Name::new(b"web").unwrap(), Name::new(b"app").unwrap());
        let report =
            |service, words: &str| Report::Trouble { service, place: Place::Files, words: words.into() };
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        troubles.is_well(&web, Place::Files);
        assert_eq!((troubles.due(now), troubles.take_news(now)), (None, vec![]), "as it was");
        troubles.is_wrong(&web, Place::Files, "full".into());
        assert_eq!(troubles.take_news(now), [report(web, "full")], "at once");
        troubles.is_wrong(&web, Place::Files, "full".into());
        assert_eq!(troubles.due(now), None, "nothing new");
        for _ in 0..3 {
            troubles.is_well(&web, Place::Files);
            troubles.is_wrong(&other, Place::Files, "full".into());
        }
        assert_eq!(troubles.take_news(now), [], "not yet");
        let later = troubles.due(now).unwrap();
        assert_eq!(troubles.take_news(later), [report(other, "full"), report(web, "")]);
        troubles.repeat(&web);
        troubles.repeat(&other);
        let later = troubles.due(later).unwrap();
        assert_eq!(troubles.take_news(later), [report(other, "full")]);
    }
}
