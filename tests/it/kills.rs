//! Any process of supervise can be killed at any time: no request fails, nothing starts twice, no line is lost.

use std::time::{Duration, Instant};

use super::load::{Load, Target, get};
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{cri, gunicorn, processes, wait};

/// Kills of one kind in a test.
const ROUNDS: usize = 10;
/// Kills of the zygote or the logger alone: a keeper starts those again after 0, 0.1, 1, 5 and 5 seconds.
const SLOW_ROUNDS: usize = 4;
/// Requests in a second, over both sockets.
const RATE: u32 = 200;
/// Lines that the writer writes after it has been told that the kill was made.
const REST: usize = 12_000;

/// Writes numbered lines from the first signal until the second, and then `REST` more as fast as they are taken: half
/// of them one by one, half in large pieces that the pipe cuts anywhere. So a kill between the signals is always in the
/// middle of them, and how many they are is bounded also where the second is long in coming.
const WRITER: &str = r#"
import os, signal
begin, end = signal.SIGUSR1, signal.SIGUSR2
signal.pthread_sigmask(signal.SIG_BLOCK, {begin, end})
number = 0
def put(data):
    while data:
        data = data[os.write(1, data):]
def lines(count):
    global number
    said = [b"%d %s\n" % (n, b"x" * 40) for n in range(number + 1, number + 1 + count)]
    number += count
    return said
def some(count):
    for line in lines(count // 2):
        put(line)
    put(b"".join(lines(count // 2)))
put(b"0 ready\n")
while True:
    signal.sigwait({begin})
    while signal.sigtimedwait({end}, 0.005) is None:
        some(200)
    some(REST)
    number += 1
    put(b"%d over\n" % number)
"#;

struct Bench {
    place: Place,
    load: Option<Load>,
    master: u32,
    /// The number of the last line of the last burst.
    written: usize,
    /// How long control took at the least to answer after a kill of each kind, and how long it may.
    quickest: Vec<(Role, Duration, Duration)>,
}

impl Bench {
    fn start(who: Who) -> Self {
        let mut place = Place::with_gunicorn(who);
        let (address, path) = (place.address(), place.path("sock/web.sock"));
        place.web(
            "web",
            &format!(
                "[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\n",
                path.display()
            ),
        );
        place.write("srv/writer.py", &WRITER.replace("REST", &REST.to_string()));
        let python = gunicorn::python();
        place.unit(
            "writer",
            &format!("command = [\"{python}\", \"-S\", \"writer.py\"]\n[log]\nkeep = 1000\n"),
        );
        place.unit("other", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"20ms\"\n");
        place.run();
        let targets = vec![Target::Tcp(address), Target::Unix(path)];
        get(&targets[0]).unwrap();
        let first = || cri::texts(&place.log(), "writer").first().is_some_and(|line| line == "0 ready");
        wait::until(wait::LONG, "the writer's first line", || first().then_some(()));
        let master = place.pid_of("web");
        let load = Load::start(targets, RATE);
        load.goes_on(RATE as usize / 4);
        Self { place, load: Some(load), master, written: 0, quickest: Vec::new() }
    }

    /// The number of the last line in the log, and whether it is the last of its burst.
    fn last_line(&self) -> Option<(usize, bool)> {
        let files = cri::files(&self.place.log(), "writer");
        for path in files.iter().rev() {
            let bytes = std::fs::read(path).unwrap_or_default();
            let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(400)..]).into_owned();
            let whole = tail.rfind('\n').map_or("", |end| &tail[..end]);
            if let Some(line) = whole.lines().last() {
                return Some((line.split(' ').nth(3)?.parse().ok()?, line.ends_with(" over")));
            }
        }
        None
    }

    /// Kills one of the processes in the middle of a burst of lines, and sees that all goes on: control answers, the
    /// burst arrives whole, another service restarts. Within `most` control answers at least once of all kills of the
    /// kind, beside the time of ten plain answers: what else the machine does can make any of them slow, and what is
    /// slow by itself is so each time.
    fn kill(&mut self, role: Role, most: Duration) {
        let before = self.written;
        // How long it takes to be answered when nothing has happened.
        let plain = self.place.order(&["status", "--json"]).took;
        let (manager, other) = (self.place.role(Role::Manager), self.place.pid_of("other"));
        let (killed, writer) = (self.place.role(role), self.place.pid_of("writer"));
        processes::signal(writer, libc::SIGUSR1);
        wait::until(wait::LONG, "the burst to begin", || (self.last_line()?.0 > before).then_some(()));
        self.place.kill_at_once(killed);
        processes::signal(writer, libc::SIGUSR2);
        let began = Instant::now();
        self.has_recovered(role, killed, manager);
        let took = began.elapsed();
        let took = took.saturating_sub(10 * plain);
        match self.quickest.iter_mut().find(|(its, ..)| *its == role) {
            Some((_, quickest, _)) => *quickest = took.min(*quickest),
            None => self.quickest.push((role, took, most)),
        }
        self.written = wait::until(wait::LONG, "the rest of the burst", || {
            let (number, over) = self.last_line()?;
            (over && number > before).then_some(number)
        });
        assert!(self.written > before + REST, "{before} to {}", self.written);
        self.place.order(&["restart", "other"]);
        assert_ne!(self.place.pid_of("other"), other, "`restart` started nothing");
        assert_eq!(self.place.pid_of("web"), self.master, "another gunicorn after kill -9 of the {role:?}");
        self.load.as_ref().unwrap().goes_on(RATE as usize / 4);
    }

    fn has_recovered(&self, role: Role, killed: u32, manager: u32) {
        wait::until(wait::LONG, "control to answer", || {
            let status = self.place.try_status()?;
            let supervisor = &status["supervisor"];
            let keeper = supervisor["keeper_pid"].as_u64()? as u32;
            let now = supervisor["pid"].as_u64()? as u32;
            let good = match role {
                Role::Manager => now != killed,
                Role::Keeper => keeper != killed && now != manager,
                Role::Zygote => processes::role_below(keeper, "zygote").is_some_and(|pid| pid != killed),
                Role::Logger => processes::role_below(keeper, "logger").is_some_and(|pid| pid != killed),
            };
            good.then_some(())
        });
    }

    /// Ends the load and looks back at all of it.
    fn end(mut self) {
        let outcome = self.load.take().unwrap().end();
        outcome.assert_none_failed();
        for (role, quickest, most) in &self.quickest {
            assert!(
                quickest <= most,
                "after kill -9 of the {role:?} control answered after {quickest:?} at the best"
            );
        }
        let expected = format!("{} ", self.master);
        assert!(outcome.bodies.iter().all(|body| body.starts_with(&expected)), "{:?}", outcome.bodies);
        assert_eq!(outcome.bodies.len(), 1, "two incarnations answered: {:?}", outcome.bodies);
        let starts = cri::texts(&self.place.log(), "web");
        let starts = starts.iter().filter(|line| line.contains("Starting gunicorn")).count();
        assert_eq!(starts, 1, "gunicorn was started more than once");
        let service = self.place.service("web");
        assert_eq!((&service["restarts"], &service["generation"]), (&0.into(), &1.into()), "{service:#}");
        let lines = cri::texts(&self.place.log(), "writer");
        let numbers: Vec<usize> = lines
            .iter()
            .map(|line| line.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(usize::MAX))
            .collect();
        let wrong = numbers.iter().enumerate().find(|(place, number)| place != *number);
        assert_eq!(wrong, None, "a line was lost or doubled: place and number of the first that is wrong");
        assert_eq!(numbers.len(), self.written + 1);
        let whole = |line: &String| line.ends_with(&"x".repeat(40)) || line.ends_with(" over");
        assert!(lines.iter().skip(1).all(whole), "a line was cut");
    }
}

const QUICK: Duration = Duration::from_secs(1);
/// A new keeper is waited for during 2 s before the manager takes its place.
const KEEPER: Duration = Duration::from_secs(4);
/// The last of the delays before a zygote or a logger is started again.
const DELAYED: Duration = Duration::from_secs(7);

fn one_kind(who: Who, role: Role, rounds: usize, most: Duration) {
    let mut bench = Bench::start(who);
    for _ in 0..rounds {
        bench.kill(role, most);
    }
    bench.end();
}

fn all_in_turn(who: Who) {
    let mut bench = Bench::start(who);
    for round in 0..ROUNDS {
        // In another order each time, the keeper last: a new one begins its delays anew.
        let mut others = [(Role::Manager, QUICK), (Role::Zygote, QUICK), (Role::Logger, QUICK)];
        others.rotate_left(round % 3);
        for (role, most) in others {
            bench.kill(role, most);
        }
        bench.kill(Role::Keeper, KEEPER);
    }
    bench.end();
}

#[test]
fn root_the_manager_can_be_killed_under_load() {
    one_kind(Who::Root, Role::Manager, ROUNDS, QUICK);
}

#[test]
fn root_the_zygote_can_be_killed_under_load() {
    one_kind(Who::Root, Role::Zygote, SLOW_ROUNDS, DELAYED);
}

#[test]
fn root_the_logger_can_be_killed_under_load() {
    one_kind(Who::Root, Role::Logger, SLOW_ROUNDS, DELAYED);
}

#[test]
fn root_the_keeper_can_be_killed_under_load() {
    one_kind(Who::Root, Role::Keeper, ROUNDS, KEEPER);
}

#[test]
fn root_all_processes_can_be_killed_in_turn_under_load() {
    all_in_turn(Who::Root);
}

#[test]
fn user_the_manager_can_be_killed_under_load() {
    one_kind(Who::User, Role::Manager, ROUNDS, QUICK);
}

#[test]
fn user_the_keeper_can_be_killed_under_load() {
    one_kind(Who::User, Role::Keeper, SLOW_ROUNDS, KEEPER);
}

#[test]
fn user_all_processes_can_be_killed_in_turn_under_load() {
    all_in_turn(Who::User);
}
