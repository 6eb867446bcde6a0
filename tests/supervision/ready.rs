//! Ready is what the service says, on its notify socket or on a descriptor, and nothing is lost with a manager.

use super::host::Host;

/// A script that waits for a file in the work directory.
const WAIT: &str = "until [ -e go ]; do read -t 0.02 x < idle || :; done";

/// Its first line: a pipe that nothing is ever written to, so that a shell can wait without a program.
fn waiting(after: &str) -> String {
    format!("[ -p idle ] || mkfifo idle; exec 9<>idle; {}; {after}", WAIT.replace("< idle", "<&9"))
}

fn bash(host: &Host, name: &str, script: &str, rest: &str) {
    host.unit(name, &format!("command = ['/bin/bash', '-c', '''{script}''']\n{rest}"));
}

#[test]
fn systemd_notify_is_believed_and_nothing_else() {
    let mut host = Host::new();
    let script = waiting("systemd-notify --ready --status='two workers' && echo told > told; read x <&9");
    bash(&host, "web", &script, "ready = \"notify\"\nsettle = \"0s\"\nstart = \"manual\"\n");
    host.run();
    let mut start = host.begin(&["start", "web"]);
    let starting = host.until("web", "executing", |web| web["pid"].is_i64());
    assert_eq!(starting["state"], "starting");
    assert_eq!(starting["gate"], "notify: READY=1, then alive for 0s");
    assert!(start.is_waiting(), "it waits for ready");
    host.go("go");
    let said = start.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    let web = host.until("web", "of two workers", |web| web["status_text"] == "two workers");
    assert_eq!(web["state"], "running");
    // It sends a barrier behind its words and fails where that stays open.
    assert_eq!(host.line("told"), "told\n");
    // Its socket goes with it.
    let sockets = || std::fs::read_dir(host.path("run/notify")).unwrap().count();
    assert_eq!(sockets(), 1);
    host.order(&["stop", "web"]);
    assert_eq!(sockets(), 0);
}

#[test]
fn ready_said_while_the_manager_is_dead_is_not_lost() {
    let mut host = Host::new();
    // A stopped manager reads nothing, and a killed one reads nothing any more.
    let script = waiting("systemd-notify --no-block --ready && echo said > said; read x <&9");
    bash(&host, "web", &script, "ready = \"notify\"\nsettle = \"0s\"\n");
    let line = waiting("echo >&3; exec 3>&-; echo said > line; read x <&9");
    bash(&host, "line", &line, "ready = { fd = 3 }\nsettle = \"0s\"\n");
    host.run();
    host.until("web", "executing", |web| web["pid"].is_i64() && web["state"] == "starting");
    host.until("line", "executing", |line| line["pid"].is_i64() && line["state"] == "starting");
    let manager = host.status()["supervisor"]["pid"].as_i64().unwrap() as i32;
    let manager = nix::unistd::Pid::from_raw(manager);
    nix::sys::signal::kill(manager, nix::sys::signal::Signal::SIGSTOP).unwrap();
    host.go("go");
    assert_eq!((host.line("said"), host.line("line")), ("said\n".into(), "said\n".into()));
    nix::sys::signal::kill(manager, nix::sys::signal::Signal::SIGKILL).unwrap();
    host.reaches("web", "running");
    host.reaches("line", "running");
}

#[test]
fn never_ready_is_a_failure_with_its_reason() {
    let mut host = Host::new();
    host.script(
        "mute",
        "exec sleep 1000",
        "ready = \"notify\"\nstart-timeout = \"300ms\"\nstart = \"manual\"\n",
    );
    host.script(
        "dumb",
        "exec sleep 1000",
        "ready = { fd = 4 }\nstart-timeout = \"300ms\"\nstart = \"manual\"\n",
    );
    host.run();
    let said = host.ask(&["start", "mute"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let why = "not ready within 300ms: no READY=1 on its notify socket";
    assert!(said.err.contains(why), "{said:?}");
    assert!(said.err.contains("\nhint: does it say READY=1 (sd_notify(3)) when it can serve? "), "{said:?}");
    let said = host.ask(&["start", "dumb"]);
    assert!(said.err.contains("not ready within 300ms: no line on descriptor 4"), "{said:?}");
    assert!(
        said.err.contains("\nhint: does it write a line to descriptor 4 when it can serve? "),
        "{said:?}"
    );
    let problems = host.service("mute")["problems"].to_string();
    let hint = "\\nhint: does it say READY=1 (sd_notify(3)) when it can serve? Write `ready = \\\"started\\\"` if it never does";
    assert!(problems.contains(&format!("{why}{hint}")), "{problems}");
}

#[test]
fn a_flood_of_messages_delays_nobody_else() {
    let mut host = Host::new();
    let flood = r#"
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1")
n = 0
while True:
    s.send(b"STATUS=%d" % n if n % 3 else b"x\0" * (n % 9000))
    n += 1
"#;
    let command = format!("command = ['/usr/bin/python3', '-c', '''{flood}''']");
    host.unit("flood", &format!("{command}\nready = \"notify\"\nsettle = \"0s\"\n"));
    host.script("calm", "exec sleep 1000", "settle = \"0s\"\n");
    host.run();
    host.reaches("flood", "running");
    host.reaches("calm", "running");
    for _ in 0..3 {
        host.order(&["restart", "calm"]);
    }
    host.kill_manager();
    host.order(&["stop", "flood"]);
}

/// How to say one message on the notify socket with a descriptor beside it, and to see that it was closed.
const TALK: &str = r#"
import array, os, select, signal, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
def say(text):
    r, w = os.pipe()
    s.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [w]))])
    os.close(w)
    return select.select([r], [], [], 60)[0] != [] and os.read(r, 1) == b""
"#;

#[test]
fn what_a_service_says_is_wrong_with_it_is_told() {
    let mut host = Host::new();
    let script = format!(
        r#"{TALK}
closed = [say("READY=1\nMAINPID=1\nBUSERROR=org.example.Full\nVARLINKERROR=io.example.Gone\nERRNO=28")]
open("closed", "w").write("%s\n" % all(closed))
while not os.path.exists("go"): select.select([], [], [], 0.02)
say("MAINPID=%d\nBUSERROR=\nVARLINKERROR=\nERRNO=0" % os.getpid())
while not os.path.exists("again"): select.select([], [], [], 0.02)
say("MAINPID=1")
"#
    );
    let command = format!("command = ['/usr/bin/python3', '-c', '''{script}''']");
    host.unit(
        "web",
        &format!("{command}\nready = \"notify\"\nsettle = \"0s\"\n\n[restart]\npolicy = \"never\"\n"),
    );
    host.run();
    assert_eq!(host.line("closed"), "True\n", "each descriptor is closed");
    let main = "process 1 is its main one (MAINPID=), which is not believed: it is init";
    let problems = |web: &serde_json::Value| web["problems"].to_string();
    let web = host.until("web", "of its problems", |web| problems(web).contains(main));
    let said = problems(&web);
    for what in ["org.example.Full", "io.example.Gone", "no space left on device"] {
        assert!(said.contains(&format!("it says of itself: {what}")), "{said}");
    }
    // A new manager knows it, and it is taken back.
    host.kill_manager();
    host.until("web", "of its problems to a new manager", |web| problems(web).contains(main));
    host.go("go");
    host.until("web", "nothing wrong any more", |web| {
        !problems(web).contains("MAINPID") && !problems(web).contains("it says of itself")
    });
    // Its end is the end of all, and what it had said tells why.
    host.go("again");
    let web = host.until("web", "done", |web| web["state"] == "done");
    assert!(problems(&web).contains(main), "{web}");
    assert!(web["pids"].as_array().unwrap().is_empty(), "{web}");
}
