//! Lines that do not get to where they are to go: the service has that as a problem until they do again, whoever dies.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use super::cri;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::wait;

/// More than the log directory takes, which is all written in the end.
const LINES: usize = 20_000;

/// The log directory is a file system of its own, of 256 KiB, until it is taken away.
struct Small(PathBuf);

impl Small {
    fn of(place: &Place) -> Self {
        let log = place.path("log");
        fs::create_dir(&log).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=256k,mode=755", "none"];
        assert!(Command::new("mount").args(mount).arg(&log).status().unwrap().success());
        Self(log)
    }

    fn becomes_large(&self) {
        let status = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn writer(place: &Place, when_full: &str) {
    let script = format!("seq -f 'line %.0f' 1 {LINES}; echo end; exec sleep 1000");
    place.unit(
        "web",
        &format!(
            "command = [\"/bin/sh\", \"-c\", {script:?}]\nsettle = \"10ms\"\n[log]\nwhen-full = \"{when_full}\"\n"
        ),
    );
}

/// Waits until these are the problems of the service.
#[track_caller]
fn problems(place: &Place, expected: &[String]) {
    let began = std::time::Instant::now();
    loop {
        let found = place.try_status().map(|_| place.service("web")["problems"].clone());
        if found.as_ref().is_some_and(|found| *found == serde_json::json!(expected)) {
            return;
        }
        assert!(began.elapsed() < wait::LONG, "{found:#?} instead of {expected:#?}");
        wait::a_moment();
    }
}

fn no_room(place: &Place, what: &str) -> String {
    let log = place.log().display().to_string();
    format!(
        "its output: {log}/web/current: writing: no space left on device\nhint: make room for {log}; {what} until \
         there is some"
    )
}

#[test]
fn root_a_full_disk_is_a_problem_of_who_waits_for_it_whoever_dies() {
    let mut place = Place::new(Who::Root);
    let small = Small::of(&place);
    writer(&place, "block");
    place.run();
    let expected = [no_room(&place, "the service waits with its next lines")];
    problems(&place, &expected);
    let lines: Vec<&str> = expected[0].lines().collect();
    for command in ["status", "why"] {
        let said = place.ask(&[command, "web"]);
        assert!(lines.iter().all(|line| said.out.contains(line)), "{said:?}");
    }
    assert!(place.ask(&["why"]).out.contains(lines[0]));
    let said = place.order(&["logs", "web", "-n", "1", "--raw"]);
    assert_eq!(said.err, format!("web: {}\n{}\n", lines[0], lines[1]));
    for role in [Role::Manager, Role::Logger, Role::Manager] {
        place.kill(role);
        problems(&place, &expected);
    }
    small.becomes_large();
    problems(&place, &[]);
    let texts = wait::until(wait::LONG, "the last line", || {
        let texts = cri::texts(&place.log(), "web");
        texts.last().is_some_and(|text| text == "end").then_some(texts)
    });
    assert_eq!(texts.len(), LINES + 1);
    assert_eq!(place.order(&["why"]).out, "everything is as wanted\n");
}

#[test]
fn root_a_full_disk_is_a_problem_of_who_loses_lines_whoever_dies() {
    let mut place = Place::new(Who::Root);
    let small = Small::of(&place);
    writer(&place, "drop");
    place.run();
    let expected = [no_room(&place, "lines are dropped and counted")];
    problems(&place, &expected);
    // It writes nothing any more: what is known is known by the count.
    for role in [Role::Logger, Role::Manager] {
        place.kill(role);
        problems(&place, &expected);
    }
    small.becomes_large();
    problems(&place, &[]);
    let texts = cri::texts(&place.log(), "web");
    let dropped = texts.last().unwrap().strip_prefix("dropped ").unwrap().strip_suffix(" lines").unwrap();
    let dropped: usize = dropped.parse().unwrap();
    // Some may have been told of before there was no room for that.
    let before: usize = texts
        .iter()
        .rev()
        .skip(1)
        .filter_map(|text| text.strip_prefix("dropped "))
        .map(|text| text.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    let kept = texts.iter().filter(|text| !text.starts_with("dropped ")).count();
    assert_eq!(kept + dropped + before, LINES + 1);
}

#[test]
fn root_that_nobody_takes_lines_elsewhere_is_a_problem_whoever_dies() {
    let mut place = Place::new(Who::Root);
    let script = "echo one; exec sleep 1000";
    place.unit(
        "web",
        &format!("command = [\"/bin/sh\", \"-c\", {script:?}]\nsettle = \"10ms\"\n[log]\nto = \"journal\"\n"),
    );
    let here = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && exec \"$@\"";
    place.run_below(&["unshare", "--mount", "sh", "-c", here, "sh"]);
    let current = place.log().join("web/current").display().to_string();
    let expected = [format!(
        "its output: sending to the journal at /run/systemd/journal/socket: no such file or directory\nhint: start \
         systemd-journald, or have its unit say `to = \"file\"`; its lines go to {current} until somebody takes them \
         there"
    )];
    problems(&place, &expected);
    wait::until(wait::LONG, "the line", || (cri::texts(&place.log(), "web") == ["one"]).then_some(()));
    for role in [Role::Logger, Role::Manager] {
        place.kill(role);
        problems(&place, &expected);
    }
    let said = place.order(&["logs", "web", "--raw"]);
    let words = expected[0].as_str();
    let to = "web: its output is to go to the journal: `journalctl -t web` shows it";
    assert_eq!((said.out.as_str(), said.err), ("one\n", format!("{to}\nweb: {words}\n")));
    // Whoever takes them from now on does not have to be sent a line to be noticed.
    let beside = PathBuf::from(format!("/proc/{}/root/run/systemd/journal/socket", place.role(Role::Keeper)));
    let _journal = UnixDatagram::bind(beside).unwrap();
    problems(&place, &[]);
    let said = place.order(&["logs", "web", "--raw"]);
    assert_eq!(said.err, "web: its output goes to the journal: `journalctl -t web` shows it\n");
}
