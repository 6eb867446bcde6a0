//! Supervise as the first process of a pid namespace, as in a container: output goes where a container's output is
//! looked for.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use super::place::{Place, Who};
use super::processes;
use super::wait;

/// Runs a supervisor as PID 1 of a namespace until `until` is in its output; that output.
fn output(place: &Place, until: &[&str]) -> String {
    let said = place.path("out");
    let file = File::create(&said).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(place.binary()).arg("run");
    for (option, name) in
        [("--units", "units"), ("--runtime-dir", "run"), ("--log-dir", "log"), ("--state-dir", "state")]
    {
        command.arg(option).arg(place.path(name));
    }
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = command.spawn().unwrap();
    let text = wait::within(wait::LONG, || {
        let text = fs::read_to_string(&said).unwrap();
        until.iter().all(|line| text.lines().any(|one| one == *line)).then_some(text)
    });
    // Its PID 1, by its number out here: stopped in order, so that nothing is left of it.
    for pid in processes::of(place.root()) {
        if matches!(&processes::arguments(pid)[..], [first, second, ..] if first == "supervise" && second == "keeper")
        {
            processes::signal(pid, libc::SIGTERM);
        }
    }
    let ended = wait::within(wait::LONG, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    text.unwrap_or_else(|| panic!("not said: {until:?}: {}", fs::read_to_string(&said).unwrap()))
}

#[test]
fn root_in_a_container_one_service_has_our_own_output() {
    let place = Place::new(Who::Root);
    place.unit("web", "command = [\"/bin/sh\", \"-c\", \"echo one; exec sleep 1000\"]\n");
    output(&place, &["one"]);
    assert!(!place.log().join("web").exists());
}

#[test]
fn root_in_a_container_lines_of_several_services_have_their_names() {
    let place = Place::new(Who::Root);
    place.unit("web", "command = [\"/bin/sh\", \"-c\", \"echo one; exec sleep 1000\"]\n");
    place.unit("db", "command = [\"/bin/sh\", \"-c\", \"echo two; exec sleep 1000\"]\n");
    let file = "command = [\"/bin/sh\", \"-c\", \"echo three; exec sleep 1000\"]\n[log]\nto = \"file\"\n";
    place.unit("kept", file);
    let plain = "command = [\"/bin/sh\", \"-c\", \"echo {}; exec sleep 1000\"]\n[log]\nto = \"inherit\"\n";
    place.unit("asked", &plain.replace("{}", "four"));
    let said = output(&place, &["web: one", "db: two", "four"]);
    assert!(!said.contains("three"), "{said}");
    assert_eq!(super::cri::texts(&place.log(), "kept"), ["three"]);
    assert!(!place.log().join("web").exists());
}
