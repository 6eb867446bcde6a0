//! A reload is over when the service says so of this reload, and not of one that it had begun before.

use super::gunicorn::python;
use super::place::{Place, Who};
use super::wait;

/// At HUP it ends a reload of before, and at a word it goes through a new one.
const SERVICE: &str = r#"
import os, signal, socket, time

talk = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
talk.connect(os.environ["NOTIFY_SOCKET"])

def send(*lines):
    talk.send("\n".join(lines).encode())

def reload(*_):
    send("RELOADING=1", "MONOTONIC_USEC=1")
    send("READY=1", "STATUS=earlier")
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
    send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    send("READY=1", "STATUS=new")

signal.signal(signal.SIGHUP, reload)
send("READY=1")
while True:
    signal.pause()
"#;

#[test]
fn user_a_reload_of_before_is_not_the_one_that_was_asked_for() {
    let mut place = Place::new(Who::User);
    place.write("srv/one.py", SERVICE);
    let text = format!(
        "command = [\"{}\", \"one.py\"]\nenvironment = {{ GO = \"{}\" }}\nready = \"notify\"\nsettle = \"0s\"\n\
         reload = {{ signal = \"HUP\" }}\n",
        python(),
        place.path("go").display()
    );
    place.unit("web", &text);
    place.run();
    place.reaches("web", "running");
    let mut reload = place.begin(&["reload", "web"]);
    let says = |text: &str| (place.service("web")["status_text"] == text).then_some(());
    wait::until(wait::LONG, "the end of the earlier one", || says("earlier"));
    place.reaches("web", "running");
    assert!(reload.is_under_way());
    place.write("go", "");
    let said = reload.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    says("new").unwrap();
}
