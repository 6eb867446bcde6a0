//! A command in a service's context is the service in everything but its sockets, and its client's in its end.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use super::accounts::Account;
use super::identity::portrait;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

const UNIT: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\numask = \"0077\"\ncapabilities = [\"net-raw\"]\n\
                    environment = { A = \"from the unit\" }\n[limits]\nnofile = 99\nnice = 3\n";

#[test]
fn root_a_command_has_the_context_of_its_service() {
    let mut place = Place::new(Who::Root);
    place.unit("web", UNIT);
    place.run();
    place.reaches("web", "running");
    // A status of its own, and what it writes to both.
    let said = place.ask(&["exec", "web", "--", "sh", "-c", "echo out $A $$; echo err >&2; exit 7"]);
    assert_eq!(said.code, Some(7), "{said:?}");
    assert!(said.out.starts_with("out from the unit ") && said.err == "err\n", "{said:?}");
    // The same rights as the service's own process, line for line.
    let mut client = place.command(&place.binary());
    client.arg("--runtime-dir").arg(place.path("run"));
    client.args(["exec", "web", "--", "sh", "-c", "echo $$; exec sleep 1000"]);
    let mut client =
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = [0; 16];
    let count = client.stdout.as_mut().unwrap().read(&mut line).unwrap();
    let pid: u32 = String::from_utf8_lossy(&line[..count]).trim().parse().unwrap();
    wait::until(wait::LONG, "the command", || (processes::arguments(pid).first()? == "sleep").then_some(()));
    let names = |pid: u32| super::identity::names(&place, pid);
    let of_service = place.pid_of("web");
    // Its input is a pipe of the client's, and the service's is nothing.
    let expected =
        portrait(of_service, &names(of_service)).replace("descriptor 0: /dev/null", "descriptor 0: pipe");
    assert_eq!(portrait(pid, &names(pid)), expected);
    let group = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    if place.service("web")["tracking"] == "cgroup" {
        assert_ne!(group(pid), group(of_service));
        // All commands of the service are in one, which has its limits.
        let own = group(pid).lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
        let (above, number) = own.rsplit_once('/').unwrap();
        assert!(above.ends_with(".web.exec") && number.parse::<u64>().is_ok(), "{own}");
        let said = place.ask(&["exec", "web", "--", "cat", "/proc/self/cgroup"]);
        assert!(said.out.lines().any(|line| line.starts_with(&format!("0::{above}/"))), "{said:?}");
    }
    // It ends with its client.
    client.kill().unwrap();
    client.wait().unwrap();
    wait::until(wait::LONG, "its end", || (!processes::lives(pid)).then_some(()));
    assert_eq!(place.pid_of("web"), of_service);
    assert_eq!(place.service("web")["restarts"], 0);
}

#[test]
fn root_a_commands_end_is_told_as_a_shell_would() {
    let mut place = Place::new(Who::Root);
    place.unit("web", UNIT);
    place.run();
    place.reaches("web", "running");
    let exec = |argv: &[&str]| {
        let mut all = vec!["exec", "web", "--"];
        all.extend(argv);
        place.ask(&all)
    };
    assert_eq!(exec(&["sh", "-c", "kill -TERM $$"]).code, Some(143));
    let said = exec(&["no-such-program"]);
    assert!(
        said.code == Some(127) && said.err.contains("executing the command: no-such-program: not found in "),
        "{said:?}"
    );
    let said = exec(&["/etc/passwd"]);
    assert!(said.code == Some(126) && said.err.contains("executing the command: /etc/passwd: "), "{said:?}");
    let said = place.ask(&["exec", "nothing", "--", "true"]);
    assert!(said.code == Some(125) && said.err.contains("no such service `nothing`"), "{said:?}");
    // What comes in is what the command reads, to its end.
    let mut client = place.command(&place.binary());
    client.arg("--runtime-dir").arg(place.path("run")).args(["exec", "web", "--", "cat"]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text = "x".repeat(300_000);
    let mut input = client.stdin.take().unwrap();
    let reader = std::thread::spawn(move || client.wait_with_output().unwrap());
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = reader.join().unwrap();
    assert!(output.status.success() && output.stdout == text.as_bytes());
}

#[test]
fn root_only_root_and_the_service_itself_run_commands_as_it() {
    let mut place = Place::new(Who::Root);
    let stranger = Account::make();
    let unit = UNIT.replace("capabilities = [\"net-raw\"]\n", "");
    place.unit("web", &format!("{unit}[access]\ncontrol = [\"user:{}\"]\n", stranger.name));
    place.run();
    place.reaches("web", "running");
    let as_user = |account: &Account| {
        let mut client = place.command_as(account.uid, account.gid, &[], &place.binary());
        client.arg("--runtime-dir").arg(place.path("run")).args(["exec", "web", "--", "id", "-u"]);
        client.stdin(Stdio::null()).output().unwrap()
    };
    let own = as_user(&place.account);
    assert_eq!(String::from_utf8_lossy(&own.stdout), format!("{}\n", place.account.uid), "{own:?}");
    let refused = as_user(&stranger);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("not permitted to `exec` `web`"),
        "{refused:?}"
    );
}

#[test]
fn user_a_command_goes_on_where_its_manager_dies_and_ends_without_its_client() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    place.run();
    place.reaches("web", "running");
    let service = place.pid_of("web");
    let mut client = place.command(&place.binary());
    client.arg("--runtime-dir").arg(place.path("run")).args([
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "echo $$; trap '' HUP; read line; [ \"$line\" ] || exec sleep 1000; exit 9",
    ]);
    let mut begin = |place: &Place| {
        let mut client =
            client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 16];
        let count = client.stdout.as_mut().unwrap().read(&mut line).unwrap();
        let pid: u32 = String::from_utf8_lossy(&line[..count]).trim().parse().unwrap();
        assert!(processes::lives(pid) && place.pid_of("web") == service);
        (client, pid)
    };
    // It is the next manager that says how it ended, whether that is before or after the client has asked it.
    let (mut client, _) = begin(&place);
    place.kill(Role::Manager);
    place.reaches("web", "running");
    client.stdin.take().unwrap().write_all(b"x\n").unwrap();
    let status = wait::until(wait::LONG, "the client's end", || client.try_wait().unwrap());
    assert_eq!(status.code(), Some(9));
    let (mut client, pid) = begin(&place);
    place.kill(Role::Manager);
    processes::signal(pid, libc::SIGTERM);
    let status = wait::until(wait::LONG, "the client's end", || client.try_wait().unwrap());
    assert_eq!(status.code(), Some(128 + libc::SIGTERM));
    // One whose client does not come back is ended; one whose client is stopped and lives has longer.
    let (mut client, pid) = begin(&place);
    let (mut slow, slow_pid) = begin(&place);
    [client.id(), slow.id()].into_iter().for_each(|client| processes::signal(client, libc::SIGSTOP));
    place.kill(Role::Manager);
    client.kill().unwrap();
    client.wait().unwrap();
    wait::until(wait::LONG, "the command's end", || (!processes::lives(pid)).then_some(()));
    place.reaches("web", "running");
    assert_eq!(place.pid_of("web"), service);
    // Both were looked at together.
    assert!(processes::lives(slow_pid));
    processes::signal(slow.id(), libc::SIGCONT);
    slow.stdin.take().unwrap().write_all(b"x\n").unwrap();
    let status = wait::until(wait::LONG, "the client's end", || slow.try_wait().unwrap());
    assert_eq!(status.code(), Some(9));
}

#[test]
fn user_a_signal_to_the_client_reaches_the_command() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    place.run();
    place.reaches("web", "running");
    let script = "trap 'exit 5' INT; trap 'exit 6' TERM; trap 'exit 7' HUP; echo ready; \
                  sleep 1000 >/dev/null 2>&1 & wait";
    let ends = |own: &str, script: &str, signals: &[i32]| {
        let mut client = place.command("/bin/sh".as_ref());
        client.args(["-c", &format!("{own} exec \"$@\""), "sh"]).arg(place.binary());
        client.arg("--runtime-dir").arg(place.path("run")).args(["exec", "web", "--", "sh", "-c", script]);
        let mut client =
            client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = [0; 6];
        client.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        signals.iter().for_each(|signal| processes::signal(client.id(), *signal));
        wait::until(wait::LONG, "the client's end", || client.try_wait().unwrap()).code()
    };
    assert_eq!(ends("", script, &[libc::SIGINT]), Some(5));
    assert_eq!(ends("", script, &[libc::SIGTERM]), Some(6));
    assert_eq!(ends("", "echo ready; exec sleep 1000", &[libc::SIGQUIT]), Some(131));
    // What its own caller has it ignore is not for the command either.
    assert_eq!(ends("trap '' INT;", script, &[libc::SIGINT, libc::SIGTERM]), Some(6));
}

#[test]
fn root_nobody_takes_all_places_for_commands() {
    let mut place = Place::new(Who::Root);
    place.unit("web", &UNIT.replace("capabilities = [\"net-raw\"]\n", ""));
    place.run();
    place.reaches("web", "running");
    let begin = || {
        let account = &place.account;
        let mut client = place.command_as(account.uid, account.gid, &[], &place.binary());
        client.arg("--runtime-dir").arg(place.path("run"));
        client.args(["exec", "web", "--", "sh", "-c", "echo runs; read line"]);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = begin();
        let mut line = [0; 5];
        client.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        clients.push(client);
    }
    let refused = begin().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(125), "{said}");
    assert!(said.contains("this user runs too many commands already") && said.contains("hint: "), "{said}");
    assert_eq!(place.ask(&["exec", "web", "--", "echo", "root"]).out, "root\n");
    // A place is free again as soon as one has ended.
    let client = clients.pop().unwrap();
    assert!(client.wait_with_output().unwrap().status.code().is_some());
    let mut client = begin();
    client.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    clients.push(client);
    for client in clients {
        client.wait_with_output().unwrap();
    }
}

#[test]
fn root_a_restart_that_failed_gives_nobody_a_group_that_was_taken_from_him() {
    let mut place = Place::new(Who::Root);
    let group = Account::make();
    place.account.joins(&group, true);
    place.write("flag", "ok");
    // A bad one is never ready, however long it takes to end.
    let script =
        format!("grep -q ok {} && echo >&9 && exec sleep 1000; exit 3", place.path("flag").display());
    place.unit(
        "web",
        &format!(
            "command = [\"/bin/sh\", \"-c\", \"{script}\"]\nready = {{ fd = 9 }}\nsettle = \"0s\"\n[socket.http]\nlisten = \"{}\"\n",
            place.address()
        ),
    );
    place.run();
    place.reaches("web", "running");
    let exec = |groups: &[u32]| {
        let mut client = place.command_as(place.account.uid, place.account.gid, groups, &place.binary());
        client.arg("--runtime-dir").arg(place.path("run")).args(["exec", "web", "--", "id", "-G"]);
        let output = client.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    assert!(exec(&[group.gid]).1.contains(&group.gid.to_string()));
    assert_eq!(exec(&[]).0, Some(125));
    // What was read last has no such group, and what runs, and so would a command, has it still.
    place.account.joins(&group, false);
    place.write("flag", "bad");
    let said = place.ask(&["restart", "web"]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert_eq!(place.service("web")["restarts"], 0);
    let (code, said) = exec(&[]);
    assert!(code == Some(125) && said.contains("not permitted to `exec`"), "{said}");
}

#[test]
fn user_a_client_says_what_it_could_not_do() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    place.run();
    place.reaches("web", "running");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut client = place.command(&place.binary());
    client.arg("--runtime-dir").arg(place.path("run")).args(["exec", "web", "--", "echo", "x"]);
    let output = client.stdin(Stdio::null()).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("writing the command's output: no space left on device"), "{said}");
    // A call that no supervisor takes is not made.
    let words = vec!["x"; 5000];
    let said = place.ask(&[&["exec", "web", "--", "echo"][..], &words].concat());
    assert!(said.code == Some(125) && said.err.contains("too many arguments for one call"), "{said:?}");
    // Somebody is there, and hangs up.
    let there = place.path("there");
    fs::create_dir(&there).unwrap();
    let listener = UnixListener::bind(there.join("control")).unwrap();
    fs::set_permissions(there.join("control"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let rude = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
    });
    let mut client = place.command(&place.binary());
    client.arg("--runtime-dir").arg(&there).args(["exec", "web", "--", "true"]);
    let output = client.stdin(Stdio::null()).output().unwrap();
    rude.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("hung up without an answer") && !said.contains("no supervisor there"), "{said}");
}

#[test]
fn user_a_command_has_a_moment_where_supervise_stops_and_its_client_is_told() {
    let mut place = Place::new(Who::User);
    place.unit("web", "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\n");
    place.run();
    place.reaches("web", "running");
    let begin = |script: &str| {
        let mut client = place.command(&place.binary());
        client.arg("--runtime-dir").arg(place.path("run")).args(["exec", "web", "--", "sh", "-c", script]);
        let mut client =
            client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        client.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        client
    };
    let polite = begin("trap 'echo bye; exit 7' TERM; echo ready; sleep 1000 >/dev/null 2>&1 & wait");
    let deaf = begin("trap '' TERM; echo ready; read line; exec sleep 1000");
    let keeper = place.keeper.take().unwrap();
    processes::signal(place.role(Role::Keeper), libc::SIGTERM);
    assert!(keeper.wait().success());
    let output = polite.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"bye\n"[..]), "{said}");
    assert_eq!(said, "supervise: stopped while the command ran, which was sent SIGTERM\n");
    let output = deaf.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(137), "{said}");
    let expected =
        "supervise: stopped while the command ran, which was sent SIGTERM, and killed as it did not end\n";
    assert_eq!(said, expected);
}
