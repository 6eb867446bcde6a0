//! USER. The command line: one definition from which parsing and help come, with the commands of the verb
//! table in it. Never acts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::place::{Place, Wanted};
use super::span;
use crate::wire::verb::Verb;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Become a supervisor.
    Run(Wanted),
    /// How services are.
    Status {
        /// Of which supervisor.
        place: Place,
        /// Names and globs.
        names: Vec<String>,
        /// As JSON.
        json: bool,
    },
    /// Do something with services.
    Operate {
        /// Of which supervisor.
        place: Place,
        /// What.
        verb: Verb,
        /// Names and globs.
        names: Vec<String>,
        /// The outcome as JSON.
        json: bool,
        /// Whether to wait for the outcome.
        wait: bool,
    },
}

/// The definition of the command line.
pub fn definition() -> Command {
    Command::new("supervise")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps services running and their sockets open")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("runtime-dir")
                .long("runtime-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .global(true)
                .display_order(100)
                .help("Runtime directory in use [SUPERVISE_RUNTIME_DIR]"),
        )
        .arg(
            Arg::new("user")
                .long("user")
                .action(ArgAction::SetTrue)
                .global(true)
                .display_order(101)
                .help("Your own supervisor instead of the system's"),
        )
        .subcommand(run())
        .subcommands(Verb::ALL.map(command))
        .after_help("NAME may be a glob: 'bagels-*'. `supervise COMMAND --help` tells more.")
}

fn run() -> Command {
    let directory = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("DIR").value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("run")
        .about("Supervise in the foreground: under an init, as PID 1, or as a user")
        .arg(
            directory("units", "Where unit files are; repeatable, earlier ones go first [SUPERVISE_UNITS]")
                .action(ArgAction::Append),
        )
        .arg(directory("log-dir", "Where logs go [SUPERVISE_LOG_DIR]"))
        .arg(directory("state-dir", "Where history goes [SUPERVISE_STATE_DIR]"))
        .arg(
            Arg::new("stop-timeout")
                .long("stop-timeout")
                .value_name("DURATION")
                .value_parser(span::parse)
                .help("At most this long for stopping everything: `250ms`, `10s`, `5min`, `off`"),
        )
        .arg(
            Arg::new("strict")
                .long("strict")
                .action(ArgAction::SetTrue)
                .help("Refuse to run when a unit is bad, instead of running the others"),
        )
}

/// The command of a verb. A new verb does not compile until someone decides what its command takes.
fn command(verb: Verb) -> Command {
    let names = Arg::new("names").value_name("NAME").action(ArgAction::Append);
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    let command = Command::new(verb.command()).about(verb.about()).long_about(format!(
        "{}.\n\n{}",
        verb.about(),
        verb.details()
    ));
    match verb {
        Verb::Status => command
            .arg(names.help("Services; all of them without"))
            .arg(json.help("Print the supervisor's reply as JSON")),
        Verb::Start | Verb::Stop | Verb::Restart => command
            .arg(names.required(true).help("Services"))
            .arg(
                Arg::new("no-wait")
                    .long("no-wait")
                    .action(ArgAction::SetTrue)
                    .help("Do not wait for the outcome"),
            )
            .arg(json.help("Print the outcome as JSON")),
    }
}

/// Reads the command line. Errors: what clap says, help and version among them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let matches = definition().try_get_matches_from(args)?;
    let place = Place { runtime_dir: path(&matches, "runtime-dir"), user: matches.get_flag("user") };
    let missing = || definition().error(clap::error::ErrorKind::MissingSubcommand, "no command is given");
    let (name, of) = matches.subcommand().ok_or_else(missing)?;
    let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.command() == name) else {
        return Ok(Asked::Run(Wanted {
            place,
            units: of.get_many("units").unwrap_or_default().cloned().collect(),
            log_dir: path(of, "log-dir"),
            state_dir: path(of, "state-dir"),
            stop_timeout_ms: of.get_one::<Option<u64>>("stop-timeout").copied().flatten(),
            strict: of.get_flag("strict"),
        }));
    };
    let names = of.get_many("names").unwrap_or_default().cloned().collect();
    let json = of.get_flag("json");
    Ok(match verb {
        Verb::Status => Asked::Status { place, names, json },
        Verb::Start | Verb::Stop | Verb::Restart => {
            Asked::Operate { place, verb, names, json, wait: !of.get_flag("no-wait") }
        }
    })
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one(name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, clap::Error> {
        parse(std::iter::once("supervise").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_definition_holds_together() {
        definition().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        let before = parsed("--runtime-dir /r --user restart web --no-wait").unwrap();
        assert_eq!(before, parsed("restart --no-wait web --user --runtime-dir /r").unwrap());
        let place = Place { runtime_dir: Some("/r".into()), user: true };
        let expected = Asked::Operate {
            place,
            verb: Verb::Restart,
            names: vec!["web".into()],
            json: false,
            wait: false,
        };
        assert_eq!(before, expected);
    }

    #[test]
    fn every_verb_is_a_command() {
        for verb in Verb::ALL {
            let asked = parsed(&format!("{} a b-*  --json", verb.command())).unwrap();
            let (names, json) = match asked {
                Asked::Status { names, json, .. } => (names, json),
                Asked::Operate { verb: found, names, json, wait, .. } => {
                    assert!(found == verb && wait);
                    (names, json)
                }
                Asked::Run(_) => panic!("{} runs a supervisor", verb.command()),
            };
            assert!(names == ["a", "b-*"] && json);
        }
        assert!(parsed("status").is_ok());
        for line in ["start", "stop --json", "restart", "status --no-wait", "fly", ""] {
            assert!(parsed(line).unwrap_err().use_stderr(), "{line}");
        }
    }

    #[test]
    fn run_takes_directories_and_a_duration() {
        let asked =
            parsed("run --units a --units b --log-dir l --state-dir s --stop-timeout 9s --strict").unwrap();
        let Asked::Run(wanted) = asked else { panic!("not run") };
        assert_eq!(wanted.units, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((wanted.stop_timeout_ms, wanted.strict), (Some(9_000), true));
        assert!(parsed("run --stop-timeout 9").is_err());
        let Asked::Run(wanted) = parsed("run --stop-timeout off").unwrap() else { panic!("not run") };
        assert_eq!(wanted, Wanted::default());
    }

    #[test]
    fn help_fits_a_screen() {
        let help = definition().render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}
