//! Waiting for what can only be looked at: a file, /proc, an answer. Never without a deadline.

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

/// Milliseconds between two looks.
const BETWEEN_MS: u8 = 4;

/// Lets a moment pass in which others can get on.
pub fn a_moment() {
    let _ = poll(&mut [], PollTimeout::from(BETWEEN_MS));
}

/// Lets time pass until `at`.
pub fn reach(at: Instant) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let ms = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let _ = poll(&mut [], PollTimeout::from(ms));
    }
}

/// Looks until there is something; fails the test where that takes longer than `most`.
#[track_caller]
pub fn until<T>(most: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < most, "waited {most:?} in vain for {what}");
        a_moment();
    }
}

/// The same where the answer is no reason to fail: None when the time is over.
pub fn within<T>(most: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if began.elapsed() >= most {
            return None;
        }
        a_moment();
    }
}

/// Long enough for anything that is not itself about time, on a machine that has much else to do.
pub const LONG: Duration = Duration::from_secs(60);
