//! What the init above is told: systemd's protocol on a socket, a line on a descriptor for s6, and what it gives
//! comes back in a start after it.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use super::place::{Place, Who};
use super::supervisor::Role;
use super::wait;

/// A socket as an init has it.
struct Init {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Init {
    fn of(place: &Place) -> Self {
        let socket = UnixDatagram::bind(place.path("work/notify")).unwrap();
        std::fs::set_permissions(
            place.path("work/notify"),
            std::os::unix::fs::PermissionsExt::from_mode(0o666),
        )
        .unwrap();
        socket.set_read_timeout(Some(wait::LONG)).unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// Messages up to and with the one that begins so.
    #[track_caller]
    fn hears(&mut self, start: &str) -> String {
        loop {
            let mut bytes = [0; 4096];
            let count = self.socket.recv(&mut bytes);
            let count = count.unwrap_or_else(|error| panic!("no `{start}` after {:?}: {error}", self.heard));
            let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
            self.heard.push(text.clone());
            if text.starts_with(start) {
                return text;
            }
        }
    }
}

#[test]
fn user_an_init_is_told_when_it_is_ready_how_it_is_and_when_it_stops() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = [\"sleep\", \"1000\"]\nready = \"started\"\nsettle = \"0s\"");
    let mut init = Init::of(&place);
    let notify = place.path("work/notify");
    let script = format!("NOTIFY_SOCKET={} WATCHDOG_USEC=2000000 exec \"$@\"", notify.display());
    place.keeper = Some(place.spawn_by(&script, Stdio::null()));
    init.hears("READY=1");
    assert!(place.try_status().is_some(), "READY came before commands are answered");
    init.hears("STATUS=1 running");
    init.hears("WATCHDOG=1");
    // Another manager says the same, and goes on.
    place.kill(Role::Manager);
    init.hears("READY=1");
    place.order(&["stop", "web"]);
    init.hears("STATUS=1 stopped");
    let keeper = place.keeper.take().unwrap();
    super::processes::signal(keeper.pid, libc::SIGTERM);
    init.hears("STOPPING=1");
    init.hears("EXIT_STATUS=0");
    assert!(keeper.wait().success());
}

#[test]
fn user_an_init_that_waits_for_a_line_gets_one() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = [\"sleep\", \"1000\"]");
    let (mut read, write) = std::io::pipe().unwrap();
    place.keeper = Some(place.spawn_by("exec 7>&0 </dev/null; exec \"$@\" --ready-fd 7", write.into()));
    let mut line = String::new();
    read.read_to_string(&mut line).unwrap();
    assert_eq!(line, "\n", "the line, and the end of the file");
    assert!(place.try_status().is_some(), "the line came before commands are answered");
    let refused = place.spawn_by("exec \"$@\" --ready-fd 9", Stdio::null());
    assert_eq!(refused.wait().code(), Some(1));
    assert!(
        place.stderr().contains("supervise: `--ready-fd 9`: bad file descriptor\nhint: "),
        "{}",
        place.stderr()
    );
}

#[test]
fn user_one_below_another_is_ready_when_it_says_so() {
    let mut place = Place::new(Who::User);
    std::fs::create_dir(place.path("work/inner")).unwrap();
    std::fs::write(
        place.path("work/inner/web.toml"),
        "[service]\ncommand = [\"sleep\", \"1000\"]\nready = \"started\"\nsettle = \"0s\"\n",
    )
    .unwrap();
    let (binary, work) = (place.binary(), place.path("work"));
    let (binary, work) = (binary.display(), work.display());
    place.unit(
        "inner",
        &format!(
            "command = [\"{binary}\", \"run\", \"--units\", \"{work}/inner\", \"--runtime-dir\", \"{work}/run\", \
             \"--log-dir\", \"{work}/log\", \"--state-dir\", \"{work}/state\"]\nready = \"notify\"\nsettle = \"0s\""
        ),
    );
    place.run();
    place.reaches("inner", "running");
    let says = || place.service("inner")["status_text"] == "1 running";
    wait::until(wait::LONG, "the word of the inner one", || says().then_some(()));
    place.order(&["stop", "inner"]);
}
