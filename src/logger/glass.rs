//! LOG. Looking into a pipe: what is in it, and whether there is room for more. Never takes a byte out of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys::pipes::{self, Void};
use crate::sys::{fds, poller};

use super::stream::Stream;

/// What there is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing yet.
    Nothing,
    /// Nothing, and no writer is left.
    End,
    /// So many bytes, at the start of the buffer.
    Bytes(usize),
}

/// Two pipes of our own into which a service's is copied: one to read it, one to see whether it is full.
#[derive(Debug)]
pub struct Glass {
    look: OwnedFd,
    glass: OwnedFd,
    bottom: OwnedFd,
    gauge: OwnedFd,
    gauge_bytes: usize,
    most: usize,
}

impl Glass {
    /// For `most` bytes at a time. Where the pipes of our user hold as much as they may already, the kernel gives
    /// only those with rights more than two pages: so this is done before the rights are given up.
    pub fn new(most: usize) -> io::Result<Self> {
        let (look, glass) = fds::pipe(0)?;
        let _ = pipes::set_capacity(glass.as_fd(), most); // else less at a time
        let (bottom, gauge) = fds::pipe(0)?;
        let gauge_bytes = pipes::capacity(gauge.as_fd())?;
        Ok(Self { look, glass, bottom, gauge, gauge_bytes, most })
    }

    /// Copies what is in a stream's pipe into `raw`.
    pub fn look(&mut self, stream: &Stream, raw: &mut [u8]) -> io::Result<Look> {
        let count = match pipes::tee(stream.pipe.as_fd(), self.glass.as_fd(), self.most.min(raw.len())) {
            Ok(0) => return Ok(Look::End),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Look::Nothing),
            Err(error) => return Err(error),
        };
        let mut filled = 0;
        while filled < count {
            match fds::read(self.look.as_fd(), raw.get_mut(filled..count).unwrap_or_default()) {
                Ok(more) if more > 0 => filled += more,
                outcome => {
                    // What is left in there must never pass for a look into another pipe.
                    *self = Self::new(self.most)?;
                    outcome?;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(Look::Bytes(count))
    }

    /// Whether a stream's pipe has no room for another byte. It is asked of few, as it costs some calls: bytes do not
    /// tell, since each write may take a slot of its own, so the slots are copied into as many.
    pub fn is_full(&mut self, stream: &mut Stream, void: &Void) -> io::Result<bool> {
        stream.capacity = pipes::capacity(stream.pipe.as_fd())?; // its writer may change it
        let want = stream.capacity.min(self.most);
        if want != self.gauge_bytes {
            // Where it cannot be had, a smaller one is full too early.
            self.gauge_bytes = pipes::set_capacity(self.gauge.as_fd(), want).unwrap_or(self.gauge_bytes);
        }
        match pipes::tee(stream.pipe.as_fd(), self.gauge.as_fd(), usize::MAX >> 1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let full = self.gauge_bytes > want || !poller::writable_now(self.gauge.as_fd())?;
        if let Err(error) = void.swallow(self.bottom.as_fd()) {
            *self = Self::new(self.most)?;
            return Err(error);
        }
        Ok(full)
    }
}
