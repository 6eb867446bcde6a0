//! A new generation that is bad is never heard by a client: it is rehearsed on private sockets first. Real servers.

use std::fs;

use serde_json::json;

use super::gunicorn::python;
use super::load::{Load, Target};
use super::place::{Place, Who};
use super::servers::{python_module, serve, socket, with_servers};
use super::supervisor::{Role, Said};
use super::{processes, wait};

const HEALTH: &str = "[health]\nhttp = \"/\"\ninterval = \"off\"\n";
/// Requests a second.
const RATE: u32 = 40;

/// The lines of the supervisor about starts and ends, without what differs from run to run.
fn story(place: &Place) -> Vec<String> {
    let said = place.stderr();
    let about = said.lines().filter_map(|line| line.split_once("service=web gen=").map(|(_, rest)| rest));
    let plain = about.map(|line| {
        let words = line.split(' ').filter(|word| !word.starts_with("pid="));
        words.collect::<Vec<_>>().join(" ")
    });
    let plain = plain.map(|line| line.split(" next=").next().unwrap_or_default().to_owned());
    plain.filter(|line| line.ends_with(" started") || line.ends_with(" gone")).collect()
}

#[track_caller]
fn refused(place: &Place, said: &Said, why: &str) {
    let log = place.log().join("web/current");
    let expected = format!(
        "web: rehearsing it on private sockets: {why}; the old generation goes on serving\nhint: mend it, and restart it \
         again; its output is in `{}`\n",
        log.display()
    );
    // What the server itself says comes in between.
    let own = |line: &&str| !line.starts_with("  ");
    let told: String = said.err.lines().filter(own).map(|line| format!("{line}\n")).collect();
    assert_eq!((said.code, told), (Some(1), expected), "{}", place.stderr());
}

#[track_caller]
fn none_failed(load: Load) {
    let outcome = load.end();
    assert!(outcome.failures.is_empty(), "of {}: {:#?}", outcome.answered, outcome.failures);
    assert!(outcome.answered > 0, "nothing was asked");
}

#[test]
fn root_one_that_answers_wrongly_is_never_heard() {
    let mut place = with_servers(Who::Root);
    let (address, path) = (place.address(), place.path("web.sock"));
    let rest = format!("{}[socket.local]\nlisten = \"{}\"\n{HEALTH}", socket(address), path.display());
    serve(&place, &python_module("gunicorn", "app:app --no-control-socket"), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    let pid = place.pid_of("web");
    let load = Load::start(vec![Target::Tcp(address), Target::Unix(path)], RATE);
    place.write("work/status.2", "500 No");
    refused(&place, &place.ask(&["restart", "web"]), "not healthy: probe said 500");
    assert_eq!(place.pid_of("web"), pid, "what ran was touched");
    let why = place.ask(&["why", "web"]);
    assert!(why.out.contains("its rehearsal failed: not healthy: probe said 500"), "{why:?}");
    let web = place.service("web");
    assert_eq!((&web["exit"], &web["problems"]), (&json!(null), &json!([])), "of what serves: {web:#}");
    place.order(&["restart", "web"]);
    none_failed(load);
    let why = place.ask(&["why", "web"]);
    assert!(why.out.contains("its rehearsal passed: success"), "{why:?}");
    assert_eq!(
        story(&place).get(..6).unwrap_or_default(),
        [
            "1 run=1 started",
            "2 run=2 rehearsal started",
            "2 run=2 rehearsal gone",
            "3 run=3 rehearsal started",
            "3 run=3 rehearsal gone",
            "3 run=4 started",
        ]
    );
    let second = processes::environment(place.pid_of("web"));
    assert!(second.contains(&"SERVER_STARTER_GENERATION=2".to_owned()), "a rehearsal counts: {second:?}");
}

/// Answers, and does not end when it is asked to.
const STAYS: &str = "
import signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.recv(4096)
    client.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')
    client.close()
";

#[test]
fn user_one_that_has_passed_and_does_not_end_is_no_gate_any_longer() {
    let mut place = Place::new(Who::User);
    place.write("srv/stays.py", STAYS);
    let command = format!("command = [\"{}\", \"-S\", \"stays.py\"]", python());
    let service = format!("{command}\nsettle = \"10ms\"\nstop-timeout = \"4s\"\n");
    place.unit("web", &format!("{service}{}{HEALTH}", socket(place.address())));
    place.run();
    place.reaches("web", "running");
    let gate = place.service("web")["gate"].clone();
    let restart = place.begin(&["restart", "web"]);
    let ending = |web: &serde_json::Value| {
        let mut instances = web["instances"].as_array().unwrap().iter();
        instances.any(|one| (&one["role"], &one["state"]) == (&json!("next"), &json!("stopping")))
    };
    let web =
        wait::until(wait::LONG, "the end of its rehearsal", || Some(place.service("web")).filter(ending));
    assert_eq!(web["gate"], gate, "{web:#}");
    let said: Said = restart.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// The same where the stand-in itself is probed.
#[track_caller]
fn is_asked_on_its_stand_in(who: Who, address: impl std::fmt::Display, place: &mut Place) {
    let rest = format!("{}{HEALTH}", socket(address));
    serve(place, &python_module("uvicorn", "app:asgi --fd {fd:http}"), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    let pid = place.pid_of("web");
    place.write("work/status.2", "503 Busy");
    refused(place, &place.ask(&["restart", "web"]), "not healthy: probe said 503");
    assert_eq!(place.pid_of("web"), pid, "what ran was touched");
    place.order(&["restart", "web"]);
    assert_ne!(place.pid_of("web"), pid);
    let left = fs::read_dir(place.path("run/probe")).map(|all| all.count()).unwrap_or(0);
    assert_eq!(left, 0, "{who:?}: the stand-ins' files are left");
}

#[test]
fn root_a_stand_in_of_a_unix_socket_is_reached_by_its_probe() {
    let mut place = with_servers(Who::Root);
    is_asked_on_its_stand_in(Who::Root, place.path("web.sock").display().to_string(), &mut place);
}

#[test]
fn user_a_stand_in_of_a_tcp_socket_is_too() {
    let mut place = with_servers(Who::User);
    is_asked_on_its_stand_in(Who::User, place.address(), &mut place);
}

#[test]
fn user_where_its_sockets_cannot_be_made_there_is_no_rehearsal() {
    let mut place = with_servers(Who::User);
    let rest = format!("{}{HEALTH}", socket(place.path("web.sock").display()));
    serve(&place, &python_module("uvicorn", "app:asgi --fd {fd:http}"), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    let pid = place.pid_of("web");
    place.write("run/probe", ""); // where their directory is to be
    place.order(&["restart", "web"]);
    assert_ne!(place.pid_of("web"), pid);
    let why = "no rehearsal: making its private sockets: ";
    let web = place.service("web");
    assert!(web["gate"].as_str().is_some_and(|gate| gate.contains(&format!("; {why}"))), "{web:#}");
    let said = place.stderr();
    assert_eq!(said.matches(&format!("service=web gen=2 run=2 {why}")).count(), 1, "{said}");
    let story = story(&place);
    assert_eq!(story.get(..2).unwrap_or_default(), ["1 run=1 started", "2 run=3 started"], "{story:?}");
    // As soon as they can be made there is one again.
    fs::remove_file(place.path("run/probe")).unwrap();
    place.order(&["restart", "web"]);
    assert!(place.stderr().contains("service=web gen=3 run=4 rehearsal "), "{}", place.stderr());
    let web = place.service("web");
    assert!(web["gate"].as_str().is_some_and(|gate| !gate.contains("no rehearsal")), "{web:#}");
}

#[test]
fn user_one_that_listens_elsewhere_is_told_so() {
    let mut place = with_servers(Who::User);
    let rest = format!("start-timeout = \"20s\"\n{}{HEALTH}", socket(place.address()));
    let other = place.path("work/elsewhere");
    let script = format!(
        "test -e {0} && exec {1} -m http.server --bind 127.0.0.1 0 >/dev/null 2>&1; exec {1} -m gunicorn app:app \
         --no-control-socket",
        other.display(),
        super::gunicorn::python()
    );
    serve(&place, &format!("[\"/bin/sh\", \"-c\", \"{script}\"]\nserver = \"gunicorn\""), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    let pid = place.pid_of("web");
    place.write("work/elsewhere", "");
    let said = place.ask(&["restart", "web"]);
    assert_eq!((said.code, place.pid_of("web")), (Some(1), pid), "{said:?}");
    let (first, rest) = said.err.split_once(" listens on 127.0.0.1:").unwrap_or((&said.err, ""));
    // Which process it is differs.
    let first = first.rsplit_once(" process ").map_or(first, |(text, _which)| text);
    assert_eq!(first, "web: rehearsing it on private sockets: its", "{said:?}");
    assert!(
        rest.contains("; not ready within 20s: no answer on its private probe socket; the old"),
        "{said:?}"
    );
    assert!(
        rest.contains("none of its sockets") && rest.contains("\nhint: have it take its socket"),
        "{said:?}"
    );
}

#[test]
fn root_another_manager_goes_on_with_a_rehearsal() {
    let mut place = with_servers(Who::Root);
    let rest = format!("{}{HEALTH}", socket(place.address()));
    serve(&place, &python_module("uvicorn", "app:asgi --fd {fd:http}"), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    fs::remove_file(place.path("work/go")).unwrap();
    fs::remove_file(place.path("work/importing")).unwrap();
    let restart = place.begin(&["restart", "web"]);
    wait::until(wait::LONG, "the rehearsal to import", || {
        place.path("work/importing").exists().then_some(())
    });
    let web = place.service("web");
    let gate = web["gate"].as_str().unwrap_or_default();
    assert!(gate.starts_with("rehearsal on private sockets, where no client hears it; then "), "{gate}");
    let roles: Vec<&str> =
        web["instances"].as_array().unwrap().iter().filter_map(|one| one["role"].as_str()).collect();
    assert_eq!(roles, ["current", "next"], "{web:#}");
    place.kill(Role::Manager);
    place.write("work/go", "");
    let said = restart.wait();
    assert_eq!(said.code, Some(0), "{said:?}\n{}", place.stderr());
    let story = story(&place);
    let begun: Vec<&String> = story.iter().filter(|line| line.ends_with("started")).collect();
    assert_eq!(begun, ["1 run=1 started", "2 run=2 rehearsal started", "2 run=3 started"], "{story:?}");
}

/// What stands in the way of a rehearsal leaves nothing behind of what was made for it before, and the supervisor's end
/// leaves nothing at all.
#[test]
fn root_a_rehearsal_that_cannot_begin_leaves_no_file() {
    let mut place = with_servers(Who::Root);
    let rest = format!("watchdog = \"600s\"\n{}{HEALTH}", socket(place.path("web.sock").display()));
    serve(&place, &python_module("gunicorn", "app:app --no-control-socket"), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    let pid = place.pid_of("web");
    // Where its second incarnation is to be asked there is a directory that cannot be removed.
    fs::create_dir_all(place.path("run/probe/2/full")).unwrap();
    let said = place.ask(&["restart", "web"]);
    assert_eq!((said.code, place.pid_of("web")), (Some(1), pid), "{said:?}");
    assert!(said.err.contains("making the socket on which it is asked whether it answers"), "{said:?}");
    let left = |name: &str| {
        let all = fs::read_dir(place.path(name)).unwrap().flatten();
        let mut all: Vec<String> = all.map(|one| one.file_name().to_string_lossy().into_owned()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(
        (left("run/notify"), left("run/probe")),
        (vec!["1".to_owned()], vec!["1".to_owned(), "2".to_owned()])
    );
    fs::remove_dir_all(place.path("run/probe/2")).unwrap();
    for name in ["run/notify/99", "run/probe/99", "run/probe/99.3"] {
        place.write(name, "");
    }
    let keeper = place.role(Role::Keeper);
    processes::signal(keeper, libc::SIGTERM);
    wait::until(wait::LONG, "its end", || processes::of(place.root()).is_empty().then_some(()));
    // What was in them goes with them.
    assert_eq!(["run/notify", "run/probe"].map(|name| place.path(name).exists()), [false, false]);
}
