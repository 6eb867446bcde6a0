//! A server is ready when it answers, and not before: the real ones, with an application that takes its time to be
//! imported. What is wrong with one is said by its name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::gunicorn::python;
use super::place::{Place, Who};
use super::supervisor::{Role, Said};
use super::{pypi, wait};

/// Imports until it may go on; then both a WSGI and an ASGI application.
pub const APP: &str = r#"
import asyncio, os, time

WORK = os.environ["WORK"]
open(WORK + "/importing", "w").close()
while not os.path.exists(WORK + "/go"):
    time.sleep(0.02)

def status():
    # Of this generation, or of all.
    for name in ("/status." + os.environ["SUPERVISE_GENERATION"], "/status"):
        try:
            return open(WORK + name).read().strip()
        except OSError:
            pass
    return "200 OK"

def busy():
    open(WORK + "/busy", "w").close()
    return os.path.exists(WORK + "/finish")

def app(environ, start_response):
    while environ["PATH_INFO"] == "/slow" and not busy():
        time.sleep(0.02)
    start_response(status(), [("Content-Length", "3")])
    return [b"hi\n"]

application = app

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    while scope["path"] == "/slow" and not busy():
        await asyncio.sleep(0.02)
    await send({"type": "http.response.start", "status": int(status().split()[0]), "headers": []})
    await send({"type": "http.response.body", "body": b"hi\n"})
"#;

pub fn with_servers(who: Who) -> Place {
    let place = Place::new(who);
    pypi::install_all(&place.path("site"));
    place.write("srv/app.py", APP);
    place.write("srv/broken.py", "import nothing_of_that_name\n");
    place
}

/// A unit of this command, started by hand, that lives no longer than it has to.
pub fn serve(place: &Place, command: &str, rest: &str) {
    let (site, work) = (place.path("site"), place.path("work"));
    let environment =
        format!("environment = {{ PYTHONPATH = \"{}\", WORK = \"{}\" }}", site.display(), work.display());
    place.unit(
        "web",
        &format!("command = {command}\n{environment}\nsettle = \"0s\"\nstart = \"manual\"\n{rest}"),
    );
}

pub fn python_module(module: &str, arguments: &str) -> String {
    format!("\"{} -m {module} {arguments}\"", python())
}

pub fn uwsgi(place: &Place, arguments: &str) -> String {
    let hook = "--hook-master-start 'unix_signal:15 gracefully_kill_them_all'";
    format!("\"{} --master --need-app {hook} {arguments}\"", place.path("site/bin/uwsgi").display())
}

pub fn socket(address: impl std::fmt::Display) -> String {
    format!("[socket.http]\nlisten = \"{address}\"\n")
}

/// What an HTTP server says; the first line.
pub fn get(address: SocketAddr) -> String {
    ask(address, "/")
}

pub fn ask(address: SocketAddr, path: &str) -> String {
    answer(address, path).lines().next().unwrap_or_default().to_owned()
}

/// All of what it says.
pub fn answer(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(wait::LONG)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

/// Starts it, sees that it is not ready while its application is imported, and that it is once it answers.
#[track_caller]
fn is_ready_when_it_answers(place: &mut Place, gate: &str) {
    place.run();
    let start = place.begin(&["start", "web"]);
    wait::until(wait::LONG, "the application to be imported", || exists(place, "work/importing"));
    let web = place.service("web");
    assert_eq!((web["state"].as_str(), web["gate"].as_str()), (Some("starting"), Some(gate)), "{web:#}");
    place.write("work/go", "");
    let said: Said = start.wait();
    assert_eq!(said.code, Some(0), "{said:?}\n{}", place.stderr());
    let web = place.service("web");
    assert_eq!(web["state"], "running", "{web:#}");
    // What `check` warns of was no secret before.
    let problems = web["problems"].as_array().unwrap().iter();
    let found: Vec<_> = problems.filter(|one| !one.as_str().unwrap().contains(": warning: ")).collect();
    assert!(found.is_empty(), "{web:#}");
}

pub fn exists(place: &Place, name: &str) -> Option<()> {
    place.path(name).exists().then_some(())
}

const PRIVATE: &str = "private probe: its first answer, then alive for 0s";
const LISTENS: &str = "listener test: it waits for connections, then alive for 0s";

#[test]
fn root_gunicorn_is_ready_at_its_first_answer() {
    let mut place = with_servers(Who::Root);
    let address = place.address();
    serve(&place, &python_module("gunicorn", "app:app --no-control-socket"), &socket(address));
    is_ready_when_it_answers(&mut place, PRIVATE);
    assert_eq!(get(address), "HTTP/1.1 200 OK");
    // Its private socket is its user's alone, and goes with it.
    let sockets = || std::fs::read_dir(place.path("run/probe")).unwrap().count();
    assert_eq!(sockets(), 1);
    place.order(&["stop", "web"]);
    assert_eq!(sockets(), 0);
}

#[test]
fn user_gunicorn_with_threads_is_ready_at_its_first_answer_whatever_that_is() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    place.write("work/status", "500 No");
    let command = python_module("gunicorn", "app:app --no-control-socket -k gthread --threads 2 -w 2");
    serve(&place, &command, &socket(address));
    is_ready_when_it_answers(&mut place, PRIVATE);
    assert_eq!(get(address), "HTTP/1.1 500 No");
}

#[test]
fn root_uwsgi_is_asked_in_its_own_protocol() {
    let mut place = with_servers(Who::Root);
    let path = place.path("uwsgi.sock");
    serve(&place, &uwsgi(&place, "--wsgi-file app.py"), &socket(path.display()));
    is_ready_when_it_answers(&mut place, PRIVATE);
}

#[test]
fn user_uwsgi_over_http_is_ready_at_its_first_answer() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    serve(&place, &uwsgi(&place, "--wsgi-file app.py --protocol http"), &socket(address));
    is_ready_when_it_answers(&mut place, PRIVATE);
    assert_eq!(get(address), "HTTP/1.1 200 OK");
}

#[test]
fn user_uwsgi_with_a_file_is_asked_in_both_ways() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    place.write(
        "srv/web.ini",
        "[uwsgi]\nmaster = true\nneed-app = true\nwsgi-file = app.py\nprotocol = http\n",
    );
    serve(&place, &format!("\"{} web.ini\"", place.path("site/bin/uwsgi").display()), &socket(address));
    is_ready_when_it_answers(&mut place, PRIVATE);
    assert_eq!(get(address), "HTTP/1.1 200 OK");
}

#[test]
fn user_uvicorn_is_ready_when_it_waits_for_connections() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    serve(&place, &python_module("uvicorn", "app:asgi --fd {fd:http}"), &socket(address));
    is_ready_when_it_answers(&mut place, LISTENS);
    assert_eq!(get(address), "HTTP/1.1 200 OK");
}

#[test]
fn root_uvicorn_with_two_workers_is_ready_when_one_of_them_waits() {
    let mut place = with_servers(Who::Root);
    let address = place.address();
    serve(&place, &python_module("uvicorn", "app:asgi --fd {fd:http} --workers 2"), &socket(address));
    is_ready_when_it_answers(&mut place, LISTENS);
    assert_eq!(get(address), "HTTP/1.1 200 OK");
}

#[test]
fn user_hypercorn_is_ready_when_it_waits_for_connections() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    serve(&place, &python_module("hypercorn", "app:asgi --bind fd://{fd:http}"), &socket(address));
    is_ready_when_it_answers(&mut place, LISTENS);
    assert!(get(address).contains(" 200 "));
}

#[test]
fn user_daphne_is_ready_when_it_waits_for_connections() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    serve(&place, &python_module("daphne", "--fd {fd:http} app:asgi"), &socket(address));
    is_ready_when_it_answers(&mut place, LISTENS);
    assert!(get(address).contains(" 200 "));
}

#[test]
fn user_a_probe_that_waits_goes_on_after_the_death_of_the_manager() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    serve(&place, &python_module("gunicorn", "app:app --no-control-socket"), &socket(address));
    place.run();
    let start = place.begin(&["start", "web"]);
    wait::until(wait::LONG, "the application to be imported", || exists(&place, "work/importing"));
    place.kill(Role::Manager);
    assert_eq!(place.reaches("web", "starting")["gate"], PRIVATE);
    place.write("work/go", "");
    assert_eq!(start.wait().code, Some(0));
    assert_eq!(get(address), "HTTP/1.1 200 OK");
}

#[test]
fn user_an_application_that_is_broken_fails_the_start_in_plain_words() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    let rest = format!("[restart]\npolicy = \"never\"\n{}", socket(address));
    serve(&place, &python_module("gunicorn", "broken:app --no-control-socket"), &rest);
    place.run();
    let said = place.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let meaning = "exit status 3: a worker of gunicorn could not boot: the application failed while it was imported; \
                   the traceback is in its last lines";
    assert!(said.err.contains(meaning), "{said:?}");
    assert_eq!(place.service("web")["exit"]["meaning"], meaning);
}

#[test]
fn user_an_application_that_is_broken_is_not_tried_again_and_again() {
    let mut place = with_servers(Who::User);
    let rest = format!("[restart]\ndelay = \"1s\"\nmax-delay = \"1h\"\n{}", socket(place.address()));
    serve(&place, &python_module("gunicorn", "broken:app --no-control-socket"), &rest);
    place.run();
    let said = place.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let web = place.service("web");
    assert_eq!(web["state"], "backing-off", "{web:#}");
    let at = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let wait = at(&web["next_start"]).duration_since(at(&web["ends"][0]["at"]));
    // From the moment at which all of it was gone, which is later than that of the end.
    assert!((3_599..3_660).contains(&wait.as_secs()), "{web:#}");
}

#[test]
fn user_a_wrong_option_is_not_tried_again_and_again() {
    let mut place = with_servers(Who::User);
    let modules = [
        ("gunicorn", ""),
        ("uvicorn", "--fd {fd:http}"),
        ("hypercorn", "--bind fd://{fd:http}"),
        ("daphne", "--fd {fd:http}"),
    ];
    let site = place.path("site");
    for (module, listen) in modules {
        let command = python_module(module, &format!("--nonsense {listen} app:app"));
        let environment = format!("environment = {{ PYTHONPATH = \"{}\" }}", site.display());
        let restart = "[restart]\ndelay = \"1s\"\nmax-delay = \"1h\"\n";
        let socket = socket(place.address());
        place.unit(
            module,
            &format!("command = {command}\nserver = \"{module}\"\n{environment}\n{restart}{socket}"),
        );
    }
    place.run();
    for (module, _) in modules {
        let service = place.reaches(module, "backing-off");
        let meaning =
            "exit status 2: a wrong option, or a value that it does not take; its last lines say which";
        assert_eq!(service["exit"]["meaning"], meaning, "{service:#}");
        let at = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let wait = at(&service["next_start"]).duration_since(at(&service["ends"][0]["at"]));
        assert!((3_599..3_660).contains(&wait.as_secs()), "{service:#}");
    }
}

#[test]
fn user_uvicorn_that_somebody_else_has_ended_has_ended_well() {
    let mut place = with_servers(Who::User);
    place.write("work/go", "");
    let rest = format!("[restart]\npolicy = \"on-failure\"\n{}", socket(place.address()));
    serve(&place, &python_module("uvicorn", "app:asgi --fd {fd:http}"), &rest);
    place.run();
    place.order(&["start", "web"]);
    super::processes::signal(place.pid_of("web"), 15);
    let web = place.reaches("web", "done");
    assert_eq!(web["exit"]["signal"], "TERM", "{web:#}");
    let meaning = "ended by SIGTERM: uvicorn stopped cleanly: it ends itself by the signal that asked it to";
    assert_eq!(web["exit"]["meaning"], meaning);
}

/// A port that the application binds by itself, once for each generation.
#[track_caller]
fn its_own_old_one_is_named(who: Who) {
    let mut place = with_servers(who);
    let (address, metrics) = (place.address(), place.high_address()); // which its account may bind
    place.write("work/go", "");
    let at = (metrics.ip(), metrics.port());
    let bind = format!("import socket\nmetrics = socket.create_server((\"{}\", {}))\n", at.0, at.1);
    place.write("srv/measured.py", &format!("{bind}from app import app\n"));
    serve(&place, &python_module("gunicorn", "measured:app --no-control-socket"), &socket(address));
    place.run();
    place.order(&["start", "web"]);
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let words = format!("its own generation 1, which goes on, listens on {metrics} (process ");
    let holder = said.err.split(&words).nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
    let workers = super::processes::children(place.pid_of("web"));
    assert!(holder.is_some_and(|pid: u32| workers.contains(&pid)), "{workers:?}: {said:?}");
    let hint = "hint: make it a `[socket.NAME]` of the unit, which all generations share; or have the old one end first: \
                `supervise restart --stop-first web`, or `[deploy] strategy = \"stop-first\"`";
    assert!(said.err.contains(&words) && said.err.contains(hint), "{said:?}");
    let why = place.ask(&["why", "web"]);
    assert!(why.out.contains(&words) && why.out.contains(hint), "{why:?}");
    assert_eq!(get(address), "HTTP/1.1 200 OK", "the old one goes on");
    // And the remedy is one.
    place.order(&["restart", "--stop-first", "web"]);
    let why = place.ask(&["why", "web"]);
    assert!(!why.out.contains("which goes on"), "{why:?}");
}

#[test]
fn root_a_port_that_the_old_one_has_is_named() {
    its_own_old_one_is_named(Who::Root);
}

#[test]
fn user_a_port_that_the_old_one_has_is_named() {
    its_own_old_one_is_named(Who::User);
}

/// The same of a path: the private listener of the old one, which has one too, is not named.
#[test]
fn user_a_path_that_the_old_one_has_is_named() {
    let mut place = with_servers(Who::User);
    let (address, path) = (place.address(), place.path("work/metrics.sock"));
    place.write("work/go", "");
    // Nobody says which path it is.
    let bind = "import os, socket\nmetrics = socket.socket(socket.AF_UNIX)\n\
                metrics.bind(os.environ['WORK'] + '/metrics.sock')\nmetrics.listen()\n";
    place.write("srv/measured.py", &format!("{bind}from app import app\n"));
    serve(&place, &python_module("gunicorn", "measured:app --no-control-socket"), &socket(address));
    place.run();
    place.order(&["start", "web"]);
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let worker = super::processes::children(place.pid_of("web"))[0];
    let first = format!(
        "web: proving itself: exit status 3: a worker of gunicorn could not boot: the application failed while it was \
         imported; the traceback is in its last lines; its own generation 1, which goes on, listens on {} (process {worker}); the \
         old generation goes on serving",
        path.display()
    );
    assert_eq!(said.err.lines().next(), Some(first.as_str()), "{said:?}");
}

/// One that says itself when it is ready, as the table knows, and is given five minutes to write its data.
#[test]
fn root_redis_says_when_it_is_ready_and_writes_its_data_before_it_ends() {
    let mut place = with_servers(Who::Root);
    let work = place.path("work");
    let options = "--port 0 --unixsocket redis.sock --supervised systemd --save 900 1 --appendonly no";
    let command = format!("\"/usr/bin/redis-server {options} --dir {}\"", work.display());
    serve(&place, &command, "[restart]\npolicy = \"on-failure\"\n");
    place.run();
    place.order(&["start", "web"]);
    assert_eq!(place.service("web")["gate"], "notify: READY=1, then alive for 0s");
    let mut stream = std::os::unix::net::UnixStream::connect(work.join("redis.sock")).unwrap();
    stream.set_read_timeout(Some(wait::LONG)).unwrap();
    stream.write_all(b"SET a b\r\n").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");
    place.order(&["stop", "web"]);
    assert!(work.join("dump.rdb").exists(), "it had no time to write its data");
    assert_eq!(place.service("web")["exit"]["code"], 0);
}

/// A request that is under way when the service is stopped gets its answer.
#[track_caller]
fn finishes_what_has_begun(command: &dyn Fn(&Place) -> String) {
    let mut place = with_servers(Who::User);
    let address = place.address();
    place.write("work/go", "");
    serve(&place, &command(&place), &format!("stop-timeout = \"1min\"\n{}", socket(address)));
    place.run();
    place.order(&["start", "web"]);
    let client = std::thread::spawn(move || ask(address, "/slow"));
    wait::until(wait::LONG, "a request to be under way", || exists(&place, "work/busy"));
    let stop = place.begin(&["stop", "web"]);
    place.reaches("web", "stopping");
    place.write("work/finish", "");
    assert!(client.join().unwrap().contains(" 200"), "{}", place.stderr());
    assert_eq!(stop.wait().code, Some(0));
}

#[test]
fn user_gunicorn_finishes_what_has_begun() {
    finishes_what_has_begun(&|_| python_module("gunicorn", "app:app --no-control-socket"));
}

#[test]
fn user_uwsgi_finishes_what_has_begun() {
    finishes_what_has_begun(&|place| uwsgi(place, "--wsgi-file app.py --protocol http"));
}

#[test]
fn user_uvicorn_finishes_what_has_begun() {
    finishes_what_has_begun(&|_| python_module("uvicorn", "app:asgi --fd {fd:http}"));
}
