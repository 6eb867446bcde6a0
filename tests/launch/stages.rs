//! One failing test for each step that can be made to fail, and the proof that verification sees what a step
//! only claimed to have done.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use supervise::launch::{self, CPUS, Check, Job, NICE, Stage};
use supervise::plan::image::Bad;
use supervise::plan::{Identity, Limit, Passed, Resource};
use supervise::sys::{fds, identity, limits, memfd};

use crate::host::{Host, am_root, forked, need_root, refuse, shell, wait};

type Refusal = (libc::c_long, Option<u32>, i32);

fn outcome_of(refusals: &[Refusal]) -> crate::host::Outcome {
    let refusals = refusals.to_vec();
    let host = Host::start_after(move || {
        refusals.iter().for_each(|(call, first, errno)| refuse(*call, *first, *errno));
        std::mem::forget(refusals);
    });
    let mut plan = shell("echo ran");
    plan.limits = vec![Limit { resource: Resource::Core, soft: 0, hard: 0 }];
    (plan.nice, plan.cpus) = (Some(1), vec![0]);
    if am_root() {
        plan.identity = Some(Identity::new(65534, 65534, &[33]));
    }
    host.run(&plan)
}

fn fails(call: libc::c_long, first: Option<u32>, stage: Stage, detail: u32) {
    let outcome = outcome_of(&[(call, first, libc::EPERM)]);
    assert_eq!(outcome.failure, Some((stage, libc::EPERM, detail)), "call {call}");
    assert_eq!(outcome.output, "", "the command ran although {stage:?} failed");
}

#[test]
fn user_no_step_that_fails_lets_the_command_run() {
    fails(libc::SYS_pread64, None, Stage::Plan, 0);
    fails(libc::SYS_read, None, Stage::Gate, 0);
    fails(libc::SYS_setsid, None, Stage::Session, 0);
    fails(libc::SYS_dup2, None, Stage::Stdio, 0);
    fails(libc::SYS_prlimit64, None, Stage::Limits, Resource::Core as u32);
    fails(libc::SYS_setpriority, None, Stage::Limits, NICE);
    fails(libc::SYS_sched_setaffinity, None, Stage::Limits, CPUS);
    fails(libc::SYS_capset, None, Stage::Capabilities, 0);
    fails(libc::SYS_getresuid, None, Stage::Verify, 0);
    fails(libc::SYS_chdir, None, Stage::Directory, 0);
    fails(libc::SYS_getcwd, None, Stage::Directory, 0);
    fails(libc::SYS_prctl, Some(libc::PR_SET_NO_NEW_PRIVS as u32), Stage::NoNewPrivs, 0);
    fails(libc::SYS_execve, None, Stage::Exec, 0);
}

#[test]
fn root_no_step_of_identity_that_fails_lets_the_command_run() {
    need_root();
    fails(libc::SYS_setgroups, None, Stage::Groups, 0);
    fails(libc::SYS_setresgid, None, Stage::Group, 0);
    fails(libc::SYS_prctl, Some(libc::PR_CAPBSET_DROP as u32), Stage::Bounding, 0);
    fails(libc::SYS_setresuid, None, Stage::User, 0);
    fails(libc::SYS_prctl, Some(libc::PR_CAP_AMBIENT as u32), Stage::Capabilities, 0);
}

/// A call that reports success and does nothing, as a faulty filter or emulation would.
fn lies(refusals: &[(libc::c_long, Option<u32>)], check: Check) {
    let refusals: Vec<_> = refusals.iter().map(|(call, first)| (*call, *first, 0)).collect();
    let outcome = outcome_of(&refusals);
    assert_eq!((outcome.failure, outcome.output.as_str()), (Some((Stage::Verify, 0, check as u32)), ""));
}

#[test]
fn root_verification_believes_no_call_s_word() {
    need_root();
    lies(&[(libc::SYS_setresuid, None)], Check::Users);
    lies(&[(libc::SYS_setresgid, None)], Check::Groups);
    lies(&[(libc::SYS_setgroups, None)], Check::Supplementary);
    lies(&[(libc::SYS_prctl, Some(libc::PR_CAPBSET_DROP as u32))], Check::Bounding);
}

fn verified_after(prepare: impl FnOnce()) -> Option<(Stage, i32, u32)> {
    let host = Host::start_after(prepare);
    let outcome = host.run(&shell("echo ran"));
    assert_eq!(outcome.output, "");
    outcome.failure
}

#[test]
fn root_a_way_back_is_found_by_trying_it() {
    need_root();
    let failed = verified_after(|| {
        // With this bit a change of user leaves capabilities alone; then capset is made to do nothing.
        const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
        // SAFETY: this prctl touches no memory.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) }, 0);
        refuse(libc::SYS_capset, None, 0);
    });
    assert_eq!(failed, Some((Stage::Verify, 0, Check::WayBackToUser as u32)));
    let failed = verified_after(|| {
        let sets = identity::capabilities().unwrap();
        identity::set_capabilities(identity::Sets { inheritable: 1 << 10, ..sets }).unwrap();
        refuse(libc::SYS_capset, None, 0);
    });
    assert_eq!(failed, Some((Stage::Verify, 0, Check::Inheritable as u32)));
}

#[test]
fn user_what_the_system_refuses_but_no_right_depends_on_is_a_warning() {
    let outcome = outcome_of(&[(libc::SYS_keyctl, None, libc::ENOSYS)]);
    assert_eq!((outcome.warnings, outcome.failure), (vec![(Stage::Keyring, libc::ENOSYS)], None));
    assert_eq!(outcome.output, "ran\n");
    let host = Host::start_after(drop_resource_rights);
    let mut plan = shell("echo ran");
    plan.oom_score_adj = Some(-999);
    let outcome = host.run(&plan);
    assert_eq!((outcome.warnings, outcome.failure), (vec![(Stage::Oom, libc::EACCES)], None));
    assert_eq!(outcome.output, "ran\n");
}

/// Leaves a privileged zygote without the right to raise limits and priorities; an ordinary one has none.
fn drop_resource_rights() {
    const SYS_NICE: u64 = 1 << 23;
    const SYS_RESOURCE: u64 = 1 << 24;
    if am_root() {
        let now = identity::capabilities().unwrap();
        let kept = |set: u64| set & !(SYS_NICE | SYS_RESOURCE);
        let sets = identity::Sets { effective: kept(now.effective), permitted: kept(now.permitted), ..now };
        identity::set_capabilities(sets).unwrap();
    }
}

#[test]
fn user_limits_that_cannot_be_had_end_the_start() {
    let (_, hard) = limits::limit(Resource::Nofile).unwrap();
    let host = Host::start_after(|| {
        drop_resource_rights();
        limits::set_limit(Resource::Nofile, 256, 256).unwrap();
    });
    assert!(hard > 256);
    let mut plan = shell("echo ran");
    plan.limits = vec![Limit { resource: Resource::Nofile, soft: 256, hard: 257 }];
    let nofile = Resource::Nofile as u32;
    assert_eq!(host.run(&plan).failure, Some((Stage::Limits, libc::EPERM, nofile)));
    plan.limits = vec![];
    plan.nice = Some(-20);
    assert_eq!(host.run(&plan).failure, Some((Stage::Limits, libc::EACCES, NICE)));
    plan.nice = None;
    plan.cpus = vec![8191];
    assert_eq!(host.run(&plan).failure, Some((Stage::Limits, libc::EINVAL, CPUS)));
}

#[test]
fn user_a_terminal_that_is_none_ends_the_start() {
    let mut plan = shell("echo ran");
    plan.terminal = true;
    let outcome = Host::start().run(&plan);
    assert_eq!((outcome.failure, outcome.output.as_str()), (Some((Stage::Terminal, libc::ENOTTY, 0)), ""));
}

#[test]
fn user_a_missing_directory_ends_the_start() {
    let mut plan = shell("echo ran");
    plan.directory = "/no/such/directory".to_owned();
    assert_eq!(Host::start().run(&plan).failure, Some((Stage::Directory, libc::ENOENT, 0)));
}

#[test]
fn user_without_close_range_the_slow_way_closes_as_much() {
    let host = Host::start_after(|| {
        // A descriptor that stays open across an exec unless somebody sees to it.
        let null = File::open("/dev/null").unwrap_or_else(|_| supervise::sys::clone::end(99));
        // SAFETY: the number is free in this process.
        unsafe { libc::dup2(null.as_raw_fd(), 200) };
        std::mem::forget(null);
        refuse(libc::SYS_close_range, None, libc::ENOSYS);
    });
    let outcome = host.run(&shell("ls /proc/$$/fd; :"));
    assert_eq!(outcome.output, "0\n1\n2\n", "{outcome:?}");
}

#[test]
fn user_a_plan_that_is_none_ends_the_start() {
    let host = Host::start();
    let good = shell("echo ran").encode().unwrap();
    let flipped = {
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let null = File::open("/dev/null").unwrap();
    let failed = |bad: Bad| Some((Stage::Plan, 0, bad as u32));
    assert_eq!(host.ask(&flipped, &[], None).go().failure, failed(Bad::Checksum));
    assert_eq!(host.ask(&[], &[], None).go().failure, failed(Bad::Size));
    assert_eq!(host.ask(&good[..40], &[], None).go().failure, failed(Bad::Size));
    assert_eq!(host.ask(&good, &[null.as_fd()], None).go().failure, failed(Bad::Sockets));
    assert_eq!(host.ask(&good, &[], None).go().output, "ran\n");
}

/// Launches in a fork of the test itself, with descriptors at chosen numbers.
fn direct(sockets: [i32; 2], script: &str, first: impl FnOnce()) -> (i32, String) {
    let mut plan = shell(script);
    let socket = |name: &str| Passed { name: name.to_owned(), address: ":0".to_owned() };
    plan.sockets = vec![socket("a"), socket("b")];
    if am_root() {
        plan.identity = Some(Identity::new(65534, 65534, &[]));
    }
    let image = memfd::sealed(c"plan", &plan.encode().unwrap()).unwrap();
    let (output, output_write) = fds::pipe(0).unwrap();
    let (gate, open) = fds::pipe(0).unwrap();
    fds::write(open.as_fd(), b"x").unwrap();
    let (zero, null) = (File::open("/dev/zero").unwrap(), File::open("/dev/null").unwrap());
    // SAFETY: the fork only makes system calls.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        first();
        // SAFETY: high numbers are free in this process, low ones are given up.
        let at = |fd: i32, number: i32| unsafe {
            libc::dup2(fd, number);
            OwnedFd::from_raw_fd(number)
        };
        let kept = [
            image.as_raw_fd(),
            gate.as_raw_fd(),
            output_write.as_raw_fd(),
            zero.as_raw_fd(),
            null.as_raw_fd(),
        ];
        let high: [OwnedFd; 5] = std::array::from_fn(|index| at(kept[index], 300 + index as i32));
        let low = [at(303, sockets[0]), at(304, sockets[1])].map(Some);
        let [image, gate, output, _, null] = &high;
        let stdio = [null.as_fd(), output.as_fd(), output.as_fd()];
        let (image, gate) = (image.as_fd(), gate.as_fd());
        launch::run(&Job { plan: image, gate, status: null.as_fd(), stdio, sockets: &low });
    }
    drop(output_write);
    let text = std::io::read_to_string(File::from(output)).unwrap();
    (wait(pid), text)
}

#[test]
fn user_sockets_that_sit_in_each_others_places_are_sorted_out() {
    let script = "readlink /proc/$$/fd/3 /proc/$$/fd/4; ls /proc/$$/fd; :";
    for numbers in [[4, 3], [3, 4], [4, 5]] {
        let (end, text) = direct(numbers, script, || ());
        assert_eq!((end, text.as_str()), (0, "/dev/zero\n/dev/null\n0\n1\n2\n3\n4\n"), "{numbers:?}");
    }
}

#[test]
fn user_a_socket_in_the_place_of_standard_input_is_refused() {
    let (end, text) = direct([0, 5], "echo ran", || ());
    assert_eq!((end, text.as_str()), (Stage::Stdio.exit_code(), ""));
}

#[test]
fn user_a_group_leader_cannot_start_a_session() {
    // SAFETY: setpgid touches no memory.
    let (end, text) = direct([10, 11], "echo ran", || assert_eq!(unsafe { libc::setpgid(0, 0) }, 0));
    assert_eq!((end, text.as_str()), (Stage::Session.exit_code(), ""));
    assert_eq!(forked_exit(), 7);
}

/// The fork itself hands an exit code through, or the test above would prove little.
fn forked_exit() -> i32 {
    let (keep, _other) = fds::pipe(0).unwrap();
    wait(forked(keep, |_| 7))
}
