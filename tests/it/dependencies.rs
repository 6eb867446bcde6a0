//! Who waits for whom, and that nobody is touched by what becomes of another: real processes.

use std::fs;

use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

const SLEEP: &str = "command = [\"sleep\", \"1000\"]\nsettle = \"10ms\"\n";

#[test]
fn root_who_requires_another_waits_and_goes_first() {
    let mut place = Place::new(Who::Root);
    let go = place.path("work/go");
    let script =
        format!("while ! test -e {}; do sleep 0.05; done; echo ready >&3; exec sleep 1000", go.display());
    place.unit("db", &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\nready = {{ fd = 3 }}\n"));
    place.unit("web", "command = [\"sleep\", \"1000\"]\n[dependencies]\nrequires = [\"db\"]\n");
    place.run();
    place.reaches("db", "starting");
    assert_eq!(place.service("web")["state"], "waiting");
    fs::write(&go, "").unwrap();
    place.reaches("web", "running");
    let keeper = place.keeper.take().unwrap();
    processes::signal(place.role(Role::Keeper), 15);
    assert_eq!(keeper.wait().code(), Some(0));
    let said = place.stderr();
    let ended = |name: &str| {
        let line = |line: &str| line.contains(&format!("service={name} ")) && line.contains(" gone");
        said.lines().position(line).unwrap_or_else(|| panic!("{name} did not end: {said}"))
    };
    assert!(ended("web") < ended("db"), "{said}");
}

fn none_is_touched_by_another(who: Who) {
    let mut place = Place::new(who);
    place.unit("db", SLEEP);
    place.unit("web", &format!("{SLEEP}[dependencies]\nrequires = [\"db\"]\n"));
    place.unit("queue", &format!("{SLEEP}[dependencies]\nrequires = [\"db\"]\n"));
    place.unit("mail", &format!("{SLEEP}[dependencies]\nwants = [\"db\"]\n"));
    place.run();
    let pids = |place: &Place| ["web", "queue", "mail"].map(|name| place.pid_of(name));
    for name in ["web", "queue", "mail"] {
        place.reaches(name, "running");
    }
    let before = pids(&place);
    let db = place.pid_of("db");
    processes::signal(db, 9);
    wait::until(wait::LONG, "another process of db", || {
        let service = place.service("db");
        let pid = service["pid"].as_u64()?;
        (service["state"] == "running" && pid != u64::from(db)).then_some(())
    });
    place.order(&["restart", "db"]);
    let said = place.ask(&["stop", "db"]);
    let expected = "db: `queue` and `web` require it, and go on without it\n";
    assert_eq!((said.code, said.err.as_str()), (Some(0), expected));
    assert_eq!(pids(&place), before);
    // Who stops as well is not said to go on.
    let said = place.ask(&["stop", "db", "queue"]);
    let expected = "db: already stopped; `web` requires it, and goes on without it\n";
    assert_eq!((said.code, said.err.as_str()), (Some(0), expected));
    // A start brings up what is required.
    place.order(&["stop", "web"]);
    let said = place.ask(&["stop", "db"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), "db: already stopped\n"));
    place.order(&["start", "web"]);
    assert_eq!(place.service("db")["state"], "running");
}

#[test]
fn root_none_is_touched_by_another() {
    none_is_touched_by_another(Who::Root);
}

#[test]
fn user_none_is_touched_by_another() {
    none_is_touched_by_another(Who::User);
}

#[test]
fn user_a_wish_is_less_than_a_need() {
    let mut place = Place::new(Who::User);
    let go = place.path("work/go");
    let script = format!("test -e {}", go.display());
    place.unit("migrate", &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\nkind = \"task\"\n"));
    place.unit("web", &format!("{SLEEP}[dependencies]\nrequires = [\"migrate\"]\n"));
    place.unit("mail", &format!("{SLEEP}[dependencies]\nwants = [\"migrate\"]\n"));
    place.unit("odd", &format!("{SLEEP}[dependencies]\nafter = [\"migrate\", \"nobody-has-it\"]\n"));
    place.run();
    for name in ["mail", "odd"] {
        place.reaches(name, "running");
    }
    place.reaches("migrate", "failed");
    assert_eq!(place.service("web")["state"], "waiting");
    let said = place.ask(&["start", "web"]);
    let expected = "web: starting it: it requires `migrate`, which is not up\nhint: `supervise status migrate` says why\n";
    assert_eq!((said.code, said.err.as_str()), (Some(1), expected));
    fs::write(&go, "").unwrap();
    place.order(&["start", "web"]);
    assert_eq!(place.service("migrate")["state"], "done");
    assert_eq!(place.service("web")["state"], "running");
}

#[test]
fn user_what_starts_by_hand_waits_for_a_hand_or_for_who_needs_it() {
    let mut place = Place::new(Who::User);
    place.unit("db", &format!("start = \"manual\"\n{SLEEP}"));
    place.unit("tool", &format!("start = \"manual\"\n{SLEEP}"));
    place.unit("never", &format!("start = \"off\"\n{SLEEP}"));
    place.unit("web", &format!("{SLEEP}[dependencies]\nrequires = [\"db\"]\n"));
    place.run();
    place.reaches("web", "running");
    assert_eq!(place.service("db")["state"], "running");
    for name in ["tool", "never"] {
        let service = place.service(name);
        assert_eq!((&service["state"], service["pid"].as_u64()), (&"stopped".into(), None), "{name}");
    }
    place.order(&["start", "tool"]);
    assert_eq!(place.service("tool")["state"], "running");
    let said = place.ask(&["start", "never"]);
    let expected = "never: starting it: its unit says `start = \"off\"`\nhint: write `start = \"manual\"` where operators may start it\n";
    assert_eq!((said.code, said.err.as_str()), (Some(1), expected));
}

#[test]
fn user_one_that_may_be_given_up_is_until_somebody_asks() {
    let mut place = Place::new(Who::User);
    let count = place.path("work/count");
    let script = format!("echo x >> {}; exit 5", count.display());
    let restart = "[restart]\ndelay = \"10ms\"\ngive-up-after = 3\n";
    let settle = "settle = \"50s\"\n"; // none of them lives so long, however slow it is
    place.unit("web", &format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\n{settle}{restart}"));
    place.run();
    place.reaches("web", "failed");
    let starts = || fs::read_to_string(&count).unwrap().lines().count();
    assert_eq!(starts(), 3);
    assert_eq!(place.ask(&["start", "web"]).code, Some(1));
    let web = place.reaches("web", "failed");
    assert_eq!(starts(), 6);
    let why = "it stays down: it has failed 3 times in a row, and `[restart]` says `give-up-after = 3`";
    assert_eq!(web["problems"], serde_json::json!([why]));
}

#[test]
fn root_who_is_waited_for_and_why_is_said() {
    let mut place = Place::new(Who::Root);
    let missing = place.path("bin/none");
    place.unit("db", &format!("command = [\"{}\"]\n[restart]\ndelay = \"20s\"\n", missing.display()));
    place.unit("web", "command = [\"/bin/sleep\", \"1000\"]\n[dependencies]\nrequires = [\"db\"]\n");
    place.run();
    place.reaches("db", "backing-off");
    let web = place.reaches("web", "waiting");
    assert_eq!(web["waiting_for"], serde_json::json!(["db"]), "{web:#}");
    let words = "it waits for `db`, which is backing-off";
    assert!(web["problems"].to_string().contains(words), "{web:#}");
    assert!(place.ask(&["status"]).out.contains("waits for db"));
    let why = place.ask(&["why", "web"]).out;
    assert!(why.contains(words) && why.contains("supervise why db"), "{why}");
    place.order(&["stop", "web"]);
    assert_eq!(place.service("web")["waiting_for"], serde_json::json!([]));
}
