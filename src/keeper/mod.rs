//! ROOT. The parent of everything: keeps descriptors, writes down exits, starts the others again. Never
//! parses, never allocates after start.
//!
//! It is the process that init sees, or init itself in a container, and the one that must not fail; so it
//! can do next to nothing. [`start`] makes the tables, [`serve`] is the loop, [`children`] the three processes
//! it keeps alive.

mod children;
mod serve;
mod start;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Status where the keeper itself cannot begin.
const OWN_FAILURE: u8 = 125;

/// The keeper's life. Arguments: `--carried FD --soft-nofile N --log-dir DIR -- MANAGER ARGUMENTS…`; the
/// descriptor is a memfd with the table of descriptors carried across the execve that made this process.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let keeper = start::Given::from_arguments(arguments).and_then(start::start);
    match keeper.and_then(serve::Keeper::serve) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(format_args!("the keeper cannot go on: {error}"));
            ExitCode::from(OWN_FAILURE)
        }
    }
}

/// One line on standard error. A full or closed one is no reason to stop, and formatting allocates nothing.
fn say(text: std::fmt::Arguments<'_>) {
    let mut line = [0u8; 256];
    let mut rest: &mut [u8] = &mut line;
    let _ = writeln!(rest, "supervise: {text}");
    let left = rest.len();
    let length = line.len() - left;
    let _ = std::io::stderr().write_all(line.get(..length).unwrap_or_default());
}
