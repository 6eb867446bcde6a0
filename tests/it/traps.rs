//! What does not work with a server, provoked with the server itself: what is said of it before it runs, all of it,
//! and what becomes of it where the unit says that nothing is known of its server.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::gunicorn::python;
use super::place::{Place, Who, free_port};
use super::servers::{ask, exists, get, python_module, uwsgi, with_servers};
use super::{processes, wait};

/// The service whose server supervise knows, and the one of the same command whose server it is told not to know.
const KNOWN: &str = "known";
const BARE: &str = "bare";

/// What is said of it where its options were not known.
const BACKGROUND: &str = "bare: proving itself: exit status 0: it went into the background: other processes of it went on \
                          and were ended; have it stay in the foreground";

struct Trap {
    place: Place,
    /// Where the second is to listen.
    address: SocketAddr,
    /// Where the first is to.
    known: SocketAddr,
}

/// What a unit has besides its command.
struct Rest<'a> {
    service: &'a str,
    variables: &'a str,
    listen: Option<&'a str>,
    who: Who,
}

/// What escapes is found by its cgroup.
const ESCAPES: Rest<'static> = Rest { who: Who::Root, ..DIES };

/// It does not live as long as it has to.
const DIES: Rest<'static> = Rest { service: "settle = \"50s\"\n", ..NOTHING };

/// It has to live for a while, and so long that another beside it has failed by then.
const LONGER: Rest<'static> = Rest { service: "settle = \"10s\"\n", ..NOTHING };

const NOTHING: Rest<'static> =
    Rest { service: "settle = \"0s\"\n", variables: "", listen: None, who: Who::User };

/// Both, and what is said of the first: each message, with its remedy. Nothing is said of the second.
#[track_caller]
fn trap(command: &dyn Fn(&Place) -> String, rest: &Rest<'_>, told: &[[&str; 2]]) -> Trap {
    let mut place = with_servers(rest.who);
    place.write("work/go", "");
    let (known, address) = (place.address(), place.address());
    let (site, work, root) = (place.path("site"), place.path("work"), place.root().display().to_string());
    for (name, server, address) in [(KNOWN, "auto", known), (BARE, "none", address)] {
        let listen = rest.listen.map_or(address.to_string(), |path| format!("{root}/{name}/{path}"));
        let text = format!(
            "command = {}\nserver = \"{server}\"\nstart = \"manual\"\n{}[service.environment]\nPYTHONPATH = \"{}\"\n\
             WORK = \"{}\"\n{}[restart]\npolicy = \"never\"\n[socket.http]\nlisten = \"{listen}\"\n",
            command(&place),
            rest.service,
            site.display(),
            work.display(),
            rest.variables,
        );
        place.unit(name, &text);
    }
    place.run();
    let service = place.service(KNOWN);
    let problems: Vec<[String; 2]> = service["problems"].as_array().unwrap().iter().map(message).collect();
    let named = rest.listen.map_or(known.to_string(), |path| format!("{root}/{KNOWN}/{path}"));
    let pid = place.path("work/pid").display().to_string();
    let whole = |text: &str| text.replace("ADDRESS", &named).replace("`PID`", &format!("`{pid}`"));
    let told: Vec<[String; 2]> = told.iter().map(|one| one.map(whole)).collect();
    assert_eq!(problems, told, "{service:#}");
    let refused = told.iter().any(|[what, _]| !what.starts_with("warning: "));
    assert_eq!(service["state"], if refused { "failed" } else { "stopped" }, "{service:#}");
    assert_eq!(place.service(BARE)["problems"], json!([]), "nothing is known of it");
    Trap { place, address, known }
}

/// Without the place in the unit, and without its line.
pub fn message(problem: &serde_json::Value) -> [String; 2] {
    let (first, rest) = problem.as_str().unwrap().split_once('\n').unwrap();
    let what = first.splitn(4, ':').nth(3).unwrap().trim_start().to_owned();
    [what, rest.split_once("\nhint: ").unwrap().1.to_owned()]
}

impl Trap {
    fn start(&self) {
        self.place.order(&["start", BARE]);
    }

    /// That it does not start, and says this.
    #[track_caller]
    fn fails_with(&self, words: &str) {
        let said = self.place.ask(&["start", BARE]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(words), "{said:?}");
    }

    /// That a client waits for nobody.
    #[track_caller]
    fn nobody_answers(&self) {
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = [0; 16];
        let said = std::io::Read::read(&mut stream, &mut answer);
        assert!(!matches!(said, Ok(1..)), "somebody answers: {answer:?}");
    }

    /// That a request which is under way when it is stopped gets no answer.
    #[track_caller]
    fn cuts_what_has_begun(&self) {
        self.cuts(BARE, self.address);
    }

    #[track_caller]
    fn cuts(&self, name: &str, address: SocketAddr) {
        self.place.order(&["start", name]);
        wait::until(wait::LONG, "an answer", || (get(address).contains(" 200")).then_some(()));
        let client = std::thread::spawn(move || ask(address, "/slow"));
        wait::until(wait::LONG, "a request to be under way", || exists(&self.place, "work/busy"));
        self.place.order(&["stop", name]);
        assert_eq!(client.join().unwrap(), "", "it had its answer");
    }

    /// That a new generation does not start beside the old one, which has an address of its own, and what is said.
    #[track_caller]
    fn has_a_rival(&self, listens_on: &str, reason: &str) {
        self.start();
        wait::until(wait::LONG, "an answer", || (get(self.address).contains(" 200")).then_some(()));
        let said = self.place.ask(&["restart", BARE]);
        assert_eq!(said.code, Some(1), "{said:?}");
        let first = said.err.lines().next().unwrap();
        let (first, pid) = first.split_once(" (process ").unwrap_or_else(|| panic!("{said:?}"));
        assert_eq!(
            first,
            format!(
                "bare: proving itself: {reason}; its own generation 1, which goes on, listens on {listens_on}"
            )
        );
        let pid =
            pid.strip_suffix("); the old generation goes on serving").unwrap_or_else(|| panic!("{said:?}"));
        let pid: u32 = pid.parse().unwrap();
        let main = self.place.pid_of(BARE);
        assert!(pid == main || processes::children(main).contains(&pid), "{said:?}");
        let hint = "hint: make it a `[socket.NAME]` of the unit, which all generations share; or have the old one end first: \
                    `supervise restart --stop-first bare`, or `[deploy] strategy = \"stop-first\"`";
        assert_eq!(said.err.lines().last(), Some(hint));
        assert!(get(self.address).contains(" 200"), "the old one goes on");
    }
}

fn gunicorn(arguments: &str) -> String {
    python_module("gunicorn", &format!("app:app --no-control-socket {arguments}"))
}

fn plain_uwsgi(place: &Place, arguments: &str) -> String {
    format!(
        "\"{} --master --wsgi-file app.py --protocol http {arguments}\"",
        place.path("site/bin/uwsgi").display()
    )
}

#[test]
fn user_gunicorn_with_reuse_port_answers_nobody() {
    let told = [
        "with `--reuse-port` the workers of gunicorn ignore the sockets that it is given, and clients wait for ever",
        "remove `--reuse-port`",
    ];
    let trap = trap(&|_| gunicorn("--reuse-port"), &NOTHING, &[told]);
    trap.start();
    wait::until(wait::LONG, "its worker", || exists(&trap.place, "work/importing"));
    trap.nobody_answers();
}

#[test]
fn root_gunicorn_in_the_background_is_gone() {
    let told = [
        "`--daemon` takes gunicorn out of supervise's hands: its first process ends at once",
        "remove `--daemon`: supervise runs it in the background",
    ];
    let trap = trap(&|_| gunicorn("--daemon"), &ESCAPES, &[told]);
    trap.fails_with(BACKGROUND);
}

#[test]
fn user_gunicorn_with_a_number_fails_with_a_bad_descriptor() {
    let told = [
        "gunicorn fails with `--bind fd://{fd:http}`, a bad file descriptor: it takes the sockets that it is given without \
         being told",
        "remove it: `[socket.NAME]` says where it listens",
    ];
    let trap = trap(&|_| gunicorn("--bind fd://{fd:http}"), &DIES, &[told]);
    trap.fails_with("OSError: [Errno 9] Bad file descriptor");
}

#[test]
fn user_gunicorn_behind_a_shell_removes_the_path_of_its_number() {
    let command = format!("exec_not=1; {} -m gunicorn app:app --no-control-socket --bind fd://3", python());
    let told = [
        [
            "warning: gunicorn removes `ADDRESS` when it ends, because of `--bind fd://`",
            "have it started without a program that stays in front of it, and remove `--bind`",
        ],
        [
            "warning: `sh -c` starts gunicorn as a process of its own, which does not find the sockets that are meant for the \
             first one (LISTEN_PID)",
            &format!("write `exec {}` in it, or the command without the shell", python()),
        ],
    ];
    // It has time to remove it, however slow that is.
    let service = "settle = \"0s\"\nstop-timeout = \"1min\"\n";
    let rest = Rest { service, listen: Some("http.sock"), ..NOTHING };
    let trap = trap(&|_| format!("[\"/bin/sh\", \"-c\", \"{command}\"]"), &rest, &told);
    trap.start();
    let path = trap.place.path("bare/http.sock");
    wait::until(wait::LONG, "its worker", || exists(&trap.place, "work/importing"));
    assert!(path.exists());
    trap.place.order(&["stop", "--hold", BARE]);
    assert!(!path.exists(), "it was not removed");
    let problems = trap.place.service(BARE)["problems"].clone();
    let said = format!(
        "{}: its file was removed or replaced: clients do not reach the service\nhint: `supervise restart bare` binds it \
         anew",
        path.display()
    );
    assert_eq!(problems, json!([said]));
}

#[test]
fn user_gunicorn_with_a_pid_file_does_not_start_beside_itself() {
    let told = [
        "warning: two generations of gunicorn cannot have one pid file, `PID`: the new one of a restart would not \
         start",
        "remove the option: nothing here needs a pid file",
    ];
    let command = |place: &Place| gunicorn(&format!("--pid {}", place.path("work/pid").display()));
    let trap = trap(&command, &LONGER, &[told]);
    trap.start();
    wait::until(wait::LONG, "an answer", || get(trap.address).contains(" 200").then_some(()));
    let main = trap.place.pid_of(BARE);
    let said = trap.place.ask(&["restart", BARE]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let pid = trap.place.path("work/pid");
    let why = format!("Error: Already running on PID {main} (or pid file '{}' is stale)", pid.display());
    assert!(said.err.contains(&why), "{said:?}");
    assert_eq!(get(trap.address), "HTTP/1.1 200 OK", "the old one goes on");
}

/// Where each binds its control socket is the same place.
#[test]
fn user_gunicorn_takes_its_control_socket_from_its_old_generation_without_harm() {
    let command = |place: &Place| {
        let socket = place.path("work/control.sock");
        python_module("gunicorn", &format!("app:app --control-socket {}", socket.display()))
    };
    let trap = trap(&command, &NOTHING, &[]);
    trap.start();
    let control = trap.place.path("work/control.sock");
    wait::until(wait::LONG, "its control socket", || exists(&trap.place, "work/control.sock"));
    trap.place.order(&["restart", BARE]);
    wait::until(wait::LONG, "the old one to be gone", || {
        (trap.place.service(BARE)["instances"].as_array()?.len() == 1).then_some(())
    });
    assert_eq!(get(trap.address), "HTTP/1.1 200 OK");
    wait::until(wait::LONG, "the new one's control socket", || {
        std::os::unix::net::UnixStream::connect(&control).ok()
    });
}

#[test]
fn user_gunicorn_says_that_it_is_ready_before_its_application_is_loaded() {
    let told = [
        "warning: gunicorn says READY=1 before its workers have loaded the application",
        "remove `ready`: its first answer is waited for then; or add `--preload`",
    ];
    let rest = Rest { service: "settle = \"0s\"\nready = \"notify\"\n", ..NOTHING };
    let trap = trap(&|_| gunicorn(""), &rest, &[told]);
    std::fs::remove_file(trap.place.path("work/go")).unwrap();
    trap.start();
    assert_eq!(trap.place.service(BARE)["state"], "running", "and nothing is imported");
    trap.nobody_answers();
}

#[test]
fn user_gunicorn_on_both_protocols_sees_addresses_that_no_proxy_has() {
    let mut place = with_servers(Who::User);
    let app = "def app(environ, start_response):\n    text = environ['REMOTE_ADDR'].encode()\n    \
               start_response('200 OK', [('X-Peer', environ['REMOTE_ADDR'])])\n    return [text]\n";
    place.write("srv/peer.py", app);
    let port = free_port();
    let command = python_module("gunicorn", "peer:app --no-control-socket");
    super::servers::serve(&place, &command, &super::servers::socket(format!(":{port}")));
    place.run();
    let problems = place.service("web")["problems"].clone();
    let told = [
        format!(
            "warning: gunicorn sees IPv4 clients of `:{port}` as `::ffff:…`, and believes no proxy among them"
        ),
        format!("write `0.0.0.0:{port}`, and `[::]:{port}` in a second socket"),
    ];
    assert_eq!(problems.as_array().unwrap().iter().map(message).collect::<Vec<_>>(), [told]);
    place.order(&["start", "web"]);
    let whole = super::servers::answer(SocketAddr::from(([127, 0, 0, 1], port)), "/");
    assert!(whole.contains("\r\nX-Peer: ::ffff:127.0.0.1\r\n"), "{whole}");
}

#[test]
fn root_options_in_the_environment_are_options() {
    let told = [
        "`GUNICORN_CMD_ARGS`: `--daemon` takes gunicorn out of supervise's hands: its first process ends at once",
        "remove `--daemon`: supervise runs it in the background",
    ];
    let rest = Rest { variables: "GUNICORN_CMD_ARGS = \"--daemon\"\n", ..ESCAPES };
    trap(&|_| gunicorn(""), &rest, &[told]).fails_with(BACKGROUND);
    let told = [
        "`UWSGI_DAEMONIZE`: `--daemonize` takes uWSGI out of supervise's hands: its first process ends at once",
        "remove `--daemonize`: supervise runs it in the background",
    ];
    let rest = Rest { variables: "UWSGI_DAEMONIZE = \"/dev/null\"\n", ..ESCAPES };
    let command = |place: &Place| uwsgi(place, "--wsgi-file app.py --protocol http");
    trap(&command, &rest, &[told]).fails_with(BACKGROUND);
    let told = [
        "`UVICORN_FD`: uvicorn fails with `--fd 1`, which is no socket: those of the unit begin at 3",
        "write `--fd {fd:http}`",
    ];
    let rest = Rest { variables: "UVICORN_FD = \"1\"\n", ..ESCAPES };
    let trap = trap(&|_| python_module("uvicorn", "app:asgi"), &rest, &[told]);
    trap.fails_with("OSError: [Errno 88] Socket operation on non-socket");
}

#[test]
fn user_uwsgi_without_need_app_looks_ready_when_its_application_is_broken() {
    let told = [
        "warning: without `--need-app` uWSGI serves errors where the application could not be loaded, and looks ready",
        "add `--need-app`",
    ];
    let command = |place: &Place| plain_uwsgi(place, "--exit-on-reload").replace("app.py", "broken.py");
    let trap = trap(&command, &NOTHING, &[told]);
    trap.start();
    assert!(get(trap.address).contains(" 500 "), "{}", get(trap.address));
}

#[test]
fn user_uwsgi_that_dies_on_term_cuts_what_has_begun() {
    let told = [
        "warning: with `--die-on-term` uWSGI cuts the requests in flight when it is stopped",
        "replace it by `--hook-master-start`, `unix_signal:15 gracefully_kill_them_all`, which finishes them",
    ];
    trap(&|place| plain_uwsgi(place, "--need-app --die-on-term"), &NOTHING, &[told]).cuts_what_has_begun();
}

/// Which is how it is stopped where nothing else is known.
#[test]
fn user_uwsgi_that_is_stopped_by_int_cuts_what_has_begun() {
    let told = [
        "warning: uWSGI is stopped by INT, which cuts the requests in flight",
        "add `--hook-master-start`, `unix_signal:15 gracefully_kill_them_all`: it is then stopped by TERM, which finishes them",
    ];
    let trap = trap(&|place| plain_uwsgi(place, "--need-app"), &NOTHING, &[told]);
    trap.cuts(KNOWN, trap.known);
}

#[test]
fn root_uwsgi_in_the_background_is_gone() {
    let told = [
        "`--daemonize` takes uWSGI out of supervise's hands: its first process ends at once",
        "remove `--daemonize`: supervise runs it in the background",
    ];
    let command = |place: &Place| uwsgi(place, "--wsgi-file app.py --protocol http --daemonize /dev/null");
    trap(&command, &ESCAPES, &[told]).fails_with(BACKGROUND);
}

#[test]
fn user_uwsgi_writes_its_pid_file_anew_and_nothing_is_said_of_that() {
    let command = |place: &Place| {
        let pid = place.path("work/pid");
        uwsgi(place, &format!("--wsgi-file app.py --protocol http --pidfile {}", pid.display()))
    };
    let trap = trap(&command, &NOTHING, &[]);
    trap.start();
    trap.place.order(&["restart", BARE]);
    let main = trap.place.pid_of(BARE).to_string();
    wait::until(wait::LONG, "its pid file", || {
        let written = std::fs::read_to_string(trap.place.path("work/pid")).unwrap_or_default();
        (written.trim() == main).then_some(())
    });
}

#[test]
fn user_uwsgi_cannot_have_its_stats_port_twice() {
    let stats = format!("127.0.0.1:{}", free_port());
    let told = [
        &format!(
            "warning: two generations of uWSGI cannot have one stats server, `{stats}`: the new one of a restart would end"
        ),
        "write a path after `--stats`, which the new one takes over",
    ];
    let command =
        |place: &Place| uwsgi(place, &format!("--wsgi-file app.py --protocol http --stats {stats}"));
    let trap = trap(&command, &LONGER, &[told]);
    trap.has_a_rival(&stats, "exit status 1");
}

#[test]
fn user_uwsgi_takes_its_stats_path_over_and_nothing_is_said_of_that() {
    let command = |place: &Place| {
        let path = place.path("work/stats");
        uwsgi(place, &format!("--wsgi-file app.py --protocol http --stats {}", path.display()))
    };
    let trap = trap(&command, &NOTHING, &[]);
    trap.start();
    trap.place.order(&["restart", BARE]);
    let mut stats = wait::until(wait::LONG, "its stats", || {
        std::os::unix::net::UnixStream::connect(trap.place.path("work/stats")).ok()
    });
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stats, &mut text).unwrap();
    assert!(text.contains("\"version\":\"2.0.31\""), "{text}");
}

#[test]
fn user_the_vassals_of_an_emperor_have_none_of_its_sockets() {
    let told = [
        "`--emperor` hands none of its sockets to its vassals: nobody would answer on `ADDRESS`",
        "write a unit for each vassal, with its own sockets",
    ];
    let command = |place: &Place| {
        let vassals = place.path("srv/vassals");
        std::fs::create_dir_all(&vassals).unwrap();
        let here = place.path("srv");
        let vassal = format!("[uwsgi]\nchdir = {}\nwsgi-file = app.py\nmaster = true\n", here.display());
        std::fs::write(vassals.join("web.ini"), vassal).unwrap();
        format!("\"{} --emperor {}\"", place.path("site/bin/uwsgi").display(), vassals.display())
    };
    // By default TERM has it start anew.
    let rest = Rest { service: "settle = \"0s\"\nstop-signal = \"INT\"\n", ..NOTHING };
    let trap = trap(&command, &rest, &[told]);
    trap.start();
    wait::until(wait::LONG, "the emperor to begin a vassal", || {
        let log = super::cri::lines(&trap.place.log(), BARE);
        log.iter().any(|line| line.text.contains("getting INI configuration from web.ini")).then_some(())
    });
    trap.nobody_answers();
}

#[test]
fn user_uvicorn_that_loads_anew_does_not_wait_until_it_works() {
    let told = [
        "warning: `--reload` has uvicorn start its application anew when a file changes, without waiting until it works",
        "remove `--reload`: `supervise restart` starts the new one beside the old one",
    ];
    let trap = trap(&|_| python_module("uvicorn", "app:asgi --fd {fd:http} --reload"), &NOTHING, &[told]);
    trap.start();
    wait::until(wait::LONG, "an answer", || get(trap.address).contains(" 200").then_some(()));
    wait::until(wait::LONG, "the broken one to be imported", || {
        // It takes no notice of what has changed before its first look.
        trap.place.write("srv/app.py", "import nothing_of_that_name\n");
        let log = super::cri::lines(&trap.place.log(), BARE);
        log.iter().any(|line| line.text.contains("No module named 'nothing_of_that_name'")).then_some(())
    });
    trap.nobody_answers();
}

#[test]
fn user_uvicorn_with_the_number_of_no_socket_fails() {
    let told = [
        "uvicorn fails with `--fd 0`, which is no socket: those of the unit begin at 3",
        "write `--fd {fd:http}`",
    ];
    let trap = trap(&|_| python_module("uvicorn", "app:asgi --fd 0 --workers 2"), &DIES, &[told]);
    trap.fails_with("OSError: [Errno 88] Socket operation on non-socket");
}

#[test]
fn user_uvicorn_with_a_number_listens_nowhere_else() {
    let told = [
        "warning: uvicorn ignores `--uds` where it has `--fd`",
        "remove it: `[socket.NAME]` says where it listens",
    ];
    let command = |place: &Place| {
        let path = place.path("work/own.sock");
        python_module("uvicorn", &format!("app:asgi --fd {{fd:http}} --uds {}", path.display()))
    };
    let trap = trap(&command, &NOTHING, &[told]);
    trap.start();
    wait::until(wait::LONG, "an answer", || get(trap.address).contains(" 200").then_some(()));
    assert!(!trap.place.path("work/own.sock").exists());
}

#[test]
fn user_uvicorn_without_a_number_listens_somewhere_else() {
    let told = [
        "uvicorn takes a socket only by its number: nobody would answer on `ADDRESS`",
        "add `--fd {fd:http}`",
    ];
    let command = |place: &Place| {
        let path = place.path("work/own.sock");
        python_module("uvicorn", &format!("app:asgi --uds {}", path.display()))
    };
    let trap = trap(&command, &NOTHING, &[told]);
    trap.start();
    wait::until(wait::LONG, "its own socket", || exists(&trap.place, "work/own.sock"));
    trap.nobody_answers();
}

#[test]
fn user_hypercorn_with_two_workers_cuts_what_has_begun() {
    let told = [
        "warning: hypercorn with more than one worker cuts the requests in flight when it is stopped",
        "write `instances = 2` and let each of them have one worker",
    ];
    let command = |_: &Place| python_module("hypercorn", "app:asgi --bind fd://{fd:http} -w 2");
    trap(&command, &NOTHING, &[told]).cuts_what_has_begun();
}

#[test]
fn user_hypercorn_cannot_have_an_address_of_its_own_twice() {
    let own = format!("127.0.0.1:{}", free_port());
    let told = [
        &format!(
            "warning: hypercorn listens on `{own}` by itself (`--bind`): nobody holds that for it, and a second \
             generation cannot start beside the first"
        ),
        "write the address into `[socket.NAME]`, and `--bind fd://{fd:NAME}`",
    ];
    let command =
        |_: &Place| python_module("hypercorn", &format!("app:asgi --bind fd://{{fd:http}} --bind {own}"));
    trap(&command, &LONGER, &[told]).has_a_rival(&own, "exit status 1");
}

#[test]
fn user_daphne_cuts_what_has_begun() {
    let told = [
        "warning: daphne cuts the requests in flight whenever it is stopped",
        "uvicorn and hypercorn serve the same application, and finish them",
    ];
    trap(&|_| python_module("daphne", "--fd {fd:http} app:asgi"), &NOTHING, &[told]).cuts_what_has_begun();
}
