//! The socket stays open while its service is restarted: clients wait, none is refused.

use super::load::{Load, Target};
use super::place::{Place, Who};
use super::{processes, wait};

const RESTARTS: usize = 5;

fn under_load(who: Who) {
    let mut place = Place::with_gunicorn(who);
    let (address, path) = (place.address(), place.path("sock/web.sock"));
    place.web(
        "web",
        &format!("[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\n", path.display()),
    );
    place.run();
    place.reaches("web", "running");
    let load = Load::start(vec![Target::Tcp(address), Target::Unix(path)], 200);
    load.goes_on(50);
    let mut pids = vec![place.pid_of("web")];
    for _ in 0..RESTARTS {
        place.order(&["restart", "web"]);
        let pid = place.pid_of("web");
        assert!(!pids.contains(&pid), "no new one");
        pids.push(pid);
        load.goes_on(50);
    }
    // Also where nobody asked for it.
    processes::signal(*pids.last().unwrap(), 9);
    wait::until(wait::LONG, "the next one", || {
        let web = place.service("web");
        (web["restarts"] == 1 && web["state"] == "running").then_some(())
    });
    load.goes_on(50);
    let outcome = load.end();
    // A request that a killed worker was answering is lost with it; one that waited is not.
    let (cut, failed): (Vec<_>, Vec<_>) =
        outcome.failures.iter().partition(|(_, why)| why.contains("reading: ") || why.contains("cut off"));
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(cut.len() <= 2, "more than the two workers can have had in hand: {cut:#?}");
    assert_eq!(outcome.bodies.len(), RESTARTS + 2, "{:?}", outcome.bodies);
}

#[test]
fn root_no_request_is_refused_while_a_service_restarts() {
    under_load(Who::Root);
}

#[test]
fn user_no_request_is_refused_while_a_service_restarts() {
    under_load(Who::User);
}
