//! What a service does to its sockets is put right before the next process gets them, after a crash too.

use std::net::TcpStream;

use super::place::{Place, Who};
use super::sockets::{another_than, ask, ask_unix};
use super::{processes, wait};

fn a_listener_that_was_shut_down_is_healed_by_a_crash_restart(who: Who) {
    let mut place = Place::new(who);
    let (path, address) = (place.path("made/s"), place.address());
    place.sockets(
        "web",
        &format!("[socket.a]\nlisten = \"{}\"\n[socket.b]\nlisten = \"{address}\"\n", path.display()),
    );
    place.run();
    place.reaches("web", "running");
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

fn what_was_done_to_a_listener_is_undone(who: Who) {
    let mut place = Place::new(who);
    let (path, address) = (place.path("made/s"), place.address());
    place.sockets(
        "web",
        &format!("[socket.a]\nlisten = \"{}\"\n[socket.b]\nlisten = \"{address}\"\n", path.display()),
    );
    place.run();
    place.reaches("web", "running");
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
