//! Reports and the whole text that people read.

use super::*;
use crate::plan::{Limit, Passed};
use crate::wire::zygote::Weight;

fn plan() -> ExecPlan {
    ExecPlan {
        argv: vec!["gunicorn".to_owned(), "shop.wsgi".to_owned()],
        candidates: vec!["/usr/local/bin/gunicorn".to_owned(), "/usr/bin/gunicorn".to_owned()],
        env: vec!["SECRET=hunter2".to_owned()],
        pid_variables: vec![],
        directory: "/srv/shop".to_owned(),
        identity: Some(Identity::new(1001, 1002, &[33, 1002])),
        umask: 0o027,
        limits: vec![Limit { resource: Resource::Nofile, soft: 1024, hard: 524_288 }],
        nice: Some(-5),
        oom_score_adj: Some(-900),
        cpus: vec![],
        terminal: false,
        sockets: vec![Passed { name: "http".to_owned(), address: "0.0.0.0:80".to_owned() }],
    }
}

fn said(stage: Stage, errno: i32, detail: u32) -> String {
    said_with(stage, errno, detail, None)
}

fn said_with(stage: Stage, errno: i32, detail: u32, fact: Option<&Fact>) -> String {
    let report = Report { weight: Weight::Failure, stage: stage as u8, errno, detail };
    explain(&plan(), &report, fact).to_string()
}

#[test]
fn each_failure_names_step_object_reason_and_remedy() {
    let cases = [
        (
            said(Stage::Directory, errno::EACCES, 0),
            "changing to the working directory: /srv/shop: permission denied\n\
             hint: user 1001 needs the right to search it and every directory above",
        ),
        (
            said(Stage::Exec, errno::ENOENT, NOWHERE),
            "executing the command: gunicorn: not found in /usr/local/bin, /usr/bin\n\
             hint: write its path with a slash, or set PATH in `environment`",
        ),
        (
            said(Stage::Exec, errno::ENOENT, 1),
            "executing the command: /usr/bin/gunicorn: no such file or directory\n\
             hint: the file is there; the interpreter or loader that it names is not",
        ),
        (
            said(Stage::Exec, errno::ENOEXEC, 0),
            "executing the command: /usr/local/bin/gunicorn: exec format error\n\
             hint: a script needs a first line such as `#!/bin/sh`; a program has to be for this machine",
        ),
        (
            said(Stage::Limits, errno::EPERM, Resource::Nofile as u32),
            "setting resource limits: nofile 1024:524288: operation not permitted\n\
             hint: no process may have more than fs.nr_open, and supervise no more than its own hard limit without \
             CAP_SYS_RESOURCE: ask for less, or raise that (`sysctl fs.nr_open=N`)",
        ),
        (
            said(Stage::User, errno::EPERM, 0),
            "setting the user: 1001: operation not permitted\n\
             hint: changing the user needs root with its capabilities; leave out `user` to run as yourself",
        ),
        (
            said(Stage::Bounding, errno::EPERM, 21),
            "limiting capabilities: sys_admin: operation not permitted\n\
             hint: changing the user needs root with its capabilities; leave out `user` to run as yourself",
        ),
        (
            said(Stage::Verify, 0, Check::WayBackToUser as u32),
            "verifying that privileges are gone: the process could become root again",
        ),
        (said(Stage::Plan, 0, Bad::Checksum as u32), "reading the execution plan: it has a wrong checksum"),
        (said(Stage::Gate, 0, 0), "waiting to be let through: gate lost, as the manager ended"),
        (
            said(Stage::Oom, errno::EACCES, 0),
            "setting the out-of-memory score: -900: permission denied\n\
             hint: lowering it needs CAP_SYS_RESOURCE, which supervise does not have here: leave it out, or run \
             supervise as root",
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(said, expected);
    }
}

#[test]
fn what_accounts_links_and_capabilities_of_files_have_to_do_with_it_is_told() {
    let cases = [
        (
            said(Stage::Groups, errno::EINVAL, 0),
            "setting supplementary groups: 33 1002: invalid argument\n\
             hint: is this a user namespace, as of a container, which has no such number? Map it, or name another account",
        ),
        (
            said(Stage::Exec, errno::EPERM, 1),
            "executing the command: /usr/bin/gunicorn: operation not permitted\n\
             hint: does the file have capabilities (`getcap`) that the service may not have? List them in `capabilities`, or \
             remove them (`setcap -r`)",
        ),
        (
            said(Stage::Directory, errno::ELOOP, 0),
            "changing to the working directory: /srv/shop: too many symbolic links encountered\n\
             hint: a symbolic link on the way leads in a circle: write the path without it",
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(said, expected);
    }
}

#[test]
fn what_was_found_at_the_file_wins_over_a_guess() {
    let fact = Fact::new(Clue::MissingInterpreter as u8, b"/usr/bin/python9".to_vec());
    assert_eq!(
        said_with(Stage::Exec, errno::ENOENT, 0, fact.as_ref()),
        "executing the command: /usr/local/bin/gunicorn: no such file or directory\n\
         hint: its first line names `/usr/bin/python9`, which does not exist"
    );
    let hint = |clue: Clue, text: &[u8]| {
        let fact = Fact::new(clue as u8, text.to_vec());
        let said = said_with(Stage::Exec, errno::EACCES, 0, fact.as_ref());
        said.split_once("\nhint: ").unwrap().1.to_owned()
    };
    let number = |number: u64| number.to_le_bytes();
    assert_eq!(hint(Clue::NotExecutable, &number(0o644)), "its mode is 0644; user 1001 may not execute it");
    assert_eq!(
        hint(Clue::OtherMachine, &number(183)),
        "it is a program for aarch64, and this machine does not run it"
    );
    // Nobody writes into a log or to a terminal by the first line of a file.
    assert_eq!(
        hint(Clue::MissingInterpreter, b"/bin/\x1b[2J\xff"),
        "its first line names `/bin/\\u{1b}[2J\u{fffd}`, which does not exist"
    );
    assert_eq!(
        hint(Clue::MissingInterpreter, b"/bin/sh\r"),
        "its first line names `/bin/sh\\r`: its lines end in CR LF, and the CR counts as part of the name"
    );
    assert_eq!(Fact::new(99, vec![]), None, "of another version");
    for clue in Clue::ALL {
        assert!(!hint(clue, b"").is_empty());
    }
}

#[test]
fn a_report_of_another_version_still_says_something() {
    let report = Report { weight: Weight::Failure, stage: 77, errno: errno::EPERM, detail: 0 };
    assert_eq!(explain(&plan(), &report, None).text, "an unknown step 77 failed: operation not permitted");
}

#[test]
fn no_report_shows_a_value_of_the_environment() {
    for stage in Stage::ALL {
        for number in [0, errno::EPERM, errno::ENOENT] {
            assert!(!said(stage, number, 0).contains("hunter2"));
        }
    }
}
