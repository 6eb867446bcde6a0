//! USER. What goes wrong on the client's side and what the supervisor refuses, in the user's words, with the
//! remedy and the exit status. Never prints a debug form.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::exit::Exit;
use super::text::shown;
use crate::sys::fds;
use crate::wire::control::{Failed, Failure, Refusal};
use crate::wire::varlink::{Answer, Standard};
use crate::wire::verb::{Right, Verb};

/// Something went wrong: what, what to do, and the exit status that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The exit status.
    pub exit: Exit,
    /// Who speaks: a service, or the program where `None`.
    pub about: Option<String>,
    /// What, on one line or more.
    pub text: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl Trouble {
    /// Trouble of the program itself, without a remedy.
    pub fn plain(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, about: None, text: text.into(), hint: None }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// As it is printed.
    pub fn rendered(&self) -> String {
        let about = self.about.as_deref().unwrap_or("supervise");
        let mut text = format!("{about}: {}\n", self.text);
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

/// Prints it to stderr, and gives the exit status.
pub fn tell(trouble: &Trouble) -> ExitCode {
    tell_all(std::slice::from_ref(trouble))
}

/// Prints them all to stderr, and gives the exit status of the first.
pub fn tell_all(troubles: &[Trouble]) -> ExitCode {
    for trouble in troubles {
        // Nobody is left to hear that stderr is closed.
        let _ = io::stderr().write_all(trouble.rendered().as_bytes());
    }
    troubles.first().map_or(Exit::Done, |trouble| trouble.exit).into()
}

/// Prints one line to stderr; that nobody reads it is no reason to stop.
pub fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Prints data to stdout. A reader that has gone (`| head`) is no trouble, a full disk is.
pub fn print(text: &str) -> Result<(), Trouble> {
    match write(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(not_printed(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// An error where stdout was closed from the start: something else may be in its place by now.
pub fn can_print() -> io::Result<()> {
    fds::output_was_open()
}

/// Writes all of it to stdout, at once.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    can_print().and_then(|()| stdout.write_all(bytes)).and_then(|()| stdout.flush())
}

/// Data did not get to stdout.
pub fn not_printed(error: &io::Error) -> Trouble {
    let trouble = Trouble::plain(Exit::Failed, format!("writing to stdout: {}", reason(error)));
    match can_print() {
        Ok(()) => trouble,
        Err(_) => trouble
            .hint("it was closed (`>&-`) when this command began: `>/dev/null` is for what nobody reads"),
    }
}

/// Whether steps are told: only where somebody watches.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// The system's reason as a part of a sentence.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// Nobody listens there.
pub fn absent(control: &Path, why: &str) -> Trouble {
    let text = format!("no supervisor there: `{}`: {why}", shown_path(control));
    Trouble::plain(Exit::NoSupervisor, text).hint(
        "`supervise run` starts one; `--user` asks your own, `--runtime-dir` or `SUPERVISE_RUNTIME_DIR` another",
    )
}

/// This user may not connect.
pub fn denied(control: &Path) -> Trouble {
    let text = format!("not permitted: `{}`: permission denied", shown_path(control));
    Trouble::plain(Exit::NotPermitted, text).hint("ask as root, or `--user` for your own supervisor")
}

/// Somebody listens who is neither root nor this user.
pub fn untrusted(control: &Path, uid: u32) -> Trouble {
    let text = format!(
        "no supervisor there: `{}` belongs to a process of user {uid}, who is neither root nor you",
        shown_path(control)
    );
    Trouble::plain(Exit::NoSupervisor, text)
        .hint("name the runtime directory of the one you mean: `--runtime-dir`")
}

/// A path for a message.
pub fn shown_path(path: &Path) -> String {
    shown(&PathBuf::from(path).to_string_lossy())
}

/// What an error reply of the supervisor means to the user who asked for this with these names; one for each service
/// that failed.
pub fn of_answer(answer: &Answer, verb: Verb, names: &[String]) -> Vec<Trouble> {
    if let Some(refusal) = Refusal::read(answer) {
        return of_refusal(&refusal, verb, names);
    }
    let command = verb.command();
    let older = "it may be older than this program: `supervise status --json` shows its version";
    let trouble = match Standard::read(answer) {
        Some(Standard::InvalidParameter(parameter)) => {
            let text = format!("the supervisor does not take these `{}` for `{command}`", shown(&parameter));
            let names = "names are not empty and at most 128 bytes, at most 1,024 of them, 16 of those globs";
            let trouble = Trouble::plain(Exit::Usage, text);
            if parameter == "names" { trouble.hint(names) } else { trouble.hint(older) }
        }
        Some(Standard::ExpectedMore) => {
            Trouble::plain(Exit::Failed, "the answer is too long to come in one piece")
        }
        Some(
            Standard::InterfaceNotFound(_) | Standard::MethodNotFound(_) | Standard::MethodNotImplemented(_),
        ) => Trouble::plain(Exit::Failed, format!("the supervisor does not know `{command}`")).hint(older),
        None => {
            let name = answer.error.as_deref().unwrap_or("");
            Trouble::plain(Exit::Failed, format!("the supervisor refuses: `{}`", shown(name))).hint(older)
        }
    };
    vec![trouble]
}

fn of_refusal(refusal: &Refusal, verb: Verb, names: &[String]) -> Vec<Trouble> {
    match refusal {
        Refusal::NoSuchService(unknown) => {
            let trouble =
                Trouble::plain(Exit::NoService, format!("no such service `{}`", shown(&unknown.name)));
            let unread =
                |file| format!("`{}` has not been read: units are read when supervise starts", shown(file));
            vec![match (&unknown.file, &unknown.near) {
                (Some(file), _) => trouble.hint(unread(file)),
                (None, Some(near)) => trouble.hint(format!("did you mean `{}`?", shown(near))),
                (None, None) => trouble.hint("`supervise status` lists them all"),
            }]
        }
        Refusal::NotPermitted(right, service) => {
            // Where it is said of none it is so of all that were asked for.
            let which = service.as_ref().map_or(names, std::slice::from_ref).iter();
            let which: String = which.map(|name| format!(" `{}`", shown(name))).collect();
            let text = format!("not permitted to `{}`{which}", verb.command());
            let hint = match right {
                Right::Status | Right::Logs | Right::Control => format!(
                    "ask as root, or let root give you `{}` in the unit's `[access]`; `--user` asks your own supervisor",
                    right.word()
                ),
                Right::Everything => "ask as root; `--user` asks your own supervisor".to_owned(),
            };
            vec![Trouble::plain(Exit::NotPermitted, text).hint(hint)]
        }
        Refusal::Failed(failed) => of_failed(failed),
    }
}

fn of_failed(failed: &Failed) -> Vec<Trouble> {
    std::iter::once(&failed.first).chain(&failed.others).map(of_failure).collect()
}

fn of_failure(failure: &Failure) -> Trouble {
    let mut text = format!("{}:", shown(&failure.step));
    match failure.reason.contains('\n') {
        // Problems of a unit, each with its line and its hint.
        true => failure.reason.lines().for_each(|line| text.extend(["\n  ", &shown(line)])),
        false => text.extend([" ", &shown(&failure.reason)]),
    }
    if let Some(exit) = &failure.exit
        && !failure.reason.contains(&exit.meaning)
    {
        let _ = write!(text, "\n  how it ended: {}", shown(&exit.meaning));
    }
    if !failure.output.is_empty() {
        text.push_str("\n  its last output:");
        for line in &failure.output {
            let _ = write!(text, "\n    {}", shown(line));
        }
    } else if failure.silent {
        text.push_str("\n  it wrote nothing");
    }
    let about = (!failure.service.is_empty()).then(|| shown(&failure.service));
    Trouble { exit: Exit::Failed, about, text, hint: failure.hint.as_deref().map(shown) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Exit as Ended, Reply};
    use crate::wire::names::Unknown;

    fn rendered(reply: &Reply, verb: Verb) -> (String, Exit) {
        let bytes = reply.encode(false);
        let answer = Answer::decode(&bytes[..bytes.len() - 1]).unwrap();
        let troubles = of_answer(&answer, verb, &["web".to_owned(), "db".to_owned()]);
        (troubles.iter().map(Trouble::rendered).collect(), troubles[0].exit)
    }

    #[test]
    fn a_failure_names_service_step_reason_and_remedy() {
        let first = Failure {
            service: "shop".into(),
            step: "changing to the working directory".into(),
            reason: "`/srv/shop`: permission denied".into(),
            hint: Some("give `bagels` the right to enter it".into()),
            exit: Some(Ended { code: Some(200), signal: None, meaning: "exited with status 200".into() }),
            output: vec!["one".into(), "two \u{1b}[31m".into()],
            silent: false,
        };
        let second = Failure {
            service: "db".into(),
            step: "start".into(),
            reason: "no\nnot \u{7}: exit status 3".into(),
            exit: Some(Ended { code: Some(3), signal: None, meaning: "exit status 3".into() }),
            silent: true,
            ..Failure::default()
        };
        let reply = Reply::Refused(Refusal::Failed(Box::new(Failed { first, others: vec![second] })));
        let (text, exit) = rendered(&reply, Verb::Restart);
        let expected = "shop: changing to the working directory: `/srv/shop`: permission denied\n  \
                        how it ended: exited with status 200\n  its last output:\n    one\n    two \\x1b[31m\n\
                        hint: give `bagels` the right to enter it\n\
                        db: start:\n  no\n  not \\x07: exit status 3\n  it wrote nothing\n";
        assert_eq!((text.as_str(), exit), (expected, Exit::Failed));
    }

    #[test]
    fn problems_of_a_unit_keep_their_lines() {
        let first = Failure {
            service: "shop".into(),
            step: "reading its unit".into(),
            reason: "/u/shop.toml:2:1: no\n  2 | x\nhint: \u{1b}[31m".into(),
            hint: Some("mend it".into()),
            ..Failure::default()
        };
        let reply = Reply::Refused(Refusal::Failed(Box::new(Failed { first, others: Vec::new() })));
        let expected =
            "shop: reading its unit:\n  /u/shop.toml:2:1: no\n    2 | x\n  hint: \\x1b[31m\nhint: mend it\n";
        assert_eq!(rendered(&reply, Verb::Start).0, expected);
    }

    #[test]
    fn an_unknown_name_brings_the_nearest() {
        let unknown = |near: Option<&str>| {
            Reply::Refused(Refusal::NoSuchService(Unknown {
                name: "wbe".into(),
                near: near.map(str::to_owned),
                file: None,
            }))
        };
        let (text, exit) = rendered(&unknown(Some("web")), Verb::Stop);
        assert_eq!(text, "supervise: no such service `wbe`\nhint: did you mean `web`?\n");
        assert_eq!(exit, Exit::NoService);
        let (text, _) = rendered(&unknown(None), Verb::Stop);
        assert_eq!(text, "supervise: no such service `wbe`\nhint: `supervise status` lists them all\n");
    }

    #[test]
    fn other_refusals_say_what_to_do() {
        let (text, _) = rendered(&Reply::Refused(Refusal::NotPermitted(Right::Control, None)), Verb::Stop);
        assert!(text.starts_with("supervise: not permitted to `stop` `web` `db`\nhint: "), "{text}");
        let of_one = Refusal::NotPermitted(Right::Control, Some("db".into()));
        let (text, exit) = rendered(&Reply::Refused(of_one), Verb::Stop);
        let expected = "supervise: not permitted to `stop` `db`\nhint: ask as root, or let root give you `control` in \
                        the unit's `[access]`; `--user` asks your own supervisor\n";
        assert_eq!((text.as_str(), exit), (expected, Exit::NotPermitted));
        let unknown = Standard::MethodNotFound("io.supervise.Control.Restart".into());
        let (text, exit) = rendered(&Reply::Standard(unknown), Verb::Restart);
        let expected = "supervise: the supervisor does not know `restart`\nhint: it may be older than this \
                        program: `supervise status --json` shows its version\n";
        assert_eq!((text.as_str(), exit), (expected, Exit::Failed));
        let invalid = Standard::InvalidParameter("names".into());
        assert_eq!(rendered(&Reply::Standard(invalid), Verb::Status).1, Exit::Usage);
    }

    #[test]
    fn the_systems_reason_is_part_of_a_sentence() {
        assert_eq!(reason(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(reason(&io::Error::other("Odd")), "odd");
    }
}
