//! CHILD. Account names to numbers, in a process of its own: name services can hang or pull in anything, so
//! the manager gives this one a few seconds. Never keeps a right: it has no capability.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::sys::{accounts, errno, files, process};
use crate::wire::accounts::{self as said, Answer, Question};

/// For how long one question holds up the others, and how many are asked at the same time at most.
const PATIENCE: Duration = Duration::from_millis(50);
const MOST_AT_ONCE: usize = 32;

/// Seconds after which each of these ends by itself: a manager that has died cannot end it.
const MOST_SECONDS: u32 = 6;

/// Answers each question (an argument as [`Question::encode`] writes it) with a line on standard output. One that hangs
/// does not keep the others from their answers.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    process::end_after(MOST_SECONDS);
    let decoded = arguments.iter().map(|text| text.to_str().and_then(Question::decode));
    let Some(questions) = decoded.collect::<Option<Vec<Question>>>() else { return ExitCode::from(2) };
    let (say, answers) = mpsc::channel();
    let next = AtomicUsize::new(0);
    let asks = || {
        let say = say.clone();
        let (questions, next) = (&questions, &next);
        move || {
            while let Some(question) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
                if say.send((question, answer(question))).is_err() {
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let (mut left, mut asking) = (questions.len(), 0);
        let mut out = std::io::stdout();
        while left > 0 {
            let waits = next.load(Ordering::Relaxed) < questions.len();
            if asking == 0 {
                asking += 1;
                scope.spawn(asks());
            }
            let heard = if waits {
                answers.recv_timeout(PATIENCE)
            } else {
                answers.recv().map_err(RecvTimeoutError::from)
            };
            match heard {
                Ok((question, answer)) => {
                    left -= 1;
                    // Whole lines at once: the manager takes those that came before its deadline.
                    let line = format!("{}\t{}\n", question.encode(), answer.encode());
                    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                        std::process::exit(1); // nobody listens any more, and one that hangs is not waited for
                    }
                }
                Err(_) if asking < MOST_AT_ONCE => {
                    asking += 1;
                    scope.spawn(asks());
                }
                Err(_) => {}
            }
        }
    });
    ExitCode::SUCCESS
}

fn answer(question: &Question) -> Answer {
    let answer = match question {
        Question::User(name) => accounts::user_by_name(name),
        Question::Id(id) => accounts::user_by_id(*id),
        Question::Group(name) => accounts::group(name),
    };
    answer.unwrap_or_else(|error| Answer::Failed(error.to_string()))
}

/// Says where a directory really is, by the rights that it was given: the same answer as that of a file whose content
/// this were. Argument: the directory.
pub fn resolve_main(arguments: Vec<OsString>) -> ExitCode {
    let [path] = arguments.as_slice() else { return ExitCode::from(2) };
    process::end_after(MOST_SECONDS);
    let real = std::fs::canonicalize(path);
    say(real.map(|real| real.into_os_string().into_encoded_bytes()))
}

/// Reads one file with the rights that it was given, and writes to standard output what is in it, or what is wrong.
/// Arguments: the most bytes, and the file.
pub fn read_main(arguments: Vec<OsString>) -> ExitCode {
    let [most, path] = arguments.as_slice() else { return ExitCode::from(2) };
    let Some(most) = most.to_str().and_then(|most| most.parse().ok()) else { return ExitCode::from(2) };
    process::end_after(MOST_SECONDS);
    say(files::read_steady(Path::new(path), most).map(|(bytes, ..)| bytes))
}

fn say(read: std::io::Result<Vec<u8>>) -> ExitCode {
    let answer = said::file(read.map_err(|error| errno::reason(&error)));
    let mut out = std::io::stdout();
    match out.write_all(&answer).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
