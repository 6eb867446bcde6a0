//! A service is healthy when it says so itself, in the way that its unit asks it: `[health]`, on real servers.

use serde_json::Value;

use super::place::{Place, Who};
use super::servers::{get, python_module, serve, socket, uwsgi, with_servers};
use super::wait;

/// Starts a service that is ill, sees what is said of it, and that it is ready once it is well.
#[track_caller]
fn is_ready_when_it_is_well(place: &mut Place, gate: &str, ill: &str) {
    place.write("work/go", "");
    place.write("work/status", "503 Busy");
    place.run();
    let start = place.begin(&["start", "web"]);
    let told = |web: &Value| web["problems"][0] == format!("not healthy: {ill}");
    let web = wait::until(wait::LONG, ill, || Some(place.service("web")).filter(told));
    assert_eq!(
        (web["state"].as_str(), web["gate"].as_str(), web["healthy"].as_bool()),
        (Some("starting"), Some(gate), Some(false))
    );
    place.write("work/status", "200 OK");
    let said = start.wait();
    assert_eq!(said.code, Some(0), "{said:?}\n{}", place.stderr());
    let web = place.service("web");
    assert_eq!((web["state"].as_str(), web["healthy"].as_bool()), (Some("running"), Some(true)), "{web:#}");
    assert_eq!(web["problems"], serde_json::json!([]), "{web:#}");
}

const READY: &str = "ready = \"health\"\n";

#[test]
fn root_gunicorn_is_asked_on_its_own_listener() {
    let mut place = with_servers(Who::Root);
    let rest = format!("{READY}{}[health]\nhttp = \"/healthz\"\n", socket(place.address()));
    serve(&place, &python_module("gunicorn", "app:app --no-control-socket"), &rest);
    is_ready_when_it_is_well(&mut place, "private probe: healthy, then alive for 0s", "probe said 503");
}

#[test]
fn root_uwsgi_is_asked_for_health_in_its_own_protocol() {
    let mut place = with_servers(Who::Root);
    let rest = format!("{READY}{}[health]\nuwsgi = \"/healthz\"\n", socket(place.path("web.sock").display()));
    serve(&place, &uwsgi(&place, "--wsgi-file app.py"), &rest);
    is_ready_when_it_is_well(&mut place, "private probe: healthy, then alive for 0s", "probe said 503");
}

#[test]
fn user_hypercorn_is_asked_where_its_command_says() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    let rest = format!("{READY}{}[health]\nhttp = \"/healthz\"\n", socket(address));
    let command = python_module("hypercorn", "app:asgi --bind fd://{fd:http} --bind fd://{fd:health}");
    serve(&place, &command, &rest);
    is_ready_when_it_is_well(&mut place, "private probe: healthy, then alive for 0s", "probe said 503");
    assert!(get(address).contains(" 200"));
}

#[test]
fn user_uvicorn_is_asked_on_its_socket() {
    let mut place = with_servers(Who::User);
    let rest = format!("{READY}{}[health]\nhttp = \"/healthz\"\n", socket(place.address()));
    serve(&place, &python_module("uvicorn", "app:asgi --fd {fd:http}"), &rest);
    is_ready_when_it_is_well(&mut place, "public probe: healthy, then alive for 0s", "probe said 503");
}

#[test]
fn root_a_command_decides_with_the_services_rights() {
    let mut place = with_servers(Who::Root);
    let check = "[\"/bin/sh\", \"-c\", \"id -u > $WORK/uid; echo it is $(cat $WORK/status); grep -q 200 $WORK/status\"]";
    let rest = format!("{READY}{}[health]\ncommand = {check}\n", socket(place.address()));
    serve(&place, &python_module("gunicorn", "app:app --no-control-socket"), &rest);
    let gate = "health: its command succeeds, then alive for 0s";
    is_ready_when_it_is_well(&mut place, gate, "its command said 1: it is 503 Busy");
    // Another look may be writing it anew.
    let uid = wait::until(wait::LONG, "the command's uid", || {
        std::fs::read_to_string(place.path("work/uid")).ok().filter(|uid| uid.ends_with('\n'))
    });
    assert_eq!(uid.trim(), place.account.uid.to_string());
}

#[test]
fn user_one_that_is_never_well_fails_to_start_and_says_why() {
    let mut place = with_servers(Who::User);
    place.write("work/go", "");
    place.write("work/status", "503 Busy");
    let rest = format!(
        "{READY}start-timeout = \"15s\"\n[restart]\npolicy = \"never\"\n{}[health]\nhttp = \"/\"\n",
        socket(place.address())
    );
    serve(&place, &python_module("gunicorn", "app:app --no-control-socket"), &rest);
    place.run();
    let said = place.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("not ready within 15s: not healthy: probe said 503"), "{said:?}");
}

/// Both generations answer on the one socket; only what the new one says counts for it.
#[track_caller]
fn only_the_new_generation_proves_itself(who: Who, path: Option<&str>) {
    let mut place = with_servers(who);
    let address = match path {
        Some(path) => place.path(path).display().to_string(),
        None => place.address().to_string(),
    };
    place.write("work/go", "");
    let rest = format!("{READY}start-timeout = \"25s\"\n{}[health]\nhttp = \"/\"\n", socket(&address));
    serve(&place, &python_module("uvicorn", "app:asgi --fd {fd:http}"), &rest);
    place.run();
    place.order(&["start", "web"]);
    place.write("work/status.2", "503 Busy");
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    // What it has said itself is told, whoever took the connections after that.
    assert!(said.err.contains("not ready within 25s: not healthy: probe said 503"), "{said:?}");
    assert_eq!(place.service("web")["generation"], 1, "the old one goes on");
    // And where it is well it takes over, whoever answers first.
    place.write("work/status.2", "200 OK");
    place.write("work/status.3", "200 OK");
    place.order(&["restart", "web"]);
}

#[test]
fn user_the_answers_of_the_old_generation_prove_nothing_of_the_new_one() {
    only_the_new_generation_proves_itself(Who::User, None);
}

#[test]
fn root_nor_do_they_on_a_unix_socket() {
    only_the_new_generation_proves_itself(Who::Root, Some("web.sock"));
}
