//! Sockets that the parent of supervise has bound are taken by name and by address; what nobody wants is closed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::gunicorn::python;
use super::place::{Place, Who};
use super::sockets::{ask, ask_unix};
use super::supervisor::Role;
use super::{processes, wait};

/// Binds, hands over as sd_listen_fds(3) has it or as Server::Starter does, and becomes its arguments.
const PARENT: &str = r#"
import fcntl, os, socket, sys
form, one, two, other = sys.argv[1:5]
bound = []
for where in (one, two, other):
    if where.startswith("/"):
        made = socket.socket(socket.AF_UNIX)
        made.bind(where)
    else:
        made = socket.socket()
        host, port = where.rsplit(":", 1)
        made.bind((host, int(port)))
    made.listen()
    bound.append(fcntl.fcntl(made, fcntl.F_DUPFD, 50))
for number, fd in enumerate(bound):
    os.dup2(fd, 3 + number)
if form == "listen":
    os.environ.update(LISTEN_FDS="3", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="front::other")
else:
    os.environ["SERVER_STARTER_PORT"] = "%s=3;%s=4;%s=5" % (one, two, other)
os.closerange(6, 100)
os.execv(sys.argv[5], sys.argv[5:])
"#;

fn given_sockets_are_taken(who: Who, form: &str) {
    let mut place = Place::new(who);
    let (one, other): (SocketAddr, SocketAddr) = (place.address(), place.address());
    let two = place.path("srv/given");
    let inherit = if form == "listen" { "inherit = \"front\"\n" } else { "" };
    place.sockets(
        "web",
        &format!("[socket.a]\nlisten = \"{one}\"\n{inherit}[socket.b]\nlisten = \"{}\"\n", two.display()),
    );
    place.write("srv/parent.py", PARENT);
    let parent = place.path("srv/parent.py").display().to_string();
    let (first, second, third) = (one.to_string(), two.display().to_string(), other.to_string());
    place.run_below(&[python(), "-I", &parent, form, &first, &second, &third]);
    place.reaches("web", "running");
    let pid = place.pid_of("web");
    assert_eq!(ask(TcpStream::connect(one).unwrap(), "who -").unwrap()["pid"], pid);
    assert_eq!(ask_unix(&two, "who -").unwrap()["pid"], pid);
    assert!(TcpStream::connect(other).is_err(), "what no unit wants is still open");
    // They outlive the manager, and the service.
    place.kill(Role::Manager);
    processes::signal(pid, 9);
    let mut waiting = TcpStream::connect(one).unwrap();
    waiting.write_all(b"who -").unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("pid"), "{answer}");
    // A stop does not close what is the parent's, and does not remove its file.
    let said = place.order(&["stop", "web"]);
    let stay = format!(
        "web: its inherited sockets `a` ({one}), `b` ({}) stay open: clients are let into the queue, and wait for its next \
         start\n",
        two.display()
    );
    assert_eq!(said.err, stay);
    assert!(two.exists());
    let mut early = TcpStream::connect(one).unwrap();
    early.write_all(b"who -").unwrap();
    let sockets = place.service("web")["sockets"].clone();
    let facts = |socket: &serde_json::Value| (socket["inherited"] == true, socket["queue"].as_u64());
    assert_eq!(
        sockets.as_array().unwrap().iter().map(facts).collect::<Vec<_>>(),
        [(true, Some(1)), (true, Some(0))]
    );
    let page = place.ask(&["status", "web"]).out;
    let waits = format!("a {one}, 1 of ");
    let open = "waiting; inherited: it listens, and nobody accepts before the next start\n";
    assert!(page.contains(&waits) && page.contains(open), "{page}");
    place.order(&["start", "web"]);
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("pid"), "{answer}");
    assert!(ask_unix(&two, "who -").is_some());
    wait::until(wait::LONG, "an answer", || ask(TcpStream::connect(one).ok()?, "who -"));
}

#[test]
fn root_given_sockets_are_taken() {
    given_sockets_are_taken(Who::Root, "listen");
}

#[test]
fn user_given_sockets_are_taken() {
    given_sockets_are_taken(Who::User, "listen");
}

#[test]
fn user_sockets_of_server_starter_are_taken() {
    given_sockets_are_taken(Who::User, "starter");
}

#[test]
fn user_a_given_socket_of_another_address_is_told() {
    let mut place = Place::new(Who::User);
    let (one, other) = (place.address(), place.address());
    let two = place.path("srv/given");
    place.sockets("web", &format!("[socket.a]\nlisten = \"{}\"\ninherit = \"front\"\n", place.address()));
    place.write("srv/parent.py", PARENT);
    let parent = place.path("srv/parent.py").display().to_string();
    let (first, second, third) = (one.to_string(), two.display().to_string(), other.to_string());
    place.run_below(&[python(), "-I", &parent, "listen", &first, &second, &third]);
    let service = place.reaches("web", "backing-off");
    let said = service["problems"][0].as_str().unwrap();
    let expected = ": the socket `front` that supervise was given is not of this address and type\nhint: have `listen` \
                    and `type` say what the init above binds";
    assert!(said.ends_with(expected), "{said}");
}
