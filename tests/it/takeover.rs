//! A dead keeper's place is taken: by the next `run` that an init starts, or by the manager where nobody comes.

use std::time::{Duration, Instant};

use super::load::{Load, Target};
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

fn started(who: Who) -> (Place, Load, u32) {
    let mut place = Place::with_gunicorn(who);
    let address = place.address();
    place.web("web", &format!("[socket.http]\nlisten = \"{address}\"\n"));
    place.run();
    place.reaches("web", "running");
    let pid = place.pid_of("web");
    let load = Load::start(vec![Target::Tcp(address)], 100);
    load.goes_on(20);
    (place, load, pid)
}

fn ends_well(place: &Place, load: Load, pid: u32) {
    load.goes_on(20);
    let outcome = load.end();
    outcome.assert_none_failed();
    assert_eq!(outcome.bodies.len(), 1, "{:?}", outcome.bodies);
    assert_eq!(place.pid_of("web"), pid, "another gunicorn");
    // It can be controlled as before, and is whole: a restart needs the zygote and the keeper.
    place.order(&["restart", "web"]);
    assert_ne!(place.pid_of("web"), pid);
    let keeper = place.role(Role::Keeper);
    for role in [Role::Manager, Role::Zygote, Role::Logger] {
        let pid = place.role(role);
        assert_eq!(processes::stat(pid).unwrap().parent, keeper, "{role:?}");
        let same = processes::children(keeper)
            .into_iter()
            .filter(|other| processes::arguments(*other).get(1) == processes::arguments(pid).get(1));
        assert_eq!(same.count(), 1, "two of the role {role:?}");
    }
}

fn the_next_run_takes_over(who: Who) {
    let (mut place, load, pid) = started(who);
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let (dead, manager) = (place.kill(Role::Keeper), place.role_of_dead_keeper());
        let began = Instant::now();
        let next = place.spawn();
        let next_pid = next.pid;
        place.keeper = Some(next);
        wait::until(wait::LONG, "the next keeper", || {
            let status = place.try_status()?;
            let keeper = status["supervisor"]["keeper_pid"].as_u64()?;
            assert!(keeper == u64::from(dead) || keeper == u64::from(next_pid), "a third keeper: {keeper}");
            (keeper == u64::from(next_pid)).then_some(())
        });
        quickest = quickest.min(began.elapsed());
        wait::until(wait::LONG, "the old manager to end", || (!processes::lives(manager)).then_some(()));
        assert!(!place.path("run/handover").exists(), "the way in is still open");
        assert_eq!(place.pid_of("web"), pid);
    }
    // Each of them might be slow for what else the machine does, and waiting for nobody would make slow all of them.
    assert!(quickest < Duration::from_secs(2), "it took {quickest:?}: as long as if nobody had come");
    ends_well(&place, load, pid);
}

/// Whose parent has not looked: a shell, or a container's first process.
fn a_dead_keeper_that_nobody_has_reaped(who: Who) {
    let (mut place, load, pid) = started(who);
    let dead = place.role(Role::Keeper);
    let unreaped = place.keeper.take().unwrap();
    processes::signal(dead, 9);
    wait::until(wait::LONG, "the keeper to be dead", || (!processes::lives(dead)).then_some(()));
    assert!(processes::stat(dead).is_some(), "it was reaped");
    let next = place.spawn();
    let next_pid = next.pid;
    place.keeper = Some(next);
    wait::until(wait::LONG, "the next keeper", || {
        let keeper = place.try_status()?["supervisor"]["keeper_pid"].as_u64()?;
        (keeper == u64::from(next_pid)).then_some(())
    });
    ends_well(&place, load, pid);
    assert!(!unreaped.wait().success());
}

fn where_nobody_comes(who: Who) {
    let (mut place, load, pid) = started(who);
    let dead = place.kill(Role::Keeper);
    let manager = place.role_of_dead_keeper();
    let keeper = wait::until(wait::LONG, "another keeper", || {
        let keeper = place.try_status()?["supervisor"]["keeper_pid"].as_u64()? as u32;
        (keeper != dead).then_some(keeper)
    });
    assert_eq!(keeper, manager, "the manager becomes the keeper");
    assert_eq!(processes::arguments(keeper).get(1).map(String::as_str), Some("keeper"));
    ends_well(&place, load, pid);
    // And whoever comes later finds a living supervisor.
    let late = place.spawn().wait();
    assert_eq!(late.code(), Some(1));
    assert!(
        place.stderr().contains(&format!("a supervisor (pid {keeper}) already runs in")),
        "{}",
        place.stderr()
    );
}

impl Place {
    /// The manager that has just lost its keeper.
    fn role_of_dead_keeper(&self) -> u32 {
        self.status()["supervisor"]["pid"].as_u64().unwrap() as u32
    }
}

#[test]
fn root_the_next_run_takes_over_from_a_killed_keeper() {
    the_next_run_takes_over(Who::Root);
}

#[test]
fn root_a_dead_keeper_that_nobody_has_reaped_is_dead() {
    a_dead_keeper_that_nobody_has_reaped(Who::Root);
}

#[test]
fn root_the_manager_becomes_the_keeper_where_nobody_comes() {
    where_nobody_comes(Who::Root);
}

#[test]
fn user_the_next_run_takes_over_from_a_killed_keeper() {
    the_next_run_takes_over(Who::User);
}

#[test]
fn user_the_manager_becomes_the_keeper_where_nobody_comes() {
    where_nobody_comes(Who::User);
}
