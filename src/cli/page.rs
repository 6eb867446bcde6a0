//! USER. Everything about one service on one page: what is known, in the order in which one asks.

use super::processes::Process;
use super::span;
use super::table::{next_start, tone};
use super::text::{Paint, Tone, shown};
use super::why::told;
use crate::wire::control::{Exit, Instance, Service, Socket, State};

/// The page; `now` in seconds since 1970.
pub fn page(service: &Service, now: i64, paint: Paint, look: &dyn Fn(i32) -> Option<Process>) -> String {
    let since = |since: &Option<String>| {
        since
            .as_deref()
            .and_then(|since| span::between(since, now))
            .map(|long| format!(" for {}", span::long(long)))
    };
    let health = match service.healthy {
        Some(true) => ", healthy",
        Some(false) => ", unhealthy",
        None => "",
    };
    let name = paint.tint(Tone::Head, &shown(&service.name));
    let state = paint.tint(tone(service.state), service.state.word());
    let mut page = Page(format!("{name}: {state}{}{health}\n", since(&service.since).unwrap_or_default()));
    page.one("", service.description.as_deref().map(shown));
    page.list("waits for", service.waiting_for.iter().map(|name| shown(name)));
    page.one("user", service.user.as_deref().map(shown));
    page.one("unit", service.unit.as_deref().map(shown));
    page.one("command", (!service.command.is_empty()).then(|| command(&service.command)));
    page.one("main process", service.pid.map(|pid| pid.to_string()));
    page.list("processes", service.pids.iter().take(MOST_PROCESSES).map(|pid| process(*pid, look(*pid))));
    let more = service.pids.len().saturating_sub(MOST_PROCESSES);
    page.one("", (more > 0).then(|| format!("and {more} more")));
    if service.generation > 0 {
        page.one("generation", Some(service.generation.to_string()));
        page.one("restarts", Some(service.restarts.to_string()));
    }
    if service.instances.len() > 1 {
        page.list(
            "instances",
            service
                .instances
                .iter()
                .map(|one| format!("{}{}", instance(one), since(&one.since).unwrap_or_default())),
        );
    }
    page.list("sockets", service.sockets.iter().map(|one| socket(one, service.state)));
    let stored = match service.stored {
        0 => None,
        1 => Some("1 descriptor for its next start".to_owned()),
        many => Some(format!("{many} descriptors for its next start")),
    };
    page.one("stored", stored);
    page.one("gate", service.gate.as_deref().map(shown));
    page.one("memory", service.memory_bytes.map(span::size));
    page.one("processor time", service.cpu_seconds.map(|seconds| format!("{seconds:.1}s")));
    page.one("says", service.status_text.as_deref().map(shown));
    page.one("last ended", service.exit.as_ref().map(ended));
    page.one("last try", service.ends.last().filter(|end| end.beside).map(told));
    page.one("starts again", service.next_start.as_deref().and_then(|at| next_start(at, now)));
    page.one("kept track by", service.tracking.as_deref().map(shown));
    page.one("adopted", service.adopted.as_deref().map(|at| adopted(at, now)));
    page.list("problems", service.problems.iter().flat_map(|problem| problem.lines()).map(shown));
    page.list(
        "unit changed",
        service.changed.iter().map(|path| format!("{}, read again when supervise starts", shown(path))),
    );
    page.list("read more", service.documentation.iter().map(|one| shown(one)));
    page.one("output to", output_to(service));
    page.list("last output", last_output(service).into_iter());
    page.0
}

/// The most characters of a command that are shown.
const MOST_COMMAND: usize = 160;

/// A command as one would type it, in one line.
fn command(words: &[String]) -> String {
    let word = |word: &String| {
        let plain = |one: char| one.is_ascii_alphanumeric() || "-_./:=,@%+{}".contains(one);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("'{}'", shown(word).replace('\'', "'\\''")),
        }
    };
    let line = words.iter().map(word).collect::<Vec<_>>().join(" ");
    short(line, MOST_COMMAND)
}

/// Where its output is to be looked for.
fn output_to(service: &Service) -> Option<String> {
    let name = shown(&service.name);
    Some(match (service.log_to.as_deref()?, &service.log_file) {
        (_, Some(file)) => shown(file),
        ("journal", _) => format!("the journal: `journalctl -t {name}`"),
        ("syslog", _) => format!("the system's log, where its lines begin with `{name}: `"),
        ("inherit", _) => "where supervise's own output goes".to_owned(),
        ("null", _) => "nowhere, as its unit says".to_owned(),
        (other, _) => shown(other),
    })
}

/// The last lines of a service, and whose they are where that is not what runs.
pub fn last_output(service: &Service) -> Vec<String> {
    let of = service.output_of.iter().map(|of| format!("(of {})", shown(of)));
    let nothing = service.silent.then(|| "it wrote nothing".to_owned());
    of.chain(service.output.iter().map(|line| short(shown(line), MOST_LINE))).chain(nothing).collect()
}

/// The most characters of a line of output: `logs` has all of it, and a page has to stay one.
const MOST_LINE: usize = 240;

fn short(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Since when it is ours again.
pub fn adopted(at: &str, now: i64) -> String {
    let ago = span::between(at, now).map(|long| format!("{} ago, ", span::long(long)));
    format!("{}after all of supervise had been killed", ago.unwrap_or_default())
}

/// The most processes that are listed.
const MOST_PROCESSES: usize = 24;

/// One process in a line: what is known of it, and what it is.
fn process(pid: i32, seen: Option<Process>) -> String {
    match seen {
        Some(seen) => format!(
            "{pid:<8} {:>7} {:>8}  {}",
            span::size(seen.memory_bytes),
            format!("{:.1}s", seen.cpu_seconds),
            shown(&seen.command)
        ),
        None => pid.to_string(),
    }
}

struct Page(String);

impl Page {
    fn one(&mut self, label: &str, value: Option<String>) {
        if let Some(value) = value {
            self.0 += &format!("  {label:<16} {value}\n");
        }
    }

    /// One line each, the label before the first.
    fn list(&mut self, label: &str, values: impl Iterator<Item = String>) {
        for (index, value) in values.enumerate() {
            self.one(if index == 0 { label } else { "" }, Some(value));
        }
    }
}

fn instance(instance: &Instance) -> String {
    let pid = instance.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    format!(
        "{}: generation {}, {}{pid}, {}",
        instance.instance,
        instance.generation,
        instance.role.word(),
        instance.state.word()
    )
}

fn socket(socket: &Socket, state: State) -> String {
    let queue = match (socket.queue, socket.backlog) {
        (Some(queue), Some(backlog)) => format!(", {queue} of {backlog} waiting"),
        (Some(queue), None) => format!(", {queue} waiting"),
        (None, Some(_) | None) => String::new(),
    };
    let inherited = match (socket.inherited, state) {
        (true, State::Stopped) => "; inherited: it listens, and nobody accepts before the next start",
        (true, _) => "; inherited",
        (false, _) => "",
    };
    format!("{} {}{queue}{inherited}", shown(&socket.name), shown(&socket.address))
}

fn ended(exit: &Exit) -> String {
    match (exit.code, exit.signal.as_deref()) {
        _ if !exit.meaning.is_empty() => shown(&exit.meaning),
        (Some(code), _) => format!("with status {code}"),
        (None, Some(signal)) => format!("by signal {}", shown(signal)),
        (None, None) => "nobody knows how".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Ended, Role};

    /// One of which everything is known.
    fn known() -> Service {
        let instance = |number, role, pid| Instance {
            instance: number,
            generation: 2,
            role,
            pid: Some(pid),
            state: State::Running,
            since: Some("1970-01-01T00:00:00Z".into()),
        };
        Service {
            name: "web".into(),
            state: State::Running,
            healthy: Some(true),
            pid: Some(10),
            pids: vec![10, 11, 12],
            generation: 2,
            instances: vec![instance(1, Role::Current, 10), instance(2, Role::Draining, 12)],
            restarts: 3,
            since: Some("1970-01-01T00:00:00Z".into()),
            exit: Some(Exit { code: Some(1), signal: None, meaning: "exited with status 1".into() }),
            gate: Some("private probe".into()),
            sockets: vec![
                Socket {
                    name: "http".into(),
                    address: ":80".into(),
                    queue: Some(1),
                    backlog: Some(4096),
                    inherited: true,
                },
                Socket { name: "x".into(), address: "@x".into(), ..Socket::default() },
            ],
            memory_bytes: Some(12_897_485),
            cpu_seconds: Some(4.25),
            status_text: Some("ready\u{7}".into()),
            tracking: Some("cgroup".into()),
            problems: vec!["one\nhint: do".into(), "two".into()],
            user: Some("al".into()),
            changed: vec!["/u/web.toml".into()],
            output: vec!["last".into(), "words\u{1b}".into()],
            description: Some("The shop".into()),
            documentation: vec!["https://wiki/shop".into(), "man:shop(7)".into()],
            unit: Some("/u/web.toml".into()),
            command: vec!["bin/gunicorn".into(), "a b".into(), "{fd:http}".into(), String::new()],
            log_to: Some("file".into()),
            log_file: Some("/l/web/current".into()),
            ends: vec![Ended {
                step: "taking the place of what runs".into(),
                reason: "exit status 3\nhint: mend".into(),
                lived_ms: Some(1_500),
                beside: true,
                ..Ended::default()
            }],
            ..Service::default()
        }
    }

    #[test]
    fn a_page_has_what_is_known() {
        let look = |pid: i32| {
            (pid == 10).then(|| Process {
                memory_bytes: 12 << 20,
                cpu_seconds: 1.5,
                command: "gunicorn: master".into(),
            })
        };
        let expected = "\
web: running for 3min, healthy
                   The shop
  user             al
  unit             /u/web.toml
  command          bin/gunicorn 'a b' {fd:http} ''
  main process     10
  processes        10         12.0M     1.5s  gunicorn: master
                   11
                   12
  generation       2
  restarts         3
  instances        1: generation 2, current, pid 10, running for 3min
                   2: generation 2, draining, pid 12, running for 3min
  sockets          http :80, 1 of 4096 waiting; inherited
                   x @x
  gate             private probe
  memory           12.3M
  processor time   4.2s
  says             ready\\x07
  last ended       exited with status 1
  last try         taking the place of what runs: exit status 3 (after 1.5s)
  kept track by    cgroup
  problems         one
                   hint: do
                   two
  unit changed     /u/web.toml, read again when supervise starts
  read more        https://wiki/shop
                   man:shop(7)
  output to        /l/web/current
  last output      last
                   words\\x1b
";
        assert_eq!(page(&known(), 180, Paint::new(false), &look), expected);
    }

    #[test]
    fn a_page_stays_one_whatever_a_service_writes() {
        let output = vec!["ä".repeat(240), "ä".repeat(241)];
        let service = Service { output, command: vec!["x".repeat(200)], ..Service::default() };
        assert_eq!(last_output(&service), ["ä".repeat(240), "ä".repeat(240) + "…"]);
        assert_eq!(command(&service.command), "x".repeat(160) + "…");
    }

    #[test]
    fn a_page_says_that_it_was_adopted() {
        let adopted = Some("1970-01-01T00:01:00Z".to_owned());
        let service = Service { name: "web".into(), adopted, ..Service::default() };
        let expected = "web: stopped\n  adopted          2min ago, after all of supervise had been killed\n";
        assert_eq!(page(&service, 180, Paint::new(false), &|_| None), expected);
    }

    #[test]
    fn a_page_of_something_of_which_nothing_is_known_is_one_line() {
        let service = Service { name: "web".into(), ..Service::default() };
        assert_eq!(page(&service, 0, Paint::new(false), &|_| None), "web: stopped\n");
    }

    #[test]
    fn a_page_says_why_nothing_runs() {
        let service = Service {
            name: "web".into(),
            state: State::BackingOff,
            waiting_for: vec!["db".into(), "mq".into()],
            exit: Some(Exit { code: None, signal: Some("KILL".into()), meaning: String::new() }),
            next_start: Some("1970-01-01T00:00:09Z".into()),
            healthy: Some(false),
            ..Service::default()
        };
        let expected = "\
web: backing-off, unhealthy
  waits for        db
                   mq
  last ended       by signal KILL
  starts again     in 4s
";
        assert_eq!(page(&service, 5, Paint::new(false), &|_| None), expected);
    }
}
