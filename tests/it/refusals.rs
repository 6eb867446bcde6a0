//! What is wrong does not run, says so in whole sentences, and harms nobody else.

use serde_json::Value;

use super::accounts::am_root;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{cri, processes, wait};

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n";

fn problems(service: &Value) -> String {
    let problems = service["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Bad units beside good ones: name, text, and what is to be said of each. `UNITS` stands for the directory.
fn bad_units(place: &Place, who: Who) -> Vec<(&'static str, String, &'static str)> {
    let user = match who {
        Who::Root => format!("user = \"{}\"\n", place.account.name),
        Who::User => String::new(),
    };
    let mut all = vec![
        (
            "unknown-key",
            format!("[service]\n{user}{SLEEP}[restart]\ndealy = \"1s\"\n"),
            "UNITS/unknown-key.toml:LINE:1: unknown key `dealy` in `[restart]`\n  LINE | dealy = \"1s\"\n    | ^^^^^\nhint: did you mean `delay`?",
        ),
        ("bad-toml", format!("[service]\n{user}command = [\"/bin/sleep\"\n"), "UNITS/bad-toml.toml:"),
        (
            "unknown-group",
            format!(
                "[service]\n{user}{SLEEP}[socket.a]\nlisten = \"UNITS/a.sock\"\ngroup = \"nosuchgroup\"\n"
            ),
            "looking up the group `nosuchgroup`: there is none of that name\nhint: `groupadd --system nosuchgroup` makes it",
        ),
    ];
    if who == Who::Root {
        all.push(("no-user", format!("[service]\n{SLEEP}"), "UNITS/no-user.toml:"));
        all.push((
            "unknown-user",
            format!("[service]\nuser = \"nosuchuser\"\n{SLEEP}"),
            "looking up the user `nosuchuser`: there is none of that name\nhint: `useradd --system nosuchuser` makes it",
        ));
    } else {
        all.push((
            "other-user",
            format!("[service]\nuser = \"nosuchuser\"\n{SLEEP}"),
            "UNITS/other-user.toml:2:",
        ));
    }
    all
}

fn only_the_bad_ones_fail(who: Who) {
    let mut place = Place::new(who);
    let units = place.path("units").display().to_string();
    let bad = bad_units(&place, who);
    for (name, text, _) in &bad {
        place.write(&format!("units/{name}.toml"), &text.replace("UNITS", &units));
    }
    place.unit("good", SLEEP);
    place.run();
    place.reaches("good", "running");
    let look = |place: &Place| {
        for (name, text, expected) in &bad {
            // An account may come, so it is asked for again.
            let state = if expected.starts_with("looking up") { "backing-off" } else { "failed" };
            let service = wait::until(wait::LONG, "its state with the reason", || {
                let service = place.reaches(name, state);
                (!problems(&service).contains("could not be prepared")).then_some(service)
            });
            assert!(service["pid"].is_null() && service["pids"] == serde_json::json!([]), "{service:#}");
            let line = text.lines().position(|line| line.starts_with("dealy")).map_or(0, |line| line + 1);
            let expected = expected.replace("UNITS", &units).replace("LINE", &line.to_string());
            let said = problems(&service);
            assert!(said.contains(&expected), "{name}: expected\n{expected}\nin\n{said}");
            assert!(said.contains("hint: ") || *name == "bad-toml", "{name}: no remedy: {said}");
            assert!(cri::files(&place.log(), name).is_empty(), "{name} was started");
        }
    };
    // Nothing of them can be started by asking for it either, and the reason is told.
    let refused = |place: &Place| {
        for (name, _, _) in &bad {
            let said = place.ask(&["start", name]);
            assert_eq!(said.code, Some(1), "{name}: {said:?}");
            assert!(said.err.starts_with(&format!("{name}: ")), "{said:?}");
            assert!(cri::files(&place.log(), name).is_empty(), "{name} was started");
        }
    };
    look(&place);
    let all = place.status()["services"].as_array().unwrap().len();
    assert_eq!(all, bad.len() + 1, "{:#}", place.status());
    refused(&place);
    let running = processes::of(place.root());
    let sleeping = running.iter().filter(|pid| processes::arguments(**pid)[0] == "/bin/sleep").count();
    assert_eq!(sleeping, 1, "only the good one runs");
    assert_eq!(place.service("good")["restarts"], 0);
    // Also after a crash of the manager, which reads no unit again.
    let killed = place.kill(Role::Manager);
    wait::until(wait::LONG, "another manager", || {
        (place.try_status()?["supervisor"]["pid"].as_u64()? != u64::from(killed)).then_some(())
    });
    look(&place);
    refused(&place);
}

/// A command, a directory that is not there: the step, the file, the reason.
fn a_failed_step(who: Who) {
    let mut place = Place::new(who);
    place.unit("no-command", "command = [\"/nonexistent/program\"]\n");
    place.unit("no-directory", "command = [\"/bin/true\"]\ndirectory = \"/nonexistent/srv\"\n");
    place.run();
    for (name, expected) in [
        ("no-command", "executing the command: /nonexistent/program: no such file or directory"),
        ("no-directory", "changing to the working directory: /nonexistent/srv: no such file or directory"),
    ] {
        let service = place.reaches(name, "backing-off");
        assert!(problems(&service).contains(expected), "{service:#}");
        let said = place.ask(&["start", name]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(expected), "{said:?}");
    }
}

/// What another process listens on is refused with the address, and taken once it is free.
fn a_taken_address(who: Who) {
    let mut place = Place::new(who);
    let address = place.address();
    let taken = std::net::TcpListener::bind(address).unwrap();
    place.unit(
        "taken",
        &format!("{SLEEP}[restart]\nmax-delay = \"300ms\"\n[socket.a]\nlisten = \"{address}\"\n"),
    );
    place.unit("good", SLEEP);
    place.run();
    place.reaches("good", "running");
    let service = place.reaches("taken", "backing-off");
    assert!(
        problems(&service).contains(&format!("binding {address}: address already in use")),
        "{service:#}"
    );
    // The supervisor of another user than ours cannot see whose this socket is, and says how root can.
    let holder = if who == Who::Root || !am_root() {
        format!("process {} (", std::process::id())
    } else {
        "by somebody who cannot be seen from here\nhint: `ss -lntup`".to_owned()
    };
    assert!(problems(&service).contains(&holder), "{service:#}");
    drop(taken);
    place.reaches("taken", "running");
}

fn a_second_supervisor(who: Who) {
    let mut place = Place::new(who);
    place.unit("good", SLEEP);
    place.run();
    place.reaches("good", "running");
    let (keeper, pid) = (place.role(Role::Keeper), place.pid_of("good"));
    let second = place.spawn();
    assert_eq!(second.wait().code(), Some(1));
    let expected = format!(
        "supervise: a supervisor (pid {keeper}) already runs in {}\nhint: ",
        place.path("run").display()
    );
    assert!(place.stderr().contains(&expected), "{}", place.stderr());
    assert_eq!((place.role(Role::Keeper), place.pid_of("good")), (keeper, pid), "the first was disturbed");
    let mut first = place.keeper.take().unwrap();
    assert!(first.is_running());
    place.keeper = Some(first);
}

#[test]
fn root_bad_units_fail_with_their_whole_message_and_the_others_run() {
    only_the_bad_ones_fail(Who::Root);
}

#[test]
fn root_a_failed_step_is_told_with_file_and_reason() {
    a_failed_step(Who::Root);
}

#[test]
fn root_a_taken_address_concerns_its_unit_alone() {
    a_taken_address(Who::Root);
}

#[test]
fn root_a_second_supervisor_is_refused() {
    a_second_supervisor(Who::Root);
}

#[test]
fn user_bad_units_fail_with_their_whole_message_and_the_others_run() {
    only_the_bad_ones_fail(Who::User);
}

#[test]
fn user_a_failed_step_is_told_with_file_and_reason() {
    a_failed_step(Who::User);
}

#[test]
fn user_a_taken_address_concerns_its_unit_alone() {
    a_taken_address(Who::User);
}

#[test]
fn user_a_second_supervisor_is_refused() {
    a_second_supervisor(Who::User);
}

#[test]
fn user_where_there_is_no_unit_it_says_where_one_might_be() {
    let mut place = Place::new(Who::User);
    place.run();
    let expected = format!(
        "supervise: there is no unit\nhint: a unit is a file `NAME.toml` in `{}`\n",
        place.path("units").display()
    );
    assert!(place.stderr().ends_with(&expected), "{}", place.stderr());
    assert_eq!(place.try_status().unwrap()["services"], serde_json::json!([]));
}
