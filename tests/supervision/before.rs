//! The commands before the first start of a generation: in order, once, without sockets, and never again.

use super::host::{Host, within};

#[test]
fn they_run_once_in_a_generation_in_order_and_without_sockets() {
    let mut host = Host::new();
    let socket = host.path("web.sock");
    let before = "before-start = [['/bin/sh', '-c', 'echo one $LISTEN_FDS $NOTIFY_SOCKET >> order; echo told'], \
                  \"sh -c 'echo two >> order'\"]";
    host.script(
        "web",
        "echo main $LISTEN_FDS >> order; exec sleep 1000",
        &format!(
            "settle = \"0s\"\n{before}\n[restart]\ndelay = \"1ms\"\n[socket.s]\nlisten = \"{}\"\n",
            socket.display()
        ),
    );
    host.run();
    let first = host.reaches("web", "running");
    let ran = |text: &str| within(|| (host.text("order") == text).then_some(())).is_some();
    assert!(ran("one\ntwo\nmain 1\n"), "{}", host.text("order"));
    // A crash of the service, and of the manager, is no new generation.
    let pid = nix::unistd::Pid::from_raw(first["pid"].as_i64().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    host.until("web", "running again", |web| web["state"] == "running" && web["pid"] != first["pid"]);
    host.kill_manager();
    assert!(ran("one\ntwo\nmain 1\nmain 1\n"), "{}", host.text("order"));
    host.order(&["restart", "web"]);
    assert!(ran("one\ntwo\nmain 1\nmain 1\none\ntwo\nmain 1\n"), "{}", host.text("order"));
    // Their output is in the service's log.
    within(|| host.log("web").contains("stdout F told").then_some(())).expect("a line in the log");
}

#[test]
fn one_that_fails_ends_the_start_with_its_number() {
    let mut host = Host::new();
    let before =
        "before-start = [['/bin/true'], ['/bin/sh', '-c', 'exit 9'], ['/bin/true']]\nstart = \"manual\"\n";
    host.script("web", "echo main > main", &format!("{before}[restart]\npolicy = \"never\"\n"));
    host.unit("none", "command = ['/bin/true']\nbefore-start = ['/nonexistent/x']\nstart = \"manual\"\n");
    host.run();
    let said = host.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("before-start 2 of 3: exit status 9"), "{said:?}");
    assert_eq!(host.text("main"), "");
    let web = host.service("web");
    assert_eq!(web["state"], "failed");
    assert!(web["problems"].to_string().contains("before-start 2 of 3: exit status 9"), "{web:#}");
    let said = host.ask(&["start", "none"]);
    assert!(said.err.contains("before-start 1 of 1: ") && said.err.contains("/nonexistent/x"), "{said:?}");
}

#[test]
fn one_that_takes_its_time_survives_the_manager_and_is_ended_by_a_stop() {
    let mut host = Host::new();
    let before = "before-start = [['/bin/sh', '-c', 'echo $$ > pid; exec sleep 1000']]";
    let rest = format!("{before}\nstart-timeout = \"2s\"\nstop-signal = \"HUP\"\n");
    host.script("web", "exec sleep 1000", &rest);
    host.run();
    let pid = host.line("pid");
    host.until("web", "preparing", |web| {
        web["pid"].as_i64() == pid.trim().parse().ok() && web["state"] == "starting"
    });
    host.kill_manager();
    assert_eq!(host.service("web")["pid"].to_string(), pid.trim());
    host.order(&["stop", "web"]);
    assert_eq!(host.service("web")["exit"]["signal"], "TERM");
}
