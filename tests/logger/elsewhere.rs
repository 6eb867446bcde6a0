//! Lines that go elsewhere than to files: the journal, the system's log, supervise's own output; and back to
//! files where nobody takes them.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use supervise::wire::cri::Which;
use supervise::wire::logger::{Rule, To, WhenFull};

use super::keeper::{Keeper, PATIENCE};

fn to(to: To) -> Rule {
    Rule { to, ..Rule::default() }
}

fn bound(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn next(socket: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 64 * 1024];
    let count = socket.recv(&mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

/// The message and the other fields of a datagram for the journal.
fn entry(bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
    let rest = bytes.strip_prefix(b"MESSAGE\n").unwrap();
    let (length, rest) = rest.split_first_chunk().unwrap();
    let (message, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let fields = std::str::from_utf8(rest.strip_prefix(b"\n").unwrap()).unwrap();
    (message.to_vec(), fields.lines().map(str::to_owned).collect())
}

#[test]
fn every_line_is_an_entry_of_the_journal() {
    let mut keeper = Keeper::new();
    keeper.rule = to(To::Journal);
    let journal = bound(&keeper.dir.path().join("journal"));
    let child = keeper.start();
    let long = vec![b'x'; 20_000];
    keeper.through(1, "web", &[b"one\n\x1b[1m\xff\0two\n".as_slice(), &long, b"\nlast"].concat());
    let entries: Vec<_> = (0..5).map(|_| entry(&next(&journal))).collect();
    let texts: Vec<&[u8]> = entries.iter().map(|(text, _)| text.as_slice()).collect();
    let expected: [&[u8]; 5] =
        [b"one", b"\x1b[1m\xff\0two", &long[..16 * 1024], &long[..20_000 - 16 * 1024], b"last"];
    assert_eq!(texts, expected);
    let fields = ["PRIORITY=6", "SYSLOG_FACILITY=3", "SYSLOG_IDENTIFIER=web", "SUPERVISE_SERVICE=web"];
    for (number, (_, found)) in entries.iter().enumerate() {
        assert!(fields.iter().all(|field| found.iter().any(|one| one == field)), "{found:?}");
        assert_eq!(found.contains(&"CONTAINER_PARTIAL_MESSAGE=true".to_owned()), number == 2);
    }
    assert!(!keeper.logs.join("web").exists(), "it was written to a file as well");
    assert!(keeper.end(child).success());
}

#[test]
fn every_line_is_a_message_of_the_systems_log() {
    let mut keeper = Keeper::new();
    keeper.rule = to(To::Syslog);
    let syslog = bound(&keeper.dir.path().join("syslog"));
    let child = keeper.start();
    keeper.through(1, "web", &[b"one\n".as_slice(), &[b'x'; 9_000], b"\n"].concat());
    let messages: Vec<String> = (0..3).map(|_| String::from_utf8(next(&syslog)).unwrap()).collect();
    assert!(messages[0].starts_with("<30>") && messages[0].ends_with(" web: one"), "{messages:?}");
    let content = |text: &str| text.split_once(" web: ").unwrap().1.len();
    assert_eq!((content(&messages[1]), content(&messages[2])), (8_000, 1_000));
    assert!(keeper.end(child).success());
}

#[test]
fn where_nobody_takes_them_lines_go_to_the_file_until_somebody_does() {
    let mut keeper = Keeper::new();
    keeper.rule = to(To::Journal);
    let child = keeper.start();
    keeper.through(1, "web", b"one\ntwo\n");
    assert_eq!(keeper.lines("web", Which::Stdout), [b"one", b"two"]);
    let path = keeper.dir.path().join("journal");
    let expected = format!(
        "supervise: logger: log of `web`: sending to the journal at {}: no such file or directory\n\
         hint: start systemd-journald, or have its unit say `to = \"file\"`; its lines go to {} until somebody takes \
         them there\n",
        path.display(),
        keeper.logs.join("web/current").display()
    );
    assert_eq!(keeper.stderr(), expected);
    let journal = bound(&path);
    // It is tried again after a while; every line is in one place or the other.
    let (mut sent, mut kept) = (2, Vec::new());
    journal.set_nonblocking(true).unwrap();
    let found = loop {
        sent += 1;
        keeper.through(sent, "web", format!("{sent}\n").as_bytes());
        let mut bytes = [0; 1024];
        match journal.recv(&mut bytes) {
            Ok(count) => break entry(&bytes[..count]).0,
            Err(_) => kept.push(sent.to_string().into_bytes()),
        }
        keeper.poller.wait(Some(Duration::from_millis(50))).unwrap();
    };
    assert_eq!(found, sent.to_string().as_bytes());
    let lines = keeper.lines("web", Which::Stdout);
    assert_eq!(lines[2..], kept);
    assert!(keeper.end(child).success());
}

#[test]
fn a_journal_that_reads_nothing_costs_lines_that_are_counted_and_nobody_waits() {
    let mut keeper = Keeper::new();
    keeper.rule = to(To::Journal);
    let journal = bound(&keeper.dir.path().join("journal"));
    let child = keeper.start();
    let silent = keeper.add(1, "web", Which::Stderr); // keeps the service known in between
    let text: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    keeper.through(2, "web", text.as_bytes());
    journal.set_nonblocking(true).unwrap();
    let mut taken = Vec::new();
    let mut bytes = [0; 1024];
    while let Ok(count) = journal.recv(&mut bytes) {
        taken.push(entry(&bytes[..count]).0);
    }
    assert!((1..20_000).contains(&taken.len()), "{} lines were taken, which proves nothing", taken.len());
    for (number, taken) in taken.iter().enumerate() {
        assert_eq!(*taken, number.to_string().as_bytes(), "the first ones are kept");
    }
    keeper.through(3, "web", b"after\n");
    let report = loop {
        match journal.recv(&mut bytes) {
            Ok(count) => break entry(&bytes[..count]).0,
            Err(_) => keeper.poller.wait(Some(Duration::from_millis(10))).unwrap(),
        }
    };
    let dropped = 20_000 - taken.len();
    assert_eq!(String::from_utf8(report).unwrap(), format!("dropped {dropped} lines"));
    drop(silent);
    assert!(keeper.end(child).success());
}

#[test]
fn a_killed_logger_sends_at_most_the_line_twice_that_it_was_sending() {
    let mut keeper = Keeper::new();
    keeper.rule = Rule { when_full: WhenFull::Block, ..to(To::Journal) };
    let journal = bound(&keeper.dir.path().join("journal"));
    let (done, all_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut taken: Vec<u64> = Vec::new();
        while taken.last() != Some(&29_999) {
            let line = entry(&next(&journal)).0;
            taken.push(std::str::from_utf8(&line).unwrap().parse().unwrap());
        }
        done.send(taken).unwrap();
    });
    let mut child = keeper.start();
    let mut pipe = keeper.add(1, "web", Which::Stdout);
    std::thread::spawn(move || {
        (0..30_000).for_each(|number| pipe.write_all(format!("{number}\n").as_bytes()).unwrap());
    });
    let (mut kills, taken) = (
        0,
        loop {
            match all_done.recv_timeout(Duration::from_millis(7)) {
                Ok(taken) => break taken,
                Err(_) => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    keeper.reports();
                    child = keeper.start();
                }
            }
        },
    );
    let mut expected = 0;
    for number in taken {
        if number != expected {
            assert_eq!(number + 1, expected, "lost or sent more than twice");
            kills += 1;
            continue;
        }
        expected += 1;
    }
    assert_eq!(expected, 30_000);
    println!("{kills} lines twice");
    assert!(keeper.end(child).success());
}

#[test]
fn whole_lines_are_passed_on_with_the_services_name() {
    let mut keeper = Keeper::new();
    keeper.rule = to(To::Inherit);
    keeper.stdout = keeper.dir.path().join("stdout");
    let child = keeper.start();
    keeper.through(1, "web", b"one\ntwo");
    keeper.through(2, "db", b"three\n");
    assert_eq!(fs::read_to_string(&keeper.stdout).unwrap(), "web: one\nweb: two\ndb: three\n");
    let mut pipe = keeper.add(3, "web", Which::Stderr);
    pipe.write_all(b"four\n").unwrap();
    drop(pipe);
    keeper.wait_closed(3);
    assert_eq!(keeper.stderr(), "web: four\n");
    assert!(keeper.end(child).success());
}

#[test]
fn a_slow_reader_of_our_own_output_gets_every_line_that_it_has_room_for() {
    let mut keeper = Keeper::new();
    keeper.rule = Rule { when_full: WhenFull::Block, ..to(To::Inherit) };
    keeper.stdout = keeper.dir.path().join("stdout");
    assert!(std::process::Command::new("mkfifo").arg(&keeper.stdout).status().unwrap().success());
    let reader = fs::File::options().read(true).write(true).open(&keeper.stdout).unwrap();
    let child = keeper.start();
    let mut pipe = keeper.add(1, "web", Which::Stdout);
    let text: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    std::thread::spawn(move || pipe.write_all(text.as_bytes()).unwrap());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    for number in 0..40_000 {
        assert_eq!(lines.next().unwrap().unwrap(), format!("web: {number}"));
    }
    keeper.wait_closed(1);
    assert!(keeper.end(child).success());
}
