//! No room for what comes: every line is there or counted, or the service waits.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use supervise::wire::cri::Which;
use supervise::wire::logger::{Rule, WhenFull};

use super::keeper::{Keeper, PATIENCE, entries_of};

/// The number in `dropped N lines`.
fn dropped(line: &[u8]) -> u64 {
    let text = std::str::from_utf8(line).unwrap();
    let number = text.strip_prefix("dropped ").and_then(|text| text.split(' ').next());
    number.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

/// Writes more than fits, makes room, writes again: every line is there or counted, and nobody waited.
fn more_than_fits(keeper: &mut Keeper, make_room: impl Fn(&Path)) {
    let mut child = keeper.start();
    let silent = keeper.add(1, "web", Which::Stderr); // keeps the service known in between
    let line = |number: u64| format!("{number} {}\n", "x".repeat(190));
    let text: String = (0..5000).map(line).collect();
    keeper.through(2, "web", text.as_bytes());
    let kept = keeper.lines("web", Which::Stdout);
    for (number, kept) in kept.iter().enumerate() {
        assert!(kept.starts_with(format!("{number} ").as_bytes()), "kept lines are the first ones");
    }
    let kept = kept.len() as u64;
    // The last bytes of room may have taken a report already.
    let reports = keeper.lines("web", Which::Stderr);
    let reported: u64 = reports.iter().map(|line| dropped(line)).sum();
    assert!((100..4900).contains(&kept), "{kept} lines fit, which proves nothing");
    assert!(keeper.stderr().contains("log of `web`: "), "{}", keeper.stderr());
    child.kill().unwrap();
    child.wait().unwrap();
    make_room(&keeper.logs.join("web/current"));
    child = keeper.start();
    keeper.through(3, "web", b"after\n");
    let contents: Vec<_> =
        entries_of(&keeper.logs.join("web/current")).into_iter().map(|entry| entry.2).collect();
    assert_eq!(contents.len(), 2);
    assert_eq!(
        (dropped(&contents[0]), contents[1].as_slice()),
        (5000 - kept - reported, b"after".as_slice())
    );
    drop(silent);
    assert!(keeper.end(child).success());
}

#[test]
fn a_file_at_its_limit_drops_and_counts() {
    let mut keeper = Keeper::new();
    keeper.limit = "ulimit -f 512;"; // 256 KiB or 512 KiB, as the shell counts
    more_than_fits(&mut keeper, |current| {
        File::options().write(true).open(current).unwrap().set_len(0).unwrap()
    });
    assert!(keeper.stderr().contains("file too large\nhint: "), "{}", keeper.stderr());
}

#[test]
fn a_full_disk_drops_and_counts() {
    let mut keeper = Keeper::new();
    fs::create_dir(&keeper.logs).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k,mode=755", "none"])
        .arg(&keeper.logs)
        .output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        eprintln!("NOT TESTED: a full file system, which takes the right to mount one");
        return;
    }
    let logs = keeper.logs.clone();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        more_than_fits(&mut keeper, |current| fs::remove_file(current).unwrap());
        assert!(keeper.stderr().contains("no space left on device\nhint: "), "{}", keeper.stderr());
    }));
    assert!(Command::new("umount").arg("-l").arg(&logs).status().unwrap().success());
    outcome.unwrap();
}

#[test]
fn a_service_that_would_rather_wait_waits_and_loses_nothing() {
    let mut keeper = Keeper::new();
    keeper.rule = Rule { when_full: WhenFull::Block, ..Rule::default() };
    keeper.limit = "ulimit -f 512;";
    let mut child = keeper.start();
    let mut pipe = keeper.add(1, "web", Which::Stdout);
    let (done, all_done) = mpsc::channel();
    let line = |number: u64| format!("{number} {}\n", "x".repeat(190));
    let text: String = (0..20_000).map(line).collect();
    std::thread::spawn(move || {
        pipe.write_all(text.as_bytes()).unwrap();
        drop(pipe);
        done.send(()).unwrap();
    });
    let complaint =
        || keeper.stderr().contains("hint: the service waits with its next lines until this works again");
    while !complaint() {
        assert!(
            all_done.recv_timeout(Duration::from_millis(20)).is_err(),
            "it did not wait: {}",
            keeper.stderr()
        );
    }
    let before = keeper.entries("web").len();
    // Another service's lines go on meanwhile.
    keeper.through(2, "other", b"x\n");
    assert!(all_done.recv_timeout(Duration::from_millis(1)).is_err());
    // The limit was the process's: one without it finds room.
    child.kill().unwrap();
    child.wait().unwrap();
    keeper.limit = "";
    child = keeper.start();
    all_done.recv_timeout(PATIENCE).unwrap();
    keeper.wait_closed(1);
    let lines = keeper.lines("web", Which::Stdout);
    assert!((100..19_000).contains(&before), "{before} lines fit, which proves nothing");
    assert_eq!(lines.len(), 20_000);
    for (number, got) in lines.iter().enumerate() {
        assert!(got.starts_with(format!("{number} ").as_bytes()), "line {number}");
    }
    assert!(keeper.end(child).success());
}

#[test]
fn a_service_that_would_rather_wait_goes_on_when_there_is_room() {
    let mut keeper = Keeper::new();
    keeper.rule = Rule { when_full: WhenFull::Block, ..Rule::default() };
    fs::create_dir(&keeper.logs).unwrap();
    fs::write(keeper.logs.join("web"), "in the way").unwrap();
    let child = keeper.start();
    let mut pipe = keeper.add(1, "web", Which::Stdout);
    pipe.write_all(b"one\n").unwrap();
    drop(pipe);
    keeper.through(2, "other", b"x\n");
    assert!(keeper.streams.contains_key(&1));
    fs::remove_file(keeper.logs.join("web")).unwrap();
    keeper.wait_closed(1);
    assert_eq!(keeper.lines("web", Which::Stdout), [b"one"]);
    assert!(keeper.end(child).success());
}
