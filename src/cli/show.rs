//! USER. `supervise show`: what a service is made of, as a list of values with their places, or JSON. Never a value
//! of the environment: the supervisor does not send any.

use std::path::Path;
use std::process::ExitCode;

use super::ask::{Ending, ask};
use super::exit::Exit;
use super::status::{pretty, print_json};
use super::text::{Paint, Tone, shown};
use super::trouble::{self, Trouble};
use crate::unit;
use crate::wire::control::{Row, Shown};
use crate::wire::request::Request;
use crate::wire::varlink::Answer;
use crate::wire::verb::Verb;

/// Asks and prints.
pub fn show(control: &Path, name: String, exec: bool, json: bool) -> ExitCode {
    match printed(control, name, exec, json) {
        Ok(exit) => exit.into(),
        Err(troubles) => trouble::tell_all(&troubles),
    }
}

/// Prints the schema of unit files, for editors. Needs no supervisor.
pub fn schema() -> ExitCode {
    match trouble::print(&unit::schema()) {
        Ok(()) => Exit::Done.into(),
        Err(trouble) => trouble::tell(&trouble),
    }
}

fn printed(control: &Path, name: String, exec: bool, json: bool) -> Result<Exit, Vec<Trouble>> {
    let request = Request::Show { name: name.clone(), exec };
    match ask(control, &request, false, &mut |_| {}).map_err(|trouble| vec![trouble])? {
        Ending::Last(Answer { error: None, parameters, .. }) => {
            let text = if json {
                pretty(&parameters)
            } else {
                let reply: Shown = serde_json::from_value(parameters).unwrap_or_default();
                listed(&reply.rows, Paint::for_stdout())
            };
            trouble::print(&text).map_err(|trouble| vec![trouble])?;
            Ok(Exit::Done)
        }
        Ending::Last(answer) => {
            if json {
                print_json(&answer).map_err(|trouble| vec![trouble])?;
            }
            Err(trouble::of_answer(&answer, Verb::Show, &[name]))
        }
        Ending::Detached => Ok(Exit::Detached),
    }
}

/// A line for each value, with its place behind it as a comment of the unit file's language.
fn listed(rows: &[Row], paint: Paint) -> String {
    let values: Vec<String> =
        rows.iter().map(|row| format!("{} = {}", shown(&row.key), shown(&row.value))).collect();
    // One long value does not move all the comments out of sight.
    let width =
        values.iter().map(|value| value.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    let line = |(value, row): (&String, &Row)| match row.from.as_str() {
        "" => format!("{:<18} {}\n", shown(&row.key), shown(&row.value)),
        from => format!("{value:<width$}  {}\n", paint.tint(Tone::Quiet, &format!("# {}", shown(from)))),
    };
    values.iter().zip(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_beside_their_places_and_plans_without_any() {
        let row = |key: &str, value: &str, from: &str| Row {
            key: key.into(),
            value: value.into(),
            from: from.into(),
        };
        let rows = [
            row("service.user", "\"bagels\"", "/etc/supervise/units/web.toml:3:8"),
            row("restart.delay", "\"250ms\"", "default"),
            row("service.command", &format!("\"{}\"", "x".repeat(60)), "a.toml:1:1\u{1b}"),
        ];
        let expected = format!(
            "service.user = \"bagels\"  # /etc/supervise/units/web.toml:3:8\n\
             restart.delay = \"250ms\"  # default\n\
             service.command = \"{}\"  # a.toml:1:1\\x1b\n",
            "x".repeat(60)
        );
        assert_eq!(listed(&rows, Paint::new(false)), expected);
        let plan = [row("umask", "0027", "")];
        assert_eq!(listed(&plan, Paint::new(false)), "umask              0027\n");
    }
}
