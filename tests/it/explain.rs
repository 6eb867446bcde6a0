//! `why`, `events`, `kill`, `show` and the page of one service: what an operator sees of what has happened.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use supervise::wire::request::{OperationId, Order, Request};

use super::place::{Place, Who};
use super::wait;

/// A text without what differs from run to run: times, and numbers of processes.
fn steady(text: &str, pid: u32) -> String {
    let word = |word: &str| match word.trim_matches(['(', ')', ',']) {
        time if time.len() == 24 && time.ends_with('Z') => word.replace(time, "TIME"),
        number if number == pid.to_string() => word.replace(number, "PID"),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The value behind a label of a page.
fn labelled<'a>(page: &'a str, label: &str) -> &'a str {
    let found = page.lines().find_map(|line| line.strip_prefix(&format!("  {label:<16} ")));
    found.unwrap_or_else(|| panic!("no `{label}` in:\n{page}"))
}

#[test]
fn user_why_tells_how_it_ended_when_it_starts_again_and_what_to_do() {
    let mut place = Place::new(Who::User);
    place.unit(
        "bad",
        "command = [\"sh\", \"-c\", \"exit 127\"]\n[restart]\ndelay = \"1h\"\nmax-delay = \"1h\"\n",
    );
    place.unit("fine", "command = \"sleep 1000\"\nsettle = \"1ms\"\n");
    place.unit("off", "command = \"sleep 1000\"\nstart = \"manual\"\n");
    place.run();
    place.reaches("bad", "backing-off");
    place.reaches("fine", "running");
    let why = place.order(&["why", "bad"]).out;
    let end = why.lines().nth(2).unwrap().trim_start();
    assert!(
        end.starts_with("exit status 127: what a shell says of a command that is not there (after "),
        "{why}"
    );
    assert!(labelled(&why, "last end").ends_with("s ago)"), "{why}");
    assert!(labelled(&why, "starts again").starts_with("in "), "{why}");
    assert!(why.ends_with("                   when it is mended: `supervise restart bad`\n"), "{why}");
    // Without a name it is what is not as wanted: not what runs, and not what nobody has started.
    let all = place.order(&["why"]).out;
    assert!(all.starts_with("bad: backing-off"), "{all}");
    assert_eq!(all.lines().filter(|line| !line.starts_with(' ')).count(), 1, "{all}");
    let path = place.path("units/bad.toml");
    let unit = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{unit}# mended\n")).unwrap();
    for command in ["start", "restart", "reload"] {
        let said = place.ask(&[command, "bad"]);
        let note = format!(
            "; `{}` has changed since it was read: what was read still counts, until supervise starts again\n",
            path.display()
        );
        assert!(said.code == Some(1) && said.err.ends_with(&note), "{command}: {said:?}");
    }
    place.order(&["stop", "bad"]);
    assert_eq!(place.order(&["why"]).out, "everything is as wanted\n");
    let unknown = place.ask(&["why", "bda"]);
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (Some(4), "supervise: no such service `bda`\nhint: did you mean `bad`?\n")
    );
}

#[test]
fn user_a_signal_is_sent_by_hand_and_its_end_is_not_put_down_to_supervise() {
    let mut place = Place::new(Who::User);
    place.unit("fine", "command = \"sleep 1000\"\nsettle = \"1ms\"\n");
    place.unit(
        "trap",
        "command = [\"sh\", \"-c\", \"trap 'echo got > got' HUP; while :; do sleep 0.1; done\"]\n",
    );
    place.run();
    place.reaches("fine", "running");
    let before = place.pid_of("fine");
    let sent = place.order(&["kill", "-s", "sigkill", "fine"]);
    assert_eq!((sent.out.as_str(), sent.err.as_str()), ("", ""));
    wait::until(wait::LONG, "another process", || (place.service("fine")["pid"] != before).then_some(()));
    place.reaches("fine", "running");
    let why = place.order(&["why", "fine"]).out;
    assert!(why.contains("ended by SIGKILL: not sent by supervise"), "{why}");
    place.order(&["stop", "fine"]);
    let none = place.ask(&["kill", "-s", "HUP", "fine"]);
    let expected = "fine: sending SIGHUP: it has no process\nhint: `supervise start fine` starts it\n";
    assert_eq!((none.code, none.err.as_str()), (Some(1), expected));
}

/// `events` with its output in a socket that does not wait for ever.
pub fn watch(place: &Place, arguments: &[&str]) -> (Child, BufReader<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = place.command(&place.binary());
    command.arg("--runtime-dir").arg(place.path("run")).arg("events").args(arguments);
    let child = command.stdin(Stdio::null()).stdout(OwnedFd::from(theirs)).spawn().unwrap();
    (child, BufReader::new(ours))
}

pub fn next(lines: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn user_events_tell_each_change_once_it_has_happened() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = \"sleep 1000\"\nsettle = \"1ms\"\n");
    place.unit("other", "command = \"sleep 1000\"\nsettle = \"1ms\"\n");
    place.run();
    place.reaches("web", "running");
    let (mut child, mut lines) = watch(&place, &["--json", "web"]);
    assert_eq!(next(&mut lines), serde_json::json!({ "event": null, "missed": 0 }));
    place.order(&["stop", "other"]);
    place.order(&["stop", "web"]);
    let mut states = Vec::new();
    while states.last().is_none_or(|state| state != "stopped") {
        let told = next(&mut lines);
        assert_eq!(told["event"]["service"], "web", "another service's: {told}");
        states.push(told["event"]["state"].as_str().unwrap().to_owned());
    }
    assert_eq!(states.first().map(String::as_str), Some("stopping"), "{states:?}");
    place.order(&["start", "web"]);
    let running = loop {
        let told = next(&mut lines);
        if told["event"]["state"] == "running" {
            break told;
        }
    };
    assert_eq!(running["event"]["pid"], place.pid_of("web"));
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn user_a_watcher_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed() {
    let mut place = Place::new(Who::User);
    let service = "command = \"true\"\nsettle = \"1ms\"\n[restart]\ndelay = \"1ms\"\nmax-delay = \"5ms\"\n";
    for number in 0..8 {
        place.unit(&format!("loop{number}"), service);
    }
    place.run();
    let mut stream = UnixStream::connect(place.path("run/control")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&Request::Events { names: vec![] }.call().encode()).unwrap();
    let restarts = || -> u64 {
        let status = place.status();
        status["services"].as_array().unwrap().iter().filter_map(|one| one["restarts"].as_u64()).sum()
    };
    let before = restarts();
    // The kernel's buffer and ours are full by then, and nobody has waited.
    wait::until(4 * wait::LONG, "many restarts", || (restarts() > before + 900).then_some(()));
    let mut bytes = Vec::new();
    let mut missed = 0;
    while missed == 0 {
        let mut part = [0; 65536];
        let count = stream.read(&mut part).unwrap();
        if count == 0 {
            return; // it had not read for so long that it was hung up on
        }
        bytes.extend_from_slice(&part[..count]);
        while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            let reply: Value = serde_json::from_slice(&bytes[..end]).unwrap();
            bytes.drain(..=end);
            missed += reply["parameters"]["missed"].as_u64().unwrap();
        }
    }
}

#[test]
fn user_show_and_the_page_say_what_is_and_what_has_changed_on_disk() {
    let mut place = Place::new(Who::User);
    let unit = "command = \"sleep 1000\"\nsettle = \"1ms\"\nenvironment = { TOKEN = \"secret\" }\n";
    place.unit("web", unit);
    place.run();
    place.reaches("web", "running");
    let path = place.path("units/web.toml").display().to_string();
    let show = place.order(&["show", "web"]).out;
    let found: Vec<&str> = show.lines().filter(|line| line.contains(&path)).collect();
    let written = |key: &str| found.iter().any(|line| line.starts_with(&format!("{key} = ")));
    assert!(written("service.command") && written("service.settle"), "{show}");
    assert!(show.contains("service.environment.TOKEN = (not shown)") && !show.contains("secret"), "{show}");
    assert!(
        show.lines().any(|line| line.starts_with("restart.delay = \"250ms\"") && line.ends_with("# default"))
    );
    let plan = place.order(&["show", "--exec", "web"]).out;
    assert!(plan.starts_with("command            sleep 1000\n") && !plan.contains("secret"), "{plan}");
    let page = place.order(&["status", "web"]).out;
    let pid = place.pid_of("web");
    assert!(labelled(&steady(&page, pid), "main process") == "PID", "{page}");
    assert!(labelled(&page, "processes").ends_with("  sleep 1000"), "{page}");
    assert!(page.contains("  memory           ") && page.contains("  processor time   "), "{page}");
    assert!(!page.contains("unit changed"), "{page}");
    place.unit("web", &format!("{unit}# changed\n"));
    let page = place.order(&["status", "web"]).out;
    assert_eq!(
        labelled(&page, "unit changed"),
        format!("{path}, read again when supervise starts"),
        "{page}"
    );
    let said = place.order(&["restart", "web"]).err;
    let note = format!(
        "web: `{path}` has changed since it was read: what was read still counts, until supervise starts again\n"
    );
    assert_eq!(said, note);
}

#[test]
fn user_the_steps_of_an_operation_are_told_while_it_goes_on() {
    let mut place = Place::new(Who::User);
    place.unit(
        "web",
        "command = [\"sh\", \"-c\", \"echo hello; exec sleep 1000\"]\nstart = \"manual\"\nsettle = \"1ms\"\n",
    );
    place.run();
    let mut stream = UnixStream::connect(place.path("run/control")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let order = Order { names: vec!["web".into()], operation: OperationId(7), wait: true };
    stream.write_all(&Request::Start(order).call().encode()).unwrap();
    let mut replies = BufReader::new(stream).split(0);
    let mut steps = Vec::new();
    let last = loop {
        let reply: Value = serde_json::from_slice(&replies.next().unwrap().unwrap()).unwrap();
        if reply["continues"] != true {
            break reply;
        }
        let progress = &reply["parameters"]["progress"];
        assert_eq!(progress["service"], "web", "{reply}");
        steps.push(progress["step"].as_str().unwrap().to_owned());
    };
    assert_eq!(steps, ["starting", "running"]);
    assert_eq!(last["parameters"]["services"][0]["state"], "running", "{last}");
    let shown = || place.order(&["status", "web"]).out;
    let page =
        wait::until(wait::LONG, "its output", || Some(shown()).filter(|page| page.contains("  last output")));
    assert_eq!(labelled(&page, "last output"), "hello", "{page}");
}

#[test]
fn user_what_was_in_the_way_is_told_as_it_was_when_the_release_is_another_one() {
    let mut place = Place::new(Who::User);
    for release in ["one", "two"] {
        std::fs::create_dir_all(place.path("srv").join(release)).unwrap();
    }
    let closed = place.path("srv/one");
    let current = place.path("srv/current");
    std::os::unix::fs::symlink("one", &current).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    place.unit(
        "web",
        &format!(
            "command = [\"sleep\", \"1000\"]\ndirectory = \"{}\"\nstart = \"manual\"\n",
            current.display()
        ),
    );
    place.run();
    let reason = format!("changing to the working directory: {}: permission denied", closed.display());
    let said = place.ask(&["start", "web"]);
    assert!(said.code == Some(1) && said.err.contains(&reason), "{said:?}");
    std::fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink("two", &current).unwrap();
    place.order(&["restart", "web"]);
    let web = place.service("web");
    let told = web["ends"][0]["reason"].as_str().unwrap();
    assert!(told.starts_with(&reason), "{web:#}");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn user_what_units_have_come_and_gone_is_told_to_who_asks_for_them() {
    let mut place = Place::new(Who::User);
    place.unit("fine", "command = \"sleep 1000\"\nsettle = \"1ms\"\n");
    place.run();
    place.reaches("fine", "running");
    place.unit("later", "command = \"sleep 1000\"\n");
    let said = place.ask(&["start", "later"]);
    let expected = format!(
        "supervise: no such service `later`\nhint: `{}` has not been read: units are read when supervise starts\n",
        place.path("units/later.toml").display()
    );
    assert_eq!((said.code, said.err), (Some(4), expected));
    let path = place.path("units/fine.toml");
    std::fs::remove_file(&path).unwrap();
    let said = place.order(&["start", "fine"]);
    let gone = format!(
        "already running; `{}` is gone: what was read still counts, until supervise starts again\n",
        path.display()
    );
    assert!(said.err.ends_with(&gone), "{said:?}");
    // Nothing is refused, and nothing runs.
    place.order(&["scale", "fine", "0"]);
    let said = place.order(&["start", "fine"]);
    assert!(said.err.contains("it has no instances: `supervise scale fine 1` starts one"), "{said:?}");
}
