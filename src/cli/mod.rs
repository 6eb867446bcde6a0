//! USER. Arguments, text and exit codes. Never runs in a privileged process.

mod args;
mod ask;
mod check;
mod completions;
mod connection;
mod entry;
mod events;
mod exec;
mod exit;
mod init;
mod logs;
mod manual;
mod operate;
mod page;
mod place;
mod processes;
mod run;
mod show;
mod span;
mod status;
mod table;
mod text;
mod trouble;
mod why;

use std::path::Path;
use std::process::ExitCode;

use args::Asked;
use exit::Exit;
use place::{Place, Surroundings};

pub use manual::{administration, manual};

/// The whole program: argument vector in, exit status out.
pub fn main() -> ExitCode {
    if let Some(code) = entry::hidden(std::env::args_os().skip(1)) {
        return code;
    }
    let asked = match args::parse(std::env::args_os()) {
        Ok(asked) => asked,
        Err(error) => {
            // Help goes to stdout, where it is a success once it is there; everything else goes to stderr, and where
            // that cannot be written there is nobody to tell.
            let open = if error.use_stderr() { Ok(()) } else { trouble::can_print() };
            return match (error.use_stderr(), open.and_then(|()| error.print())) {
                (true, _) => Exit::Usage.into(),
                (false, Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    trouble::tell(&trouble::not_printed(&error))
                }
                (false, _) => Exit::Done.into(),
            };
        }
    };
    let around = Surroundings::of_this_process();
    match asked {
        Asked::Run(wanted) => match place::settings(&wanted, &around) {
            Ok(settings) => run::start(&settings, wanted.ready_fd),
            Err(error) => trouble::tell(&error),
        },
        Asked::Init(words) => init::main(words).unwrap_or(Exit::Done.into()),
        Asked::Status { place, names, form } => {
            with(&place, &around, |control| status::show(control, names, form))
        }
        Asked::Why { place, names, json } => {
            with(&place, &around, |control| why::explain(control, names, json))
        }
        Asked::Operate { place, what, names, json, wait } => {
            with(&place, &around, |control| operate::carry_out(control, &what, names, json, wait))
        }
        Asked::Events { place, names, json } => {
            with(&place, &around, |control| events::watch(control, names, json))
        }
        Asked::Exec { place, name, argv, terminal } => {
            with(&place, &around, |control| exec::exec(control, name, argv, terminal))
        }
        Asked::Show { place, name, exec, json } => {
            with(&place, &around, |control| show::show(control, name, exec, json))
        }
        Asked::Schema => show::schema(),
        Asked::Check(asked) => check::check(&asked, &around),
        Asked::Logs { place, wanted } => with(&place, &around, |control| {
            let directory = place::log_dir(&place, &wanted.log_dir, &around);
            logs::print(control.to_owned(), directory, &wanted)
        }),
        Asked::Completions(shell) => completions::print(shell),
    }
}

/// Talks to the supervisor that is meant.
fn with(place: &Place, around: &Surroundings, talk: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
    match place::control(place, around) {
        Ok(control) => talk(&control),
        Err(error) => trouble::tell(&error),
    }
}
