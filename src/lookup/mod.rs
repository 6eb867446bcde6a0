//! CHILD. Account names to numbers, in a process of its own: name services can hang or pull in anything, so
//! the manager waits for this one with a deadline. Never keeps a right: it has no capability.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::sys::{accounts, errno, files};
use crate::wire::accounts::{Answer, Question};

/// Answers each question (an argument as [`Question::encode`] writes it) with a line on standard output.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut out = std::io::stdout();
    for argument in arguments {
        let Some(question) = argument.to_str().and_then(Question::decode) else { return ExitCode::from(2) };
        let answer = match &question {
            Question::User(name) => accounts::user_by_name(name),
            Question::Id(id) => accounts::user_by_id(*id),
            Question::Group(name) => accounts::group(name),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failed(error.to_string()));
        // Whole lines at once: the manager takes those that came before its deadline.
        let line = format!("{}\t{}\n", question.encode(), answer.encode());
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Reads one file with the rights that it was given, and writes it to standard output behind an `o`; or what is wrong
/// behind an `e`. Arguments: the most bytes, and the file.
pub fn read_main(arguments: Vec<OsString>) -> ExitCode {
    let [most, path] = arguments.as_slice() else { return ExitCode::from(2) };
    let Some(most) = most.to_str().and_then(|most| most.parse().ok()) else { return ExitCode::from(2) };
    let mut answer = Vec::new();
    match files::read_steady(Path::new(path), most) {
        Ok((bytes, ..)) => {
            answer.push(b'o');
            answer.extend(bytes);
        }
        Err(error) => {
            answer.push(b'e');
            answer.extend(errno::reason(&error).bytes());
        }
    }
    let mut out = std::io::stdout();
    match out.write_all(&answer).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
