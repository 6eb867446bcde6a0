//! USER. `man/supervise.8`: the administrator's part, with the limits that are in force. Never written by hand.

use super::{section, start};
use crate::manager::control;
use crate::manager::exec;
use crate::unit::manual::paragraph_of;
use crate::wire::request::MOST_GLOBS;
use crate::wire::{control as replies, names, varlink};

const ABOUT: &[&str] = &[
    "`supervise run` stays in the foreground and is four processes: the keeper, which is the one that was started and \
     the parent of everything; the zygote, which clones itself for each start; the manager, which reads units, decides \
     and answers; and the logger. Any of them may be killed: services go on, sockets stay open, and the keeper starts \
     the others again.",
    "This page is about where it runs and what it does there. The commands are in supervise(1), unit files in \
     supervise-unit(5).",
];

type Rows = &'static [(&'static str, &'static str)];

const SECTIONS: &[(&str, Rows)] = &[
    (
        "RUNNING IT",
        &[
            (
                "under systemd",
                "a unit with `Type=notify`, `NotifyAccess=all`, `KillMode=process`, `Restart=always` and `Delegate=yes`, as \
                 the one in `contrib` is: it is ready when all sockets are bound and the control socket answers. With \
                 `FileDescriptorStoreMax=` the listening sockets survive a restart of the unit. Without the `ExecStopPost=` \
                 of that unit systemd cannot start it again where all of supervise was killed at once and services have \
                 limits (219/CGROUP).",
            ),
            (
                "under runit, s6, OpenRC or another supervisor",
                "`exec supervise run`: it does not go into the background.",
            ),
            (
                "as PID 1",
                "in a container: it reaps orphans and passes signals on. `supervise init` is for one command alone.",
            ),
            (
                "as an ordinary user",
                "services run as the same user; ports below `net.ipv4.ip_unprivileged_port_start` cannot be bound.",
            ),
        ],
    ),
    (
        "CONTROL GROUPS AND KERNELS",
        &[
            (
                "cgroup v2",
                "Each incarnation has a group below the one in which supervise was started, where that can be written; else \
                 services are followed as process trees, and `status` says so. Limits of an instance need the controllers \
                 of that group as well, and that nobody else is in it: supervise itself moves to `supervise.own` below. \
                 `status` tells which limit does not hold and why, and what limits have done. While two incarnations of an \
                 instance overlap, as in a restart, each has all of its limits: leave room for twice `instances` times \
                 `memory-max`.",
            ),
            ("before Linux 6.15", "how a service ended that outlived its keeper is not known."),
            ("before Linux 6.9", "`MAINPIDFDID=` is not compared with the process that `MAINPID=` names."),
            ("before Linux 5.19", "how much memory an incarnation had at most is not told."),
        ],
    ),
    (
        "SIGNALS",
        &[
            ("TERM, INT, QUIT", "Stop every service in order, then exit. A second one skips the grace."),
            ("HUP", "Units are read when it starts; nothing reads them again yet."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/supervise/units, /usr/lib/supervise/units",
                "Units; the former go first. `defaults.toml` beside the directory lies under every unit, \
                 `NAME.toml.d/*.toml` over one. Files that others than root can write are not used.",
            ),
            (
                "/run/supervise",
                "`control`, which everybody may connect to and few are answered on; `notify`; `locks`; `mirror`, \
                 which says what runs, with the values of its environment, for the case that all of supervise is killed at \
                 once, and which only its owner can read; and `handover` while a new keeper is awaited. One supervisor at a time has it: a second one is refused.",
            ),
            ("/var/log/supervise/NAME", "`current` and what was rotated."),
            (
                "$XDG_CONFIG_HOME/supervise/units, $XDG_RUNTIME_DIR/supervise, $XDG_STATE_HOME/supervise",
                "The same of a user, `$XDG_STATE_HOME/supervise/run` without a runtime directory.",
            ),
        ],
    ),
    (
        "WHO MAY WHAT",
        &[
            ("root and the user who runs it", "everything."),
            (
                "whom a service runs as",
                "may see that service, read its output, and run commands as it (`exec`).",
            ),
            (
                "others",
                "what `[access]` of a unit gives: `status`, `logs`, `control`, each including the ones before. A \
                 service that somebody may not see is for them one that does not exist. The kernel says who asks: the \
                 user and the groups at the moment of connecting.",
            ),
        ],
    ),
    (
        "RECOVERY",
        &[
            (
                "the manager is killed",
                "a new one takes descriptors and state from the keeper. Commands that wait go on waiting. Units are \
                 not read again.",
            ),
            ("the zygote or the logger is killed", "a new one is started; no line of output is lost."),
            (
                "the keeper is killed",
                "the manager waits 2 s for the init to start another one, which takes everything over; else it goes on \
                 as the keeper itself.",
            ),
            (
                "all of them at once",
                "services run on and are served by nobody but themselves: their sockets stay open. The next `supervise \
                 run` with the same runtime directory adopts them, with their sockets, as far as the kernel confirms \
                 what the file `mirror` in there says; what it cannot adopt is ended where it is in a cgroup of supervise, \
                 and named where it is not. Lost are what they write meanwhile (without a reader a write fails, or \
                 SIGPIPE ends who has not chosen otherwise), stored descriptors, the sockets of services that do not run, \
                 unless an init keeps them, and how one ended that ended meanwhile. Taking sockets back needs \
                 CAP_SYS_PTRACE, or for an ordinary user kernel.yama.ptrace_scope = 0.",
            ),
            (
                "a service crashes",
                "it is started again after `delay`, which doubles up to `max-delay`, for ever. `supervise why` tells \
                 how it ended.",
            ),
        ],
    ),
    (
        "WHAT A SERVICE MAY SAY",
        &[
            (
                "to whom",
                "a service with `ready = \"notify\"` or a `watchdog` has a socket of its own, `NOTIFY_SOCKET`, that its \
                 user and root can write to. As in sd_notify(3), a message is lines of the form below; what is \
                 unknown, or begins with `X_`, is passed over, and so is EXIT_STATUS, which is for those above.",
            ),
            (
                "READY=1, STOPPING=1, STATUS=",
                "it is ready; it goes down; how it is, in a line of at most 512 bytes.",
            ),
            ("RELOADING=1", "it reads its configuration anew, for at most a minute, until READY=1."),
            (
                "ERRNO=, BUSERROR=, VARLINKERROR=",
                "what is wrong with it, told by `status` and `why`; 0 or nothing takes it back.",
            ),
            (
                "WATCHDOG=1, WATCHDOG=trigger, WATCHDOG_USEC=",
                "it lives; it is to be ended as if it had not said so; how often it will say so.",
            ),
            ("EXTEND_TIMEOUT_USEC=", "so much more time to start, to reload or to stop, from now on."),
            ("RESTART_RESET=1", "what failed before is mended: the next delay is the first again."),
            (
                "MAINPID=, with MAINPIDFDID= or with MAINPIDFD=1 and a descriptor",
                "another process is the main one: the signals go to it, and its end is the service's. It has to be in \
                 the service's cgroup, or without one in its session, and to run as its user unless root says so. In \
                 any other case `status` tells why it is not followed.",
            ),
            (
                "FDSTORE=1, with descriptors, FDNAME= and FDPOLL=0",
                "keeps them for the next start of the same instance, which gets them behind its sockets by \
                 `LISTEN_FDS`, under their name or `stored`. What is the same open file is kept once, and what has \
                 lost its other end no longer, unless FDPOLL=0 was said. Sockets, pipes, pseudo terminals, files in \
                 memory and what has no name are kept, up to `$FDSTORE` of an instance; files, directories and devices \
                 are not. They go with `stop`, not with `stop --hold` or a restart, and nobody else's user gets them. \
                 A rehearsal has nothing to do with them, and beside `ready = { fd = N }` there are none.",
            ),
            ("FDSTOREREMOVE=1, with FDNAME=", "keeps those of that name no longer."),
            (
                "NOTIFYACCESS=",
                "`none`, `main` or `all`: who of it is believed from now on, until its next start.",
            ),
            ("BARRIER=1, with a descriptor", "is closed when all before it has been taken."),
        ],
    ),
];

/// The whole page.
pub fn page() -> String {
    let mut page =
        start("SUPERVISE 8", "System administration", "the process supervisor, for those who run it", ABOUT);
    for (title, rows) in SECTIONS {
        section(&mut page, title, rows);
    }
    page.push_str(".SH LIMITS\n");
    page.push_str(&paragraph_of(
        "Of the control socket; whoever passes one is hung up on. Where supervise may have fewer than 2048 open files there \
         are fewer clients and commands, in proportion, so that services and root do not lack any.",
    ));
    for (name, text) in limits() {
        page.push_str(&format!(".TP\n.B {name}\n{}", paragraph_of(&text)));
    }
    page.push_str(".SH SEE ALSO\n.BR supervise (1),\n.BR supervise\\-unit (5)\n");
    page
}

/// As they are in force.
fn limits() -> Vec<(&'static str, String)> {
    let seconds = |ms: u64| format!("{} s", ms / 1000);
    vec![
        (
            "a call",
            format!(
                "at most {} KiB, nested at most {} deep, with at most {} names of at most {} bytes, {} of them globs.",
                varlink::MOST_CALL / 1024,
                varlink::MOST_DEPTH,
                names::MOST_NAMES,
                names::MOST_NAME,
                MOST_GLOBS
            ),
        ),
        ("a reply", format!("at most {} KiB.", replies::MOST_SENT / 1024)),
        (
            "clients",
            format!(
                "at most {} at once, {} of one user who is neither root nor the supervisor's own, and {} places are for \
                 those two alone.",
                control::MOST_CLIENTS,
                control::MOST_PER_UID,
                control::RESERVED
            ),
        ),
        (
            "commands of exec",
            format!(
                "at most {} at once, {} of one user who is neither root nor the supervisor's own, and {} places are for \
                 those two alone. Together the commands of a service have its limits on memory, processors and \
                 processes once more, besides the service itself, where there is a cgroup v2.",
                exec::MOST_AT_ONCE,
                exec::MOST_PER_UID,
                exec::RESERVED
            ),
        ),
        (
            "time",
            format!(
                "{} to the first byte, {} from the first byte of a call to its last, {} in which nothing is read of \
                 what waits.",
                seconds(control::FIRST_BYTE_MS),
                seconds(control::CALL_MS),
                seconds(control::WRITE_MS)
            ),
        ),
        (
            "what waits for a client",
            format!(
                "at most {} KiB; of events, those that do not fit are counted.",
                control::MOST_QUEUED / 1024
            ),
        ),
    ]
}
