//! USER. The options of `init`, read by hand: what runs in each container is not to wait for a command line
//! library, nor to have its pages in memory. Help and manual come of the same table. Never runs anything itself.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::exit::Exit;
use super::text::shown;
use super::trouble::Trouble;
use crate::init::{self, Wanted};
use crate::unit::Signal;

/// An option.
struct Switch {
    long: &'static str,
    short: char,
    /// The name of its value, where it takes one.
    value: Option<&'static str>,
    help: &'static str,
}

/// All of them but `--help`.
const SWITCHES: [Switch; 7] = [
    Switch {
        long: "single-child",
        short: 'c',
        value: None,
        help: "Send signals to the command alone and leave it in this session, instead of all its process group",
    },
    Switch {
        long: "rewrite",
        short: 'r',
        value: Some("FROM:TO"),
        help: "Send another signal on, or none where TO is 0: `TERM:QUIT`, `15:3`, `HUP:0`; repeatable",
    },
    Switch { long: "subreaper", short: 's', value: None, help: "Take in orphans although this is not PID 1" },
    Switch {
        long: "parent-death",
        short: 'p',
        value: Some("SIGNAL"),
        help: "Get this signal, and send it on, when the parent ends",
    },
    Switch {
        long: "expect",
        short: 'e',
        value: Some("STATUS"),
        help: "Exit with 0 when the command ends with this status, as 143; repeatable",
    },
    Switch { long: "warn-on-reap", short: 'w', value: None, help: "Say which orphans are reaped" },
    Switch { long: "verbose", short: 'v', value: None, help: "Say everything that is done" },
];

/// The command for help and manual.
pub fn definition() -> Command {
    let argument = |switch: &Switch| {
        let arg = Arg::new(switch.long).long(switch.long).short(switch.short).help(switch.help);
        match switch.value {
            Some(name) => arg.value_name(name).action(ArgAction::Append),
            None => arg.action(ArgAction::SetTrue),
        }
    };
    Command::new("init")
        .about("Run one command as PID 1 has to: forward signals, reap orphans")
        .long_about(
            "Run one command as PID 1 has to: forward signals, reap orphans, exit with its status.\n\n\
             For containers of one process: `ENTRYPOINT [\"supervise\", \"init\", \"--\"]`. The command gets a session \
             of its own, and the terminal; signals go to all of its process group, TERM also when the command itself \
             has ended. The exit status is the command's, 128 and the number for a signal, 125 where init fails, \
             126 where the command cannot be executed, 127 where there is none.",
        )
        .args(SWITCHES.iter().map(argument))
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .required(true)
                .action(ArgAction::Append)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(OsString))
                .help("The command and its arguments"),
        )
}

/// What was given, where clap has read it since an option of all commands stood before.
pub fn from_matches(matches: &ArgMatches) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    for switch in &SWITCHES {
        match switch.value {
            None if matches.get_flag(switch.long) => words.push(format!("--{}", switch.long).into()),
            None => {}
            Some(_) => {
                let given = matches.get_many::<String>(switch.long).unwrap_or_default();
                words.extend(given.flat_map(|value| [format!("--{}", switch.long).into(), value.into()]));
            }
        }
    }
    words.push("--".into());
    words.extend(matches.get_many::<OsString>("command").unwrap_or_default().cloned());
    words
}

/// All of `supervise init`. None where help is asked for, which is another's.
pub fn main(words: Vec<OsString>) -> Option<ExitCode> {
    match parse(words) {
        Ok(Given::Help) => None,
        Ok(Given::Command(wanted, command)) => Some(init::run(&wanted, command).into()),
        Err(trouble) => {
            super::trouble::tell(&trouble);
            // Not the status of a wrong command line elsewhere: that could be the command's.
            Some(init::FAILED.into())
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Given {
    Help,
    Command(Wanted, Vec<OsString>),
}

/// Reads options up to the first word that is none, or up to `--`.
fn parse(words: Vec<OsString>) -> Result<Given, Trouble> {
    let mut wanted = Wanted::default();
    let mut rest = words.into_iter().peekable();
    while let Some(word) = rest.next_if(|word| word.len() > 1 && word.as_bytes().starts_with(b"-")) {
        let text = word.to_str().ok_or_else(|| unknown(&word))?;
        if text == "--" {
            break;
        } else if let Some(long) = text.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            if name == "help" {
                return Ok(Given::Help);
            }
            let switch = SWITCHES.iter().find(|one| one.long == name).ok_or_else(|| unknown(&word))?;
            if value.is_some() && switch.value.is_none() {
                return Err(wrong(format!("`--{name}` takes no value")));
            }
            take(&mut wanted, switch, value, &mut rest)?;
        } else {
            // Several letters, of which the last may have its value behind it.
            let mut letters = text.get(1..).unwrap_or_default().chars();
            while let Some(letter) = letters.next() {
                if letter == 'h' {
                    return Ok(Given::Help);
                }
                let switch = SWITCHES.iter().find(|one| one.short == letter).ok_or_else(|| unknown(&word))?;
                let behind = letters.as_str();
                let value = (switch.value.is_some() && !behind.is_empty()).then(|| behind.to_owned());
                let is_last = switch.value.is_some();
                take(&mut wanted, switch, value, &mut rest)?;
                if is_last {
                    break;
                }
            }
        }
    }
    let command: Vec<OsString> = rest.collect();
    if command.is_empty() {
        return Err(wrong("no command is given".to_owned()));
    }
    Ok(Given::Command(wanted, command))
}

fn take(
    wanted: &mut Wanted,
    switch: &Switch,
    value: Option<String>,
    rest: &mut impl Iterator<Item = OsString>,
) -> Result<(), Trouble> {
    let value = match (switch.value, value) {
        (None, _) => String::new(),
        (Some(_), Some(value)) => value,
        (Some(name), None) => rest
            .next()
            .and_then(|word| word.into_string().ok())
            .ok_or_else(|| wrong(format!("`--{}` needs a value: {name}", switch.long)))?,
    };
    match switch.short {
        'c' => wanted.single_child = true,
        'r' => wanted.rewrites.push(rewrite(&value)?),
        's' => wanted.subreaper = true,
        'p' => wanted.parent_death = Some(signal(&value).ok_or_else(|| no_signal(&value))?),
        'e' => wanted.as_success.push(
            value
                .parse()
                .map_err(|_| wrong(format!("`{}` is no exit status: those are 0 to 255", shown(&value))))?,
        ),
        'w' => wanted.tell_reaped = true,
        _ => wanted.verbose = true,
    }
    Ok(())
}

/// `FROM:TO`.
fn rewrite(text: &str) -> Result<(i32, i32), Trouble> {
    let (from, to) = text.split_once(':').ok_or_else(|| {
        wrong(format!("`{}` is no rewriting: it needs two signals, FROM:TO", shown(text)))
            .hint("`TERM:QUIT` sends QUIT on for TERM, `HUP:0` drops HUP")
    })?;
    let heard = signal(from).ok_or_else(|| no_signal(from))?;
    let said = if to == "0" { 0 } else { signal(to).ok_or_else(|| no_signal(to))? };
    match heard {
        libc::SIGKILL | libc::SIGSTOP => {
            Err(wrong(format!("`{from}` cannot be rewritten: the kernel lets no process receive it")))
        }
        libc::SIGCHLD => Err(wrong(format!("`{from}` cannot be rewritten: it says that a child has ended"))),
        heard => Ok((heard, said)),
    }
}

/// A signal by name, with or without `SIG`, or by number.
fn signal(text: &str) -> Option<i32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let found = if is_number { Signal::numbered(text.parse().ok()?) } else { Signal::named(text) };
    found.map(Signal::number)
}

fn no_signal(text: &str) -> Trouble {
    wrong(format!("`{}` is no signal", shown(text)))
        .hint("a name as `TERM` or `SIGTERM`, or a number from 1 to 31 or 34 to 64; `kill -l` lists them")
}

fn unknown(word: &OsStr) -> Trouble {
    wrong(format!("unknown option `{}`", shown(&word.to_string_lossy())))
        .hint("`supervise init --help` lists them; options of the command come after its name")
}

fn wrong(text: String) -> Trouble {
    Trouble { about: Some("supervise init".into()), ..Trouble::plain(Exit::Usage, text) }
        .hint("supervise init [OPTIONS] -- COMMAND [ARGUMENTS...]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Given, Trouble> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    fn command(line: &str) -> (Wanted, Vec<String>) {
        match parsed(line).unwrap() {
            Given::Command(wanted, words) => {
                (wanted, words.into_iter().map(|word| word.into_string().unwrap()).collect())
            }
            Given::Help => panic!("{line} is help"),
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let (wanted, words) = command("-cv --rewrite TERM:3 -rHUP:0 --expect=143 -e 0 ls -l --help");
        assert_eq!(words, ["ls", "-l", "--help"]);
        let expected = Wanted {
            single_child: true,
            verbose: true,
            rewrites: vec![(15, 3), (1, 0)],
            as_success: vec![143, 0],
            ..Wanted::default()
        };
        assert_eq!(wanted, expected);
        assert_eq!(command("-w -s -p SIGKILL -- -x --").1, ["-x", "--"]);
        assert_eq!(command("-").1, ["-"]);
        for line in ["-h", "--help", "-ch", "-v --help"] {
            assert_eq!(parsed(line), Ok(Given::Help), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, says) in [
            ("", "no command is given"),
            ("-c --", "no command is given"),
            ("--yolo true", "unknown option `--yolo`"),
            ("-cx true", "unknown option `-cx`"),
            ("--verbose=yes true", "`--verbose` takes no value"),
            ("-r", "`--rewrite` needs a value: FROM:TO"),
            ("-r 15", "`15` is no rewriting: it needs two signals, FROM:TO"),
            ("-r 15::12", "`:12` is no signal"),
            ("-r 1:32", "`32` is no signal"),
            ("-r 0:1", "`0` is no signal"),
            ("-r KILL:TERM", "`KILL` cannot be rewritten: the kernel lets no process receive it"),
            ("-r 17:1", "`17` cannot be rewritten: it says that a child has ended"),
            ("-e 256 true", "`256` is no exit status: those are 0 to 255"),
            ("-p 0 true", "`0` is no signal"),
        ] {
            let trouble = parsed(line).unwrap_err();
            assert_eq!(trouble.text, says, "{line}");
            assert!(trouble.rendered().starts_with("supervise init: ") && trouble.hint.is_some());
        }
    }

    #[test]
    fn clap_reads_the_same() {
        let line = "init -c -r 1:2 --rewrite 3:4 -p TERM -e 1 -- a -b";
        let matches = definition().try_get_matches_from(line.split(' ')).unwrap();
        let by_clap = parse(from_matches(&matches)).unwrap();
        assert_eq!(by_clap, parsed(&line["init ".len()..]).unwrap());
    }
}
