//! ROOT. Descriptors of others' making that are kept no longer, until the keeper has closed its copy. Never closes one.

use std::os::fd::OwnedFd;

/// Those that wait.
#[derive(Debug, Default)]
pub struct Graves {
    /// Until the keeper answers.
    asked: Vec<OwnedFd>,
    /// Until it is asked again: these came after it was asked.
    next: Vec<OwnedFd>,
    /// Until they are let go.
    open: Vec<OwnedFd>,
}

impl Graves {
    /// One more. True where the keeper is to be asked now.
    pub fn dig(&mut self, fd: OwnedFd, has_keeper: bool) -> bool {
        if !has_keeper {
            self.open.push(fd);
            return false;
        }
        if !self.asked.is_empty() {
            self.next.push(fd);
            return false;
        }
        self.asked.push(fd);
        true
    }

    /// The keeper has answered, and so has done what it was told before. True where it is to be asked again.
    pub fn answered(&mut self) -> bool {
        self.open.append(&mut self.asked);
        self.asked.append(&mut self.next);
        !self.asked.is_empty()
    }

    /// Its copies have gone with it.
    pub fn keeper_ended(&mut self) {
        self.open.append(&mut self.asked);
        self.open.append(&mut self.next);
    }

    /// Those of which ours is the last copy of the supervisor.
    pub fn exhumed(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        crate::sys::fds::pipe(0).unwrap().0
    }

    #[test]
    fn what_came_after_a_question_waits_for_the_next_answer() {
        let mut graves = Graves::default();
        assert!(graves.dig(fd(), true));
        assert!(!graves.dig(fd(), true) && !graves.dig(fd(), true));
        assert_eq!(graves.exhumed().len(), 0);
        assert!(graves.answered());
        assert_eq!(graves.exhumed().len(), 1);
        assert!(!graves.answered());
        assert_eq!(graves.exhumed().len(), 2);
        assert!(graves.dig(fd(), true) && !graves.dig(fd(), true));
        graves.keeper_ended();
        assert_eq!(graves.exhumed().len(), 2);
        assert!(!graves.dig(fd(), false));
        assert_eq!(graves.exhumed().len(), 1);
    }
}
