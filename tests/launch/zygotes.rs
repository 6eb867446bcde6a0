//! The zygote: whose children they are, what it survives, and what ends it.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use supervise::launch::Stage;
use supervise::sys::link::Link;
use supervise::sys::{fds, gate};
use supervise::wire::zygote::{Reply, Spawn};
use supervise::zygote;

use crate::host::{Host, forked, refuse, shell, wait};

fn signal(pid: i32, number: i32) {
    // SAFETY: a signal to a child that this test made and has not reaped.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

#[test]
fn user_children_are_the_parent_s_and_it_sees_how_they_end() {
    let host = Host::start();
    let started = host.ask(&shell("echo parent: $PPID; exit 7").encode().unwrap(), &[], None);
    let (pid, pidfd) = (started.pid(), started.pidfd.as_ref().unwrap().as_raw_fd());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{pidfd}")).unwrap();
    assert!(info.contains(&format!("\nPid:\t{pid}\n")), "{info}");
    let outcome = started.go();
    assert_eq!(outcome.output, format!("parent: {}\n", std::process::id()));
    assert_eq!((outcome.end, outcome.failure), (7, None));
    let killed = host.run(&shell("kill -KILL $$"));
    assert_eq!((killed.end, killed.failure), (-libc::SIGKILL, None));
}

#[test]
fn user_nothing_runs_behind_a_lost_gate() {
    let host = Host::start();
    let outcome = host.ask(&shell("echo ran").encode().unwrap(), &[], None).rest();
    assert_eq!(outcome.failure, Some((Stage::Gate, 0, 0)));
    assert_eq!(outcome.output, "");
}

#[test]
fn user_a_waiting_child_outlives_the_zygote_and_does_not_hold_its_link() {
    let mut host = Host::start();
    let started = host.ask(&shell("echo ran").encode().unwrap(), &[], None);
    signal(host.zygote, libc::SIGKILL);
    assert_eq!(wait(std::mem::replace(&mut host.zygote, 0)), -libc::SIGKILL);
    gate::wait_readable(host.link().as_fd()).unwrap();
    assert_eq!(host.link().receive(&mut [0], &mut []).unwrap(), None, "the child holds the link");
    assert_eq!(started.go().output, "ran\n");
}

#[test]
fn user_signals_do_not_end_the_zygote() {
    let host = Host::start();
    host.run(&shell(":"));
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGPIPE] {
        signal(host.zygote, number);
    }
    assert_eq!(host.run(&shell("echo ran")).output, "ran\n");
    assert_eq!(host.end(), 0);
}

#[test]
fn user_where_clone3_is_refused_the_older_call_does() {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
        let host = Host::start_after(|| refuse(libc::SYS_clone3, None, errno));
        for cgroup in [false, true] {
            let root = std::fs::File::open("/").unwrap();
            let image = shell("echo parent: $PPID; grep ^SigIgn /proc/$$/status").encode().unwrap();
            let started = host.ask(&image, &[], cgroup.then_some(root.as_fd()));
            let Reply::Spawned { cgroup_errno, old_clone, .. } = started.reply else { panic!("refused") };
            assert!(old_clone && started.pidfd.is_some());
            assert_eq!(cgroup_errno != 0, cgroup);
            let expected = format!("parent: {}\nSigIgn:\t0000000000000000\n", std::process::id());
            assert_eq!(started.go().output, expected);
        }
    }
}

#[test]
fn user_a_directory_that_is_no_cgroup_is_left_out_and_said() {
    let root = std::fs::File::open("/").unwrap();
    let host = Host::start();
    let started = host.ask(&shell("echo ran").encode().unwrap(), &[], Some(root.as_fd()));
    let Reply::Spawned { cgroup_errno, old_clone, .. } = started.reply else { panic!("refused") };
    assert_eq!((i32::from(cgroup_errno), old_clone), (libc::EBADF, false));
    assert_eq!(started.go().output, "ran\n");
}

#[test]
fn user_when_no_process_can_be_had_the_manager_hears_why() {
    let host = Host::start_after(|| refuse(libc::SYS_clone3, None, libc::EAGAIN));
    let started = host.ask(&shell("echo ran").encode().unwrap(), &[], None);
    assert_eq!(started.reply, Reply::Refused { request: 42, errno: libc::EAGAIN });
}

#[test]
fn user_malformed_messages_are_counted_and_what_they_brought_is_closed() {
    let host = Host::start();
    let (read, write) = fds::pipe(0).unwrap();
    host.link().send(b"garbage", &[write.as_fd()]).unwrap();
    host.link().send(&[9; 40], &[write.as_fd()]).unwrap();
    let spawn = Spawn { request: 5, sockets: 0, cgroup: false };
    host.link().send(&spawn.encode(), &[write.as_fd(); 5]).unwrap();
    drop(write);
    assert_eq!(host.reply().0, Reply::Refused { request: 5, errno: libc::EBADMSG });
    let many: Vec<_> = (0..100).map(|_| read.as_fd()).collect();
    host.link().send(&Spawn { request: 6, ..spawn }.encode(), &many).unwrap();
    assert_eq!(host.reply().0, Reply::Refused { request: 6, errno: libc::EMFILE });
    assert_eq!(fds::read(read.as_fd(), &mut [0]).unwrap(), 0, "a descriptor stayed open");
    assert_eq!(host.run(&shell("echo ran")).output, "ran\n");
    assert_eq!(host.end(), 3);
}

#[test]
fn user_a_full_link_only_makes_it_wait() {
    let host = Host::start();
    let mut sent = 0_u64;
    let spawn = Spawn { request: 0, sockets: 0, cgroup: false };
    let zygote_waits = || {
        let wchan = std::fs::read_to_string(format!("/proc/{}/syscall", host.zygote)).unwrap();
        // poll(2) for room to write: the second number is the array, the third the count, the fourth forever.
        wchan.starts_with("7 ")
    };
    // Until our own queue is full as well, which happens only once the zygote has stopped reading.
    loop {
        match host.link().send(&Spawn { request: sent, ..spawn }.encode(), &[]) {
            Ok(()) => sent += 1,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && zygote_waits() => break,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    for request in 0..sent {
        assert_eq!(host.reply().0, Reply::Refused { request, errno: libc::EBADMSG });
    }
    assert_eq!(host.run(&shell("echo ran")).output, "ran\n");
}

/// A command that has been executed may say something at once: by then its launch is seen to have succeeded.
#[test]
fn user_a_report_ends_when_the_command_executes_however_long_an_answer_takes() {
    let host = Host::start_after(|| refuse(libc::SYS_sendmsg, None, libc::ENOMEM)); // which it tries for ever
    let [gate, status, output] = host.begin(&shell("echo ran").encode().unwrap(), &[], None);
    assert_eq!(fds::write(gate.as_fd(), b"x").unwrap(), 1);
    let said = [output, status].map(|fd| {
        let mut one = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        let comes = poll(&mut one, 30_000_u16).unwrap() == 1;
        let mut bytes = [0; 64];
        comes.then(|| fds::read(fd.as_fd(), &mut bytes).map(|count| bytes[..count].to_vec()).unwrap())
    });
    signal(host.zygote, libc::SIGKILL); // nothing else ends it
    assert_eq!(said, [Some(b"ran\n".to_vec()), Some(vec![])], "its report goes on behind its first words");
}

#[test]
fn user_an_orphan_clones_nothing() {
    let (ours, theirs) = Link::pair().unwrap();
    let stranger = std::process::id() + 1;
    let pid = forked(theirs.into_fd(), |link| match zygote::serve(Link::from_fd(link), stranger).why {
        zygote::End::Parent => 50,
        zygote::End::Link | zygote::End::Broken(_) => 51,
    });
    let null = std::fs::File::open("/dev/null").unwrap();
    let spawn = Spawn { request: 1, sockets: 0, cgroup: false };
    ours.send(&spawn.encode(), &[null.as_fd(); 6]).unwrap();
    assert_eq!(wait(pid), 50);
    assert_eq!(ours.receive(&mut [0; 16], &mut []).unwrap(), None);
}

/// Not a test: the zygote's own start, for the tests below, which execute this file again.
#[test]
#[ignore = "becomes a zygote; the tests that need one start it"]
fn entry_zygote() {
    let parent = std::env::var_os("ZYGOTE_PARENT").expect("only as another test's child");
    let code = zygote::main(vec!["--parent".into(), parent]);
    assert!(code == std::process::ExitCode::SUCCESS, "it did not end well");
}

fn executed_zygote(parent: u32) -> (Link, std::process::Child) {
    let (ours, theirs) = Link::pair().unwrap();
    let mut command = Command::new("/proc/self/exe");
    command.args(["--ignored", "--exact", "zygotes::entry_zygote", "--test-threads=1", "-q"]);
    command.env("ZYGOTE_PARENT", parent.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    let number = theirs.as_raw_fd();
    // SAFETY: dup2 is all the child does, and the number is open in it.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(number, 3) == 3 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
    (ours, command.spawn().unwrap())
}

fn answers(link: &Link) -> bool {
    link.send(&Spawn { request: 8, sockets: 0, cgroup: false }.encode(), &[]).unwrap();
    gate::wait_readable(link.as_fd()).unwrap();
    matches!(link.receive(&mut [0; 16], &mut [None]), Ok(Some(_)))
}

#[test]
fn user_the_executed_zygote_serves_until_its_link_ends() {
    let (link, mut process) = executed_zygote(std::process::id());
    assert!(answers(&link));
    drop(link);
    assert!(process.wait().unwrap().success());
    let (link, mut process) = executed_zygote(std::process::id() + 1);
    assert_eq!(process.wait().unwrap().code(), Some(101), "it served a stranger");
    assert_eq!(link.receive(&mut [0; 16], &mut []).unwrap(), None);
}

#[test]
fn user_the_executed_zygote_dies_with_its_parent() {
    // The tie is to the thread that made it, which is all the parent there is in a process with one thread.
    let maker = std::thread::spawn(|| {
        let (link, process) = executed_zygote(std::process::id());
        assert!(answers(&link));
        (link, process)
    });
    let (_link, mut process) = maker.join().unwrap();
    assert_eq!(process.wait().unwrap().signal(), Some(libc::SIGKILL));
}
