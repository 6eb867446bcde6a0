//! What stops is gone: its processes, its sockets, and with the supervisor everything.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::load::{Target, get};
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{cri, gunicorn, processes, wait};

fn stop_and_start(who: Who) {
    let mut place = Place::with_gunicorn(who);
    let (address, path) = (place.address(), place.path("sock/web.sock"));
    place.web(
        "web",
        &format!("[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\n", path.display()),
    );
    place.run();
    place.reaches("web", "running");
    let (tcp, unix) = (Target::Tcp(address), Target::Unix(path.clone()));
    let (one, _) = (get(&tcp).unwrap(), get(&unix).unwrap());
    let before = processes::of(place.root()).len();
    let inode = std::fs::symlink_metadata(&path).unwrap().ino();
    // As long as somebody has it, its number is given to no other.
    let _kept = std::fs::File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    place.order(&["stop", "web"]);
    let service = place.service("web");
    assert_eq!((&service["state"], service["pids"].as_array().unwrap().len()), (&"stopped".into(), 0));
    assert!(processes::of(place.root()).len() < before, "its processes are still there");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(place.ask(&["status", "web"]).code, Some(3), "stopped is not as wanted");
    place.order(&["stop", "web"]);
    // A new manager finds it stopped as well.
    let killed = place.kill(Role::Manager);
    wait::until(wait::LONG, "another manager", || {
        (place.try_status()?["supervisor"]["pid"].as_u64()? != u64::from(killed)).then_some(())
    });
    assert_eq!(place.service("web")["state"], "stopped");
    place.order(&["start", "web"]);
    let (two, three) = (get(&tcp).unwrap(), get(&unix).unwrap());
    assert_eq!(two, three);
    assert_ne!(one, two);
    let file = std::fs::symlink_metadata(&path).unwrap();
    assert_ne!(file.ino(), inode, "it was not bound anew");
    assert_eq!(file.mode() & 0o777, 0o660);
    assert_eq!(place.ask(&["status", "web"]).code, Some(0));
}

/// A main process that ends at once and two workers that do not want to.
const STUBBORN: &str = r#"
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        print("worker", os.getpid(), flush=True)
        while True:
            time.sleep(1000)
print("main", os.getpid(), flush=True)
if sys.argv[1] == "polite":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    time.sleep(1000)
"#;

fn workers(place: &Place, service: &str) -> Vec<u32> {
    wait::until(wait::LONG, "all to have said who they are", || {
        let lines = cri::texts(&place.log(), service);
        let pids: Vec<u32> = lines.iter().filter_map(|line| line.split_once(' ')?.1.parse().ok()).collect();
        (pids.len() == 3).then_some(pids)
    })
}

fn stubborn_workers(who: Who, manner: &str) {
    let mut place = Place::new(who);
    place.write("srv/stubborn.py", STUBBORN);
    let python = gunicorn::python();
    place.unit(
        "stubborn",
        &format!(
            "command = [\"{python}\", \"-S\", \"stubborn.py\", \"{manner}\"]\nsettle = \"10ms\"\nstop-timeout = \"3s\"\n"
        ),
    );
    place.run();
    place.reaches("stubborn", "running");
    let pids = workers(&place, "stubborn");
    assert!(pids.iter().all(|pid| processes::lives(*pid)), "{pids:?}");
    let mut listed = place.service("stubborn")["pids"].as_array().unwrap().clone();
    listed.sort_by_key(|pid| pid.as_u64());
    let mut sorted = pids.clone();
    sorted.sort_unstable();
    assert_eq!(listed, sorted, "`status` knows them all");
    let said = place.order(&["stop", "stubborn"]);
    assert!(pids.iter().all(|pid| !processes::lives(*pid)), "it was said to be stopped");
    assert!(said.took >= Duration::from_millis(2_900), "they were not given their time: {:?}", said.took);
    let exit = &place.service("stubborn")["exit"];
    match manner {
        "polite" => assert_eq!(exit["code"], 0, "{exit}"),
        _ => assert_eq!(exit["signal"], "KILL", "{exit}"),
    }
}

fn term_stops_everything(who: Who) {
    let mut place = Place::with_gunicorn(who);
    let (address, path) = (place.address(), place.path("sock/web.sock"));
    place.web(
        "web",
        &format!("[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\n", path.display()),
    );
    let say = "trap 'echo stopping; exit 0' TERM; echo started; while :; do sleep 1000 & wait; done";
    place.unit("talks", &format!("command = [\"/bin/sh\", \"-c\", \"{say}\"]\nsettle = \"10ms\"\n"));
    place.unit("never", "command = [\"/bin/sleep\", \"1000\"]\nstart = \"manual\"\n");
    place.unit("crashes", "command = [\"/bin/false\"]\n[restart]\ndelay = \"20s\"\n");
    place.run();
    place.reaches("web", "running");
    wait::until(wait::LONG, "a line", || (cri::texts(&place.log(), "talks") == ["started"]).then_some(()));
    place.reaches("crashes", "backing-off");
    get(&Target::Unix(path.clone())).unwrap();
    let keeper = place.keeper.take().unwrap();
    processes::signal(keeper.pid, libc::SIGTERM);
    assert_eq!(keeper.wait().code(), Some(0), "{}", place.stderr());
    // At this very moment, not a little later.
    let rest: Vec<String> = processes::of(place.root()).into_iter().map(processes::described).collect();
    assert!(rest.is_empty(), "{rest:#?}");
    assert!(place.cgroups().is_empty(), "{:?}", place.cgroups());
    assert!(!path.exists() && !place.path("run/control").exists(), "a socket's file is left");
    let mut left: Vec<String> = std::fs::read_dir(place.path("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // Locks are taken by whoever comes next.
    left.retain(|name| !["lock", "locks"].contains(&name.as_str()));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(cri::texts(&place.log(), "talks"), ["started", "stopping"], "the last line is lost");
    let web = cri::texts(&place.log(), "web");
    assert!(
        web.iter().any(|line| line.contains("Shutting down: Master")),
        "gunicorn was not asked: {web:#?}"
    );
    assert_eq!(place.ask(&["status"]).code, Some(5));
    assert!(cri::files(&place.log(), "never").is_empty(), "it was never to start");
    // And it can be started again in the same place.
    place.run();
    place.reaches("web", "running");
    get(&Target::Unix(path)).unwrap();
}

#[test]
fn root_stop_closes_the_sockets_and_start_binds_them_again() {
    stop_and_start(Who::Root);
}

#[test]
fn root_stop_ends_stubborn_workers() {
    stubborn_workers(Who::Root, "polite");
}

#[test]
fn root_stop_ends_a_stubborn_main_process() {
    stubborn_workers(Who::Root, "rude");
}

#[test]
fn root_term_stops_everything_and_leaves_nothing() {
    term_stops_everything(Who::Root);
}

#[test]
fn user_stop_closes_the_sockets_and_start_binds_them_again() {
    stop_and_start(Who::User);
}

#[test]
fn user_stop_ends_stubborn_workers() {
    stubborn_workers(Who::User, "polite");
}

#[test]
fn user_stop_ends_a_stubborn_main_process() {
    stubborn_workers(Who::User, "rude");
}

#[test]
fn user_term_stops_everything_and_leaves_nothing() {
    term_stops_everything(Who::User);
}
