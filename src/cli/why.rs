//! USER. `supervise why`: what happened to a service, decoded: how it ended, when before, what it said last, and what
//! to do now. Never a guess that is not called one.

use std::path::Path;
use std::process::ExitCode;

use super::exit::Exit;
use super::page::{adopted, last_output};
use super::span;
use super::status::{self, pretty};
use super::table::{next_start, tone};
use super::text::{Paint, Tone, shown};
use super::trouble::{self, Trouble};
use crate::wire::control::{Ended, Service, State, StatusReply};

/// Asks and prints.
pub fn explain(control: &Path, names: Vec<String>, json: bool) -> ExitCode {
    match explained(control, names, json) {
        Ok(exit) => exit.into(),
        Err(troubles) => trouble::tell_all(&troubles),
    }
}

fn explained(control: &Path, names: Vec<String>, json: bool) -> Result<Exit, Vec<Trouble>> {
    let all = names.is_empty();
    let names = if all { ailing(control)? } else { names };
    let merged = if all && names.is_empty() {
        serde_json::json!({ "services": [] })
    } else {
        status::asked(control, names, true, json)?
    };
    let print = |text: &str| trouble::print(text).map_err(|trouble| vec![trouble]);
    if json {
        print(&pretty(&merged))?;
        return Ok(Exit::Done);
    }
    let reply: StatusReply = status::read(merged)?;
    let (paint, now) = (Paint::for_stdout(), jiff::Timestamp::now().as_second());
    let pages: Vec<String> = reply.services.iter().map(|service| page(service, now, paint)).collect();
    print(&if pages.is_empty() { "everything is as wanted\n".to_owned() } else { pages.join("\n") })?;
    Ok(Exit::Done)
}

/// The services that are not as wanted; one that somebody has stopped is.
fn ailing(control: &Path) -> Result<Vec<String>, Vec<Trouble>> {
    let reply: StatusReply = status::read(status::asked(control, Vec::new(), false, false)?)?;
    let ails = |service: &&Service| {
        let wanted = service.state.is_as_wanted() || service.state == State::Stopped;
        !wanted || service.healthy == Some(false) || !service.problems.is_empty()
    };
    // As many as one request may name; whoever has more of them ailing has seen enough.
    let names = reply.services.iter().filter(ails).map(|service| service.name.clone());
    Ok(names.take(crate::wire::names::MOST_NAMES).collect())
}

/// Everything there is to say of one service; `now` in seconds since 1970.
fn page(service: &Service, now: i64, paint: Paint) -> String {
    let name = paint.tint(Tone::Head, &shown(&service.name));
    let state = paint.tint(tone(service.state), service.state.word());
    let long = service.since.as_deref().and_then(|since| span::between(since, now)).map(span::long);
    let long = long.map(|long| format!(" for {long}")).unwrap_or_default();
    let mut text = format!("{name}: {state}{long}\n");
    let mut line = |label: &str, value: &str| text += &format!("  {label:<16} {value}\n");
    let waits = service.waiting_for.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    if !waits.is_empty() {
        line("waits for", &waits);
    }
    if service.healthy == Some(false) {
        line("health", "its probe fails");
    }
    list(&mut line, "what is wrong", service.problems.iter().flat_map(|problem| problem.lines()).map(shown));
    if let Some(last) = service.ends.last() {
        let ago = span::between(&last.at, now).map(|long| format!("{} ago", span::long(long)));
        line(
            if last.beside { "last try" } else { "last end" },
            &format!("{} ({})", shown(&last.at), ago.unwrap_or_default()),
        );
        line("", &told(last));
        // Where several lines say why, all of them are here; a row has the first.
        list(&mut line, "", last.reason.lines().skip(1).map(shown));
    } else if let Some(exit) = &service.exit {
        list(&mut line, "last end", exit.meaning.lines().map(shown));
    }
    let earlier = service.ends.iter().rev().skip(1);
    list(&mut line, "before that", earlier.map(|end| format!("{}  {}", shown(&end.at), told(end))));
    if let Some(at) = service.next_start.as_deref() {
        let when = next_start(at, now).unwrap_or_default();
        let restarts = if service.restarts == 1 { "restart" } else { "restarts" };
        line("starts again", &format!("{when} ({}), after {} {restarts}", shown(at), service.restarts));
    }
    list(&mut line, "adopted", service.adopted.iter().map(|at| adopted(at, now)));
    list(&mut line, "last output", last_output(service).into_iter());
    list(&mut line, "unit changed", service.changed.iter().map(|path| shown(path)));
    list(&mut line, "what to do", advice(service).into_iter());
    text
}

fn list(line: &mut impl FnMut(&str, &str), label: &str, values: impl Iterator<Item = String>) {
    for (index, value) in values.enumerate() {
        line(if index == 0 { label } else { "" }, &value);
    }
}

/// One end in a line, by the first line of its reason.
pub fn told(end: &Ended) -> String {
    let lived = end.lived_ms.map(|ms| format!(" (after {})", lived(ms))).unwrap_or_default();
    let instance = if end.instance > 1 { format!("instance {}: ", end.instance) } else { String::new() };
    let reason = shown(end.reason.lines().next().unwrap_or_default());
    match end.step.as_str() {
        "running" => format!("{instance}{reason}{lived}"),
        step => format!("{instance}{}: {reason}{lived}", shown(step)),
    }
}

fn lived(ms: u64) -> String {
    if ms < 10_000 { format!("{}.{}s", ms / 1000, ms % 1000 / 100) } else { span::long(ms / 1000) }
}

/// What to do next, in the order in which one would.
fn advice(service: &Service) -> Vec<String> {
    let name = shown(&service.name);
    let mut steps = Vec::new();
    let has_hint = service.problems.iter().any(|problem| problem.contains("\nhint: "));
    match service.state {
        State::Waiting => {
            steps.extend(
                service.waiting_for.iter().take(1).map(|one| format!("`supervise why {}`", shown(one))),
            );
        }
        State::BackingOff | State::Failed if service.ends.last().is_some_and(|end| end.exit.is_some()) => {
            steps.push(match service.output.is_empty() {
                true => format!("`supervise logs {name}` for what it said"),
                false => format!("read its last output above; `supervise logs {name}` has all of it"),
            });
            steps.push(format!("when it is mended: `supervise restart {name}`"));
        }
        // Where there is no gate its unit could not be read.
        State::Failed if service.gate.is_none() && !service.problems.is_empty() => {
            steps.push("mend the unit file and start supervise again".to_owned());
        }
        // A start goes by what was read: `run` alone reads units, and no start finds what was mended in one.
        State::BackingOff | State::Failed if !service.changed.is_empty() => {
            steps.push("when its unit is mended: start supervise again, which alone reads it".to_owned());
            return steps;
        }
        State::BackingOff | State::Failed if has_hint => {
            steps.push(format!("follow the hint above, then `supervise start {name}`"));
            steps.push("where that means its unit: start supervise again, which alone reads it".to_owned());
        }
        State::BackingOff | State::Failed => {
            steps.push(format!("mend what is wrong, then `supervise start {name}`"));
        }
        State::Stopped if has_hint => {
            steps.push(format!("follow the hint above, then `supervise start {name}`"));
        }
        State::Stopped => {
            let how = "somebody stopped it, nobody has started it, or its start was refused with words";
            steps.push(format!("{how}: `supervise start {name}` starts it, or says them again"));
        }
        State::Starting => steps.push(format!("wait for it: `supervise events {name}`")),
        State::Running if service.healthy == Some(false) => {
            steps.push(format!("`supervise logs {name}` for why it does not answer as it should"));
        }
        State::Running if service.ends.last().is_some_and(|end| end.beside) => {
            steps.push(format!("mend it, then `supervise restart {name}`: what runs goes on meanwhile"));
        }
        State::Listening | State::Running | State::Reloading | State::Stopping | State::Done => {}
    }
    if !service.changed.is_empty() {
        steps.push("its unit is read again when supervise starts".to_owned());
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::Exit as Ending;

    fn ended(at: &str, reason: &str, lived_ms: u64) -> Ended {
        let exit = Some(Ending { code: Some(3), signal: None, meaning: reason.into() });
        Ended {
            at: at.into(),
            instance: 1,
            generation: 4,
            step: "running".into(),
            reason: reason.into(),
            exit,
            lived_ms: Some(lived_ms),
            ..Ended::default()
        }
    }

    #[test]
    fn a_crash_loop_is_told_with_its_timeline() {
        let service = Service {
            name: "web".into(),
            state: State::BackingOff,
            since: Some("1970-01-01T00:01:30Z".into()),
            ends: vec![
                ended("1970-01-01T00:01:00Z", "exit status 3: a worker could not boot", 2_345),
                ended("1970-01-01T00:01:30Z", "exit status 3: a worker could not boot", 65_000),
            ],
            next_start: Some("1970-01-01T00:01:38Z".into()),
            restarts: 7,
            output: vec!["Traceback".into(), "ImportError: x\u{1b}".into()],
            ..Service::default()
        };
        let expected = "\
web: backing-off for 6s
  last end         1970-01-01T00:01:30Z (6s ago)
                   exit status 3: a worker could not boot (after 1min)
  before that      1970-01-01T00:01:00Z  exit status 3: a worker could not boot (after 2.3s)
  starts again     in 2s (1970-01-01T00:01:38Z), after 7 restarts
  last output      Traceback
                   ImportError: x\\x1b
  what to do       read its last output above; `supervise logs web` has all of it
                   when it is mended: `supervise restart web`
";
        assert_eq!(page(&service, 96, Paint::new(false)), expected);
    }

    #[test]
    fn a_unit_that_could_not_be_read_is_no_matter_of_a_start() {
        let service = Service {
            name: "web".into(),
            state: State::Failed,
            problems: vec!["/u/web.toml:2:1: unknown key `x`\nhint: did you mean `y`?".into()],
            ..Service::default()
        };
        let expected = "\
web: failed
  what is wrong    /u/web.toml:2:1: unknown key `x`
                   hint: did you mean `y`?
  what to do       mend the unit file and start supervise again
";
        assert_eq!(page(&service, 5, Paint::new(false)), expected);
    }

    #[test]
    fn a_start_that_failed_is_told_with_its_step() {
        let end = Ended {
            at: "1970-01-01T00:00:01Z".into(),
            instance: 2,
            step: "starting it".into(),
            reason: "changing to `/srv/x`: permission denied".into(),
            ..Ended::default()
        };
        let service = Service {
            name: "web".into(),
            state: State::Failed,
            gate: Some("alive for 1s".into()),
            ends: vec![end],
            problems: vec![
                "/u/web.toml:3:1: changing to `/srv/x`: permission denied\nhint: let `al` in".into(),
            ],
            changed: vec!["/u/web.toml".into()],
            ..Service::default()
        };
        let expected = "\
web: failed
  what is wrong    /u/web.toml:3:1: changing to `/srv/x`: permission denied
                   hint: let `al` in
  last end         1970-01-01T00:00:01Z (4s ago)
                   instance 2: starting it: changing to `/srv/x`: permission denied
  unit changed     /u/web.toml
  what to do       when its unit is mended: start supervise again, which alone reads it
";
        assert_eq!(page(&service, 5, Paint::new(false)), expected);
        let service = Service { changed: vec![], ..service };
        let text = page(&service, 5, Paint::new(false));
        let expected = "
  what to do       follow the hint above, then `supervise start web`
                   where that means its unit: start supervise again, which alone reads it
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_failed_try_is_no_end_of_what_runs() {
        let end = Ended {
            step: "its rehearsal failed".into(),
            beside: true,
            ..ended("1970-01-01T00:00:01Z", "no", 500)
        };
        let service = Service {
            name: "web".into(),
            state: State::Running,
            ends: vec![end],
            restarts: 1,
            ..Service::default()
        };
        let expected = "\
web: running
  last try         1970-01-01T00:00:01Z (4s ago)
                   its rehearsal failed: no (after 0.5s)
  what to do       mend it, then `supervise restart web`: what runs goes on meanwhile
";
        assert_eq!(page(&service, 5, Paint::new(false)), expected);
        let service = Service { next_start: Some("1970-01-01T00:00:09Z".into()), ..service };
        let text = page(&service, 5, Paint::new(false));
        assert!(text.contains(" in 4s (1970-01-01T00:00:09Z), after 1 restart\n"), "{text}");
    }

    #[test]
    fn a_reason_of_several_lines_is_whole_in_its_place_and_one_line_in_a_row() {
        let end = |at: &str| Ended {
            at: at.into(),
            instance: 1,
            step: "before-start".into(),
            reason: "it failed\nhint: mend\u{1b} it".into(),
            lived_ms: Some(2_000),
            ..Ended::default()
        };
        let service = Service {
            name: "web".into(),
            state: State::Failed,
            gate: Some("alive for 1s".into()),
            ends: vec![end("1970-01-01T00:00:01Z"), end("1970-01-01T00:00:02Z")],
            ..Service::default()
        };
        let expected = "\
web: failed
  last end         1970-01-01T00:00:02Z (3s ago)
                   before-start: it failed (after 2.0s)
                   hint: mend\\x1b it
  before that      1970-01-01T00:00:01Z  before-start: it failed (after 2.0s)
  what to do       mend what is wrong, then `supervise start web`
";
        assert_eq!(page(&service, 5, Paint::new(false)), expected);
        let service = Service { ends: vec![], exit: service.ends[0].exit.clone(), ..service };
        let exit = Ending { code: Some(1), signal: None, meaning: "one\ntwo".into() };
        let text = page(&Service { exit: Some(exit), ..service }, 5, Paint::new(false));
        assert!(text.contains("  last end         one\n                   two\n"), "{text}");
    }
}
