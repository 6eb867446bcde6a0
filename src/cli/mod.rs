//! USER. Arguments, text and exit codes. Never runs in a privileged process.

use std::process::ExitCode;

/// The whole program: argument vector in, exit status out.
pub fn main() -> ExitCode {
    ExitCode::from(2)
}
