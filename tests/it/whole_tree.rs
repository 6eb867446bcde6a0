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

/// Runs it where there are no cgroups to be made, whoever it is.
fn run_without_cgroups(place: &mut Place) {
    match place.who {
        // An ordinary user has none.
        Who::User => place.run(),
        Who::Root => {
            let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"";
            place.run_below(&["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh"]);
        }
    }
    assert!(place.stderr().contains("no cgroups"), "{}", place.stderr());
}

/// The pids that the program has written down and that still live.
fn alive(place: &Place) -> Vec<u32> {
    let text = std::fs::read_to_string(place.path("work/pids")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| processes::lives(*pid)).collect()
}

fn tree(who: Who, away: bool) -> Place {
    let place = Place::new(who);
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
    place
}

/// Waits until this many incarnations have said all that they say.
fn all_of(place: &Place, round: usize, away: bool) {
    let all_there = || count(place, "ready") == round && (!away || count(place, "away") == 2 * round);
    wait::until(wait::LONG, "all of it", || all_there().then_some(()));
}

fn after_kill(who: Who, away: bool, grouped: bool) {
    let mut place = tree(who, away);
    match grouped {
        true => place.run(),
        false => run_without_cgroups(&mut place),
    }
    for round in 1..=3 {
        all_of(&place, round, away);
        processes::signal(place.pid_of("tree"), 9);
    }
    wait::until(wait::LONG, "the last one", || (count(&place, "ready") == 4).then_some(()));
    let starts: Vec<String> =
        cri::texts(&place.log(), "tree").into_iter().filter(|line| line.starts_with("alive")).collect();
    assert_eq!(starts, ["alive []"; 4], "workers of one incarnation met the next");
}

#[test]
fn root_workers_of_a_killed_main_process_are_gone_before_the_next_start() {
    after_kill(Who::Root, false, true);
}

#[test]
fn root_workers_that_went_into_another_session_are_gone_before_the_next_start() {
    after_kill(Who::Root, true, true);
}

#[test]
fn user_workers_of_a_killed_main_process_are_gone_before_the_next_start() {
    after_kill(Who::User, false, false);
}

#[test]
fn root_without_cgroups_workers_in_another_session_are_gone_before_the_next_start() {
    after_kill(Who::Root, true, false);
}

#[test]
fn user_workers_that_went_into_another_session_are_gone_before_the_next_start() {
    after_kill(Who::User, true, false);
}

fn after_stop(who: Who) {
    let mut place = tree(who, true);
    run_without_cgroups(&mut place);
    all_of(&place, 1, true);
    let away = alive(&place);
    let pids = place.service("tree")["pids"].clone();
    let listed: Vec<u64> = pids.as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).collect();
    assert!(
        away.len() >= 2 && away.iter().all(|pid| listed.contains(&u64::from(*pid))),
        "{away:?} {listed:?}"
    );
    place.order(&["stop", "tree"]);
    assert_eq!(alive(&place), [] as [u32; 0], "they outlived `stop`");
}

#[test]
fn root_without_cgroups_what_went_into_another_session_is_stopped_and_listed() {
    after_stop(Who::Root);
}

#[test]
fn user_what_went_into_another_session_is_stopped_and_listed() {
    after_stop(Who::User);
}

/// Writes its pid down and sleeps, without a variable of the service's, in a session of its own and without a parent.
const STRAY: &str =
    r#"env -i setsid --fork sh -c 'echo $$ >> "$1"; exec sleep 1000' sh "$1"; exec sleep 1000"#;

fn at_the_end(who: Who) {
    let mut place = Place::new(who);
    let pids = place.path("work/pids");
    place.write("srv/stray.sh", STRAY);
    place.unit("stray", &format!("command = [\"/bin/sh\", \"stray.sh\", \"{}\"]\n", pids.display()));
    run_without_cgroups(&mut place);
    let stray = wait::until(wait::LONG, "the stray", || alive(&place).first().copied());
    wait::until(wait::LONG, "what it executes", || {
        (processes::arguments(stray) == ["sleep", "1000"]).then_some(())
    });
    place.order(&["stop", "stray"]);
    let keeper = place.role(super::supervisor::Role::Keeper);
    processes::signal(keeper, 15);
    let status = place.keeper.take().unwrap().wait();
    assert_eq!(status.code(), Some(0));
    assert!(!processes::lives(stray), "it outlived supervise");
    let named = format!("process {stray} (sleep 1000) is of no service any more");
    assert!(place.stderr().contains(&named), "{}", place.stderr());
}

#[test]
fn root_without_cgroups_nothing_outlives_supervise() {
    at_the_end(Who::Root);
}

#[test]
fn user_nothing_outlives_supervise() {
    at_the_end(Who::User);
}
