//! USER. `supervise exec`: a command in a service's context, with this client's input and output carried to it and
//! back, over pipes or on a terminal. Never gives a descriptor of its own away.

mod terminal;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::ask::{check_size, explained};
use super::connection::{Connection, Fault};
use super::exit::Exit;
use super::trouble::{self, Trouble};
use crate::sys::peer;
use crate::sys::process;
use crate::sys::signals;
use crate::unit::Signal;
use crate::wire::exec::{ExecReply, Terminal};
use crate::wire::request::Request;
use crate::wire::varlink::Answer;
use crate::wire::verb::Verb;
use terminal::Joined;

/// What `exec` exits with where the command did not get to run.
const OURS: u8 = 125;
/// Descriptors that come with the first answer: standard input, output and error of the command.
const ENDS: usize = 3;
/// What is passed on to the command: what a terminal's keys and an ordinary `kill` send.
const PASSED_ON: [i32; 3] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// How long a supervisor that has lost the connection is asked again, and how long between.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Runs it and exits as it does. It gets a terminal where this client has one for input and output, or as `insisted`.
pub fn exec(control: &Path, name: String, argv: Vec<String>, insisted: Option<bool>) -> ExitCode {
    let has_terminal = || io::stdin().is_terminal() && io::stdout().is_terminal();
    let terminal = insisted.unwrap_or_else(has_terminal).then(terminal::here);
    match executed(control, name, argv, terminal) {
        Ok((code, problem)) => {
            // Said when the terminal is as it was.
            if let Some(problem) = problem {
                trouble::say(&format!("supervise: {problem}"));
            }
            ExitCode::from(code)
        }
        Err(troubles) => {
            let _ = trouble::tell_all(&troubles);
            ExitCode::from(OURS)
        }
    }
}

/// The status, and why it did not get to run.
fn executed(
    control: &Path,
    name: String,
    argv: Vec<String>,
    terminal: Option<Terminal>,
) -> Result<(u8, Option<String>), Vec<Trouble>> {
    let fault = |fault: Fault| {
        vec![match fault {
            // Somebody is there.
            Fault::Broken => Trouble::plain(
                Exit::Failed,
                "the supervisor hung up without an answer: what became of the command is not known",
            ),
            fault => explained(control, &fault),
        }]
    };
    has_name(&name, &argv)?;
    let on_terminal = terminal.is_some();
    let call =
        |terminal, resume| Request::Exec { name: name.clone(), argv: argv.clone(), terminal, resume }.call();
    let frame = call(terminal, None).encode();
    let more = "what is more goes to the command by its input or in a file";
    check_size(&frame, "arguments", more).map_err(|trouble| vec![trouble])?;
    let mut connection = reach(control).map_err(fault)?;
    connection.send(&frame).map_err(fault)?;
    let first = answer(&mut connection).map_err(fault)?;
    if first.error.is_some() {
        return Err(trouble::of_answer(&first, Verb::Exec, std::slice::from_ref(&name)));
    }
    let passed = connection.passed();
    let pid = ExecReply::of(first).pid.and_then(|pid| u32::try_from(pid).ok());
    let mut last = || match answer(&mut connection) {
        // Input and output are none of the supervisor's, and the command goes on without it.
        Err(Fault::Broken) => answer_of_another(control, &call(None, pid).encode(), PATIENCE),
        answer => answer,
    };
    let mut unwritten = None;
    let last = if on_terminal {
        // Before the answer is looked at, so that the terminal is put back whatever that is.
        let joined = on_a_terminal(passed)?;
        let last = last();
        joined.part();
        last
    } else {
        let output = on_pipes(passed)?;
        let last = last();
        // What it has written comes to its end with it.
        for carrier in output {
            if let Ok(Err(error)) = carrier.join()
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                unwritten = Some(not_written(&error));
            }
        }
        last
    };
    let last = last.map_err(fault)?;
    if last.error.is_some() {
        return Err(trouble::of_answer(&last, Verb::Exec, std::slice::from_ref(&name)));
    }
    let (code, problem) = told(ExecReply::of(last));
    Ok(match unwritten {
        Some(words) => (OURS, problem.or(Some(words))),
        None => (code, problem),
    })
}

/// The status, and what there is to say of it.
fn told(reply: ExecReply) -> (u8, Option<String>) {
    let unknown = || {
        "how the command ended is not known: the process of supervise that was its parent had died\n\
         hint: look at what it was to do before it is run again"
            .to_owned()
    };
    match reply.exit {
        Some(exit) => (status(&exit), reply.problem),
        None => (OURS, reply.problem.or_else(|| Some(unknown()))),
    }
}

/// Whether there is something to run.
fn has_name(service: &str, argv: &[String]) -> Result<(), Vec<Trouble>> {
    if argv.first().is_none_or(String::is_empty) {
        let text = format!("the command to run in `{}` has no name", super::text::shown(service));
        let hint = "a variable between `--` and it may be empty";
        return Err(vec![Trouble::plain(Exit::Usage, text).hint(hint)]);
    }
    Ok(())
}

/// Why the command's output is not where it was to go.
fn not_written(error: &io::Error) -> String {
    format!("writing the command's output: {}", trouble::reason(error))
}

fn on_a_terminal(passed: Vec<OwnedFd>) -> Result<Joined, Vec<Trouble>> {
    let Some(master) = passed.into_iter().next() else { return Err(nothing_came("no terminal")) };
    terminal::join(master).map_err(|error| {
        let text = format!("making this terminal the command's: {}", trouble::reason(&error));
        vec![Trouble::plain(Exit::Failed, text).hint("`exec -T` runs it with pipes and no terminal")]
    })
}

fn nothing_came(what: &str) -> Vec<Trouble> {
    vec![Trouble::plain(Exit::Failed, format!("the supervisor sent {what} for the command"))]
}

/// What carries one of the command's outputs, until that ends or cannot be written.
type Carrier = JoinHandle<io::Result<()>>;

/// Begins to carry input and output; the two that end with the command's output.
fn on_pipes(mut passed: Vec<OwnedFd>) -> Result<[Carrier; 2], Vec<Trouble>> {
    // It has none where the supervisor had no descriptor left.
    let pidfd = (passed.len() > ENDS).then(|| passed.remove(ENDS));
    let ends: Result<[OwnedFd; ENDS], _> = passed.try_into();
    let Ok([input, output, error]) = ends else { return Err(nothing_came("no input and output")) };
    if let Some(pidfd) = pidfd {
        pass_signals_on(pidfd).map_err(|error| {
            let text = format!("blocking signals: {}", trouble::reason(&error));
            vec![Trouble::plain(Exit::Failed, text)]
        })?;
    }
    // Standard input may never end; it is nobody's business once the command has.
    thread::spawn(move || carry(&mut io::stdin(), &mut File::from(input)));
    let out = thread::spawn(move || carry(&mut File::from(output), &mut Output));
    let err = thread::spawn(move || carry(&mut File::from(error), &mut io::stderr()));
    Ok([out, err])
}

/// Connects; where others crowd before it, it waits for its turn.
fn reach(control: &Path) -> Result<Connection, Fault> {
    let began = Instant::now();
    loop {
        match Connection::open(control, peer::own_uid()) {
            Err(Fault::Busy) if began.elapsed() < PATIENCE => thread::park_timeout(PAUSE),
            reached => return reached,
        }
    }
}

/// The last answer, of the supervisor that has come in place of the one that was asked. That one can be lost as well:
/// `patience` counts from the first failure since there was an answer.
fn answer_of_another(control: &Path, call: &[u8], patience: Duration) -> Result<Answer, Fault> {
    let mut failing: Option<Instant> = None;
    let ask = |failing: &mut Option<Instant>| -> Result<Answer, Fault> {
        let mut connection = Connection::open(control, peer::own_uid())?;
        connection.send(call)?;
        loop {
            let answer = answer(&mut connection)?;
            *failing = None;
            if !answer.continues {
                return Ok(answer);
            }
        }
    };
    loop {
        match ask(&mut failing) {
            Err(Fault::Broken | Fault::Busy | Fault::Absent(_))
                if failing.get_or_insert_with(Instant::now).elapsed() < patience =>
            {
                thread::park_timeout(PAUSE);
            }
            answer => return answer,
        }
    }
}

/// Has a thread pass signals on, but those that this process was started to ignore, as `nohup` and `&` have it. Before
/// any other thread: all of them are to block what that one waits for.
fn pass_signals_on(pidfd: OwnedFd) -> io::Result<()> {
    signals::block(&PASSED_ON)?;
    let mut heard = Vec::new();
    for number in PASSED_ON {
        match signals::default_one(number)? {
            true => signals::ignore(number)?,
            false => heard.push(number),
        }
    }
    if heard.is_empty() {
        return Ok(());
    }
    thread::spawn(move || {
        while let Ok(got) = signals::wait_for(&heard) {
            match process::signal(pidfd.as_fd(), got.signal) {
                // It has ended; the answer is on its way.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => {
                    let reason = trouble::reason(&error);
                    trouble::say(&format!(
                        "supervise: passing signal {} on to the command: {reason}",
                        got.signal
                    ));
                }
                Ok(()) => {}
            }
        }
    });
    Ok(())
}

/// The next answer, however long it takes.
fn answer(connection: &mut Connection) -> Result<Answer, Fault> {
    loop {
        if let Some(answer) = connection.next()? {
            return Ok(answer);
        }
        connection.wait()?;
    }
}

/// The command's own status, or 128 and the signal.
fn status(exit: &crate::wire::control::Exit) -> u8 {
    let number = |name: &str| Signal::named(name).map(Signal::number).or_else(|| name.parse().ok());
    let signal = exit.signal.as_deref().and_then(number).map(|number: i32| 128 + number);
    let code = exit.code.or(signal).unwrap_or(OURS.into());
    u8::try_from(code & 0xff).unwrap_or(OURS)
}

/// Standard output, unless it was closed from the start: a command that says nothing needs none.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        trouble::can_print().and_then(|()| io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Until one side ends; a reader that has gone ends the writer. Errors: those of the writing.
fn carry(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let part = bytes.get(..count).unwrap_or_default();
        to.write_all(part).and_then(|()| to.flush())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::wire::control;

    #[test]
    fn each_supervisor_that_answers_may_be_lost_after_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("control");
        let listener = UnixListener::bind(&control).unwrap();
        let patience = Duration::from_millis(200);
        let supervisors = thread::spawn(move || {
            let replies = [
                &b"{\"parameters\":{\"pid\":1},\"continues\":true}\0"[..],
                &b"{\"parameters\":{\"pid\":1},\"continues\":true}\0"[..],
                &b"{\"parameters\":{\"exit\":{\"code\":7}}}\0"[..],
            ];
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = [0; 64];
                let _ = stream.read(&mut bytes).unwrap();
                stream.write_all(reply).unwrap();
                // It lives for longer than the next may be away.
                let until = Instant::now() + patience * 2;
                while Instant::now() < until {
                    thread::park_timeout(patience);
                }
            }
        });
        let last = answer_of_another(&control, b"{}\0", patience).unwrap();
        assert_eq!(ExecReply::of(last).exit.and_then(|exit| exit.code), Some(7));
        supervisors.join().unwrap();
    }

    #[test]
    fn the_command_decides_the_status() {
        let of = |code: Option<i32>, signal: Option<&str>| {
            status(&control::Exit { code, signal: signal.map(str::to_owned), meaning: String::new() })
        };
        assert_eq!((of(Some(0), None), of(Some(3), None), of(None, Some("TERM"))), (0, 3, 143));
        assert_eq!(of(None, Some("40")), 168, "a real-time signal by its number");
        assert_eq!(of(None, None), OURS);
        // A status of ours is never without words.
        let (code, words) = told(ExecReply::default());
        let words = words.unwrap();
        assert!(code == OURS && words.starts_with("how the command ended is not known: "), "{words}");
        assert!(words.contains("\nhint: "), "{words}");
        let exit = control::Exit { code: Some(4), ..control::Exit::default() };
        assert_eq!(told(ExecReply { exit: Some(exit), ..ExecReply::default() }), (4, None));
    }
}
