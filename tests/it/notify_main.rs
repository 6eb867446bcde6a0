//! `MAINPID=`: a service hands its main process over, and supervise follows: the end of the old one is not the
//! service's, that of the new one is, and the stop signal goes to it. What is not the service's own is not followed.

use std::fs;

use serde_json::Value;

use super::gunicorn::python;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

/// Does what files in its working place say: `hand` (a child takes over, the parent ends), `share` (a child takes over
/// and the parent stays), `claim` (says that each pid in the file is its main one, so many times). Each process ends
/// with the number in `end-PID`, and notes the TERM that ends it.
const SERVICE: &str = r#"
import os, signal, socket, sys, time

WORK = os.environ["WORK"] + "/"

def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])

def note(name, text):
    with open(WORK + "." + name, "w") as file:
        file.write(text)
    os.rename(WORK + "." + name, WORK + name)

def term(*_):
    note("term", str(os.getpid()))
    os._exit(0)

def taken(name):
    try:
        text = open(WORK + name).read()
        os.unlink(WORK + name)
        return text
    except FileNotFoundError:
        return None

def fork():
    pid = os.fork()
    if pid == 0:
        live(False)
    return pid

def live(first):
    signal.signal(signal.SIGTERM, term)
    end = "end-%d" % os.getpid()
    while not os.path.exists(WORK + end):
        if first and taken("hand") is not None:
            child = fork()
            tell("MAINPID=%d\nSTATUS=handed over" % child)
            os._exit(9)
        if first and taken("share") is not None:
            child = fork()
            tell("MAINPID=%d" % child)
            first = False
        if first and os.path.exists(WORK + "claim"):
            pids, times = taken("claim").rsplit(" ", 1)
            for n in range(int(times)):
                tell("MAINPID=" + pids.split()[n % len(pids.split())])
            note("claimed", "")
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                note("reaped", "")
        except ChildProcessError:
            pass
        time.sleep(0.01)
    os._exit(int(open(WORK + end).read()))

tell("READY=1")
live(True)
"#;

fn text(place: &Place, more: &str) -> String {
    let work = place.path("work");
    format!(
        "command = [\"{}\", \"-S\", \"one.py\"]\nenvironment = {{ WORK = \"{}\" }}\nready = \"notify\"\nsettle = \"0s\"\n{more}",
        python(),
        work.display()
    )
}

/// A place in which `web` runs; its pid.
#[track_caller]
fn running(who: Who, more: &str) -> (Place, u32) {
    let mut place = Place::new(who);
    place.write("srv/one.py", SERVICE);
    place.unit("web", &text(&place, more));
    place.run();
    place.reaches("web", "running");
    let pid = place.pid_of("web");
    (place, pid)
}

/// Tells the service to do something.
fn tell(place: &Place, name: &str, text: &str) {
    place.write(&format!("work/.{name}"), text);
    fs::rename(place.path(&format!("work/.{name}")), place.path(&format!("work/{name}"))).unwrap();
}

/// Waits until the main process is another one.
#[track_caller]
fn heir(place: &Place, before: u32) -> u32 {
    wait::until(wait::LONG, "another main process", || {
        let pid = place.service("web")["pid"].as_u64()? as u32;
        (pid != before).then_some(pid)
    })
}

#[track_caller]
fn gone(pid: u32) {
    wait::until(wait::LONG, "a process to be gone", || (!processes::lives(pid)).then_some(()));
}

/// Has it taken over by a child; the child's pid, once the parent is gone and forgotten.
#[track_caller]
fn handed_over(place: &Place, before: u32) -> u32 {
    tell(place, "hand", "");
    let pid = heir(place, before);
    gone(before);
    pid
}

#[track_caller]
fn same(place: &Place, pid: u32) {
    let web = place.service("web");
    assert_eq!(
        (&web["state"], web["pid"].as_u64(), &web["restarts"]),
        (&"running".into(), Some(pid.into()), &0.into()),
        "{web:#}"
    );
}

/// How it ended last, once another runs in its place.
#[track_caller]
fn ended(place: &Place, pid: u32) -> Value {
    let service = wait::until(wait::LONG, "the next start", || {
        let web = place.service("web");
        (web["state"] == "running" && web["pid"].as_u64() != Some(pid.into()) && web["restarts"] == 1)
            .then_some(web)
    });
    service["exit"].clone()
}

fn is_followed(who: Who) {
    let (mut place, first) = running(who, "");
    let pid = handed_over(&place, first);
    same(&place, pid);
    assert_eq!(place.service("web")["status_text"], "handed over");
    let line = format!("pid={pid} is the main process now, after {first}");
    assert!(place.stderr().contains(&line), "{}", place.stderr());
    // A manager that knows it from the state alone.
    place.kill(Role::Manager);
    wait::until(wait::LONG, "a manager", || place.try_status());
    same(&place, pid);
    // How it ends is known: the keeper has become its parent.
    tell(&place, &format!("end-{pid}"), "7");
    let exit = ended(&place, pid);
    assert_eq!(exit["code"], 7, "{exit}");
    // And the stop signal goes to the one that is the main one then.
    let second = place.pid_of("web");
    let pid = handed_over(&place, second);
    place.order(&["stop", "web"]);
    assert_eq!(fs::read_to_string(place.path("work/term")).unwrap(), pid.to_string());
}

#[test]
fn root_a_main_process_that_is_handed_over_is_followed() {
    is_followed(Who::Root);
}

#[test]
fn user_a_main_process_that_is_handed_over_is_followed() {
    is_followed(Who::User);
}

/// Nobody of supervise is the parent of an heir whose own parent lives on.
#[test]
fn root_the_end_of_an_heir_that_is_reaped_by_its_parent_is_known() {
    let (mut place, first) = running(Who::Root, "");
    tell(&place, "share", "");
    let pid = heir(&place, first);
    place.kill(Role::Manager);
    wait::until(wait::LONG, "a manager", || place.try_status());
    same(&place, pid);
    assert!(processes::lives(first), "the parent goes on");
    tell(&place, &format!("end-{pid}"), "5");
    let exit = ended(&place, pid);
    assert_eq!(exit["code"], 5, "{exit}");
    gone(first); // what is left is ended with it
}

#[test]
fn root_the_end_of_the_one_before_is_not_the_services() {
    let (place, first) = running(Who::Root, "");
    tell(&place, "share", "");
    let pid = heir(&place, first);
    tell(&place, &format!("end-{first}"), "1");
    gone(first);
    same(&place, pid);
    processes::signal(pid, libc::SIGKILL);
    let exit = ended(&place, pid);
    assert_eq!(exit["signal"], "KILL", "{exit}");
}

/// The message, and then the end of the one before, while nobody reads either; then by the manager that was stopped,
/// or by one that knows nothing of both.
fn in_one_turn(signal: i32) {
    let (place, first) = running(Who::Root, "");
    let manager = place.role(Role::Manager);
    processes::signal(manager, libc::SIGSTOP);
    tell(&place, "hand", "");
    gone(first);
    processes::signal(manager, signal);
    let pid = heir(&place, first);
    same(&place, pid);
    assert_eq!(processes::stat(pid).unwrap().parent, place.role(Role::Keeper));
}

#[test]
fn root_what_is_handed_over_and_ends_at_once_is_heard_in_order() {
    in_one_turn(libc::SIGCONT);
}

#[test]
fn root_what_is_handed_over_while_the_manager_is_dead_is_followed() {
    in_one_turn(libc::SIGKILL);
}

#[test]
fn root_an_heir_outlives_the_keeper_and_its_end_is_known() {
    let (mut place, first) = running(Who::Root, "");
    let pid = handed_over(&place, first);
    let keeper = place.kill(Role::Keeper);
    wait::until(wait::LONG, "another keeper", || {
        place.try_status().filter(|status| {
            status["supervisor"]["keeper_pid"].as_u64().is_some_and(|pid| pid != u64::from(keeper))
        })
    });
    same(&place, pid);
    tell(&place, &format!("end-{pid}"), "3");
    let exit = ended(&place, pid);
    assert_eq!(exit["code"], 3, "{exit}");
}

/// Through libsystemd: what `systemd-notify` sends, barrier and all.
#[test]
fn root_systemd_notify_hands_a_main_process_over() {
    let mut place = Place::new(Who::Root);
    for (name, how) in [("word", "MAINPID=$!"), ("option", "--pid=$!")] {
        let script = format!("/bin/sleep 1000 & systemd-notify --ready {how}");
        let more = "ready = \"notify\"\nsettle = \"0s\"\n";
        place.unit(name, &format!("command = [\"/bin/sh\", \"-c\", '''{script}''']\n{more}"));
    }
    place.run();
    for name in ["word", "option"] {
        let pid = wait::until(wait::LONG, "a program that was left behind", || {
            let service = place.reaches(name, "running");
            let pid = service["pid"].as_u64()? as u32;
            (processes::arguments(pid).first()? == "/bin/sleep").then_some(pid)
        });
        let shell = wait::within(wait::LONG, || {
            (processes::stat(pid)?.parent == place.role(Role::Keeper)).then_some(())
        });
        assert!(shell.is_some(), "the shell is gone");
        let service = place.service(name);
        assert_eq!(
            (&service["restarts"], &service["problems"]),
            (&0.into(), &serde_json::json!([])),
            "{service:#}"
        );
        place.order(&["stop", name]);
        gone(pid);
    }
}

/// Whatever it claims, it is told so in a few lines, nothing of others is touched, and what it was stays.
#[test]
fn root_what_is_not_the_services_own_is_not_followed() {
    let mut place = Place::new(Who::Root);
    place.write("srv/one.py", SERVICE);
    place.unit("web", &text(&place, ""));
    place.unit("other", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"0s\"\n");
    place.run();
    place.reaches("web", "running");
    place.reaches("other", "running");
    let dead = place.pid_of("web");
    tell(&place, &format!("end-{dead}"), "1");
    ended(&place, dead);
    let (web, other) = (place.pid_of("web"), place.pid_of("other"));
    let own = [Role::Keeper, Role::Manager, Role::Zygote, Role::Logger].map(|role| place.role(role));
    let mine = std::process::id();
    let all: Vec<String> = own.into_iter().chain([1, other, mine, dead]).map(|pid| pid.to_string()).collect();
    tell(&place, "claim", &format!("{} 1000", all.join(" ")));
    wait::until(std::time::Duration::from_secs(120), "the claims to be made", || {
        place.path("work/claimed").exists().then_some(())
    });
    assert_eq!((place.pid_of("web"), place.pid_of("other")), (web, other));
    let lines = place.stderr().matches("which is not believed").count();
    assert!((1..=4).contains(&lines), "{lines} lines: {}", place.stderr());
    let problems = place.service("web")["problems"].to_string();
    assert!(problems.contains("(MAINPID=), which is not believed"), "{problems}");
    // Under an init that is none of ours it is that init.
    tell(&place, "claim", "1 1");
    let init = "it says that process 1 is its main one (MAINPID=), which is not believed: it is init";
    wait::until(wait::LONG, "why init is not followed", || {
        place.service("web")["problems"].as_array()?.iter().any(|problem| problem == init).then_some(())
    });
    place.order(&["stop", "web"]);
    assert_eq!(fs::read_to_string(place.path("work/term")).unwrap(), web.to_string());
    assert!(processes::lives(other));
}

/// A daemon as daemons were: it forks twice, the last one serves the socket, and nobody of the others lives.
const DAEMON: &str = r#"
import os, select, socket

r, w = os.pipe()
if os.fork() == 0:
    if os.fork() != 0:
        os._exit(0)
    listener = socket.socket(fileno=3)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"MAINPID=%d\nREADY=1" % os.getpid(), os.environ["NOTIFY_SOCKET"])
    os.close(r)
    os.close(w)
    while True:
        poll.poll()
        listener.accept()[0].close()
os.close(w)
os.read(r, 1)
"#;

/// Where an heir listens is looked at below the heir.
#[test]
fn root_an_heir_that_serves_its_socket_is_seen_to() {
    let mut place = Place::new(Who::Root);
    let socket = |address| format!("settle = \"0s\"\n[socket.http]\nlisten = \"{address}\"\n");
    let python = python();
    place.write("srv/daemon.py", DAEMON);
    let web = format!("command = [\"{python}\", \"-S\", \"daemon.py\"]\nready = \"notify\"\n");
    place.unit("web", &format!("{web}{}", socket(place.address())));
    // One that has none of its sockets, begun later: by the time this is seen the other has been looked at.
    place.write("srv/none.py", "import os, signal\nos.close(3)\nsignal.pause()\n");
    let none = format!("command = [\"{python}\", \"-S\", \"none.py\"]\nstart = \"manual\"\n");
    place.unit("none", &format!("{none}{}", socket(place.address())));
    place.run();
    place.reaches("web", "running");
    let pid = place.pid_of("web");
    place.order(&["start", "none"]);
    wait::until(2 * wait::LONG, "what is seen of the other", || {
        place.service("none")["problems"].to_string().contains("none of its processes holds").then_some(())
    });
    same(&place, pid);
    assert_eq!(place.service("web")["problems"], serde_json::json!([]));
}
