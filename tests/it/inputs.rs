//! What a generation is made of beside its unit: read when an operator acts, by whom it should be, and never shown.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::place::{Place, Who};
use super::{processes, wait};

const SLEEP: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n";

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn variable(place: &Place, service: &str, name: &str) -> Option<String> {
    let all = processes::environment(place.pid_of(service));
    all.iter().find_map(|pair| pair.strip_prefix(&format!("{name}=")).map(str::to_owned))
}

#[test]
fn root_environment_files_are_read_with_the_rights_that_their_place_allows() {
    let mut place = Place::new(Who::Root);
    // The places of tests are below a directory with the sticky bit, and root's otherwise.
    let (roots, own) = (place.path("srv/roots.env"), place.path("work/own.env"));
    secret(&roots, "# root alone reads it\nA=root\nB='root'\n");
    secret(&own, "B=own\n");
    chown(&own, Some(place.account.uid), None).unwrap();
    // A link that the service could have made, to what only root can read.
    symlink(&roots, place.path("work/link.env")).unwrap();
    let files = |names: &[&Path]| {
        let names: Vec<String> = names.iter().map(|path| format!("\"{}\"", path.display())).collect();
        format!(
            "{SLEEP}environment = {{ A = \"unit\", C = \"unit\" }}\nenvironment-files = [{}]\n",
            names.join(", ")
        )
    };
    place.unit("web", &files(&[&roots, &own]));
    place.unit("thief", &files(&[&place.path("work/link.env")]));
    place.unit("lacking", &files(&[&place.path("srv/none.env")]));
    place.run();
    place.reaches("web", "running");
    let seen = |name: &str| variable(&place, "web", name);
    assert_eq!(
        (seen("A"), seen("B"), seen("C")),
        (Some("root".into()), Some("own".into()), Some("unit".into()))
    );
    for (name, file, why) in
        [("thief", "work/link.env", "ermission denied"), ("lacking", "srv/none.env", "o such file")]
    {
        let said = wait::until(wait::LONG, "the reason", || {
            let problems = place.service(name)["problems"].to_string();
            problems.contains("reading the environment file").then_some(problems)
        });
        let path = place.path(file).display().to_string();
        assert!(said.contains(&path) && said.contains(why) && said.contains("hint: "), "{said}");
        assert!(place.service(name)["pid"].is_null());
    }
    // A crash repeats the generation; an operator's restart reads the files again.
    secret(&roots, "A=walnut\n");
    let first = place.pid_of("web");
    processes::signal(first, 9);
    wait::until(wait::LONG, "the next one", || {
        let service = place.service("web");
        (service["state"] == "running" && service["pid"] != first).then_some(())
    });
    assert_eq!(variable(&place, "web", "A"), Some("root".into()));
    place.order(&["restart", "web"]);
    let seen = |name: &str| variable(&place, "web", name);
    assert_eq!((seen("A"), seen("B")), (Some("walnut".into()), Some("own".into())));
    // A file that is not right keeps the new generation from starting, and the old one runs on.
    secret(&roots, "A=third\nhunter2\n");
    let pid = place.pid_of("web");
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains(&format!("{}:2: there is no `=`", roots.display())), "{said:?}");
    assert!(said.err.contains("hint: write `NAME=value`"), "{said:?}");
    assert_eq!(place.pid_of("web"), pid);
    for text in [place.stderr(), place.status().to_string(), said.err] {
        assert!(!text.contains("hunter2") && !text.contains("walnut"), "a value is shown: {text}");
    }
    // It starts once its file is there.
    fs::write(place.path("srv/none.env"), "D=1\n").unwrap();
    place.order(&["start", "lacking"]);
    assert_eq!(variable(&place, "lacking", "D"), Some("1".into()));
    place.order(&["stop", "thief"]);
}

#[test]
fn root_a_name_that_means_somebody_else_is_refused() {
    let mut place = Place::new(Who::Root);
    place.unit("web", SLEEP);
    place.run();
    place.reaches("web", "running");
    place.order(&["stop", "web"]);
    let (name, old) = (place.account.name.clone(), place.account.uid);
    let new = old + 20_000;
    let said = place.account.while_it_is(new, || place.ask(&["start", "web"]));
    assert_eq!(said.code, Some(1), "{said:?}");
    let expected =
        format!("the user `{name}` has become number {new}; it was {old}, whose files are not the new one's");
    assert!(said.err.contains(&expected), "{said:?}");
    place.order(&["start", "web"]);
    place.reaches("web", "running");
}

#[test]
fn user_environment_files_are_read_as_the_user() {
    let mut place = Place::new(Who::User);
    place.write("srv/own.env", "A=\"of the user\"\n");
    let file = place.path("srv/own.env").display().to_string();
    place.unit("web", &format!("{SLEEP}environment-files = [\"{file}\"]\n"));
    place.run();
    place.reaches("web", "running");
    assert_eq!(variable(&place, "web", "A"), Some("of the user".into()));
}

#[test]
fn user_a_start_reads_its_inputs_again_also_after_a_generation_that_failed() {
    let mut place = Place::new(Who::User);
    let file = place.path("srv/here.env");
    fs::write(&file, "GOOD=1\n").unwrap();
    let files = format!("environment-files = [\"{}\"]\n", file.display());
    // A bad one is never ready, however long it takes to end.
    let script = "[ $GOOD ] && echo >&9 && exec sleep 1000; exit 1";
    let command =
        format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\nready = {{ fd = 9 }}\nsettle = \"0s\"\n");
    let socket = format!("[socket.http]\nlisten = \"{}\"\n", place.path("srv/web.sock").display());
    place.unit("web", &format!("{command}{files}{socket}"));
    place.run();
    place.reaches("web", "running");
    fs::write(&file, "GOOD=\n").unwrap();
    assert_eq!(place.ask(&["restart", "web"]).code, Some(1));
    assert_eq!(variable(&place, "web", "GOOD").as_deref(), Some("1"));
    fs::write(&file, "GOOD=2\n").unwrap();
    for kill in [false, true] {
        place.order(&["stop", "web"]);
        place.order(&["start", "web"]);
        assert_eq!(variable(&place, "web", "GOOD").as_deref(), Some("2"));
        // A crash repeats it, in the next manager too.
        if kill {
            place.kill(super::supervisor::Role::Manager);
        }
        let pid = place.pid_of("web");
        processes::signal(pid, 9);
        wait::until(wait::LONG, "another process", || {
            let next = place.try_status()?["services"][0]["pid"].as_u64()?;
            (next != u64::from(pid)).then_some(())
        });
        place.reaches("web", "running");
        assert_eq!(variable(&place, "web", "GOOD").as_deref(), Some("2"));
    }
}

fn a_start_counts(who: Who) {
    let mut place = Place::new(who);
    place.write("env", "GREETING=a\n");
    place.unit(
        "hello",
        &format!(
            "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\nenvironment-files = [\"{}\"]\n",
            place.path("env").display()
        ),
    );
    place.run();
    place.reaches("hello", "running");
    let again = |text: &str| {
        place.order(&["stop", "hello"]);
        place.write("env", text);
        place.order(&["start", "hello"]);
        let environment = processes::environment(place.pid_of("hello"));
        let said = text.trim().to_owned();
        assert!(environment.contains(&said), "{environment:?}");
        let generation = place.service("hello")["generation"].as_u64().unwrap();
        assert!(environment.contains(&format!("SUPERVISE_GENERATION={generation}")), "{environment:?}");
        generation
    };
    let numbers = ["GREETING=a\n", "GREETING=b\n", "GREETING=b\n", "GREETING=c\n"].map(again);
    assert_eq!(numbers, [1, 2, 2, 3], "a generation is one set of inputs");
    place.order(&["restart", "hello"]);
    assert_eq!(place.service("hello")["generation"], 4);
}

#[test]
fn root_a_start_with_other_inputs_is_another_generation() {
    a_start_counts(Who::Root);
}

#[test]
fn user_a_start_with_other_inputs_is_another_generation() {
    a_start_counts(Who::User);
}
