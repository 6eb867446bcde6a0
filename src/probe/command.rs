//! CHILD. Runs a health command with the service's rights and environment. Never longer than its time.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use super::ask::duration;
use super::{is_alone, readable};
use crate::sys::errno::{EAGAIN, is_shortage, reason};
use crate::sys::{clock, fds, process};
use crate::wire::probe::Finding;

/// Bytes of its output that are kept: the last line is shown.
const MOST_OUTPUT: usize = 512;

/// Whether the command succeeds.
pub fn health(argv: &[String], timeout_ms: u64) -> Finding {
    let Some((program, arguments)) = argv.split_first() else {
        return Finding::Unhealthy("there is no command".to_owned());
    };
    let until = clock::monotonic_ms() + timeout_ms;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    let (mut output, ours) = match std::io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return Finding::Unasked(reason(&error)),
    };
    let theirs = ours.try_clone().map(Stdio::from);
    command.stderr(ours);
    if let Ok(theirs) = theirs {
        command.stdout(theirs);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let words = format!("executing `{program}`: {}", reason(&error));
            // No process now: `nproc` of its user, or `pids.max`.
            let ours = is_shortage(&error) || error.raw_os_error() == Some(EAGAIN);
            return if ours { Finding::Unasked(words) } else { Finding::Unhealthy(words) };
        }
    };
    drop(command); // with its ends of the pipe
    let mut tail = Vec::new();
    let mut open = fds::set_nonblocking(output.as_fd(), true).is_ok();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) => {}
            Err(error) => return Finding::Unhealthy(reason(&error)),
        }
        let left = until.saturating_sub(clock::monotonic_ms());
        if left == 0 || is_alone() {
            break None;
        }
        // What it says wakes us, and so does its end, which closes the pipe; a child of its that keeps the pipe does not.
        if open {
            readable(&[output.as_fd()], left.min(100));
            open = take(&mut output, &mut tail);
        } else {
            super::pause(left.min(5));
        }
    };
    // It is not reaped yet, or has been a moment ago: whoever is left of its group is its own.
    let _ = process::signal_group(child.id(), 9);
    let Some(status) = status else {
        let _ = child.wait();
        return Finding::Unhealthy(format!("its command did not end within {}", duration(timeout_ms)));
    };
    take(&mut output, &mut tail);
    let text = String::from_utf8_lossy(&tail).into_owned();
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let said = if last.is_empty() { String::new() } else { format!(": {last}") };
    match (status.code(), status.signal()) {
        (Some(0), _) => Finding::Healthy("its command succeeds".to_owned()),
        (Some(code), _) => Finding::Unhealthy(format!("its command said {code}{said}")),
        (None, signal) => Finding::Unhealthy(format!(
            "its command was ended by signal {}{said}",
            signal.unwrap_or_default()
        )),
    }
}

/// Reads what there is; false at the end.
fn take(output: &mut impl Read, tail: &mut Vec<u8>) -> bool {
    loop {
        let mut part = [0; MOST_OUTPUT];
        match output.read(&mut part) {
            Ok(0) => return false,
            Ok(count) => {
                tail.extend_from_slice(part.get(..count).unwrap_or_default());
                let over = tail.len().saturating_sub(MOST_OUTPUT);
                tail.drain(..over);
            }
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}
