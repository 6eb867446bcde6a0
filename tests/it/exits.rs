//! How a service ended is known, whoever was dead at the time.

use super::place::{Place, Who};
use super::supervisor::Role;
use super::{cri, processes, wait};

/// Ends with status 7 when it is told to; on its own never.
const SERVICE: &str = r#"command = ["/bin/sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 1000 & wait; done"]
settle = "10ms"
[restart]
policy = "never"
"#;

fn started(who: Who) -> (Place, u32) {
    let mut place = Place::new(who);
    place.unit("one", SERVICE);
    place.run();
    place.reaches("one", "running");
    wait::until(wait::LONG, "its first line", || {
        cri::texts(&place.log(), "one").contains(&"ready".to_owned()).then_some(())
    });
    let pid = place.pid_of("one");
    (place, pid)
}

#[track_caller]
fn ended_with_7(place: &Place) {
    let service = place.reaches("one", "failed");
    assert_eq!(service["exit"]["code"], 7, "{service:#}");
    assert!(service["exit"]["signal"].is_null(), "{service:#}");
}

/// How a service ended that is not ours any more. Before Linux 6.15 nobody is told once it has been reaped, and that is said.
#[track_caller]
fn told(place: &Place, ended: fn(&Place)) {
    let service = place.reaches("one", "failed");
    let meaning = service["exit"]["meaning"].as_str().unwrap();
    if processes::are_told_of_when_reaped() || !meaning.starts_with("unknown: it outlived its parent") {
        ended(place);
    }
}

#[track_caller]
fn ended_by_segv(place: &Place) {
    let service = place.reaches("one", "failed");
    assert_eq!(service["exit"]["signal"], "SEGV", "{service:#}");
    assert!(service["exit"]["code"].is_null(), "{service:#}");
}

/// The keeper is held still, so that nobody starts another manager before the service has ended.
fn while_the_manager_is_dead(who: Who, signal: i32) -> Place {
    let (place, pid) = started(who);
    let (keeper, manager) = (place.role(Role::Keeper), place.role(Role::Manager));
    processes::signal(keeper, libc::SIGSTOP);
    let stopped = || processes::stat(keeper).is_some_and(|stat| stat.state == 'T');
    wait::until(wait::LONG, "the keeper to stand still", || stopped().then_some(()));
    processes::signal(manager, 9);
    processes::signal(pid, signal);
    let both = || (!processes::lives(manager) && !processes::lives(pid)).then_some(());
    let ended = wait::within(wait::LONG, both);
    processes::signal(keeper, libc::SIGCONT);
    assert!(ended.is_some(), "manager and service did not end");
    place
}

/// Nobody comes in the dead keeper's place, and the manager becomes it; then the service ends.
fn after_a_keeper_was_replaced(who: Who, signal: i32) -> Place {
    let (mut place, pid) = started(who);
    let killed = place.kill(Role::Keeper);
    wait::until(wait::LONG, "another keeper", || {
        let keeper = place.try_status()?["supervisor"]["keeper_pid"].as_u64()?;
        (keeper != u64::from(killed)).then_some(())
    });
    assert_eq!(place.pid_of("one"), pid, "it did not run on");
    processes::signal(pid, signal);
    place
}

/// The service ends before anybody has taken the dead keeper's place.
fn while_there_is_no_keeper(who: Who, signal: i32) -> Place {
    let (mut place, pid) = started(who);
    place.kill(Role::Keeper);
    processes::signal(pid, signal);
    place
}

#[test]
fn root_a_status_is_known_when_the_manager_was_dead() {
    ended_with_7(&while_the_manager_is_dead(Who::Root, libc::SIGUSR1));
}

#[test]
fn root_a_signal_is_known_when_the_manager_was_dead() {
    ended_by_segv(&while_the_manager_is_dead(Who::Root, libc::SIGSEGV));
}

#[test]
fn root_a_status_is_known_after_the_keeper_was_replaced() {
    told(&after_a_keeper_was_replaced(Who::Root, libc::SIGUSR1), ended_with_7);
}

#[test]
fn root_a_signal_is_known_after_the_keeper_was_replaced() {
    told(&after_a_keeper_was_replaced(Who::Root, libc::SIGSEGV), ended_by_segv);
}

#[test]
fn root_a_status_is_known_while_there_is_no_keeper() {
    told(&while_there_is_no_keeper(Who::Root, libc::SIGUSR1), ended_with_7);
}

#[test]
fn user_a_status_is_known_when_the_manager_was_dead() {
    ended_with_7(&while_the_manager_is_dead(Who::User, libc::SIGUSR1));
}

#[test]
fn user_a_signal_is_known_after_the_keeper_was_replaced() {
    told(&after_a_keeper_was_replaced(Who::User, libc::SIGSEGV), ended_by_segv);
}

#[test]
fn user_a_status_is_known_while_there_is_no_keeper() {
    ended_with_7(&while_there_is_no_keeper(Who::User, libc::SIGUSR1));
}
