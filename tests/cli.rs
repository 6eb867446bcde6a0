//! The command line as a user and a script see it: the program itself against a server that speaks the real
//! protocol over a real socket. Whole texts are compared.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, missing_docs)]

#[path = "it/accounts.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod accounts;
#[path = "cli/commands.rs"]
mod commands;
#[path = "cli/completions.rs"]
mod completions;
#[path = "it/gunicorn.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod gunicorn;
#[path = "it/pypi.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod pypi;
#[path = "cli/server.rs"]
mod server;
#[path = "cli/varlink.rs"]
mod varlink;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use server::{Server, asked_names, outcome, service, step, supervisor};
use supervise::wire::control::{
    Exit, Failed, Failure, OperationReply, Outcome, Refusal, Reply, Service, State, StatusReply,
};
use supervise::wire::names::Unknown;
use supervise::wire::request::Request;
use supervise::wire::varlink::{Answer, Call};
use supervise::wire::verb::{Right, Verb};

const BINARY: &str = env!("CARGO_BIN_EXE_supervise");

/// The program with a clean environment that points at `runtime_dir`.
fn program(runtime_dir: &Path, line: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(line).env_clear().env("SUPERVISE_RUNTIME_DIR", runtime_dir).stdin(Stdio::null());
    command
}

/// Exit status, stdout, stderr.
fn run(runtime_dir: &Path, line: &[&str]) -> (i32, String, String) {
    finished(program(runtime_dir, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn finished(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn refused(refusal: Refusal) -> Reply {
    Reply::Refused(refusal)
}

fn quiet(status: i32) -> (i32, String, String) {
    (status, String::new(), String::new())
}

#[test]
fn help_is_as_it_was() {
    let nowhere = Path::new("/nonexistent");
    for (line, golden) in [
        (&["--help"][..], include_str!("cli/help.txt")),
        (&["run", "--help"], include_str!("cli/help-run.txt")),
        (&["status", "--help"], include_str!("cli/help-status.txt")),
        (&["restart", "--help"], include_str!("cli/help-restart.txt")),
        (&["check", "--help"], include_str!("cli/help-check.txt")),
        (&["logs", "--help"], include_str!("cli/help-logs.txt")),
    ] {
        assert_eq!(run(nowhere, line), (0, golden.to_owned(), String::new()), "{line:?}");
    }
    let version = format!("supervise {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(nowhere, &["--version"]), (0, version, String::new()));
}

#[test]
fn a_wrong_command_line_is_2_and_goes_to_stderr() {
    let nowhere = Path::new("/nonexistent");
    for line in [&[][..], &["fly"], &["start"], &["status", "--fly"], &["run", "--stop-timeout", "9"]] {
        let (status, stdout, stderr) = run(nowhere, line);
        assert_eq!((status, stdout.as_str()), (2, ""), "{line:?}");
        assert!(!stderr.is_empty(), "{line:?}");
    }
    let (_, _, stderr) = run(nowhere, &["stauts", "web"]);
    assert!(stderr.contains("similar subcommands exist: ") && stderr.contains("'status'"), "{stderr}");
}

#[test]
fn without_a_supervisor_it_is_5_at_once_and_names_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let expected = |why: &str| {
        let text = format!(
            "supervise: no supervisor there: `{}`: {why}\nhint: `supervise run` starts one; `--user` asks your \
             own, `--runtime-dir` or `SUPERVISE_RUNTIME_DIR` another\n",
            control.display()
        );
        (5, String::new(), text)
    };
    let once = || {
        let began = std::time::Instant::now();
        assert_eq!(run(dir.path(), &["status"]), expected("no such file or directory"));
        assert_eq!(run(dir.path(), &["start", "web"]), expected("no such file or directory"));
        drop(UnixListener::bind(&control).unwrap());
        assert_eq!(run(dir.path(), &["restart", "web"]), expected("connection refused"));
        std::fs::remove_file(&control).unwrap();
        began.elapsed()
    };
    // Whoever waits gives up after ten seconds, each time; what else the machine does is not there each time.
    let all: Vec<_> = std::iter::repeat_with(once).take(3).take_while(|took| took.as_secs() >= 8).collect();
    assert!(all.len() < 3, "it waited for somebody who was never there: {all:?}");
}

#[test]
fn status_is_a_table() {
    let server = Server::start(|request| {
        assert_eq!(asked_names(request), [""; 0]);
        let failed = Service {
            name: "worker".into(),
            state: State::Failed,
            exit: Some(Exit { code: Some(1), signal: None, meaning: "exited with status 1".into() }),
            ..Service::default()
        };
        let web = Service { pid: Some(42), ..service("web", State::Running) };
        let part = |service| Reply::Status(StatusReply { supervisor: None, services: vec![service] });
        vec![supervisor(), part(web), part(failed)]
    });
    let expected = "\
NAME    STATE    PID  SINCE  RESTARTS  SOCKETS  NOTE
web     running  42   -      0         -
worker  failed   -    -      0         -        exited with status 1
";
    assert_eq!(run(server.dir(), &["status"]), (0, expected.to_owned(), String::new()));
}

#[test]
fn status_of_names_exits_by_whether_they_are_as_wanted() {
    let server = Server::start(|request| {
        let mut parts = vec![supervisor()];
        for name in asked_names(request) {
            let state = match name.as_str() {
                "bad*" => State::BackingOff,
                "idle" => State::Listening,
                "task" => State::Done,
                "off" => State::Stopped,
                _ => State::Running,
            };
            let services = vec![service(&name, state)];
            parts.push(Reply::Status(StatusReply { supervisor: None, services }));
        }
        parts
    });
    let page = |text: &str| (0, text.to_owned(), String::new());
    assert_eq!(run(server.dir(), &["status", "web"]), page("web: running\n"));
    assert_eq!(run(server.dir(), &["status", "off"]), (3, "off: stopped\n".to_owned(), String::new()));
    assert_eq!(run(server.dir(), &["status", "web", "idle", "task"]).0, 0);
    let (status, stdout, _) = run(server.dir(), &["status", "bad*"]);
    let table = "NAME  STATE        PID  SINCE  RESTARTS  SOCKETS  NOTE\nbad*  backing-off  -    -      0         -\n";
    assert_eq!((status, stdout.as_str()), (3, table));
}

#[test]
fn status_as_json_is_the_reply_in_one_piece() {
    let server = Server::start(|_| {
        let part = |name: &str| {
            let services =
                vec![Service { status_text: Some("\u{9b}2J".into()), ..service(name, State::Running) }];
            Reply::Status(StatusReply { supervisor: None, services })
        };
        vec![supervisor(), part("a"), part("b")]
    });
    let (status, stdout, stderr) = run(server.dir(), &["status", "--json"]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(!stdout.contains('\u{9b}'), "a control character reached the terminal");
    let whole: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        whole["supervisor"],
        serde_json::json!({"version": "9.9.9", "pid": 7, "keeper_pid": 6, "since": ""})
    );
    let names: Vec<&str> = whole["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let mut fields: Vec<&String> = whole["services"][0].as_object().unwrap().keys().collect();
    fields.sort();
    let expected = [
        "adopted",
        "changed",
        "command",
        "cpu_seconds",
        "description",
        "documentation",
        "ends",
        "exit",
        "gate",
        "generation",
        "healthy",
        "instances",
        "log_file",
        "log_to",
        "memory_bytes",
        "name",
        "next_start",
        "output",
        "output_of",
        "pid",
        "pids",
        "problems",
        "restarts",
        "silent",
        "since",
        "sockets",
        "state",
        "status_text",
        "stored",
        "tracking",
        "unit",
        "user",
        "waiting_for",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn an_unknown_name_is_4_with_the_nearest_one() {
    let server = Server::start(|request| {
        let name = asked_names(request).remove(0);
        let near = (name == "wbe").then(|| "web".to_owned());
        vec![refused(Refusal::NoSuchService(Unknown { name, near, file: None }))]
    });
    let expected = "supervise: no such service `wbe`\nhint: did you mean `web`?\n";
    for command in ["status", "start", "stop", "restart"] {
        assert_eq!(run(server.dir(), &[command, "wbe"]), (4, String::new(), expected.to_owned()));
    }
    let (status, stdout, _) = run(server.dir(), &["status", "--json", "wbe"]);
    let error: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let expected = serde_json::json!({
        "error": "io.supervise.Control.NoSuchService", "parameters": {"name": "wbe", "near": "web"}
    });
    assert_eq!((status, error), (4, expected));
}

#[test]
fn not_permitted_is_6() {
    let server = Server::start(|request| vec![refused(Refusal::NotPermitted(request.verb().needs(), None))]);
    let expected = "supervise: not permitted to `stop` `web`\nhint: ask as root, or let root give you `control` in the \
                    unit's `[access]`; `--user` asks your own supervisor\n";
    assert_eq!(Verb::Stop.needs(), Right::Control);
    assert_eq!(run(server.dir(), &["stop", "web"]), (6, String::new(), expected.to_owned()));
}

#[test]
fn a_script_hears_nothing_of_success_but_notes() {
    let server = Server::start(|request| {
        let order = match request {
            Request::Start(order) | Request::Stop { order, .. } | Request::Restart { order, .. } => order,
            other => panic!("{other:?} was asked"),
        };
        let note = (!order.wait).then(|| "its unit file has changed: `supervise apply web`\u{7}".to_owned());
        let outcome = Outcome { name: "web".into(), state: State::Running, pid: Some(42), note };
        vec![
            step("web", "starting"),
            Reply::Operation(OperationReply { services: vec![outcome], progress: None }),
        ]
    });
    for command in ["start", "stop", "restart"] {
        assert_eq!(run(server.dir(), &[command, "web"]), quiet(0));
    }
    let note = "web: its unit file has changed: `supervise apply web`\\x07\n";
    assert_eq!(run(server.dir(), &["start", "web", "--no-wait"]), (0, String::new(), note.to_owned()));
    let (status, stdout, stderr) = run(server.dir(), &["restart", "web", "--json"]);
    let whole: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let expected = serde_json::json!({
        "services": [{"name": "web", "state": "running", "pid": 42, "note": null}], "progress": null
    });
    assert_eq!((status, whole, stderr.as_str()), (0, expected, ""));
}

#[test]
fn someone_who_watches_sees_the_steps_and_the_outcome() {
    let server =
        Server::start(|_| vec![step("web", "starting"), step("web", "probing\u{1b}[2J"), outcome("web")]);
    let script = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let output = Command::new("python3")
        .args(["-c", script, BINARY, "restart", "web"])
        .env("SUPERVISE_RUNTIME_DIR", server.dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    let expected = "web: starting\nweb: probing\\x1b[2J\nweb: running, pid 42\n";
    assert_eq!((output.status.code(), text.as_str()), (Some(0), expected));
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let server = Server::start(|_| {
        let services = vec![service("web", State::Running)];
        vec![Reply::Status(StatusReply { supervisor: None, services })]
    });
    let script = "import os, pty, sys\nsys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let watched = |variable: &str, value: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", script, BINARY, "status", "web"]).stdin(Stdio::null());
        command.env("TERM", "xterm").env_remove("NO_COLOR").env("SUPERVISE_RUNTIME_DIR", server.dir());
        let output = command.env(variable, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(watched("TERM", "xterm"), "\u{1b}[1mweb\u{1b}[0m: \u{1b}[32mrunning\u{1b}[0m\r\n");
    assert_eq!(watched("NO_COLOR", "1"), "web: running\r\n");
    assert_eq!(watched("TERM", "dumb"), "web: running\r\n");
}

#[test]
fn a_failure_is_1_and_told_whole() {
    let server = Server::start(|_| {
        let first = Failure {
            service: "web".into(),
            step: "waiting until it is ready".into(),
            reason: "its main process ended".into(),
            hint: Some("read the traceback; the old generation keeps serving".into()),
            exit: Some(Exit { code: Some(3), signal: None, meaning: "exited with status 3".into() }),
            output: vec!["Traceback (most recent call last):".into(), "ImportError: x".into()],
            silent: false,
        };
        vec![step("web", "starting"), refused(Refusal::Failed(Box::new(Failed { first, others: vec![] })))]
    });
    let expected = "\
web: waiting until it is ready: its main process ended
  how it ended: exited with status 3
  its last output:
    Traceback (most recent call last):
    ImportError: x
hint: read the traceback; the old generation keeps serving
";
    assert_eq!(run(server.dir(), &["restart", "web"]), (1, String::new(), expected.to_owned()));
}

/// One call from a client.
fn call_from(stream: &mut UnixStream) -> Call {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        match byte {
            [0] => return Call::decode(&bytes).unwrap(),
            [byte] => bytes.push(byte),
        }
    }
}

/// How often the program has waited so far (proc_pid_status(5)).
fn pauses(child: &mut Child) -> u64 {
    assert!(child.try_wait().unwrap().is_none(), "it gave up");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    waits.unwrap().trim().parse().unwrap()
}

#[test]
fn a_broken_connection_is_taken_up_again_with_the_same_operation() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("control");
    let listener = UnixListener::bind(&control).unwrap();
    let child =
        program(dir.path(), &["restart", "web"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let first = call_from(&mut stream);
    stream.write_all(&step("web", "starting").encode(true)).unwrap();
    drop(stream);
    // Once where the socket outlives the manager, once where all of the supervisor is replaced.
    let (mut stream, _) = listener.accept().unwrap();
    let second = call_from(&mut stream);
    std::fs::remove_file(&control).unwrap();
    drop((stream, listener));
    // Until it has found nobody there, more than once.
    let before = pauses(&mut child);
    while pauses(&mut child) < before + 3 {
        std::thread::yield_now();
    }
    let listener = UnixListener::bind(dir.path().join("next")).unwrap();
    std::fs::rename(dir.path().join("next"), &control).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let third = call_from(&mut stream);
    stream.write_all(&outcome("web").encode(false)).unwrap();
    assert_eq!(finished(child), quiet(0));
    assert_eq!(first.method, Verb::Restart.full_method());
    assert_eq!(first.parameters["operation"].as_str().unwrap().len(), 32);
    assert_eq!((&first, &first), (&second, &third));
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let server = Server::start(|_| vec![outcome("web")]);
    let ids: std::collections::HashSet<u128> = (0..4)
        .map(|_| {
            assert_eq!(run(server.dir(), &["start", "web"]), quiet(0));
            match server.heard() {
                Request::Start(order) => order.operation.0,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_status_that_breaks_off_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("control")).unwrap();
    let child =
        program(dir.path(), &["status"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let part = |name: &str, more| {
        let services = vec![service(name, State::Running)];
        Reply::Status(StatusReply { supervisor: None, services }).encode(more)
    };
    let (mut stream, _) = listener.accept().unwrap();
    call_from(&mut stream);
    stream.write_all(&part("a", true)).unwrap();
    stream.write_all(&part("half", true)[..20]).unwrap();
    drop(stream);
    let (mut stream, _) = listener.accept().unwrap();
    call_from(&mut stream);
    stream.write_all(&part("a", true)).unwrap();
    stream.write_all(&part("b", false)).unwrap();
    let (status, stdout, _) = finished(child);
    let names: Vec<&str> = stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!((status, &names[..]), (0, &["NAME", "a", "b"][..]));
}

#[test]
fn ctrl_c_detaches_and_cancels_nothing() {
    let server = Server::start(|_| vec![]);
    let child = program(server.dir(), &["restart", "web", "api"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let child = child.unwrap();
    server.heard();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let expected = "detached: `restart web api` goes on; `supervise status web api` shows how\n";
    assert_eq!(finished(child), (130, String::new(), expected.to_owned()));
    assert_eq!(server.requests_left(), 0, "something was sent after it");
}

#[test]
fn a_reply_that_is_no_varlink_is_no_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("control")).unwrap();
    let child =
        program(dir.path(), &["status"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    call_from(&mut stream);
    stream.write_all(b"220 mail.example.com ESMTP\0").unwrap();
    let (status, _, stderr) = finished(child);
    assert_eq!(status, 5);
    assert!(stderr.contains("what answers there is no supervisor\n"), "{stderr}");
    assert!(Answer::decode(b"220 mail").is_err());
}

#[test]
fn a_runtime_directory_with_a_long_path_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let server = Server::start(|_| vec![supervisor()]);
    std::fs::rename(server.dir().join("control"), deep.join("control")).unwrap();
    assert_eq!(run(&deep, &["status"]).0, 0);
}

#[test]
fn root_a_socket_of_a_stranger_is_not_believed() {
    assert!(nix::unistd::geteuid().is_root(), "needs root: only root can be somebody else");
    let dir = tempfile::tempdir().unwrap();
    let script = "import os, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\n\
                  os.setuid(65534)\ns.listen()\nprint(flush=True)\nc, _ = s.accept()\n\
                  print(len(c.recv(100)), flush=True)";
    let mut stranger = Command::new("python3")
        .args(["-c", script])
        .arg(dir.path().join("control"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = stranger.stdout.take().unwrap();
    said.read_exact(&mut [0]).unwrap();
    let (status, _, stderr) = run(dir.path(), &["start", "web"]);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    stranger.wait().unwrap();
    assert_eq!(status, 5);
    assert!(
        stderr.contains("belongs to a process of user 65534, who is neither root nor you\nhint: "),
        "{stderr}"
    );
    assert_eq!(rest, "0\n", "something was said to the stranger");
}

#[test]
fn root_a_stranger_is_refused_by_the_kernels_word() {
    assert!(nix::unistd::geteuid().is_root(), "needs root: only root can be somebody else");
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start(|_| vec![supervisor()]);
    let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    open(server.dir(), 0o755);
    open(&server.dir().join("control"), 0o666);
    let script = "import os, socket, sys\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n\
                  s.connect(sys.argv[1])\ns.send(b'{\"method\":\"io.supervise.Control.Status\"}\\0')\n\
                  print(s.recv(1000).decode())";
    let output =
        Command::new("python3").args(["-c", script]).arg(server.dir().join("control")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let expected =
        "{\"error\":\"io.supervise.Control.NotPermitted\",\"parameters\":{\"needs\":\"status\"}}\0\n";
    assert_eq!(text, expected);
    assert_eq!(server.requests_left(), 0);
}

#[test]
fn a_second_supervisor_is_refused_and_told_who_the_first_is() {
    use std::os::fd::AsFd;
    let dir = tempfile::tempdir().unwrap();
    let held = supervise::sys::files::try_lock(&dir.path().join("lock")).unwrap().unwrap();
    supervise::sys::lock::claim(held.as_fd()).unwrap();
    let (status, stdout, stderr) = run(dir.path(), &["run", "--units", "units"]);
    let expected = format!(
        "supervise: a supervisor (pid {}) already runs in {}\nhint: `supervise status` shows what it does; \
         another one needs its own `--runtime-dir`\n",
        std::process::id(),
        dir.path().display()
    );
    assert_eq!((status, stdout.as_str(), stderr), (1, "", expected));
}

#[test]
fn one_that_waits_for_the_lock_of_a_dead_one_stops_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody is named in it, and nobody hands anything over.
    let _held = supervise::sys::files::try_lock(&dir.path().join("lock")).unwrap().unwrap();
    let child = program(dir.path(), &["run", "--units", "units"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // From there on its signals are held back.
    let waits = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap_or("").trim();
        u64::from_str_radix(blocked, 16).is_ok_and(|set| set & (1 << 14) != 0)
    };
    while !waits() {
        std::thread::yield_now();
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
    let expected = "supervise: stopping: nothing has been started yet\n";
    assert_eq!(finished(child), (0, String::new(), expected.to_owned()));
}
