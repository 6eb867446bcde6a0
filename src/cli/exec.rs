//! USER. `supervise exec`: a command in a service's context, with this terminal's input and output carried to it and
//! back. Never gives a descriptor of its own away.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use super::ask::explained;
use super::connection::{Connection, Fault};
use super::exit::Exit;
use super::trouble::{self, Trouble};
use crate::sys::peer;
use crate::sys::process;
use crate::sys::signals;
use crate::unit::Signal;
use crate::wire::exec::ExecReply;
use crate::wire::request::Request;
use crate::wire::varlink::Answer;
use crate::wire::verb::Verb;

/// What `exec` exits with where the command did not get to run.
const OURS: u8 = 125;
/// Descriptors that come with the first answer: standard input, output and error of the command.
const ENDS: usize = 3;
/// What is passed on to the command: what a terminal's keys and an ordinary `kill` send.
const PASSED_ON: [i32; 3] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Runs it and exits as it does.
pub fn exec(control: &Path, name: String, argv: Vec<String>) -> ExitCode {
    match executed(control, name, argv) {
        Ok(code) => ExitCode::from(code),
        Err(troubles) => {
            let _ = trouble::tell_all(&troubles);
            ExitCode::from(OURS)
        }
    }
}

fn executed(control: &Path, name: String, argv: Vec<String>) -> Result<u8, Vec<Trouble>> {
    let fault = |fault: Fault| vec![explained(control, &fault)];
    let mut connection = Connection::open(control, peer::own_uid()).map_err(fault)?;
    connection.send(&Request::Exec { name, argv }.call().encode()).map_err(fault)?;
    let first = answer(&mut connection).map_err(fault)?;
    if first.error.is_some() {
        return Err(trouble::of_answer(&first, Verb::Exec));
    }
    let mut passed = connection.passed();
    // A supervisor from before signals were passed on sends none.
    let pidfd = (passed.len() > ENDS).then(|| passed.remove(ENDS));
    let ends: Result<[OwnedFd; ENDS], _> = passed.try_into();
    let Ok([input, output, error]) = ends else {
        return Err(vec![Trouble::plain(
            Exit::Failed,
            "the supervisor sent no input and output for the command",
        )]);
    };
    if let Some(pidfd) = pidfd {
        pass_signals_on(pidfd).map_err(|error| fault(Fault::Other("blocking signals", error)))?;
    }
    // Standard input may never end; it is nobody's business once the command has.
    thread::spawn(move || carry(&mut io::stdin(), &mut File::from(input)));
    let out = thread::spawn(move || carry(&mut File::from(output), &mut io::stdout()));
    let err = thread::spawn(move || carry(&mut File::from(error), &mut io::stderr()));
    let last = answer(&mut connection).map_err(fault)?;
    // What it has written comes to its end with it.
    let _ = (out.join(), err.join());
    let reply: ExecReply = serde_json::from_value(last.parameters).unwrap_or_default();
    if let Some(problem) = reply.problem {
        eprintln!("supervise: {problem}");
    }
    Ok(status(&reply.exit.unwrap_or_default()))
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
                    eprintln!(
                        "supervise: passing signal {} on to the command: {}",
                        got.signal,
                        trouble::reason(&error)
                    );
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

/// Until one side ends; a reader that has gone ends the writer.
fn carry(from: &mut impl io::Read, to: &mut impl Write) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let part = bytes.get(..count).unwrap_or_default();
        if to.write_all(part).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control;

    #[test]
    fn the_command_decides_the_status() {
        let of = |code: Option<i32>, signal: Option<&str>| {
            status(&control::Exit { code, signal: signal.map(str::to_owned), meaning: String::new() })
        };
        assert_eq!((of(Some(0), None), of(Some(3), None), of(None, Some("TERM"))), (0, 3, 143));
        assert_eq!(of(None, Some("40")), 168, "a real-time signal by its number");
        assert_eq!(of(None, None), OURS);
    }
}
