//! The public Varlink client for Python operates a supervisor that runs: its methods are made from the interface that the
//! supervisor itself gives, and so are the types of what it answers.

use std::process::{Command, Stdio};

use super::place::{Place, Who};
use super::pypi;

/// Prints what an operator would see. The first line comes once it listens for events.
const OPERATE: &str = r#"
import sys, threading, varlink

def client():
    return varlink.Client.new_with_address(sys.argv[1])

def say(*words):
    print(*words, flush=True)

with client() as root:
    with root.open("org.varlink.service") as service:
        info = service.GetInfo()
        say(info["product"], *info["interfaces"])
    begun = threading.Event()
    states = []

    def watch():
        with client() as other, other.open("io.supervise.Control") as events:
            for reply in events.Events(["web"], _more=True):
                event = reply.get("event")
                if event is None:
                    begun.set()
                    continue
                states.append(event["state"])
                if event["state"] == "stopped":
                    return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun.wait()
    with root.open("io.supervise.Control") as control:
        web = control.Status(["web"])["services"][0]
        say(web["name"], web["state"], web["generation"], web["pid"])
        *_, last = control.Restart(["web"], "1" * 32, _more=True)
        after = last["services"][0]
        say(after["name"], after["state"], after["pid"] != web["pid"])
        # The same operation again is the same outcome, not another restart.
        again = control.Restart(["web"], "1" * 32)["services"][0]
        say(again["pid"] == after["pid"])
        say(*sorted(row["value"] for row in control.Show("web")["rows"] if row["key"] == "service.kind"))
        try:
            control.Start(["wep"], "2" * 32)
        except varlink.VarlinkError as error:
            say(error.error(), error.parameters())
        try:
            control.Stop([], "4" * 32)
        except varlink.VarlinkError as error:
            say(error.error(), error.parameters())
        say(control.Stop(["web"], "3" * 32)["services"][0]["state"])
    watcher.join()
    say(states[-1], "running" in states)
"#;

#[test]
fn user_the_public_varlink_client_operates_it() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = [\"sleep\", \"1000\"]\nsettle = \"0s\"\n");
    place.run();
    place.reaches("web", "running");
    let pid = place.pid_of("web");
    let address = format!("unix:{}", place.path("run/control").display());
    let mut client = Command::new("timeout");
    client.args(["60", "python3", "-c", OPERATE, &address]).env("PYTHONPATH", pypi::varlink());
    let said = client.stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let expected = format!(
        "supervise org.varlink.service io.supervise.Control\nweb running 1 {pid}\nweb running True\nTrue\n\"service\"\n\
         io.supervise.Control.NoSuchService {{'name': 'wep', 'near': 'web'}}\n\
         org.varlink.service.InvalidParameter {{'parameter': 'names'}}\nstopped\nstopped True\n"
    );
    assert_eq!(String::from_utf8_lossy(&said.stdout), expected);
}
