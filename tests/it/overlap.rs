//! New before old, instances, and the end of what is essential: real processes.

use std::fs;

use super::place::{Place, Who};
use super::processes;

/// A service with a socket that is never ready and ends where there is a file `broken`.
fn with_socket(place: &Place, more: &str) {
    let broken = place.path("srv/broken");
    let script = format!("test -e {} && exit 4; echo >&9; exec sleep 1000", broken.display());
    let ready = "ready = { fd = 9 }\nsettle = \"0s\"\n";
    let listen = place.path("sock/web.sock");
    let socket = format!("[socket.local]\nlisten = \"{}\"\n", listen.display());
    place.unit("web", &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\n{ready}{more}{socket}"));
}

#[test]
fn root_a_broken_new_one_leaves_the_old_one_untouched() {
    let mut place = Place::new(Who::Root);
    with_socket(&place, "");
    place.run();
    place.reaches("web", "running");
    let pid = place.pid_of("web");
    place.write("srv/broken", "");
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("exit status 4"), "{said:?}");
    assert!(processes::lives(pid), "the old one is gone");
    let service = place.reaches("web", "running");
    assert_eq!((service["pid"].as_u64(), service["generation"].as_u64()), (Some(pid.into()), Some(1)));
    fs::remove_file(place.path("srv/broken")).unwrap();
    place.order(&["restart", "web"]);
    assert_ne!(place.pid_of("web"), pid, "no new one");
}

#[test]
fn root_each_instance_has_its_number_and_more_and_fewer_can_be_had() {
    let mut place = Place::new(Who::Root);
    with_socket(&place, "instances = 2\n");
    place.run();
    place.reaches("web", "running");
    let numbers = |place: &Place| -> Vec<String> {
        let service = place.service("web");
        let all = service["instances"].as_array().unwrap().iter();
        let pids = all.filter(|one| one["role"] == "current").map(|one| one["pid"].as_u64().unwrap() as u32);
        let number = |pid| {
            processes::environment(pid).into_iter().find(|pair| pair.starts_with("SUPERVISE_INSTANCE="))
        };
        pids.filter_map(number).collect()
    };
    let named =
        |count: u32| (1..=count).map(|number| format!("SUPERVISE_INSTANCE={number}")).collect::<Vec<_>>();
    assert_eq!(numbers(&place), named(2));
    place.order(&["scale", "web", "3"]);
    assert_eq!(numbers(&place), named(3));
    place.order(&["restart", "web"]);
    assert_eq!(numbers(&place), named(3));
    place.order(&["scale", "web", "1"]);
    assert_eq!(numbers(&place), named(1));
}

#[test]
fn root_the_end_of_what_is_essential_is_the_end_of_all() {
    let mut place = Place::new(Who::Root);
    let go = place.path("work/go");
    let script = format!("while ! test -e {}; do sleep 0.05; done; exit 7", go.display());
    place.unit("main", &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\nessential = true\n"));
    place.unit("beside", "command = [\"sleep\", \"1000\"]\n");
    place.run();
    place.reaches("beside", "running");
    let beside = place.pid_of("beside");
    fs::write(&go, "").unwrap();
    let keeper = place.keeper.take().unwrap();
    assert_eq!(keeper.wait().code(), Some(7), "{}", place.stderr());
    assert!(!processes::lives(beside), "it outlives the supervisor");
}

#[test]
fn root_a_service_that_is_held_keeps_its_socket() {
    let mut place = Place::new(Who::Root);
    with_socket(&place, "");
    place.run();
    place.reaches("web", "running");
    place.order(&["stop", "--hold", "web"]);
    place.reaches("web", "listening");
    let waits = std::os::unix::net::UnixStream::connect(place.path("sock/web.sock"));
    assert!(waits.is_ok(), "{waits:?}");
    place.order(&["stop", "web"]);
    place.reaches("web", "stopped");
    assert!(std::os::unix::net::UnixStream::connect(place.path("sock/web.sock")).is_err());
}
