//! USER. `supervise events`: a line for each change of a service, until Ctrl-C. Never hides that some were missed.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::ask::{Ending, Event as News, ask_while};
use super::exit::Exit;
use super::text::{self, shown};
use super::trouble;
use crate::wire::control::{Event, EventReply};
use crate::wire::request::Request;
use crate::wire::varlink::Answer;
use crate::wire::verb::Verb;

/// Asks, and prints until Ctrl-C or until nobody reads.
pub fn watch(control: &Path, names: Vec<String>, json: bool) -> ExitCode {
    let mut broken = None;
    let request = Request::Events { names: names.clone() };
    let ending = ask_while(control, &request, false, &mut |news| {
        let text = match news {
            News::Answer(answer) => told(answer.parameters, json),
            // As JSON it is seen by the reply without an event that comes next.
            News::Again if !json => {
                "-- the supervisor began anew: changes may be missing here --\n".to_owned()
            }
            News::Again | News::Silent | News::Passed(_) => String::new(),
        };
        match trouble::write(text.as_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    match (broken, ending) {
        // A reader that has gone is no trouble.
        (Some(error), _) if error.kind() == ErrorKind::BrokenPipe => Exit::Done.into(),
        (Some(error), _) => trouble::tell(&trouble::not_printed(&error)),
        (None, Ok(Ending::Last(answer @ Answer { error: Some(_), .. }))) => {
            trouble::tell_all(&trouble::of_answer(&answer, Verb::Events, &names))
        }
        (None, Ok(Ending::Last(answer))) => match trouble::print(&told(answer.parameters, json)) {
            Ok(()) => Exit::Done.into(),
            Err(trouble) => trouble::tell(&trouble),
        },
        (None, Ok(Ending::Detached)) => Exit::Done.into(),
        (None, Err(trouble)) => trouble::tell(&trouble),
    }
}

fn told(parameters: Value, json: bool) -> String {
    if json { text::json(&format!("{parameters}\n")) } else { lines(parameters) }
}

/// What a reply says, for people.
fn lines(parameters: Value) -> String {
    let reply: EventReply = serde_json::from_value(parameters).unwrap_or_default();
    let mut text = match reply.missed {
        0 => String::new(),
        1 => "-- 1 change is missing here: this reader was too slow --\n".to_owned(),
        missed => format!("-- {missed} changes are missing here: this reader was too slow --\n"),
    };
    if let Some(event) = reply.event {
        text += &line(&event);
    }
    text
}

fn line(event: &Event) -> String {
    let mut text = format!("{} {}: ", shown(&event.at), shown(&event.service));
    if event.was != event.state {
        text += &format!("{} -> ", event.was.word());
    }
    text += event.state.word();
    if let Some(pid) = event.pid {
        text += &format!(", pid {pid}");
    }
    if let Some(exit) = &event.exit {
        text += &format!(", {}", shown(&exit.meaning));
    }
    if let Some(said) = &event.text {
        text += &format!(", {}", shown(said));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Exit as Ended, State};

    #[test]
    fn a_line_tells_what_changed() {
        let event = Event {
            at: "2026-11-23T03:12:45.123Z".into(),
            service: "web".into(),
            was: State::Starting,
            state: State::Running,
            generation: 1,
            pid: Some(7),
            exit: None,
            text: Some("up\u{1b}".into()),
        };
        assert_eq!(line(&event), "2026-11-23T03:12:45.123Z web: starting -> running, pid 7, up\\x1b\n");
        let ended = Ended { code: Some(1), signal: None, meaning: "exit status 1".into() };
        let event = Event {
            was: State::BackingOff,
            state: State::BackingOff,
            pid: None,
            exit: Some(ended),
            text: None,
            ..event
        };
        assert_eq!(line(&event), "2026-11-23T03:12:45.123Z web: backing-off, exit status 1\n");
    }

    #[test]
    fn what_is_missing_is_said() {
        let reply = |missed| serde_json::json!({ "event": null, "missed": missed });
        assert_eq!(lines(reply(0)), "");
        assert_eq!(lines(reply(2)), "-- 2 changes are missing here: this reader was too slow --\n");
    }
}
