//! LOG. Files that give way: when, to what, and what becomes of them. Never in the program.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;

use super::{name, shelf};
use crate::logger::shelf::Shelf;
use crate::wire::cri::{Stamp, Which};
use crate::wire::cri::{Tail, frame};
use crate::wire::logger::Rule;

/// Writes one entry at this second, and says how long it is.
fn write(shelf: &mut Shelf, second: u64, text: &str) -> usize {
    let (mut out, stamp) = ([0; 400], Stamp::new(second, 0));
    let framed = frame(format!("{text}\n").as_bytes(), Which::Stdout, &stamp, Tail::Hold, &mut out);
    shelf.target(&name("web"), framed.written as u64, &stamp, Instant::now()).unwrap();
    shelf.append(&name("web"), &out[..framed.written]).unwrap();
    framed.written
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// Until the thread has nothing to do any more.
fn pressed(shelf: &Shelf) {
    let since = Instant::now();
    while !shelf.is_idle() {
        assert!(since.elapsed() < Duration::from_secs(60), "it never comes to an end");
        std::thread::yield_now();
    }
}

const PLAIN: Rule = Rule { compress: false, max_size: 60, keep: 2, ..Rule { max_age_ms: 0, ..RULE } };
const RULE: Rule = Rule {
    to: crate::wire::logger::To::File,
    when_full: crate::wire::logger::WhenFull::Drop,
    compress: true,
    keep: 10,
    max_size: 1 << 20,
    max_age_ms: 0,
};

#[test]
fn a_long_file_gives_way_and_the_oldest_go() {
    let place = tempfile::tempdir().unwrap();
    let mut shelf = shelf(place.path(), 4);
    shelf.join(name("web"), 0, PLAIN);
    fs::create_dir(place.path().join("web")).unwrap();
    fs::set_permissions(place.path().join("web"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(place.path().join("web/notes"), "").unwrap();
    for second in 0..4 {
        write(&mut shelf, second, &second.to_string());
    }
    let web = place.path().join("web");
    let old = ["19700101T000002.000000000Z.log", "19700101T000003.000000000Z.log"];
    assert_eq!(names(&web), [old[0], old[1], "current", "notes"]);
    assert!(fs::read_to_string(web.join(old[0])).unwrap().ends_with(" F 1\n"));
    assert!(fs::read_to_string(web.join("current")).unwrap().ends_with(" F 3\n"));
}

#[test]
fn an_old_file_gives_way_whoever_began_it() {
    let place = tempfile::tempdir().unwrap();
    let rule = Rule { compress: false, max_age_ms: 60_000, ..RULE };
    let mut first = shelf(place.path(), 4);
    first.join(name("web"), 0, rule);
    write(&mut first, 100, "a");
    write(&mut first, 159, "b");
    drop(first);
    let mut second = shelf(place.path(), 4);
    second.join(name("web"), 0, rule);
    write(&mut second, 160, "c");
    write(&mut second, 219, "d");
    let web = place.path().join("web");
    assert_eq!(names(&web), ["19700101T000240.000000000Z.log", "current"]);
    assert_eq!(fs::read_to_string(web.join("current")).unwrap().lines().count(), 2);
    second.set_rule(&name("web"), Rule { max_age_ms: 0, ..rule });
    write(&mut second, 100_000, "e");
    assert_eq!(names(&web).len(), 2, "without an age it stays");
}

#[test]
fn old_files_are_compressed_and_still_counted() {
    let place = tempfile::tempdir().unwrap();
    let mut shelf = shelf(place.path(), 4);
    shelf.join(name("web"), 0, Rule { max_size: 60, keep: 2, ..RULE });
    for second in 0..5 {
        write(&mut shelf, second, &second.to_string());
        pressed(&shelf);
    }
    let web = place.path().join("web");
    let old = ["19700101T000003.000000000Z.log.gz", "19700101T000004.000000000Z.log.gz"];
    assert_eq!(names(&web), [old[0], old[1], "current"]);
    assert_eq!(unpacked(&web.join(old[1])), "1970-01-01T00:00:03.000000000Z stdout F 3\n");
    assert_eq!(fs::metadata(web.join(old[0])).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn what_a_killed_logger_left_half_compressed_is_done_again() {
    let place = tempfile::tempdir().unwrap();
    let mut first = shelf(place.path(), 4);
    first.join(name("web"), 0, Rule { max_size: 60, compress: false, ..RULE });
    for second in 0..4 {
        write(&mut first, second, &second.to_string());
    }
    drop(first);
    let web = place.path().join("web");
    let twin = "19700101T000002.000000000Z.log";
    // One that was through but for the plain file, and one that was in the middle.
    fs::write(web.join(format!("{twin}.gz")), "whole").unwrap();
    fs::write(web.join("19700101T000003.000000000Z.log.gz.part"), "half").unwrap();
    let mut second = shelf(place.path(), 4);
    second.join(name("web"), 0, RULE);
    write(&mut second, 9, "9");
    pressed(&second);
    let expected: Vec<String> = (1..4)
        .map(|second| format!("1970010{}.gz", &twin[7..].replace("02.", &format!("0{second}."))))
        .collect();
    assert_eq!(names(&web), [&expected[0], &expected[1], &expected[2], "current"]);
    assert_eq!(fs::read_to_string(web.join(format!("{twin}.gz"))).unwrap(), "whole", "it was a whole one");
    assert!(unpacked(&web.join(&expected[2])).ends_with(" F 2\n"));
}

#[test]
fn ten_thousand_files_later_no_more_are_open() {
    let place = tempfile::tempdir().unwrap();
    let mut shelf = shelf(place.path(), 4);
    shelf.join(name("web"), 0, Rule { max_size: 1, keep: 3, ..RULE });
    let open = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        links
            .filter(|link| fs::read_link(link.path()).is_ok_and(|path| path.starts_with(place.path())))
            .count()
    };
    for second in 0..10_000 {
        write(&mut shelf, second, &second.to_string());
    }
    pressed(&shelf);
    assert_eq!(open(), 2, "the log directory and `current`");
    let web = place.path().join("web");
    assert_eq!(names(&web).len(), 4);
    assert!(fs::read_to_string(web.join("current")).unwrap().ends_with(" F 9999\n"));
}
