//! USER. Arguments, text and exit codes. Never runs in a privileged process.

mod args;
mod ask;
mod connection;
mod entry;
mod exit;
mod manual;
mod operate;
mod page;
mod place;
mod run;
mod span;
mod status;
mod table;
mod text;
mod trouble;

use std::process::ExitCode;

use args::Asked;
use exit::Exit;
use place::Surroundings;

pub use manual::manual;

/// The whole program: argument vector in, exit status out.
pub fn main() -> ExitCode {
    if let Some(code) = entry::hidden(std::env::args_os().skip(1)) {
        return code;
    }
    let asked = match args::parse(std::env::args_os()) {
        Ok(asked) => asked,
        Err(error) => {
            // Help goes to stdout and is a success, everything else to stderr; where neither can be written
            // there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let around = Surroundings::of_this_process();
    match asked {
        Asked::Run(wanted) => match place::settings(&wanted, &around) {
            Ok(settings) => run::start(&settings),
            Err(error) => trouble::tell(&error),
        },
        Asked::Status { place, names, json } => match place::control(&place, &around) {
            Ok(control) => status::show(&control, names, json),
            Err(error) => trouble::tell(&error),
        },
        Asked::Operate { place, verb, names, json, wait } => match place::control(&place, &around) {
            Ok(control) => operate::carry_out(&control, verb, names, json, wait),
            Err(error) => trouble::tell(&error),
        },
    }
}
