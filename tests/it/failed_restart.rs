//! What a restart says that fails: whose words are shown, where it listens instead, and who goes on. An application of our
//! own, of which nothing is known, and whose old generation writes to the same log file without end.

use super::gunicorn::python;
use super::place::{Place, Who};
use super::servers::socket;
use super::supervisor::Role;
use super::{cri, wait};

/// Does what the file of its generation says.
const APP: &str = r#"
import os, socket, sys, threading, time

WORK = os.environ["WORK"]
try:
    MODE = open(WORK + "/mode." + os.environ["SUPERVISE_GENERATION"]).read()
except OSError:
    MODE = "good"

def say(line):
    os.write(2, line.encode() + b"\n")

def flood():
    while True:
        os.write(1, b"GET / HTTP/1.1 200 OK\n" * 20)
        time.sleep(0.005)

def serve(listener, status):
    while True:
        client, _ = listener.accept()
        client.recv(4096)
        if status != "200 OK":
            say("answering " + status)
        client.sendall(("HTTP/1.0 %s\r\nContent-Length: 0\r\n\r\n" % status).encode())
        client.close()

if MODE == "good":
    threading.Thread(target=flood, daemon=True).start()
if MODE == "raise":
    say("Traceback (most recent call last):")
    say("ImportError: no bagels")
    sys.exit(3)
if MODE == "hang":
    time.sleep(1000)
if MODE == "halt":
    say("half of it")
    open(WORK + "/halted", "w").close()
    while not os.path.exists(WORK + "/go"):
        time.sleep(0.02)
    say("the rest of it")
    sys.exit(3)
serve(socket.socket(fileno=3), "500 No" if MODE == "wrong" else "200 OK")
"#;

/// With its first generation up, and writing.
fn begun(who: Who, rest: &str) -> Place {
    let mut place = Place::new(who);
    place.write("srv/app.py", APP);
    let (work, address) = (place.path("work").display().to_string(), place.address());
    let command = format!("command = [\"{}\", \"-S\", \"app.py\"]", python());
    let environment = format!("environment = {{ WORK = \"{work}\" }}\nsettle = \"10ms\"");
    place.unit("web", &format!("{command}\n{environment}\n{rest}\n{}{HEALTH}", socket(address)));
    place.run();
    place.reaches("web", "running");
    place
}

const HEALTH: &str = "[health]\nhttp = \"/\"\ninterval = \"off\"\n";

/// What a restart says whose new generation does this.
#[track_caller]
fn restarted(place: &Place, generation: u32, mode: &str) -> String {
    place.write(&format!("work/mode.{generation}"), mode);
    let pid = place.pid_of("web");
    let said = place.ask(&["restart", "web"]);
    assert_eq!((said.code, place.pid_of("web")), (Some(1), pid), "{said:?}");
    said.err
}

/// The lines of a page with this label.
fn labelled(page: &str, label: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|line| !line.starts_with(&format!("  {label} ")));
    let own = lines.enumerate().take_while(|(at, line)| *at == 0 || line.starts_with(&" ".repeat(19)));
    own.map(|(_, line)| line.get(19..).unwrap_or_default().to_owned()).collect()
}

#[test]
fn user_the_words_of_the_run_that_failed_are_shown_and_no_others() {
    let place = begun(Who::User, "start-timeout = \"3s\"");
    let log = place.log().join("web/current");
    let said = restarted(&place, 2, "raise");
    let (first, second) = ("Traceback (most recent call last):", "ImportError: no bagels");
    let expected = format!(
        "web: rehearsing it on private sockets: exit status 3; the old generation goes on serving\n  its last output:\n    \
         {first}\n    {second}\nhint: its output is in `{}`; where it cannot be tried on other sockets, `supervise restart \
         --stop-first web` does without\n",
        log.display()
    );
    assert_eq!(said, expected);
    for command in ["why", "status"] {
        let page = place.ask(&[command, "web"]).out;
        let shown = labelled(&page, "last output");
        assert_eq!(shown, ["(of generation 2, which failed its rehearsal)", first, second], "{page}");
    }
    // What it says of a wrong answer.
    let said = restarted(&place, 3, "wrong");
    let expected = "web: rehearsing it on private sockets: not healthy: probe said 500; the old generation goes on serving\n  its \
                    last output:\n    answering 500 No\n";
    assert!(said.starts_with(expected) && !said.contains("200 OK"), "{said}");
    // And one that says nothing.
    let said = restarted(&place, 4, "hang");
    assert!(said.contains("\n  it wrote nothing\nhint: ") && !said.contains("200 OK"), "{said}");
    assert!(cri::texts(&place.log(), "web").len() > 100, "the old one has said nothing meanwhile");
}

#[test]
fn root_words_that_another_logger_had_are_not_called_none() {
    let mut place = begun(Who::Root, "");
    place.write("work/mode.2", "halt");
    let restart = place.begin(&["restart", "web"]);
    wait::until(wait::LONG, "half of its words", || {
        let lines = cri::texts(&place.log(), "web");
        lines.iter().any(|line| line == "half of it").then_some(())
    });
    place.kill(Role::Logger);
    place.write("work/go", "");
    let said = restart.wait();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("\n  its last output:\n    the rest of it\nhint: "), "{said:?}");
}
