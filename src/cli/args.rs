//! USER. The command line: one definition from which parsing and help come, with the commands of the verb
//! table in it. Never acts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::check::Check;
use super::logs;
use super::place::{Place, Wanted};
use super::span;
use crate::unit::Signal;
use crate::wire::request::MOST_INSTANCES;
use crate::wire::verb::Verb;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Become a supervisor.
    Run(Wanted),
    /// Run one command: the options and words of `init`.
    Init(Vec<OsString>),
    /// How services are.
    Status {
        /// Of which supervisor.
        place: Place,
        /// Names and globs.
        names: Vec<String>,
        /// In which form.
        form: Form,
    },
    /// What happened to services.
    Why {
        /// Of which supervisor.
        place: Place,
        /// Names and globs; all that are not as wanted without.
        names: Vec<String>,
        /// As JSON.
        json: bool,
    },
    /// Do something with services.
    Operate {
        /// Of which supervisor.
        place: Place,
        /// What.
        what: What,
        /// Names and globs.
        names: Vec<String>,
        /// The outcome as JSON.
        json: bool,
        /// Whether to wait for the outcome.
        wait: bool,
    },
    /// Watch services.
    Events {
        /// Of which supervisor.
        place: Place,
        /// Names and globs.
        names: Vec<String>,
        /// As JSON.
        json: bool,
    },
    /// What a service is made of.
    Show {
        /// Of which supervisor.
        place: Place,
        /// Its name.
        name: String,
        /// Its next start, and not its unit.
        exec: bool,
        /// As JSON.
        json: bool,
    },
    /// The schema of unit files.
    Schema,
    /// A command in a service's context.
    Exec {
        /// Which supervisor.
        place: Place,
        /// The service.
        name: String,
        /// The command.
        argv: Vec<String>,
        /// Whether it gets a terminal: with `None` where this client has one.
        terminal: Option<bool>,
    },
    /// Check units before they run.
    Check(Check),
    /// What services have written.
    Logs {
        /// Of which supervisor.
        place: Place,
        /// What of it.
        wanted: logs::Wanted,
    },
    /// What a shell needs to complete a line.
    Completions(clap_complete::Shell),
}

/// In which form a status is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table, or a page of one service.
    Text,
    /// JSON.
    Json,
    /// Names alone.
    Names,
}

/// What is to be done with services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Bring them up.
    Start,
    /// Bring them down.
    Stop {
        /// Keep their sockets.
        hold: bool,
    },
    /// New processes in place of the old ones.
    Restart {
        /// The old ones end first.
        stop_first: bool,
    },
    /// Read the configuration again.
    Reload,
    /// So many instances.
    Scale(u16),
    /// Send a signal.
    Kill {
        /// Its name without SIG.
        signal: String,
        /// To every process.
        all: bool,
    },
}

impl What {
    /// The verb of it.
    pub const fn verb(&self) -> Verb {
        match self {
            Self::Start => Verb::Start,
            Self::Stop { .. } => Verb::Stop,
            Self::Restart { .. } => Verb::Restart,
            Self::Reload => Verb::Reload,
            Self::Scale(_) => Verb::Scale,
            Self::Kill { .. } => Verb::Kill,
        }
    }
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
        .subcommand(super::init::definition())
        .subcommand(command(Verb::Status))
        .subcommand(why())
        .subcommands(Verb::ALL.into_iter().filter(|verb| *verb != Verb::Status).map(command))
        .subcommand(check())
        .subcommand(super::completions::command())
        .after_help(
            "More commands: reload, scale, kill, events, show, exec, completions\n\
             NAME may be a glob: 'bagels-*'. `supervise COMMAND --help` tells more.",
        )
}

fn why() -> Command {
    Command::new("why")
        .about("Tell what happened to services, and what to do")
        .long_about(
            "Tell what happened to services, and what to do.\n\n\
             How it ended last and what that means, the ends before, when it starts again, its last lines of output and \
             the next step. Without NAME about every service that is not as wanted.",
        )
        .arg(Arg::new("names").value_name("NAME").action(ArgAction::Append).help("Services"))
        .arg(flag("json", "Print the supervisor's reply as JSON"))
}

fn check() -> Command {
    Command::new("check")
        .about("Check units, and the accounts, programs and ports that they name")
        .long_about(
            "Check units, and the accounts, programs and ports that they name.\n\n\
             Changes nothing and needs no root: what only root could see is said to be not checked. Without PATH the \
             units of the system's supervisor, with `--user` your own. All problems of all files come at once. Exits \
             with 3 when there are any.",
        )
        .arg(
            Arg::new("paths")
                .value_name("PATH")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("Files of units, or directories with such"),
        )
        .arg(flag("offline", "Check the text alone and not this machine, as in a build"))
        .arg(flag("deny-warnings", "Exit with 3 for warnings as well"))
        .arg(flag("json", "Print everything as JSON"))
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
            Arg::new("ready-fd")
                .long("ready-fd")
                .value_name("FD")
                .value_parser(value_parser!(i32).range(3..))
                .help("Write a line to this descriptor when sockets are bound and commands are answered, as s6 wants"),
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
    let services = names.clone().required(true).help("Services");
    let json = flag("json", "Print the outcome as JSON");
    let no_wait = flag("no-wait", "Do not wait for the outcome");
    let command = Command::new(verb.command()).about(verb.about()).long_about(format!(
        "{}.\n\n{}",
        verb.about(),
        verb.details()
    ));
    match verb {
        Verb::Status => command
            .arg(names.help("Services; all of them without"))
            .arg(json.help("Print the supervisor's reply as JSON"))
            .arg(flag("names", "Print names alone, one a line").id("only-names").conflicts_with("json")),
        Verb::Start => command.arg(services).args([no_wait, json]),
        Verb::Stop => command.arg(services).arg(flag("hold", "Keep the sockets open")).args([no_wait, json]),
        Verb::Restart => command
            .arg(services)
            .arg(flag("stop-first", "End the old processes before the new ones start"))
            .args([no_wait, json]),
        Verb::Reload => command.hide(true).arg(services).args([no_wait, json]),
        Verb::Scale => command
            .hide(true)
            .arg(Arg::new("names").value_name("NAME").required(true).help("The service"))
            .arg(
                Arg::new("instances")
                    .value_name("N")
                    .required(true)
                    .allow_negative_numbers(true)
                    .value_parser(value_parser!(u16).range(0..=i64::from(MOST_INSTANCES)))
                    .help("How many instances, 0 to 1024"),
            )
            .args([no_wait, json]),
        Verb::Kill => command
            .hide(true)
            .arg(
                Arg::new("signal")
                    .short('s')
                    .long("signal")
                    .value_name("SIGNAL")
                    .default_value("TERM")
                    .allow_negative_numbers(true)
                    .value_parser(signal)
                    .help("Which: `HUP`, `SIGHUP`, `hup`, `1`, `RTMIN+3`"),
            )
            .arg(flag("all", "To every process of the service, not to its main process alone"))
            .args([services, json]),
        Verb::Events => command
            .hide(true)
            .arg(names.help("Services; all of them without"))
            .arg(json.help("Print one JSON object a line")),
        Verb::Logs => log_options(command).arg(names.help("Services; all of them without")),
        Verb::Show => command
            .hide(true)
            .arg(Arg::new("names").value_name("NAME").required_unless_present("schema").help("The service"))
            .arg(flag("exec", "Show the plan of its next start"))
            .arg(flag("schema", "Print the JSON Schema of unit files").exclusive(true))
            .arg(json.help("Print the supervisor's reply as JSON")),
        Verb::Exec => command
            .hide(true)
            .arg(Arg::new("names").value_name("NAME").required(true).help("The service"))
            .arg(flag("tty", "Give it a terminal, even where input or output here is none").short('t'))
            .arg(flag("no-tty", "Give it pipes, even on a terminal").short('T').overrides_with("tty"))
            .arg(Arg::new("argv").value_name("CMD").required(true).last(true).num_args(1..).help(
                "The command and its arguments; without a slash it is looked up in the service's PATH",
            )),
    }
}

fn log_options(command: Command) -> Command {
    let time = |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("T").help(help);
    command
        .arg(flag("follow", "Go on with what is written from now on").short('f'))
        .arg(
            Arg::new("lines")
                .short('n')
                .long("lines")
                .value_name("N")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(usize))
                .help("At most so many, the last ones"),
        )
        .arg(time("since", "Nothing from before: `02:10`, `10min ago`, RFC 3339"))
        .arg(time("until", "Nothing from after"))
        .arg(flag("utc", "Times in UTC"))
        .arg(flag("raw", "The bytes that the service wrote, and nothing else").conflicts_with("json"))
        .arg(flag("json", "Print one JSON object a line"))
        .arg(
            Arg::new("log-dir")
                .long("log-dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Where the files are if there is no supervisor [SUPERVISE_LOG_DIR]"),
        )
}

fn of_logs(names: Vec<String>, of: &ArgMatches) -> logs::Wanted {
    logs::Wanted {
        names,
        follow: of.get_flag("follow"),
        last: of.get_one("lines").copied(),
        since: of.get_one("since").cloned(),
        until: of.get_one("until").cloned(),
        raw: of.get_flag("raw"),
        json: of.get_flag("json"),
        utc: of.get_flag("utc"),
        log_dir: path(of, "log-dir"),
    }
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// A signal as people write it, to its name without SIG.
fn signal(text: &str) -> Result<String, String> {
    let named = || Signal::named(&text.to_ascii_uppercase());
    let numbered = || text.parse().ok().and_then(Signal::numbered);
    let found = named().or_else(numbered).map(|signal| signal.to_string());
    found.ok_or_else(|| "no signal of that name; `kill -l` lists them".to_owned())
}

/// Reads the command line. Errors: what clap says, help and version among them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let matches = definition().try_get_matches_from(args)?;
    let place = Place { runtime_dir: path(&matches, "runtime-dir"), user: matches.get_flag("user") };
    let missing = || definition().error(clap::error::ErrorKind::MissingSubcommand, "no command is given");
    let (name, of) = matches.subcommand().ok_or_else(missing)?;
    match Verb::ALL.into_iter().find(|verb| verb.command() == name) {
        Some(verb) => Ok(of_verb(verb, place, of)),
        None if name == "completions" => {
            let shell = of.get_one::<String>("shell").and_then(|shell| shell.parse().ok());
            shell.map(Asked::Completions).ok_or_else(missing)
        }
        None if name == "init" => Ok(Asked::Init(super::init::from_matches(of))),
        None if name == "why" => {
            let names = of.get_many("names").unwrap_or_default().cloned().collect();
            Ok(Asked::Why { place, names, json: of.get_flag("json") })
        }
        None if name == "check" => Ok(Asked::Check(Check {
            paths: of.get_many("paths").unwrap_or_default().cloned().collect(),
            offline: of.get_flag("offline"),
            deny_warnings: of.get_flag("deny-warnings"),
            json: of.get_flag("json"),
            wanted: Wanted { place, ..Wanted::default() },
        })),
        None => Ok(Asked::Run(Wanted {
            place,
            units: of.get_many("units").unwrap_or_default().cloned().collect(),
            log_dir: path(of, "log-dir"),
            state_dir: path(of, "state-dir"),
            stop_timeout: of.get_one::<Option<u64>>("stop-timeout").copied(),
            ready_fd: of.get_one("ready-fd").copied(),
            strict: of.get_flag("strict"),
        })),
    }
}

fn of_verb(verb: Verb, place: Place, of: &ArgMatches) -> Asked {
    let names: Vec<String> = of.get_many("names").unwrap_or_default().cloned().collect();
    if verb == Verb::Exec {
        let name = names.into_iter().next().unwrap_or_default();
        let argv = of.get_many("argv").unwrap_or_default().cloned().collect();
        let terminal = match (of.get_flag("tty"), of.get_flag("no-tty")) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        };
        return Asked::Exec { place, name, argv, terminal };
    }
    let json = of.get_flag("json");
    let what = match verb {
        Verb::Status => {
            let form = match (json, of.get_flag("only-names")) {
                (true, _) => Form::Json,
                (false, true) => Form::Names,
                (false, false) => Form::Text,
            };
            return Asked::Status { place, names, form };
        }
        Verb::Events => return Asked::Events { place, names, json },
        Verb::Logs => return Asked::Logs { place, wanted: of_logs(names, of) },
        Verb::Show if of.get_flag("schema") => return Asked::Schema,
        Verb::Show => {
            let name = names.into_iter().next().unwrap_or_default();
            return Asked::Show { place, name, exec: of.get_flag("exec"), json };
        }
        Verb::Start | Verb::Exec => What::Start, // the second is not for here
        Verb::Stop => What::Stop { hold: of.get_flag("hold") },
        Verb::Restart => What::Restart { stop_first: of.get_flag("stop-first") },
        Verb::Reload => What::Reload,
        Verb::Scale => What::Scale(of.get_one("instances").copied().unwrap_or(1)),
        Verb::Kill => What::Kill {
            signal: of.get_one::<String>("signal").cloned().unwrap_or_default(),
            all: of.get_flag("all"),
        },
    };
    // What a signal does is not waited for: there is no telling what it is to do.
    let wait = verb == Verb::Kill || !of.get_flag("no-wait");
    Asked::Operate { place, what, names, json, wait }
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
        let what = What::Restart { stop_first: false };
        let names = vec!["web".into()];
        assert_eq!(before, Asked::Operate { place, what, names, json: false, wait: false });
    }

    #[test]
    fn every_verb_is_a_command() {
        for verb in Verb::ALL.into_iter().filter(|verb| *verb != Verb::Exec) {
            let besides = if verb == Verb::Scale { " 2" } else { "" };
            let asked = parsed(&format!("{} b-*{besides} --json", verb.command())).unwrap();
            let (names, json) = match asked {
                Asked::Status { names, form, .. } => (names, form == Form::Json),
                Asked::Events { names, json, .. } => (names, json),
                Asked::Show { name, json, .. } => (vec![name], json),
                Asked::Logs { wanted, .. } => (wanted.names, wanted.json),
                Asked::Operate { what, names, json, wait, .. } => {
                    assert!(what.verb() == verb && wait);
                    (names, json)
                }
                Asked::Exec { .. }
                | Asked::Run(_)
                | Asked::Why { .. }
                | Asked::Schema
                | Asked::Init(_)
                | Asked::Check(_)
                | Asked::Completions(_) => {
                    panic!("{} is another command", verb.command())
                }
            };
            assert!(names == ["b-*"] && json, "{}", verb.command());
        }
        assert!(parsed("status").is_ok() && parsed("events").is_ok());
        let exec = Asked::Exec {
            place: Place::default(),
            name: "web".into(),
            argv: vec!["ls".into(), "--json".into(), "--".into()],
            terminal: None,
        };
        assert_eq!(parsed("exec web -- ls --json --").unwrap(), exec);
        assert!(parsed("exec web").is_err() && parsed("exec -- ls").is_err());
        let lines = [
            "start",
            "stop --json",
            "restart",
            "reload",
            "scale web",
            "scale web 1025",
            "scale web x",
            "kill",
            "kill -s FLY web",
            "kill -s 32 web",
            "show",
            "show a b",
            "show --schema a",
            "status --no-wait",
            "status --names --json",
            "completions",
            "completions csh",
            "fly",
            "",
        ];
        for line in lines {
            assert!(parsed(line).unwrap_err().use_stderr(), "{line}");
        }
    }

    #[test]
    fn what_is_to_be_done_is_read_with_its_manner() {
        let what = |line: &str| match parsed(line) {
            Ok(Asked::Operate { what, .. }) => what,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(what("stop web --hold"), What::Stop { hold: true });
        assert_eq!(what("restart --stop-first web"), What::Restart { stop_first: true });
        assert_eq!(what("scale web 3"), What::Scale(3));
        assert_eq!(what("scale web 0"), What::Scale(0));
        let kill = |signal: &str, all| What::Kill { signal: signal.into(), all };
        for (line, expected) in [
            ("kill web", kill("TERM", false)),
            ("kill -s HUP web", kill("HUP", false)),
            ("kill -s sigusr1 --all web", kill("USR1", true)),
            ("kill --signal 1 a b", kill("HUP", false)),
            ("kill -sRTMIN+3 web", kill("RTMIN+3", false)),
        ] {
            assert_eq!(what(line), expected, "{line}");
        }
    }

    #[test]
    fn run_takes_directories_and_a_duration() {
        let asked = parsed(
            "run --units a --units b --log-dir l --state-dir s --stop-timeout 9s --strict --ready-fd 4",
        )
        .unwrap();
        let Asked::Run(wanted) = asked else { panic!("not run") };
        assert_eq!(wanted.units, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!((wanted.stop_timeout, wanted.strict), (Some(Some(9_000)), true));
        assert_eq!(wanted.ready_fd, Some(4));
        assert!(parsed("run --stop-timeout 9").is_err() && parsed("run --ready-fd 2").is_err());
        let Asked::Run(wanted) = parsed("run --stop-timeout off").unwrap() else { panic!("not run") };
        assert_eq!(wanted, Wanted { stop_timeout: Some(None), ..Wanted::default() });
    }

    #[test]
    fn help_fits_a_screen() {
        let help = definition().render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
}
