//! PURE. Names with their numbers, as few as a unit names. Never looks one up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A table of few names: a tree has room for eleven where most units name one, and there are a thousand of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, u32>", into = "BTreeMap<String, u32>")]
pub struct Numbers(Box<[(Box<str>, u32)]>);

impl Numbers {
    /// The number of a name.
    pub fn get(&self, name: &str) -> Option<u32> {
        self.0.iter().find(|(one, _)| **one == *name).map(|(_, number)| *number)
    }

    /// Gives a name its number, in place of another.
    pub fn insert(&mut self, name: &str, number: u32) {
        if self.get(name) == Some(number) {
            return;
        }
        let others = std::mem::take(&mut self.0).into_iter().filter(|(one, _)| **one != *name);
        self.0 = others.chain([(name.into(), number)]).collect();
    }
}

impl From<BTreeMap<String, u32>> for Numbers {
    fn from(table: BTreeMap<String, u32>) -> Self {
        Self(table.into_iter().map(|(name, number)| (name.into_boxed_str(), number)).collect())
    }
}

impl From<Numbers> for BTreeMap<String, u32> {
    fn from(numbers: Numbers) -> Self {
        numbers.0.into_iter().map(|(name, number)| (name.into_string(), number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_last_number_and_all_of_them_come_back_as_they_were() {
        let mut numbers = Numbers::default();
        for (name, number) in [("web", 1), ("db", 2), ("web", 3), ("db", 2)] {
            numbers.insert(name, number);
        }
        assert_eq!((numbers.get("web"), numbers.get("db"), numbers.get("we")), (Some(3), Some(2), None));
        let text = serde_json::to_string(&numbers).unwrap();
        assert_eq!(text, r#"{"db":2,"web":3}"#);
        let back: Numbers = serde_json::from_str(&text).unwrap();
        assert_eq!((back.get("web"), back.get("db")), (Some(3), Some(2)));
    }
}
