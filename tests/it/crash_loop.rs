//! A crash loop backs off and never gives up: doubling, with jitter, to a cap.

use std::fs;

use super::place::{Place, Who};
use super::supervisor::Role;
use super::{cri, wait};

/// Starts to look at.
const STARTS: usize = 8;
/// Milliseconds that a start may be late where nothing else is to be done.
const LATE_MS: u64 = 600;

fn backs_off(who: Who) {
    let mut place = Place::new(who);
    // Its own clock, in milliseconds: what the logger says would have the logger's delays in it.
    place.unit(
        "crashes",
        "command = [\"/bin/sh\", \"-c\", \"date +%s%3N; exit 9\"]\n[restart]\ndelay = \"200ms\"\nmax-delay = \"1s\"\n",
    );
    place.unit("calm", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    place.run();
    let lines = wait::until(wait::LONG, "the starts", || {
        let lines = cri::texts(&place.log(), "crashes");
        (lines.len() >= STARTS).then_some(lines)
    });
    let times: Vec<u64> = lines.iter().map(|line| line.parse().unwrap()).collect();
    let gaps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    // What it means to wait; how late it then is depends on what else the machine does.
    let said = place.stderr();
    let delays = said
        .lines()
        .filter(|line| line.contains("service=crashes "))
        .filter_map(|line| line.split_once(" next=start in_ms=")?.1.split(' ').next()?.parse::<u64>().ok());
    let delays: Vec<u64> = delays.take(STARTS - 1).collect();
    assert_eq!(delays.len(), STARTS - 1, "{said}");
    let plain = [200u64, 400, 800, 1000, 1000, 1000, 1000];
    for (delay, plain) in delays.iter().zip(plain) {
        let (least, most) = (plain * 8 / 10, (plain * 12 / 10).min(1000));
        assert!((least..=most).contains(delay), "{delay} ms is not in {least}..={most}: {delays:?}");
    }
    let capped = &delays[3..];
    assert!(capped.iter().any(|delay| *delay != capped[0]), "no jitter at all: {delays:?}");
    let mut both = gaps.iter().zip(&delays);
    // One millisecond for the rounding of two clocks.
    assert!(both.clone().all(|(gap, delay)| *gap + 1 >= *delay), "too early: {gaps:?}, not {delays:?}");
    assert!(both.any(|(gap, delay)| *gap <= *delay + LATE_MS), "always late: {gaps:?}, not {delays:?}");
    let service = place.reaches("crashes", "backing-off");
    assert_eq!(service["exit"]["code"], 9);
    assert!(service["restarts"].as_u64().unwrap() + 1 >= STARTS as u64, "{service:#}");
    assert!(service["next_start"].is_string(), "{service:#}");
    assert_eq!(place.service("calm")["restarts"], 0, "another service was touched");
}

fn comes_back(who: Who) {
    let mut place = Place::new(who);
    let marker = place.path("work/well");
    place.unit(
        "heals",
        &format!(
            "command = [\"/bin/sh\", \"-c\", \"[ -e {} ] && exec sleep 1000; exit 9\"]\nsettle = \"50ms\"\n[restart]\ndelay = \"20ms\"\nmax-delay = \"200ms\"\n",
            marker.display()
        ),
    );
    place.run();
    wait::until(wait::LONG, "many failures", || {
        (place.service("heals")["restarts"].as_u64()? >= 12).then_some(())
    });
    fs::write(&marker, "").unwrap();
    place.reaches("heals", "running");
}

#[test]
fn root_a_crash_loop_backs_off() {
    backs_off(Who::Root);
}

#[test]
fn root_a_service_that_crashed_often_is_still_tried() {
    comes_back(Who::Root);
}

#[test]
fn user_a_crash_loop_backs_off() {
    backs_off(Who::User);
}

#[test]
fn user_a_service_that_crashed_often_is_still_tried() {
    comes_back(Who::User);
}

#[test]
fn user_the_starts_of_a_service_are_counted_and_those_of_others_are_not() {
    let mut place = Place::new(Who::User);
    let told = "command = [\"sh\", \"-c\", \"echo $SERVER_STARTER_GENERATION > $SUPERVISE_SERVICE; exec sleep 1000\"]\n\
                settle = \"10ms\"\n";
    let directory = format!("directory = \"{}\"\n", place.path("work").display());
    for name in ["one", "two"] {
        place.unit(name, &format!("{told}{directory}"));
    }
    place.run();
    let said = |place: &Place, name: &str, expected: &str| {
        place.reaches(name, "running");
        wait::until(wait::LONG, "its number", || {
            let number = fs::read_to_string(place.path("work").join(name)).ok()?;
            (number.trim() == expected).then_some(())
        });
    };
    for number in ["1", "2", "3"] {
        said(&place, "one", number);
        place.order(&["restart", "one"]);
    }
    said(&place, "two", "1");
    // It is in the state, so another manager goes on with it.
    let killed = place.kill(Role::Manager);
    wait::until(wait::LONG, "another manager", || {
        (place.try_status()?["supervisor"]["pid"].as_u64()? != u64::from(killed)).then_some(())
    });
    place.order(&["restart", "one"]);
    said(&place, "one", "5");
    place.order(&["restart", "two"]);
    said(&place, "two", "2");
}
