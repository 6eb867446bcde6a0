//! LOG. The logger's own words on standard error. Never waits for a reader, never fails.

use std::io;
use std::os::fd::AsFd;

use crate::sys::{fds, poller};

/// The longest message. A pipe with any room takes this much at once (PIPE_BUF is 4,096).
const LONGEST: usize = 2048;

/// Writes one line, or nothing where nobody reads: services wait for the logger, so it waits for no one.
pub fn say(text: &str) {
    let stderr = io::stderr();
    let stderr = stderr.as_fd();
    if poller::writable_now(stderr).unwrap_or(false) {
        let mut line = format!("supervise: logger: {text}").into_bytes();
        line.truncate(LONGEST - 1);
        line.push(b'\n');
        let _ = fds::write(stderr, &line);
    }
}

/// The system's reason in words alone: `permission denied`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_words_in_lower_case() {
        assert_eq!(reason(&io::Error::from_raw_os_error(28)), "no space left on device");
        assert_eq!(reason(&io::Error::other("")), "");
    }
}
