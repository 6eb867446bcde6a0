//! ROOT. A table of descriptors whose size is fixed when it is made, and whose empty part costs no memory.
//! Never interprets an entry.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use super::fds::owned;
use crate::wire::keeper::Entry;

/// The table. Every array is zero where a slot is empty, so that untouched pages stay unmapped.
#[derive(Debug)]
pub struct Slots {
    numbers: Vec<RawFd>, // the descriptor plus one
    kinds: Vec<u32>,
    ids: Vec<u64>,
    pids: Vec<u32>,
    end: usize, // one past the last slot ever used
}

/// Bytes from which on the allocator takes fresh pages from the system, which are zero without being written.
const FRESH: usize = 128 * 1024;

/// So many zeros that cost no memory until they are something else.
fn untouched<T: Copy + Default>(count: usize) -> Vec<T> {
    let mut all = vec![T::default(); count.max(FRESH / size_of::<T>())];
    all.truncate(count);
    all
}

impl Slots {
    /// An empty table of so many slots.
    pub fn new(count: usize) -> Self {
        Self {
            numbers: untouched(count),
            kinds: untouched(count),
            ids: untouched(count),
            pids: untouched(count),
            end: 0,
        }
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are no slots.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// One past the last slot ever used.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Puts a descriptor into a slot and closes what was there. False, and the descriptor closed, where
    /// there is no such slot. A pid is registered once: whoever had it before has ended unseen.
    pub fn put(&mut self, entry: Entry, fd: OwnedFd) -> bool {
        let at = entry.slot as usize;
        self.clear(entry.slot);
        self.take_registered(entry.pid);
        let (Some(number), Some(kind), Some(id), Some(pid)) =
            (self.numbers.get_mut(at), self.kinds.get_mut(at), self.ids.get_mut(at), self.pids.get_mut(at))
        else {
            return false;
        };
        *number = fd.into_raw_fd() + 1;
        *kind = entry.kind;
        *id = entry.id;
        *pid = entry.pid;
        self.end = self.end.max(at + 1);
        true
    }

    /// Empties a slot and closes its descriptor.
    pub fn clear(&mut self, slot: u32) {
        let at = slot as usize;
        if let Some(number) = self.numbers.get_mut(at)
            && *number > 0
        {
            drop(owned((*number - 1).into()));
            *number = 0;
            if let (Some(kind), Some(pid)) = (self.kinds.get_mut(at), self.pids.get_mut(at)) {
                *kind = 0;
                *pid = 0;
            }
        }
    }

    /// What is in a slot.
    pub fn get(&self, slot: u32) -> Option<(Entry, BorrowedFd<'_>)> {
        let at = slot as usize;
        let number = *self.numbers.get(at)?;
        if number == 0 {
            return None;
        }
        let entry =
            Entry { slot, kind: *self.kinds.get(at)?, id: *self.ids.get(at)?, pid: *self.pids.get(at)? };
        // SAFETY: the table owns this open descriptor, and the borrow keeps the table as it is.
        Some((entry, unsafe { BorrowedFd::borrow_raw(number - 1) }))
    }

    /// The incarnation that a pid is registered as. The registration ends with this: once reaped, the pid
    /// can be another process's.
    pub fn take_registered(&mut self, pid: u32) -> Option<u64> {
        if pid == 0 {
            return None;
        }
        let used = self.pids.get_mut(..self.end)?;
        let at = used.iter().position(|one| *one == pid)?;
        *used.get_mut(at)? = 0;
        self.ids.get(at).copied()
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in 0..self.end {
            self.clear(slot as u32);
        }
    }
}

/// The raw number of a borrowed descriptor, for a table that is carried across an execve.
pub fn number(fd: BorrowedFd<'_>) -> RawFd {
    fd.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds;

    #[test]
    fn a_slot_holds_what_was_put_last_and_closes_the_rest() {
        let mut slots = Slots::new(4);
        let (read, write) = fds::pipe(0).unwrap();
        let entry = Entry { slot: 2, kind: 9, id: 70, pid: 700 };
        assert!(slots.put(entry, write));
        assert_eq!(slots.get(2).unwrap().0, entry);
        assert_eq!((slots.take_registered(0), slots.take_registered(700), slots.end()), (None, Some(70), 3));
        assert_eq!(slots.take_registered(700), None, "a pid is told once");
        assert!(slots.get(2).is_some());
        let (other, _) = fds::pipe(0).unwrap();
        assert!(slots.put(Entry { slot: 2, kind: 1, id: 1, pid: 0 }, other));
        use std::os::fd::AsFd;
        assert_eq!(fds::read(read.as_fd(), &mut [0]).unwrap(), 0, "the first write end stayed open");
        assert_eq!(slots.take_registered(700), None);
        slots.clear(2);
        assert!(slots.get(2).is_none());
        assert!(!slots.put(Entry { slot: 4, ..entry }, read));
    }

    #[test]
    fn a_pid_that_is_given_out_again_is_the_newer_ones() {
        let mut slots = Slots::new(4);
        for (slot, id) in [(0, 70), (1, 71)] {
            let (read, _) = fds::pipe(0).unwrap();
            assert!(slots.put(Entry { slot, kind: 9, id, pid: 700 }, read));
        }
        assert_eq!((slots.take_registered(700), slots.take_registered(700)), (Some(71), None));
    }
}
