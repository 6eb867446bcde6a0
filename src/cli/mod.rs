//! USER. Arguments, text and exit codes. Never runs in a privileged process.

use std::process::ExitCode;

/// The whole program: argument vector in, exit status out.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(command) if command == "logger" => crate::logger::main(args.collect()),
        _ => ExitCode::from(2),
    }
}
