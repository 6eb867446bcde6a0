//! USER. `supervise start`, `stop`, `restart`, `reload`, `scale` and `kill`: asks, tells the steps where somebody watches, waits for the
//! outcome and exits by it. Never cancels what was begun.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::args::What;
use super::ask::{Ending, Event, ask};
use super::exit::Exit;
use super::status::{pretty, print_json};
use super::text::shown;
use super::trouble::{self, Trouble, reason};
use crate::wire::control::OperationReply;
use crate::wire::request::{OperationId, Order, Request};
use crate::wire::varlink::Answer;

/// Asks for it and waits.
pub fn carry_out(control: &Path, what: &What, names: Vec<String>, json: bool, wait: bool) -> ExitCode {
    match carried_out(control, what, names, json, wait) {
        Ok(exit) => exit.into(),
        Err(troubles) => trouble::tell_all(&troubles),
    }
}

fn carried_out(
    control: &Path,
    what: &What,
    names: Vec<String>,
    json: bool,
    wait: bool,
) -> Result<Exit, Vec<Trouble>> {
    let operation = fresh_id().map_err(|error| {
        vec![Trouble::plain(Exit::Failed, format!("drawing a random number: {}", reason(&error)))]
    })?;
    let watched = trouble::is_watched();
    let said = names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(" ");
    let verb = what.verb();
    let order = Order { names: names.clone(), operation, wait };
    let request = match what.clone() {
        What::Start => Request::Start(order),
        What::Stop { hold } => Request::Stop { order, hold },
        What::Restart { stop_first } => Request::Restart { order, stop_first },
        What::Reload => Request::Reload(order),
        What::Scale(instances) => Request::Scale { order, instances },
        What::Kill { signal, all } => Request::Kill { names: order.names, signal, all },
    };
    let ending = ask(control, &request, true, &mut |event| {
        if watched {
            told(event);
        }
    });
    match ending.map_err(|trouble| vec![trouble])? {
        Ending::Last(Answer { error: None, parameters, .. }) => {
            outcome(parameters, json, watched).map_err(|trouble| vec![trouble])?;
            Ok(Exit::Done)
        }
        Ending::Last(answer) => {
            if json {
                print_json(&answer).map_err(|trouble| vec![trouble])?;
            }
            Err(trouble::of_answer(&answer, verb, &names))
        }
        Ending::Detached => {
            let command = verb.command();
            trouble::say(&format!(
                "detached: `{command} {said}` goes on; `supervise status {said}` shows how"
            ));
            Ok(Exit::Detached)
        }
    }
}

/// A step, for someone who watches.
fn told(event: Event) {
    match event {
        Event::Answer(answer) => {
            if let Ok(OperationReply { progress: Some(step), .. }) = serde_json::from_value(answer.parameters)
            {
                trouble::say(&format!("{}: {}", shown(&step.service), shown(&step.step)));
            }
        }
        Event::Silent => trouble::say("waiting for the supervisor"),
        Event::Again | Event::Passed(_) => {}
    }
}

/// What came of it: as JSON to stdout, or for someone who watches; notes in either case.
fn outcome(parameters: Value, json: bool, watched: bool) -> Result<(), Trouble> {
    if json {
        trouble::print(&pretty(&parameters))?;
    }
    let reply: OperationReply = serde_json::from_value(parameters).unwrap_or_default();
    for service in reply.services {
        let name = shown(&service.name);
        match service.pid {
            Some(pid) if watched => trouble::say(&format!("{name}: {}, pid {pid}", service.state.word())),
            None if watched => trouble::say(&format!("{name}: {}", service.state.word())),
            Some(_) | None => {}
        }
        if let Some(note) = service.note {
            trouble::say(&format!("{name}: {}", shown(&note)));
        }
    }
    Ok(())
}

/// 128 bits from the kernel.
fn fresh_id() -> io::Result<OperationId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(OperationId(u128::from_ne_bytes(bytes)))
}
