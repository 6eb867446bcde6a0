//! ROOT. Descriptors of others' making that are kept no longer, until the keeper has closed its copy. Never closes one.

use std::os::fd::OwnedFd;

/// Those that wait. The keeper is asked one question at a time.
#[derive(Debug, Default)]
pub struct Graves {
    /// Until the keeper answers.
    asked: Vec<OwnedFd>,
    /// Until it is asked again: these came after it was asked.
    next: Vec<OwnedFd>,
    /// Until they are let go.
    open: Vec<OwnedFd>,
    /// Whether it has been asked.
    under_way: bool,
    /// Whether what it closes before it answers, or before it is asked again, is waited for by somebody.
    awaited: bool,
    awaited_next: bool,
}

impl Graves {
    /// One more. True where the keeper is to be asked now.
    pub fn dig(&mut self, fd: OwnedFd, has_keeper: bool) -> bool {
        if !has_keeper {
            self.open.push(fd);
            return false;
        }
        if self.under_way {
            self.next.push(fd);
            return false;
        }
        self.asked.push(fd);
        self.under_way = true;
        true
    }

    /// Somebody waits for what the keeper was told to close. True where it is to be asked now.
    pub fn wait(&mut self) -> bool {
        if self.under_way {
            self.awaited_next = true;
            return false;
        }
        self.awaited = true;
        self.under_way = true;
        true
    }

    /// Whether the keeper has not closed yet what somebody waits for.
    pub fn is_awaited(&self) -> bool {
        self.awaited || self.awaited_next
    }

    /// The keeper has answered, and so has done what it was told before. True where it is to be asked again.
    pub fn answered(&mut self) -> bool {
        self.open.append(&mut self.asked);
        self.asked.append(&mut self.next);
        self.awaited = std::mem::take(&mut self.awaited_next);
        self.under_way = self.awaited || !self.asked.is_empty();
        self.under_way
    }

    /// Its copies have gone with it.
    pub fn keeper_ended(&mut self) {
        self.open.append(&mut self.asked);
        self.open.append(&mut self.next);
        (self.under_way, self.awaited, self.awaited_next) = (false, false, false);
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

    #[test]
    fn what_is_awaited_is_closed_by_the_answer_to_a_question_behind_it() {
        let mut graves = Graves::default();
        assert!(graves.dig(fd(), true) && !graves.is_awaited());
        assert!(!graves.wait() && !graves.dig(fd(), true));
        assert!(graves.answered() && graves.is_awaited(), "that answer is about what was said before");
        assert!(!graves.answered() && !graves.is_awaited());
        assert_eq!(graves.exhumed().len(), 2);
        assert!(graves.wait() && !graves.dig(fd(), true) && graves.answered() && !graves.is_awaited());
        graves.wait();
        graves.keeper_ended();
        assert!(!graves.is_awaited() && graves.wait(), "its successor is asked anew");
    }
}
