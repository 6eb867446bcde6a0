//! What is in the way of a bind is named and waited out; what becomes of a bound file is noticed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use super::gunicorn::python;
use super::place::{Place, Who};
use super::sockets::{ask, ask_unix};
use super::wait;

/// Listens at what it is told until its input ends.
const HOLD: &str = r#"
import os, socket, sys
where = sys.argv[1]
if where.startswith("/"):
    held = socket.socket(socket.AF_UNIX)
    held.bind(where)
else:
    held = socket.socket()
    held.bind((where.split(":")[0], int(where.split(":")[1])))
held.listen()
print("listening", flush=True)
sys.stdin.read()
"#;

/// A process of the place's account that has an address.
fn hold(place: &Place, address: &str) -> Child {
    place.write("srv/hold.py", HOLD);
    let (uid, gid) = (place.account.uid, place.account.gid);
    let mut command = match super::accounts::am_root() {
        true => place.command_as(uid, gid, &[], python().as_ref()),
        false => place.command(python().as_ref()),
    };
    command.args(["hold.py", address]).current_dir(place.path("srv"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    child
}

fn problems(place: &Place, name: &str) -> Vec<String> {
    let service = place.service(name);
    let problems = service["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem.as_str().unwrap().to_owned()).collect()
}

fn tcp(address: SocketAddr, text: &str) -> Option<serde_json::Value> {
    ask(TcpStream::connect(address).ok()?, text)
}

fn who_has_an_address_is_named_and_waited_for(who: Who) {
    let mut place = Place::new(who);
    let address = place.high_address();
    let mut holder = hold(&place, &address.to_string());
    place.sockets("web", &format!("[restart]\npolicy = \"never\"\n[socket.a]\nlisten = \"{address}\"\n"));
    place.run();
    place.reaches("web", "backing-off");
    let expected = format!(
        "binding {address}: address already in use: process {} (`{} hold.py {address}`, user {}) has it\nhint: stop \
         it, or choose another address",
        holder.id(),
        python(),
        place.account.name
    );
    assert_eq!(problems(&place, "web").join(" | "), expected);
    let said = place.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let expected = expected.replace("\nhint: ", "\n");
    let seen = said.err.replace("hint: ", "");
    assert!(seen.contains(expected.lines().next().unwrap()), "{expected}\nnot in\n{seen}");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    place.reaches("web", "running");
    assert_eq!(tcp(address, "who -").unwrap()["pid"], place.pid_of("web"));
    assert_eq!(problems(&place, "web"), Vec::<String>::new());
}

#[test]
fn root_who_has_an_address_is_named_and_waited_for() {
    who_has_an_address_is_named_and_waited_for(Who::Root);
}

#[test]
fn user_who_has_an_address_is_named_and_waited_for() {
    who_has_an_address_is_named_and_waited_for(Who::User);
}

#[test]
fn root_a_service_that_listens_by_itself_and_another_supervisor_are_named() {
    let (mut place, mut other) = (Place::new(Who::Root), Place::new(Who::Root));
    let (one, held) = (place.address(), place.high_address());
    place.write("srv/hold.py", HOLD);
    let command = format!("tail -f /dev/null | exec {} hold.py {held}", python());
    place.unit("other", &format!("command = [\"/bin/sh\", \"-c\", \"{command}\"]\nsettle = \"10ms\"\n"));
    place.sockets("web", &format!("start = \"manual\"\n[socket.a]\nlisten = \"{held}\"\n"));
    place.sockets("last", &format!("[socket.a]\nlisten = \"{one}\"\n"));
    place.run();
    place.reaches("other", "running");
    wait::until(wait::LONG, "its own socket", || TcpStream::connect(held).ok());
    let said = place.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let service = problems(&place, "web").join("\n");
    let hint = "hint: it belongs to `other`, which listens by itself: give `other` a `[socket.NAME]` table, or one of \
                them another address";
    assert!(service.starts_with(&format!("binding {held}: address already in use: process ")), "{service}");
    assert!(service.ends_with(hint), "{service}");
    other.sockets("web", &format!("[socket.a]\nlisten = \"{one}\"\n"));
    other.run();
    other.reaches("web", "backing-off");
    let run = place.path("run");
    let expected = format!(
        "binding {one}: address already in use: a supervisor with the runtime directory `{run}` has it\nhint: \
         `supervise --runtime-dir {run} status` shows for whom",
        run = run.display()
    );
    assert_eq!(problems(&other, "web"), [expected]);
}

fn what_is_at_a_path_is_judged(who: Who) {
    let mut place = Place::new(who);
    let path = |name: &str| place.path(&format!("srv/{name}")).display().to_string();
    let (stale, live, file) = (path("stale"), path("live"), path("file"));
    place.write("srv/file", "not a socket");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    if super::accounts::am_root() && who == Who::User {
        std::os::unix::fs::chown(&stale, Some(place.account.uid), Some(place.account.gid)).unwrap();
    }
    let held = std::os::unix::net::UnixListener::bind(&live).unwrap();
    if super::accounts::am_root() && who == Who::User {
        std::os::unix::fs::chown(&live, Some(place.account.uid), Some(place.account.gid)).unwrap();
    }
    for (name, listen) in [("stale", &stale), ("live", &live), ("file", &file)] {
        place.sockets(name, &format!("[socket.a]\nlisten = \"{listen}\"\n"));
    }
    place.run();
    place.reaches("stale", "running");
    assert!(ask_unix(stale.as_ref(), "who -").is_some());
    place.reaches("live", "backing-off");
    let said = problems(&place, "live").join("\n");
    let start = format!("binding {live}: address already in use: process {} (`", std::process::id());
    assert!(said.starts_with(&start) || who == Who::User, "{said}");
    place.reaches("file", "backing-off");
    let expected = format!(
        "binding {file}: address already in use\nhint: something that is no socket is there; remove it"
    );
    assert_eq!(problems(&place, "file"), [expected]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a socket");
    drop(held);
    place.reaches("live", "running");
}

#[test]
fn root_what_is_at_a_path_is_judged() {
    what_is_at_a_path_is_judged(Who::Root);
}

#[test]
fn user_what_is_at_a_path_is_judged() {
    what_is_at_a_path_is_judged(Who::User);
}

fn a_lost_file_is_noticed_and_a_restart_binds_it_anew(who: Who) {
    let mut place = Place::new(who);
    let (gone, replaced) = (place.path("made/gone"), place.path("made/replaced"));
    let sockets = format!(
        "[socket.a]\nlisten = \"{}\"\n[socket.b]\nlisten = \"{}\"\n",
        gone.display(),
        replaced.display()
    );
    place.sockets("web", &sockets);
    place.run();
    place.reaches("web", "running");
    fs::remove_file(&gone).unwrap();
    let noticed = format!("listener-lost {}: its file was removed or replaced", gone.display());
    wait::until(wait::LONG, "the loss to be noticed", || place.stderr().contains(&noticed).then_some(()));
    let lost = |path: &std::path::Path| {
        format!(
            "{}: its file was removed or replaced: clients do not reach the service\nhint: `supervise restart web` \
             binds it anew",
            path.display()
        )
    };
    assert_eq!(problems(&place, "web"), [lost(&gone)]);
    fs::remove_file(&replaced).unwrap();
    fs::write(&replaced, "").unwrap();
    assert_eq!(problems(&place, "web"), [lost(&gone), lost(&replaced)]);
    fs::remove_file(&replaced).unwrap();
    place.order(&["restart", "web"]);
    assert_eq!(problems(&place, "web"), Vec::<String>::new());
    let pid = place.pid_of("web");
    for path in [&gone, &replaced] {
        assert_eq!(ask_unix(path, "who -").unwrap()["pid"], pid);
    }
    // The new file is watched as the old one was.
    fs::remove_file(&gone).unwrap();
    wait::until(wait::LONG, "the second loss", || {
        (place.stderr().matches(&noticed).count() == 2).then_some(())
    });
}

#[test]
fn root_a_lost_file_is_noticed_and_a_restart_binds_it_anew() {
    a_lost_file_is_noticed_and_a_restart_binds_it_anew(Who::Root);
}

#[test]
fn user_a_lost_file_is_noticed_and_a_restart_binds_it_anew() {
    a_lost_file_is_noticed_and_a_restart_binds_it_anew(Who::User);
}

#[test]
fn user_a_queue_that_the_kernel_cuts_is_told() {
    let mut place = Place::new(Who::User);
    let most: u32 = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let (address, wanted) = (place.address(), most + 1);
    place.sockets("web", &format!("[socket.a]\nlisten = \"{address}\"\nbacklog = {wanted}\n"));
    place.run();
    place.reaches("web", "running");
    let expected = format!(
        "{address}: the kernel lets {most} connections wait, not {wanted}\nhint: `sysctl \
         net.core.somaxconn={wanted}` lets more"
    );
    assert_eq!(problems(&place, "web").join(" | "), expected);
    assert!(place.stderr().contains(&expected));
    assert_eq!(place.service("web")["sockets"][0]["backlog"], most);
}
