//! PURE. What a process with the service's rights does at a path that root keeps away from, and what came of it.
//! Never does it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The most bytes of an answer.
pub const MOST_BYTES: usize = 512;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Bind a socket there, unless its file is still the one that was bound before.
    Bind {
        /// Where.
        path: PathBuf,
        /// The number that socket(2) takes.
        kind: i32,
        /// The file's mode.
        mode: u32,
        /// Its owner; None leaves it.
        user: Option<u32>,
        /// Its group; None leaves it.
        group: Option<u32>,
        /// Device and inode of the one before.
        before: Option<(u64, u64)>,
    },
    /// Remove the file if it is still this one.
    Remove {
        /// Where.
        path: PathBuf,
        /// Device and inode.
        file: (u64, u64),
    },
}

/// What came of it. With `Bound` comes the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It is bound; device and inode of its file.
    Bound((u64, u64)),
    /// The one from before is still there.
    There,
    /// Somebody listens there.
    Live,
    /// Something that is no socket is there.
    NoSocket,
    /// A socket of another user is there.
    Strangers,
    /// The system refused: errno(3).
    System(i32),
    /// It could not be given to whom it is for: errno(3).
    NotGiven(i32),
}

impl Task {
    /// As an argument.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From an argument.
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Done {
    /// As a message.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From a message of a process that may say anything.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_and_answers_come_back_as_they_went() {
        let path = PathBuf::from("/srv/app/s");
        let bind = Task::Bind {
            path: path.clone(),
            kind: 1,
            mode: 0o660,
            user: None,
            group: Some(33),
            before: Some((1, 2)),
        };
        for task in [bind, Task::Remove { path, file: (1, 2) }] {
            assert_eq!(Task::decode(&task.encode()), Some(task));
        }
        for done in [Done::Bound((u64::MAX, 1)), Done::There, Done::System(13)] {
            assert!(done.encode().len() < MOST_BYTES);
            assert_eq!(Done::decode(&done.encode()), Some(done));
        }
        assert_eq!((Task::decode("x"), Done::decode(b"\xff")), (None, None));
    }
}
