//! LOG. Where the last entries of each stream stand in its service's file, which other streams write to as well. Never
//! the entries themselves.
//!
//! It is what tells the output of one run from that of another beside it. It goes with the logger: a successor knows
//! what it has written itself.

use std::collections::VecDeque;

use crate::wire::cri::{Stamp, parse_stamp};
use crate::wire::logger::{MOST_PIECES, Piece, Trail};

/// A piece that is longer is not made longer: its end is all that anybody looks at.
const LONG: u32 = 16 * 1024;

/// What one stream has left.
#[derive(Debug, Default)]
pub struct Steps {
    wrote: bool,
    pieces: VecDeque<Piece>,
}

impl Steps {
    /// Something came of it, wherever it went.
    pub const fn wrote(&mut self) {
        self.wrote = true;
    }

    /// So many bytes of entries were written here.
    pub fn at(&mut self, at: u64, bytes: usize, stamp: &Stamp) {
        let Ok(bytes) = u32::try_from(bytes) else { return };
        let (seconds, nanos) = parse_stamp(stamp.as_bytes()).unwrap_or_default();
        let time_ns = seconds.saturating_mul(1_000_000_000).saturating_add(nanos.into());
        match self.pieces.back_mut() {
            Some(last) if last.at + u64::from(last.bytes) == at && last.bytes < LONG => {
                last.bytes = last.bytes.saturating_add(bytes);
                last.time_ns = time_ns;
            }
            Some(_) | None => {
                if self.pieces.len() == MOST_PIECES {
                    self.pieces.pop_front();
                }
                self.pieces.push_back(Piece { at, bytes, time_ns });
            }
        }
    }

    /// All of it.
    pub fn trail(&self) -> Trail {
        Trail { wrote: self.wrote, pieces: self.pieces.iter().copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_on_is_one_piece_as_long_as_it_is_short() {
        let mut steps = Steps::default();
        assert_eq!(steps.trail(), Trail::default());
        let stamp = Stamp::new(2, 5);
        for at in [0, 100, 300] {
            steps.at(at, 100, &stamp);
        }
        steps.at(400, LONG as usize, &stamp);
        steps.at(500 + u64::from(LONG) - 100, 7, &stamp);
        let piece = |at, bytes| Piece { at, bytes, time_ns: 2_000_000_005 };
        let expected = [piece(0, 200), piece(300, 100 + LONG), piece(400 + u64::from(LONG), 7)];
        assert_eq!(steps.trail().pieces, expected);
        for at in 0..20 {
            steps.at(1_000_000 + at * 100, 50, &stamp);
        }
        assert_eq!(steps.trail().pieces.len(), MOST_PIECES);
        assert_eq!(steps.trail().pieces.last(), Some(&piece(1_001_900, 50)));
    }
}
