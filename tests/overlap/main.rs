//! New before old, on real servers under load: what clients notice of restarts, which is nothing, and of restarts that
//! go wrong, which is nothing either. The bench `overlap` measures the same at length.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../it/accounts.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod accounts;
#[path = "../it/gunicorn.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod gunicorn;
#[path = "../../benches/overlap/load.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod load;
#[path = "../../benches/overlap/ours.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod ours;
#[path = "../it/pypi.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod pypi;
#[path = "../../benches/overlap/servers.rs"]
#[allow(dead_code, reason = "the bench uses more of it")]
mod servers;

use std::time::{Duration, Instant};

use load::{Load, Phase, Plan};
use ours::Ours;
use servers::{BROKEN, SERVERS};

/// Requests a second, at the server's sockets in turn.
const RATE: u32 = 40;
/// Time enough to start for all of them at once.
const START_TIMEOUT: &str = "20s";
/// Good restarts; as many as it takes to see that the one after an overlap overlaps too.
const RESTARTS: u32 = 2;

fn begin(ours: &Ours, path: &'static str, per_second: u32, keep_alive: bool) -> Load {
    let plan = Plan { targets: ours.targets.clone(), path, per_second, clients: 48, keep_alive };
    Load::start(plan).unwrap()
}

#[track_caller]
fn none_failed(what: &str, phases: &[Phase], closed: usize) {
    let failures: Vec<&String> = phases.iter().flat_map(|phase| &phase.failures).collect();
    let asked: usize = phases.iter().map(Phase::asked).sum();
    let cut = failures.iter().filter(|why| why.ends_with(": closed without an answer")).count().min(closed);
    assert!(failures.len() == cut, "{what}: {} of {asked} failed: {failures:#?}", failures.len());
    assert!(asked > 0, "{what}: nothing was asked");
}

/// Connections that good restarts of a server may close although a client has just sent something there. When uvicorn
/// or hypercorn is told to stop it closes what it has accepted and not yet read from; a busy machine makes that moment long
/// enough to be hit now and then: of hypercorn once in some thousands of requests, of uvicorn more often.
fn may_close(name: &str) -> usize {
    match name {
        "uvicorn" => RESTARTS as usize + 1,
        "hypercorn" => 1,
        _ => 0,
    }
}

fn nobody_notices(name: &str, keep_alive: bool) {
    assert!(nix::unistd::geteuid().is_root(), "needs root: the services change their user");
    let server = SERVERS.iter().find(|server| server.name == name).unwrap();
    let ours = Ours::start(server, START_TIMEOUT).unwrap();
    let quick = begin(&ours, "/", RATE, keep_alive);
    let slow = begin(&ours, "/slow", 1, false);
    let mut pids = vec![ours.pid()];
    for round in 0..RESTARTS {
        let said = ours.order(&["restart", "web"]).unwrap();
        assert_eq!(said.code, Some(0), "restart {round}: {}", said.err);
        let pid = ours.pid();
        assert!(!pids.contains(&pid), "restart {round}: nothing new runs");
        pids.push(pid);
    }
    for broken in BROKEN {
        if !server.can_be(broken) {
            continue;
        }
        ours.mode(broken).unwrap();
        let said = ours.order(&["restart", "web"]).unwrap();
        assert_eq!(said.code, Some(1), "a restart broken by `{broken}`: {}", said.err);
        let step = "web: rehearsing it on private sockets:";
        assert!(said.err.contains(step), "`{broken}`: no client was to hear it: {}", said.err);
        // The old one writes of each request that it answers.
        let answers = ["HTTP/1.1\" 200", "(HTTP/1.1 200)"];
        let told = answers.iter().any(|answer| said.err.contains(answer));
        assert!(!told, "`{broken}`: not its own words: {}", said.err);
        assert_eq!(ours.pid(), *pids.last().unwrap(), "`{broken}` has touched what runs");
    }
    // And back to good ones, as if nothing had been.
    ours.mode("good").unwrap();
    let said = ours.order(&["restart", "web"]).unwrap();
    assert_eq!(said.code, Some(0), "the last restart: {}", said.err);
    load::reach(Instant::now() + Duration::from_secs(1)); // what comes in behind it is asked of the new one
    for (what, phases) in [("quick requests", quick.end()), ("requests of two seconds", slow.end())] {
        none_failed(what, &phases, may_close(name));
    }
    ours.stop().unwrap();
}

/// All of them at once: most of the time each waits for an import, or for requests of two seconds.
#[test]
fn root_nobody_notices_restarts_of_real_servers() {
    let kept = ["gunicorn-gthread"];
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let begin = |server: &'static servers::Server| {
            let name = server.name;
            let one = std::thread::Builder::new().name(name.to_owned());
            (name, one.spawn_scoped(scope, move || nobody_notices(name, kept.contains(&name))).unwrap())
        };
        let all: Vec<_> = SERVERS.iter().map(begin).collect();
        all.into_iter().filter_map(|(name, one)| one.join().is_err().then_some(name)).collect()
    });
    assert!(failed.is_empty(), "of these somebody noticed, as said above: {failed:?}");
}
