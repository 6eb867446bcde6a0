//! `status --json` has every field that scripts rely on, of the kind that they expect.

use serde_json::Value;

use super::place::{Place, Who};

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn every_field(who: Who) {
    let mut place = Place::with_gunicorn(who);
    let (address, path) = (place.address(), place.path("sock/web.sock"));
    place.web(
        "web",
        &format!("[socket.http]\nlisten = \"{address}\"\n[socket.local]\nlisten = \"{}\"\n", path.display()),
    );
    place.unit("crashes", "command = [\"/bin/sh\", \"-c\", \"exit 3\"]\n[restart]\ndelay = \"20s\"\n");
    place.run();
    let web = place.reaches("web", "running");
    let crashes = place.reaches("crashes", "backing-off");
    let status = place.status();
    assert_eq!(names(&status), ["services", "supervisor"]);
    assert_eq!(names(&status["supervisor"]), ["keeper_pid", "pid", "since", "version"]);
    assert_eq!(status["supervisor"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["supervisor"]["keeper_pid"], place.keeper.as_ref().unwrap().pid);
    let fields = [
        "cpu_seconds",
        "exit",
        "gate",
        "generation",
        "healthy",
        "instances",
        "memory_bytes",
        "name",
        "next_start",
        "pid",
        "pids",
        "problems",
        "restarts",
        "since",
        "sockets",
        "state",
        "status_text",
        "tracking",
        "waiting_for",
    ];
    for service in [&web, &crashes] {
        let mut named = names(service);
        named.retain(|name| fields.contains(name));
        assert_eq!(named, fields, "{service:#}");
    }
    assert_eq!(web["generation"], 1);
    assert_eq!(web["restarts"], 0);
    assert!(web["exit"].is_null() && web["next_start"].is_null(), "{web:#}");
    assert_eq!(web["problems"], serde_json::json!([]));
    assert!(web["pids"].as_array().unwrap().contains(&web["pid"]), "{web:#}");
    assert_eq!(names(&web["instances"][0]), ["generation", "instance", "pid", "role", "since", "state"]);
    assert_eq!(web["instances"][0]["role"], "current");
    assert_eq!(web["instances"][0]["pid"], web["pid"]);
    assert_eq!(names(&web["sockets"][0]), ["address", "backlog", "inherited", "name", "queue"]);
    assert_eq!(web["sockets"][0]["name"], "http");
    assert_eq!(web["sockets"][0]["address"], address.to_string());
    assert_eq!(web["sockets"][0]["queue"], 0);
    assert_eq!(web["sockets"][1]["address"], path.to_str().unwrap());
    let tracking = match who {
        // Where the kernel has them; root can always make one then.
        Who::Root if place.cgroups().is_empty() => "process-tree (weak)",
        Who::Root => "cgroup",
        Who::User => "process-tree (weak)",
    };
    assert_eq!(web["tracking"], tracking);
    assert_eq!(names(&crashes["exit"]), ["code", "meaning", "signal"]);
    assert_eq!(crashes["exit"]["code"], 3);
    assert!(crashes["pid"].is_null(), "{crashes:#}");
    for instant in [&status["supervisor"]["since"], &web["since"], &crashes["next_start"]] {
        let text = instant.as_str().unwrap();
        assert!(text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z'), "RFC 3339: {text}");
    }
}

#[test]
fn user_the_page_says_what_it_is_and_where_everything_of_it_is() {
    let mut place = Place::new(Who::User);
    let text = "description = \"A shop\"\ndocumentation = [\"https://wiki/shop\"]\n\
                [service]\ncommand = [\"sleep\", \"1000\"]\n";
    place.write("units/web.toml", text);
    place.run();
    let web = place.reaches("web", "running");
    let (unit, log) = (place.path("units/web.toml"), place.log().join("web/current"));
    assert_eq!(
        (&web["unit"], &web["log_file"], &web["log_to"]),
        (&unit.to_str().unwrap().into(), &log.to_str().unwrap().into(), &"file".into())
    );
    assert_eq!(web["command"], serde_json::json!(["sleep", "1000"]));
    let page = place.order(&["status", "web"]).out;
    let line = |label: &str, value: &str| format!("\n  {label:<16} {value}\n");
    for (label, value) in [
        ("", "A shop"),
        ("read more", "https://wiki/shop"),
        ("unit", unit.to_str().unwrap()),
        ("command", "sleep 1000"),
        ("output to", log.to_str().unwrap()),
    ] {
        assert!(page.contains(&line(label, value)), "{label}: {page}");
    }
}

#[test]
fn root_status_has_every_field() {
    every_field(Who::Root);
}

#[test]
fn user_status_has_every_field() {
    every_field(Who::User);
}
