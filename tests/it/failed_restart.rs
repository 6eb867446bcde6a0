//! What a restart says that fails: whose words are shown, where it listens instead, and who goes on. An application of our
//! own, of which nothing is known, and whose old generation writes to the same log file without end.

use super::explain::{next, watch};
use super::gunicorn::python;
use super::place::{Place, Who};
use super::servers::socket;
use super::supervisor::Role;
use super::{cri, wait};

/// Does what the file of its generation says.
const APP: &str = r#"
import os, select, socket, sys, threading, time

WORK = os.environ["WORK"]
try:
    MODE = open(WORK + "/mode." + os.environ["SUPERVISE_GENERATION"]).read()
except OSError:
    MODE = "good"

def say(line):
    os.write(2, line.encode() + b"\n")

def flood():
    while True:
        os.write(1, b"GET / HTTP/1.1 200 OK\n" * 20)
        time.sleep(0.005)

def serve(listener, status):
    while True:
        client, _ = listener.accept()
        client.recv(4096)
        if status != "200 OK":
            say("answering " + status)
        client.sendall(("HTTP/1.0 %s\r\nContent-Length: 0\r\n\r\n" % status).encode())
        client.close()
        while MODE == "once":
            time.sleep(1)

if MODE == "good":
    threading.Thread(target=flood, daemon=True).start()
if MODE == "raise" or MODE == "second" and os.environ["SUPERVISE_INSTANCE"] == "2":
    say("Traceback (most recent call last):")
    say("ImportError: no bagels")
    sys.exit(3)
if MODE == "hang":
    time.sleep(1000)
if MODE == "halt":
    say("half of it")
    open(WORK + "/halted", "w").close()
    while not os.path.exists(WORK + "/go"):
        time.sleep(0.02)
    say("the rest of it")
    sys.exit(3)
if MODE in ("elsewhere", "astray"):
    if MODE == "astray":
        os.closerange(3, 10)
    other = socket.create_server(("127.0.0.1", 0))
    poll = select.epoll()
    poll.register(other, select.EPOLLIN)
    while True:
        poll.poll()
        other.accept()[0].close()
serve(socket.socket(fileno=3), "500 No" if MODE == "wrong" else "200 OK")
"#;

/// With its first generation up, and writing. It is asked how it is.
fn begun(who: Who, rest: &str) -> Place {
    begun_plain(who, &format!("settle = \"10ms\"\n{rest}"), HEALTH)
}

fn begun_plain(who: Who, rest: &str, health: &str) -> Place {
    let mut place = Place::new(who);
    place.write("srv/app.py", APP);
    let (work, address) = (place.path("work").display().to_string(), place.address());
    let command = format!("command = [\"{}\", \"-S\", \"app.py\"]", python());
    let environment = format!("environment = {{ WORK = \"{work}\" }}");
    place.unit("web", &format!("{command}\n{environment}\n{rest}\n{}{health}", socket(address)));
    place.run();
    place.reaches("web", "running");
    place
}

const HEALTH: &str = "[health]\nhttp = \"/\"\ninterval = \"off\"\ntimeout = \"1s\"\n";

/// What a restart says whose new generation does this.
#[track_caller]
fn restarted(place: &Place, generation: u32, mode: &str) -> String {
    place.write(&format!("work/mode.{generation}"), mode);
    let pid = place.pid_of("web");
    let said = place.ask(&["restart", "web"]);
    assert_eq!((said.code, place.pid_of("web")), (Some(1), pid), "{said:?}");
    said.err
}

/// The lines of a page with this label.
fn labelled(page: &str, label: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|line| !line.starts_with(&format!("  {label} ")));
    let own = lines.enumerate().take_while(|(at, line)| *at == 0 || line.starts_with(&" ".repeat(19)));
    own.map(|(_, line)| line.get(19..).unwrap_or_default().to_owned()).collect()
}

#[test]
fn user_the_words_of_the_run_that_failed_are_shown_and_no_others() {
    let place = begun(Who::User, "start-timeout = \"3s\"");
    let log = place.log().join("web/current");
    let said = restarted(&place, 2, "raise");
    let (first, second) = ("Traceback (most recent call last):", "ImportError: no bagels");
    let expected = format!(
        "web: rehearsing it on private sockets: exit status 3; the old generation goes on serving\n  its last output:\n    \
         {first}\n    {second}\nhint: mend it, and restart it again; its output is in `{}`\n",
        log.display()
    );
    assert_eq!(said, expected);
    for command in ["why", "status"] {
        let page = place.ask(&[command, "web"]).out;
        let shown = labelled(&page, "last output");
        assert_eq!(shown, ["(of generation 2, which failed its rehearsal)", first, second], "{page}");
    }
    // What it says of a wrong answer.
    let said = restarted(&place, 3, "wrong");
    let expected = "web: rehearsing it on private sockets: not healthy: probe said 500; the old generation goes on serving\n  its \
                    last output:\n    answering 500 No\n";
    assert!(said.starts_with(expected) && !said.contains("200 OK"), "{said}");
    // And one that says nothing.
    let said = restarted(&place, 4, "hang");
    assert!(said.contains("\n  it wrote nothing\nhint: ") && !said.contains("200 OK"), "{said}");
    assert!(cri::texts(&place.log(), "web").len() > 100, "the old one has said nothing meanwhile");
}

#[test]
fn root_words_that_another_logger_had_are_not_called_none() {
    let mut place = begun(Who::Root, "");
    place.write("work/mode.2", "halt");
    let restart = place.begin(&["restart", "web"]);
    wait::until(wait::LONG, "half of its words", || {
        let lines = cri::texts(&place.log(), "web");
        lines.iter().any(|line| line == "half of it").then_some(())
    });
    place.kill(Role::Logger);
    place.write("work/go", "");
    let said = restart.wait();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("\n  its last output:\n    the rest of it\nhint: "), "{said:?}");
}

/// A message without what differs from run to run: which process it is, and where it listens.
fn plain(said: &str) -> String {
    let mut rest = said;
    let mut plain = String::new();
    for (before, end) in [("its process ", " "), (" listens on 127.0.0.1:", ",")] {
        let (first, behind) = rest.split_once(before).unwrap_or_else(|| panic!("no `{before}` in: {said}"));
        plain += &format!("{first}{before}N");
        rest = &behind[behind.find(end).unwrap_or_default()..];
    }
    plain + rest
}

/// What it says of the one that listens elsewhere, in a unit with this address, and the remedy.
fn elsewhere(place: &Place, none: &str) -> (String, String) {
    let name = std::path::Path::new(python()).file_name().unwrap().to_string_lossy();
    let unit = std::fs::read_to_string(place.path("units/web.toml")).unwrap();
    let address = unit.lines().find_map(|line| line.strip_prefix("listen = \"")?.strip_suffix('"')).unwrap();
    let what = format!(
        "its process N (`{name}`) listens on 127.0.0.1:N, which is none of its sockets, and {}",
        none.replace("ADDRESS", address)
    );
    let hint = "have it take its socket by LISTEN_FDS, or by its number: `{fd:http}` in the command";
    (what, hint.to_owned())
}

const UNSEEN: &str =
    "none of them is seen to wait for the clients of ADDRESS (with select or poll it could not be seen)";
const UNHELD: &str = "none of its processes holds ADDRESS: clients wait there for nobody";

#[test]
fn user_one_of_which_nothing_is_known_that_listens_elsewhere_is_told_so_first() {
    let place = begun(Who::User, "start-timeout = \"6s\"");
    place.write("work/mode.2", "elsewhere");
    let restart = place.begin(&["restart", "web"]);
    let (what, hint) = elsewhere(&place, UNSEEN);
    // It is said while it may still mend itself.
    let problem = wait::until(wait::LONG, "what is seen of it", || {
        let web = place.service("web");
        let problems = web["problems"].as_array()?.iter().filter_map(|one| one.as_str());
        problems.map(str::to_owned).find(|one| one.contains(" listens on "))
    });
    assert_eq!(plain(&problem), format!("generation 2, which is to come: {what}\nhint: {hint}"));
    let said = restart.wait();
    let expected = format!(
        "web: rehearsing it on private sockets: {what}; not healthy: no answer within 1s; the old generation goes on serving\n  \
         it wrote nothing\nhint: {hint}\n"
    );
    assert_eq!((said.code, plain(&said.err)), (Some(1), expected));
    let why = place.ask(&["why", "web"]).out;
    let last = labelled(&why, "last try");
    let told = format!("its rehearsal failed: {what}; not healthy: no answer within 1s");
    assert_eq!(plain(last.get(1).map_or("", String::as_str)), told, "{why}");
    assert_eq!(last.get(2), Some(&format!("hint: {hint}")), "{why}");
}

#[test]
fn user_one_that_can_never_serve_is_not_waited_for() {
    let place = begun(Who::User, "start-timeout = \"10min\"");
    let said = restarted(&place, 2, "astray");
    let (what, _) = elsewhere(&place, UNHELD);
    assert!(
        plain(&said).starts_with(&format!("web: rehearsing it on private sockets: {what}; not healthy")),
        "{said}"
    );
}

#[test]
fn root_what_nothing_proves_does_not_pass_where_it_can_never_serve() {
    let place = begun_plain(Who::Root, "settle = \"10s\"", "");
    let said = restarted(&place, 2, "astray");
    let (what, _) = elsewhere(&place, UNHELD);
    let expected = format!("web: proving itself: {what}; the old generation goes on serving\n");
    assert!(plain(&said).starts_with(&expected), "{said}");
}

#[test]
fn user_what_nothing_proves_is_said_to_be_so() {
    let place = begun_plain(Who::User, "settle = \"10ms\"", "");
    let said = place.order(&["restart", "web"]);
    let expected = "web: not proven: it has been alive for 10ms, and nothing was asked of it; hint: add `[health]`, and a restart \
                    goes on only when the new one answers\n";
    assert_eq!(said.err, expected);
}

#[test]
fn user_of_several_instances_it_is_said_which_one_and_who_goes_back() {
    let place = begun(Who::User, "instances = 2");
    place.write("work/mode.2", "second");
    let said = place.ask(&["restart", "web"]);
    let expected = format!(
        "web: proving itself: instance 2 of 2: exit status 3; the old generation goes on serving; instance 1, which had moved, \
         goes back to it\n  its last output:\n    Traceback (most recent call last):\n    ImportError: no bagels\nhint: its \
         output is in `{}`\n",
        place.log().join("web/current").display()
    );
    assert_eq!((said.code, said.err), (Some(1), expected));
}

#[test]
fn user_an_answer_of_before_is_no_reason() {
    // Its first answer comes while it settles.
    let place = begun_plain(Who::User, "settle = \"3s\"\nstart-timeout = \"4s\"", HEALTH);
    let said = restarted(&place, 2, "once");
    assert!(
        said.starts_with("web: proving itself: not healthy: ") && !said.contains("answered 200"),
        "{said}"
    );
    assert!(said.contains("; the old generation goes on serving\n"), "{said}");
}

#[test]
fn user_a_rehearsal_of_before_is_no_news_of_this_one() {
    let place = begun(Who::User, "");
    restarted(&place, 2, "raise");
    let (mut child, mut lines) = watch(&place, &["--json", "web"]);
    assert_eq!(next(&mut lines)["missed"], 0);
    place.order(&["restart", "web"]);
    place.order(&["stop", "web"]);
    let mut told = Vec::new();
    while told.last().is_none_or(|event: &serde_json::Value| event["event"]["state"] != "stopped") {
        told.push(next(&mut lines));
    }
    let text = told.iter().map(|event| format!("{event}\n")).collect::<String>();
    assert!(text.contains("rehearsal of generation 3 on private sockets"), "{text}");
    assert!(!text.contains("generation 2"), "{text}");
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn user_once_another_has_run_and_ended_the_words_of_the_failure_are_its_own_no_more() {
    let place = begun(Who::User, "");
    restarted(&place, 2, "raise");
    place.order(&["stop", "web"]);
    place.order(&["start", "web"]);
    place.order(&["stop", "web"]);
    let page = place.ask(&["status", "web"]).out;
    let shown = labelled(&page, "last output");
    assert!(shown.len() > 1 && shown.iter().all(|line| line.starts_with("GET / ")), "{page}");
}
