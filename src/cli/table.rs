//! USER. Services as a table: columns that line up, one line each. Never wider than its content.

use super::span;
use super::text::{Paint, Tone, shown};
use crate::wire::control::{Service, State};

const HEAD: [&str; 7] = ["NAME", "STATE", "PID", "SINCE", "RESTARTS", "SOCKETS", "NOTE"];
const STATE: usize = 1;
/// More addresses than this are counted.
const MOST_ADDRESSES: usize = 2;

/// The table; `now` in seconds since 1970.
pub fn table(services: &[Service], now: i64, paint: Paint) -> String {
    let rows: Vec<[String; 7]> = services.iter().map(|service| row(service, now)).collect();
    let widths = |column: usize| {
        let cells = rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(HEAD.get(column).map(|head| head.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(widths).collect();
    let mut text = line(&HEAD, &widths, |_, cell| paint.tint(Tone::Head, cell));
    for (row, service) in rows.iter().zip(services) {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        text += &line(&cells, &widths, |column, cell| match column {
            STATE => paint.tint(tone(service.state), cell),
            _ => cell.to_owned(),
        });
    }
    text
}

/// One line; padded first and tinted then, so that colours do not count. Nothing is left at its end.
fn line(cells: &[&str], widths: &[usize], tint: impl Fn(usize, &str) -> String) -> String {
    let last = cells.iter().rposition(|cell| !cell.is_empty()).unwrap_or(0);
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate().take(last + 1) {
        text += &tint(column, cell);
        if column < last {
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count().min(*width) + 2));
        }
    }
    text.push('\n');
    text
}

fn row(service: &Service, now: i64) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        shown(&service.name),
        service.state.word().to_owned(),
        or_dash(service.pid.map(|pid| pid.to_string())),
        or_dash(service.since.as_deref().and_then(|since| span::between(since, now)).map(span::long)),
        service.restarts.to_string(),
        sockets(service),
        note(service, now),
    ]
}

fn sockets(service: &Service) -> String {
    let first = service.sockets.iter().take(MOST_ADDRESSES).map(|socket| shown(&socket.address));
    let mut text = first.collect::<Vec<_>>().join(" ");
    match service.sockets.len() {
        0 => text.push('-'),
        count if count > MOST_ADDRESSES => text += &format!(" +{}", count - MOST_ADDRESSES),
        _ => {}
    }
    text
}

/// What explains the state in a few words.
fn note(service: &Service, now: i64) -> String {
    let mut parts = Vec::new();
    if !service.waiting_for.is_empty() {
        parts.push(format!("waits for {}", service.waiting_for.join(", ")));
    }
    if service.healthy == Some(false) {
        parts.push("unhealthy".to_owned());
    }
    let ended = match service.state {
        State::BackingOff | State::Failed => true,
        State::Stopped
        | State::Listening
        | State::Waiting
        | State::Starting
        | State::Running
        | State::Reloading
        | State::Stopping
        | State::Done => false,
    };
    if let Some(exit) = service.exit.as_ref().filter(|_| ended) {
        parts.push(exit.meaning.clone());
    }
    if let Some(text) = service.next_start.as_deref().and_then(|at| next_start(at, now)) {
        parts.push(format!("starts again {text}"));
    }
    // Only the first line: the page has the rest. What keeps it from running comes before what is a mere warning.
    let firsts = || service.problems.iter().filter_map(|problem| problem.lines().next());
    let told = firsts().find(|line| !is_warning(line)).or_else(|| firsts().next());
    parts.extend(told.map(str::to_owned));
    if parts.is_empty() {
        parts.extend(service.status_text.clone());
    }
    shown(&parts.join("; "))
}

/// Whether a problem of a unit says of itself that it is a warning: at its start, or behind its place.
fn is_warning(line: &str) -> bool {
    let is_place = |before: &str| {
        let mut numbers = before.rsplitn(3, ':');
        numbers.by_ref().take(2).all(|part| part.parse::<u64>().is_ok()) && numbers.next().is_some()
    };
    line.starts_with("warning: ")
        || line.split_once(": warning: ").is_some_and(|(before, _)| is_place(before))
}

/// When a service starts again, as words.
pub fn next_start(at: &str, now: i64) -> Option<String> {
    match span::seconds(at)?.saturating_sub(now) {
        ..=0 => Some("now".to_owned()),
        seconds => Some(format!("in {}", span::long(seconds.unsigned_abs()))),
    }
}

/// What a state says.
pub const fn tone(state: State) -> Tone {
    match state {
        State::Running | State::Listening | State::Done => Tone::Good,
        State::Waiting | State::Starting | State::Reloading | State::Stopping => Tone::Between,
        State::BackingOff | State::Failed => Tone::Bad,
        State::Stopped => Tone::Quiet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Exit, Socket};

    fn socket(address: &str) -> Socket {
        Socket { address: address.into(), ..Socket::default() }
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let services = [
            Service {
                name: "web".into(),
                state: State::Running,
                pid: Some(4711),
                since: Some("1970-01-01T00:00:00Z".into()),
                restarts: 2,
                sockets: vec![socket("0.0.0.0:80"), socket("/run/web.sock"), socket("@x")],
                status_text: Some("fine".into()),
                ..Service::default()
            },
            Service {
                name: "größe".into(),
                state: State::BackingOff,
                exit: Some(Exit { meaning: "exited with status 1".into(), ..Exit::default() }),
                next_start: Some("1970-01-01T00:03:05Z".into()),
                ..Service::default()
            },
            Service { name: "off".into(), ..Service::default() },
        ];
        let expected = "\
NAME   STATE        PID   SINCE  RESTARTS  SOCKETS                      NOTE
web    running      4711  3min   2         0.0.0.0:80 /run/web.sock +1  fine
größe  backing-off  -     -      0         -                            exited with status 1; starts again in 5s
off    stopped      -     -      0         -
";
        assert_eq!(table(&services, 180, Paint::new(false)), expected);
        let tinted = table(&services[2..], 180, Paint::new(true));
        assert_eq!(tinted.lines().nth(1), Some("off   \u{1b}[2mstopped\u{1b}[0m  -    -      0         -"));
    }

    #[test]
    fn a_note_explains_and_is_safe() {
        let service = Service {
            state: State::Waiting,
            waiting_for: vec!["db".into(), "mq".into()],
            healthy: Some(false),
            problems: vec!["first\u{1b}[2J\nhint: more".into(), "second".into()],
            status_text: Some("not shown".into()),
            exit: Some(Exit { meaning: "not shown either".into(), ..Exit::default() }),
            ..Service::default()
        };
        assert_eq!(note(&service, 0), "waits for db, mq; unhealthy; first\\x1b[2J");
    }

    #[test]
    fn the_note_of_a_refused_unit_is_its_first_error() {
        let note = |problems: &[&str]| {
            let problems = problems.iter().map(|text| (*text).to_owned()).collect();
            note(&Service { state: State::Failed, problems, ..Service::default() }, 0)
        };
        let warning = "/u/a.toml:3:8: warning: the service runs as root\n  3 | user\nhint: no";
        let general = "warning: /u/a.toml: it can be written by others";
        let error = "/u/a.toml:4:1: unknown key `x: warning: y`\n  4 | x";
        assert_eq!(note(&[general, warning, error]), "/u/a.toml:4:1: unknown key `x: warning: y`");
        assert_eq!(note(&[warning]), "/u/a.toml:3:8: warning: the service runs as root");
        let odd = "it said: warning: no";
        assert_eq!(note(&[warning, odd]), odd);
    }

    #[test]
    fn no_services_are_a_head() {
        assert_eq!(table(&[], 0, Paint::new(false)), "NAME  STATE  PID  SINCE  RESTARTS  SOCKETS  NOTE\n");
    }
}
