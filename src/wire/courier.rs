//! PURE. What is said between the manager and a process that takes a message with descriptors: single bytes. Never a
//! descriptor.

/// The most descriptors that are sent on of one message.
pub const MOST: usize = 64;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// Here is one of them.
    Descriptor = 1,
    /// Those were all of them.
    All = 2,
    /// Those were all that may be kept, and there were others.
    NotAll = 3,
    /// To it: what came is written down, and the message may go.
    Go = 4,
    /// It is gone.
    Taken = 5,
}

impl Word {
    /// The word of a byte.
    pub fn of(byte: u8) -> Option<Self> {
        let all = [Self::Descriptor, Self::All, Self::NotAll, Self::Go, Self::Taken];
        all.into_iter().find(|word| *word as u8 == byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back_and_no_other() {
        let known: Vec<u8> =
            (0..=u8::MAX).filter(|byte| Word::of(*byte).is_some_and(|word| word as u8 == *byte)).collect();
        assert_eq!(known, [1, 2, 3, 4, 5]);
    }
}
