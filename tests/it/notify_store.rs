//! `FDSTORE=1`: what a service stores comes back at its next start, behind its sockets and with its name, whoever was
//! killed meanwhile; and nothing that it stores or sends keeps anybody else waiting.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::gunicorn::python;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

/// Does what it finds in its working place, which is Python, and answers with what that left in `answer`.
pub const SERVICE: &str = r#"
import array, ctypes, fcntl, json, os, select, signal, socket, struct, sys, time

WORK = os.environ["WORK"] + "/"
talk = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
talk.connect(os.environ["NOTIFY_SOCKET"])
keep = []

def send(text, *fds):
    fds = [fd if isinstance(fd, int) else fd.fileno() for fd in fds]
    talk.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

def barrier():
    r, w = os.pipe()
    send("BARRIER=1", w)
    os.close(w)
    assert select.select([r], [], [], 60)[0], "a barrier that is not taken"
    os.close(r)

def names():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    found = os.environ["LISTEN_FDNAMES"].split(":")
    assert len(found) == int(os.environ["LISTEN_FDS"])
    return found

def fd(name):
    return 3 + names().index(name)

def memory(text):
    new = os.memfd_create("state")
    os.write(new, text.encode())
    return new

def text(name):
    return os.pread(fd(name), 99, 0).decode()

def lingering():
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    keep.append(theirs)
    ours.setblocking(False)
    try:
        while True: ours.send(b"x" * 65536)
    except BlockingIOError:
        pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
    return ours

def gone():
    signal.raise_signal(signal.SIGKILL)

send("READY=1")
while True:
    try:
        code = open(WORK + "do").read()
        os.unlink(WORK + "do")
    except FileNotFoundError:
        time.sleep(0.01)
        continue
    answer = None
    exec(code)
    with open(WORK + ".answer", "w") as file:
        json.dump(answer, file)
    os.rename(WORK + ".answer", WORK + "answer")
"#;

/// A place in which `web` runs.
#[track_caller]
fn running(who: Who, sockets: &str) -> Place {
    let mut place = Place::new(who);
    place.write("srv/one.py", SERVICE);
    let work = place.path("work");
    let text = format!(
        "command = [\"{}\", \"one.py\"]\nenvironment = {{ WORK = \"{}\" }}\nready = \"notify\"\nsettle = \"0s\"\n[restart]\ndelay = \"1ms\"\n{sockets}",
        python(),
        work.display()
    );
    place.unit("web", &text);
    place.run();
    place.reaches("web", "running");
    place
}

/// Has the service do something, and says what it answers.
#[track_caller]
pub fn have(place: &Place, code: &str) -> serde_json::Value {
    begin(place, code);
    let answer = place.path("work/answer");
    let text = wait::until(wait::LONG, code, || fs::read_to_string(&answer).ok());
    fs::remove_file(answer).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn begin(place: &Place, code: &str) {
    place.write("work/.do", code);
    fs::rename(place.path("work/.do"), place.path("work/do")).unwrap();
}

/// Has the service do something and die of it; another runs then.
#[track_caller]
pub fn dies(place: &Place, code: &str) {
    let before = place.pid_of("web");
    begin(place, &format!("{code}\ngone()"));
    wait::until(wait::LONG, "the next start", || {
        let web = place.service("web");
        (web["state"] == "running" && web["pid"].as_u64()? != u64::from(before)).then_some(())
    });
}

#[track_caller]
pub fn names(place: &Place) -> Vec<String> {
    serde_json::from_value(have(place, "answer = names()")).unwrap()
}

#[track_caller]
pub fn another(place: &mut Place, role: Role) {
    let manager = place.role(Role::Manager);
    place.kill(role);
    wait::until(wait::LONG, "a manager and a keeper", || {
        let status = place.try_status()?;
        (status["supervisor"]["pid"].as_u64() != Some(manager.into())
            && status["supervisor"]["keeper_pid"].is_u64())
        .then_some(())
    });
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(wait::LONG)).unwrap();
    client
}

#[track_caller]
fn hears(client: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

fn comes_back(who: Who) {
    let address = Place::new(who).address();
    let mut place = running(who, &format!("[socket.http]\nlisten = \"{address}\"\n"));
    assert_eq!(
        have(&place, "answer = [names(), os.environ['FDSTORE']]"),
        serde_json::json!([["http"], "32"])
    );
    let mut client = connect(address);
    dies(
        &place,
        "conn, _ = socket.socket(fileno=3).accept()\nconn.send(b'one')\nsend('FDSTORE=1\\nFDNAME=conn', conn)\nsend('FDSTORE=1', memory('kept'))\nbarrier()",
    );
    hears(&mut client, "one");
    let say = |client: &mut TcpStream, text: &str| {
        have(&place, &format!("socket.socket(fileno=os.dup(fd('conn'))).send(b'{text}')"));
        hears(client, text);
    };
    assert_eq!(names(&place), ["http", "conn", "stored"]);
    assert_eq!(have(&place, "answer = text('stored')"), "kept");
    say(&mut client, "two");
    let _ = say;
    // Whoever dies, and in whatever order.
    for (round, role) in [Role::Manager, Role::Zygote, Role::Keeper, Role::Manager].into_iter().enumerate() {
        if role == Role::Zygote {
            place.kill(role);
        } else {
            another(&mut place, role);
        }
        dies(&place, "");
        assert_eq!(names(&place), ["http", "conn", "stored"], "after kill -9 of the {role:?}");
        let text = format!("round {round}");
        have(&place, &format!("socket.socket(fileno=os.dup(fd('conn'))).send(b'{text}')"));
        hears(&mut client, &text);
    }
    // The next one beside the old one gets what is there at its start.
    have(&place, "send('FDSTORE=1\\nFDNAME=new', memory('new'))\nbarrier()");
    place.order(&["restart", "web"]);
    assert_eq!(names(&place), ["http", "conn", "stored", "new"]);
    assert_eq!(place.service("web")["stored"], 3);
    let page = place.order(&["status", "web"]).out;
    assert!(page.contains("  stored           3 descriptors for its next start\n"), "{page}");
    // What an operator stops has nothing more to come back to.
    place.order(&["stop", "web"]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the connection is still held");
    place.order(&["start", "web"]);
    assert_eq!(names(&place), ["http"]);
}

#[test]
fn root_what_a_service_stores_comes_back_to_it() {
    comes_back(Who::Root);
}

#[test]
fn user_what_a_service_stores_comes_back_to_it() {
    comes_back(Who::User);
}

#[test]
fn root_what_is_stored_is_removed_by_name_and_by_its_other_end() {
    let place = running(Who::Root, "");
    have(
        &place,
        "r, w = os.pipe()\nkeep += [r, w]\na, b = memory('a'), memory('b')\n\
         send('FDSTORE=1\\nFDNAME=pipe', w)\nsend('FDSTORE=1\\nFDNAME=left\\nFDPOLL=0', w, os.dup(w), r)\n\
         send('FDSTORE=1\\nFDNAME=a', a, a)\nsend('FDSTORE=1\\nFDNAME=b', b, os.dup(a))\n\
         send('FDSTOREREMOVE=1\\nFDNAME=a')\nsend('FDSTORE=1\\nFDNAME=colon:', b'' and 0 or memory('c'))\nbarrier()",
    );
    dies(&place, "");
    // The pipe was stored once, with its first name, and its reader was stored too, so it has not lost its other end.
    assert_eq!(names(&place), ["pipe", "left", "b", "stored"]);
    assert_eq!(have(&place, "answer = [text('b'), text('stored')]"), serde_json::json!(["b", "c"]));
    have(&place, "send('FDSTOREREMOVE=1\\nFDNAME=left')\nos.close(fd('left'))\nbarrier()");
    wait::until(wait::LONG, "the pipe without a reader to be dropped", || {
        place.stderr().contains("stored descriptor `pipe`: its other end is gone").then_some(())
    });
    dies(&place, "");
    assert_eq!(names(&place), ["b", "stored"]);
    // What stays unpolled stays without anybody.
    have(&place, "r, w = os.pipe()\nsend('FDSTORE=1\\nFDNAME=late\\nFDPOLL=0', w)\nos.close(r)\nbarrier()");
    dies(&place, "");
    assert_eq!(names(&place), ["b", "stored", "late"]);
}

/// Of several of one name, one whose peer hangs up goes alone, and the others are alive.
#[test]
fn root_a_stored_connection_that_is_reset_goes_alone() {
    let address = Place::new(Who::Root).address();
    let place = running(Who::Root, &format!("[socket.http]\nlisten = \"{address}\"\n"));
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = connect(address);
        let code = "conn, _ = socket.socket(fileno=os.dup(3)).accept()\nsend('FDSTORE=1\\nFDNAME=conn', conn)\nbarrier()";
        have(&place, &format!("{code}\nconn.send(b'{number}')\nconn.close()"));
        hears(&mut client, &number.to_string());
        clients.push(client);
    }
    let reset = clients.remove(1);
    nix::sys::socket::setsockopt(
        &reset,
        nix::sys::socket::sockopt::Linger,
        &libc::linger { l_onoff: 1, l_linger: 0 },
    )
    .unwrap();
    drop(reset);
    let line = "stored descriptor `conn`: its other end is gone";
    wait::until(wait::LONG, "the one that was reset to be dropped", || {
        place.stderr().contains(line).then_some(())
    });
    dies(&place, "");
    assert_eq!(names(&place), ["http", "conn", "conn"], "{}", place.stderr());
    for (number, client) in clients.iter_mut().enumerate() {
        have(&place, &format!("socket.socket(fileno=os.dup(4 + {number})).send(b'lives{number}')"));
        hears(client, &format!("lives{number}"));
    }
    assert_eq!(place.stderr().matches(line).count(), 1);
}

/// One that stores what has no other end any more, again and again, is told so in a few lines.
#[test]
fn root_descriptors_that_are_lost_at_once_are_told_in_a_few_lines() {
    let place = running(Who::Root, "");
    have(
        &place,
        "for n in range(12):\n    r, w = os.pipe()\n    send('FDSTORE=1\\nFDNAME=p%d' % n, w)\n    barrier()\n    os.close(r)\n    os.close(w)",
    );
    have(&place, "send('FDSTORE=1\\nFDNAME=last', memory('x'))\nbarrier()");
    dies(&place, "");
    assert_eq!(names(&place), ["last"]);
    let lines = place.stderr().matches("its other end is gone").count();
    assert!((1..=4).contains(&lines), "{lines} lines: {}", place.stderr());
}

/// While no process can be had, what is to be stored waits where it is.
#[test]
fn user_a_shortage_of_processes_loses_nothing_that_is_stored() {
    let place = running(Who::User, "");
    let zygote = place.role(Role::Zygote).to_string();
    let limit = |soft: &str| {
        let words = ["--pid", &zygote, &format!("--nproc={soft}:")];
        assert!(place.command("prlimit".as_ref()).args(words).status().unwrap().success());
    };
    let words = ["--pid", &zygote, "--nproc", "--output=SOFT", "--noheadings", "--raw"];
    let before = place.command("prlimit".as_ref()).args(words).output().unwrap();
    let before = String::from_utf8(before.stdout).unwrap();
    limit("1");
    begin(
        &place,
        "for n in range(5): send('FDSTORE=1\\nFDNAME=n%d' % n, memory(str(n)))\nbarrier()\nanswer = 1",
    );
    let lost = "a message is taken without its descriptors";
    wait::until(wait::LONG, "the shortage", || {
        let said = place.stderr();
        (said.contains("no process can be had to take it") || said.contains(lost)).then_some(())
    });
    limit(before.trim());
    let answer = place.path("work/answer");
    wait::until(wait::LONG, "the barrier", || answer.exists().then_some(()));
    fs::remove_file(answer).unwrap();
    dies(&place, "");
    assert_eq!(names(&place), ["n0", "n1", "n2", "n3", "n4"], "{}", place.stderr());
    assert!(!place.stderr().contains(lost), "{}", place.stderr());
}

#[test]
fn root_no_more_is_stored_than_there_may_be_and_nothing_that_may_be_somebodys() {
    let mut place = running(Who::Root, "");
    have(&place, "for n in range(50): send('FDSTORE=1\\nFDNAME=n%d' % n, memory(str(n)))\nbarrier()");
    let other = "send('FDSTORE=1\\nFDNAME=other', os.open('/', os.O_RDONLY), os.open('/etc/passwd', os.O_RDONLY), os.open('/', os.O_PATH), os.open('/dev/null', os.O_RDONLY))";
    have(&place, &format!("{other}\nbarrier()"));
    let held = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let (manager, keeper) = (place.role(Role::Manager), place.role(Role::Keeper));
    let before = (held(manager), held(keeper));
    have(&place, &format!("for n in range(20): {other}\nbarrier()"));
    // One may be open for a moment that is for something else.
    let mut after = before;
    let few = wait::within(wait::LONG, || {
        after = (held(manager), held(keeper));
        (after.0 <= before.0 + 3 && after.1 <= before.1).then_some(())
    });
    assert!(few.is_some(), "{before:?} became {after:?}");
    dies(&place, "");
    let wanted: Vec<String> = (0..32).map(|n| format!("n{n}")).collect();
    assert_eq!(names(&place), wanted);
    let said = place.stderr();
    assert!(said.contains("FDSTORE=1: not all is kept: an instance may have 32 stored"), "{said}");
    assert!(said.matches("not all is kept").count() <= 8, "{said}");
    place.order(&["stop", "web"]);
    another(&mut place, Role::Manager);
    place.order(&["start", "web"]);
    assert_eq!(names(&place), [""; 0]);
}

/// libsystemd sends, and libsystemd receives.
#[test]
fn root_libsystemd_stores_and_finds_what_it_stored() {
    let place = running(Who::Root, "");
    let load = "sd = ctypes.CDLL('libsystemd.so.0')\n";
    dies(
        &place,
        &format!(
            "{load}fds = (ctypes.c_int * 2)(memory('x'), memory('y'))\n\
             assert sd.sd_pid_notify_with_fds(0, 0, b'FDSTORE=1\\nFDNAME=lib', fds, 2) > 0\n\
             assert sd.sd_notify_barrier(0, ctypes.c_uint64(30000000)) > 0"
        ),
    );
    let found = have(
        &place,
        &format!(
            "{load}array_ = ctypes.POINTER(ctypes.c_char_p)()\ncount = sd.sd_listen_fds_with_names(0, ctypes.byref(array_))\n\
             answer = [[array_[n].decode() for n in range(count)], os.pread(3, 9, 0).decode() + os.pread(4, 9, 0).decode()]"
        ),
    );
    assert_eq!(found, serde_json::json!([["lib", "lib"], "xy"]));
}

/// A main process by its descriptor, one by its number that is not that number's, one that runs as somebody else; and
/// whom of it to believe.
#[test]
fn root_a_main_process_is_told_by_its_descriptor_and_whom_to_believe_by_its_name() {
    let place = running(Who::Root, "[limits]\ncore = 0\n");
    let first = place.pid_of("web");
    let fork = "child = os.fork()\nif child == 0:\n    while True: signal.pause()\nkeep.append(child)\n";
    let main = |code: &str| {
        have(&place, &format!("{fork}{code}\nbarrier()\nanswer = child")).as_u64().unwrap() as u32
    };
    // The number of another process, and a descriptor of another than is said.
    let other = "os.fstat(os.pidfd_open(os.getpid())).st_ino";
    main(&format!("send('MAINPID=%d\\nMAINPIDFDID=%d' % (child, {other}))"));
    assert_eq!(place.pid_of("web"), first);
    let problems = place.service("web")["problems"].to_string();
    assert!(problems.contains("the process of that number is another one (MAINPIDFDID=)"), "{problems}");
    main("send('MAINPID=%d\\nMAINPIDFD=1' % os.getpid(), os.pidfd_open(child))");
    main("send('MAINPIDFD=1', memory('no process'))");
    assert_eq!(place.pid_of("web"), first);
    let by_number =
        main("send('MAINPID=%d\\nMAINPIDFDID=%d' % (child, os.fstat(os.pidfd_open(child)).st_ino))");
    assert_eq!(place.pid_of("web"), by_number);
    let by_descriptor = main("send('MAINPIDFD=1', os.pidfd_open(child))");
    assert_eq!(place.pid_of("web"), by_descriptor);
    // The one that talks is not the main one any more.
    have(&place, "send('NOTIFYACCESS=main\\nSTATUS=before')\nsend('STATUS=after')\nbarrier()");
    assert_eq!(place.service("web")["status_text"], "before");
    let again = main("send('MAINPID=%d' % os.getpid())");
    assert_ne!(place.pid_of("web"), again);
    assert_eq!(place.pid_of("web"), by_descriptor);
}

/// A process in the service's own cgroup that has another user is followed where root says so, and not otherwise.
#[test]
fn root_a_main_process_of_another_account_is_not_followed() {
    let mut place = Place::new(Who::Root);
    place.write("srv/one.py", SERVICE);
    let (program, work) = (python(), place.path("work"));
    let more = format!(
        "command = [\"{program}\", \"one.py\"]\nenvironment = {{ WORK = \"{}\" }}\nready = \"notify\"\nsettle = \"0s\"\ncapabilities = [\"SETUID\"]\n",
        work.display()
    );
    place.unit("web", &more);
    place.run();
    place.reaches("web", "running");
    let first = place.pid_of("web");
    let code = "r, w = os.pipe()\nchild = os.fork()\nif child == 0:\n    os.setuid(54321)\n    os.close(w)\n    while True: signal.pause()\n\
                os.close(w)\nos.read(r, 1)\nsend('MAINPID=%d' % child)\nbarrier()\nanswer = child";
    let child = have(&place, code).as_u64().unwrap();
    assert_eq!(place.pid_of("web"), first);
    let problems = place.service("web")["problems"].to_string();
    assert!(problems.contains("it runs as uid 54321, which is not the service's"), "{problems}");
    let socket = fs::read_dir(place.path("run/notify")).unwrap().next().unwrap().unwrap().path();
    let root = std::os::unix::net::UnixDatagram::unbound().unwrap();
    root.send_to(format!("MAINPID={child}").as_bytes(), socket).unwrap();
    wait::until(wait::LONG, "root to be believed", || {
        (place.service("web")["pid"].as_u64() == Some(child)).then_some(())
    });
}

/// Data that comes for a stored connection wakes nobody.
#[test]
fn root_what_is_stored_wakes_nobody() {
    let address = Place::new(Who::Root).address();
    let place = running(Who::Root, &format!("[socket.http]\nlisten = \"{address}\"\n"));
    let mut client = connect(address);
    have(
        &place,
        "conn, _ = socket.socket(fileno=3).accept()\nsend('FDSTORE=1\\nFDNAME=conn', conn)\nbarrier()",
    );
    let manager = place.role(Role::Manager);
    let woken = || {
        let text = fs::read_to_string(format!("/proc/{manager}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let mut times = || {
        // What the last answers are followed by has come to rest.
        let mut rest = (woken(), Instant::now());
        wait::until(wait::LONG, "the manager to come to rest", || {
            if woken() != rest.0 {
                rest = (woken(), Instant::now());
            }
            (rest.1.elapsed() > Duration::from_millis(700)).then_some(())
        });
        for _ in 0..100 {
            client.write_all(b"x").unwrap();
            wait::a_moment();
        }
        woken() - rest.0
    };
    // It may have something of its own to do once in a while.
    let all: Vec<u64> = std::iter::repeat_with(&mut times).take(3).take_while(|times| *times > 0).collect();
    assert!(all.len() < 3, "wake-ups of the manager: {all:?}");
}

/// Sockets whose last close waits ten minutes for a peer who does not read.
#[test]
fn root_a_socket_that_lingers_keeps_nobody_waiting() {
    let mut place = running(Who::Root, "");
    let began = Instant::now();
    // In a message that wants none, in one that is no message, stored and removed, and in the queue of a stored one.
    // Nobody takes them before the service has closed its own: the last close is never the service's.
    let manager = place.role(Role::Manager);
    processes::signal(manager, libc::SIGSTOP);
    have(
        &place,
        "for text in ['BARRIER=1', 'X=\\0y', 'FDSTORE=1\\nFDNAME=a']:\n    s = lingering()\n    send(text, s)\n    os.close(s.detach())",
    );
    processes::signal(manager, libc::SIGCONT);
    have(
        &place,
        "barrier()\nsend('FDSTOREREMOVE=1\\nFDNAME=a')\n\
         s = lingering()\na, b = socket.socketpair()\n\
         a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])\nos.close(s.detach())\n\
         send('FDSTORE=1\\nFDNAME=b', b)\nb.close()\nbarrier()\nsend('FDSTOREREMOVE=1\\nFDNAME=b')\nbarrier()",
    );
    place.status();
    // And unread in its notify socket when it ends.
    let web = place.pid_of("web");
    processes::signal(manager, libc::SIGSTOP);
    begin(&place, "s = lingering()\nfor n in range(8): send('X=1', s)\nos.close(s.detach())\ngone()");
    wait::until(wait::LONG, "its end", || (!processes::lives(web)).then_some(()));
    processes::signal(manager, libc::SIGCONT);
    wait::until(wait::LONG, "the next start", || {
        let service = place.service("web");
        (service["state"] == "running" && service["pid"] != web).then_some(())
    });
    another(&mut place, Role::Manager);
    dies(&place, "s = lingering()\nsend('FDSTORE=1\\nFDPOLL=0\\nFDNAME=c', s)\nbarrier()");
    assert_eq!(names(&place), ["c"]);
    another(&mut place, Role::Keeper);
    place.order(&["stop", "web"]);
    assert!(began.elapsed() < Duration::from_secs(120), "it all took {:?}", began.elapsed());
}

/// Whoever kills whom in the middle: each name is there once, or not at all where nobody had said that it is stored.
#[test]
fn root_a_manager_that_is_killed_in_the_middle_loses_nothing() {
    let mut place = running(Who::Root, "");
    let mut wanted = Vec::new();
    for round in 0..12 {
        let manager = place.role(Role::Manager);
        begin(
            &place,
            &format!("send('FDSTORE=1\\nFDNAME=r{round}', memory('{round}'))\nbarrier()\nanswer = 1"),
        );
        for _ in 0..round {
            wait::a_moment();
        }
        processes::signal(manager, libc::SIGKILL);
        wanted.push(format!("r{round}"));
        let answer = place.path("work/answer");
        wait::until(wait::LONG, "the barrier", || answer.exists().then_some(()));
        fs::remove_file(answer).unwrap();
        place.reap(manager);
    }
    wait::until(wait::LONG, "a manager", || place.try_status());
    dies(&place, "");
    assert_eq!(names(&place), wanted);
    // And nobody reads what it says before it dies. All of it is taken within a second, or not all of it.
    for time in 0..5 {
        let (manager, web) = (place.role(Role::Manager), place.pid_of("web"));
        processes::signal(manager, libc::SIGSTOP);
        let last = format!("last{time}");
        begin(
            &place,
            &format!("for n in range(3): send('FDSTORE=1\\nFDNAME={last}', memory('last'))\ngone()"),
        );
        wait::until(wait::LONG, "its end", || (!processes::lives(web)).then_some(()));
        place.kill_at_once(manager);
        wait::until(wait::LONG, "the next start", || {
            place.try_status()?["services"][0]["restarts"].as_u64().filter(|times| *times == 2 + time)
        });
        place.reaches("web", "running");
        let mut all = names(&place);
        let lasts = all.split_off(wanted.len());
        assert!(
            all == wanted && lasts.len() <= 3 && lasts.iter().all(|name| *name == last),
            "{all:?} {lasts:?}"
        );
        if lasts.len() == 3 {
            return;
        }
        wanted.extend(lasts);
    }
    panic!("what is said last is lost: {}", place.stderr());
}
