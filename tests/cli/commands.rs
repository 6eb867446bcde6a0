//! Commands of which the whole text is compared: `why`, `events`, `show`, `kill`, and the page of one service.

use supervise::wire::control::{
    Ended, Event, EventReply, Exit, Failed, Failure, Refusal, Reply, Row, Service, Shown, State, StatusReply,
};
use supervise::wire::request::Request;

use crate::program;

use super::run;
use super::server::{Server, outcome, supervisor};

fn crash() -> Exit {
    Exit { code: Some(3), signal: None, meaning: "exit status 3: a worker could not boot".into() }
}

/// A service in a crash loop, of which everything is known.
fn looping() -> Service {
    let end = |at: &str, lived_ms| Ended {
        at: at.into(),
        instance: 1,
        generation: 2,
        step: "running".into(),
        reason: crash().meaning,
        exit: Some(crash()),
        lived_ms: Some(lived_ms),
        beside: false,
    };
    Service {
        name: "web".into(),
        state: State::BackingOff,
        user: Some("bagels".into()),
        generation: 2,
        restarts: 4,
        exit: Some(crash()),
        ends: vec![end("2026-11-23T03:12:40.000Z", 1200), end("2026-11-23T03:12:45.000Z", 800)],
        output: vec!["ImportError: no module\u{1b}[2J".into()],
        changed: vec!["/etc/supervise/units/web.toml".into()],
        ..Service::default()
    }
}

fn status_of(service: Service) -> Vec<Reply> {
    vec![supervisor(), Reply::Status(StatusReply { supervisor: None, services: vec![service] })]
}

/// Without the one part that depends on when it is read.
fn without_ago(text: &str) -> String {
    let line = |line: &str| match line.split_once(" (") {
        Some((start, rest)) if rest.ends_with(" ago)") => format!("{start} (AGO)"),
        _ => line.to_owned(),
    };
    text.lines().map(|one| line(one) + "\n").collect()
}

#[test]
fn why_is_as_it_was() {
    let server = Server::start(|request| {
        assert!(matches!(request, Request::Status { detail: true, .. }), "its output was not asked for");
        status_of(looping())
    });
    let (status, stdout, stderr) = run(server.dir(), &["why", "web"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(without_ago(&stdout), include_str!("why.txt"));
    let (_, json, _) = run(server.dir(), &["why", "web", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["services"][0]["ends"][1]["lived_ms"], 800);
}

#[test]
fn why_without_a_name_asks_about_what_is_not_as_wanted() {
    let server = Server::start(|request| match request {
        Request::Status { names, detail: false } => {
            assert_eq!(names, &[""; 0]);
            let fine = Service { name: "fine".into(), state: State::Running, ..Service::default() };
            let off = Service { name: "off".into(), ..Service::default() };
            let services = vec![fine, off, looping()];
            vec![supervisor(), Reply::Status(StatusReply { supervisor: None, services })]
        }
        Request::Status { names, detail: true } => {
            assert_eq!(names, &["web"]);
            status_of(looping())
        }
        other => panic!("{other:?}"),
    });
    let (status, stdout, _) = run(server.dir(), &["why"]);
    assert_eq!((status, without_ago(&stdout).as_str()), (0, include_str!("why.txt")));
}

#[test]
fn the_page_of_a_service_is_as_it_was() {
    let server = Server::start(|_| status_of(looping()));
    let (status, stdout, _) = run(server.dir(), &["status", "web"]);
    assert_eq!((status, stdout.as_str()), (3, include_str!("page.txt")));
}

#[test]
fn events_are_lines_and_say_what_is_missing() {
    let server = Server::start(|_| {
        let event = |was, state, pid, exit| Event {
            at: "2026-11-23T03:12:45.123Z".into(),
            service: "web".into(),
            was,
            state,
            generation: 1,
            pid,
            exit,
            text: None,
        };
        let reply = |event, missed| Reply::Event(EventReply { event: Some(Box::new(event)), missed });
        vec![
            Reply::Event(EventReply::default()),
            reply(event(State::Starting, State::Running, Some(7), None), 0),
            reply(event(State::Running, State::BackingOff, None, Some(crash())), 3),
        ]
    });
    let expected = "\
2026-11-23T03:12:45.123Z web: starting -> running, pid 7
-- 3 changes are missing here: this reader was too slow --
2026-11-23T03:12:45.123Z web: running -> backing-off, exit status 3: a worker could not boot
";
    assert_eq!(run(server.dir(), &["events"]), (0, expected.to_owned(), String::new()));
}

#[test]
fn show_is_a_unit_file_with_places() {
    let server = Server::start(|request| {
        assert_eq!(*request, Request::Show { name: "web".into(), exec: false });
        let row = |key: &str, value: &str, from: &str| Row {
            key: key.into(),
            value: value.into(),
            from: from.into(),
        };
        let rows = vec![
            row("service.user", "\"bagels\"", "/etc/supervise/units/web.toml:3:8"),
            row("restart.delay", "\"250ms\"", "default"),
        ];
        vec![Reply::Shown(Shown { service: "web".into(), generation: 1, rows })]
    });
    let expected = "\
service.user = \"bagels\"  # /etc/supervise/units/web.toml:3:8
restart.delay = \"250ms\"  # default
";
    assert_eq!(run(server.dir(), &["show", "web"]), (0, expected.to_owned(), String::new()));
}

#[test]
fn kill_names_the_signal_and_is_asked_for_once() {
    let server = Server::start(|request| {
        let Request::Kill { names, signal, all } = request else { panic!("{request:?}") };
        if names == &["web"] {
            assert_eq!((signal.as_str(), *all), ("USR1", true));
            return vec![outcome("web")];
        }
        let first = Failure {
            service: "db".into(),
            step: format!("sending SIG{signal}"),
            reason: "it has no process".into(),
            hint: Some("`supervise start db` starts it".into()),
            ..Failure::default()
        };
        vec![Reply::Refused(Refusal::Failed(Box::new(Failed { first, others: vec![] })))]
    });
    assert_eq!(run(server.dir(), &["kill", "-s", "usr1", "--all", "web"]), (0, String::new(), String::new()));
    let expected = "db: sending SIGTERM: it has no process\nhint: `supervise start db` starts it\n";
    assert_eq!(run(server.dir(), &["kill", "db"]), (1, String::new(), expected.to_owned()));
}

#[test]
fn the_schema_needs_no_supervisor() {
    let directory = tempfile::tempdir().unwrap();
    let schema = include_str!("../../units/schema.json").to_owned();
    assert_eq!(run(directory.path(), &["show", "--schema"]), (0, schema, String::new()));
}

#[test]
fn nothing_that_makes_no_sense_is_taken_for_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let said = |line: &[&str]| {
        let (status, out, err) = run(directory.path(), line);
        assert_eq!(out, "", "{line:?}");
        (status, err)
    };
    for (line, status, text) in [
        (&["scale", "web", "1025"][..], 2, "1025 is not in 0..=1024"),
        (&["scale", "web", "-1"], 2, "-1 is not in 0..=1024"),
        (&["scale", "web", "99999999"], 2, "99999999 is not in 0..=1024"),
        (&["kill", "-s", "NOPE", "web"], 2, "'NOPE'"),
        (&["kill", "-s", "0", "web"], 2, "'0'"),
        (&["kill", "-s", "-1", "web"], 2, "'-1'"),
        (&["kill", "-s", "65", "web"], 2, "'65'"),
        (&["logs", "-n", "-1"], 2, "'-1'"),
        (&["logs", "--since", "tomorrow"], 2, "a point in time is"),
        (
            &["logs", "--since", "10min ago", "--until", "20min ago"],
            2,
            "`--until` is before `--since`: nothing is between them\nhint: ",
        ),
        (&["exec", "web", "--", "", "x"], 125, "the command to run in `web` has no name\nhint: "),
        (&["exec", "web", "--"], 2, "required"),
        (&["check", "/nonexistent"], 2, "`/nonexistent`: there is no such file"),
    ] {
        let (code, err) = said(line);
        assert!(code == status && err.contains(text) && !err.contains("tip"), "{line:?} {code} {err}");
    }
    // A name longer than a file can have is that of no supervisor.
    let (code, _, err) = run(&directory.path().join("x".repeat(300)), &["status"]);
    assert!(code == 5 && err.contains("xxx/control`: file name too long\nhint: "), "{code} {err}");
}

#[test]
fn help_that_nobody_gets_is_no_success() {
    let directory = tempfile::tempdir().unwrap();
    for line in [&["--help"][..], &["--version"], &["status", "--help"], &["completions", "bash"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = program(directory.path(), line).stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = "supervise: writing to stdout: no space left on device\n";
        assert_eq!((output.status.code(), said.as_str()), (Some(1), expected), "{line:?}");
    }
}

#[test]
fn what_has_nowhere_to_go_is_no_success() {
    let unit = tempfile::tempdir().unwrap();
    let unit = unit.path().join("web.toml");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, "[service]\ncommand = \"/bin/true\"\n").unwrap();
    let server = Server::start(|request| match request {
        Request::Status { .. } => status_of(looping()),
        Request::Show { .. } => vec![Reply::Shown(Shown { rows: vec![Row::default()], ..Shown::default() })],
        Request::Stop { .. } => vec![outcome("web")],
        Request::Events { .. } => {
            let event = Some(Box::new(Event { service: "web".into(), ..Event::default() }));
            vec![Reply::Event(EventReply::default()), Reply::Event(EventReply { event, missed: 0 })]
        }
        other => panic!("{other:?} was asked"),
    });
    let closed = "supervise: writing to stdout: bad file descriptor\nhint: it was closed (`>&-`) when this command began: \
                  `>/dev/null` is for what nobody reads\n";
    let full = "supervise: writing to stdout: no space left on device\n";
    let words = [
        "status",
        "status --json",
        "status --names",
        "status web",
        "why",
        "why --json",
        "why web",
        "show web",
        "show web --json",
        "show --schema",
        "stop web --json",
        "events",
        "events --json",
        "completions bash",
        "--help",
        "--version",
        "status --help",
        "check --offline UNIT",
        "check --json --offline UNIT",
    ];
    for line in words {
        for (to, expected) in [(">&-", closed), (">/dev/full", full)] {
            let line = line.replace("UNIT", unit.to_str().unwrap());
            let script = format!("exec \"$0\" {line} {to}");
            let mut command = std::process::Command::new("sh");
            command
                .args(["-c", &script, crate::BINARY])
                .env_clear()
                .env("SUPERVISE_RUNTIME_DIR", server.dir());
            let output = command.stdin(std::process::Stdio::null()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                output.status.code() == Some(1) && said.ends_with(expected),
                "{line} {to}: {:?} {said}",
                output.status
            );
        }
    }
    // What has nothing to say needs nowhere to say it, and what is thrown away is.
    for line in ["stop web >&-", "status web >/dev/null"] {
        let script = format!("exec \"$0\" {line}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, crate::BINARY]).env_clear().env("SUPERVISE_RUNTIME_DIR", server.dir());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.stderr.is_empty(), "{line}: {output:?}");
    }
}
