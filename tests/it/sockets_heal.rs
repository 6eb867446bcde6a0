//! What a service does to its sockets is put right before the next process gets them, after a crash too.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use super::place::{Place, Who};
use super::servers::{get, python_module, serve, socket, with_servers};
use super::sockets::{another_than, ask, ask_unix};
use super::{processes, wait};

/// A service that runs with `a`, a Unix socket, and `b`, one of TCP.
#[track_caller]
fn with_two_listeners(who: Who) -> (Place, PathBuf, SocketAddr) {
    let mut place = Place::new(who);
    let (path, address) = (place.path("made/s"), place.address());
    place.sockets(
        "web",
        &format!("[socket.a]\nlisten = \"{}\"\n[socket.b]\nlisten = \"{address}\"\n", path.display()),
    );
    place.run();
    place.reaches("web", "running");
    (place, path, address)
}

fn a_listener_that_was_shut_down_is_healed_by_a_crash_restart(who: Who) {
    let (place, path, address) = with_two_listeners(who);
    let unix = |text: &str| ask_unix(&path, text);
    let tcp = |text: &str| ask(TcpStream::connect(address).ok()?, text);
    let pid = unix("who -").unwrap()["pid"].as_u64().unwrap();
    tcp("shut a").unwrap();
    assert!(unix("who -").is_none(), "it is shut");
    processes::signal(pid as u32, 9);
    let pid = another_than(pid, || unix("who -"));
    assert_eq!(tcp("who -").unwrap()["pid"], pid);
    unix("shut b").unwrap();
    assert!(TcpStream::connect(address).is_err(), "it is shut");
    processes::signal(pid as u32, 9);
    let pid = another_than(pid, || tcp("who -"));
    assert_eq!(unix("who -").unwrap()["pid"], pid);
    let said = place.stderr();
    assert!(
        said.contains(&format!("{}: somebody who had it shut it down: bound anew", path.display())),
        "{said}"
    );
}

#[test]
fn root_a_listener_that_was_shut_down_is_healed_by_a_crash_restart() {
    a_listener_that_was_shut_down_is_healed_by_a_crash_restart(Who::Root);
}

#[test]
fn user_a_listener_that_was_shut_down_is_healed_by_a_crash_restart() {
    a_listener_that_was_shut_down_is_healed_by_a_crash_restart(Who::User);
}

/// The old one goes on meanwhile, with what is left to it.
#[track_caller]
fn a_listener_that_was_shut_down_is_healed_by_a_restart(who: Who) {
    let (place, path, address) = with_two_listeners(who);
    let unix = |text: &str| ask_unix(&path, text);
    let tcp = |text: &str| ask(TcpStream::connect(address).ok()?, text);
    let old = unix("who -").unwrap()["pid"].as_u64().unwrap();
    tcp("shut a").unwrap();
    place.order(&["restart", "web"]);
    let new = another_than(old, || unix("who -"));
    assert_eq!(another_than(old, || tcp("who -")), new);
    unix("shut b").unwrap();
    assert!(TcpStream::connect(address).is_err(), "it is shut");
    place.order(&["restart", "web"]);
    let newest = another_than(new, || tcp("who -"));
    assert_eq!(another_than(new, || unix("who -")), newest);
}

#[test]
fn root_a_listener_that_was_shut_down_is_healed_by_a_restart() {
    a_listener_that_was_shut_down_is_healed_by_a_restart(Who::Root);
}

#[test]
fn user_a_listener_that_was_shut_down_is_healed_by_a_restart() {
    a_listener_that_was_shut_down_is_healed_by_a_restart(Who::User);
}

fn what_was_done_to_a_listener_is_undone(who: Who) {
    let (place, path, _) = with_two_listeners(who);
    let unix = |text: &str| ask_unix(&path, text);
    let pid = unix("who -").unwrap()["pid"].as_u64().unwrap();
    for what in ["listen a 1", "listen b 1", "nonblock a", "nonblock b", "lock a"] {
        unix(what).unwrap();
    }
    let backlogs = |place: &Place| {
        let service = place.service("web");
        let sockets = service["sockets"].as_array().unwrap().clone();
        sockets.iter().map(|socket| socket["backlog"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(backlogs(&place), [1, 1]);
    processes::signal(pid as u32, 9);
    another_than(pid, || unix("who -"));
    assert_eq!(unix("who -").unwrap()["blocking"], serde_json::json!({"a": true, "b": true}));
    let most =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse::<u64>().unwrap();
    assert_eq!(backlogs(&place), [most.min(4096), most.min(4096)]);
    assert!(place.stderr().contains("locked a filter on it: bound anew"), "{}", place.stderr());
    wait::until(wait::LONG, "an empty queue", || {
        (place.service("web")["sockets"][0]["queue"] == 0).then_some(())
    });
}

#[test]
fn root_what_was_done_to_a_listener_is_undone() {
    what_was_done_to_a_listener_is_undone(Who::Root);
}

#[test]
fn user_what_was_done_to_a_listener_is_undone() {
    what_was_done_to_a_listener_is_undone(Who::User);
}

/// Servers call listen() with a length of their own, on a socket that all generations share.
#[track_caller]
fn has_the_room_of_its_unit(command: &str, its_own: u32) {
    let mut place = with_servers(Who::User);
    place.write("work/go", "");
    let address = place.address();
    serve(&place, command, &format!("[restart]\ndelay = \"10ms\"\n{}backlog = 3000\n", socket(address)));
    place.run();
    let mut times = 0;
    let mut is_right = |what: &str| {
        times += 1;
        wait::until(wait::LONG, what, || {
            let said = format!("{address}: it let {its_own} connections wait, 3000 may again");
            let all = place.stderr().matches(&said).count() == times;
            (all && place.service("web")["sockets"][0]["backlog"] == 3000).then_some(())
        });
        assert!(get(address).contains(" 200"));
    };
    place.order(&["start", "web"]);
    is_right("its room after a start");
    place.order(&["restart", "web"]);
    is_right("its room after a restart beside the old one");
    place.order(&["restart", "--stop-first", "web"]);
    is_right("its room after a restart");
    processes::signal(place.pid_of("web"), 9);
    is_right("its room after a crash");
}

/// Nobody says when such a server begins to listen.
#[test]
fn user_a_server_that_only_starts_has_the_room_of_its_unit() {
    let mut place = Place::new(Who::User);
    let (path, again) = (place.path("made/s"), place.path("made/again"));
    let script = format!(
        "import os, socket, time\ntaken = socket.socket(fileno=3)\ntaken.listen(5)\nwhile not os.path.exists('{}'):\n    \
         time.sleep(0.02)\ntaken.listen(7)\ntime.sleep(1000)\n",
        again.display()
    );
    place.write("srv/cut.py", &script);
    place.unit(
        "web",
        &format!(
            "command = [\"{}\", \"-S\", \"{}\"]\nserver = \"none\"\nready = \"started\"\nsettle = \"12s\"\n[socket.a]\nlisten = \
             \"{}\"\nbacklog = 100\n",
            super::gunicorn::python(),
            place.path("srv/cut.py").display(),
            path.display()
        ),
    );
    place.run();
    let room = |place: &Place, most: u32| {
        let web = place.service("web");
        (web["sockets"][0]["backlog"] == most).then_some(web["state"].clone())
    };
    let state = wait::until(wait::LONG, "the room that it leaves", || room(&place, 5));
    assert_eq!(state, "starting");
    place.reaches("web", "running");
    assert!(room(&place, 100).is_some(), "when it has proven itself: {}", place.stderr());
    fs::write(&again, "").unwrap();
    wait::until(wait::LONG, "the room that it leaves later", || room(&place, 7));
    place.order(&["stop", "--hold", "web"]);
    assert_eq!(room(&place, 100), Some("listening".into()), "{}", place.stderr());
}

#[test]
fn user_hypercorn_has_the_room_of_its_unit() {
    has_the_room_of_its_unit(&python_module("hypercorn", "app:asgi --bind fd://{fd:http}"), 100);
}

#[test]
fn user_uvicorn_has_the_room_of_its_unit() {
    has_the_room_of_its_unit(&python_module("uvicorn", "app:asgi --fd {fd:http}"), 2048);
}

/// Nobody takes what waits, and there is room for few.
#[test]
fn user_a_queue_that_lets_nobody_in_is_told() {
    let mut place = Place::new(Who::User);
    let (path, address) = (place.path("made/s"), place.address());
    let sockets = format!(
        "[socket.a]\nlisten = \"{}\"\nbacklog = 1\n[socket.b]\nlisten = \"{address}\"\nbacklog = 1\n",
        path.display()
    );
    place.unit(
        "web",
        &format!("command = \"/bin/sleep 1000\"\nserver = \"none\"\nsettle = \"0s\"\n{sockets}"),
    );
    place.run();
    place.reaches("web", "running");
    let unix = || std::os::unix::net::UnixStream::connect(&path).unwrap();
    let tcp = || TcpStream::connect(address).unwrap();
    let waiting = (unix(), tcp());
    assert_eq!(place.service("web")["problems"], serde_json::json!([]), "one may wait");
    let more = (unix(), tcp());
    let full = |at: String| {
        format!(
            "{at}: 2 connections wait and no other is let in: they are not taken as fast as they come\nhint: more workers or \
             `instances`; a longer `backlog` only lets more of them wait"
        )
    };
    let all = [full(path.display().to_string()), full(address.to_string())];
    assert_eq!(place.service("web")["problems"], serde_json::json!(all));
    let why = place.ask(&["why", "web"]).out;
    assert!(all.iter().all(|one| one.lines().all(|line| why.contains(line))), "{why}");
    drop((waiting, more));
}
