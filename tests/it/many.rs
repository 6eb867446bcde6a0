//! A service of many instances: what it costs is its own affair. All of it is written down, others start and answer as
//! if it were not there, and what there is no room for is refused with words.

use std::time::{Duration, Instant};

use super::place::{Place, Who};
use super::supervisor::Role;
use super::wait;

/// Instances of a service: nearly as many as there may be.
const MANY: usize = 1000;
/// For what takes a moment on a machine with nothing else to do. Behind a thousand starts it took minutes.
const SOON: Duration = Duration::from_secs(90);
/// Descriptors with which there is room for some instances, and not for a thousand.
const FEW: &str = "--nofile=800:800";

/// A place in which one service has very many instances and fails, and another does not.
fn crowded(who: Who) -> Place {
    let mut place = Place::new(who);
    let missing = place.path("bin/none");
    place.unit(
        "a-many",
        &format!("command = [\"{}\"]\ninstances = {MANY}\n[restart]\ndelay = \"30s\"\n", missing.display()),
    );
    place.unit("ok", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    place.run();
    place
}

fn holds_up_nobody(who: Who) {
    let mut place = crowded(who);
    let began = Instant::now();
    place.reaches("ok", "running");
    let before = place.pid_of("ok");
    place.order(&["restart", "ok"]);
    assert!(began.elapsed() < SOON, "another service has waited for {:?}", began.elapsed());
    let after = place.pid_of("ok");
    assert_ne!(before, after);

    let last = format!("service=a-many instance={MANY} ");
    wait::until(SOON, "the last of them", || place.stderr().contains(&last).then_some(()));
    place.kill(Role::Manager);
    wait::until(wait::LONG, "the next manager", || place.try_status());
    let many = place.service("a-many");
    assert!(["backing-off", "starting"].iter().any(|state| many["state"] == *state), "{many:#}");
    assert_eq!(place.pid_of("ok"), after, "the other one was touched");
    let said = place.stderr();
    assert!(!said.contains("cannot be written"), "{said}");
    assert_eq!(place.order(&["stop", "a-many"]).code, Some(0));
}

#[test]
fn root_a_thousand_failing_instances_hold_up_nobody_and_are_written_down() {
    holds_up_nobody(Who::Root);
}

#[test]
fn user_a_thousand_failing_instances_hold_up_nobody_and_are_written_down() {
    holds_up_nobody(Who::User);
}

fn is_refused(who: Who) {
    let mut place = Place::new(who);
    place.unit("many", &format!("command = [\"/bin/sleep\", \"1000\"]\ninstances = {MANY}\n"));
    place.unit("few", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    place.run_below(&["prlimit", FEW]);
    let many = place.reaches("many", "failed");
    let problems = many["problems"].to_string();
    assert!(problems.contains("1000 instances need") && problems.contains("ulimit -n"), "{problems}");
    place.reaches("few", "running");
    let said = place.ask(&["scale", "few", "1000"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("few: changing its instances: 1000 instances need"), "{said:?}");
    for beyond in ["1025", "65535", "70000", "-1"] {
        assert_eq!(place.ask(&["scale", "few", beyond]).code, Some(2), "{beyond}");
    }
    place.order(&["scale", "few", "3"]);
    assert_eq!(place.service("few")["instances"].as_array().unwrap().len(), 3);
    place.order(&["scale", "few", "0"]);
    assert_eq!(place.service("few")["pids"].as_array().unwrap().len(), 0);
}

#[test]
fn root_more_instances_than_there_is_room_for_are_refused_with_words() {
    is_refused(Who::Root);
}

#[test]
fn user_more_instances_than_there_is_room_for_are_refused_with_words() {
    is_refused(Who::User);
}

#[test]
fn root_each_instance_is_told_with_what_is_wrong_with_it() {
    let mut place = Place::new(Who::Root);
    let second =
        |then: &str| format!("[\"/bin/sh\", \"-c\", \"[ $SUPERVISE_INSTANCE = 2 ] && exit {then}\"]");
    place.unit(
        "ill",
        &format!(
            "command = [\"/bin/sleep\", \"1000\"]\ninstances = 2\nsettle = \"10ms\"\n[health]\ncommand = {}\ninterval = \"100ms\"\nfailures = 1000\n",
            second("1; exit 0")
        ),
    );
    place.unit(
        "loops",
        &format!(
            "command = {}\ninstances = 3\nsettle = \"10ms\"\n[restart]\ndelay = \"20s\"\n",
            second("7; exec sleep 1000")
        ),
    );
    place.run();
    let ill = wait::until(wait::LONG, "a look at each", || {
        Some(place.service("ill")).filter(|ill| ill["healthy"] == false)
    });
    assert!(ill["problems"].to_string().contains("instance 2: not healthy"), "{ill:#}");
    let loops = wait::until(wait::LONG, "the second to fail and the others to run", || {
        Some(place.service("loops")).filter(|loops| {
            let states =
                loops["instances"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap());
            states.eq(["running", "backing-off", "running"])
        })
    });
    assert_eq!(loops["state"], "backing-off", "{loops:#}");
    assert_eq!(loops["instances"][1]["instance"], 2, "{loops:#}");
    assert!(place.ask(&["status", "loops"]).out.contains("2: generation 1, current, backing-off"));
}
