//! What a file of the server says, which nobody reads beforehand: what comes of it is told with its cause. And what else a
//! server does that looks well and is not.

use super::place::{Place, Who};
use super::servers::{get, python_module, serve, socket, uwsgi, with_servers};
use super::wait;

const GUNICORN: &str = "app:app --no-control-socket";

/// A start that fails; what is said of it.
#[track_caller]
fn fails(place: &mut Place) -> String {
    place.write("work/go", "");
    place.run();
    let said = place.ask(&["start", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    said.err
}

#[test]
fn root_gunicorn_that_goes_into_the_background_is_told_so() {
    let mut place = with_servers(Who::Root);
    place.write("srv/gunicorn.conf.py", "daemon = True\n");
    serve(&place, &python_module("gunicorn", GUNICORN), &socket(place.address()));
    let said = fails(&mut place);
    let words = "exit status 0: it went into the background: other processes of it went on and were ended; remove `daemon` \
                 from its configuration file, or `--daemon` from its options";
    assert!(said.contains(words), "{said}");
}

#[test]
fn user_gunicorn_that_listens_by_itself_is_told_why() {
    let mut place = with_servers(Who::User);
    let own = place.address();
    place.write("srv/gunicorn.conf.py", &format!("bind = \"{own}\"\nreuse_port = True\n"));
    let rest = format!("start-timeout = \"8s\"\n{}", socket(place.address()));
    serve(&place, &python_module("gunicorn", GUNICORN), &rest);
    let said = fails(&mut place);
    let words = format!("listens on {own}, which is none of its sockets");
    assert!(said.contains(&words) && !said.contains("below it"), "{said}");
    assert!(said.contains("hint: remove `bind` and `reuse_port` from its configuration file"), "{said}");
}

#[test]
fn user_gunicorn_whose_pid_file_is_taken_is_told_to_do_without() {
    let mut place = with_servers(Who::User);
    let file = place.path("work/pid");
    place.write("srv/gunicorn.conf.py", &format!("pidfile = \"{}\"\n", file.display()));
    serve(&place, &python_module("gunicorn", GUNICORN), &socket(place.address()));
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    let said = place.ask(&["restart", "web"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let words = "another generation or instance of it has the pid file";
    let hint = "hint: remove `pidfile` from its configuration file: nothing here needs one";
    assert!(said.err.contains(words) && said.err.contains(hint), "{said:?}");
}

#[test]
fn user_two_instances_that_want_one_port_are_told_of_each_other() {
    let mut place = with_servers(Who::User);
    let port = place.address();
    // The second waits for the first, so that it is clear who has it.
    let bind = format!(
        "import os, socket, time\nbound = os.environ['WORK'] + '/bound'\n\
         while os.environ['SUPERVISE_INSTANCE'] != '1' and not os.path.exists(bound):\n    time.sleep(0.02)\n\
         metrics = socket.create_server((\"{}\", {}))\nopen(bound, 'w').close()\nfrom app import app\n",
        port.ip(),
        port.port()
    );
    place.write("srv/measured.py", &bind);
    let rest = format!("instances = 2\n{}", socket(place.address()));
    serve(&place, &python_module("gunicorn", "measured:app --no-control-socket"), &rest);
    let said = fails(&mut place);
    let words = format!("its own instance 1, which goes on, listens on {port} (process ");
    assert!(said.contains(&words), "{said}");
    assert!(
        said.contains("hint: give each instance a place of its own: `{instance}` in the command"),
        "{said}"
    );
    assert!(!said.contains("--stop-first"), "{said}");
}

#[test]
fn user_uvicorn_whose_workers_all_fail_has_not_ended_well() {
    let mut place = with_servers(Who::User);
    let lifespan = "async def app(scope, receive, send):\n    await receive()\n\
                    \x20   await send({'type': 'lifespan.startup.failed', 'message': 'no bread'})\n";
    place.write("srv/refuses.py", lifespan);
    let command = python_module("uvicorn", "refuses:app --fd {fd:http} --workers 2");
    serve(&place, &command, &socket(place.address()));
    let said = fails(&mut place);
    let words = "exit status 0: uvicorn with `--workers` also ends like this when none of them could start its application";
    assert!(said.contains(words), "{said}");
}

#[test]
fn user_uwsgi_with_a_listener_for_http_is_asked_in_what_its_private_one_speaks() {
    let mut place = with_servers(Who::User);
    let address = place.address();
    let rest = format!("{}[health]\nhttp = \"/\"\n", socket(address));
    serve(&place, &uwsgi(&place, "--wsgi-file app.py --http-socket fd://{fd:http}"), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    wait::until(wait::LONG, "a probe", || (place.service("web")["healthy"] == true).then_some(()));
    assert_eq!(get(address), "HTTP/1.1 200 OK");
    place.write("work/status.2", "500 No");
    let said = place.ask(&["restart", "web"]);
    assert!(said.code == Some(1) && said.err.contains("not healthy: probe said 500"), "{said:?}");
}

#[test]
fn user_uwsgi_that_does_not_speak_http_is_told_what_to_ask_it() {
    let mut place = with_servers(Who::User);
    place.write("srv/web.ini", "[uwsgi]\nmaster = true\nneed-app = true\nwsgi-file = app.py\n");
    let (address, health) = (socket(place.path("web.sock").display()), "[health]\nhttp = \"/well\"\n");
    let rest = format!("start-timeout = \"6s\"\n{address}{health}");
    serve(&place, &format!("\"{} web.ini\"", place.path("site/bin/uwsgi").display()), &rest);
    let said = fails(&mut place);
    let words = "no answer on its private probe socket: uWSGI speaks the uwsgi protocol unless it is told otherwise; write \
                 `[health] uwsgi = \"/well\"`, or `protocol = http` in its configuration";
    assert!(said.contains(words), "{said}");
}

/// Asked to end as soon as it has answered, uWSGI would lose the signal.
#[test]
fn user_a_rehearsal_of_uwsgi_ends_when_it_is_asked_to() {
    let mut place = with_servers(Who::User);
    let rest = format!("{}[health]\nhttp = \"/\"\ninterval = \"off\"\n", socket(place.address()));
    serve(&place, &uwsgi(&place, "--wsgi-file app.py --protocol http --processes 8"), &rest);
    place.write("work/go", "");
    place.run();
    place.order(&["start", "web"]);
    for _ in 0..3 {
        place.order(&["restart", "web"]);
    }
    let web = place.service("web");
    let ends = web["ends"].as_array().unwrap();
    let rehearsed: Vec<_> = ends.iter().filter(|end| end["step"] == "its rehearsal passed").collect();
    assert_eq!(rehearsed.len(), 3, "{web:#}");
    assert!(rehearsed.iter().all(|end| end["exit"]["signal"].is_null()), "{rehearsed:#?}");
}
