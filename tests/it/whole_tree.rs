//! A service is its whole tree: nothing of one incarnation is left when the next begins.

use super::place::{Place, Who};
use super::{cri, gunicorn, processes, wait};

/// Says at its start who of those before it still lives; its two workers ignore TERM.
const PROGRAM: &str = r#"
import os, signal, sys, time
path = sys.argv[1]
def lives(pid):
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
old = []
if os.path.exists(path):
    with open(path) as file:
        old = [int(line) for line in file]
print("alive", [pid for pid in old if lives(pid)], flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(path, "a") as file:
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            if "away" in sys.argv and os.fork() != 0:
                os._exit(0)
            if "away" in sys.argv:
                os.setsid()
                with open(path, "a") as own:
                    own.write("%d\n" % os.getpid())
                print("away", flush=True)
            while True:
                time.sleep(1000)
        file.write("%d\n" % pid)
print("ready", flush=True)
while True:
    time.sleep(1000)
"#;

/// How many lines of a text there are.
fn count(place: &Place, text: &str) -> usize {
    cri::texts(&place.log(), "tree").iter().filter(|line| *line == text).count()
}

fn after_kill(who: Who, away: bool) {
    let mut place = Place::new(who);
    place.write("srv/tree.py", PROGRAM);
    let (python, pids) = (gunicorn::python(), place.path("work/pids"));
    let more = if away { ", \"away\"" } else { "" };
    place.unit(
        "tree",
        &format!(
            "command = [\"{python}\", \"-S\", \"tree.py\", \"{}\"{more}]\nsettle = \"10ms\"\nstop-timeout = \"400ms\"\n[restart]\ndelay = \"10ms\"\n",
            pids.display()
        ),
    );
    place.run();
    for round in 1..=3 {
        let all_there = || count(&place, "ready") == round && (!away || count(&place, "away") == 2 * round);
        wait::until(wait::LONG, "all of it", || all_there().then_some(()));
        processes::signal(place.pid_of("tree"), 9);
    }
    wait::until(wait::LONG, "the last one", || (count(&place, "ready") == 4).then_some(()));
    let starts: Vec<String> =
        cri::texts(&place.log(), "tree").into_iter().filter(|line| line.starts_with("alive")).collect();
    assert_eq!(starts, ["alive []"; 4], "workers of one incarnation met the next");
}

#[test]
fn root_workers_of_a_killed_main_process_are_gone_before_the_next_start() {
    after_kill(Who::Root, false);
}

#[test]
fn root_workers_that_went_into_another_session_are_gone_before_the_next_start() {
    after_kill(Who::Root, true);
}

#[test]
fn user_workers_of_a_killed_main_process_are_gone_before_the_next_start() {
    after_kill(Who::User, false);
}
