//! LOG. A pipe and what is known of it. Never takes a byte out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use crate::sys::pipes;
use crate::wire::cri::Which;
use crate::wire::logger::Name;

use super::trail::Steps;

/// Steps in a row that must end without half a line before a stream's signal is switched off again.
const CALM_STEPS: u8 = 8;
/// What a pipe holds whose writer is faster than we are: as much as the kernel lets an ordinary user have by default
/// (/proc/sys/fs/pipe-max-size). The writer does not sleep and wake for each of our steps then.
const LARGE_BYTES: usize = 1024 * 1024;
/// Rests after which such a pipe is made smaller again, without a step in between of half of what it held at first.
const QUIET_RESTS: u16 = 1000;

/// A pipe and what is known of it.
#[derive(Debug)]
pub struct Stream {
    /// The manager's number for it.
    pub id: u64,
    /// Whose log.
    pub service: Name,
    /// No writer is left.
    pub hung_up: bool,
    /// It stands in the queue.
    pub queued: bool,
    /// It waits, with this many bytes of an unfinished line in its pipe.
    pub parked: Option<usize>,
    /// It is not to be tried again before this.
    pub not_before: Option<Instant>,
    /// Its read end.
    pub pipe: OwnedFd,
    /// Of which output.
    pub which: Which,
    /// Bytes that the pipe holds, as far as is known.
    pub capacity: usize,
    /// Bytes in the pipe that a predecessor has written already.
    pub owed: u64,
    /// The last step left something in the pipe.
    pub tail: bool,
    /// Where its last entries are.
    pub steps: Steps,
    /// What the pipe held before it was made larger.
    found: Option<usize>,
    /// It cannot be made larger.
    refused: bool,
    /// Rests since half a pipe of it was last written in one step.
    quiet: u16,
    signals: bool,
    calm: u8,
}

impl Stream {
    /// Errors: EBADF where `pipe` is none.
    pub fn new(id: u64, service: Name, which: Which, pipe: OwnedFd, owed: u64) -> io::Result<Self> {
        let capacity = pipes::capacity(pipe.as_fd())?;
        let signals = pipes::raises_sigio(pipe.as_fd())?;
        if signals {
            // A predecessor switched it on and never got to switch it off: the signals are ours now.
            pipes::raise_sigio(pipe.as_fd(), true)?;
        }
        Ok(Self {
            id,
            service,
            hung_up: false,
            queued: false,
            parked: None,
            not_before: None,
            pipe,
            which,
            capacity,
            owed,
            tail: false,
            steps: Steps::default(),
            found: None,
            refused: false,
            quiet: 0,
            signals,
            calm: 0,
        })
    }

    /// Whether bytes came since it was parked.
    pub fn has_news(&self) -> bool {
        let news = |seen: usize| pipes::available(self.pipe.as_fd()).map_or(true, |now| now != seen);
        self.parked.is_some_and(news)
    }

    /// Whether every write to this pipe raises a signal from now on.
    pub fn listens(&mut self) -> bool {
        self.calm = 0;
        if !self.signals {
            self.signals = pipes::raise_sigio(self.pipe.as_fd(), true).is_ok();
        }
        self.signals
    }

    /// The pipe was found empty. True where it has become smaller by that.
    pub fn rest(&mut self) -> bool {
        self.calm = self.calm.saturating_add(1);
        if self.signals && self.calm >= CALM_STEPS {
            self.release();
        }
        self.quiet = self.quiet.saturating_add(1);
        self.quiet >= QUIET_RESTS && self.shrink()
    }

    /// Whether so many bytes at once say that its writer is faster than we are.
    pub fn is_pressed(&mut self, bytes: usize) -> bool {
        let half = bytes >= self.found.unwrap_or(self.capacity) / 2;
        if half {
            self.quiet = 0;
        }
        half && self.found.is_none() && !self.refused
    }

    /// Makes the pipe larger, so that its writer goes on while we write. True where that was done.
    pub fn grow(&mut self) -> bool {
        let before = self.capacity;
        if before < LARGE_BYTES
            && let Ok(now) = pipes::set_capacity(self.pipe.as_fd(), LARGE_BYTES)
        {
            self.capacity = now;
            self.found = Some(before);
            return true;
        }
        // The user's pipes hold as much as they may, or a lower limit is set; or the service wanted it like that.
        self.refused = true;
        false
    }

    /// Makes the pipe as large as it was found. True where it was larger.
    pub fn shrink(&mut self) -> bool {
        let Some(before) = self.found.take() else { return false };
        // Refused where it holds more already: then it stays.
        if let Ok(now) = pipes::set_capacity(self.pipe.as_fd(), before) {
            self.capacity = now;
        }
        true
    }

    /// Writes to the pipe raise no signal any more.
    pub fn release(&mut self) {
        if self.signals {
            self.signals = false;
            let _ = pipes::raise_sigio(self.pipe.as_fd(), false);
        }
    }
}
