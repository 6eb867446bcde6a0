//! A command that waits gets its one answer, also from another manager than the one it asked.

use std::fs;

use super::place::{Place, Who};
use super::supervisor::Role;
use super::{cri, processes, wait};

/// Proves itself only once it may, so that the manager can be killed while it is waited for.
fn slow(place: &Place) {
    let go = place.path("work/go");
    let script = format!(
        "echo started; while ! test -e {}; do sleep 0.05; done; echo ready >&3; exec sleep 1000",
        go.display()
    );
    place.unit(
        "slow",
        &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\nready = {{ fd = 3 }}\nsettle = \"0s\"\n"),
    );
    place.write("work/go", "");
}

fn across_the_managers_death(who: Who) {
    let mut place = Place::new(who);
    slow(&place);
    place.run();
    place.reaches("slow", "running");
    for round in 1..=2u64 {
        let before = place.pid_of("slow");
        fs::remove_file(place.path("work/go")).unwrap();
        let mut asking = place.begin(&["restart", "--json", "slow"]);
        wait::until(wait::LONG, "the next one to start", || {
            let service = place.service("slow");
            let pid = service["pid"].as_u64()? as u32;
            (pid != before && service["state"] == "starting").then_some(())
        });
        place.kill(Role::Manager);
        assert!(asking.is_under_way(), "it was not waited for");
        place.write("work/go", "");
        let said = asking.wait();
        assert_eq!(said.code, Some(0), "{said:?}");
        let reply: serde_json::Value = serde_json::from_str(&said.out).expect("one answer");
        let [service] = &reply["services"].as_array().unwrap()[..] else { panic!("{reply:#}") };
        assert_eq!((&service["name"], &service["state"]), (&"slow".into(), &"running".into()), "{reply:#}");
        assert_eq!(service["pid"], place.pid_of("slow"), "the answer is about another one");
        assert_eq!(place.service("slow")["generation"], round + 1, "it was done twice");
    }
    let starts = wait::until(wait::LONG, "all that it said", || {
        Some(cri::texts(&place.log(), "slow")).filter(|lines| lines.len() >= 3)
    });
    assert_eq!(starts, ["started"; 3], "it was started too often");
}

/// A stop that waits for a stubborn service, and the end of the manager in between.
fn a_stop(who: Who) {
    let mut place = Place::new(who);
    place.unit(
        "stubborn",
        "command = [\"/bin/sh\", \"-c\", \"trap '' TERM; echo started; while :; do sleep 1; done\"]\nsettle = \"10ms\"\nstop-timeout = \"6s\"\n",
    );
    place.run();
    place.reaches("stubborn", "running");
    wait::until(wait::LONG, "its first line", || {
        (!cri::texts(&place.log(), "stubborn").is_empty()).then_some(())
    });
    let pid = place.pid_of("stubborn");
    let asking = place.begin(&["stop", "stubborn"]);
    place.reaches("stubborn", "stopping");
    place.kill(Role::Manager);
    let said = asking.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!processes::lives(pid), "it said stopped and it runs");
    assert_eq!(place.service("stubborn")["exit"]["signal"], "KILL");
}

#[test]
fn root_a_restart_gets_its_one_answer_across_the_managers_death() {
    across_the_managers_death(Who::Root);
}

#[test]
fn root_a_stop_gets_its_answer_across_the_managers_death() {
    a_stop(Who::Root);
}

#[test]
fn user_a_restart_gets_its_one_answer_across_the_managers_death() {
    across_the_managers_death(Who::User);
}

#[test]
fn user_a_stop_gets_its_answer_across_the_managers_death() {
    a_stop(Who::User);
}
