//! What works off a queue, and servers that take no socket: how the real ones end, and what is said when they do not begin.

use std::process::Command;

use serde_json::json;

use super::gunicorn::python;
use super::place::{Place, Who};
use super::servers::{APP, ask, exists, get, python_module, serve};
use super::{cri, processes, pypi, wait};

/// A task that goes on until it may end, and one that the clock begins.
const TASKS: &str = r#"
import os, time
from celery import Celery

app = Celery("bagels", broker=os.environ.get("BROKER"))
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule = {"tick": {"task": "bagels.tick", "schedule": 0.2}}

@app.task
def bake():
    open(os.environ["WORK"] + "/begun", "w").close()
    while not os.path.exists(os.environ["WORK"] + "/finish"):
        time.sleep(0.02)
    open(os.environ["WORK"] + "/done", "w").close()

@app.task
def tick():
    open(os.environ["WORK"] + "/tick", "w").close()
"#;

fn with_others(who: Who) -> Place {
    let place = Place::new(who);
    pypi::install_others(&place.path("site"));
    place.write("srv/app.py", APP);
    place.write("srv/broken.py", "import nothing_of_that_name\n");
    place.write("srv/bagels.py", TASKS);
    place.write("work/go", "");
    place
}

/// A queue, who works it off, and the clock that fills it; all of them started.
fn bakery() -> Place {
    let mut place = with_others(Who::User);
    let (site, work) = (place.path("site"), place.path("work"));
    let redis = format!(
        "command = \"/usr/bin/redis-server --port 0 --unixsocket {0}/queue --dir {0} --daemonize no\"\n",
        work.display()
    );
    place.unit("redis", &redis);
    let environment = format!(
        "environment = {{ PYTHONPATH = \"{}\", WORK = \"{1}\", BROKER = \"redis+socket://{1}/queue\" }}\n",
        site.display(),
        work.display()
    );
    let celery = |part: &str| {
        let command = python_module("celery", &format!("--app bagels {part}"));
        format!("command = {command}\n{environment}settle = \"0s\"\nstart = \"manual\"\n")
    };
    place.unit("worker", &celery("worker --loglevel INFO --concurrency 1"));
    place.unit("beat", &celery(&format!("beat --schedule {}/schedule", work.display())));
    place.run();
    wait::until(wait::LONG, "the queue", || exists(&place, "work/queue"));
    place.order(&["start", "worker", "beat"]);
    place
}

fn put_into_queue(place: &Place) {
    let mut command = Command::new(python());
    command.args(["-c", "import bagels; bagels.bake.delay()"]).current_dir(place.path("srv"));
    let queue = format!("redis+socket://{}", place.path("work/queue").display());
    let said = command.env("PYTHONPATH", place.path("site")).env("BROKER", queue).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn user_a_worker_of_celery_finishes_its_task_before_another_takes_its_place() {
    let place = bakery();
    for name in ["worker", "beat"] {
        let service = place.service(name);
        assert_eq!(service["problems"], json!([]), "{service:#}");
        assert_eq!(service["gate"], "settle only: alive for 0s (not proven)");
    }
    wait::until(wait::LONG, "the clock's task to be worked off", || exists(&place, "work/tick"));
    put_into_queue(&place);
    wait::until(wait::LONG, "the task to be under way", || exists(&place, "work/begun"));
    let old = place.pid_of("worker");
    let restart = place.begin(&["restart", "worker"]);
    place.reaches("worker", "stopping");
    wait::until(wait::LONG, "the worker to have heard it", || {
        let log = cri::lines(&place.log(), "worker");
        log.iter().any(|line| line.text.contains("Warm shutdown")).then_some(())
    });
    assert_eq!(place.pid_of("worker"), old, "no other begins before it has ended");
    place.write("work/finish", "");
    let said = restart.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(place.path("work/done").exists(), "the task was lost");
    assert_ne!(place.pid_of("worker"), old);
    let ends = place.service("worker")["ends"].clone();
    assert_eq!((&ends[0]["step"], &ends[0]["reason"]), (&json!("running"), &json!("success")), "{ends:#}");
    // The clock ends well too.
    place.order(&["stop", "beat"]);
    assert_eq!(place.service("beat")["exit"]["meaning"], "success");
    let shown = place.order(&["show", "worker"]).out;
    assert!(shown.contains("stop-timeout = \"5min\""), "{shown}");
}

#[test]
fn root_a_clock_of_celery_that_may_not_write_says_so() {
    let mut place = with_others(Who::Root);
    serve(&place, &python_module("celery", "--app bagels beat"), "[restart]\npolicy = \"never\"\n");
    place.run();
    let problems = place.service("web")["problems"].clone();
    let told = [[
        "warning: celery beat writes `celerybeat-schedule` into its directory, and ends where it may not"
            .to_owned(),
        "write `state-directory = \"NAME\"`, and `--schedule {state-directory}/schedule`".to_owned(),
    ]];
    let problems: Vec<_> = problems.as_array().unwrap().iter().map(super::traps::message).collect();
    assert_eq!(problems, told);
    place.order(&["start", "web"]);
    let web = place.reaches("web", "failed");
    assert_eq!(web["exit"]["code"], 1, "{web:#}");
    let log = cri::lines(&place.log(), "web");
    assert!(log.iter().any(|line| line.text.contains("Permission denied: 'celerybeat-schedule'")));
}

#[test]
fn root_redis_whose_file_sends_it_into_the_background_is_gone() {
    let mut place = Place::new(Who::Root);
    // With nowhere to listen it would be gone before anybody could see that it had left another behind.
    let socket = place.path("work/redis.sock");
    place.write(
        "srv/redis.conf",
        &format!("port 0\nunixsocket {}\ndaemonize yes\ndir /tmp\nsave \"\"\n", socket.display()),
    );
    let command = format!("\"/usr/bin/redis-server {}\"", place.path("srv/redis.conf").display());
    place.unit(
        "web",
        &format!(
            "command = {command}\nsettle = \"50s\"\nstart = \"manual\"\n[restart]\npolicy = \"never\"\n"
        ),
    );
    place.run();
    let problems = place.service("web")["problems"].clone();
    let told = [[
        format!(
            "warning: where `{}` says `daemonize yes`, as that of many distributions does, redis leaves supervise's hands: its \
             first process ends at once",
            place.path("srv/redis.conf").display()
        ),
        "add `--daemonize no`, which wins over the file".to_owned(),
    ]];
    let problems: Vec<_> = problems.as_array().unwrap().iter().map(super::traps::message).collect();
    assert_eq!(problems, told);
    let said = place.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let first = said.err.lines().next();
    let expected = "web: proving itself: exit status 0: it went into the background: other processes of it went on and were \
                    ended; write `daemonize no` into its configuration file";
    assert_eq!(first, Some(expected), "{said:?}");
}

/// A request that is under way when the service is stopped gets its answer.
#[track_caller]
fn finishes_what_has_begun(command: &dyn Fn(std::net::SocketAddr) -> String) {
    let mut place = with_others(Who::User);
    let address = place.address();
    serve(&place, &command(address), "stop-timeout = \"1min\"\n");
    place.run();
    place.order(&["start", "web"]);
    wait::until(wait::LONG, "it to listen", || std::net::TcpStream::connect(address).ok());
    let client = std::thread::spawn(move || ask(address, "/slow"));
    wait::until(wait::LONG, "a request to be under way", || exists(&place, "work/busy"));
    let stop = place.begin(&["stop", "web"]);
    place.reaches("web", "stopping");
    place.write("work/finish", "");
    assert!(client.join().unwrap().contains(" 200"), "{}", place.stderr());
    assert_eq!(stop.wait().code, Some(0));
    assert_eq!(place.service("web")["exit"]["meaning"], "success");
}

fn granian(address: std::net::SocketAddr, application: &str) -> String {
    let (host, port) = (address.ip(), address.port());
    python_module("granian", &format!("--interface asgi --host {host} --port {port} {application}"))
}

#[test]
fn user_granian_finishes_what_has_begun() {
    finishes_what_has_begun(&|address| granian(address, "app:asgi"));
}

#[test]
fn user_waitress_finishes_what_has_begun() {
    finishes_what_has_begun(&|address| python_module("waitress", &format!("--listen {address} app:app")));
}

/// It binds with SO_REUSEPORT.
#[test]
fn user_two_generations_of_granian_share_a_port() {
    let mut place = with_others(Who::User);
    let address = place.address();
    serve(&place, &granian(address, "app:asgi"), "[deploy]\nstrategy = \"start-first\"\n");
    place.run();
    place.order(&["start", "web"]);
    wait::until(wait::LONG, "it to listen", || std::net::TcpStream::connect(address).ok());
    let old = place.pid_of("web");
    place.order(&["restart", "web"]);
    assert_ne!(place.pid_of("web"), old);
    wait::until(wait::LONG, "the old one to be gone", || (!processes::lives(old)).then_some(()));
    // Nothing of it shows when it is ready, and this unit does not wait.
    wait::until(wait::LONG, "the new one to listen", || std::net::TcpStream::connect(address).ok());
    assert_eq!(get(address), "HTTP/1.1 200 OK");
}

/// Which end means that the application could not be loaded.
#[track_caller]
fn is_broken(command: &dyn Fn(std::net::SocketAddr) -> String, code: i32, meaning: &str) {
    let mut place = with_others(Who::User);
    let address = place.address();
    serve(&place, &command(address), "[restart]\npolicy = \"never\"\n");
    place.run();
    place.order(&["start", "web"]);
    let web = wait::until(wait::LONG, "its end", || {
        Some(place.service("web")).filter(|web| !web["exit"].is_null())
    });
    assert_eq!((&web["exit"]["code"], &web["exit"]["meaning"]), (&json!(code), &json!(meaning)), "{web:#}");
}

#[test]
fn user_what_broken_applications_end_with_is_known() {
    is_broken(
        &|address| granian(address, "broken:asgi"),
        1,
        "exit status 1: granian could not begin: its application or its port; its last lines say which",
    );
    is_broken(
        &|address| python_module("waitress", &format!("--listen {address} broken:app")),
        0,
        "exit status 0: waitress also ends like this when it could not import the application; its last lines say",
    );
    is_broken(
        &|_| python_module("celery", "--app broken worker"),
        2,
        "exit status 2: celery could not load the application given by `-A`, or does not know an option; its last lines say \
         which",
    );
}

#[test]
fn user_what_cannot_be_given_a_socket_is_not_told_to_take_one() {
    let mut place = with_others(Who::User);
    let address = place.address();
    let command = python_module("waitress", &format!("--listen {address} app:app"));
    serve(&place, &command, "[deploy]\nstrategy = \"start-first\"\n");
    let unit = std::fs::read_to_string(place.path("units/web.toml")).unwrap();
    place.write("units/web.toml", &unit.replace("settle = \"0s\"", "settle = \"10s\""));
    place.run();
    place.order(&["start", "web"]);
    let main = place.pid_of("web");
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let first = format!(
        "web: proving itself: exit status 1: waitress could not begin: a wrong option, or its port is taken; its last lines \
         say which; its own generation 1, which goes on, listens on {address} (process {main}); the old generation \
         goes on serving"
    );
    let hint = "hint: have the old one end first: `supervise restart --stop-first web`, or `[deploy] strategy = \"stop-first\"`";
    assert_eq!((said.err.lines().next(), said.err.lines().last()), (Some(first.as_str()), Some(hint)));
}
