//! USER. `man/supervise.1`, and below it `man/supervise.8`: printed from the definition of the command line and the table of exit statuses.
//! Never written by hand.

mod admin;

use clap::{Arg, ArgAction, Command};

use super::args::definition;
use crate::unit::manual::{paragraph_of, plain};

const ABOUT: &[&str] = &[
    "`supervise run` reads unit files (supervise-unit(5)), binds all their sockets, starts their services, each as \
     its own user, and starts again what ends. The other commands talk to it over a Unix socket.",
    "A listening socket, once bound, stays open until its unit is stopped: across crashes and restarts of the \
     service, and when any process of supervise itself is killed. Clients wait meanwhile; they are not refused.",
    "Run by root, a unit without `user` is an error. Crash loops back off and are tried for ever, unless the unit \
     says otherwise.",
];

/// The sections below the commands: title, and rows of name and text.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "EXIT STATUS",
        &[
            ("0", "Done. For `status NAME`: every service named is as wanted."),
            ("1", "Refused, or the service failed."),
            ("2", "The command line is wrong."),
            ("3", "Unit files have problems. For `status NAME`: a service is not as wanted."),
            ("4", "There is no such service."),
            ("5", "No supervisor is there."),
            ("6", "Not permitted."),
            (
                "125",
                "`run`: a process of supervise itself could not begin. `init`, `exec`: the command did not come to run.",
            ),
            ("126, 127", "`init`, `exec`: the command cannot be executed; there is no such command."),
            (
                "any other",
                "`init`, `exec`: the command's own, or 128 and the number of the signal that ended it.",
            ),
            ("130", "Waiting was ended with Ctrl-C; what was asked for goes on."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("SUPERVISE_UNITS", "Directories of units, with `:` between them, instead of `--units`."),
            ("SUPERVISE_RUNTIME_DIR", "Instead of `--runtime-dir`."),
            ("SUPERVISE_LOG_DIR", "Instead of `--log-dir`."),
            ("SUPERVISE_STATE_DIR", "Instead of `--state-dir`."),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC",
                "`run`: where and how often the init above wants to hear (sd_notify(3)).",
            ),
            ("LISTEN_FDS, LISTEN_PID", "`run`: sockets that the init above gives (sd_listen_fds(3))."),
        ],
    ),
];

/// What one would type, and what for.
const EXAMPLES: &[(&str, &str)] = &[
    ("supervise check ./units", "What is wrong with units, before they run."),
    (
        "supervise check --offline --deny-warnings ./units",
        "The same in a build, where the machine is another.",
    ),
    (
        "supervise run --units ./units --runtime-dir ./run --log-dir ./log --state-dir ./state",
        "A supervisor of one's own in this directory.",
    ),
    ("supervise --runtime-dir ./run status", "How its services are."),
    ("supervise status web", "Everything about one: processes, sockets, the last lines of its log."),
    ("supervise why", "What is not as wanted, why, and what to do."),
    ("supervise restart 'bagels-*'", "New processes for all services of that name, one command."),
    ("supervise stop --hold db && supervise start db", "A pause in which clients wait and are not refused."),
    ("supervise kill -s USR1 web", "A signal to the main process."),
    ("supervise events --json | jq -c .event", "What happens, as it happens."),
    ("supervise show --exec web", "What exactly would be executed, as whom, and with which limits."),
    ("supervise exec web -- bin/manage.py migrate", "A command with the rights and variables of a service."),
    ("supervise exec web -- bash", "A shell as a service would see the machine."),
    ("supervise status --json web", "The same as `status`, for a program."),
];

/// The head of a page, up to the end of its description.
fn start(title: &str, manual: &str, about: &str, paragraphs: &[&str]) -> String {
    let mut page = format!(
        ".TH {title} \"\" \"supervise\" \"{manual}\"\n.SH NAME\nsupervise \\- {about}\n.SH SYNOPSIS\n.B supervise\n.RI [ OPTIONS ]\n.I COMMAND\n.RI [ ... ]\n.SH DESCRIPTION\n"
    );
    for (at, paragraph) in paragraphs.iter().enumerate() {
        page.push_str(if at > 0 { ".PP\n" } else { "" });
        page.push_str(&paragraph_of(paragraph));
    }
    page
}

fn section(page: &mut String, title: &str, rows: &[(&str, &str)]) {
    page.push_str(&format!(".SH {title}\n"));
    for (name, text) in rows {
        page.push_str(&format!(".TP\n.B {}\n{}", plain(name), paragraph_of(text)));
    }
}

/// `man/supervise.8`, whole.
pub fn administration() -> String {
    admin::page()
}

/// The whole page.
pub fn manual() -> String {
    let definition = definition();
    let mut page =
        start("SUPERVISE 1", "User commands", "keeps services running and their sockets open", ABOUT);
    page.push_str(".SH OPTIONS\n");
    arguments(&mut page, &definition);
    page.push_str(".SH COMMANDS\n");
    for command in definition.get_subcommands() {
        entry(&mut page, command);
    }
    for (title, rows) in SECTIONS {
        section(&mut page, title, rows);
    }
    section(&mut page, "EXAMPLES", EXAMPLES);
    page.push_str(".SH SEE ALSO\n.BR supervise (8),\n.BR supervise\\-unit (5)\n");
    page
}

fn entry(page: &mut String, command: &Command) {
    let mut usage = command.get_name().to_owned();
    if command.get_arguments().any(|arg| !arg.is_positional()) {
        usage.push_str(" [OPTIONS]");
    }
    for arg in command.get_positionals() {
        let more = if matches!(arg.get_action(), ArgAction::Append) { "..." } else { "" };
        let (value, more) = match arg.is_last_set() {
            true => (format!("-- {}", value(arg)), "..."),
            false => (value(arg), more),
        };
        usage.push_str(&if arg.is_required_set() {
            format!(" {value}{more}")
        } else {
            format!(" [{value}{more}]")
        });
    }
    page.push_str(&format!(".SS supervise {}\n", plain(&usage)));
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    for (at, paragraph) in about.split("\n\n").enumerate() {
        page.push_str(if at > 0 { ".PP\n" } else { "" });
        let stop = if paragraph.ends_with('.') { "" } else { "." };
        page.push_str(&paragraph_of(&format!("{paragraph}{stop}")));
    }
    arguments(page, command);
}

fn arguments(page: &mut String, command: &Command) {
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let name = match (arg.get_long(), arg.get_short()) {
            (Some(long), Some(short)) => format!("-{short}, --{long}"),
            (Some(long), None) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => String::new(),
        };
        let takes = arg.is_positional() || arg.get_action().takes_values();
        let value = if takes { value(arg) } else { String::new() };
        let gap = if name.is_empty() || value.is_empty() { "" } else { " " };
        page.push_str(&format!(".TP\n\\fB{}\\fR{gap}\\fI{}\\fR\n", plain(&name), plain(&value)));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        page.push_str(&paragraph_of(&format!("{help}.")));
    }
}

/// The name of an argument's value.
fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_command_line() {
        for (line, _) in EXAMPLES {
            for command in line.split(" | ").next().unwrap_or_default().split(" && ") {
                let words = command.split_whitespace().map(|word| word.trim_matches('\'').into());
                assert!(super::super::args::parse(words).is_ok(), "{command}");
            }
        }
    }

    #[test]
    fn every_command_and_option_is_in_it() {
        let page = manual();
        let definition = definition();
        for command in definition.get_subcommands() {
            assert!(page.contains(&format!(".SS supervise {}", plain(command.get_name()))), "{command}");
            for long in command.get_arguments().filter_map(Arg::get_long) {
                assert!(page.contains(&format!("{}\\fR", plain(&format!("--{long}")))), "{long}");
            }
        }
    }
}
