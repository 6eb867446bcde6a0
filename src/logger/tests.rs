//! LOG. The logger stopped at each point where it could be killed, and its files put in every wrong state. Never in the program.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::away::Away;
use super::glass::Glass;
use super::intake::{Intake, LOOK_BYTES, Next};
use super::shelf::Shelf;
use super::state::{Dropped, Record, State, Unfinished};
use super::stream::Stream;
use super::{Arguments, Failed};
use crate::sys::dirs::{self, Identity};
use crate::sys::pipes::Void;
use crate::sys::{fds, memfd, pipes};
use crate::wire::cri::{self, Stamp, Which};
use crate::wire::logger::{Name, Rule, STATE_BYTES, TRAY_BYTES};

mod rotation;

const STREAM: u64 = 7;

/// What outlives a logger.
struct World {
    dir: tempfile::TempDir,
    state: OwnedFd,
    tray: OwnedFd,
    read: OwnedFd,
    write: Option<OwnedFd>,
}

fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).unwrap()
}

fn shelf(path: &Path, most_open: usize) -> Shelf {
    Shelf::new(path.to_owned(), most_open)
}

impl World {
    fn new() -> Self {
        // The logger's process turns this signal into a descriptor; a test has other threads that would die.
        signal_hook::flag::register(libc::SIGIO, Arc::new(AtomicBool::new(false))).unwrap();
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            state: memfd::fixed(c"state", STATE_BYTES).unwrap(),
            tray: pipes::tray(TRAY_BYTES).unwrap(),
            read,
            write: Some(write),
        }
    }

    fn put(&self, bytes: &[u8]) {
        assert_eq!(fds::write(self.write.as_ref().unwrap().as_fd(), bytes).unwrap(), bytes.len());
    }

    fn logger(&self) -> Intake {
        let copy = |fd: &OwnedFd| fds::duplicate(fd.as_fd()).unwrap();
        let state = State::take(copy(&self.state), copy(&self.tray), Void::open()).unwrap();
        let mut shelf = shelf(self.dir.path(), 4);
        shelf.join(
            name("web"),
            state.dropped(&name("web")).map_or(0, |dropped| dropped.count),
            Rule::default(),
        );
        let away = Away::new(Path::new("/nonexistent"), Path::new("/nonexistent"));
        Intake::new(state, shelf, away, Glass::new(LOOK_BYTES).unwrap())
    }

    fn stream(&self, logger: &Intake) -> Stream {
        let pipe = fds::duplicate(self.read.as_fd()).unwrap();
        Stream::new(STREAM, name("web"), Which::Stdout, pipe, logger.state.owed(STREAM)).unwrap()
    }

    /// A successor: recovers, then writes what there is.
    fn succeed(&self) {
        let mut logger = self.logger();
        assert!(logger.recover().unwrap().is_none());
        let mut stream = self.stream(&logger);
        stream.hung_up = self.write.is_none();
        while logger.step(&mut stream, Instant::now()) == Next::Again {}
    }

    fn contents(&self) -> Vec<String> {
        contents(&self.dir.path().join("web/current"))
    }

    /// A step of `taken` bytes up to the moment before its write, with the file it is about.
    fn begun(&self, taken: u64, length: u64) -> (Intake, Record) {
        let mut logger = self.logger();
        let stamp = Stamp::new(0, 0);
        let target = logger.shelf.target(&name("web"), length, &stamp, Instant::now()).unwrap();
        let (file, before) = (target.identity, target.size);
        let record =
            Record { stream: STREAM, service: name("web"), taken, file, before, length, dropped: None };
        logger.state.begin(&record).unwrap();
        (logger, record)
    }
}

/// The content of each entry with its tag, as `F one`.
fn contents(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let tagged = |line: &[u8]| {
        let entry = cri::parse(line.strip_suffix(b"\n").expect("a torn line")).expect("no entry");
        format!("{} {}", if entry.ends { "F" } else { "P" }, String::from_utf8_lossy(entry.content))
    };
    lines.map(tagged).collect()
}

#[test]
fn a_step_makes_no_file_larger_than_it_may_be() {
    let world = World::new();
    let mut logger = world.logger();
    let most = 64 << 10;
    logger
        .shelf
        .set_rule(&name("web"), Rule { compress: false, keep: 1000, max_size: most, ..Rule::default() });
    // Each of these lines is twenty times as long in the file.
    world.put(&b"x\n".repeat(30_000));
    let mut stream = world.stream(&logger);
    while logger.step(&mut stream, Instant::now()) == Next::Again {}
    let files = fs::read_dir(world.dir.path().join("web")).unwrap();
    let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() > 15 && sizes.iter().all(|size| *size <= most), "{sizes:?}");
}

const ENTRY: &[u8] = b"1970-01-01T00:00:00.000000000Z stdout F one\n";

#[test]
fn a_death_before_the_write_loses_nothing() {
    let world = World::new();
    world.put(b"one\ntwo\n");
    drop(world.begun(4, ENTRY.len() as u64));
    world.succeed();
    assert_eq!(world.contents(), ["F one", "F two"]);
}

#[test]
fn a_death_in_the_middle_of_the_write_leaves_no_half_line_and_no_double() {
    for part in [1, 20, ENTRY.len() - 1] {
        let world = World::new();
        world.put(b"one\ntwo\n");
        let (mut logger, _) = world.begun(4, ENTRY.len() as u64);
        logger.shelf.append(&name("web"), &ENTRY[..part]).unwrap();
        drop(logger);
        world.succeed();
        assert_eq!(world.contents(), ["F one", "F two"], "after {part} bytes");
    }
}

#[test]
fn a_death_after_the_write_doubles_nothing() {
    let world = World::new();
    world.put(b"one\ntwo\n");
    let (mut logger, _) = world.begun(4, ENTRY.len() as u64);
    logger.shelf.append(&name("web"), ENTRY).unwrap();
    drop(logger);
    world.succeed();
    assert_eq!(world.contents(), ["F one", "F two"]);
}

#[test]
fn a_death_while_taking_bytes_out_takes_the_rest() {
    for part in [0, 1, 3, 4] {
        let world = World::new();
        world.put(b"one\ntwo\n");
        let (mut logger, record) = world.begun(4, ENTRY.len() as u64);
        logger.shelf.append(&name("web"), ENTRY).unwrap();
        logger.state.settle(record.dropped);
        if part > 0 {
            let taken = logger.state.take_out(world.read.as_fd(), part);
            assert_eq!(taken.unwrap(), part);
        }
        drop(logger);
        // A successor that dies before the stream is added again, and one that dies in its own recovery.
        world.logger().recover().unwrap();
        world.logger().recover().unwrap();
        world.succeed();
        assert_eq!(world.contents(), ["F one", "F two"], "after {part} bytes");
    }
}

#[test]
fn a_death_while_paying_what_a_predecessor_owed_pays_the_rest() {
    let world = World::new();
    world.put(b"one\ntwo\n");
    let (mut logger, record) = world.begun(4, ENTRY.len() as u64);
    logger.shelf.append(&name("web"), ENTRY).unwrap();
    drop(logger);
    let mut logger = world.logger();
    logger.recover().unwrap();
    assert_eq!(logger.state.owed(STREAM), 4);
    logger.state.begin_settled(&record).unwrap();
    logger.state.take_out(world.read.as_fd(), 3).unwrap();
    drop(logger);
    world.succeed();
    world.put(b"three\n");
    world.succeed();
    assert_eq!(world.contents(), ["F one", "F two", "F three"], "paid once");
}

#[test]
fn a_death_while_the_tray_is_emptied_in_the_middle_of_a_step_takes_the_rest() {
    const PHASE_AND_CLEARING: (usize, u64) = (8, 3);
    const REST_AND_FOUR: (usize, u64) = (152, 4);
    for emptied in [false, true] {
        let world = World::new();
        world.put(b"one\ntwo\n");
        let (mut logger, record) = world.begun(8, 2 * ENTRY.len() as u64);
        let two = b"1970-01-01T00:00:00.000000000Z stdout F two\n";
        logger.shelf.append(&name("web"), &[ENTRY, two].concat()).unwrap();
        logger.state.settle(record.dropped);
        assert_eq!(logger.state.take_out(world.read.as_fd(), 4).unwrap(), 4);
        let map = memfd::Map::new(world.state.as_fd(), true).unwrap();
        for (at, value) in [REST_AND_FOUR, PHASE_AND_CLEARING] {
            map.store(at, &value.to_le_bytes());
        }
        if emptied {
            fds::read(world.tray.as_fd(), &mut [0; 9]).unwrap();
        }
        assert!(matches!(logger.state.unfinished().unwrap(), Unfinished::Consuming(_, 4)));
        drop(logger);
        world.succeed();
        assert_eq!(world.contents(), ["F one", "F two"], "emptied: {emptied}");
        assert_eq!(pipes::available(world.read.as_fd()).unwrap(), 0);
    }
}

#[test]
fn a_tray_with_less_room_than_a_step_needs_loses_and_doubles_nothing() {
    let mut world = World::new();
    world.tray = pipes::tray(0).unwrap();
    assert_eq!(pipes::set_capacity(world.tray.as_fd(), 4096).unwrap(), 4096);
    let lines: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    world.put((lines.join("\n") + "\n").as_bytes());
    world.succeed();
    let expected: Vec<String> = lines.iter().map(|line| format!("F {line}")).collect();
    assert!(world.contents() == expected, "{} lines of {}", world.contents().len(), expected.len());
    assert_eq!(pipes::available(world.tray.as_fd()).unwrap(), 0);
}

#[test]
fn a_pipe_that_is_pressed_is_larger_until_it_has_been_quiet_for_a_while() {
    let world = World::new();
    let mut logger = world.logger();
    let mut stream = world.stream(&logger);
    let held = || pipes::capacity(world.read.as_fd()).unwrap();
    let found = held();
    let mut write = |stream: &mut Stream, line: &str, times: usize| {
        world.put(line.repeat(times).as_bytes());
        while logger.step(stream, Instant::now()) == Next::Again {}
    };
    write(&mut stream, "a few bytes\n", 1);
    assert_eq!(held(), found, "nobody waits for so little");
    write(&mut stream, "enough\n", found / 7);
    assert_eq!(held(), 1024 * 1024);
    (1..999).for_each(|_| write(&mut stream, "a few bytes\n", 1));
    write(&mut stream, "enough\n", found / 7);
    (1..999).for_each(|_| write(&mut stream, "a few bytes\n", 1));
    assert_eq!(held(), 1024 * 1024, "it was pressed in between");
    (0..2).for_each(|_| write(&mut stream, "a few bytes\n", 1));
    assert_eq!(held(), found);
    write(&mut stream, "enough\n", found / 7);
    assert_eq!(held(), 1024 * 1024, "once more");
    logger.release(&mut stream);
    assert_eq!(held(), found, "who takes it over finds it as it was");
}

#[test]
fn only_so_many_pipes_are_larger_at_a_time() {
    let world = World::new();
    let mut logger = world.logger();
    let mut all = Vec::new();
    for id in 0..17 {
        let (read, write) = fds::pipe(libc::O_NONBLOCK).unwrap();
        let held = pipes::capacity(read.as_fd()).unwrap();
        let copy = fds::duplicate(read.as_fd()).unwrap();
        let mut stream = Stream::new(id, name("web"), Which::Stdout, copy, 0).unwrap();
        fds::write(write.as_fd(), "enough\n".repeat(held / 7).as_bytes()).unwrap();
        while logger.step(&mut stream, Instant::now()) == Next::Again {}
        all.push((stream, read, write));
    }
    let large = |read: &OwnedFd| pipes::capacity(read.as_fd()).unwrap() == 1024 * 1024;
    assert_eq!(all.iter().filter(|(_, read, _)| large(read)).count(), 16);
    logger.release(&mut all[0].0);
    fds::write(all[16].2.as_fd(), "enough\n".repeat(5_000).as_bytes()).unwrap();
    while logger.step(&mut all[16].0, Instant::now()) == Next::Again {}
    assert!(large(&all[16].1), "there is room again");
}

#[test]
fn a_file_that_is_another_one_now_gets_the_lines_again() {
    let world = World::new();
    world.put(b"one\n");
    let (mut logger, _) = world.begun(4, ENTRY.len() as u64);
    logger.shelf.append(&name("web"), ENTRY).unwrap();
    drop(logger);
    fs::rename(world.dir.path().join("web/current"), world.dir.path().join("web/moved")).unwrap();
    fs::write(world.dir.path().join("web/current"), ENTRY.repeat(2)).unwrap();
    world.succeed();
    assert_eq!(world.contents(), ["F one"; 3]);
}

#[test]
fn half_a_line_waits_and_the_end_of_the_writer_ends_it() {
    let mut world = World::new();
    world.put(b"one\nha");
    world.succeed();
    assert_eq!(world.contents(), ["F one"]);
    world.put(b"lf");
    world.write = None;
    world.succeed();
    assert_eq!(world.contents(), ["F one", "F half"]);
}

#[test]
fn a_waiting_half_line_has_news_only_after_a_write() {
    let world = World::new();
    let mut logger = world.logger();
    let mut stream = world.stream(&logger);
    world.put(b"half");
    assert_eq!(logger.step(&mut stream, Instant::now()), Next::Again);
    assert_eq!(logger.step(&mut stream, Instant::now()), Next::Wait);
    assert_eq!((stream.parked, stream.has_news()), (Some(4), false));
    assert!(pipes::raises_sigio(world.read.as_fd()).unwrap(), "a writer could fill the pipe unheard");
    stream.release();
    assert!(!pipes::raises_sigio(world.read.as_fd()).unwrap());
    world.put(b"!");
    assert!(stream.has_news());
}

#[test]
fn a_full_pipe_without_a_newline_is_emptied_in_parts() {
    for slots in [1, 2] {
        let world = World::new();
        pipes::set_capacity(world.read.as_fd(), slots * 4096).unwrap();
        let mut logger = world.logger();
        let mut stream = world.stream(&logger);
        world.put(&vec![b'a'; slots * 4096]);
        while logger.step(&mut stream, Instant::now()) == Next::Again {}
        let left = if slots == 1 { 0 } else { 1 };
        assert_eq!(pipes::available(world.read.as_fd()).unwrap(), left, "of {slots} slots");
        world.put(b"b\n");
        while logger.step(&mut stream, Instant::now()) == Next::Again {}
        let joined: String = world.contents().iter().map(|entry| &entry[2..]).collect();
        assert_eq!(joined, format!("{}b", "a".repeat(slots * 4096)));
        assert!(world.contents().last().unwrap().starts_with("F "));
    }
}

#[test]
fn a_reader_that_steals_from_the_pipe_stops_nothing() {
    let world = World::new();
    world.put(b"one\n");
    let (mut logger, record) = world.begun(4, ENTRY.len() as u64);
    logger.shelf.append(&name("web"), ENTRY).unwrap();
    logger.state.settle(record.dropped);
    fds::read(world.read.as_fd(), &mut [0; 9]).unwrap();
    drop(logger);
    world.succeed();
    world.put(b"two\n");
    world.succeed();
    assert_eq!(world.contents(), ["F one", "F two"]);
}

#[test]
fn the_count_of_dropped_lines_outlives_the_logger_and_is_reported_once() {
    let world = World::new();
    // Something that can be no directory stands where the service's should be.
    fs::write(world.dir.path().join("web"), "").unwrap();
    world.put(b"one\ntwo\n");
    world.succeed();
    assert_eq!(pipes::available(world.read.as_fd()).unwrap(), 0, "a service must never wait for a disk");
    world.put(b"three\n");
    world.succeed();
    fs::remove_file(world.dir.path().join("web")).unwrap();
    world.put(b"four\n");
    world.succeed();
    world.put(b"five\n");
    world.succeed();
    assert_eq!(world.contents(), ["F dropped 3 lines", "F four", "F five"]);
}

#[test]
fn the_count_of_a_silent_service_is_reported_by_itself() {
    let world = World::new();
    fs::write(world.dir.path().join("web"), "").unwrap();
    world.put(b"one\n");
    let mut logger = world.logger();
    let mut stream = world.stream(&logger);
    while logger.step(&mut stream, Instant::now()) == Next::Again {}
    logger.report_dropped(Instant::now());
    assert!(logger.shelf.has_dropped());
    fs::remove_file(world.dir.path().join("web")).unwrap();
    logger.report_dropped(Instant::now());
    assert!(!logger.shelf.has_dropped() && logger.state.dropped(&name("web")).is_none());
    assert_eq!(world.contents(), ["F dropped 1 line"]);
}

#[test]
fn a_file_without_its_name_is_made_again() {
    let place = tempfile::tempdir().unwrap();
    let (stamp, mut now) = (Stamp::new(0, 0), Instant::now());
    let mut shelf = shelf(&place.path().join("log"), 4);
    let current = place.path().join("log/web/current");
    shelf.join(name("web"), 0, Rule::default());
    let mut write = |now| {
        shelf.target(&name("web"), 2, &stamp, now).unwrap();
        shelf.append(&name("web"), b"x\n").unwrap();
    };
    write(now);
    fs::remove_file(&current).unwrap();
    write(now);
    assert_eq!(fs::read(&current).unwrap(), b"x\n", "after it was removed");
    fs::rename(&current, place.path().join("moved")).unwrap();
    now += Duration::from_secs(1);
    write(now);
    assert_eq!(fs::read(&current).unwrap(), b"x\n", "after it was moved away");
    fs::remove_dir_all(place.path().join("log/web")).unwrap();
    write(now);
    assert_eq!(fs::read(&current).unwrap(), b"x\n", "after its directory was removed");
    fs::remove_dir_all(place.path().join("log")).unwrap();
    write(now);
    assert_eq!(fs::read(&current).unwrap(), b"x\n", "after the log directory was removed");
    fs::File::options().write(true).open(&current).unwrap().set_len(0).unwrap();
    write(now);
    assert_eq!(fs::read(&current).unwrap(), b"x\n", "after it was emptied");
}

#[test]
fn only_so_many_files_are_open_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let mut shelf = shelf(place.path(), 2);
    let open = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter(|link| fs::read_link(link.path()).is_ok_and(|path| path.starts_with(place.path())))
            .count()
    };
    for round in 1..4 {
        for service in ["a", "b", "c"] {
            shelf.join(name(service), 0, Rule::default());
            shelf.target(&name(service), 2, &Stamp::new(0, 0), Instant::now()).unwrap();
            shelf.append(&name(service), b"x\n").unwrap();
            assert_eq!(fs::read(place.path().join(service).join("current")).unwrap().len(), 2 * round);
        }
        assert_eq!(open(), 3, "two files and the log directory");
    }
}

#[test]
fn nothing_is_written_where_another_user_could() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let mut shelf = shelf(place.path(), 4);
    let mut target = |service: &str| {
        shelf.join(name(service), 0, Rule::default());
        shelf
            .target(&name(service), 2, &Stamp::new(0, 0), Instant::now())
            .map_err(|trouble| trouble.to_string())
    };
    fs::create_dir(place.path().join("open")).unwrap();
    fs::set_permissions(place.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(target("open").unwrap_err(), "opening the directory: another user can write there");
    std::os::unix::fs::symlink("/tmp", place.path().join("link")).unwrap();
    assert_eq!(target("link").unwrap_err(), "opening the directory: not a directory");
    fs::create_dir(place.path().join("file")).unwrap();
    fs::set_permissions(place.path().join("file"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path().join("file/current")).unwrap();
    assert_eq!(target("file").unwrap_err(), "opening: too many levels of symbolic links");
}

#[test]
fn what_is_owed_survives_as_long_as_there_is_room() {
    let world = World::new();
    let mut state = world.logger().state;
    (1..=64).for_each(|stream| state.owe(stream, stream * 10));
    state.owe(3, 5);
    state.owe(4, 0);
    assert_eq!((state.owed(1), state.owed(3), state.owed(4), state.owed(64)), (10, 5, 0, 640));
    state.owe(65, 1);
    assert_eq!((state.owed(65), state.owed(1)), (1, 10), "a free place was there");
    state.owe(66, 2);
    assert_eq!((state.owed(66), state.owed(1), state.owed(2)), (2, 0, 20), "the oldest gives way");
}

#[test]
fn a_record_comes_back_as_it_was() {
    let world = World::new();
    let mut state = world.logger().state;
    assert_eq!(state.unfinished().unwrap(), Unfinished::Nothing);
    let file = Identity { device: 1, inode: 2 };
    let dropped = Some(Dropped { slot: 0, count: 9 });
    let (service, stream) = (name(&"n".repeat(63)), u64::MAX);
    let record = Record { stream, service, taken: 3, file, before: 4, length: 5, dropped };
    state.begin(&record).unwrap();
    assert_eq!(state.unfinished().unwrap(), Unfinished::Writing(record));
    state.settle(None);
    assert_eq!(state.unfinished().unwrap(), Unfinished::Consuming(Record { dropped: None, ..record }, 3));
    state.finish();
    assert_eq!(world.logger().state.unfinished().unwrap(), Unfinished::Nothing);
}

#[test]
fn memory_of_another_size_or_layout_is_refused() {
    let take = |state: OwnedFd| State::take(state, pipes::tray(4096).unwrap(), Void::open()).map(drop);
    assert!(take(memfd::fixed(c"state", STATE_BYTES * 2).unwrap()).is_err());
    let state = memfd::fixed(c"state", STATE_BYTES).unwrap();
    let map = memfd::Map::new(state.as_fd(), true).unwrap();
    assert!(take(fds::duplicate(state.as_fd()).unwrap()).is_ok());
    map.store(0, b"\x01");
    assert!(take(state).is_err());
}

#[test]
fn the_identity_of_a_file_is_that_of_its_name() {
    let world = World::new();
    let (logger, record) = world.begun(0, 0);
    let file = fs::File::open(world.dir.path().join("web/current")).unwrap();
    assert_eq!(dirs::facts(file.as_fd()).unwrap().identity, record.file);
    drop(logger);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let parse = |text: &str| match Arguments::parse(text.split_whitespace().map(Into::into).collect()) {
        Ok(arguments) => Ok(arguments.user),
        Err(Failed::Usage(what)) => Err(what),
        Err(Failed::Step(doing, _)) => Err(doing),
        Err(Failed::Orphan) => Err("orphan"),
    };
    assert_eq!(parse("--log-dir /x --parent 1"), Ok(None));
    assert_eq!(parse("--log-dir /x --parent 1 --uid 5 --gid 6"), Ok(Some((5, 6))));
    for bad in [
        "--log-dir /x",
        "--parent 1",
        "--log-dir /x --parent",
        "--log-dir /x --parent one",
        "--log-dir /x --parent 1 --uid 5",
        "--log-dir /x --parent 1 --uid x --gid 6",
        "--log-dir /x --parent 1 --uid 4294967295 --gid 6",
        "--log-dir /x --parent 1 --other 6",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
