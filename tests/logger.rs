//! The logger as a process: killed at any moment, out of disk, its directory gone. What it promises is
//! that every line is in the files once, or counted, and that no service ever waits for a disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may fail

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use supervise::sys::link::Link;
use supervise::sys::poller::{Interest, Poller};
use supervise::sys::{fds, memfd, pipes};
use supervise::wire::cri::{self, Which};
use supervise::wire::logger::{MESSAGE_BYTES, Name, Order, Report, Rule, STATE_BYTES};

const PATIENCE: Duration = Duration::from_secs(60);

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

/// What keeper and manager hold: everything but the logger itself.
struct Keeper {
    dir: tempfile::TempDir,
    logs: PathBuf,
    manager: Option<Link>,
    link: OwnedFd,
    state: OwnedFd,
    counter: OwnedFd,
    streams: BTreeMap<u64, (Order, OwnedFd)>,
    poller: Poller,
    limit: &'static str,
    parent: u32,
    through: &'static [&'static str],
    user: &'static [&'static str],
    rule: Rule,
}

impl Keeper {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (manager, link) = Link::pair().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(manager.as_fd(), 0, Interest::Read).unwrap();
        Self {
            logs: dir.path().join("log"),
            dir,
            manager: Some(manager),
            link: link.into_fd(),
            state: memfd::fixed(c"log state", STATE_BYTES).unwrap(),
            counter: memfd::create(c"consumed").unwrap(),
            streams: BTreeMap::new(),
            poller,
            limit: "",
            parent: std::process::id(),
            through: &[],
            user: &[],
            rule: Rule::default(),
        }
    }

    /// Starts a logger with the same descriptors as the last one and sends it all streams.
    fn start(&self) -> Child {
        let as_stdio = |fd: &OwnedFd| Stdio::from(fds::duplicate(fd.as_fd()).unwrap());
        // The shell moves its three standard descriptors to the places the logger expects, and becomes it.
        let script = format!("{} exec \"$@\" 3<&0 4<&1 5<&2 0</dev/null 1>/dev/null 2>>\"$0\"", self.limit);
        let child = Command::new("sh")
            .args(["-c", &script])
            .arg(self.dir.path().join("stderr"))
            .args(self.through)
            .args([env!("CARGO_BIN_EXE_supervise"), "logger", "--log-dir"])
            .arg(&self.logs)
            .args(["--parent", &self.parent.to_string()])
            .args(self.user)
            .stdin(as_stdio(&self.link))
            .stdout(as_stdio(&self.state))
            .stderr(as_stdio(&self.counter))
            .spawn()
            .unwrap();
        self.streams.keys().for_each(|id| self.send(*id));
        child
    }

    fn send(&self, id: u64) {
        let (order, pipe) = &self.streams[&id];
        // A full queue holds the same orders already, from the last time.
        match self.manager.as_ref().unwrap().send(&order.encode(), &[pipe.as_fd()]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            outcome => outcome.unwrap(),
        }
    }

    /// A new stream; its write end.
    fn add(&mut self, stream: u64, service: &str, which: Which) -> File {
        let (read, write) = fds::pipe(0).unwrap();
        let service = Name::new(service.as_bytes()).unwrap();
        self.streams.insert(stream, (Order::Add { stream, service, which, rule: self.rule }, read));
        self.send(stream);
        File::from(write)
    }

    fn order(&self, order: Order) {
        self.manager.as_ref().unwrap().send(&order.encode(), &[]).unwrap();
    }

    /// Reports that are there now; closed streams are forgotten.
    fn reports(&mut self) {
        while self.report() {}
    }

    fn report(&mut self) -> bool {
        let mut bytes = [0; MESSAGE_BYTES];
        if let Ok(Some(got)) = self.manager.as_ref().unwrap().receive(&mut bytes, &mut []) {
            match Report::decode(&bytes[..got.bytes]).unwrap() {
                Report::Closed { stream } => drop(self.streams.remove(&stream)),
                Report::Lost { stream } => panic!("stream {stream} was lost"),
            }
            return true;
        }
        false
    }

    fn wait_closed(&mut self, stream: u64) {
        while self.streams.contains_key(&stream) {
            self.poller.wait(Some(PATIENCE)).unwrap();
            assert!(self.poller.ready().next().is_some(), "no report of stream {stream}: {}", self.stderr());
            self.report();
        }
    }

    /// Writes all of it as one stream that ends, and waits until the logger is through with it.
    fn through(&mut self, stream: u64, service: &str, text: &[u8]) {
        let mut pipe = self.add(stream, service, Which::Stdout);
        pipe.write_all(text).unwrap();
        drop(pipe);
        self.wait_closed(stream);
    }

    /// Closes the manager's end for good.
    fn end(&mut self, mut child: Child) -> ExitStatus {
        self.manager = None;
        child.wait().unwrap()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// All entries of a service, oldest file first; a torn line is a failure.
    fn entries(&self, service: &str) -> Vec<(Which, bool, Vec<u8>)> {
        let mut files: Vec<_> =
            fs::read_dir(self.logs.join(service)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort(); // `2026…` sorts before `current`
        files.iter().flat_map(|file| entries_of(file)).collect()
    }

    /// The lines of one output of a service, put together from their parts.
    fn lines(&self, service: &str, which: Which) -> Vec<Vec<u8>> {
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        for (_, ends, content) in self.entries(service).into_iter().filter(|entry| entry.0 == which) {
            line.extend(content);
            if ends {
                lines.push(std::mem::take(&mut line));
            }
        }
        assert_eq!(line, b"", "a part that nothing follows");
        lines
    }
}

fn entries_of(file: &Path) -> Vec<(Which, bool, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let parse = |line: &[u8]| {
        let entry = line.strip_suffix(b"\n").and_then(cri::parse);
        let entry = entry.unwrap_or_else(|| panic!("torn: {}", String::from_utf8_lossy(line)));
        (entry.which, entry.ends, entry.content.to_vec())
    };
    bytes.split_inclusive(|byte| *byte == b'\n').map(parse).collect()
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

/// The number in `dropped N lines`.
fn dropped(line: &[u8]) -> u64 {
    let text = std::str::from_utf8(line).unwrap();
    let number = text.strip_prefix("dropped ").and_then(|text| text.strip_suffix(" lines"));
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
fn directories_that_are_removed_are_made_again() {
    let mut keeper = Keeper::new();
    let child = keeper.start();
    let open = keeper.add(1, "web", Which::Stderr);
    keeper.through(2, "web", b"one\n");
    fs::remove_dir_all(keeper.logs.join("web")).unwrap();
    keeper.through(3, "web", b"two\n");
    assert_eq!(keeper.lines("web", Which::Stdout), [b"two"]);
    fs::remove_dir_all(&keeper.logs).unwrap();
    keeper.through(4, "web", b"three\n");
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
    keeper.poller.wait(Some(Duration::from_millis(50))).unwrap(); // past the last sweep
    let before = sleeps();
    keeper.poller.wait(Some(Duration::from_millis(400))).unwrap();
    assert_eq!(sleeps(), before, "wake-ups while nothing happened");
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
    keeper.order(Order::Drain { within_ms: 50 });
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
