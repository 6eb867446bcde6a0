//! A command on a terminal has one of its own, does there what it would on any, and leaves the client's as it was.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use supervise::sys::pty::{self, Window};

use super::gunicorn::python;
use super::place::{Place, Who};
use super::supervisor::Role;
use super::{processes, wait};

const UNIT: &str = "command = [\"/bin/sleep\", \"1000\"]\nsettle = \"10ms\"\numask = \"0077\"\n\
                    environment = { PS1 = \"ready> \", TERM = \"of-the-unit\" }\n";

/// A terminal as a person sits at one, with a process that leads its session.
struct Screen {
    child: Child,
    master: File,
    slave: OwnedFd,
    seen: String,
    /// How it was before the client.
    before: String,
}

fn served(who: Who) -> Place {
    let mut place = Place::new(who);
    place.unit("web", UNIT);
    place.run();
    place.reaches("web", "running");
    place
}

/// `supervise exec` of this place with these arguments.
fn exec(place: &Place, arguments: &[&str]) -> Command {
    let mut client = place.command(&place.binary());
    client
        .arg("--runtime-dir")
        .arg(place.path("run"))
        .arg("exec")
        .args(arguments)
        .env("TERM", "xterm-256color");
    client
}

/// How a terminal treats what goes through it.
fn stty(terminal: &OwnedFd, what: &str) -> String {
    let output = Command::new("stty").arg(what).stdin(terminal.try_clone().unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace('\n', " ")
}

impl Screen {
    fn of(command: Command) -> Self {
        let (master, slave) = pty::open().unwrap();
        pty::set_window(master.as_fd(), Window { rows: 33, columns: 101, pixels: (0, 0) }).unwrap();
        let copy = || slave.try_clone().unwrap();
        // The leader of a session, with the terminal as the one that controls it.
        let mut leader = Command::new("setsid");
        // Whoever runs the tests behind `nohup` has everything ignore it.
        leader
            .args(["--ctty", "env", "--default-signal=HUP"])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir("/")
            .env_clear();
        leader.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        leader.stdin(copy()).stdout(copy()).stderr(copy());
        Self::started(leader, master, slave)
    }

    /// A command that has its three descriptors.
    fn started(mut command: Command, master: OwnedFd, slave: OwnedFd) -> Self {
        let before = stty(&slave, "-g");
        let child = command.spawn().unwrap();
        Self { child, master: master.into(), slave, seen: String::new(), before }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Takes in what has come within a moment; false once nothing can come any more.
    fn looks(&mut self) -> bool {
        let mut one = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut one, PollTimeout::from(20_u8)).unwrap() == 0 {
            return true;
        }
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(count) => self.seen += &String::from_utf8_lossy(&bytes[..count]),
            Err(_) => return false,
        }
        true
    }

    /// Waits until this is to be seen; what was up to there.
    #[track_caller]
    fn shows(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                return self.seen.drain(..at + text.len()).collect();
            }
            assert!(
                self.looks() && began.elapsed() < wait::LONG,
                "waited in vain for {text:?}; there is {:?}",
                self.seen
            );
        }
    }

    /// Whether what is typed is passed on byte by byte.
    fn is_raw(&self) -> bool {
        let said = stty(&self.slave, "-a");
        ["-icanon", "-isig", "-echo", "-icrnl", "-opost"]
            .iter()
            .all(|word| said.contains(&format!("{word} ")))
    }

    /// Whether it is as it was before the client.
    fn is_put_back(&self) -> bool {
        stty(&self.slave, "-g") == self.before
    }

    /// Waits for the end of the client; what was still shown.
    #[track_caller]
    fn ends(&mut self) -> (ExitStatus, String) {
        let status = wait::until(wait::LONG, "the client's end", || {
            self.looks();
            self.child.try_wait().unwrap()
        });
        // What the client wrote comes before what is written behind it.
        const END: &str = "<the end>";
        let mut behind = File::from(self.slave.try_clone().unwrap());
        let written = std::thread::spawn(move || behind.write_all(END.as_bytes()));
        let mut rest = self.shows(END);
        written.join().unwrap().unwrap();
        rest.truncate(rest.len() - END.len());
        (status, rest)
    }
}

#[test]
fn root_a_command_on_a_terminal_has_one_of_its_own() {
    let place = served(Who::Root);
    let script = "echo ttys $(tty) $(readlink /proc/self/fd/0) $(readlink /proc/self/fd/2); stat -c 'owner %u %a' $(tty); \
                  echo size $(stty size) term $TERM; cut -d' ' -f5-8 /proc/$$/stat; echo pid $$; exit 3";
    let mut screen = Screen::of(exec(&place, &["web", "--", "sh", "-c", script]));
    let (status, said) = screen.ends();
    let own = std::fs::read_link(format!("/proc/self/fd/{}", screen.slave.as_raw_fd())).unwrap();
    assert_eq!(status.code(), Some(3), "{said}");
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    let ttys: Vec<String> = line("ttys ").split(' ').skip(1).map(str::to_owned).collect();
    assert!(ttys[0].starts_with("/dev/pts/") && ttys.iter().all(|one| *one == ttys[0]), "{said}");
    assert_ne!(ttys[0], own.to_string_lossy(), "the client's own");
    let owner = line("owner ");
    let mode = owner.rsplit(' ').next().unwrap();
    assert!(
        owner.starts_with(&format!("owner {} ", place.account.uid)) && ["600", "620"].contains(&mode),
        "{said}"
    );
    assert_eq!(line("size "), "size 33 101 term xterm-256color", "{said}");
    // It leads its process group and session, the terminal is the session's, and it is in the foreground there.
    let pid = line("pid ")[4..].to_owned();
    let stat = said.lines().find(|line| line.starts_with(&format!("{pid} {pid} "))).unwrap();
    let fields: Vec<&str> = stat.split(' ').collect();
    assert!(fields[2] != "0" && fields[3] == pid, "{said}");
    assert!(screen.is_put_back());
    // Nothing of ours has kept it.
    assert!(
        !std::path::Path::new(&ttys[0]).exists()
            || std::fs::metadata(&ttys[0]).unwrap().uid() != place.account.uid
    );
}

#[test]
fn user_bash_controls_its_jobs() {
    let place = served(Who::User);
    let mut screen =
        Screen::of(exec(&place, &["web", "--", "bash", "--norc", "--noprofile", "--noediting", "-i"]));
    screen.shows("ready> ");
    assert!(screen.is_raw());
    screen.types("sleep 1000\r");
    screen.shows("sleep 1000\r\n");
    let asleep = || {
        let pid = processes::of(place.root()).into_iter().find(|pid| {
            processes::arguments(*pid) == ["sleep", "1000"]
                && processes::stat(*pid).is_some_and(|one| one.parent != 1)
        })?;
        Some(pid)
    };
    wait::until(wait::LONG, "the job", asleep);
    screen.types("\u{3}");
    screen.shows("ready> ");
    screen.types("sleep 1000\r");
    screen.shows("sleep 1000\r\n");
    wait::until(wait::LONG, "the second job", asleep);
    screen.types("\u{1a}");
    screen.shows("Stopped");
    screen.shows("ready> ");
    screen.types("jobs; echo 4$((1+1))\r");
    screen.shows("42\r\n");
    screen.types("fg\r");
    screen.shows("sleep 1000\r\n");
    // It has the terminal before it goes on.
    let goes_on = || (processes::stat(asleep()?)?.state != 'T').then_some(());
    wait::until(wait::LONG, "the job to go on", goes_on);
    screen.types("\u{3}");
    screen.shows("ready> ");
    screen.types("exit 4\r");
    let (status, said) = screen.ends();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(screen.is_put_back());
}

#[test]
fn user_python_reads_until_the_end_of_input() {
    let place = served(Who::User);
    let mut screen = Screen::of(exec(&place, &["web", "--", python(), "-q"]));
    screen.shows(">>> ");
    screen.types("print(6*7)\r");
    screen.shows("42\r\n");
    screen.types("input('na' 'me? ')\r"); // what is typed is shown as well
    screen.shows("name? ");
    screen.types("w\u{f6}b\u{7f}\u{7f}eb\r");
    screen.shows("'web'");
    // Before it reads the next line, the terminal itself would take an end of input for that of a line.
    screen.shows(">>> ");
    screen.types("\u{4}");
    assert_eq!(screen.ends().0.code(), Some(0));
}

#[test]
fn user_a_window_that_changes_is_another_for_the_command() {
    let place = served(Who::User);
    let script = "trap 'stty size; exit 6' WINCH; echo there; while :; do sleep 1000 & wait; done";
    let mut screen = Screen::of(exec(&place, &["web", "--", "sh", "-c", script]));
    screen.shows("there");
    pty::set_window(screen.master.as_fd(), Window { rows: 50, columns: 132, pixels: (1, 2) }).unwrap();
    screen.shows("50 132");
    assert_eq!(screen.ends().0.code(), Some(6));
}

#[test]
fn user_a_terminal_is_put_back_on_every_way_out() {
    let place = served(Who::User);
    let begun = || {
        let mut screen =
            Screen::of(exec(&place, &["web", "--", "sh", "-c", "echo pid $$; trap '' HUP; exec sleep 1000"]));
        screen.shows("pid ");
        let pid: u32 = screen.shows("\r\n").trim().parse().unwrap();
        assert!(screen.is_raw());
        (screen, pid)
    };
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let (mut screen, pid) = begun();
        processes::signal(screen.child.id(), signal);
        let (status, said) = screen.ends();
        assert_eq!((status.code(), status.signal()), (Some(128 + signal), None), "{said}");
        assert!(screen.is_put_back(), "after signal {signal}");
        // One that does not heed the end of its terminal is ended as well.
        wait::until(wait::LONG, "the command's end", || (!processes::lives(pid)).then_some(()));
    }
    // What cannot be executed is said on a terminal as it was.
    let mut screen = Screen::of(exec(&place, &["web", "--", "no-such-program"]));
    let (status, said) = screen.ends();
    assert_eq!((status.code(), screen.is_put_back()), (Some(127), true), "{said}");
    assert!(said.contains("no-such-program: not found in ") && said.contains("\r\nhint: "), "{said:?}");
}

#[test]
fn user_a_client_that_is_stopped_gives_the_terminal_back_until_it_goes_on() {
    let place = served(Who::User);
    // Below a shell that stops it, as it is below a person's.
    let mut shell = place.command("bash".as_ref());
    shell.args(["--norc", "--noprofile", "--noediting", "-i"]).env("PS1", "outer> ").env("TERM", "xterm");
    let mut screen = Screen::of(shell);
    screen.shows("outer> ");
    screen.types(&format!(
        "{} --runtime-dir {} exec web -- sh -c 'echo p''id $PPID; read a; echo got $a; exit 9'\r",
        place.binary().display(),
        place.path("run").display()
    ));
    screen.shows("pid ");
    wait::until(wait::LONG, "a raw terminal", || screen.is_raw().then_some(()));
    let client = wait::until(wait::LONG, "the client", || {
        processes::all().into_iter().find(|pid| {
            let words = processes::arguments(*pid);
            words.iter().any(|word| word == "exec")
                && words.first() == Some(&place.binary().display().to_string())
        })
    });
    processes::signal(client, libc::SIGTSTP);
    screen.shows("Stopped");
    screen.shows("outer> ");
    screen.types("echo o''uter\r");
    screen.shows("outer\r\n");
    screen.types("fg\r");
    wait::until(wait::LONG, "a raw terminal again", || screen.is_raw().then_some(()));
    screen.types("back\r");
    screen.shows("got back");
    screen.shows("outer> ");
    screen.types("exit $?\r");
    assert_eq!(screen.ends().0.code(), Some(9));
}

#[test]
fn user_a_terminal_that_goes_away_hangs_the_command_up() {
    let place = served(Who::User);
    let mut screen = Screen::of(exec(&place, &["web", "--", "sh", "-c", "echo pid $$; exec sleep 1000"]));
    screen.shows("pid ");
    let pid: u32 = screen.shows("\r\n").trim().parse().unwrap();
    let Screen { mut child, master, slave, .. } = screen;
    drop((master, slave));
    wait::until(wait::LONG, "the client's end", || child.try_wait().unwrap());
    wait::until(wait::LONG, "the command's end", || (!processes::lives(pid)).then_some(()));
}

#[test]
fn root_a_command_reaches_no_terminal_but_its_own() {
    let place = served(Who::Root);
    let script = "import fcntl, os, termios\n\
                  tty = open('/dev/tty', 'rb+', buffering=0)\n\
                  for fd in (0, 1, 2, tty.fileno()):\n    \
                      for byte in b'evil\\n':\n        \
                          try: fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))\n        \
                          except OSError: pass\n\
                  print('fds', sorted({os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') \
                  if os.path.exists(f'/proc/self/fd/{n}')}))\n";
    let mut screen = Screen::of(exec(&place, &["web", "--", python(), "-c", script]));
    let own = std::fs::read_link(format!("/proc/self/fd/{}", screen.slave.as_raw_fd())).unwrap();
    let (status, said) = screen.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("fds [") && !said.contains(&format!("'{}'", own.display())), "{said}");
    // Nothing is there as if somebody had typed it.
    supervise::sys::fds::set_nonblocking(screen.slave.as_fd(), true).unwrap();
    let read = supervise::sys::fds::read(screen.slave.as_fd(), &mut [0; 16]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn user_pipes_and_terminals_are_chosen_as_they_are_there() {
    let place = served(Who::User);
    let what = "test -t 0 && echo terminal || echo pipe";
    let on_screen = |arguments: &[&str]| {
        let mut screen = Screen::of(exec(&place, &[arguments, &["web", "--", "sh", "-c", what]].concat()));
        screen.ends().1.trim().to_owned()
    };
    assert_eq!(on_screen(&[]), "terminal");
    assert_eq!(on_screen(&["-T"]), "pipe");
    assert_eq!(on_screen(&["--no-tty"]), "pipe");
    // A pipe before it, as `echo x | supervise exec`.
    let (master, slave) = pty::open().unwrap();
    let mut client =
        exec(&place, &["web", "--", "sh", "-c", "read a; test -t 1 && echo terminal $a || echo pipe $a"]);
    let (read, write) = supervise::sys::fds::pipe(0).unwrap();
    client.stdin(read).stdout(slave.try_clone().unwrap()).stderr(Stdio::null());
    File::from(write).write_all(b"x\n").unwrap();
    let mut screen = Screen::started(client, master, slave);
    assert_eq!(screen.ends().1.trim(), "pipe x");
    // No terminal anywhere, and one is insisted on: what is read ends with the input.
    let mut client = exec(
        &place,
        &["-t", "web", "--", "sh", "-c", &format!("{what}; stty size; echo $TERM; cat; exit 5")],
    );
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(b"first\nlast").unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    // What is typed is shown where the command has come to by then.
    let all = ["terminal\r\n", "24 80\r\n", "xterm-256color\r\n"];
    assert!(all.iter().all(|line| said.contains(line)), "{said:?}");
    assert!(said.ends_with("first\r\nlast") || said.contains("first\r\nlastlast"), "{said:?}");
}

#[test]
fn user_what_a_command_writes_last_is_shown_to_its_end() {
    let place = served(Who::User);
    // What it leaves behind has the terminal open.
    let script = "seq 1 20000; (trap '' HUP; exec sleep 1000) & exit 0";
    let mut screen = Screen::of(exec(&place, &["web", "--", "sh", "-c", script]));
    let (status, said) = screen.ends();
    assert_eq!(status.code(), Some(0));
    assert!(said.ends_with("19999\r\n20000\r\n") && said.len() > 100_000, "{} bytes", said.len());
}

#[test]
fn user_a_session_goes_on_where_the_manager_dies() {
    let mut place = served(Who::User);
    let mut screen =
        Screen::of(exec(&place, &["web", "--", "bash", "--norc", "--noprofile", "--noediting", "-i"]));
    screen.shows("ready> ");
    for _ in 0..2 {
        place.kill(Role::Manager);
        screen.types("echo 4$((1+1))\r");
        screen.shows("42\r\n");
        screen.shows("ready> ");
        place.reaches("web", "running");
    }
    screen.types("exit 7\r");
    let (status, said) = screen.ends();
    assert_eq!(status.code(), Some(7), "{said}");
    assert!(!said.contains("supervise:"), "{said}");
}

#[test]
fn user_a_session_goes_on_where_the_keeper_dies() {
    let mut place = served(Who::User);
    let mut screen =
        Screen::of(exec(&place, &["web", "--", "bash", "--norc", "--noprofile", "--noediting", "-i"]));
    screen.shows("ready> ");
    let dead = place.kill(Role::Keeper);
    wait::until(wait::LONG, "a keeper", || {
        let keeper = place.try_status()?["supervisor"]["keeper_pid"].as_u64()?;
        (keeper != u64::from(dead)).then_some(())
    });
    screen.types("echo 4$((1+1))\r");
    screen.shows("42\r\n");
    screen.types("exit 7\r");
    let (status, said) = screen.ends();
    assert_eq!(status.code(), Some(7), "{said}");
}

#[test]
fn user_what_is_written_after_everybody_had_closed_the_terminal_is_shown() {
    let place = served(Who::User);
    // The command is in no hurry: its client sees nobody there before it goes on.
    let script = "echo before; exec </dev/null >/dev/null 2>&1; sleep 0.4; echo after >/dev/tty; sleep 0.4; \
                  echo last >/dev/tty; exit 3";
    let mut screen = Screen::of(exec(&place, &["web", "--", "sh", "-c", script]));
    let (status, said) = screen.ends();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("before") && said.contains("after") && said.contains("last"), "{said:?}");
    assert!(screen.is_put_back());
}
