//! USER. `supervise status`: a table, everything about one service, or JSON; and the exit status that says
//! whether all is as wanted.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::Form;
use super::ask::{Ending, Event, ask};
use super::exit::Exit;
use super::text::{self, Paint};
use super::trouble::{self, Trouble};
use super::{page, processes, table};
use crate::wire::control::{Service, StatusReply};
use crate::wire::names::is_glob;
use crate::wire::request::Request;
use crate::wire::varlink::Answer;
use crate::wire::verb::Verb;

/// The most names in a line.
const MOST_CHANGED: usize = 8;

/// Asks and prints.
pub fn show(control: &Path, names: Vec<String>, form: Form) -> ExitCode {
    match shown(control, names, form) {
        Ok(exit) => exit.into(),
        Err(troubles) => trouble::tell_all(&troubles),
    }
}

fn shown(control: &Path, names: Vec<String>, form: Form) -> Result<Exit, Vec<Trouble>> {
    let as_json = form == Form::Json;
    let named = !names.is_empty();
    let one = matches!(&names[..], [name] if !is_glob(name));
    let merged = asked(control, names, one && form == Form::Text, as_json)?;
    let print = |text: &str| trouble::print(text).map_err(|trouble| vec![trouble]);
    if as_json {
        print(&pretty(&merged))?;
    }
    let reply = read(merged)?;
    if form == Form::Names {
        let names: String =
            reply.services.iter().map(|one| format!("{}\n", text::shown(&one.name))).collect();
        print(&names)?;
        return Ok(Exit::Done);
    }
    if !as_json {
        let (paint, now) = (Paint::for_stdout(), jiff::Timestamp::now().as_second());
        match &reply.services[..] {
            [service] if one => print(&page::page(service, now, paint, &processes::look))?,
            services => {
                print(&table::table(services, now, paint))?;
                if let Some(line) = changed(services) {
                    trouble::say(&line);
                }
            }
        }
    }
    let as_wanted = reply.services.iter().all(|service| service.state.is_as_wanted());
    Ok(if named && !as_wanted { Exit::NotAsWanted } else { Exit::Done })
}

/// The supervisor's answer, its parts put together. An error of it is printed as it came where `as_json`.
pub fn asked(control: &Path, names: Vec<String>, detail: bool, as_json: bool) -> Result<Value, Vec<Trouble>> {
    let mut parts: Vec<Value> = Vec::new();
    let request = Request::Status { names: names.clone(), detail };
    let ending = ask(control, &request, false, &mut |event| match event {
        Event::Answer(answer) => parts.push(answer.parameters),
        Event::Again => parts.clear(),
        Event::Passed(_) => {}
        Event::Silent => {
            if trouble::is_watched() {
                trouble::say("waiting for the supervisor");
            }
        }
    });
    match ending.map_err(|trouble| vec![trouble])? {
        Ending::Last(Answer { error: None, parameters, .. }) => parts.push(parameters),
        Ending::Last(answer) => {
            if as_json {
                print_json(&answer).map_err(|trouble| vec![trouble])?;
            }
            return Err(trouble::of_answer(&answer, Verb::Status, &names));
        }
        // Nobody can: Ctrl-C ends this process.
        Ending::Detached => {}
    }
    Ok(merged(parts))
}

/// The answer's fields, as far as they are known here.
pub fn read(merged: Value) -> Result<StatusReply, Vec<Trouble>> {
    let unreadable = |_| {
        let trouble = Trouble::plain(Exit::Failed, "the supervisor's reply cannot be understood");
        vec![
            trouble.hint("it may be of another version: `supervise status --json` prints the reply as it is"),
        ]
    };
    serde_json::from_value(merged).map_err(unreadable)
}

/// That files of units are not what they were, in one line.
fn changed(services: &[Service]) -> Option<String> {
    let names: Vec<String> = services
        .iter()
        .filter(|service| !service.changed.is_empty())
        .map(|service| format!("`{}`", text::shown(&service.name)))
        .collect();
    let more = names.len().saturating_sub(MOST_CHANGED);
    let listed = names.get(..names.len().min(MOST_CHANGED)).unwrap_or_default().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| {
        format!("unit files have changed since they were read: {listed}{more}; supervise reads them when it starts")
    })
}

/// The parts of a stream as the one reply they are parts of; what a newer supervisor adds to it stays.
fn merged(parts: Vec<Value>) -> Value {
    let mut whole = json!({ "supervisor": null, "services": [] });
    for part in parts {
        let Value::Object(fields) = part else { continue };
        for (key, value) in fields {
            match (whole.get_mut(&key), value) {
                (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
                (_, Value::Null) => {}
                (Some(place), value) => *place = value,
                (None, value) => {
                    if let Value::Object(whole) = &mut whole {
                        whole.insert(key, value);
                    }
                }
            }
        }
    }
    whole
}

/// JSON for people and programs, safe for a terminal.
pub fn pretty(value: &Value) -> String {
    text::json(&format!("{value:#}\n"))
}

/// An error reply, as it came.
pub fn print_json(answer: &Answer) -> Result<(), Trouble> {
    trouble::print(&pretty(&json!({ "error": answer.error, "parameters": answer.parameters })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_files_are_one_line_however_many() {
        let of = |count: usize| -> Vec<Service> {
            let one = |number| Service {
                name: format!("s{number}"),
                changed: vec!["/u".into()],
                ..Service::default()
            };
            std::iter::once(Service::default()).chain((1..=count).map(one)).collect()
        };
        let said = |names: &str| {
            Some(format!(
                "unit files have changed since they were read: {names}; supervise reads them when it starts"
            ))
        };
        assert_eq!(changed(&of(0)), None);
        assert_eq!(changed(&of(2)), said("`s1`, `s2`"));
        assert_eq!(changed(&of(9)), said("`s1`, `s2`, `s3`, `s4`, `s5`, `s6`, `s7`, `s8` and 1 more"));
    }

    #[test]
    fn the_parts_of_a_stream_become_one_reply() {
        let parts = vec![
            json!({ "supervisor": { "pid": 1 }, "services": [] }),
            json!({ "services": [{ "name": "a" }], "later": 1 }),
            json!({ "supervisor": null, "services": [{ "name": "b" }] }),
        ];
        let expected = json!({
            "supervisor": { "pid": 1 }, "services": [{ "name": "a" }, { "name": "b" }], "later": 1
        });
        assert_eq!(merged(parts), expected);
        assert_eq!(merged(vec![]), json!({ "supervisor": null, "services": [] }));
    }
}
