//! The shim: decides which of the processes this one is, and becomes it.

use std::process::ExitCode;

fn main() -> ExitCode {
    supervise::cli::main()
}
