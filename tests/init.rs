//! `supervise init` with real processes: signals, orphans, statuses, terminals, as dumb-init and tini promise them.
//!
//! What a command sees of its surroundings is told by small programs in Python, below `tests/init`. Tests of
//! `root_` make a pid namespace, in which init is PID 1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use supervise::sys::process;

const BINARY: &str = env!("CARGO_BIN_EXE_supervise");
/// Prints its pid, and each signal that it gets.
const SIGNALS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/init/signals.py");
/// Makes orphans, and waits until init has reaped them.
const ORPHANS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/init/orphans.py");
/// Runs a command on a terminal of its own.
const TERMINAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/init/terminal.py");

/// `supervise init` with these words.
fn init(words: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("init").args(words).stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> (Option<i32>, String, String) {
    told(init(words).output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Looks until it is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        poll(&mut [], PollTimeout::from(4u8)).unwrap();
    }
}

fn lives(pid: u32) -> bool {
    process::stat(pid).is_ok_and(|stat| !matches!(stat.state, b'Z' | b'X'))
}

fn is_stopped(pid: u32) -> bool {
    process::stat(pid).unwrap().state == b'T'
}

fn send(pid: u32, signal: i32) {
    process::signal(process::open(pid).unwrap().as_fd(), signal).unwrap();
}

/// An init whose command prints lines.
struct Running {
    init: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut init = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(init.stdout.take().unwrap());
        Self { init, lines }
    }

    /// With a command that prints each signal; its pid.
    fn printing(options: &[&str]) -> (Self, u32) {
        let mut running = Self::start(&mut init(&[options, &["--", "python3", SIGNALS]].concat()));
        let pid = running.line().parse().unwrap();
        (running, pid)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn send(&self, signal: i32) {
        send(self.init.id(), signal);
    }

    #[track_caller]
    fn ends_with(mut self, status: i32) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert_eq!(self.init.wait().unwrap().code(), Some(status), "{rest}");
    }
}

#[test]
fn user_the_status_of_the_command_is_passed_through() {
    for status in [0, 1, 2, 7, 125, 126, 127, 128, 254, 255] {
        assert_eq!(output(&["sh", "-c", &format!("exit {status}")]).0, Some(status));
    }
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGKILL, libc::SIGSEGV] {
        for options in [&["--"][..], &["-c", "--"]] {
            let script = format!("ulimit -c 0; kill -{signal} $$");
            let words = [options, &["sh", "-c", &script]].concat();
            assert_eq!(output(&words), (Some(128 + signal), String::new(), String::new()), "{words:?}");
        }
    }
    assert_eq!(output(&["-e", "143", "-e", "3", "sh", "-c", "exit 3"]).0, Some(0));
    assert_eq!(output(&["-e", "143", "sh", "-c", "kill -TERM $$"]).0, Some(0));
    assert_eq!(output(&["-e", "143", "sh", "-c", "exit 3"]).0, Some(3));
}

#[test]
fn user_a_command_that_cannot_be_executed_is_126_and_none_127() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/nonexistent/interpreter\n").unwrap();
    let script = script.to_str().unwrap();
    let says = |words: &[&str], status: i32, text: &str| {
        assert_eq!(output(words), (Some(status), String::new(), text.to_owned()));
    };
    says(
        &["/doesnotexist"],
        127,
        "supervise init: executing `/doesnotexist`: no such file or directory\n\
         hint: a path with a slash is relative to the working directory\n",
    );
    says(
        &["--single-child", "--", "does-not-exist", "-x"],
        127,
        "supervise init: executing `does-not-exist`: no such file or directory\n\
         hint: no directory of PATH has it\n",
    );
    says(
        &[script],
        126,
        &format!(
            "supervise init: executing `{script}`: permission denied\n\
             hint: `chmod +x` makes a file executable; a file system may be mounted `noexec`\n"
        ),
    );
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    says(
        &[script],
        127,
        &format!(
            "supervise init: executing `{script}`: no such file or directory\n\
             hint: it is there, but what interprets it (after its `#!`) or loads it is not\n"
        ),
    );
    says(
        &["--yolo", "true"],
        125,
        "supervise init: unknown option `--yolo`\n\
         hint: `supervise init --help` lists them; options of the command come after its name\n",
    );
}

/// All but what ends a process at once or stops it, and SIGCHLD, whose meaning is another.
fn ordinary() -> impl Iterator<Item = i32> {
    let other =
        [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, 32, 33];
    (1..=64).filter(move |signal| !other.contains(signal))
}

#[test]
fn user_every_signal_is_sent_on() {
    for options in [&[][..], &["-c"], &["--verbose"]] {
        let (mut running, pid) = Running::printing(options);
        for signal in ordinary() {
            running.send(signal);
            assert_eq!(running.line(), signal.to_string());
        }
        send(pid, libc::SIGKILL);
        running.ends_with(137);
    }
}

#[test]
fn user_signals_are_rewritten_and_dropped() {
    let rewrites = ["-r", "TERM:INT", "-r", "2:SIGTERM", "-r", "31:1", "--rewrite=1:31", "-r", "QUIT:0"];
    for options in [&rewrites[..], &[&rewrites[..], &["-c"]].concat()] {
        let (mut running, pid) = Running::printing(options);
        for (sent, comes) in [(15, 2), (2, 15), (31, 1), (1, 31), (18, 18)] {
            running.send(libc::SIGQUIT); // of which nothing is to be seen
            running.send(sent);
            assert_eq!(running.line(), comes.to_string());
        }
        send(pid, libc::SIGKILL);
        running.ends_with(137);
    }
    // The later of two counts.
    let (mut running, pid) = Running::printing(&["-r", "TERM:0", "-r", "TERM:QUIT"]);
    running.send(15);
    assert_eq!(running.line(), "3");
    send(pid, libc::SIGKILL);
    running.ends_with(137);
}

#[test]
fn user_signals_reach_the_whole_group_or_the_command_alone() {
    // The command ignores USR1, the process below it does not.
    let script = "import os, signal, sys\n\
                  signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n\
                  pid = os.fork()\n\
                  if pid == 0:\n    signal.signal(signal.SIGUSR1, signal.SIG_DFL)\n    print(os.getpid(), flush=True)\n    \
                  signal.pause()\n\
                  sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) + 100)";
    let mut running = Running::start(&mut init(&["python3", "-c", script]));
    running.line();
    running.send(libc::SIGUSR1);
    running.ends_with(100 - libc::SIGUSR1);
    let mut running = Running::start(&mut init(&["--single-child", "python3", "-c", script]));
    let below: u32 = running.line().parse().unwrap();
    running.send(libc::SIGUSR1);
    running.send(libc::SIGTERM);
    assert_eq!(running.init.wait().unwrap().code(), Some(143));
    assert!(lives(below), "a signal for the command alone went further");
    send(below, libc::SIGKILL);
}

#[test]
fn user_what_is_left_of_the_group_gets_term_when_the_command_has_ended() {
    let script = format!("python3 {SIGNALS} & read line <&3");
    for (options, wanted) in [(&["--"][..], "15"), (&["-r", "TERM:HUP", "--"], "1"), (&["-c", "--"], "")] {
        let (read, write) = std::io::pipe().unwrap();
        let mut command = init(&[options, &["sh", "-c", &format!("exec 3<&0; {script}")]].concat());
        let mut running = Running::start(command.stdin(read));
        drop(command);
        let left: u32 = running.line().parse().unwrap();
        drop(write); // and so the command ends
        assert!(running.init.wait().unwrap().code().is_some());
        if wanted.is_empty() {
            send(left, libc::SIGUSR2);
            assert_eq!(running.line(), libc::SIGUSR2.to_string());
        } else {
            assert_eq!(running.line(), wanted);
        }
        send(left, libc::SIGKILL);
    }
}

#[test]
fn user_job_control_stops_init_and_the_command() {
    for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        let (mut running, pid) = Running::printing(&[]);
        let number = running.init.id();
        running.send(signal);
        until("both to stop", || is_stopped(pid) && is_stopped(number));
        running.send(libc::SIGCONT);
        assert_eq!(running.line(), libc::SIGCONT.to_string());
        assert!(!is_stopped(pid) && !is_stopped(number));
        // With another signal for it, or in the same session, the command decides.
        send(pid, libc::SIGKILL);
        running.ends_with(137);
        let rewrite = format!("{signal}:HUP");
        for (options, comes) in [(&["-r", &rewrite][..], libc::SIGHUP), (&["-c"], signal)] {
            let (mut running, pid) = Running::printing(options);
            let number = running.init.id();
            running.send(signal);
            assert_eq!(running.line(), comes.to_string());
            until("init to stop", || is_stopped(number));
            assert!(!is_stopped(pid));
            running.send(libc::SIGCONT);
            assert_eq!(running.line(), libc::SIGCONT.to_string());
            send(pid, libc::SIGKILL);
            running.ends_with(137);
        }
    }
}

#[test]
fn user_the_command_has_the_mask_and_the_ignored_signals_of_before() {
    let script = "import os, signal, sys\n\
                  signal.signal(signal.SIGHUP, signal.SIG_IGN)\n\
                  signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
                  signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n\
                  signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n\
                  signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n\
                  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGTTIN, signal.SIGRTMIN])\n\
                  os.execv(sys.argv[1], ['supervise', 'init', 'python3', '-c', \n\
                  'import sys; print(open(\"/proc/self/status\").read()); sys.exit(9)'])";
    let (status, out, _) =
        told(Command::new("python3").args(["-c", script, BINARY]).stdin(Stdio::null()).output().unwrap());
    // With SIGCHLD ignored the kernel would have kept the status from a parent.
    assert_eq!(status, Some(9), "{out}");
    let set = |name: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let bits = u64::from_str_radix(line.trim(), 16).unwrap();
        // Of Python itself, and of the C library.
        let other = [libc::SIGPIPE, libc::SIGXFSZ, 32, 33];
        (1..=64).filter(|one| bits & 1 << (one - 1) != 0 && !other.contains(one)).collect::<Vec<i32>>()
    };
    assert_eq!(set("SigIgn:"), [libc::SIGHUP, libc::SIGCHLD, libc::SIGTTOU]);
    assert_eq!(set("SigBlk:"), [libc::SIGTERM, libc::SIGTTIN, libc::SIGRTMIN()]);
}

#[test]
fn user_the_command_keeps_its_directory_and_init_does_not() {
    let (status, out, _) = told(
        init(&["sh", "-c", "readlink /proc/$PPID/cwd /proc/$$/cwd"]).current_dir("/usr").output().unwrap(),
    );
    assert_eq!((status, out.as_str()), (Some(0), "/\n/usr\n"));
}

#[test]
fn user_a_subreaper_takes_in_orphans_and_says_so() {
    for options in [&["-s"][..], &["-s", "-w"], &["-s", "-c"]] {
        let words = [options, &["--", "python3", ORPHANS, "60"]].concat();
        let (status, out, err) = output(&words);
        assert_eq!((status, out.as_str()), (Some(0), "0 left\n"), "{words:?}: {err}");
        let said = err.lines().filter(|line| line.starts_with("supervise init: reaped process ")).count();
        assert_eq!(said, if options.contains(&"-w") { 60 } else { 0 }, "{err}");
    }
    let (status, _, err) = output(&["-w", "python3", ORPHANS, "3"]);
    assert_eq!((status, err.as_str()), (Some(0), ""), "orphans came to it uninvited");
}

#[test]
fn user_the_death_of_the_parent_is_sent_on() {
    // The parent of init is a shell that ends when the command has told its pid.
    let script = format!("{BINARY} init -p USR1 -- python3 {SIGNALS} & read line; exit 0");
    let (read, write) = std::io::pipe().unwrap();
    let mut shell = Running::start(Command::new("sh").args(["-c", &script]).stdin(read));
    let pid: u32 = shell.line().parse().unwrap();
    drop(write);
    assert!(shell.init.wait().unwrap().success());
    assert_eq!(shell.line(), libc::SIGUSR1.to_string());
    send(pid, libc::SIGKILL);
    // KILL leaves no time: the command has to go with init.
    let script = format!("{BINARY} init -p KILL -- sh -c 'echo $$; read line' & read line; exit 0");
    let (read, write) = std::io::pipe().unwrap();
    let mut shell = Running::start(Command::new("sh").args(["-c", &script]).stdin(read));
    let pid: u32 = shell.line().parse().unwrap();
    drop(write);
    assert!(shell.init.wait().unwrap().success());
    until("the command to go", || !lives(pid));
}

#[test]
fn user_without_standard_descriptors_it_works() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("told");
    let script =
        format!("ls -l /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >{} 2>&1; exit 5", file.display());
    let line = "exec \"$0\" init -v sh -c \"$1\" <&- >&- 2>&-";
    let status = Command::new("sh").args(["-c", line, BINARY, &script]).status().unwrap();
    assert_eq!(status.code(), Some(5), "{:?}", std::fs::read_to_string(&file));
}

#[test]
fn user_sockets_that_were_for_init_are_for_the_command() {
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ WATCHDOG_PID=7 exec \"$0\" init sh -c 'echo $LISTEN_PID $$ $WATCHDOG_PID'";
    let (status, out, _) = told(Command::new("sh").args(["-c", script, BINARY]).output().unwrap());
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!((status, words[0], words[2]), (Some(0), words[1], "7"));
}

#[test]
fn user_the_command_gets_the_terminal() {
    // Told by the command: it leads the session, or does not, and is in the foreground in either case.
    let script = "import os; print('leads' if os.getsid(0) == os.getpid() else 'follows', \
                  'before' if os.tcgetpgrp(0) == os.getpgrp() else 'behind', flush=True)";
    for (options, wanted) in [("", "leads before\n"), ("-c", "follows before\n")] {
        let mut command = Command::new("python3");
        command.args([TERMINAL, "", BINARY, "init"]);
        command.args(Some(options).filter(|one| !one.is_empty())).args(["--", "python3", "-c", script]);
        assert_eq!(told(command.output().unwrap()), (Some(0), wanted.to_owned(), String::new()));
    }
}

#[test]
fn user_keys_of_the_terminal_reach_the_command_once() {
    // Ctrl-C, Ctrl-\ and the end of input; the command prints what it gets.
    for options in ["--verbose", "-c"] {
        let output = Command::new("python3")
            .args([TERMINAL, "\u{3}\u{1c}\u{3}", BINARY, "init", options, "--", "python3", SIGNALS, "3"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let (status, out, _) = told(output);
        let numbers: Vec<&str> =
            out.lines().filter(|line| line.bytes().all(|byte| byte.is_ascii_digit())).collect();
        assert_eq!((status, &numbers[1..]), (Some(0), &["2", "3", "2"][..]), "{options}: {out}");
        assert!(!out.contains("HUP as"), "the handing over of the terminal was sent on: {out}");
    }
}

/// The same words in a pid namespace of its own, as PID 1.
fn as_pid_one(words: &[&str]) -> Command {
    assert!(nix::unistd::geteuid().is_root(), "needs root: it makes a pid namespace");
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "--kill-child", BINARY, "init"]).args(words);
    command.stdin(Stdio::null());
    command
}

#[test]
fn root_pid_one_reaps_whatever_there_is() {
    let (status, out, err) = told(as_pid_one(&["python3", ORPHANS, "3000"]).output().unwrap());
    assert_eq!((status, out.as_str()), (Some(0), "0 left\n"), "{err}");
}

#[test]
fn root_pid_one_gets_the_signals_that_it_has_no_handler_for() {
    let mut running = Running::start(&mut as_pid_one(&["-r", "PWR:TERM", "--", "python3", SIGNALS]));
    running.line();
    let below = process::children(running.init.id()).unwrap();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1] {
        send(below[0], signal);
        assert_eq!(running.line(), signal.to_string());
    }
    send(below[0], libc::SIGPWR);
    assert_eq!(running.line(), "15");
    send(process::children(below[0]).unwrap()[0], libc::SIGKILL);
    running.ends_with(137);
}

#[test]
fn root_pid_one_needs_neither_proc_nor_dev() {
    assert!(nix::unistd::geteuid().is_root(), "needs root: it makes a mount namespace");
    let script =
        "mount -t tmpfs none /proc && mount -t tmpfs none /dev && exec \"$0\" init sh -c 'echo up; exit 4'";
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--mount", "--kill-child", "sh", "-c", script, BINARY]);
    let (status, out, err) = told(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!((status, out.as_str(), err.as_str()), (Some(4), "up\n", ""));
}

#[test]
fn user_the_name_of_init_is_as_it_was_given() {
    // argv[0] is nobody's business: a link by any name is still this program.
    let (status, out, _) = told(init(&["sh", "-c", "echo $0", "x"]).arg0("tini").output().unwrap());
    assert_eq!((status, out.as_str()), (Some(0), "x\n"));
}
