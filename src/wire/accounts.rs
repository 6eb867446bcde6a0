//! PURE. Questions about accounts and their answers, between the manager and the process that may hang.

use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// A user by name.
    User(String),
    /// A user by number, who needs no account.
    Id(u32),
    /// A group by name, or by a number in digits.
    Group(String),
}

/// A user as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Login name; the number in digits where there is no account.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included, in ascending order.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The user.
    User(Account),
    /// The group's number.
    Group(u32),
    /// There is no such account.
    Missing,
    /// The system could not say.
    Failed(String),
}

impl Question {
    /// As one word.
    pub fn encode(&self) -> String {
        match self {
            Self::User(name) => format!("user:{name}"),
            Self::Id(id) => format!("id:{id}"),
            Self::Group(name) => format!("group:{name}"),
        }
    }

    /// From one word.
    pub fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "user" => Some(Self::User(rest.to_owned())),
            "id" => rest.parse().ok().map(Self::Id),
            "group" => Some(Self::Group(rest.to_owned())),
            _ => None,
        }
    }
}

impl Answer {
    /// As text without a newline or a tab outside of JSON.
    pub fn encode(&self) -> String {
        match self {
            Self::User(account) => {
                let json = serde_json::to_string(account);
                json.map_or_else(|error| format!("failed {error}"), |json| format!("user {json}"))
            }
            Self::Group(id) => format!("group {id}"),
            Self::Missing => "missing".to_owned(),
            Self::Failed(why) => format!("failed {}", why.replace(['\n', '\t'], " ")),
        }
    }

    /// From text.
    pub fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        match kind {
            "user" => serde_json::from_str(rest).ok().map(Self::User),
            "group" => rest.parse().ok().map(Self::Group),
            "missing" => Some(Self::Missing),
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

/// The questions and answers of whole lines; what is no such line is passed over.
pub fn lines(text: &str) -> Vec<(Question, Answer)> {
    text.split_inclusive('\n')
        .filter_map(|line| {
            let (question, answer) = line.strip_suffix('\n')?.split_once('\t')?;
            Some((Question::decode(question)?, Answer::decode(answer)?))
        })
        .collect()
}

/// What is in a file, or why it cannot be read, with its length in front: a part of it is nothing.
pub fn file(read: Result<Vec<u8>, String>) -> Vec<u8> {
    let (kind, bytes) = match read {
        Ok(bytes) => ('o', bytes),
        Err(words) => ('e', words.into_bytes()),
    };
    let mut all = format!("{kind}{}\n", bytes.len()).into_bytes();
    all.extend(bytes);
    all
}

/// The same, from bytes; None while they are not all there.
pub fn whole_file(said: &[u8]) -> Option<Result<Vec<u8>, String>> {
    let end = said.iter().position(|byte| *byte == b'\n')?;
    let (head, rest) = (said.get(..end)?, said.get(end + 1..)?);
    let (kind, length) = head.split_first()?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let bytes = rest.get(..length)?.to_vec();
    match kind {
        b'o' => Some(Ok(bytes)),
        b'e' => Some(Err(String::from_utf8_lossy(&bytes).into_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_comes_back_and_half_a_line_does_not() {
        let account = Account {
            name: "web".into(),
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
            home: "/srv/a\tb".into(),
            shell: "/bin/sh".into(),
        };
        let pairs = [
            (Question::User("web".into()), Answer::User(account)),
            (Question::Id(7), Answer::Missing),
            (Question::Group("a:b".into()), Answer::Group(5)),
            (Question::Group("g".into()), Answer::Failed("no\nnetwork".replace('\n', " "))),
        ];
        let mut text = String::new();
        for (question, answer) in &pairs {
            text.push_str(&format!("{}\t{}\n", question.encode(), answer.encode()));
        }
        text.push_str("group:late\tgroup 1");
        assert_eq!(lines(&text), pairs);
    }

    #[test]
    fn a_file_is_there_when_all_of_it_is() {
        for read in [Ok(b"A=1\n\n".to_vec()), Ok(Vec::new()), Err("permission denied".to_owned())] {
            let said = file(read.clone());
            for end in 0..said.len() {
                assert_eq!(whole_file(&said[..end]), None);
            }
            assert_eq!(whole_file(&said), Some(read));
        }
        assert_eq!(whole_file(b"x0\n"), None);
    }
}
