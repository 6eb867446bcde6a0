//! The logger as a process: killed at any moment, out of disk, its directory gone. What it promises is
//! that every line is in the files once, or counted, and that no service ever waits for a disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail

#[path = "logger/elsewhere.rs"]
mod elsewhere;
#[path = "logger/keeper.rs"]
mod keeper;
#[path = "logger/room.rs"]
mod room;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use keeper::{Keeper, PATIENCE};
use supervise::sys::link::Link;
use supervise::sys::{fds, pipes};
use supervise::wire::cri::Which;
use supervise::wire::logger::{Order, Rule};

/// Random enough, and the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Line `number` of a stream: most are short, some longer than an entry may be, few longer than a pipe.
fn line(stream: u64, number: u64) -> Vec<u8> {
    let mut dice = Dice((stream + 1) * 1_000_003 + number * 7919 + 1);
    let length = match dice.below(2000) {
        0 => 70_000 + dice.below(100_000),
        1..=4 => 16_000 + dice.below(30_000),
        _ => dice.below(160),
    };
    let mut line = format!("{stream} {number} ").into_bytes();
    line.extend((0..length).map(|_| match dice.below(300) as u8 {
        b'\n' => b'\r',
        byte => byte,
    }));
    line
}

/// Writes numbered lines in pieces of any size until told to stop, the last without its newline; says how many.
fn numbered(mut pipe: File, stream: u64, least: u64, enough: &AtomicBool, total: &AtomicU64) -> u64 {
    let mut dice = Dice(stream + 99);
    let (mut number, mut pending) = (0, Vec::new());
    while number < least || !enough.load(Ordering::Relaxed) {
        pending.extend(line(stream, number));
        pending.push(b'\n');
        number += 1;
        total.fetch_add(1, Ordering::Relaxed);
        // Sometimes line by line, sometimes with half a line at the end, as buffered output comes.
        let keep = match dice.below(4) {
            0 => 0,
            1 => dice.below(pending.len() as u64 + 1) as usize,
            _ if pending.len() < 8192 => pending.len(),
            _ => pending.len() % 4096,
        };
        let now = pending.len() - keep;
        pipe.write_all(&pending[..now]).unwrap();
        pending.drain(..now);
    }
    pending.extend(line(stream, number));
    pipe.write_all(&pending).unwrap();
    number + 1
}

#[test]
fn every_line_is_there_once_however_often_the_logger_is_killed() {
    const KILLS: u64 = 400;
    const LINES: u64 = 240_000;
    let services = ["a", "b", "c"];
    let mut keeper = Keeper::new();
    // Files give way and are compressed all the while.
    keeper.rule = Rule { max_size: 256 * 1024, keep: 100_000, ..Rule::default() };
    let (enough, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (done, all_done) = mpsc::channel();
    let mut child = keeper.start();
    let ids: Vec<u64> = (0..6).collect();
    for id in &ids {
        let which = if id % 2 == 0 { Which::Stdout } else { Which::Stderr };
        let pipe = keeper.add(*id, services[*id as usize / 2], which);
        let (id, enough, total, done) = (*id, Arc::clone(&enough), Arc::clone(&total), done.clone());
        std::thread::spawn(move || done.send((id, numbered(pipe, id, LINES / 6, &enough, &total))).unwrap());
    }
    let (mut counts, mut dice, mut kills) = (BTreeMap::new(), Dice(4711), 0);
    while counts.len() < ids.len() {
        match all_done.recv_timeout(Duration::from_micros(dice.below(12_000))) {
            Ok((id, count)) => drop(counts.insert(id, count)),
            Err(_) => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                enough.store(kills >= KILLS, Ordering::Relaxed);
                keeper.reports();
                child = keeper.start();
            }
        }
    }
    for id in &ids {
        keeper.wait_closed(*id);
    }
    keeper.order(Order::Drain { within_ms: 60_000 });
    assert!(child.wait().unwrap().success(), "{}", keeper.stderr());
    assert!(kills >= KILLS && total.load(Ordering::Relaxed) >= LINES);
    println!("{kills} kills, {} lines", total.load(Ordering::Relaxed));
    for id in ids {
        let which = if id % 2 == 0 { Which::Stdout } else { Which::Stderr };
        let lines = keeper.lines(services[id as usize / 2], which);
        for (number, got) in lines.iter().enumerate() {
            let want = line(id, number as u64);
            assert!(*got == want, "stream {id}, line {number}: {}", String::from_utf8_lossy(got));
        }
        assert_eq!(lines.len() as u64, counts[&id], "lines of stream {id}");
    }
    assert_eq!(keeper.stderr(), "");
}

#[test]
fn directories_that_are_removed_are_made_again() {
    let mut keeper = Keeper::new();
    let child = keeper.start();
    let open = keeper.add(1, "web", Which::Stderr);
    keeper.through(2, "web", b"one\n");
    fs::remove_dir_all(keeper.logs.join("web")).unwrap();
    keeper.through(3, "web", b"two\n");
    assert_eq!(keeper.lines("web", Which::Stdout), [b"two"]);
    fs::remove_dir_all(&keeper.logs).unwrap();
    let mut pipe = keeper.add(4, "web", Which::Stdout);
    pipe.write_all(b"three\n").unwrap();
    drop(pipe);
    // One that may not touch anything else any more leaves that to its successor, and the line in its pipe.
    let mut child = child;
    while keeper.streams.contains_key(&4) {
        keeper.poller.wait(Some(Duration::from_millis(20))).unwrap();
        keeper.reports();
        if child.try_wait().unwrap().is_some() {
            child = keeper.start();
        }
    }
    assert_eq!(keeper.lines("web", Which::Stdout), [b"three"]);
    drop(open);
    keeper.wait_closed(1);
    assert!(keeper.end(child).success());
}

#[test]
fn a_writer_that_fills_a_pipe_with_half_a_line_in_it_is_heard() {
    let mut keeper = Keeper::new();
    let child = keeper.start();
    let (done, all_done) = mpsc::channel();
    let mut pipe = keeper.add(1, "web", Which::Stdout);
    for round in 0..30 {
        pipe.write_all(b"half ").unwrap();
        // Once this one is through, the half line was looked at and is being waited for.
        keeper.through(100 + round, "other", b"x\n");
        let (mut writer, done) = (pipe.try_clone().unwrap(), done.clone());
        std::thread::spawn(move || {
            writer.write_all(&[vec![b'x'; 150_000], b"\n".to_vec()].concat()).unwrap();
            done.send(()).unwrap();
        });
        all_done.recv_timeout(PATIENCE).expect("the writer waits for a logger that waits for the writer");
    }
    drop(pipe);
    keeper.wait_closed(1);
    let lines = keeper.lines("web", Which::Stdout);
    assert!(lines.len() == 30 && lines.iter().all(|line| line.len() == 150_005));
    assert!(keeper.end(child).success());
}

#[test]
fn a_full_pipe_gives_way_to_the_next_stream_after_each_step() {
    let mut keeper = Keeper::new();
    let mut flood = keeper.add(1, "flood", Which::Stdout);
    let room = pipes::set_capacity(keeper.streams[&1].1.as_fd(), 1 << 20).unwrap();
    flood.write_all(&b"0123456789\n".repeat(room / 11 - 1000)).unwrap();
    drop(flood);
    keeper.add(2, "quiet", Which::Stdout).write_all(b"x\n").unwrap();
    let child = keeper.start();
    keeper.wait_closed(2);
    assert!(keeper.streams.contains_key(&1), "one line waited for a megabyte of another service");
    keeper.wait_closed(1);
    assert!(keeper.end(child).success());
}

#[test]
fn a_flood_starves_nobody_and_half_a_line_wakes_nobody() {
    let mut keeper = Keeper::new();
    let child = keeper.start();
    let half = keeper.add(1, "half", Which::Stdout);
    (&half).write_all(b"half").unwrap();
    let mut flood = keeper.add(2, "flood", Which::Stdout);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                flood.write_all(&b"0123456789\n".repeat(5000)).unwrap();
            }
        }
    });
    for stream in 10..40 {
        keeper.through(stream, "quiet", b"x\n");
    }
    (&half).write_all(b" a line").unwrap(); // to a stream that was waiting with the first half
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    keeper.wait_closed(2);
    assert_eq!(keeper.lines("quiet", Which::Stdout).len(), 30);
    // Nothing moves now, so nothing may wake the logger. That something does not happen takes time to see.
    let sleeps = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        count.trim().parse::<u64>().unwrap()
    };
    // How long its last sweep takes depends on what else the machine does.
    let mut is_at_rest = || {
        let before = sleeps();
        keeper.poller.wait(Some(Duration::from_millis(400))).unwrap();
        sleeps() == before
    };
    assert!((0..20).any(|_| is_at_rest()), "wake-ups while nothing happened");
    drop(half);
    keeper.wait_closed(1);
    assert_eq!(keeper.lines("half", Which::Stdout), [b"half a line"]);
    assert!(keeper.end(child).success());
}

#[test]
fn the_end_of_the_link_leaves_bytes_in_the_pipe_and_a_drain_leaves_none() {
    let mut keeper = Keeper::new();
    let child = keeper.start();
    let pipe = keeper.add(1, "web", Which::Stdout);
    (&pipe).write_all(b"one\nhalf").unwrap();
    keeper.through(2, "web", b"two\n");
    let read = fds::duplicate(keeper.streams[&1].1.as_fd()).unwrap();
    assert!(keeper.end(child).success());
    assert_eq!(pipes::available(read.as_fd()).unwrap(), 4);
    let (manager, link) = Link::pair().unwrap();
    (keeper.manager, keeper.link) = (Some(manager), link.into_fd());
    let mut child = keeper.start();
    keeper.order(Order::Drain { within_ms: 2_000 });
    assert!(child.wait().unwrap().success());
    assert_eq!(pipes::available(read.as_fd()).unwrap(), 0);
    let mut lines = keeper.lines("web", Which::Stdout);
    lines.sort();
    assert_eq!(lines, [b"half".as_slice(), b"one", b"two"]);
}

#[test]
fn a_second_logger_waits_for_the_first_and_one_without_its_parent_ends() {
    let mut keeper = Keeper::new();
    let first = keeper.start();
    keeper.through(1, "web", b"one\n");
    let mut second = keeper.start();
    let pipe = keeper.add(2, "web", Which::Stdout);
    (&pipe).write_all(b"two\n").unwrap();
    drop(pipe);
    keeper.wait_closed(2);
    assert!(second.try_wait().unwrap().is_none(), "it ended instead of waiting: {}", keeper.stderr());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    assert!(locks.lines().filter(|lock| lock.contains(&format!(" {} ", first.id()))).count() > 0, "{locks}");
    let mut first = first;
    first.kill().unwrap();
    first.wait().unwrap();
    keeper.through(3, "web", b"three\n");
    assert_eq!(keeper.lines("web", Which::Stdout), [b"one".as_slice(), b"two", b"three"]);
    assert!(keeper.end(second).success());
}

#[test]
fn one_whose_parent_is_gone_ends_before_it_touches_anything() {
    let mut keeper = Keeper::new();
    keeper.parent = 1;
    let mut child = keeper.start();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(keeper.stderr(), "supervise: logger: started by a process that is gone\n");
}

#[test]
fn it_holds_no_rights() {
    let mut keeper = Keeper::new();
    let child = keeper.start();
    keeper.through(1, "web", b"one\n");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let file = fs::metadata(keeper.logs.join("web/current")).unwrap();
    assert_eq!(
        (file.permissions().mode() & 0o777, file.uid()),
        (0o640, fs::metadata("/proc/self").unwrap().uid())
    );
    assert_eq!(fs::metadata(keeper.logs.join("web")).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(keeper.end(child).success());
}

#[test]
fn it_becomes_the_user_it_is_told_to() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("NOT TESTED: a change of user, which takes root");
        return;
    }
    let mut keeper = Keeper::new();
    keeper.through = &["setpriv", "--groups", "4,5"];
    keeper.user = &["--uid", "65533", "--gid", "65532"];
    fs::set_permissions(keeper.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let child = keeper.start();
    keeper.through(1, "web", b"one\n");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:"), ["65533"; 4].join("\t"));
    assert_eq!(field("Gid:"), ["65532"; 4].join("\t"));
    assert_eq!((field("Groups:"), field("CapEff:")), (String::new(), "0000000000000000".to_owned()));
    assert_eq!(field("CapBnd:"), "0000000000000000");
    for path in [keeper.logs.clone(), keeper.logs.join("web"), keeper.logs.join("web/current")] {
        let facts = fs::metadata(&path).unwrap();
        assert_eq!((facts.uid(), facts.gid()), (65533, 65532), "{}", path.display());
    }
    assert!(keeper.end(child).success());
}
